//! The life of one attempt as a state machine: what the upstream does goes in, what that means for the client comes out.
//!
//! ```text
//! new -> (sent) -> SendFailed                                          -> Ended
//!                  Head -> refusal: Bytes ... End                      -> Ended, the refusal kept; or SendAgain -> (sent)
//!                       -> whole:   Bytes ... End              Whole
//!                       -> stream:  Bytes ... gate opens -> Commit -> Deliver ... -> Ended
//!                       -> other:                           Commit -> Deliver ... -> Ended
//! ```
//!
//! Before the commit nothing has gone downstream and a failure is only a failed attempt; after it every byte is
//! delivered once, in order. Whatever happens, an attempt ends exactly once: in [`Output::Whole`] or [`Output::Ended`].
//! Inputs after that are ignored.
//!
//! It does no IO and reads no clock. The server feeds it from sockets and timers, a simulation from scripted or learned
//! answers; [`Input::Digest`] spares a simulation the bytes.

mod additions;
mod deadlines;
mod digest;
mod encoded_watch;
mod events;
mod form;
mod gate;
mod head;
mod held;
mod packed;
mod piece;
mod plan;
mod reading;
mod refusal;
mod request;
mod sending_again;
#[cfg(test)]
mod tests;
mod translated;
mod unasked_usage;
mod whole;

use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;

pub use additions::Additions;
pub use digest::{Digest, PromptCount};
pub use head::{BodyKind, LimitLeft};
pub use refusal::{KeptRefusal, explains_itself};
pub use request::{ClientRequest, Endpoint};
pub use translated::{serves_free, translatable};

use crate::contract::Commit;
use crate::dialect::envelope::Opened;
use crate::dialect::repair::Repairs;
use crate::dialect::resume::{Joiner, Transcript};
use crate::dialect::usage::Asked as UsageAsked;
use crate::exchange::{Ended, Join};
use crate::http::encoding::Decoder;
use crate::http::redact::Redactor;
use crate::outcome::{Kind, Outcome};
use crate::overdue::Overdue;
use crate::record::Usage;
use crate::table::Dialect;
use crate::time::Timestamp;
use additions::Added;
use deadlines::{Deadlines, Expired};
use encoded_watch::EncodedWatch;
use form::Form;
use held::Held;
use packed::Packed;
use piece::Piece;
use reading::Reading;
use request::Asked;
use translated::TranslatedAttempt;

/// An input: something that happened to the attempt.
#[derive(Debug)]
pub enum Input {
    /// There is no response head: no connection, a broken one, or no HTTP on it.
    SendFailed(Outcome),
    /// The response head came.
    Head(Parts, BodyKind),
    /// Bytes of the body came.
    Bytes(Bytes),
    /// The body's last bytes came: its framing says that none follow. [`Input::End`] may follow all the same.
    LastBytes(Bytes),
    /// A part of a body came whose bytes nobody made.
    Digest(Digest),
    /// The body ended as its framing has it.
    End,
    /// The connection broke inside the body, or what came is no HTTP.
    Broken(Outcome),
    /// [`Attempt::wake_at`] has come. Too early, it does nothing.
    Timer,
    /// The process ends, and what is under way with it.
    ShuttingDown,
    /// There is no memory for more of the answer than is held ([`Attempt::held_bytes`]).
    NoMemory,
    /// The client disconnected.
    ClientGone,
}

/// An output: the next thing to do.
#[derive(Debug)]
pub enum Output {
    /// Nothing: more input is needed.
    Wait,
    /// The commit gate opened: the head ([`Attempt::take_head`]) and these bytes, maybe none, go downstream. More follows.
    Commit(Bytes),
    /// These bytes go downstream; after the commit only.
    Deliver(Bytes),
    /// Commit and end at once: the head and these bytes are the whole answer.
    Whole(Bytes, Ended),
    /// The attempt ended. After the commit these last bytes, maybe none, go downstream first; before it there are none.
    Ended(Bytes, Ended),
    /// The backend refused an addition of ours: the request is sent once more without it ([`Attempt::leave_out`]).
    SendAgain,
}

