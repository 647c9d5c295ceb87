//! One attempt: send, wait for the head, and hold the answer back until the commit gate opens.
//!
//! Up to the commit any failure is only a failed attempt. What was held back is handed to the relay with the rest. An
//! attempt that resumes a broken answer is held back until it says something new.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::Full;
use pointsman_core::contract::{Commit, Operation, Resume};
use pointsman_core::exchange::{Ended, Join, Sending};
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::record::Usage;
use pointsman_core::table::{Dialect, Lane};
use pointsman_core::wire::as_stream::as_stream;
use pointsman_core::wire::classify::{BODY_PREFIX_BYTES, classify, classify_whole};
use pointsman_core::wire::facts::BodyFacts;
use pointsman_core::wire::headers;
use pointsman_core::wire::resume::{Emit, Joiner, Transcript, Unfit, prefill};
use pointsman_core::wire::retry_after::RateHints;
use pointsman_core::wire::splice::{Change, splice};
use pointsman_core::wire::sse;
use tokio::time::Instant;

use super::foreign::Foreign;
use super::live::Live;
use super::request::Asked;
use super::snapshot::Target;
use super::source::{Expected, Source, Step, not_resumed};
use crate::upstream::{Answer, Reuse, SendError};

/// A whole answer up to this size is held until it is complete, so that a cut one can still be tried elsewhere.
const MAX_WHOLE_BYTES: usize = 1024 * 1024;

/// The most of a stream that is held back for the commit gate; then it is committed, whatever the gate says.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// The most of a refusal that is kept to be passed on.
const MAX_REFUSAL_BYTES: usize = 256 * 1024;

/// How long a refusal's body may take; its head has said the most important.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(2);

/// How an attempt came out, up to the commit.
pub enum Attempted {
    /// The answer is here as a whole.
    Whole {
        /// Its head.
        head: Parts,
        /// Its body.
        body: Bytes,
        /// What it came to.
        ended: Ended,
    },
    /// The gate opened; more is to come.
    Committed {
        /// Its head.
        head: Parts,
        /// Its body, begun.
        begun: Box<Begun>,
    },
    /// It failed. A refusal that explains itself is kept, to be passed on.
    Failed(Ended, Option<KeptRefusal>),
}

/// An answer that was committed and is not over.
pub struct Begun {
    /// What was held back.
    pub held: Bytes,
    /// The rest.
    pub source: Source,
    /// When the attempt began.
    pub started: Instant,
    /// Time to the head.
    pub first_byte: Duration,
    /// Time to the first content.
    pub first_token: Option<Duration>,
}

/// What an upstream answered instead of an answer.
pub struct KeptRefusal {
    /// The attempt's lane.
    pub lane: Lane,
    /// The backend.
    pub backend: Arc<str>,
    /// Its head.
    pub head: Parts,
    /// Its body, at most 256 KiB.
    pub body: Bytes,
}

