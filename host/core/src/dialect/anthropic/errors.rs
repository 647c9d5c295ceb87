//! Errors in Anthropic's words.

use crate::dialect::format::{ErrorKind, Finish, is_error, says_something};
use crate::http::json;
use crate::http::sse::Event;
use crate::outcome::Kind;

const INVALID: &str = "invalid_request_error";

/// The error in `event: error`, also where a server leaves out the `event` line, and in a failed stop reason.
pub(super) fn in_event<'a>(event: &Event<'a>) -> Option<&'a [u8]> {
    let data = event.data?;
    if event.name == Some(b"error") {
        return Some(data);
    }
    let kind = json::member(data, "type").and_then(json::raw_str).or(event.name).unwrap_or_default();
    match kind {
        b"message_delta" => {
            let delta = json::member(data, "delta")?;
            let reason = json::member(delta, "stop_reason").unwrap_or_default();
            (Finish::read(reason) == Finish::Failed).then_some(delta)
        }
        b"content_block_delta" => json::member(data, "delta").filter(|delta| has_error(delta)),
        b"message_stop" => has_error(data).then_some(data),
        b"message_start" | b"content_block_start" | b"content_block_stop" | b"ping" => None,
        _ => is_error(data).then_some(data),
    }
}

fn has_error(value: &[u8]) -> bool {
    json::member(value, "error").is_some_and(says_something)
}

/// The `type` of an error of ours.
pub(super) const fn own_type(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AllPoolsExhausted | ErrorKind::ShuttingDown | ErrorKind::Overloaded => "overloaded_error",
        ErrorKind::InvalidRequest | ErrorKind::HeadersTooLarge => INVALID,
        ErrorKind::BodyTooLarge => "request_too_large",
        ErrorKind::Unauthorised => "authentication_error",
        ErrorKind::Forbidden => "permission_error",
        ErrorKind::ModelNotFound | ErrorKind::NotFound => "not_found_error",
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::BudgetExceeded => "billing_error",
        ErrorKind::Timeout => "timeout_error",
        ErrorKind::StreamBroken | ErrorKind::UpstreamFailed | ErrorKind::Internal => "api_error",
    }
}

/// The `type` of an upstream's error.
pub(super) const fn translated(kind: Kind, status: u16) -> &'static str {
    match (kind, status) {
        (Kind::OutOfCredit, _) => "billing_error",
        (Kind::RateLimited, _) => "rate_limit_error",
        (Kind::Overloaded, _) => "overloaded_error",
        (Kind::TooLong | Kind::Refused, 413) => "request_too_large",
        (Kind::ModelMissing, _) | (Kind::Refused, 404) => "not_found_error",
        (Kind::Unauthorised | Kind::Refused, 403) => "permission_error",
        (Kind::Unauthorised, _) => "authentication_error",
        (Kind::TooLong | Kind::Refused, _) => INVALID,
        (Kind::TimedOut | Kind::ServerError, 408 | 504) | (Kind::TimedOut, _) => "timeout_error",
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
        ) => "api_error",
    }
}