/// State machine of one attempt: what is sent, and what its answer means.
pub struct Attempt {
    asked: Asked,
    dialect: Dialect,
    /// The dialect that the answer is read in: the backend's, or the client's where it is translated.
    spoken: Dialect,
    commit: Commit,
    join: Option<Join>,
    /// The body sent has the beginning of the answer as an assistant prefill.
    prefilled: bool,
    translated: Option<TranslatedAttempt>,
    /// Body to send, or the reason why none can be sent; dropped with the head.
    body: Result<Bytes, Outcome>,
    joiner: Option<Joiner>,
    phase: Phase,
    deadlines: Deadlines,
    reading: Reading,
    held: Held,
    head: Option<Parts>,
    status: u16,
    first_byte: Option<Duration>,
    first_token: Option<Duration>,
    limits_left: (LimitLeft, LimitLeft),
    refusal: Option<KeptRefusal>,
    /// The id that the provider gave the request.
    upstream_id: Option<Box<str>>,
    /// Takes the backend's secrets out of what leaves.
    leaving: Redactor,
    /// A whole answer was told as the stream that was asked for.
    told_as_stream: bool,
    /// Repairs of an answer in one piece.
    body_repairs: Repairs,
    form: Form,
    /// The request's path, where answers have a shape by their path alone.
    shape_path: Option<Box<str>>,
    added: Added,
    /// The client's body, by which the usage is judged.
    asked_body: Bytes,
    /// Undoes the encoding of an answer that came compressed.
    decoder: Option<Decoder>,
    /// Looks for secrets in an answer that passes compressed.
    watch: Option<Box<EncodedWatch>>,
    /// A compressed answer in one piece as it came.
    packed: Option<Packed>,
}

/// Stands for the body of a request whose prompt was sent with another one.
const PROMPT_IS_ELSEWHERE: &[u8] = b"previous_response_id";

/// Progress of the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Under way to the upstream; no head yet.
    Sending,
    /// A refusal comes in.
    Refusal,
    /// An answer begins whose form is not known yet.
    Undecided,
    /// An answer comes in that is held until it is complete.
    Whole {
        /// Its client asked for a stream, and gets it as one.
        as_stream: bool,
    },
    /// A stream comes in that is held until the gate opens.
    Gated,
    /// The answer is committed: what comes is passed on.
    Relaying,
    /// The last output was given.
    Over,
}