/// Makes one attempt; one that resumes joins what was `told` to the client.
pub async fn attempt(live: &Live, target: &Target, sending: &Sending, told: Option<&Transcript>) -> Attempted {
    let asked = live.asked();
    let started = Instant::now();
    let total_at = started + sending.timeouts.total;
    let limit = sending.timeouts.first_byte.min(sending.timeouts.total);
    let plan = match plan(live, target, sending, told) {
        Ok(plan) => plan,
        Err(outcome) => return failed(outcome),
    };
    let answer = match tokio::time::timeout(limit, send(asked, target, sending, &plan)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(outcome)) => return failed(outcome),
        Err(_) => {
            return failed(Outcome::new(
                Kind::TimedOut,
                format!("no response head within {limit:?} (timeouts.first_byte_ms)"),
            ));
        }
    };
    let first_byte = started.elapsed();
    let (head, body) = answer.response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return failed(Outcome::new(Kind::Malformed, "the upstream switched protocols without being asked to"));
    }
    if head.headers.contains_key(TRANSFER_ENCODING) && head.headers.contains_key(CONTENT_LENGTH) {
        // RFC 9112 section 6.3: both together is an error or an attack.
        let lie = "the upstream's response has both Content-Length and Transfer-Encoding";
        return failed(Outcome::new(Kind::Malformed, lie));
    }
    learn(live, &head.headers);
    let status = head.status.as_u16();
    // Nobody asked for it, but what comes compressed is passed on as it is: its inside cannot be seen.
    let encoded = head.headers.get(CONTENT_ENCODING).is_some_and(|e| e != "identity");
    let events = !encoded
        && has_content_type(&head.headers, "text/event-stream")
        && streams_are_known(asked.operation)
        && head.status.is_success();
    // A stream was asked for, and an answer in one piece came: it is told as a stream, or its client would see none.
    let unasked = !events && asked.streaming && !encoded && streams_are_known(asked.operation);
    let unasked = unasked && target.dialect != Dialect::Plain && has_content_type(&head.headers, "application/json");
    let Plan { joiner, prefilled, foreign, .. } = plan;
    let dialect = spoken(foreign.as_ref(), target);
    let expected = Expected {
        dialect,
        operation: asked.operation,
        events,
        hide_usage: asked.asks_usage_for_itself(dialect),
        joiner: joiner.clone(),
        rewriter: foreign.as_ref().map(|foreign| foreign.rewriter(live.proxy().clock.now())),
        idle: sending.timeouts.idle,
        total_at,
        cut: live.proxy().cut.clone(),
    };
    if body.is_end_stream() && status < 400 && !events {
        // HEAD, 204, 304, or an empty body: nothing is to come, and nobody will ask for it.
        answer.lease.give_back();
        if sending.join.is_some() {
            return failed(Outcome::new(Kind::NotResumed, "the upstream answered with nothing"));
        }
        let outcome = Outcome::answered(status);
        let ended = Ended { outcome, usage: Usage::default(), first_byte: Some(first_byte), first_token: None };
        return Attempted::Whole { head, body: Bytes::new(), ended };
    }
    let source = Source::new(body, answer.lease, expected);
    if status >= 400 {
        return refused(live, target, sending, head, source, Sent { prefilled, foreign: foreign.as_ref() }).await;
    }
    let gate = Gate { live, target, foreign: foreign.as_ref(), sending, started, first_byte };
    if events {
        gate.stream(head, source).await
    } else if unasked {
        gate.whole_as_stream(head, source, joiner).await
    } else if joiner.is_some_and(|joiner| !joiner.is_first()) {
        failed(Outcome::new(Kind::NotResumed, "the upstream did not answer with a stream"))
    } else if asked.operation != Operation::Other && asked.has_body() && !encoded {
        gate.whole(head, source).await
    } else if foreign.is_some() {
        failed(Outcome::new(Kind::Malformed, "the upstream compressed its answer unasked, so it cannot be translated"))
    } else {
        let begun = Begun { held: Bytes::new(), source, started, first_byte, first_token: None };
        Attempted::Committed { head, begun: Box::new(begun) }
    }
}

/// Sends the request and waits for the head.
///
/// A kept connection that the upstream closed just when it was used again says nothing about the upstream (RFC 9112
/// section 9.5): a request to a model, which changes nothing there, is sent once more on a fresh one.
async fn send(asked: &Asked, target: &Target, sending: &Sending, plan: &Plan) -> Result<Answer, Outcome> {
    let build = || request(asked, target, plan).map_err(|message| Outcome::new(Kind::Refused, message));
    let connect = sending.timeouts.connect;
    match target.origin.send(build()?, connect, Reuse::Kept).await {
        Err(SendError::Reset { reused: true, .. }) if is_repeatable(asked) => {
            target.origin.send(build()?, connect, Reuse::Fresh).await.map_err(|error| outcome_of(&error))
        }
        sent => sent.map_err(|error| outcome_of(&error)),
    }
}

