//! The time limits of an attempt, counted from its start: to the head, to the first content, between two pieces, in all.

use std::time::Duration;

use crate::outcome::{Kind, Outcome};
use crate::table::Timeouts;
use crate::time::Timestamp;

/// The longest time for an upstream to end a response whose answer and usage have been read.
const END_LIMIT: Duration = Duration::from_secs(2);

/// The longest time for a refusal's body; its head has said the most important.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);

/// A limit that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    Head,
    FirstToken,
    Idle,
    Total,
    Refusal,
}

/// The limits in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    started: Timestamp,
    limits: Timeouts,
    /// Time of the latest input.
    last: Timestamp,
    /// The longest silence.
    idle: Duration,
    stage: Stage,
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
        Self { started, limits, last: started, idle: limits.idle, stage: Stage::Head }
    }

    pub(super) const fn started(&self) -> Timestamp {
        self.started
    }

    pub(super) fn total_at(&self) -> Timestamp {
        self.started + self.limits.total
    }

    /// The first of the limits in force.
    pub(super) fn wake_at(&self) -> Timestamp {
        let body = || self.total_at().min(self.last + self.idle);
        match self.stage {
            Stage::Head => self.started + self.head_limit(),
            Stage::FirstToken => body().min(self.started + self.limits.first_token),
            Stage::Body => body(),
            Stage::Refusal { until } => body().min(until),
        }
    }

    /// The limit that has passed at `now`, if one has.
    pub(super) fn expired(&self, now: Timestamp) -> Option<Expired> {
        if now < self.wake_at() {
            return None;
        }
        match self.stage {
            Stage::Head => Some(Expired::Head),
            Stage::FirstToken | Stage::Body | Stage::Refusal { .. } if now >= self.total_at() => Some(Expired::Total),
            Stage::FirstToken | Stage::Body | Stage::Refusal { .. } if now >= self.last + self.idle => {
                Some(Expired::Idle)
            }
            Stage::FirstToken => Some(Expired::FirstToken),
            Stage::Refusal { .. } => Some(Expired::Refusal),
            Stage::Body => None,
        }
    }

    pub(super) fn outcome(&self, expired: Expired) -> Outcome {
        let Timeouts { first_token, .. } = self.limits;
        let (kind, text) = match expired {
            Expired::Head => {
                let limit = self.head_limit();
                (Kind::TimedOut, format!("no response head within {limit:?} (timeouts.first_byte_ms)"))
            }
            Expired::FirstToken => {
                (Kind::TimedOut, format!("no first token within {first_token:?} (timeouts.first_token_ms)"))
            }
            Expired::Idle => (Kind::Stalled, format!("the stream was silent for {:?} (timeouts.idle_ms)", self.idle)),
            Expired::Total => (Kind::TimedOut, "the attempt took longer than its total time limit".to_owned()),
            Expired::Refusal => (Kind::TimedOut, format!("the refusal took longer than {REFUSAL_LIMIT:?}")),
        };
        Outcome::new(kind, text)
    }

    /// Something of the body came.
    pub(super) fn received(&mut self, now: Timestamp) {
        self.last = self.last.max(now);
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
    }

    /// A refusal's body is waited for.
    pub(super) fn await_refusal(&mut self, now: Timestamp) {
        self.stage = Stage::Refusal { until: now + REFUSAL_LIMIT };
    }

    /// The answer is whole and its usage told; for the formalities nobody waits as long as for a model that thinks.
    pub(super) fn finished(&mut self) {
        self.idle = self.idle.min(END_LIMIT);
    }

    /// The longest that a head may take.
    fn head_limit(&self) -> Duration {
        self.limits.first_byte.min(self.limits.total)
    }
}
