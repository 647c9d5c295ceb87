//! Errors in OpenAI's words.

use memchr::memmem;

use crate::dialect::format::is_error;
use crate::http::json;
use crate::http::sse::Event;

/// The error in `data: {"error":...}`, in the Responses API's `error` and `response.failed`, and in a bare `event: error`
/// with any data.
pub(super) fn in_event<'a>(event: &Event<'a>) -> Option<&'a [u8]> {
    let data = event.data?;
    match event.name {
        Some(b"error") => Some(data),
        Some(b"response.failed") => Some(json::member(data, "response").unwrap_or(data)),
        // Most events end here, without being read.
        Some(_) | None if memmem::find(data, b"\"error\"").is_none() => None,
        Some(_) | None if is_error(data) => Some(data),
        // A server that leaves out the `event` line.
        Some(_) | None if json::member(data, "type") == Some(b"\"response.failed\"") => json::member(data, "response"),
        Some(_) | None => None,
    }
}
