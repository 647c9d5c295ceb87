//! Values that are only known at the time of a scrape.

use pointsman_core::contract::RowState;

/// A side of a guarded promotion under way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveSide {
    /// `control` or `candidate`.
    pub side: &'static str,
    /// Revision of its policy, 12 digits.
    pub revision: String,
    /// Exchanges that it has decided since the promotion's start.
    pub exchanges: u64,
    /// Those whose client got no whole answer.
    pub failed: u64,
}

/// Numbers that are read when metrics are requested.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    /// The backends, in the order of the table.
    pub backends: Vec<LiveBackend>,
    /// Exchanges that wait for capacity, by lane.
    pub waiting: Vec<(&'static str, u64)>,
    /// Bytes of memory that requests and what is held of answers take.
    pub memory_used: u64,
    /// Bytes of memory that they may take.
    pub memory_limit: u64,
    /// Requests, uploads and answers for which there was no room.
    pub memory_refused: u64,
    /// Bytes of disk that large requests take which wait for memory.
    pub spill_used: u64,
    /// Exchanges that wait to be written to the store.
    pub store_backlog: u64,
    /// Exchanges written to the store.
    pub store_written: u64,
    /// Exchanges that the store has lost since the start.
    pub store_dropped: u64,
    /// Batches the store could not write, retries included.
    pub store_failed_batches: u64,
    /// Trails written to the journal.
    pub journal_written: u64,
    /// Trails that the journal has lost since the start.
    pub journal_dropped: u64,
    /// The revision of the policy in force.
    pub policy: String,
    /// True if the latest policy was refused or rolled back.
    pub policy_refused: bool,
    /// True if the latest configuration was refused.
    pub config_refused: bool,
    /// Revisions of the policy that are in force or that exchanges still use.
    pub policy_revisions: u64,
    /// Instances of all of them.
    pub policy_instances: u64,
    /// True if the latest shadow was refused.
    pub shadow_refused: bool,
    /// The share of the exchanges that the candidate gets; 0: no promotion is under way.
    pub promotion_share: f64,
    /// Both sides of the promotion under way; empty: there is none.
    pub promotion: Vec<LiveSide>,
}

/// A backend at the time of asking.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveBackend {
    /// Id of the backend.
    pub id: String,
    /// Word for its tier.
    pub tier: &'static str,
    /// Its state, one of [`BACKEND_STATES`].
    pub state: &'static str,
    /// Time left of the backend's cooldown, in ms; 0: none.
    pub cooldown_ms: u64,
    /// Models of it in cooldown.
    pub models_cooling: u64,
    /// Attempts under way.
    pub in_flight: u64,
}

/// The words of a backend's state.
pub const BACKEND_STATES: [&str; 5] = [
    RowState::Ready.as_str(),
    RowState::Throttled.as_str(),
    RowState::Cooling.as_str(),
    RowState::Probing.as_str(),
    RowState::Drained.as_str(),
];
