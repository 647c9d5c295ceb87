//! Success that is shown: the shape that an answer of an operation has, and no error has.

use super::usage::Counts;
use crate::http::json::{self, Cursor};

/// Contents of the body of a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// An answer.
    Answer,
    /// An answer with nothing in it: no content, no tool call, and no tokens counted.
    Empty,
    /// An answer that says of itself that it failed: the part that says so.
    Failed(&'a [u8]),
    /// No answer; the reason, as the rest of a sentence about the body.
    Nothing(&'static str),
}

/// Returns the tokens of the answer that a body's top-level `usage` tells; 0 where it tells none.
pub(in crate::dialect) fn told_output_tokens(body: &[u8]) -> u64 {
    let mut counts = Counts::default();
    if let Some(usage) = json::member(body, "usage") {
        counts.read(usage);
    }
    counts.output
}

/// Returns an empty answer or an answer, by whether it has content or counted tokens.
pub(in crate::dialect) fn filled_or_empty(has_content: bool, body: &[u8]) -> Shown<'_> {
    if has_content || told_output_tokens(body) > 0 { Shown::Answer } else { Shown::Empty }
}

/// Elements of the list that this member is; none where it is no list.
pub(in crate::dialect) fn elements_of<'a>(body: &'a [u8], name: &str) -> Option<impl Iterator<Item = &'a [u8]>> {
    let mut at = Cursor::new(json::member(body, name)?);
    at.enter(b'[').then(|| std::iter::from_fn(move || at.has_element().then(|| at.value())))
}