fn is_repeatable(asked: &Asked) -> bool {
    asked.operation != Operation::Other || asked.method.is_idempotent()
}

/// What an attempt sends, and how its answer is read.
struct Plan {
    body: Bytes,
    /// Keeps what is delivered in mind; none where nothing is to be resumed.
    joiner: Option<Joiner>,
    /// Does the body give the backend the beginning of its answer?
    prefilled: bool,
    /// The way back, where the backend speaks another dialect.
    foreign: Option<Foreign>,
}

/// What of a plan matters to a refusal.
struct Sent<'a> {
    prefilled: bool,
    foreign: Option<&'a Foreign>,
}

/// The dialect that the answer is read in: the backend's own, or the client's once it is translated.
fn spoken(foreign: Option<&Foreign>, target: &Target) -> Dialect {
    foreign.map_or(target.dialect, |foreign| foreign.way().downstream())
}

/// The client's body with the model's name for this backend in it; for a prefill, with the beginning of the answer; for
/// a backend of another dialect, translated.
fn plan(live: &Live, target: &Target, sending: &Sending, told: Option<&Transcript>) -> Result<Plan, Outcome> {
    let asked = live.asked();
    let foreign = Foreign::of(asked, target, &sending.model)?;
    let body = || match &foreign {
        Some(foreign) => foreign.body.clone(),
        None => body_for(asked, target, sending),
    };
    let is_kept = sending.join.is_some() || sending.resume != Resume::None;
    if !asked.streaming || !streams_are_known(asked.operation) || !is_kept {
        return Ok(Plan { body: body(), joiner: None, prefilled: false, foreign });
    }
    let new = || Transcript::new(spoken(foreign.as_ref(), target), asked.operation);
    let told = told.cloned().unwrap_or_else(new);
    let capabilities = &live.snapshot().view.backend(sending.backend).capabilities;
    if sending.join == Some(Join::Prefill)
        && foreign.is_none()
        && let Some((body, unsent)) = prefill(&asked.body, asked.operation, &told, capabilities)
        && let Ok(facts) = BodyFacts::read(&body, None)
    {
        let body = changed(asked, &body, &facts, target, sending);
        return Ok(Plan { body, joiner: Some(Joiner::continued(told, unsent)), prefilled: true, foreign });
    }
    Ok(Plan { body: body(), joiner: Some(Joiner::splice(told)), prefilled: false, foreign })
}

fn body_for(asked: &Asked, target: &Target, sending: &Sending) -> Bytes {
    match &asked.body_facts {
        Some(facts) => changed(asked, &asked.body, facts, target, sending),
        None => asked.body.clone(),
    }
}

fn changed(asked: &Asked, body: &Bytes, facts: &BodyFacts, target: &Target, sending: &Sending) -> Bytes {
    let include_usage = asked.asks_usage_for_itself(target.dialect);
    splice(body, facts, Change { model: Some(&sending.model), include_usage })
}

/// The request as this backend gets it: its key, its path, this body; all else as the client sent it, unless it is
/// translated.
fn request(asked: &Asked, target: &Target, plan: &Plan) -> Result<Request<Full<Bytes>>, String> {
    let foreign = plan.foreign.as_ref();
    let path = foreign.map_or_else(|| asked.target.clone(), Foreign::path);
    let operation = foreign.map_or(asked.operation, |foreign| foreign.way().upstream().1);
    let url = target.base.join(&Uri::from(path)).map_err(|e| e.to_string())?;
    let path = url.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let mut request = Request::new(Full::new(plan.body.clone()));
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = Uri::from(path);
    let mut headers = headers::upstream(&asked.headers, target.dialect, operation, target.key.as_ref());
    if let Some(foreign) = foreign {
        foreign.clean(&mut headers);
    }
    *request.headers_mut() = headers;
    for (name, value) in &target.headers {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    Ok(request)
}

struct Gate<'a> {
    live: &'a Live,
    target: &'a Target,
    foreign: Option<&'a Foreign>,
    sending: &'a Sending,
    started: Instant,
    first_byte: Duration,
}

