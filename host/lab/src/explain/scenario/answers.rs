//! Scripted answers that reproduce the outcomes of recorded attempts.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use pointsman_core::contract::Operation;
use pointsman_core::dialect::classify::{WholeAnswer, classify, classify_whole};
use pointsman_core::exchange::Join;
use pointsman_core::journal::Happened;
use pointsman_core::outcome::Kind;
use pointsman_core::table::{Dialect, Timeouts};
use pointsman_store::{AttemptRow, Journaled};
use toml::Value;

use super::span;
use super::toml::inline;
use crate::answer::asks_stream;

/// Answers of a scenario by backend, made of recorded attempts.
pub(super) struct Answers {
    /// In the order of the attempts: the backend's place in the table, and its answer as a script has it.
    answers: Vec<(u32, Vec<String>)>,
    /// Facts that cannot be reproduced.
    pub(super) remarks: Vec<String>,
}

impl Answers {
    pub(super) fn of(journaled: &Journaled) -> Self {
        let sent = journaled.trail.steps.iter().filter_map(|step| match step.what {
            Happened::Sent { backend, join, .. } => Some((backend, join)),
            Happened::Asked(_)
            | Happened::Waits { .. }
            | Happened::Waited { .. }
            | Happened::Committed
            | Happened::Ended => None,
        });
        let mut answers = Self { answers: Vec::new(), remarks: Vec::new() };
        let mut told = 0;
        for (number, (attempt, (index, join))) in (1..).zip(journaled.exchange.attempts.iter().zip(sent)) {
            let Some(backend) = journaled.setup.table.backends.get(index as usize) else { continue };
            let streams = asks_stream(&journaled.trail.facts);
            let case = Case { attempt, join, streams, told, dialect: backend.dialect, timeouts: backend.timeouts };
            let (answer, remark) = case.answer();
            answers.remarks.extend(remark.map(|remark| format!("Attempt {number}, {}: {remark}", attempt.backend)));
            if streams && attempt.first_token_ms.is_some() {
                told = told.max(attempt.output_tokens);
            }
            match answers.answers.iter_mut().find(|(known, _)| *known == index) {
                Some((_, list)) => list.push(answer),
                None => answers.answers.push((index, vec![answer])),
            }
        }
        answers
    }

    /// Those of this backend, in order.
    pub(super) fn of_backend(&self, index: u32) -> &[String] {
        self.answers.iter().find(|(known, _)| *known == index).map_or(&[], |(_, list)| list)
    }
}

/// A recorded attempt, as an answer of a scenario.
struct Case<'a> {
    attempt: &'a AttemptRow,
    join: Option<Join>,
    /// True for a stream whose end can be recognised.
    streams: bool,
    /// Tokens that the client had before.
    told: u64,
    dialect: Dialect,
    timeouts: Timeouts,
}

type Told = (String, Option<String>);

