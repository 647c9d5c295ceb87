//! Classification of an upstream's answer: by its status, and by the error's own words where they say more.

use std::borrow::Cow;

use http::HeaderMap;

use super::format::message::presentable;
use super::format::{ErrorDetails, Shown};
pub use super::format::{by_status, by_words, is_error, narrowed};
use super::registry::Dialect;
use crate::contract::Operation;
use crate::http::json;
use crate::http::retry_after::RetryAfter;
use crate::http::sse::Event;
use crate::outcome::{Kind, Outcome};
use crate::time::Timestamp;

/// Bytes of an error body that [`classify`] reads.
pub const BODY_PREFIX_BYTES: usize = 16 * 1024;

/// Classifies a response by its head and the beginning of its body (at most [`BODY_PREFIX_BYTES`] are read).
///
/// 1xx to 3xx are answers: a redirect is the client's to follow, so that no key goes where the operator did not send
/// it. A 2xx whose JSON is an error is that error. An answer that passes unread is judged by its status alone.
pub fn classify(dialect: Dialect, status: u16, headers: &HeaderMap, body_prefix: &[u8], now: Timestamp) -> Outcome {
    let format = dialect.format();
    if status < 400 {
        let failed = (200..300).contains(&status) && !format.is_opaque() && format.is_error(body_prefix);
        return if failed { in_band(dialect, status, body_prefix, headers, now) } else { Outcome::answered(status) };
    }
    let details = format.error_details(body_prefix);
    let hint = RetryAfter::parse(status, headers, Some(body_prefix), now);
    let kind = format.error_kind(status, &details, hint.is_some());
    let retry_after = hint.filter(|_| may_wait(kind));
    let scope = format.error_scope(kind, status, &details);
    Outcome { kind, status: Some(status), retry_after, message: worded(&details, status), scope }
}

/// A whole answer below 400, and the request that it answers.
#[derive(Clone, Copy, Debug)]
pub struct WholeAnswer<'a> {
    /// The operation that was asked for.
    pub operation: Operation,
    /// The path of the request, without its query.
    pub path: &'a str,
    /// An answer with nothing in it is an answer.
    pub may_be_empty: bool,
    /// Status of the response.
    pub status: u16,
    /// Headers of the response.
    pub headers: &'a HeaderMap,
    /// The body, all of it.
    pub body: &'a [u8],
}

/// The outcome of an answer below 400 that is here as a whole. Success must be shown: what does not have the shape of
/// an answer is an error, in whatever form, or an HTML page from an intermediary.
pub fn classify_whole(dialect: Dialect, answer: &WholeAnswer<'_>, now: Timestamp) -> Outcome {
    let WholeAnswer { operation, path, may_be_empty, status, headers, body } = *answer;
    if dialect.is_opaque() || status >= 300 {
        return Outcome::answered(status);
    }
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() {
        // A transcription may be asked for as plain text, and comes under JSON's label at some servers.
        if !operation.is_read() && !matches!(body.trim_ascii_start().first(), Some(b'{' | b'[' | b'<') | None) {
            return Outcome::answered(status);
        }
        // A body may end early and still keep to its framing.
        return Outcome::new(Kind::Malformed, "the upstream answered a success that is no JSON, or not all of it");
    }
    let format = dialect.format();
    let shown = format.shows(operation, path, body);
    let may_be_error =
        || matches!(shown, Shown::Nothing(_)) || memchr::memmem::find(body, format.error_mark()).is_some();
    if may_be_error() && format.is_error(body) {
        return in_band(dialect, status, body, headers, now);
    }
    match shown {
        Shown::Answer => Outcome::answered(status),
        Shown::Empty if may_be_empty => Outcome::answered(status),
        Shown::Empty => Outcome { status: Some(status), ..empty_answer() },
        Shown::Failed(part) => in_band(dialect, status, part, headers, now),
        Shown::Nothing(why) => {
            let text = format!("the upstream answered {status}, but the body {why}");
            Outcome { status: Some(status), ..Outcome::new(Kind::Malformed, text) }
        }
    }
}

