//! The laboratory: policies tried in virtual time, with core's own state machines.
//!
//! [`world`] is a world in which core's `Exchange` and `Fleet` do what they do in the server, while requests and
//! backends' answers come from elsewhere: from a [`scenario`] file here.

pub mod answer;
pub mod world;
pub mod recorder;
pub mod story;
pub mod scenario;
pub mod trial;
