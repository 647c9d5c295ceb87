//! Usage of an answer, read from the bytes that pass: of a stream by its events, of any other body by its chunks.

mod body;
mod stream;

pub use body::BodyTap;
pub use stream::StreamTap;

pub use super::format::{Counts, Sight, Tally};
