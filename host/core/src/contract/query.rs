//! The question to a policy.

use serde::{Deserialize, Serialize};

use super::{Operation, Rows};
use crate::lane::Lane;
use crate::outcome::Kind;

/// Facts of the request in numbers; its texts are behind imports of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFacts {
    /// Index into the table's models, or [`NONE`](super::NONE).
    pub model: u32,
    /// Operation that the path names.
    pub operation: Operation,
    /// Index into the table's clients, or [`NONE`](super::NONE).
    pub client: u32,
    /// The client asked for a stream.
    pub streaming: bool,
    /// -100..=100, larger is more urgent.
    pub priority: i32,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u32,
    /// The most tokens the client lets the answer have; 0: did not say.
    pub max_tokens: u32,
    /// A hash of the client's session; 0: none.
    pub session: u64,
    /// Milliseconds since arrival.
    pub elapsed_ms: u32,
    /// Milliseconds left of the exchange's total time.
    pub remaining_ms: u32,
}

/// One attempt that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFacts {
    /// Index into the table's backends.
    pub backend: u32,
    /// The lane it was sent in.
    pub lane: Lane,
    /// Kind of its outcome.
    pub outcome: Kind,
    /// The HTTP status; 0: none.
    pub status: u16,
    /// Time from sending to its end, ms.
    pub elapsed_ms: u32,
    /// Waits of the exchange before it was sent.
    pub waits_before: u32,
}

/// A question to a policy: all it may decide by, besides the request's texts and `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Time of the question, ms since 1970-01-01 UTC.
    pub now_ms: u64,
    /// Random number of this query.
    pub seed: u64,
    /// Facts of the request.
    pub request: RequestFacts,
    /// Attempts that have ended, oldest first.
    pub attempts: Vec<AttemptFacts>,
    /// Number of waits of the exchange so far.
    pub waits: u32,
    /// Total time of those waits, in ms.
    pub waited_ms: u32,
    /// The backends' numbers, in the table's order and columns.
    pub rows: Rows,
}
