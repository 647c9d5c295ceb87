//! The commit gate: an answer is held back until it may go downstream, and until then its failure is only a failed attempt.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http::response::Parts;
use pointsman_core::contract::Commit;
use pointsman_core::dialect::as_stream::as_stream;
use pointsman_core::dialect::classify::classify_whole;
use pointsman_core::dialect::resume::{Emit, Joiner, Unfit};
use pointsman_core::exchange::{Ended, Sending};
use pointsman_core::http::sse;
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::record::Usage;
use tokio::time::Instant;

use super::attempt::{Attempted, Begun};
use super::events::not_resumed;
use super::foreign::Foreign;
use super::live::Live;
use super::snapshot::Target;
use super::source::{Source, Step};

/// A whole answer up to this size is held until it is complete, so that a cut one can still be tried elsewhere.
const MAX_WHOLE_BYTES: usize = 1024 * 1024;

/// The most of a stream that is held back for the commit gate; then it is committed, whatever the gate says.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// An attempt whose head is there.
pub struct Gate<'a> {
    /// The exchange.
    pub live: &'a Live,
    /// Where it was sent.
    pub target: &'a Target,
    /// The way back, where the backend speaks another dialect.
    pub foreign: Option<&'a Foreign>,
    /// Its limits, and the gate.
    pub sending: &'a Sending,
    /// When it began.
    pub started: Instant,
    /// Time to the head.
    pub first_byte: Duration,
}

impl Gate<'_> {
    /// A JSON answer is held until it is complete: its client can do nothing with half of it.
    pub async fn whole(&self, mut head: Parts, mut source: Source) -> Attempted {
        let mut held = Held::default();
        loop {
            match source.step().await {
                Step::Bytes(bytes) => held.push(bytes),
                Step::Failed(_, outcome) => return self.failed(outcome, Usage::default(), None),
                Step::End => break,
            }
            if held.len() > MAX_WHOLE_BYTES && self.foreign.is_none() && !source.has_ended() {
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
    pub async fn whole_as_stream(&self, head: Parts, source: Source, joiner: Option<Joiner>) -> Attempted {
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
    pub async fn stream(&self, head: Parts, mut source: Source) -> Attempted {
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
        let outcome = self.target.censored(outcome);
        Attempted::Failed(Ended { outcome, usage, first_byte: Some(self.first_byte), first_token }, None)
    }
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

/// Bytes held back; the common single piece is never copied.
#[derive(Default)]
pub struct Held {
    first: Bytes,
    rest: BytesMut,
}

impl Held {
    /// Holds these too.
    pub fn push(&mut self, bytes: Bytes) {
        if self.first.is_empty() {
            self.first = bytes;
        } else {
            if self.rest.is_empty() {
                self.rest.extend_from_slice(&self.first);
            }
            self.rest.extend_from_slice(&bytes);
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.first.len().max(self.rest.len())
    }

    /// All of them.
    pub fn take(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}
