//! Usage of an answer, read from the bytes that pass: of a stream by its events, of any other body by its chunks.

mod body;
mod plausible;
mod stream;

pub use body::BodyTap;
pub use plausible::Asked;
pub use stream::StreamTap;

pub use super::format::{Counts, Sight, Tally};

/// Bytes of answer text that count as one token where the provider does not count.
const BYTES_PER_TOKEN: u64 = 4;
