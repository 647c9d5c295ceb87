//! The interface of a world to its environment: requests and answers come in, events go out.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::Query;
use pointsman_core::exchange::{Facts, Sending};
use pointsman_core::fleet::Fleet;
use pointsman_core::record::{AttemptRecord, End};
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;
use pointsman_engine::{Texts, Verdict};

use crate::answer::Answer;

/// The environment of Pointsman: clients and providers.
pub trait Environment {
    /// The next request and when it arrives, not before the one before it; none: no more.
    fn next_request(&mut self) -> Option<(Timestamp, Ask)>;

    /// Returns the answer to an attempt; called once for each, in the order they are sent.
    fn answer(&mut self, attempt: &Attempt<'_>) -> Answer;
}

/// A request as it arrives.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The model asked for.
    pub model: Arc<str>,
    /// Numbers of the request that the policy is told.
    pub facts: Facts,
    /// Texts that the policy may read; the client's spend is added on arrival.
    pub texts: Arc<Texts>,
    /// Time after which its client disconnects; `None`: never.
    pub patience: Option<Duration>,
}

/// An attempt as it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Time at which it is sent.
    pub now: Timestamp,
    /// Number of the exchange, counted from 0 in the order of arrival.
    pub exchange: u64,
    /// The request that it is for.
    pub ask: &'a Ask,
    /// Backend and limits of the attempt.
    pub sending: &'a Sending,
}

/// An observer of every event of a world.
pub trait Watcher {
    /// Takes an event, in the order of time.
    fn saw(&mut self, scene: &Scene<'_>, sight: EventKind<'_>);
}

/// Time and exchange of an event.
pub struct Scene<'a> {
    /// Time of the event.
    pub now: Timestamp,
    /// The exchange, counted from 0 in the order of arrival.
    pub exchange: u64,
    /// The fleet after the event.
    pub fleet: &'a Fleet,
    /// The table that the exchange is pinned to.
    pub view: &'a View,
}

/// An event of an exchange.
#[derive(Debug)]
pub enum EventKind<'a> {
    /// The request arrived.
    Arrived(&'a Ask),
    /// The policy is asked.
    Asked(&'a Query),
    /// The policy answered.
    Decided(&'a Verdict),
    /// An attempt is sent.
    Sent {
        /// Backend and limits of the attempt.
        sending: &'a Sending,
        /// True for a probe after a cooldown.
        probe: bool,
        /// The model asked for, by the name that clients use.
        model: Arc<str>,
    },
    /// Its first byte went downstream.
    Committed,
    /// The attempt ended.
    Ended(&'a AttemptRecord),
    /// It waits, at most so long.
    Waits {
        /// Longest time of the wait.
        max: Duration,
        /// The model asked for, by the name that clients use.
        model: Arc<str>,
    },
    /// It is handed the capacity of a backend, in this order, and goes on in this moment; not told of one that is served as
    /// it joins the line.
    Granted {
        /// Index of the backend.
        backend: u32,
    },
    /// A wait ended.
    Waited {
        /// The backend whose capacity it was handed; none: its time was up.
        granted: Option<u32>,
    },
    /// The exchange ended.
    Finished(&'a Finished<'a>),
}

/// End of an exchange, with all that came of it.
#[derive(Clone, Debug)]
pub struct Finished<'a> {
    /// As its client saw it.
    pub end: End,
    /// The status the client got.
    pub status: u16,
    /// Lane and index of the backend that answered it.
    pub by: Option<(Lane, u32)>,
    /// The error, when the client got one.
    pub error: Option<&'a str>,
    /// Time from arrival to end.
    pub took: Duration,
    /// The attempts, oldest first.
    pub attempts: &'a [AttemptRecord],
    /// Waits, and their time together.
    pub waits: (u32, Duration),
}
