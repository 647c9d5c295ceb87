//! The course of one exchange in order of time, with everything that its policy was shown and answered.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clients::Spending;
use crate::contract::{Columns, Decision, Query, Rows};
use crate::exchange::{Action, Event, Exchange, Facts, Join};
use crate::forms::micros;
use crate::table::Lane;
use crate::time::Timestamp;

/// The most that the questions of one exchange may take in memory, in bytes; later ones are left out, and that is told.
pub const MAX_TRAIL_BYTES: usize = 1 << 20;

/// The trail of an exchange. Indices are those of its setup's table; what its attempts came to is in its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trail {
    /// Time of the exchange's arrival.
    pub arrived: Timestamp,
    /// Facts of the request, as they were known on arrival.
    pub facts: Facts,
    /// Values of `x-pointsman-label-NAME` headers, by lower-case NAME.
    pub labels: Vec<(String, String)>,
    /// The client key's money on arrival.
    pub spending: Spending,
    /// Everything that happened, oldest first.
    pub steps: Vec<Step>,
    /// Questions that were too much to keep.
    pub left_out: u32,
    #[serde(skip)]
    bytes: usize,
}

/// One event of the exchange.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Time since the arrival.
    #[serde(with = "micros")]
    pub at: Duration,
    /// The event or action.
    pub what: Happened,
}

/// An event of an exchange.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Happened {
    /// The policy was asked and answered.
    Asked(Box<Question>),
    /// It began to wait, at most so long.
    Waits {
        /// Maximum length of the wait.
        #[serde(with = "micros")]
        max: Duration,
    },
    /// A wait ended.
    Waited {
        /// The backend whose capacity it was handed; none: its time was up.
        granted: Option<u32>,
    },
    /// An attempt was sent.
    Sent {
        /// Index of the backend.
        backend: u32,
        /// Lane that it was sent in.
        lane: Lane,
        /// The attempt is a probe after a cooldown.
        probe: bool,
        /// Way to continue the delivered text; `None` when nothing was delivered.
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
    /// The query put to the policy.
    pub query: Query,
    /// The decision, by the policy or by the native fallback in its place.
    pub decision: Decision,
    /// Notes that the policy made.
    pub notes: Vec<String>,
    /// Fault of the policy, when the native fallback decided instead.
    pub fault: Option<Failed>,
    /// Every use of `state` on the way, in order.
    pub state: Vec<StateUse>,
    /// Time that the policy took to answer.
    #[serde(with = "micros")]
    pub took: Duration,
}

/// A fault of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its kind, by its word.
    pub kind: String,
    /// Last log line and position of the guest.
    pub message: String,
}

/// One use of the shared `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateUse {
    /// A number was read.
    Get {
        /// Key of the number.
        key: String,
        /// Value found, if any.
        found: Option<i64>,
    },
    /// A number was written.
    Set {
        /// Key of the number.
        key: String,
        /// Value after the write.
        value: i64,
        /// For how long, in ms; 0: no end.
        ttl_ms: u64,
    },
    /// Something was added to a number.
    Add {
        /// Key that was added to.
        key: String,
        /// Amount added, may be negative.
        delta: i64,
        /// For how long where it is new, in ms; 0: no end.
        ttl_ms: u64,
        /// Value after the addition, which the policy got.
        sum: i64,
    },
    /// There were more, which were not kept: the answer cannot be had again for certain.
    TooMany,
}

impl Trail {
    /// Begins the trail of an exchange that has arrived.
    pub fn new(arrived: Timestamp, facts: Facts, labels: Vec<(String, String)>, spending: Spending) -> Self {
        Self { arrived, facts, labels, spending, steps: Vec::new(), left_out: 0, bytes: 0 }
    }

    /// About what it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes + self.steps.len() * size_of::<Step>()
    }

    /// Iterates over the questions, oldest first.
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

    /// Sets the columns that its rows were recorded in, which its bytes do not name. False when they are no whole rows of them.
    pub(super) fn set_columns(&mut self, columns: &Columns) -> bool {
        self.steps.iter_mut().all(|step| match &mut step.what {
            Happened::Asked(question) => {
                let rows = &mut question.query.rows;
                let recorded = Rows::recorded(std::mem::take(rows).into_numbers(), columns);
                recorded.map(|recorded| *rows = recorded).is_some()
            }
            Happened::Waits { .. }
            | Happened::Waited { .. }
            | Happened::Sent { .. }
            | Happened::Committed
            | Happened::Ended => true,
        })
    }

    /// Records a question and the policy's answer.
    pub fn asked(&mut self, now: Timestamp, question: Question) {
        let bytes = size_of::<Question>() + size_of_val(question.query.rows.numbers());
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
            Event::NotSent(_) => self.forget_sent(),
            // The question is added with its answer; a client that goes ends an attempt or a wait, or nothing.
            Event::Arrived | Event::Decided(_) | Event::ClientGone => {}
        }
    }

    /// Records the action that the exchange answered with.
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

    /// Takes out the last step where it is an attempt that was not sent after all.
    fn forget_sent(&mut self) {
        self.steps.pop_if(|step| matches!(step.what, Happened::Sent { .. }));
    }

    fn add(&mut self, now: Timestamp, what: Happened) {
        self.steps.push(Step { at: now.since(self.arrived), what });
    }
}
