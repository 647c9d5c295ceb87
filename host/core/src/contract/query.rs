//! What a policy is asked.

use serde::{Deserialize, Serialize};

use super::Operation;
use crate::outcome::Kind;
use crate::table::Lane;

/// The request in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFacts {
    /// Index into the table's models, or [`NONE`](super::NONE).
    pub model: u32,
    /// What is asked for.
    pub operation: Operation,
    /// Index into the table's clients, or [`NONE`](super::NONE).
    pub client: u32,
    /// Does the client want a stream?
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
    /// How it was sent.
    pub lane: Lane,
    /// What it came to.
    pub outcome: Kind,
    /// The HTTP status; 0: none.
    pub status: u16,
    /// How long it took, in ms.
    pub elapsed_ms: u32,
    /// Waits of the exchange before it was sent.
    pub waits_before: u32,
}

/// What a policy is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Milliseconds since 1970-01-01 UTC.
    pub now_ms: u64,
    /// A number that is new for every query.
    pub seed: u64,
    /// The request.
    pub request: RequestFacts,
    /// Oldest first.
    pub attempts: Vec<AttemptFacts>,
    /// Waits so far.
    pub waits: u32,
    /// How long they took together, in ms.
    pub waited_ms: u32,
    /// `STRIDE` numbers per backend, in the table's order.
    #[serde(with = "crate::journal::forms::packed")]
    pub rows: Vec<u32>,
}