/// The outcome of an answer below 400 of which only the beginning is here: what shows no error may be an answer.
pub fn classify_beginning(dialect: Dialect, answer: &WholeAnswer<'_>, now: Timestamp) -> Outcome {
    let answered = Outcome::answered(answer.status);
    if dialect.is_opaque() || answer.status >= 300 {
        return answered;
    }
    let whole = match (answer.body.trim_ascii_start().first(), json::closed(answer.body)) {
        (Some(b'{' | b'['), Some(whole)) => whole,
        (Some(b'<'), _) if answer.operation.is_read() => {
            return Outcome::new(Kind::Malformed, "the upstream answered a success that is a page and no JSON");
        }
        (Some(_) | None, _) => return answered,
    };
    let outcome = classify_whole(dialect, &WholeAnswer { body: &whole, ..*answer }, now);
    // What is missing may follow.
    if outcome.kind == Kind::Malformed { answered } else { outcome }
}

/// The message of an error body, in the shapes in use; empty where it has none.
pub(crate) fn error_message(body: &[u8]) -> Cow<'_, str> {
    ErrorDetails::read(body).message
}

/// The outcome of an answer with nothing in it.
pub fn empty_answer() -> Outcome {
    let text = "the upstream's answer is empty: no content, no tool call and no tokens (backend.empty_answers)";
    Outcome::new(Kind::Malformed, text)
}

/// The outcome of an error that an event inside a stream is; none when it is none.
pub fn classify_event(dialect: Dialect, event: &Event<'_>) -> Option<Outcome> {
    let error = dialect.format().error_in_event(event)?;
    Some(in_band(dialect, 200, error, &HeaderMap::new(), Timestamp::default()))
}

/// An error inside a success: its code may be the status it would have had.
fn in_band(dialect: Dialect, status: u16, body: &[u8], headers: &HeaderMap, now: Timestamp) -> Outcome {
    let format = dialect.format();
    let details = format.error_details(body);
    let meant = details.code.parse::<u16>().ok().filter(|code| (400..600).contains(code)).unwrap_or(IN_BAND);
    let hint = RetryAfter::parse(meant, headers, Some(body), now);
    let is_dated = hint.is_some();
    // Where statuses are all that is known, an event has none.
    let judge = || format.error_kind(meant, &details, is_dated);
    let kind = if format.is_opaque() { by_words(meant, &details, is_dated) } else { judge() };
    let retry_after = hint.filter(|_| may_wait(kind));
    let scope = format.error_scope(kind, meant, &details);
    Outcome { kind, status: Some(status), retry_after, message: worded(&details, status), scope }
}

/// Stands for the status of an error that has none.
const IN_BAND: u16 = 0;

/// Kinds whose wish to be left alone is honoured; another may have the header by accident.
fn may_wait(kind: Kind) -> bool {
    match kind {
        Kind::RateLimited | Kind::OutOfCredit | Kind::Overloaded | Kind::ServerError => true,
        Kind::Answered
        | Kind::Refused
        | Kind::TooLong
        | Kind::ModelMissing
        | Kind::Unauthorised
        | Kind::ConnectFailed
        | Kind::Reset
        | Kind::TimedOut
        | Kind::Cut
        | Kind::Stalled
        | Kind::Malformed
        | Kind::ClientGone
        | Kind::NotResumed => false,
    }
}

