//! What happened to one exchange, in the order of time, with all that its policy saw and said.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::forms::micros;
use crate::clients::Spending;
use crate::contract::{Decision, Query};
use crate::exchange::{Action, Event, Exchange, Facts, Join};
use crate::table::Lane;
use crate::time::Timestamp;

/// The most that the questions of one exchange may take in memory, in bytes; later ones are left out, and that is told.
pub const MAX_TRAIL_BYTES: usize = 1 << 20;

/// The trail of an exchange. Indices are those of its setup's table; what its attempts came to is in its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trail {
    /// Arrival.
    pub arrived: Timestamp,
    /// What was known on arrival.
    pub facts: Facts,
    /// `x-pointsman-label-NAME`, by lower-case NAME.
    pub labels: Vec<(String, String)>,
    /// The client key's money on arrival.
    pub spending: Spending,
    /// Oldest first.
    pub steps: Vec<Step>,
    /// Questions that were too much to keep.
    pub left_out: u32,
    #[serde(skip)]
    bytes: usize,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When, from the arrival.
    #[serde(with = "micros")]
    pub at: Duration,
    /// What.
    pub what: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Happened {
    /// The policy was asked and answered.
    Asked(Box<Question>),
    /// It began to wait, at most so long.
    Waits {
        /// The longest.
        #[serde(with = "micros")]
        max: Duration,
    },
    /// It no longer waits.
    Waited {
        /// The backend whose capacity it was handed; none: its time was up.
        granted: Option<u32>,
    },
    /// An attempt was sent.
    Sent {
        /// Where to.
        backend: u32,
        /// How.
        lane: Lane,
        /// Does it find out whether its backend is well again?
        probe: bool,
        /// How it continues what was delivered; none when nothing was.
        join: Option<Join>,
    },
    /// The attempt's first byte went downstream.
    Committed,
    /// The attempt ended: the next of the record's attempts.
    Ended,
}

/// A question to the policy, and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// What it was asked.
    pub query: Query,
    /// What it, or the native twin in its place, decided.
    pub decision: Decision,
    /// What it noted.
    pub notes: Vec<String>,
    /// Why the twin decided; none: it did not.
    pub fault: Option<Failed>,
    /// Every use of `state` on the way, in order.
    pub state: Vec<StateUse>,
    /// How long the answer took.
    #[serde(with = "micros")]
    pub took: Duration,
}

/// A policy fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its kind, by its word.
    pub kind: String,
    /// What the guest said last, and where it was.
    pub message: String,
}

/// One use of the shared `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateUse {
    /// Read.
    Get {
        /// The key.
        key: String,
        /// What was there.
        found: Option<i64>,
    },
    /// Written.
    Set {
        /// The key.
        key: String,
        /// What is there now.
        value: i64,
        /// For how long, in ms; 0: no end.
        ttl_ms: u64,
    },
    /// Added to.
    Add {
        /// The key.
        key: String,
        /// By how much.
        delta: i64,
        /// For how long where it is new, in ms; 0: no end.
        ttl_ms: u64,
        /// What is there now.
        sum: i64,
    },
    /// There were more, which were not kept: the answer cannot be had again for certain.
    TooMany,
}

impl Trail {
    /// An exchange has arrived.
    pub fn new(arrived: Timestamp, facts: Facts, labels: Vec<(String, String)>, spending: Spending) -> Self {
        Self { arrived, facts, labels, spending, steps: Vec::new(), left_out: 0, bytes: 0 }
    }

    /// About what it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes + self.steps.len() * size_of::<Step>()
    }

    /// The questions, oldest first.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        self.steps.iter().filter_map(|step| match &step.what {
            Happened::Asked(question) => Some(&**question),
            Happened::Waits { .. }
            | Happened::Waited { .. }
            | Happened::Sent { .. }
            | Happened::Committed
            | Happened::Ended => None,
        })
    }

    /// The policy has answered.
    pub fn asked(&mut self, now: Timestamp, question: Question) {
        let bytes = size_of::<Question>() + question.query.rows.len() * size_of::<u32>();
        if self.bytes + bytes > MAX_TRAIL_BYTES {
            self.left_out += 1;
            return;
        }
        self.bytes += bytes;
        self.add(now, Happened::Asked(Box::new(question)));
    }

    /// This is about to be told to the exchange.
    pub fn heard(&mut self, now: Timestamp, event: &Event) {
        match event {
            Event::Granted(permit) => self.add(now, Happened::Waited { granted: Some(permit.backend) }),
            Event::WaitOver => self.add(now, Happened::Waited { granted: None }),
            Event::Committed => self.add(now, Happened::Committed),
            Event::Ended(_) | Event::Broke(_) => self.add(now, Happened::Ended),
            // The question is added with its answer; a client that goes ends an attempt or a wait, or nothing.
            Event::Arrived | Event::Decided(_) | Event::ClientGone => {}
        }
    }

    /// The exchange answered this.
    pub fn told(&mut self, now: Timestamp, exchange: &Exchange, action: &Action) {
        match action {
            Action::Wait { max, .. } => self.add(now, Happened::Waits { max: *max }),
            Action::Send(sending) => {
                let probe = exchange.permit().is_some_and(crate::fleet::Permit::is_probe);
                let (backend, lane, join) = (sending.backend, sending.lane, sending.join);
                self.add(now, Happened::Sent { backend, lane, probe, join });
            }
            Action::Ask(_) | Action::Relay | Action::PassOn | Action::Reject(_) | Action::Finish(_) => {}
        }
    }

    fn add(&mut self, now: Timestamp, what: Happened) {
        self.steps.push(Step { at: now.since(self.arrived), what });
    }
}