impl Gate<'_> {
    /// A JSON answer is held until it is complete: its client can do nothing with half of it.
    async fn whole(&self, mut head: Parts, mut source: Source) -> Attempted {
        let mut held = Held::default();
        loop {
            match source.step().await {
                Step::Bytes(bytes) => held.push(bytes),
                Step::Failed(_, outcome) => return self.failed(outcome, Usage::default(), None),
                Step::End => break,
            }
            if held.len() > MAX_WHOLE_BYTES && self.foreign.is_none() {
                return self.committed(head, held, source, None);
            }
            if held.len() > MAX_HELD_BYTES {
                let outcome = Outcome::new(Kind::Malformed, "the upstream's answer is too long to be translated");
                return self.failed(outcome, Usage::default(), None);
            }
        }
        let mut body = held.take();
        let outcome = self.judge(&head, &body);
        if outcome.kind != Kind::Answered {
            return self.failed(outcome, Usage::default(), None);
        }
        let usage = source.usage(0);
        if let Some(foreign) = self.foreign.filter(|_| head.status.is_success()) {
            body = match foreign.whole(&mut head, &body, self.live.proxy().clock.now()) {
                Ok(translated) => translated,
                Err(outcome) => return self.failed(outcome, usage, None),
            };
        }
        let ended = Ended { outcome, usage, first_byte: Some(self.first_byte), first_token: None };
        Attempted::Whole { head, body, ended }
    }

    /// The same, told as the stream that was asked for; one that resumes, less what was delivered.
    async fn whole_as_stream(&self, head: Parts, source: Source, joiner: Option<Joiner>) -> Attempted {
        let must_join = joiner.as_ref().is_some_and(|joiner| !joiner.is_first());
        let (mut head, body, ended) = match self.whole(head, source).await {
            Attempted::Whole { head, body, ended } => (head, body, ended),
            Attempted::Committed { .. } if must_join => {
                let outcome = Outcome::new(Kind::NotResumed, "the upstream answered with a body too long to be joined");
                return self.failed(outcome, Usage::default(), None);
            }
            other @ (Attempted::Committed { .. } | Attempted::Failed(..)) => return other,
        };
        let asked = self.live.asked();
        let include_usage = asked.body_facts.as_ref().is_some_and(|facts| facts.include_usage);
        let Some(stream) = as_stream(asked.operation, &body, include_usage) else {
            let text = "the upstream answered a request for a stream with JSON that is no answer";
            return self.failed(Outcome::new(Kind::Malformed, text), ended.usage, None);
        };
        let body = match joiner.filter(|joiner| !joiner.is_first()) {
            Some(joiner) => match join_whole(joiner, &stream) {
                Ok(body) => body,
                Err(outcome) => return self.failed(outcome, ended.usage, None),
            },
            None => stream,
        };
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        Attempted::Whole { head, body, ended }
    }

    fn judge(&self, head: &Parts, body: &[u8]) -> Outcome {
        let now = self.live.proxy().clock.now();
        classify_whole(self.target.dialect, head.status.as_u16(), &head.headers, body, now)
    }

    /// A stream is held until the gate opens.
    async fn stream(&self, head: Parts, mut source: Source) -> Attempted {
        let mut held = Held::default();
        let mut first_token = None;
        let first_token_at = self.started + self.sending.timeouts.first_token;
        while !self.is_open(&source) && held.len() <= MAX_HELD_BYTES {
            let step = match first_token {
                None => tokio::time::timeout_at(first_token_at, source.step()).await,
                Some(_) => Ok(source.step().await),
            };
            match step {
                Ok(Step::Bytes(bytes)) => held.push(bytes),
                Ok(Step::Failed(_, outcome)) => {
                    let usage = source.usage(self.live.asked().prompt_tokens);
                    return self.failed(outcome, usage, first_token);
                }
                // An answer without content is an answer, as long as the model said why.
                Ok(Step::End) if self.must_join(&source) => {
                    return self.failed(not_resumed(Unfit::Shorter), source.usage(0), first_token);
                }
                Ok(Step::End) if first_token.is_some() || source.finished() => break,
                Ok(Step::End) => {
                    let empty = Outcome::new(Kind::Malformed, "the stream ended without an answer in it");
                    return self.failed(empty, Usage::default(), None);
                }
                Err(_) => {
                    let limit = self.sending.timeouts.first_token;
                    let text = format!("no first token within {limit:?} (timeouts.first_token_ms)");
                    return self.failed(Outcome::new(Kind::TimedOut, text), Usage::default(), None);
                }
            }
            if first_token.is_none() && source.content_events() > 0 {
                first_token = Some(self.started.elapsed());
            }
        }
        self.committed(head, held, source, first_token)
    }

    fn committed(&self, head: Parts, held: Held, source: Source, first_token: Option<Duration>) -> Attempted {
        let (started, first_byte) = (self.started, self.first_byte);
        let begun = Begun { held: held.take(), source, started, first_byte, first_token };
        Attempted::Committed { head, begun: Box::new(begun) }
    }

    /// Has nothing new been said yet, by an answer that resumes another?
    fn must_join(&self, source: &Source) -> bool {
        source.joiner().is_some_and(|joiner| !joiner.has_joined())
    }

    fn is_open(&self, source: &Source) -> bool {
        if source.joiner().is_some_and(|joiner| !joiner.is_first()) {
            return !self.must_join(source);
        }
        match self.sending.commit {
            Commit::Headers => true,
            Commit::FirstContent => source.content_events() > 0 || source.finished(),
            Commit::Tokens(n) => source.content_events() >= u64::from(n) || source.finished(),
            // Only the end of the body opens it.
            Commit::Complete => false,
        }
    }

    fn failed(&self, outcome: Outcome, usage: Usage, first_token: Option<Duration>) -> Attempted {
        Attempted::Failed(Ended { outcome, usage, first_byte: Some(self.first_byte), first_token }, None)
    }
}

