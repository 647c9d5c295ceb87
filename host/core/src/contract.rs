//! The policy contract (`wit/policy.wit`) as the core sees it: what a policy is asked, and what it may answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::Kind;
use crate::table::Lane;

/// "No such thing" where the contract has an index or an amount.
pub const NONE: u32 = u32::MAX;

/// The numbers of a backend's row, in order. New ones join at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Column {
    /// A [`RowState`].
    State,
    /// Milliseconds left of the cooldown; 0 when there is none.
    CooldownMs,
    /// Why it cools, or has to be probed: an index into the outcomes vocabulary; 0 (`answered`) when neither.
    CooldownReason,
    /// Milliseconds until it could take this request, cooldown and limits taken together; 0 now, `NONE` unknown.
    ReadyMs,
    /// Requests that may go now: under its rpm and burst, and by what the provider said is left; `NONE` unlimited.
    RequestsLeft,
    /// Tokens that may go now, likewise; `NONE` unlimited.
    TokensLeft,
    /// Attempts under way.
    InFlight,
    /// Free slots of its concurrency limit (1 while it is being probed, few while it ramps up); `NONE` unlimited.
    ConcurrencyLeft,
    /// Moving average of an answer's whole time, in ms; 0 unknown.
    LatencyMs,
    /// Moving average of the time to the first content, in ms; 0 unknown.
    FirstTokenMs,
    /// Moving average of the share of failed attempts, in 1/1000.
    ErrorPermille,
    /// Failures since the last answer.
    Failures,
    /// Milliseconds until the emergency lane may use it; 0 now, `NONE` never.
    EmergencyMs,
    /// Exchanges that wait for a backend of this one's tier and come before the asking one (a new one: all).
    Queued,
}

/// How many numbers a row has.
pub const STRIDE: usize = COLUMNS.len();

/// The columns' names, as `configure` tells them.
pub const COLUMNS: [&str; 14] = [
    "state",
    "cooldown_ms",
    "cooldown_reason",
    "ready_ms",
    "requests_left",
    "tokens_left",
    "in_flight",
    "concurrency_left",
    "latency_ms",
    "first_token_ms",
    "error_permille",
    "failures",
    "emergency_ms",
    "queued",
];

/// The state of a backend for the model of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RowState {
    /// Would be sent at once.
    Ready = 0,
    /// A limit is reached; `ready_ms` says when it is not.
    Throttled = 1,
    /// In cooldown.
    Cooling = 2,
    /// Its cooldown is over and one attempt is finding out whether it is well.
    Probing = 3,
    /// Taken out by the operator.
    Drained = 4,
    /// Does not serve this model or operation.
    Unsuited = 5,
}

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `/chat/completions`
    Chat,
    /// `/completions`
    Completion,
    /// `/responses`
    Response,
    /// `/messages`
    Message,
    /// `/embeddings`
    Embedding,
    /// Anything else.
    Other,
}

impl Operation {
    /// Every operation, in the order of the contract's vocabulary. New ones join at the end.
    pub const ALL: [Operation; 6] = [
        Operation::Chat,
        Operation::Completion,
        Operation::Response,
        Operation::Message,
        Operation::Embedding,
        Operation::Other,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Chat => "chat",
            Operation::Completion => "completion",
            Operation::Response => "response",
            Operation::Message => "message",
            Operation::Embedding => "embedding",
            Operation::Other => "other",
        }
    }

    /// What this path asks for, whatever stands before its last segments.
    pub fn of_path(path: &str) -> Self {
        let path = path.trim_end_matches('/');
        if path.ends_with("/chat/completions") {
            Operation::Chat
        } else if path.ends_with("/completions") {
            Operation::Completion
        } else if path.ends_with("/responses") {
            Operation::Response
        } else if path.ends_with("/messages") {
            Operation::Message
        } else if path.ends_with("/embeddings") {
            Operation::Embedding
        } else {
            Operation::Other
        }
    }
}

