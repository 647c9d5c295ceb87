//! Results of reading a body.

use bytes::Bytes;

use crate::outcome::{Kind, Outcome};

/// Result of reading some bytes of a body.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Bytes that may be passed on.
    pub(super) bytes: Bytes,
    /// Then this was found; nothing after it is read.
    pub(super) failed: Option<Outcome>,
}

/// A stream that ends before the model has finished was cut, however politely.
pub(super) fn cut_short() -> Outcome {
    Outcome::new(Kind::Cut, "the upstream ended the stream before the answer was complete")
}

/// The outcome of a text that came in a form that cannot be read.
pub(super) fn unreadable() -> Outcome {
    Outcome::new(Kind::Malformed, "the upstream sent an event with a text in it that is not JSON")
}
