//! Errors in OpenAI's words.

use memchr::memmem;

use crate::dialect::classify::is_error;
use crate::dialect::envelope::ErrorKind;
use crate::http::json;
use crate::http::sse::Event;
use crate::outcome::Kind;

const INVALID: &str = "invalid_request_error";

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

/// The `type` of an error of ours.
pub(in crate::dialect) const fn own_type(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AllPoolsExhausted => "AllPoolsExhausted",
        ErrorKind::InvalidRequest
        | ErrorKind::BodyTooLarge
        | ErrorKind::HeadersTooLarge
        | ErrorKind::Unauthorised
        | ErrorKind::ModelNotFound => INVALID,
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::BudgetExceeded => "insufficient_quota",
        ErrorKind::Timeout => "timeout_error",
        ErrorKind::StreamBroken | ErrorKind::UpstreamFailed | ErrorKind::ShuttingDown | ErrorKind::Internal => {
            "server_error"
        }
    }
}

/// The `type` and `code` of an upstream's error.
pub(in crate::dialect) const fn translated(kind: Kind, status: u16) -> (&'static str, Option<&'static str>) {
    match (kind, status) {
        (Kind::OutOfCredit, _) => ("insufficient_quota", Some("insufficient_quota")),
        (Kind::RateLimited, _) => ("rate_limit_error", Some("rate_limit_exceeded")),
        (Kind::Overloaded, _) => ("server_error", Some("overloaded")),
        (Kind::TooLong, _) => (INVALID, Some("context_length_exceeded")),
        (Kind::ModelMissing, _) => (INVALID, Some("model_not_found")),
        (Kind::Unauthorised | Kind::Refused, 403) => ("permission_error", None),
        (Kind::Unauthorised, _) => (INVALID, Some("invalid_api_key")),
        (Kind::Refused, 413) => (INVALID, Some("request_too_large")),
        (Kind::Refused, _) => (INVALID, None),
        (Kind::TimedOut | Kind::ServerError, 408 | 504) | (Kind::TimedOut, _) => ("timeout_error", Some("timeout")),
        (
            Kind::ServerError
            | Kind::Answered
            | Kind::ConnectFailed
            | Kind::Reset
            | Kind::Cut
            | Kind::Stalled
            | Kind::Malformed
            | Kind::NotResumed
            | Kind::ClientGone,
            _,
        ) => ("server_error", None),
    }
}
