//! A request that is sent once more within its attempt, without the addition of ours that was refused.

use bytes::Bytes;
use memchr::memmem;

use super::additions::{Added, Addition};
use super::request::{ClientRequest, Endpoint};
use super::{Attempt, Output, Phase};
use crate::dialect::classify::BODY_PREFIX_BYTES;
use crate::dialect::splice::{with_number, without_stream_options};
use crate::http::json;

/// The names of the addition, in a refusal that speaks of it.
const NAMES: [&[u8]; 3] = [b"stream_options", b"include_usage", b"streamOptions"];

/// The member with the limit of an answer's tokens.
const MAX_TOKENS: &str = "max_tokens";

/// Lower numbers in a refusal are no limits, but versions, sizes and the like.
const MIN_LIMIT: u64 = 256;

/// Words of a refusal that speaks of a member that the server does not know, but does not name it.
const UNKNOWN_MEMBER: [&[u8]; 9] = [
    b"extra fields",
    b"extra inputs",
    b"extra_forbidden",
    b"additional properties",
    b"unknown field",
    b"unknown parameter",
    b"unrecognized",
    b"unexpected field",
    b"unsupported parameter",
];

impl Attempt {
    /// Notes the limit of the answer's tokens in a translated body, where the client named none; one that this model is
    /// known to refuse is lowered.
    pub(super) fn note_limit(&mut self, request: &ClientRequest<'_>, endpoint: &Endpoint, model: &str) {
        let is_named = request.body_facts.is_none_or(|facts| facts.max_tokens > 0);
        let (false, Some(_), Ok(body)) = (is_named, &self.translated, self.body.clone()) else { return };
        let Some(limit) = json::member(&body, MAX_TOKENS).and_then(json::count) else { return };
        self.added.max_tokens = Addition::Sent;
        self.added.limit = limit;
        if let Some(known) = endpoint.additions.max_tokens(model).filter(|known| *known < limit) {
            self.added.limit = known;
            self.body = Ok(with_number(&body, MAX_TOKENS, known));
        }
    }

    /// Returns true if this refusal, or error in place of an answer, is of an addition of ours, which is then to be left
    /// out.
    pub(super) fn refuses_addition(&mut self, refusal: &[u8]) -> bool {
        if self.is_committed() || !self.may_send_again() {
            return false;
        }
        let text = refusal[..refusal.len().min(BODY_PREFIX_BYTES)].to_ascii_lowercase();
        let says = |word: &[u8]| memmem::find(&text, &word.to_ascii_lowercase()).is_some();
        let is_client_error = matches!(self.status, 400 | 422);
        if self.added.max_tokens == Addition::Sent
            && is_client_error
            && says(MAX_TOKENS.as_bytes())
            && let Some(limit) = lower_number(&text, self.added.limit)
        {
            self.added.limit = limit;
            self.added.max_tokens = Addition::LeftOut;
            return true;
        }
        let is_unknown_member = || text.trim_ascii().is_empty() || UNKNOWN_MEMBER.into_iter().any(says);
        let is_usage = NAMES.into_iter().any(says) || is_client_error && is_unknown_member();
        if self.added.usage == Addition::Sent && is_usage {
            self.added.usage = Addition::LeftOut;
            return true;
        }
        false
    }

    /// Returns true while the request may have to be sent once more.
    pub(super) fn may_send_again(&self) -> bool {
        self.added.usage == Addition::Sent || self.added.max_tokens == Addition::Sent
    }

    /// Asks for the request to be sent once more, without the addition.
    pub(super) fn send_again(&mut self) -> Output {
        self.phase = Phase::Sending;
        self.head = None;
        self.held.take();
        if let Some(joiner) = self.reading.take_joiner() {
            self.joiner = Some(joiner);
        }
        self.deadlines.sent_again();
        Output::SendAgain
    }

    /// Prepares the request for being sent again, after [`Output::SendAgain`].
    pub fn leave_out(&mut self, request: &ClientRequest<'_>, endpoint: &Endpoint, model: &str) {
        let sent = std::mem::replace(&mut self.body, Ok(Bytes::new()));
        let Added { usage, max_tokens, limit } = self.added;
        self.body = match request.body_facts {
            Some(facts) if self.translated.is_none() && !self.prefilled => {
                Ok(request.changed(request.body, facts, endpoint.dialect, model, false))
            }
            Some(_) | None => sent.map(|body| {
                let body = if usage == Addition::LeftOut { without_stream_options(&body) } else { body };
                if max_tokens == Addition::LeftOut { with_number(&body, MAX_TOKENS, limit) } else { body }
            }),
        };
    }

    /// Returns true if the request was sent again without an addition.
    pub fn has_left_out(&self) -> bool {
        self.added.usage == Addition::LeftOut || self.added.max_tokens == Addition::LeftOut
    }
}

/// The largest number in this text that is lower than `than`: the limit that a refusal names beside the one that was asked for.
fn lower_number(text: &[u8], than: u64) -> Option<u64> {
    let numbers = text.split(|byte| !byte.is_ascii_digit()).filter_map(json::count);
    numbers.filter(|number| (MIN_LIMIT..than).contains(number)).max()
}