impl Case<'_> {
    /// As a script has it, and what is not as it was.
    fn answer(&self) -> Told {
        let word = self.attempt.outcome.as_str();
        let Some(kind) = Kind::parse(word) else {
            return (self.plain(200), Some(format!("its outcome {word:?} is not known here; it answers instead")));
        };
        match kind {
            Kind::Answered => (self.body_of("answer", Value::Integer(self.attempt.status.max(200).into())), None),
            Kind::ClientGone => {
                let after = self.elapsed() + Duration::from_secs(1);
                let entries = [("answer", Value::Integer(200)), ("after", span(after).into())];
                (
                    inline(&entries),
                    Some("its client left before it ended; it would have answered a second later".to_owned()),
                )
            }
            Kind::ConnectFailed => (self.word("connect-failed", self.elapsed()), None),
            Kind::Reset => (self.word("reset", self.elapsed()), None),
            Kind::TimedOut => self.timed_out(),
            Kind::Cut => (self.body_of("answer", "cut".into()), None),
            Kind::Stalled => {
                let silent_since = self.elapsed().saturating_sub(self.timeouts.idle);
                (self.body_at("answer", "stall".into(), silent_since), None)
            }
            Kind::Malformed => self.malformed(),
            Kind::NotResumed => self.not_resumed(),
            Kind::RateLimited
            | Kind::OutOfCredit
            | Kind::Overloaded
            | Kind::ServerError
            | Kind::Refused
            | Kind::TooLong
            | Kind::ModelMissing
            | Kind::Unauthorised => self.refusal(kind),
        }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.attempt.elapsed_ms)
    }

    fn plain(&self, status: u16) -> String {
        inline(&[("answer", Value::Integer(status.into())), ("after", span(self.elapsed()).into())])
    }

    fn word(&self, word: &str, after: Duration) -> String {
        inline(&[("answer", word.into()), ("after", span(after).into())])
    }

    fn body_of(&self, key: &str, gives: Value) -> String {
        self.body_at(key, gives, self.elapsed())
    }

    /// An answer with a body that ends `after` its sending.
    fn body_at(&self, key: &str, gives: Value, after: Duration) -> String {
        let mut entries = vec![(key, gives), ("after", span(after).into())];
        let mut tokens = self.attempt.output_tokens;
        if self.streams {
            let first = self.attempt.first_token_ms.map(|ms| Duration::from_millis(ms).min(after));
            match first {
                Some(first) => entries.push(("first_token", span(first).into())),
                None => tokens = 0,
            }
            // Tokens are counted by the provider at the end, and here where a stream broke: these can be more.
            if self.join == Some(Join::Splice) && self.attempt.outcome == "answered" {
                tokens = tokens.max(self.told);
            }
            if first.is_some() {
                tokens = tokens.max(1);
            }
        }
        entries.push(("tokens", Value::Integer(i64::try_from(tokens).unwrap_or(i64::MAX))));
        inline(&entries)
    }

    fn timed_out(&self) -> Told {
        if self.attempt.first_byte_ms.is_none() || !self.streams {
            return (self.word("silent", self.elapsed()), None);
        }
        // Its head came, and its first token would have come too late.
        let late = self.elapsed().mul_f64(1.2);
        let entries = [
            ("answer", Value::Integer(200)),
            ("after", span(late.mul_f64(1.2)).into()),
            ("first_token", span(late).into()),
        ];
        (inline(&entries), None)
    }

    fn malformed(&self) -> Told {
        const NONSENSE: &str = "this is not JSON";
        let answer = WholeAnswer {
            operation: Operation::Chat,
            path: "",
            may_be_empty: true,
            status: 200,
            headers: &HeaderMap::new(),
            body: NONSENSE.as_bytes(),
        };
        let found = classify_whole(self.dialect, &answer, self.started());
        if found.kind == Kind::Malformed && self.attempt.first_token_ms.is_none() {
            let body = ("body", NONSENSE.into());
            return (inline(&[("answer", Value::Integer(200)), ("after", span(self.elapsed()).into()), body]), None);
        }
        (self.body_of("answer", "cut".into()), Some("it sent nonsense; here it is cut instead".to_owned()))
    }

    fn not_resumed(&self) -> Told {
        if self.join == Some(Join::Prefill) {
            return (self.plain(400), None);
        }
        let tokens = self.told.saturating_sub(1);
        let entries = [
            ("answer", Value::Integer(200)),
            ("after", span(self.elapsed()).into()),
            ("tokens", Value::Integer(i64::try_from(tokens).unwrap_or(i64::MAX))),
        ];
        (inline(&entries), Some("its answer went another way; here it is shorter than what was delivered".to_owned()))
    }

    /// The status and, where it takes one, the body that are judged to be this.
    fn refusal(&self, kind: Kind) -> Told {
        let status = self.attempt.status;
        if status < 400 {
            let usual = usual_status(kind);
            let remark = format!("the error came inside an answer of status {status}; here its status is {usual}");
            return (self.refused(usual, kind).unwrap_or_else(|| self.plain(usual)), Some(remark));
        }
        match self.refused(status, kind) {
            Some(answer) => (answer, None),
            None => {
                let remark = format!("a body that makes a {status} be taken for {} is not known", kind.as_str());
                (self.plain(status), Some(remark))
            }
        }
    }

    fn refused(&self, status: u16, kind: Kind) -> Option<String> {
        let message = self.attempt.message.as_deref().unwrap_or_default();
        let said = |code: Option<&str>| {
            let mut error = serde_json::json!({ "message": message });
            if let Some(code) = code {
                error["code"] = code.into();
            }
            serde_json::json!({ "error": error }).to_string()
        };
        let bodies = [(!message.is_empty()).then(|| said(None)), Some(String::new()), Some(said(usual_code(kind)))];
        let mut headers = HeaderMap::new();
        if let Some(ms) = self.attempt.retry_after_ms {
            headers.insert("retry-after-ms", HeaderValue::from(ms));
        }
        let is_it = |body: &String| {
            let body = Bytes::from(body.clone());
            classify(self.dialect, status, &headers, &body, self.started()).kind == kind
        };
        let body = bodies.into_iter().flatten().find(is_it)?;
        let mut entries = vec![("answer", Value::Integer(status.into())), ("after", span(self.elapsed()).into())];
        if let Some(ms) = self.attempt.retry_after_ms {
            entries.push(("retry_after", span(Duration::from_millis(ms)).into()));
        }
        if !body.is_empty() {
            entries.push(("body", body.into()));
        }
        Some(inline(&entries))
    }

    fn started(&self) -> pointsman_core::time::Timestamp {
        pointsman_core::rfc3339::parse(&self.attempt.started).unwrap_or_default()
    }
}

/// The code by which providers tell this.
fn usual_code(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::RateLimited => Some("rate_limit_exceeded"),
        Kind::OutOfCredit => Some("insufficient_quota"),
        Kind::Overloaded => Some("overloaded"),
        Kind::TooLong => Some("context_length_exceeded"),
        Kind::ModelMissing => Some("model_not_found"),
        Kind::Unauthorised => Some("invalid_api_key"),
        Kind::Answered
        | Kind::ServerError
        | Kind::Refused
        | Kind::ConnectFailed
        | Kind::Reset
        | Kind::TimedOut
        | Kind::Cut
        | Kind::Stalled
        | Kind::Malformed
        | Kind::ClientGone
        | Kind::NotResumed => None,
    }
}

/// The status by which providers tell this.
fn usual_status(kind: Kind) -> u16 {
    match kind {
        Kind::RateLimited => 429,
        Kind::OutOfCredit => 402,
        Kind::Overloaded => 503,
        Kind::Unauthorised => 401,
        Kind::ModelMissing => 404,
        Kind::Refused | Kind::TooLong => 400,
        Kind::Answered
        | Kind::ServerError
        | Kind::ConnectFailed
        | Kind::Reset
        | Kind::TimedOut
        | Kind::Cut
        | Kind::Stalled
        | Kind::Malformed
        | Kind::ClientGone
        | Kind::NotResumed => 500,
    }
}
