//! The loop of a policy's author: a new project, its component, what the proxy says of it, how fast it decides.
//!
//! Everything here judges with the engine that the proxy judges with. Results are values; the command line prints them.

pub mod bench;
pub mod build;
pub mod check;
mod format;
pub mod guide;
pub mod new;
pub mod sdk;
