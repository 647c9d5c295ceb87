//! The journal's contents beyond an exchange's record: the [`Trail`], with every question to the policy and its
//! answer, and the [`Setup`] under which it ran. From the two an exchange can be explained, decided again by another
//! policy, and simulated.

mod codec;
mod setup;
#[cfg(test)]
mod tests;
mod trail;

pub use codec::{TrailError, VERSION, decode, encode};
pub use setup::{Setup, Terms};
pub use trail::{Failed, Happened, MAX_TRAIL_BYTES, Question, StateUse, Step, Trail};
