//! The `type` and `code` of errors in OpenAI's words, which most clients understand.

use super::error_kind::ErrorKind;
use crate::outcome::Kind;

const INVALID: &str = "invalid_request_error";

/// The `type` of an error of ours.
pub(super) const fn error_type(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AllPoolsExhausted => "AllPoolsExhausted",
        ErrorKind::InvalidRequest
        | ErrorKind::BodyTooLarge
        | ErrorKind::HeadersTooLarge
        | ErrorKind::Unauthorised
        | ErrorKind::Forbidden
        | ErrorKind::ModelNotFound
        | ErrorKind::NotFound => INVALID,
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::BudgetExceeded => "insufficient_quota",
        ErrorKind::Timeout => "timeout_error",
        ErrorKind::StreamBroken
        | ErrorKind::UpstreamFailed
        | ErrorKind::ShuttingDown
        | ErrorKind::Overloaded
        | ErrorKind::Internal => "server_error",
    }
}

/// The `type` and `code` of an upstream's error.
pub(super) const fn translated_error(kind: Kind, status: u16) -> (&'static str, Option<&'static str>) {
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
