//! Refusals: what the upstream said in place of an answer, without the key that it may repeat.

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use http::{HeaderMap, HeaderValue};

use super::{Attempt, Output, Phase};
use crate::dialect::classify::{BODY_PREFIX_BYTES, classify};
use crate::exchange::Ended;
use crate::outcome::{Kind, Outcome};
use crate::table::Dialect;
use crate::time::Timestamp;

/// The most of a refusal that is kept to be passed on.
pub(super) const MAX_REFUSAL_BYTES: usize = 256 * 1024;

/// A refusal that can be passed on to the client.
#[derive(Debug)]
pub struct KeptRefusal {
    /// Its head.
    pub head: Parts,
    /// Its body, at most 256 KiB.
    pub body: Bytes,
}

/// Returns true if a refusal of this kind is worth passing on: it is about the request or the key, not about the
/// backend's state. For a request that must not be repeated every refusal is final.
pub const fn explains_itself(kind: Kind, is_idempotent: bool) -> bool {
    matches!(kind, Kind::Refused | Kind::TooLong | Kind::ModelMissing | Kind::Unauthorised)
        || (matches!(kind, Kind::ServerError) && !is_idempotent)
}

impl Attempt {
    /// Keeps what the upstream says about its refusal; half an explanation is better than a long wait for the whole.
    pub(super) fn refusal_bytes(&mut self, now: Timestamp, data: Bytes, is_last: bool) -> Output {
        self.held.push(data);
        if self.held.len() > MAX_REFUSAL_BYTES {
            self.refused(now, false)
        } else if is_last {
            self.refused(now, true)
        } else {
            Output::Wait
        }
    }

    /// The refusal is read, or as much of it as will be.
    pub(super) fn refused(&mut self, now: Timestamp, is_whole: bool) -> Output {
        let held = self.held.take();
        if self.refuses_addition(&held) {
            return self.send_again();
        }
        self.phase = Phase::Over;
        let Some(mut head) = self.head.take() else { return Output::Wait };
        if !is_whole {
            // It promises more than there is.
            head.headers.remove(CONTENT_LENGTH);
        }
        let body = redacted(held, &mut head.headers, self.bare_key());
        let prefix = &body[..body.len().min(BODY_PREFIX_BYTES)];
        let mut outcome = classify(self.dialect, self.status, &head.headers, prefix, now);
        if self.prefilled && outcome.kind == Kind::Refused {
            // The same request without the beginning of an answer was good enough for the first backend.
            outcome.kind = Kind::NotResumed;
            outcome.message = format!("the beginning of an answer was refused: {}", outcome.message);
        }
        if explains_itself(outcome.kind, self.asked.is_idempotent) {
            let body = match &self.translated {
                Some(translated) => translated.refusal(&mut head, &body),
                None => body,
            };
            self.refusal = Some(KeptRefusal { head, body });
        }
        Output::Ended(Bytes::new(), Ended::failed(censored(outcome, self.bare_key())))
    }
}

/// The key itself, without the scheme before it; empty where there is none.
pub(super) fn bare_key(dialect: Dialect, key: Option<&HeaderValue>) -> &[u8] {
    let key = key.map_or(&[][..], |key| key.as_bytes());
    key.strip_prefix(dialect.format().key_prefix().as_bytes()).unwrap_or(key)
}

/// The outcome without the key: some upstreams repeat it in what they say, and ours goes to nobody.
pub(super) fn censored(mut outcome: Outcome, key: &[u8]) -> Outcome {
    if let Ok(key) = std::str::from_utf8(key)
        && !key.is_empty()
        && outcome.message.contains(key)
    {
        outcome.message = outcome.message.replace(key, "***");
    }
    outcome
}

/// A refusal's body without the key; headers that repeat it are removed.
fn redacted(body: Bytes, headers: &mut HeaderMap, key: &[u8]) -> Bytes {
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