fn worded(said: &ErrorDetails<'_>, status: u16) -> String {
    let message = presentable(said.message.trim());
    if message.is_empty() { format!("the upstream answered {status} without a message") } else { message }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::Scope;

    const OPENAI: Dialect = Dialect::OPENAI;
    const ANTHROPIC: Dialect = Dialect::ANTHROPIC;
    const PLAIN: Dialect = Dialect::PLAIN;

    fn kind(dialect: Dialect, status: u16, body: &str) -> Kind {
        classify(dialect, status, &HeaderMap::new(), body.as_bytes(), Timestamp::default()).kind
    }

    #[test]
    fn a_beginning_shows_an_error_or_may_be_an_answer() {
        let headers = HeaderMap::new();
        let of = |body: &str| {
            let answer = WholeAnswer {
                operation: Operation::Chat,
                path: "/chat/completions",
                may_be_empty: false,
                status: 200,
                headers: &headers,
                body: body.as_bytes(),
            };
            classify_beginning(OPENAI, &answer, Timestamp::default())
        };
        for answer in [
            r#"{"choices":[{"finish_reason":"stop","index":0,"message":{"content":"and so o"#,
            r#"{"created":1,"choices":[{"index":0,"message":{"role":"assistant","content":"and"#,
            r#"{"prompt_logprobs":[1,2,3"#,
            r#"{"id":"x"#,
            r#"[{"a":1},{"#,
        ] {
            assert_eq!(of(answer).kind, Kind::Answered, "{answer}: {:?}", of(answer));
        }
        for error in [
            r#"{"error":{"message":"boom"},"trace":"and"#,
            r#"{"choices":[{"error":{"message":"boom","code":502}}],"trace":"and"#,
            "<html><body>and",
        ] {
            assert_ne!(of(error).kind, Kind::Answered, "{error}");
        }
    }

    #[test]
    fn a_status_alone_is_enough() {
        for dialect in [OPENAI, ANTHROPIC, PLAIN] {
            for (status, expected) in [
                (200, Kind::Answered),
                (204, Kind::Answered),
                (304, Kind::Answered),
                (307, Kind::Answered),
                (400, Kind::Refused),
                (401, Kind::Unauthorised),
                (402, Kind::OutOfCredit),
                (403, Kind::Unauthorised),
                (404, Kind::Refused),
                (408, Kind::ServerError),
                (409, Kind::Refused),
                (413, Kind::Refused),
                (422, Kind::Refused),
                (429, Kind::RateLimited),
                (498, Kind::Overloaded),
                (500, Kind::ServerError),
                (502, Kind::ServerError),
                (503, Kind::Overloaded),
                (504, Kind::ServerError),
                (522, Kind::ServerError),
                (529, Kind::Overloaded),
                (999, Kind::ServerError),
            ] {
                assert_eq!(kind(dialect, status, ""), expected, "{status}");
            }
        }
    }

    #[test]
    fn a_403_is_about_the_key_only_when_it_says_so_or_says_nothing() {
        for (body, expected) in [
            ("", Kind::Unauthorised),
            (r#"{"error":"Forbidden"}"#, Kind::Unauthorised),
            (r#"{"error":{"code":403}}"#, Kind::Unauthorised),
            (r#"{"error":{"message":"m","code":"invalid_api_key"}}"#, Kind::Unauthorised),
            (r#"{"type":"error","error":{"type":"permission_error","message":"m"}}"#, Kind::Unauthorised),
            (r#"{"error":{"code":403,"message":"m","status":"PERMISSION_DENIED"}}"#, Kind::Unauthorised),
            (r#"{"error":{"message":"Your API key has been revoked"}}"#, Kind::Unauthorised),
            (r#"{"status":403,"title":"Forbidden","detail":"Authorization failed"}"#, Kind::Unauthorised),
            (r#"{"detail":"Not authenticated"}"#, Kind::Unauthorised),
            (r#"{"error":{"message":"Your account has been suspended"}}"#, Kind::Unauthorised),
            (r#"{"error":{"message":"Insufficient balance"}}"#, Kind::OutOfCredit),
            (r#"{"error":{"message":"m","code":"model_not_found"}}"#, Kind::ModelMissing),
            (r#"{"error":{"message":"This file belongs to somebody else"}}"#, Kind::Refused),
            (r#"{"error":{"message":"Tool use is disabled for this deployment"}}"#, Kind::Refused),
            (r#"{"error":{"message":"m","code":"guardrail_violation"}}"#, Kind::Refused),
            (r#"{"error":{"message":"Your input was flagged"}}"#, Kind::Refused),
        ] {
            for dialect in [OPENAI, ANTHROPIC] {
                assert_eq!(kind(dialect, 403, body), expected, "{body}");
            }
        }
        assert_eq!(kind(PLAIN, 403, r#"{"error":"this file"}"#), Kind::Unauthorised, "plain is judged by its status");
        assert_eq!(kind(OPENAI, 401, r#"{"error":"whatever"}"#), Kind::Unauthorised);
    }

    /// Errors whose words say more than their status.
    const WORDED_ERRORS: &[(Dialect, u16, &str, Kind)] = &[
        (
            OPENAI,
            429,
            r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
            Kind::OutOfCredit,
        ),
        (
            OPENAI,
            429,
            r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details."}}"#,
            Kind::OutOfCredit,
        ),
        (
            OPENAI,
            429,
            r#"[{"error":{"code":429,"message":"You exceeded your current quota","status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"17s"}]}}]"#,
            Kind::RateLimited,
        ),
        (
            OPENAI,
            429,
            r#"{"error":{"message":"Rate limit reached for gpt","type":"tokens","code":"rate_limit_exceeded"}}"#,
            Kind::RateLimited,
        ),
        (
            OPENAI,
            429,
            r#"{"error":{"message":"The engine is currently overloaded, please try again later"}}"#,
            Kind::Overloaded,
        ),
        (OPENAI, 400, r#"{"error":{"message":"m","code":"billing_hard_limit_reached"}}"#, Kind::OutOfCredit),
        (
            ANTHROPIC,
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}"#,
            Kind::OutOfCredit,
        ),
        (OPENAI, 403, r#"{"code":30001,"message":"Sorry, your account balance is insufficient"}"#, Kind::OutOfCredit),
        (OPENAI, 429, r#"{"error":{"message":"Project has exceeded its monthly spending cap."}}"#, Kind::OutOfCredit),
        (
            OPENAI,
            400,
            r#"{"error":{"message":"This model's maximum context length is 8192 tokens.","code":"context_length_exceeded"}}"#,
            Kind::TooLong,
        ),
        (
            OPENAI,
            400,
            r#"{"object":"error","message":"This model's maximum context length is 8192 tokens."}"#,
            Kind::TooLong,
        ),
        (
            ANTHROPIC,
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
            Kind::TooLong,
        ),
        (
            OPENAI,
            404,
            r#"{"error":{"message":"The model `x` does not exist or you do not have access to it.","code":"model_not_found"}}"#,
            Kind::ModelMissing,
        ),
        (OPENAI, 404, r#"{"detail":"Model x not found"}"#, Kind::ModelMissing),
        (OPENAI, 400, r#"{"error":{"message":"x is not a valid model ID","code":400}}"#, Kind::ModelMissing),
        (
            ANTHROPIC,
            404,
            r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-9"}}"#,
            Kind::ModelMissing,
        ),
        (OPENAI, 404, r#"{"error":{"message":"Unknown request URL"}}"#, Kind::Refused),
        (
            OPENAI,
            403,
            r#"{"error":{"message":"Country, region, or territory not supported","code":"unsupported_country_region_territory"}}"#,
            Kind::Unauthorised,
        ),
        (OPENAI, 403, r#"{"error":{"message":"Your input was flagged"}}"#, Kind::Refused),
        (
            ANTHROPIC,
            500,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            Kind::Overloaded,
        ),
        (PLAIN, 429, r#"{"error":{"code":"insufficient_quota"}}"#, Kind::RateLimited),
        (PLAIN, 200, r#"{"error":{"code":"insufficient_quota"}}"#, Kind::Answered),
    ];

    #[test]
    fn the_errors_own_words_know_better() {
        for &(dialect, status, body, expected) in WORDED_ERRORS {
            assert_eq!(kind(dialect, status, body), expected, "{status} {body}");
        }
    }

    /// Refusals as providers word them, each with the part that it is to be put down to.
    const WORDED_REFUSALS: &[(Dialect, u16, &str, Kind, Scope)] = &[
        (
            OPENAI,
            402,
            r#"{"error":{"message":"This request requires more credits, or fewer max_tokens. You requested up to 32000 tokens, but can only afford 2412.","code":402}}"#,
            Kind::OutOfCredit,
            Scope::AnswerSize,
        ),
        (
            OPENAI,
            429,
            r#"{"error":{"message":"Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 52000. The input or output tokens must be reduced in order to run successfully.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
            Kind::TooLong,
            Scope::PromptSize,
        ),
        (
            OPENAI,
            413,
            r#"{"error":{"message":"Request too large for model `llama-3.1-8b` on tokens per minute (TPM): Limit 6,000, Requested 9,120, please reduce your message size and try again.","type":"tokens","code":"rate_limit_exceeded"}}"#,
            Kind::TooLong,
            Scope::PromptSize,
        ),
        (
            OPENAI,
            429,
            r#"{"error":{"message":"Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29500, Requested 1200. Please try again in 1.4s.","code":"rate_limit_exceeded"}}"#,
            Kind::RateLimited,
            Scope::Model,
        ),
        (
            ANTHROPIC,
            429,
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"Extra usage is required for long context requests."}}"#,
            Kind::TooLong,
            Scope::PromptSize,
        ),
        (
            ANTHROPIC,
            413,
            r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#,
            Kind::Refused,
            Scope::BodySize,
        ),
        (
            OPENAI,
            401,
            r#"{"error":{"message":"You have insufficient permissions for this operation. Missing scopes: api.responses.write.","type":"invalid_request_error","code":null}}"#,
            Kind::Unauthorised,
            Scope::Operation,
        ),
        (
            OPENAI,
            401,
            r#"{"error":{"message":"OpenAI-Organization header should match organization for API key","type":"invalid_request_error","code":"mismatched_organization"}}"#,
            Kind::Unauthorised,
            Scope::Headers,
        ),
        (
            ANTHROPIC,
            401,
            r#"{"type":"error","error":{"type":"authentication_error","message":"OAuth authentication is currently not supported."}}"#,
            Kind::Unauthorised,
            Scope::Headers,
        ),
        (
            OPENAI,
            403,
            r#"{"error":{"code":403,"message":"Caller does not have required permission to use project x. Grant the caller the serviceusage.services.use permission","status":"PERMISSION_DENIED"}}"#,
            Kind::Unauthorised,
            Scope::Headers,
        ),
        (
            OPENAI,
            400,
            r#"[{"error":{"code":400,"message":"API key expired. Please renew the API key.","status":"INVALID_ARGUMENT"}}]"#,
            Kind::Unauthorised,
            Scope::Backend,
        ),
        (
            OPENAI,
            400,
            r#"{"error":{"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}"#,
            Kind::Unauthorised,
            Scope::Backend,
        ),
        (
            OPENAI,
            404,
            r#"{"error":{"message":"No endpoints found that support tool use.","code":404}}"#,
            Kind::ModelMissing,
            Scope::RequestHere,
        ),
        (
            OPENAI,
            400,
            r#"{"error":{"message":"Failed to call a function. Please adjust your prompt.","type":"invalid_request_error","code":"tool_use_failed"}}"#,
            Kind::Refused,
            Scope::RequestHere,
        ),
        (
            OPENAI,
            403,
            "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title>",
            Kind::Refused,
            Scope::RequestHere,
        ),
        (OPENAI, 401, r#"{"error":{"message":"Incorrect API key provided"}}"#, Kind::Unauthorised, Scope::Backend),
        (OPENAI, 400, r#"{"error":{"message":"temperature must be below 2"}}"#, Kind::Refused, Scope::Request),
        (OPENAI, 500, r#"{"error":{"message":"boom"}}"#, Kind::ServerError, Scope::Model),
        (PLAIN, 402, r#"{"error":"fewer max_tokens"}"#, Kind::OutOfCredit, Scope::Backend),
    ];

    #[test]
    fn the_smallest_part_that_explains_a_refusal_is_named() {
        let scope = |dialect, status, body: &str| {
            let outcome = classify(dialect, status, &HeaderMap::new(), body.as_bytes(), Timestamp::default());
            (outcome.kind, outcome.scope)
        };
        for &(dialect, status, body, kind, expected) in WORDED_REFUSALS {
            assert_eq!(scope(dialect, status, body), (kind, expected), "{status} {body}");
        }
    }

    #[test]
    fn a_success_may_be_an_error_in_disguise() {
        for (body, expected) in [
            (r#"{"error":{"message":"slow down","code":429}}"#, Kind::RateLimited),
            (r#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#, Kind::RateLimited),
            (r#"{"error":{"message":"boom"}}"#, Kind::ServerError),
            (r#"{"error":"boom"}"#, Kind::ServerError),
            (r#"{"object":"error","message":"bad","type":"invalid_request_error"}"#, Kind::Refused),
            (r#"{"id":"x","error":null,"choices":[]}"#, Kind::Answered),
            (r#"{"id":"x","error":{},"output":[1]}"#, Kind::Answered),
            (r#"{"choices":[{"message":{"content":"\"error\":{}"}}]}"#, Kind::Answered),
            ("[1,2", Kind::Answered),
        ] {
            let outcome = classify(OPENAI, 200, &HeaderMap::new(), body.as_bytes(), Timestamp::default());
            assert_eq!((outcome.kind, outcome.status), (expected, Some(200)), "{body}");
        }
    }

    #[test]
    fn an_error_event_inside_a_stream_is_seen() {
        let event = |dialect, name: Option<&str>, data: &str| {
            let event = Event { raw: b"", name: name.map(str::as_bytes), data: Some(data.as_bytes()) };
            classify_event(dialect, &event).map(|o| o.kind)
        };
        let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        assert_eq!(event(ANTHROPIC, Some("error"), overloaded), Some(Kind::Overloaded));
        assert_eq!(event(ANTHROPIC, None, overloaded), Some(Kind::Overloaded));
        assert_eq!(
            event(OPENAI, None, r#"{"error":{"message":"x","code":502},"choices":[]}"#),
            Some(Kind::ServerError)
        );
        assert_eq!(event(OPENAI, Some("error"), "boom"), Some(Kind::ServerError));
        let failed = r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"x"}}}"#;
        assert_eq!(event(OPENAI, Some("response.failed"), failed), Some(Kind::RateLimited));
        assert_eq!(event(OPENAI, None, failed), Some(Kind::RateLimited));
        assert_eq!(event(OPENAI, None, r#"{"choices":[{"delta":{"content":"an \"error\": {}"}}]}"#), None);
        assert_eq!(event(OPENAI, None, r#"{"error":null,"choices":[{"delta":{"content":"a"}}]}"#), None);
        assert_eq!(event(OPENAI, None, "[DONE]"), None);
        assert_eq!(event(PLAIN, None, r#"{"error":{"message":"x"}}"#), None);
        assert_eq!(event(PLAIN, Some("error"), "x"), Some(Kind::ServerError));
    }

    #[test]
    fn the_wish_and_the_message_come_along_but_no_key_does() {
        let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, HeaderValue::from_static("107"))]);
        let body = br#"{"error":{"message":"Incorrect key sk-abcdef123456"}}"#;
        let outcome = classify(OPENAI, 429, &headers, body, Timestamp::default());
        assert_eq!(outcome.retry_after, Some(Duration::from_secs(107)));
        assert_eq!(outcome.message, "Incorrect key ***");
        assert_eq!(classify(OPENAI, 400, &headers, body, Timestamp::default()).retry_after, None);
        let silent = classify(OPENAI, 502, &headers, b"", Timestamp::default());
        assert_eq!(silent.message, "the upstream answered 502 without a message");
    }

    proptest! {
        #[test]
        fn any_answer_is_classified(
            status in 100u16..=999,
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "[\\[{]\"error\":[\\[{]?\"(message|code|type)\":\"?[a-z0-9_\" ]{0,30}[}\\]\"]{0,3}".prop_map(String::into_bytes),
            ],
        ) {
            for dialect in [OPENAI, ANTHROPIC, PLAIN] {
                let outcome = classify(dialect, status, &HeaderMap::new(), &body, Timestamp::default());
                prop_assert_eq!(outcome.status, Some(status));
                prop_assert!(status < 400 || outcome.kind != Kind::Answered);
            }
        }
    }
}
