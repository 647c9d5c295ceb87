//! Attempts put through scripts in virtual time. Every run is held to the rules that hold for all: one end, nothing
//! delivered before the commit or after the end, and no timer that does anything early or twice.

mod additions;
mod digests;
mod endings;
mod forms;
mod limits;
mod properties;
mod refusals;
mod repairs;
mod requests;
mod resumes;
mod streams;
mod wholes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};

use super::*;
use crate::contract::{Operation, Resume};
use crate::dialect::ApiPath;
use crate::dialect::facts::BodyFacts;
use crate::exchange::Sending;
use crate::http::query::OwnQuery;
use crate::http::redact::Secrets;
use crate::http::url::BaseUrl;
use crate::table::{Lane, Timeouts};

const START: Timestamp = Timestamp::from_millis(1_767_571_200_000);
const MS: Duration = Duration::from_millis(1);

const HELLO: &str = "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const WORLD: &str = "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" world\"}}]}\n\n";
const STOP: &str = "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USED: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const COMPLETION: &str = r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2}}"#;

/// A request, a backend and how it is sent there.
struct Case {
    method: Method,
    target: http::uri::PathAndQuery,
    headers: HeaderMap,
    body: Bytes,
    facts: Option<BodyFacts>,
    translations: crate::dialect::translate::Translations,
    path: ApiPath,
    model: Arc<str>,
    endpoint: Endpoint,
    capabilities: BTreeMap<String, bool>,
    sending: Sending,
}

impl Case {
    fn new(path: &'static str, body: &str) -> Self {
        let facts =
            Some(BodyFacts::read(body.as_bytes(), None).expect("the body is clear")).filter(BodyFacts::is_object);
        let timeouts = Timeouts {
            connect: 50 * MS,
            first_byte: 1_000 * MS,
            first_token: 500 * MS,
            idle: 300 * MS,
            total: 5_000 * MS,
            stream_total: None,
        };
        Self {
            method: if body.is_empty() { Method::GET } else { Method::POST },
            target: http::uri::PathAndQuery::from_static(path),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            path: ApiPath::read(path, &HeaderMap::new()),
            model: facts.as_ref().and_then(|facts| facts.model.as_deref()).unwrap_or("unknown").into(),
            facts,
            translations: crate::dialect::translate::Translations::default(),
            endpoint: Endpoint {
                dialect: Dialect::OPENAI,
                base: BaseUrl::parse("http://upstream.test/v1").expect("a base URL"),
                path_template: None,
                query: OwnQuery::default(),
                key: Some(HeaderValue::from_static("Bearer sk-secret")),
                headers: Vec::new(),
                may_be_empty: false,
                additions: Arc::default(),
                secrets: Secrets::new(["Bearer sk-secret"]),
            },
            capabilities: BTreeMap::new(),
            sending: Sending {
                backend: 0,
                lane: Lane::Primary,
                model: "sent".to_owned(),
                timeouts,
                commit: Commit::FirstContent,
                resume: Resume::None,
                join: None,
            },
        }
    }

    fn chat() -> Self {
        Self::new("/v1/chat/completions", r#"{"model":"m","messages":[]}"#)
    }

    fn stream() -> Self {
        Self::new("/v1/chat/completions", r#"{"model":"m","stream":true,"messages":[]}"#)
    }

    fn commit(mut self, commit: Commit) -> Self {
        self.sending.commit = commit;
        self
    }

    fn dialect(mut self, dialect: Dialect) -> Self {
        self.endpoint.dialect = dialect;
        self
    }

    fn client(&self) -> ClientRequest<'_> {
        ClientRequest {
            id: "request-1",
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
            body: &self.body,
            body_facts: self.facts.as_ref(),
            translations: &self.translations,
            operation: self.path.operation,
            root: self.path.root,
            model: &self.model,
            streaming: self.facts.as_ref().is_some_and(|facts| facts.stream),
            prompt_tokens: 7,
            is_of_background: false,
            is_idempotent: self.path.operation.is_question() || self.method.is_idempotent(),
        }
    }

    fn attempt(&self) -> Attempt {
        self.joining(None)
    }

    fn joining(&self, told: Option<&Transcript>) -> Attempt {
        let (client, sending) = (self.client(), &self.sending);
        Attempt::new(START, &client, &self.endpoint, &self.capabilities, sending, told)
    }

    /// Runs a script; times are in milliseconds from the start, and not before the one before.
    fn run(&self, script: impl IntoIterator<Item = (u64, Input)>) -> Run {
        Run::of(self.attempt(), script)
    }
}

/// Result of an attempt.
struct Run {
    attempt: Attempt,
    now: Timestamp,
    /// Time of the commit, in ms.
    committed: Option<u64>,
    head: Option<Parts>,
    delivered: Vec<u8>,
    sent_again: u32,
    ended: Option<(u64, Ended)>,
}

impl Run {
    fn begun(attempt: Attempt) -> Self {
        Self { attempt, now: START, committed: None, head: None, delivered: Vec::new(), sent_again: 0, ended: None }
    }

