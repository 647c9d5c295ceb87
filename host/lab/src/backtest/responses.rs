//! Responses of backends, as core reads them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use pointsman_core::outcome::Kind;

use super::model::pace::{self, Pace};
use super::past::Try;
use crate::answer::{Answer, Behavior, Response};

/// Properties of the request that an answer is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Tokens of the answer, where there is a whole one.
    pub output: u32,
    /// A stream is requested.
    pub stream: bool,
    /// The attempt's own limit between two pieces.
    pub idle: Duration,
}

/// Answers in the words in which core hears them. Refusals are made once and given again and again.
#[derive(Default)]
pub(super) struct Responses {
    refusals: HashMap<(Kind, u16, Option<u32>), Arc<Response>>,
    good: Arc<Response>,
}

impl Responses {
    /// The fate of another attempt, for an answer of this length.
    pub(super) fn like(&mut self, seen: &Try, pace: Pace, wanted: &Wanted) -> Answer {
        let ms = |ms: Option<u32>| ms.map(|ms| Duration::from_millis(ms.into()));
        let first = ms(seen.first_ms).unwrap_or(seen.took / 3).min(seen.took);
        let at_once = |behavior, after, tokens| Answer {
            behavior,
            head: None,
            first_token: first.min(after),
            after,
            tokens,
            prompt: None,
        };
        match seen.kind {
            Kind::Answered | Kind::Refused | Kind::TooLong | Kind::ClientGone | Kind::NotResumed => {
                self.good(seen, first, pace, wanted)
            }
            Kind::RateLimited
            | Kind::OutOfCredit
            | Kind::Overloaded
            | Kind::ServerError
            | Kind::ModelMissing
            | Kind::Unauthorised => self.refusal(seen.kind, seen.status, seen.retry_after_ms, seen.took),
            Kind::ConnectFailed => at_once(Behavior::ConnectFailed, seen.took, 0),
            Kind::Reset => at_once(Behavior::Reset, seen.took, 0),
            // How long it would have taken is not known: longer than any limit.
            Kind::TimedOut => match ms(seen.head_ms).filter(|_| wanted.stream) {
                None => at_once(Behavior::Silence, seen.took, 0),
                Some(head) => {
                    let behavior = Behavior::Response(self.good_response());
                    Answer { behavior, head: Some(head), first_token: NEVER, after: NEVER, tokens: 1, prompt: None }
                }
            },
            Kind::Cut => at_once(Behavior::Cut, seen.took, seen.output.min(wanted.output)),
            Kind::Stalled => {
                let silent_since = seen.took.saturating_sub(wanted.idle);
                at_once(Behavior::Stall, silent_since, seen.output.min(wanted.output))
            }
            Kind::Malformed => self.refusal(Kind::Malformed, 200, None, seen.took),
        }
    }

    fn good(&mut self, seen: &Try, first: Duration, pace: Pace, wanted: &Wanted) -> Answer {
        let output = wanted.output;
        let after = match wanted.stream && seen.stream {
            true => first + pace::of_rest(seen.took.saturating_sub(first), seen.output, output),
            false => pace.of_whole(seen.took, seen.output, output),
        };
        let head = seen.head_ms.map(|ms| Duration::from_millis(ms.into()));
        let behavior = Behavior::Response(self.good_response());
        Answer { behavior, head, first_token: first.min(after), after, tokens: output, prompt: None }
    }

    fn good_response(&mut self) -> Arc<Response> {
        if self.good.status == 0 {
            self.good = Arc::new(Response { status: 200, ..Response::default() });
        }
        self.good.clone()
    }

    /// A response that core takes for this kind.
    pub(super) fn refusal(&mut self, kind: Kind, status: u16, retry_after_ms: Option<u32>, after: Duration) -> Answer {
        let make = || Arc::new(response(kind, status, retry_after_ms));
        let response = self.refusals.entry((kind, status, retry_after_ms)).or_insert_with(make).clone();
        Answer {
            behavior: Behavior::Response(response),
            head: None,
            first_token: after,
            after,
            tokens: 0,
            prompt: None,
        }
    }
}

/// Longer than any limit that may be set.
pub(super) const NEVER: Duration = Duration::from_secs(30 * 86_400);

/// A response that core takes for this kind, with the status it had where that goes together.
fn response(kind: Kind, status: u16, retry_after_ms: Option<u32>) -> Response {
    let mut headers = HeaderMap::new();
    if let Some(ms) = retry_after_ms {
        headers.insert("retry-after-ms", HeaderValue::from(ms));
    }
    let error =
        |code: &str| Some(Bytes::from(format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"as recorded\"}}}}")));
    let (status, body) = match kind {
        Kind::RateLimited => (429, None),
        Kind::OutOfCredit => (402, error("insufficient_quota")),
        Kind::Overloaded => (503, error("overloaded")),
        Kind::ModelMissing => (404, error("model_not_found")),
        Kind::Unauthorised => (401, error("invalid_api_key")),
        Kind::TooLong => (400, error("context_length_exceeded")),
        Kind::Refused => (400, error("invalid_request")),
        // A success that is no JSON.
        Kind::Malformed => (200, Some(Bytes::from_static(b"<html>"))),
        Kind::Answered
        | Kind::ServerError
        | Kind::ConnectFailed
        | Kind::Reset
        | Kind::TimedOut
        | Kind::Cut
        | Kind::Stalled
        | Kind::ClientGone
        | Kind::NotResumed => {
            (if (500..=599).contains(&status) && !matches!(status, 503 | 529) { status } else { 500 }, None)
        }
    };
    Response { status, headers, body }
}

#[cfg(test)]
mod tests {
    use pointsman_core::dialect::classify::classify;
    use pointsman_core::table::Dialect;
    use pointsman_core::time::Timestamp;

    use super::*;

    #[test]
    fn core_takes_a_response_for_what_was_recorded() {
        let kinds = [
            Kind::RateLimited,
            Kind::OutOfCredit,
            Kind::Overloaded,
            Kind::ServerError,
            Kind::ModelMissing,
            Kind::Unauthorised,
            Kind::TooLong,
            Kind::Refused,
        ];
        for kind in kinds {
            for dialect in [Dialect::OPENAI, Dialect::ANTHROPIC] {
                let Response { status, headers, body } = response(kind, 502, Some(1_250));
                let outcome = classify(dialect, status, &headers, &body.unwrap_or_default(), Timestamp::default());
                assert_eq!(outcome.kind, kind);
                let waits =
                    matches!(kind, Kind::RateLimited | Kind::OutOfCredit | Kind::Overloaded | Kind::ServerError);
                assert_eq!(outcome.retry_after, waits.then_some(Duration::from_millis(1_250)), "{kind:?}");
            }
        }
    }
}
