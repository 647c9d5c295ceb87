//! Errors in OpenAI's words.

use crate::dialect::format::{Finish, is_error, is_failed_status, says_something};
use crate::http::json::{self, Cursor};
use crate::http::sse::Event;

/// Types of a Responses stream's events that say that it failed.
pub(super) const FAILED: [&[u8]; 3] = [b"response.failed", b"response.cancelled", b"response.canceled"];

/// The error in `data: {"error":...}`, in an `error` or a failed finish reason of a choice, in the Responses API's `error` and
/// `response.failed`, in a response that ended as failed, and in a bare `event: error` with any data.
pub(super) fn in_event<'a>(event: &Event<'a>) -> Option<&'a [u8]> {
    let data = event.data?;
    if event.name == Some(b"error") {
        return Some(data);
    }
    let kind = json::member(data, "type").and_then(json::raw_str);
    let is_failed = |kind: &[u8]| FAILED.contains(&kind);
    if kind.or(event.name).is_some_and(is_failed) || event.name.is_some_and(is_failed) {
        return Some(json::member(data, "response").unwrap_or(data));
    }
    if kind.is_some_and(|kind| kind.starts_with(b"response."))
        && json::member(data, "error").is_some_and(says_something)
    {
        return Some(data);
    }
    if let Some(response) = json::member(data, "response").filter(|_| kind.is_some_and(|k| k.starts_with(b"response.")))
    {
        return failed_response(response).then_some(response);
    }
    if kind.is_some_and(|kind| kind.starts_with(b"response.")) {
        return None;
    }
    match json::member(data, "choices") {
        Some(choices) if json::is_filled(choices) => {
            let is_failed = |(name, value): (&[u8], &[u8])| match name {
                b"error" => says_something(value),
                b"base_resp" => is_failed_status(value),
                _ => false,
            };
            if json::members(data).any(is_failed) { Some(data) } else { failed_choice(choices) }
        }
        Some(_) | None => is_error(data).then_some(data),
    }
}

/// Returns true if this response, whole, ended as failed.
pub(super) fn failed_response(response: &[u8]) -> bool {
    json::members(response).any(|(name, value)| match name {
        b"error" => says_something(value),
        b"incomplete_details" => {
            json::member(value, "reason").is_some_and(|reason| Finish::read(reason) == Finish::Failed)
        }
        b"status" => matches!(value, b"\"failed\"" | b"\"cancelled\""),
        _ => false,
    })
}

/// The first of these choices that has an error or a finish reason that stands for one: its error, or all of it.
pub(super) fn failed_choice(choices: &[u8]) -> Option<&[u8]> {
    let mut at = Cursor::new(choices);
    at.enter(b'[');
    while at.has_element() {
        let choice = at.value();
        for (name, value) in json::members(choice) {
            match name {
                b"error" if says_something(value) => return Some(choice),
                b"finish_reason" if Finish::read(value) == Finish::Failed => return Some(choice),
                b"message" | b"delta" if json::member(value, "error").is_some_and(says_something) => {
                    return Some(value);
                }
                _ => {}
            }
        }
    }
    None
}
