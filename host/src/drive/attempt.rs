//! One attempt: send, wait for the head, and hand the answer to the commit gate; or hear why there is none.
//!
//! Up to the commit any failure is only a failed attempt. What was held back is handed to the relay with the rest. An
//! attempt that resumes a broken answer is held back until it says something new.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use pointsman_core::contract::Operation;
use pointsman_core::dialect::classify::{BODY_PREFIX_BYTES, classify};
use pointsman_core::dialect::resume::Transcript;
use pointsman_core::exchange::{Ended, Sending};
use pointsman_core::http::retry_after::RateHints;
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::record::Usage;
use pointsman_core::table::Lane;
use tokio::time::Instant;

use super::foreign::Foreign;
use super::gate::{Gate, Held};
use super::live::Live;
use super::plan::{Plan, plan, request, spoken, streams_are_known};
use super::request::Asked;
use super::snapshot::Target;
use super::source::{Expected, Source, Step};
use crate::upstream::{Answer, Reuse, SendError};

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
    let unasked = unasked && !target.dialect.is_opaque() && has_content_type(&head.headers, "application/json");
    let Plan { joiner, prefilled, foreign, .. } = plan;
    // Events are translated before they are read, a whole answer is counted as it comes.
    let dialect = if events { spoken(foreign.as_ref(), target) } else { target.dialect };
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
        let says_something = asked.operation != Operation::Other && asked.has_body() && !target.dialect.is_opaque();
        if says_something && head.status.is_success() && head.status != StatusCode::NO_CONTENT {
            return failed(Outcome::new(Kind::Malformed, "the upstream answered with an empty body"));
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
/// section 9.5): a request that changes nothing there is sent once more on a fresh one.
async fn send(asked: &Asked, target: &Target, sending: &Sending, plan: &Plan) -> Result<Answer, Outcome> {
    let build = || request(asked, target, plan).map_err(|message| Outcome::new(Kind::Refused, message));
    let connect = sending.timeouts.connect;
    match target.origin.send(build()?, connect, Reuse::Kept).await {
        Err(SendError::Reset { reused: true, .. }) if !asked.acts() => {
            target.origin.send(build()?, connect, Reuse::Fresh).await.map_err(|error| outcome_of(&error))
        }
        sent => sent.map_err(|error| outcome_of(&error)),
    }
}

/// What of a plan matters to a refusal.
struct Sent<'a> {
    prefilled: bool,
    foreign: Option<&'a Foreign>,
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
    let mut is_whole = false;
    while held.len() <= MAX_REFUSAL_BYTES {
        match tokio::time::timeout_at(patience, source.step()).await {
            Ok(Step::Bytes(bytes)) => held.push(bytes),
            Ok(Step::End) => {
                is_whole = true;
                break;
            }
            Ok(Step::Failed(..)) | Err(_) => break,
        }
    }
    let mut head = head;
    if !is_whole {
        // It promises more than there is.
        head.headers.remove(CONTENT_LENGTH);
    }
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
    let explains = matches!(outcome.kind, Kind::Refused | Kind::TooLong | Kind::ModelMissing)
        || (outcome.kind == Kind::ServerError && live.asked().acts());
    let backend = live.snapshot().view.backend(sending.backend).id.clone();
    let kept = explains.then_some(KeptRefusal { lane: sending.lane, backend, head, body });
    Attempted::Failed(Ended::failed(outcome), kept)
}

/// Some upstreams repeat the key they refuse; ours goes to nobody.
fn redacted(body: Bytes, headers: &mut HeaderMap, target: &Target) -> Bytes {
    let key = target.bare_key();
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