/// Reads what the upstream says about its refusal; half an explanation is better than a long wait for the whole.
async fn refused(
    live: &Live,
    target: &Target,
    sending: &Sending,
    head: Parts,
    mut source: Source,
    sent: Sent<'_>,
) -> Attempted {
    let mut held = Held::default();
    let patience = Instant::now() + REFUSAL_PATIENCE;
    while held.len() <= MAX_REFUSAL_BYTES {
        match tokio::time::timeout_at(patience, source.step()).await {
            Ok(Step::Bytes(bytes)) => held.push(bytes),
            Ok(Step::Failed(..) | Step::End) | Err(_) => break,
        }
    }
    let mut head = head;
    let body = redacted(held.take(), &mut head.headers, target);
    let now = live.proxy().clock.now();
    let prefix = &body[..body.len().min(BODY_PREFIX_BYTES)];
    let mut outcome = classify(target.dialect, head.status.as_u16(), &head.headers, prefix, now);
    if sent.prefilled && outcome.kind == Kind::Refused {
        // The same request without the beginning of an answer was good enough for the first backend.
        outcome.kind = Kind::NotResumed;
        outcome.message = format!("the beginning of an answer was refused: {}", outcome.message);
    }
    let body = match sent.foreign {
        Some(foreign) => foreign.refusal(&mut head, &body, &live.asked().id),
        None => body,
    };
    let explains = matches!(outcome.kind, Kind::Refused | Kind::TooLong | Kind::ModelMissing);
    let backend = live.snapshot().view.backend(sending.backend).id.clone();
    let kept = explains.then_some(KeptRefusal { lane: sending.lane, backend, head, body });
    Attempted::Failed(Ended::failed(outcome), kept)
}

