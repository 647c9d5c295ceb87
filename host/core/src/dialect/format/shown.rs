//! Success that is shown: the shape that an answer of an operation has, and no error has.

use super::usage::Counts;
use crate::http::json::{self, Cursor};

/// Contents of the body of a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// The shape of an answer.
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

/// The deepest that content is looked for, in lists and objects inside each other.
const MAX_DEPTH: u32 = 8;

/// Returns true if some text, number or object that an answer is made of is filled in here: not its types, names and states.
pub(in crate::dialect) fn holds_content(value: &[u8]) -> bool {
    holds_content_within(value, MAX_DEPTH)
}

fn holds_content_within(value: &[u8], depth: u32) -> bool {
    let is_label =
        |name: &[u8]| matches!(name, b"type" | b"id" | b"role" | b"status" | b"index" | b"object" | b"call_id");
    match value.first() {
        // What is deeper than that is not empty.
        Some(b'{' | b'[') if depth == 0 => json::is_filled(value),
        Some(b'{') => {
            json::members(value).any(|(name, value)| !is_label(name) && holds_content_within(value, depth - 1))
        }
        Some(b'[') => {
            let mut at = Cursor::new(value);
            at.enter(b'[')
                && std::iter::from_fn(|| at.has_element().then(|| at.value()))
                    .any(|e| holds_content_within(e, depth - 1))
        }
        Some(b'f') | None => false,
        Some(_) => json::is_filled(value),
    }
}

/// Elements of the list that this member is; none where it is no list.
pub(in crate::dialect) fn elements_of<'a>(body: &'a [u8], name: &str) -> Option<impl Iterator<Item = &'a [u8]>> {
    let mut at = Cursor::new(json::member(body, name)?);
    at.enter(b'[').then(|| std::iter::from_fn(move || at.has_element().then(|| at.value())))
}
