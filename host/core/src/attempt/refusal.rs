//! Refusals: what the upstream said in place of an answer, without the secrets that it may repeat.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::response::Parts;

use super::{Attempt, Output, Phase};
use crate::dialect::classify::{BODY_PREFIX_BYTES, classify};
use crate::fleet::health::may_be_requests;
use crate::outcome::Kind;
use crate::time::Timestamp;

/// The most of a refusal that is kept to be passed on.
pub(super) const MAX_REFUSAL_BYTES: usize = 256 * 1024;

/// A refusal that can be passed on to the client.
#[derive(Debug)]
pub struct KeptRefusal {
    /// Status and headers as they came, without those of the connection.
    pub head: Parts,
    /// Its body, at most 256 KiB.
    pub body: Bytes,
    /// It is about the backend, as far as its words tell: passed on only where the request turns out to be to blame.
    pub is_last_resort: bool,
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
        let prefix = &held[..held.len().min(BODY_PREFIX_BYTES)];
        let mut outcome = classify(self.dialect, self.status, &head.headers, prefix, now);
        if self.prefilled && outcome.kind == Kind::Refused {
            // The same request without the beginning of an answer was good enough for the first backend.
            outcome.kind = Kind::NotResumed;
            outcome.message = format!("the beginning of an answer was refused: {}", outcome.message);
        }
        let explains = explains_itself(outcome.kind, self.asked.is_idempotent) || outcome.scope.is_of_request();
        if explains || may_be_requests(outcome.kind) {
            // Behind the classification, which must see the words as they came.
            let secrets = self.leaving.secrets();
            secrets.clean(&mut head.headers);
            let length = held.len();
            let body = secrets.redacted(held);
            if body.len() != length {
                head.headers.remove(CONTENT_LENGTH);
            }
            let body = match &self.translated {
                Some(translated) => translated.refusal(&mut head, &body),
                None => body,
            };
            self.refusal = Some(KeptRefusal { head, body, is_last_resort: !explains });
        }
        let ended = self.failed(outcome);
        Output::Ended(Bytes::new(), ended)
    }
}
