//! A request that is sent once more within its attempt, without the addition of ours that was refused.

use bytes::Bytes;
use memchr::memmem;

use super::additions::{Added, Addition};
use super::request::{ClientRequest, Endpoint};
use super::{Attempt, Output, Phase};
use crate::contract::Operation;
use crate::dialect::classify::{BODY_PREFIX_BYTES, error_message};
use crate::dialect::splice::{with_number, without_stream_options};
use crate::dialect::translate::Strictness;
use crate::http::json::{self, Cursor};

/// The names of the addition, in a refusal that speaks of it.
const NAMES: [&[u8]; 3] = [b"stream_options", b"include_usage", b"streamOptions"];

/// The member with the limit of an answer's tokens, by its older name and its newer one.
const MAX_TOKENS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

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
    /// Notes the limit of the answer's tokens in a translated body, where the client named none, or had to name one because
    /// its API demands it; one that this model is known to refuse is lowered.
    pub(super) fn note_limit(&mut self, request: &ClientRequest<'_>, endpoint: &Endpoint, model: &str) {
        let is_named = request.body_facts.is_none_or(|facts| facts.max_tokens > 0);
        let is_demanded =
            request.operation == Operation::Message && request.translations.strictness() == Strictness::Lenient;
        let (Some(translated), Ok(body)) = (&mut self.translated, &self.body) else { return };
        let Some((name, limit)) = limit_in(body).filter(|_| !is_named || is_demanded) else { return };
        self.added.max_tokens = Addition::Sent;
        self.added.is_clients = is_named;
        self.added.limit = limit;
        if let Some(known) = endpoint.additions.max_tokens(model).filter(|known| *known < limit) {
            self.added.limit = known;
            self.body = Ok(with_number(body, name, known));
            if is_named {
                translated.lowered(known);
            }
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
            && MAX_TOKENS.iter().any(|name| says(name.as_bytes()))
            && let Some((limit, is_of_prompt)) = told_limit(refusal, self.added.limit)
        {
            (self.added.limit, self.added.is_of_prompt) = (limit, is_of_prompt);
            self.added.max_tokens = Addition::LeftOut;
            return true;
        }
        if names_other(refusal) {
            return false;
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
        let Added { usage, max_tokens, limit, is_clients, .. } = self.added;
        if let Some(translated) = self.translated.as_mut().filter(|_| max_tokens == Addition::LeftOut && is_clients) {
            translated.lowered(limit);
        }
        self.body = match request.body_facts {
            Some(facts) if self.translated.is_none() && !self.prefilled => {
                Ok(request.changed(request.body, facts, endpoint.dialect, model, false))
            }
            Some(_) | None => sent.map(|body| {
                let body = if usage == Addition::LeftOut { without_stream_options(&body) } else { body };
                match limit_in(&body).filter(|_| max_tokens == Addition::LeftOut) {
                    Some((name, _)) => with_number(&body, name, limit),
                    None => body,
                }
            }),
        };
    }

    /// Returns true if the request was sent again without an addition.
    pub fn has_left_out(&self) -> bool {
        self.added.usage == Addition::LeftOut || self.added.max_tokens == Addition::LeftOut
    }
}

/// The limit of the answer's tokens in this body, and its member's name.
fn limit_in(body: &[u8]) -> Option<(&'static str, u64)> {
    MAX_TOKENS.into_iter().find_map(|name| Some((name, json::member(body, name).and_then(json::count)?)))
}

/// The limit, lower than `than`, that a refusal names beside the one that was asked for; and whether it is only this prompt's.
fn told_limit(refusal: &[u8], than: u64) -> Option<(u64, bool)> {
    let message = error_message(&refusal[..refusal.len().min(BODY_PREFIX_BYTES)]).to_ascii_lowercase();
    if ["context", "input tokens", "prompt"].into_iter().any(|word| message.contains(word)) {
        let limit = context_of(&message)?.checked_sub(prompt_of(&message)?)?;
        return (1..than).contains(&limit).then_some((limit, true));
    }
    let numbers = message.split(|c: char| !c.is_ascii_digit()).filter_map(|number| json::count(number.as_bytes()));
    numbers.filter(|number| (MIN_LIMIT..than).contains(number)).max().map(|limit| (limit, false))
}

/// The tokens of the context in a message like vLLM's "maximum context length is 8192 tokens".
fn context_of(message: &str) -> Option<u64> {
    let (_, rest) = message.split_once("context length ")?;
    let rest = rest.trim_start_matches("is ").trim_start_matches("of ");
    json::count(rest.split(|c: char| !c.is_ascii_digit()).next()?.as_bytes())
}

/// The tokens of the prompt in a message like vLLM's "your request has 1200 input tokens" and OpenAI's "1200 in the
/// messages".
fn prompt_of(message: &str) -> Option<u64> {
    let behind = [" input tokens", " prompt tokens", " in the messages", " in the prompt", " in your prompt"];
    let (before, _) = behind.into_iter().find_map(|words| message.split_once(words))?;
    json::count(before.rsplit(|c: char| !c.is_ascii_digit()).next()?.as_bytes())
}

/// Returns true if a refusal names the member that it is about, and it is none of our addition's: `error.param`, or FastAPI's
/// `detail[].loc`, which has the client's input beside it.
fn names_other(refusal: &[u8]) -> bool {
    let is_ours = |name: &[u8]| NAMES.into_iter().any(|ours| memmem::find(name, ours).is_some());
    let error = json::member(refusal, "error").unwrap_or(refusal);
    if let Some(param) = json::member(error, "param").filter(|param| json::is_filled(param)) {
        return !is_ours(param);
    }
    let details = json::member(refusal, "detail").filter(|details| details.first() == Some(&b'['));
    let mut at = Cursor::new(details.unwrap_or_default());
    let (mut has_loc, mut has_ours) = (false, false);
    at.enter(b'[');
    while at.has_element() {
        if let Some(loc) = json::member(at.value(), "loc") {
            has_loc = true;
            has_ours |= is_ours(loc);
        }
    }
    has_loc && !has_ours
}