/// The request in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFacts {
    /// Index into the table's models, or [`NONE`].
    pub model: u32,
    /// What is asked for.
    pub operation: Operation,
    /// Index into the table's clients, or [`NONE`].
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
    /// [`STRIDE`] numbers per backend, in the table's order.
    #[serde(with = "crate::journal::forms::packed")]
    pub rows: Vec<u32>,
}

/// When a stream counts as begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// With the response head.
    Headers,
    /// With the first event that carries content.
    FirstContent,
    /// After this many content events.
    Tokens(u32),
    /// When the whole answer is there.
    Complete,
}

/// What is done when a committed stream breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resume {
    /// An in-band error ends it.
    None,
    /// Another backend is asked again; what was delivered is dropped while it agrees.
    Splice,
    /// Another backend continues the delivered text.
    Prefill,
}

/// Send the request; what is none is as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Index into the table; none: the host chooses within the lane.
    pub backend: Option<u32>,
    /// Index into the table's models: asked for from now on instead of the client's.
    pub model: Option<u32>,
    /// Limit to the response head.
    pub first_byte: Option<Duration>,
    /// Limit to the first content of a stream.
    pub first_token: Option<Duration>,
    /// Limit between two pieces of the body.
    pub idle: Option<Duration>,
    /// Limit of the whole attempt.
    pub total: Option<Duration>,
    /// The commit gate.
    pub commit: Option<Commit>,
    /// The resume mode.
    pub resume: Option<Resume>,
}

/// Wait for capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The longest this wait may take.
    pub max: Duration,
    /// Whose capacity is waited for.
    pub lane: Lane,
}

/// Refuse the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// 400..=599; 0: all pools exhausted, in the host's own words.
    pub status: u16,
    /// The error's `type`.
    pub kind: String,
    /// What the client reads.
    pub message: String,
    /// When it may come again.
    pub retry_after: Option<Duration>,
}

/// Who decides a question on which the policy failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFault {
    /// The default policy, natively.
    #[default]
    AskDefault,
    /// Nobody: the request is refused. For a policy whose rules must not be gone around.
    Refuse,
}

impl OnFault {
    /// The refusal in place of a decision, for a policy that failed in this `way`. What the policy itself said of it is not the
    /// client's to read.
    pub fn refusal(way: &str) -> Rejection {
        Rejection {
            status: 503,
            kind: "policy_fault".to_owned(),
            message: format!(
                "The routing policy failed at this request (fault: {way}), and Pointsman is configured to refuse it then \
                 (policy.on_fault = \"refuse\"); its operator finds the cause under the request's id"
            ),
            retry_after: Some(Duration::from_secs(1)),
        }
    }
}

/// What a policy answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// Send to a primary.
    Primary(Dispatch),
    /// Send to a fallback.
    Fallback(Dispatch),
    /// Send to any backend, under the emergency rate.
    Emergency(Dispatch),
    /// Wait.
    Wait(Hold),
    /// Refuse.
    Reject(Rejection),
}

impl Decision {
    /// The word for it in logs, metrics and the journal.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Decision::Primary(_) => "primary",
            Decision::Fallback(_) => "fallback",
            Decision::Emergency(_) => "emergency",
            Decision::Wait(_) => "wait",
            Decision::Reject(_) => "reject",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_name_at_its_place() {
        assert_eq!(Column::Queued as usize, STRIDE - 1);
        assert_eq!(COLUMNS[Column::EmergencyMs as usize], "emergency_ms");
        assert_eq!(COLUMNS[Column::ReadyMs as usize], "ready_ms");
    }

    #[test]
    fn operations_come_from_the_end_of_the_path() {
        assert_eq!(Operation::of_path("/v1/chat/completions"), Operation::Chat);
        assert_eq!(Operation::of_path("/v1/completions/"), Operation::Completion);
        assert_eq!(Operation::of_path("/openai/v1/responses"), Operation::Response);
        assert_eq!(Operation::of_path("/v1/files"), Operation::Other);
    }
}
