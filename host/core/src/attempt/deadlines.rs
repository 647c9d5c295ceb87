//! The time limits of an attempt: to the head, to the first content, between two pieces, in all.
//!
//! The first three are bets that somebody else is faster: [`Deadlines::overdue`] says that one has passed, and where
//! nobody else can answer it is put off. Whatever the upstream sends is a sign of life and no silence. Only the total is
//! firm, and a stream that flows has none unless one is set.

use std::time::Duration;

use crate::outcome::{Kind, Outcome};
use crate::overdue::{Bet, Overdue};
use crate::table::Timeouts;
use crate::time::Timestamp;

/// The longest time for an upstream to end a response whose answer and usage have been read.
const END_LIMIT: Duration = Duration::from_secs(2);

/// The longest time for a refusal's body; its head has said the most important.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);

/// The longest silence of a stream that flows and has no total limit: that of the official SDKs, whose client is gone by then.
const MAX_SILENCE: Duration = Duration::from_secs(600);

/// Signs of life without any content keep an attempt for this many first token limits.
const SIGNS_OF_LIFE: u32 = 5;

/// A limit that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    Head,
    FirstToken,
    Idle,
    Total,
    Refusal,
}

/// Time limits of the attempt, and those that are running.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    started: Timestamp,
    limits: Timeouts,
    /// Time of the latest input.
    last: Timestamp,
    /// Longest time between two pieces of the body.
    idle: Duration,
    stage: Stage,
    /// It goes downstream: no total limit holds but one that is set for streams.
    flows: bool,
    /// No limit that fails over ends the attempt before.
    put_off: Timestamp,
}

/// The next thing to arrive, which sets the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    FirstToken,
    Body,
    Refusal { until: Timestamp },
}

impl Deadlines {
    pub(super) const fn new(started: Timestamp, limits: Timeouts) -> Self {
        let (last, idle, put_off) = (started, limits.idle, started);
        Self { started, limits, last, idle, stage: Stage::Head, flows: false, put_off }
    }

    pub(super) const fn started(&self) -> Timestamp {
        self.started
    }

    pub(super) fn total_at(&self) -> Timestamp {
        match (self.flows, self.limits.stream_total) {
            (false, _) => self.started + self.limits.total,
            (true, Some(total)) => self.started + total,
            (true, None) => self.last + MAX_SILENCE,
        }
    }

    /// The first of the limits in force.
    pub(super) fn wake_at(&self) -> Timestamp {
        let (_, at) = self.next();
        at.min(self.total_at())
    }

    /// The limit that has passed at `now`, if one has.
    pub(super) fn expired(&self, now: Timestamp) -> Option<Expired> {
        let (expired, at) = self.next();
        if now >= self.total_at() {
            // A head that never came is told as that.
            return Some(if self.stage == Stage::Head { Expired::Head } else { Expired::Total });
        }
        (now >= at).then_some(expired)
    }

    /// The limit that has passed at `now` and ends the attempt only where another backend can answer.
    pub(super) fn overdue(&self, now: Timestamp) -> Option<Overdue> {
        let bet = |bet, limit| Some(Overdue { bet, limit });
        match self.expired(now)? {
            Expired::Total | Expired::Refusal => None,
            Expired::Head | Expired::FirstToken | Expired::Idle if now >= self.total_at() => None,
            Expired::Head => bet(Bet::FirstByte, self.limits.first_byte),
            Expired::FirstToken => bet(Bet::FirstToken, self.limits.first_token),
            // The answer is whole: nobody is asked for the rest.
            Expired::Idle if self.idle < self.limits.idle => None,
            Expired::Idle => bet(Bet::Idle, self.idle),
        }
    }

    /// Nobody else can answer: no limit that fails over ends the attempt before `until`.
    pub(super) fn put_off(&mut self, until: Timestamp) {
        self.put_off = self.put_off.max(until);
    }

    /// The limit beside the total that ends first.
    fn next(&self) -> (Expired, Timestamp) {
        let idle = (Expired::Idle, self.last + self.idle);
        let (expired, at) = match self.stage {
            Stage::Head => (Expired::Head, self.started + self.limits.first_byte),
            Stage::FirstToken => {
                let silent = self.last + self.limits.first_token;
                let at = silent.min(self.started + self.limits.first_token.saturating_mul(SIGNS_OF_LIFE));
                if idle.1 < at { idle } else { (Expired::FirstToken, at) }
            }
            Stage::Body => idle,
            Stage::Refusal { until } => return (Expired::Refusal, until.min(idle.1)),
        };
        (expired, at.max(self.put_off))
    }

    pub(super) fn outcome(&self, expired: Expired) -> Outcome {
        let Timeouts { first_token, .. } = self.limits;
        let (kind, text) = match expired {
            Expired::Head => {
                let limit = self.limits.first_byte.min(self.limits.total);
                (Kind::TimedOut, format!("no response head within {limit:?} (timeouts.first_byte_ms)"))
            }
            Expired::FirstToken => {
                (Kind::TimedOut, format!("no first token within {first_token:?} (timeouts.first_token_ms)"))
            }
            Expired::Idle => (Kind::Stalled, format!("the stream was silent for {:?} (timeouts.idle_ms)", self.idle)),
            Expired::Total if self.flows && self.limits.stream_total.is_none() => {
                (Kind::Stalled, format!("the stream was silent for {MAX_SILENCE:?}"))
            }
            Expired::Total => (Kind::TimedOut, "the attempt took longer than its total time limit".to_owned()),
            Expired::Refusal => (Kind::TimedOut, format!("the refusal took longer than {REFUSAL_LIMIT:?}")),
        };
        Outcome::new(kind, text)
    }

    /// Something of the body came.
    pub(super) fn received(&mut self, now: Timestamp) {
        self.last = self.last.max(now);
        self.put_off = self.started;
    }

    /// The request is sent once more: its head is waited for again, within the same limits.
    pub(super) fn sent_again(&mut self) {
        self.stage = Stage::Head;
    }

    /// The head came; only the limits of a body hold from now on.
    pub(super) fn head_came(&mut self, now: Timestamp) {
        self.received(now);
        self.stage = Stage::Body;
    }

    /// The first content is waited for.
    pub(super) fn await_first_token(&mut self) {
        self.stage = Stage::FirstToken;
    }

    pub(super) fn first_token_came(&mut self) {
        self.stage = Stage::Body;
    }

    /// Committed before the first content came: no limit holds for that any more.
    pub(super) fn committed(&mut self) {
        self.stage = Stage::Body;
        self.flows = true;
    }

    /// A refusal's body is waited for.
    pub(super) fn await_refusal(&mut self, now: Timestamp) {
        self.stage = Stage::Refusal { until: now + REFUSAL_LIMIT };
    }

    /// The answer is whole and its usage told; for the formalities nobody waits as long as for a model that thinks.
    pub(super) fn finished(&mut self) {
        self.idle = self.idle.min(END_LIMIT);
    }
}