    fn of(attempt: Attempt, script: impl IntoIterator<Item = (u64, Input)>) -> Self {
        let mut run = Self::begun(attempt);
        for (at, input) in script {
            run.to(START + Duration::from_millis(at));
            run.step(input);
        }
        // Whatever was not said, time will end.
        run.to(START + Duration::from_secs(60));
        run.step(Input::Timer);
        assert!(run.ended.is_some(), "it never ended");
        run
    }

    /// Lets time pass; deadlines before `until` fire, and only then.
    fn to(&mut self, until: Timestamp) {
        while self.ended.is_none() && self.attempt.wake_at() < until {
            let due = self.attempt.wake_at().max(self.now);
            if self.now < due {
                let early = self.attempt.step(due - Duration::from_micros(1), Input::Timer);
                assert!(matches!(early, Output::Wait), "a deadline fired early: {early:?}");
            }
            self.now = due;
            self.step(Input::Timer);
        }
        self.now = until.max(self.now);
    }

    fn step(&mut self, input: Input) {
        let output = self.attempt.step(self.now, input);
        if self.ended.is_some() {
            assert!(matches!(output, Output::Wait), "something came after the end: {output:?}");
            return;
        }
        let at = u64::try_from(self.now.since(START).as_millis()).expect("a short test");
        let is_committed = self.committed.is_some();
        match output {
            Output::Wait => {}
            Output::SendAgain => {
                assert!(!is_committed, "sent again after the commit");
                self.sent_again += 1;
            }
            Output::Commit(bytes) | Output::Whole(bytes, _) if is_committed => panic!("committed twice: {bytes:?}"),
            Output::Commit(bytes) => self.commit(at, &bytes),
            Output::Deliver(bytes) => {
                assert!(is_committed && !bytes.is_empty(), "delivered before the commit, or nothing");
                self.delivered.extend_from_slice(&bytes);
            }
            Output::Whole(bytes, ended) => {
                self.commit(at, &bytes);
                self.ended = Some((at, ended));
            }
            Output::Ended(bytes, ended) => {
                assert!(is_committed || bytes.is_empty(), "delivered before the commit");
                self.delivered.extend_from_slice(&bytes);
                self.ended = Some((at, ended));
            }
        }
    }

    fn commit(&mut self, at: u64, bytes: &[u8]) {
        self.committed = Some(at);
        self.head = self.attempt.take_head();
        assert!(self.head.is_some(), "committed without a head");
        self.delivered.extend_from_slice(bytes);
    }

    fn ended(&self) -> &Ended {
        &self.ended.as_ref().expect("every run ends").1
    }

    fn kind(&self) -> Kind {
        self.ended().outcome.kind
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.delivered).expect("these scripts are text")
    }

    /// Commit and end, in ms, and the kind.
    fn came_to(&self) -> (Option<u64>, u64, Kind) {
        (self.committed, self.ended.as_ref().expect("every run ends").0, self.kind())
    }
}

fn parts(status: u16, headers: &[(&'static str, &'static str)]) -> Parts {
    let (mut head, ()) = Response::builder().status(status).body(()).expect("a status").into_parts();
    for (name, value) in headers {
        head.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    head
}

fn head(status: u16, headers: &[(&'static str, &'static str)]) -> Input {
    Input::Head(parts(status, headers), BodyKind::Bytes)
}

fn json_head() -> Input {
    head(200, &[("content-type", "application/json")])
}

fn stream_head() -> Input {
    head(200, &[("content-type", "text/event-stream; charset=utf-8")])
}

fn bytes(text: &str) -> Input {
    Input::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

fn broken() -> Input {
    Input::Broken(Outcome::new(Kind::Cut, "the connection broke inside the answer"))
}
