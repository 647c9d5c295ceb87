//! What the journal keeps of an exchange beyond its record: the [`Trail`], with every question and answer of its policy, and
//! the [`Setup`] under which it ran. Together they let it be told, decided again, and lived through again.

mod codec;
pub(crate) mod forms;
mod setup;
#[cfg(test)]
mod tests;
mod trail;

pub use codec::{TrailError, VERSION, decode, encode};
pub use setup::{Setup, Terms};
pub use trail::{Failed, Happened, MAX_TRAIL_BYTES, Question, StateUse, Step, Trail};
