//! The answer of a policy.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lane::Lane;

/// The commit gate: from when on an answer goes to the client, so that a failure is no longer just a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// The answer is committed at the response head.
    Headers,
    /// At the first event that carries content.
    FirstContent,
    /// After this many content events.
    Tokens(u32),
    /// At the end of the answer.
    Complete,
}

/// The handling of a committed stream that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resume {
    /// An in-band error ends it.
    None,
    /// Another backend gets the request again; its answer is dropped while it agrees with what was delivered.
    Splice,
    /// Another backend continues from the delivered text.
    Prefill,
}

/// A request to send; a field that is none is as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Index into the table; none: the host chooses within the lane.
    pub backend: Option<u32>,
    /// Index into the table's models: replaces the model that the client asked for, from now on.
    pub model: Option<u32>,
    /// Time limit of the response head.
    pub first_byte: Option<Duration>,
    /// Time limit of the first content of a stream.
    pub first_token: Option<Duration>,
    /// Time limit between two pieces of the body.
    pub idle: Option<Duration>,
    /// Time limit of the whole attempt.
    pub total: Option<Duration>,
    /// Commit gate of the answer; none: the configured one.
    pub commit: Option<Commit>,
    /// Resume mode of the answer; none: the configured one.
    pub resume: Option<Resume>,
}

/// A wait for capacity in a lane, limited in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The longest this wait may take.
    pub max: Duration,
    /// The lane whose capacity is waited for.
    pub lane: Lane,
}

/// A refusal of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// HTTP status, 400..=599; 0: 503, all pools exhausted, with the host's own message.
    pub status: u16,
    /// Member `type` of the error.
    pub kind: String,
    /// Member `message` of the error.
    pub message: String,
    /// Header `Retry-After` of the refusal; none: it has none.
    pub retry_after: Option<Duration>,
}

/// The handling of a question on which the policy failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFault {
    /// The native default policy decides.
    #[default]
    AskDefault,
    /// The request is refused; for policies whose rules must not be bypassed.
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

/// A policy's answer to a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// An attempt at a primary backend.
    Primary(Dispatch),
    /// An attempt at a fallback backend.
    Fallback(Dispatch),
    /// Send to any backend, under the emergency rate.
    Emergency(Dispatch),
    /// A wait for capacity.
    Wait(Hold),
    /// A refusal of the request.
    Reject(Rejection),
}

impl Decision {
    /// Its name in logs, metrics and the journal.
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
