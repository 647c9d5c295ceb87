//! What a policy may answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::table::Lane;

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
