//! An error of one API as an error of the other.

use bytes::Bytes;
use http::HeaderMap;

use super::Way;
use crate::dialect::classify::classify;
use crate::dialect::envelope;
use crate::dialect::message::Said;
use crate::outcome::{Kind, Outcome};
use crate::table::Dialect;
use crate::time::Timestamp;

/// How an error is called: OpenAI's `type` and `code`, Anthropic's `type`.
struct Words {
    openai: (&'static str, Option<&'static str>),
    anthropic: &'static str,
}

/// The status and body that the client gets for an upstream's refusal of a translated request.
///
/// The status stays, but for the one that only Anthropic's clients know: 529 is 503 elsewhere.
pub fn refusal(way: Way, status: u16, body: &[u8], request_id: &str) -> (u16, Bytes) {
    let outcome = classify(way.upstream().0, status, &HeaderMap::new(), body, Timestamp::default());
    let translated = match (way, status) {
        (Way::ChatToMessages, 529) => 503,
        (Way::MessagesToChat, 503) => 529,
        (Way::ChatToMessages | Way::MessagesToChat, status) => status,
    };
    (translated, told(way, outcome.kind, status, body, request_id).to_string().into())
}

/// The event that the client gets for an error inside a stream.
pub(super) fn event(way: Way, outcome: &Outcome, data: &[u8]) -> Bytes {
    let value = told(way, outcome.kind, 0, data, "");
    let name = match way.downstream() {
        Dialect::Anthropic => "event: error\n",
        Dialect::Openai | Dialect::Plain => "",
    };
    format!("{name}data: {value}\n\n").into()
}

fn told(way: Way, kind: Kind, status: u16, body: &[u8], request_id: &str) -> serde_json::Value {
    let words = words(kind, status);
    let said = Said::read(body);
    let message = match said.message.trim() {
        "" => format!("the upstream answered {status} without a message"),
        message => message.to_owned(),
    };
    let (name, code) = match way.downstream() {
        Dialect::Anthropic => (words.anthropic, None),
        Dialect::Openai | Dialect::Plain => words.openai,
    };
    envelope::shaped(way.downstream(), name, code, &message, request_id)
}

fn words(kind: Kind, status: u16) -> Words {
    const INVALID: &str = "invalid_request_error";
    let words = |kind, code, anthropic| Words { openai: (kind, code), anthropic };
    match (kind, status) {
        (Kind::OutOfCredit, _) => words("insufficient_quota", Some("insufficient_quota"), "billing_error"),
        (Kind::RateLimited, _) => words("rate_limit_error", Some("rate_limit_exceeded"), "rate_limit_error"),
        (Kind::Overloaded, _) => words("server_error", Some("overloaded"), "overloaded_error"),
        (Kind::TooLong, 413) => words(INVALID, Some("context_length_exceeded"), "request_too_large"),
        (Kind::TooLong, _) => words(INVALID, Some("context_length_exceeded"), INVALID),
        (Kind::ModelMissing, _) => words(INVALID, Some("model_not_found"), "not_found_error"),
        (Kind::Unauthorised | Kind::Refused, 403) => words("permission_error", None, "permission_error"),
        (Kind::Unauthorised, _) => words(INVALID, Some("invalid_api_key"), "authentication_error"),
        (Kind::Refused, 404) => words(INVALID, None, "not_found_error"),
        (Kind::Refused, 413) => words(INVALID, Some("request_too_large"), "request_too_large"),
        (Kind::Refused, _) => words(INVALID, None, INVALID),
        (Kind::TimedOut | Kind::ServerError, 408 | 504) | (Kind::TimedOut, _) => {
            words("timeout_error", Some("timeout"), "timeout_error")
        }
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
        ) => words("server_error", None, "api_error"),
    }
}