impl Attempt {
    /// Takes what happened at `now`; answers what follows, without the backend's secrets.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Output {
        match self.advance(now, input) {
            output @ (Output::Wait | Output::SendAgain) => output,
            Output::Commit(bytes) => Output::Commit(self.leaving.push(bytes)),
            Output::Deliver(bytes) => match self.leaving.push(bytes) {
                bytes if bytes.is_empty() => Output::Wait,
                bytes => Output::Deliver(bytes),
            },
            Output::Whole(bytes, ended) => Output::Whole(self.leaving.secrets().redacted(bytes), ended),
            Output::Ended(bytes, ended) => Output::Ended(self.leaving.finish(bytes), ended),
        }
    }

    fn advance(&mut self, now: Timestamp, input: Input) -> Output {
        if self.phase == Phase::Over {
            return Output::Wait;
        }
        match input {
            Input::SendFailed(outcome) => self.fail_unanswered(outcome),
            Input::Head(head, body) => self.head(now, head, body),
            Input::Bytes(data) => self.received(now, data, false),
            Input::LastBytes(data) => self.received(now, data, true),
            Input::Digest(digest) => self.digested(now, digest),
            Input::End => self.end(now),
            Input::Broken(outcome) => self.broke(now, outcome),
            Input::Timer => match self.deadlines.expired(now) {
                Some(expired) => self.expired(now, expired),
                None => Output::Wait,
            },
            // Nobody's fault: no backend is to suffer for it.
            Input::ShuttingDown => self.broke(now, Outcome::new(Kind::ClientGone, "Pointsman is shutting down")),
            Input::NoMemory => {
                let text = "Pointsman has no memory to hold more of this answer (server.memory_budget_mb)";
                let usage = self.usage_of_begun();
                self.ended(Bytes::new(), Outcome::new(Kind::NotResumed, text), usage)
            }
            Input::ClientGone => {
                let usage = self.usage_of_begun();
                self.ended(Bytes::new(), Outcome::new(Kind::ClientGone, "the client went away"), usage)
            }
        }
    }

    /// Returns when [`Input::Timer`] is due without an earlier input; each input may move it.
    pub fn wake_at(&self) -> Timestamp {
        self.deadlines.wake_at()
    }

    /// Returns the time limit that has passed at `now` and is a bet that another backend is faster: before
    /// [`Input::Timer`], which ends the attempt, the exchange is asked whether there is one; else it is put off.
    pub fn overdue(&self, now: Timestamp) -> Option<Overdue> {
        if self.reading.is_finished() { None } else { self.deadlines.overdue(now) }
    }

    /// Puts the limits that fail over off to `until`.
    pub fn put_off(&mut self, until: Timestamp) {
        self.deadlines.put_off(until);
    }

    /// Returns when the total time limit ends.
    pub fn total_at(&self) -> Timestamp {
        self.deadlines.total_at()
    }

    /// Returns true once the stream's last event was read. Only the end of the HTTP body may follow; [`Input::End`]
    /// may be given without waiting for it.
    pub fn has_said_all(&self) -> bool {
        matches!(self.phase, Phase::Gated | Phase::Relaying) && self.reading.has_said_all()
    }

    /// The status of the head; 0: there was none.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Returns true once the gate has opened.
    pub fn is_committed(&self) -> bool {
        self.phase == Phase::Relaying
    }

    /// Returns true if a stream of events is delivered.
    pub fn delivers_events(&self) -> bool {
        self.form == Form::AsItComes && self.reading.is_stream() || self.told_as_stream
    }

    /// Bytes of the answer that are held: until the gate opens, until an event is whole, and to continue it elsewhere.
    pub fn held_bytes(&self) -> usize {
        self.held.len() + self.reading.held_bytes()
    }

    /// Returns the repairs of the answer so far.
    pub fn repairs(&self) -> Repairs {
        let mut repairs = self.reading.repairs();
        repairs.add(self.body_repairs);
        repairs
    }

    /// Returns the names and numbers that the client has of the stream so far.
    pub fn opened(&self) -> Opened {
        self.reading.opened()
    }

    /// The response head, as it goes downstream; once, at the commit.
    pub fn take_head(&mut self) -> Option<Parts> {
        let mut head = self.head.take()?;
        self.leaving.secrets().clean(&mut head.headers);
        Some(head)
    }

    /// The refusal that explains itself, after the end.
    pub fn take_refusal(&mut self) -> Option<KeptRefusal> {
        self.refusal.take()
    }

    /// Returns what the head says is left of the backend's limits: requests, then tokens.
    pub const fn limits_left(&self) -> (LimitLeft, LimitLeft) {
        self.limits_left
    }

    /// Returns the delivered part, where another answer can continue it.
    pub fn transcript(&self) -> Option<&Transcript> {
        self.reading.joiner().map(Joiner::told).filter(|told| told.unfit().is_none())
    }

    fn received(&mut self, now: Timestamp, data: Bytes, is_last: bool) -> Output {
        if self.phase == Phase::Sending {
            return Output::Wait;
        }
        self.deadlines.received(now);
        if now > self.total_at() {
            // An upstream that never pauses never lets the timer look.
            return self.expired(now, Expired::Total);
        }
        let data = match self.decoded(data) {
            Ok(data) => data,
            Err(broken) => return self.broke(now, broken),
        };
        if let Some(watch) = &mut self.watch
            && watch.finds(&data, self.leaving.secrets())
        {
            let text = "the upstream repeats a secret in a compressed answer, in which it cannot be replaced";
            return self.ended(Bytes::new(), Outcome::new(Kind::Malformed, text), Usage::default());
        }
        match self.phase {
            Phase::Sending | Phase::Over => Output::Wait,
            Phase::Refusal => self.refusal_bytes(now, data, is_last),
            Phase::Undecided => self.first_bytes(now, data, is_last),
            Phase::Gated if self.is_mislabelled_json(&data) => self.begin_body(now, data, is_last),
            Phase::Whole { as_stream } => self.whole_bytes(now, data, is_last, as_stream),
            Phase::Relaying if is_last && !self.reading.is_stream() => {
                let piece = self.reading.read(data);
                let usage = self.usage();
                self.ended(piece.bytes, self.answered(), usage)
            }
            Phase::Gated | Phase::Relaying => {
                let piece = self.reading.read(data);
                self.pass(now, piece)
            }
        }
    }

    fn digested(&mut self, now: Timestamp, digest: Digest) -> Output {
        if self.phase == Phase::Sending {
            return Output::Wait;
        }
        self.deadlines.received(now);
        if now > self.total_at() {
            return self.expired(now, Expired::Total);
        }
        self.reading.digest(digest);
        match self.phase {
            Phase::Gated | Phase::Relaying => self.pass(now, Piece::default()),
            Phase::Sending | Phase::Refusal | Phase::Undecided | Phase::Whole { .. } | Phase::Over => Output::Wait,
        }
    }

    /// A piece of a stream, or of what is passed on as it comes.
    fn pass(&mut self, now: Timestamp, piece: Piece) -> Output {
        self.note_first_token(now);
        // A finish reason alone shortens nothing: usage may follow, other choices, and even more of the same.
        if self.reading.has_told_all() {
            self.deadlines.finished();
        }
        let Piece { bytes, failed } = piece;
        if let Some(outcome) = failed {
            if self.refuses_addition(outcome.message.as_bytes()) {
                return self.send_again();
            }
            let usage = self.usage();
            let bytes = if self.is_committed() { bytes } else { Bytes::new() };
            return self.ended(bytes, outcome, usage);
        }
        match self.phase {
            Phase::Relaying if bytes.is_empty() => Output::Wait,
            Phase::Relaying => Output::Deliver(bytes),
            Phase::Gated => self.hold(bytes),
            Phase::Sending | Phase::Refusal | Phase::Undecided | Phase::Whole { .. } | Phase::Over => Output::Wait,
        }
    }

    pub(super) fn note_first_token(&mut self, now: Timestamp) {
        if self.first_token.is_none() && self.reading.content_events() > 0 {
            self.first_token = Some(now.since(self.deadlines.started()));
            self.deadlines.first_token_came();
        }
    }

    /// Takes the end of the body.
    fn end(&mut self, now: Timestamp) -> Output {
        match self.phase {
            Phase::Sending => {
                self.fail_unanswered(Outcome::new(Kind::Reset, "the connection broke before the response head"))
            }
            Phase::Refusal => self.refused(now, true),
            Phase::Undecided => self.first_bytes(now, Bytes::new(), true),
            Phase::Whole { as_stream } => self.whole(now, as_stream),
            Phase::Gated => self.gated_end(now),
            Phase::Relaying => {
                let Piece { bytes, failed } = self.reading.end();
                self.note_first_token(now);
                let usage = self.usage();
                self.ended(bytes, failed.unwrap_or_else(|| self.answered()), usage)
            }
            Phase::Over => Output::Wait,
        }
    }

    /// The body broke off. An answer that is whole but for its last formality is whole.
    fn broke(&mut self, now: Timestamp, outcome: Outcome) -> Output {
        match self.phase {
            Phase::Sending => self.fail_unanswered(outcome),
            Phase::Refusal => self.refused(now, false),
            Phase::Gated | Phase::Relaying if self.reading.is_finished() && is_break(outcome.kind) => self.end(now),
            Phase::Undecided | Phase::Whole { .. } if outcome.kind != Kind::ClientGone => {
                self.ended(Bytes::new(), outcome, Usage::default())
            }
            Phase::Undecided | Phase::Whole { .. } | Phase::Gated | Phase::Relaying => {
                let usage = if outcome.kind == Kind::ClientGone { self.usage_of_begun() } else { self.usage() };
                self.ended(Bytes::new(), outcome, usage)
            }
            Phase::Over => Output::Wait,
        }
    }

    fn expired(&mut self, now: Timestamp, expired: Expired) -> Output {
        let outcome = self.deadlines.outcome(expired);
        match expired {
            Expired::FirstToken if !self.reading.is_finished() => self.ended(Bytes::new(), outcome, Usage::default()),
            Expired::Head | Expired::FirstToken | Expired::Total | Expired::Idle | Expired::Refusal => {
                self.broke(now, outcome)
            }
        }
    }

    /// The usage of an answer that nobody waits for any more: providers charge what they have begun, at least its prompt.
    fn usage_of_begun(&self) -> Usage {
        let is_begun = match self.phase {
            Phase::Sending | Phase::Undecided | Phase::Whole { .. } | Phase::Gated | Phase::Relaying => {
                self.asked.has_usage && self.asked.operation.is_question() && self.status < 300
            }
            Phase::Refusal | Phase::Over => false,
        };
        if !is_begun || self.dialect.is_opaque() {
            return Usage::default();
        }
        let usage = if self.phase == Phase::Sending { Usage::default() } else { self.usage() };
        let prompt_tokens = self.asked.prompt_tokens.into();
        if usage.total() > 0 { usage } else { Usage { input_tokens: prompt_tokens, estimated: true, ..usage } }
    }

    fn usage(&self) -> Usage {
        if !self.asked.has_usage {
            return Usage::default();
        }
        let asked = UsageAsked {
            prompt_tokens: self.asked.prompt_tokens,
            body: if self.asked.is_of_background { PROMPT_IS_ELSEWHERE } else { &self.asked_body },
            max_tokens: self.asked.max_tokens,
            answers: self.asked.charged_answers,
            made_tokens: self.asked.made_tokens,
            has_answer_tokens: self.asked.operation.has_answer_tokens(),
            service_tier: self.asked.service_tier,
        };
        self.reading.usage(&asked, self.asked.operation.is_question() && self.status < 300)
    }

    /// The outcome of an answer that is whole, with what was mended in it.
    fn answered(&self) -> Outcome {
        let mut outcome = Outcome::answered(self.status);
        outcome.message = self.repairs().sentence().unwrap_or_default();
        outcome
    }

    /// Returns true if an answer with nothing in it is an answer.
    const fn may_be_empty(&self) -> bool {
        self.asked.may_be_empty
    }

    /// It ended with, or after, an answer's head.
    fn ended(&mut self, last: Bytes, outcome: Outcome, usage: Usage) -> Output {
        let ended = self.close(outcome, usage);
        Output::Ended(last, ended)
    }

    fn close(&mut self, outcome: Outcome, usage: Usage) -> Ended {
        self.phase = Phase::Over;
        let outcome = self.censored(outcome);
        let Self { first_byte, first_token, .. } = *self;
        Ended { outcome, usage, first_byte, first_token, upstream_id: self.upstream_id.take() }
    }

    /// It ended without anything that counts as the beginning of an answer.
    fn fail_unanswered(&mut self, outcome: Outcome) -> Output {
        self.phase = Phase::Over;
        let ended = self.failed(outcome);
        Output::Ended(Bytes::new(), ended)
    }

    /// The end of an attempt without an answer.
    fn failed(&mut self, outcome: Outcome) -> Ended {
        Ended { upstream_id: self.upstream_id.take(), ..Ended::failed(self.censored(outcome)) }
    }

    /// The outcome without the backend's secrets: some upstreams repeat them in what they say.
    fn censored(&self, mut outcome: Outcome) -> Outcome {
        self.leaving.secrets().redact(&mut outcome.message);
        outcome
    }

    fn asks_model(&self) -> bool {
        self.asked.operation.is_read() && self.asked.has_body
    }
}

impl Output {
    /// Returns the end of the attempt, if it has ended.
    pub const fn end(&self) -> Option<&Ended> {
        match self {
            Output::Whole(_, ended) | Output::Ended(_, ended) => Some(ended),
            Output::Wait | Output::Commit(_) | Output::Deliver(_) | Output::SendAgain => None,
        }
    }
}

/// Returns true if the connection, the upstream or the time failed, rather than the request.
const fn is_break(kind: Kind) -> bool {
    matches!(kind, Kind::Cut | Kind::Stalled | Kind::Malformed | Kind::TimedOut)
}