/// Some upstreams repeat the key they refuse; ours goes to nobody.
fn redacted(body: Bytes, headers: &mut HeaderMap, target: &Target) -> Bytes {
    let key = target.key.as_ref().map_or(&[][..], |key| key.as_bytes());
    let key = key.strip_prefix(b"Bearer ").unwrap_or(key);
    if key.is_empty() {
        return body;
    }
    let leaks = |text: &[u8]| memchr::memmem::find(text, key).is_some();
    let names: Vec<_> = headers.iter().filter(|(_, v)| leaks(v.as_bytes())).map(|(n, _)| n.clone()).collect();
    for name in names {
        headers.remove(name);
    }
    if !leaks(&body) {
        return body;
    }
    let mut clean = BytesMut::with_capacity(body.len());
    let mut rest = &body[..];
    while let Some(at) = memchr::memmem::find(rest, key) {
        clean.extend_from_slice(&rest[..at]);
        clean.extend_from_slice(b"***");
        rest = &rest[at + key.len()..];
    }
    clean.extend_from_slice(rest);
    headers.remove(CONTENT_LENGTH);
    clean.freeze()
}

/// What of a whole answer, told as a stream, is new.
fn join_whole(mut joiner: Joiner, stream: &Bytes) -> Result<Bytes, Outcome> {
    let mut reader = sse::Reader::default();
    reader.push(stream.clone());
    let mut new = BytesMut::new();
    let too_long = |error: sse::TooLong| Outcome::new(Kind::Malformed, error.to_string());
    while let Some(event) = reader.next_event().map_err(too_long)? {
        match joiner.take(&event).map_err(not_resumed)? {
            Emit::AsReceived => new.extend_from_slice(event.raw),
            Emit::Instead(bytes) => new.extend_from_slice(&bytes),
            Emit::Nothing => {}
        }
    }
    if joiner.has_joined() { Ok(new.freeze()) } else { Err(not_resumed(Unfit::Shorter)) }
}

fn learn(live: &Live, headers: &HeaderMap) {
    let tells = |name: &http::HeaderName| name.as_str().contains("ratelimit-");
    if !headers.keys().any(tells) {
        return;
    }
    let now = live.proxy().clock.now();
    let hints = RateHints::parse(headers, now);
    live.learn(hints.requests.left_until(now), hints.tokens.left_until(now));
}

fn failed(outcome: Outcome) -> Attempted {
    Attempted::Failed(Ended::failed(outcome), None)
}

fn outcome_of(error: &SendError) -> Outcome {
    let kind = match error {
        SendError::Connect { .. } | SendError::ConnectTimeout { .. } => Kind::ConnectFailed,
        SendError::Reset { .. } => Kind::Reset,
        SendError::Malformed(_) => Kind::Malformed,
    };
    Outcome::new(kind, error.to_string())
}

fn has_content_type(headers: &HeaderMap, prefix: &str) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    content_type.trim_start().get(..prefix.len()).is_some_and(|t| t.eq_ignore_ascii_case(prefix))
}

/// Operations whose streams have an end that can be told from a cut.
pub fn streams_are_known(operation: Operation) -> bool {
    match operation {
        Operation::Chat | Operation::Completion | Operation::Response | Operation::Message => true,
        Operation::Embedding | Operation::Other => false,
    }
}

/// Bytes held back; the common single piece is never copied.
#[derive(Default)]
struct Held {
    first: Bytes,
    rest: BytesMut,
}

impl Held {
    fn push(&mut self, bytes: Bytes) {
        if self.first.is_empty() {
            self.first = bytes;
        } else {
            if self.rest.is_empty() {
                self.rest.extend_from_slice(&self.first);
            }
            self.rest.extend_from_slice(&bytes);
        }
    }

    fn len(&self) -> usize {
        self.first.len().max(self.rest.len())
    }

    fn take(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}
