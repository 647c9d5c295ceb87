//! Inputs and outputs of an exchange.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contract::{Commit, Decision, Operation, Query, Resume};
use crate::dialect::envelope::ErrorKind;
use crate::fleet::Permit;
use crate::fleet::Ticket;
use crate::outcome::Outcome;
use crate::record::{End, Usage};
use crate::table::{Lane, Timeouts};

/// Limits of one exchange, whatever its policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budgets {
    /// Number of attempts, at least 1.
    pub max_attempts: u32,
    /// Largest number of waits.
    pub max_waits: u32,
    /// Total time in the queue.
    pub max_wait: Duration,
    /// The whole exchange, up to its commit; no attempt to resume it begins later either.
    pub max_total: Duration,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            max_attempts: 16,
            max_waits: 32,
            max_wait: Duration::from_secs(120),
            max_total: Duration::from_secs(600),
        }
    }
}

vocabulary! {
    /// The status of an exchange that every backend's limits exhausted.
    pub enum ExhaustedStatus {
        /// 503, of the type `AllPoolsExhausted`.
        Unavailable = "503",
        /// That which all have in common: 429, as a rate limit error.
        Common = "common",
    }
}

/// Defaults for streams, where the policy does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDefaults {
    /// Commit gate where the policy names none.
    pub commit: Commit,
    /// Resume mode after a break.
    pub resume: Resume,
}

/// Facts about a request, known on arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Operation of the request.
    pub operation: Operation,
    /// The client wants a stream.
    pub streaming: bool,
    /// -100..=100, larger is more urgent.
    pub priority: i32,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u32,
    /// The most tokens the answer may have; 0: did not say.
    pub max_tokens: u32,
    /// Index of the client key in the table, or `contract::NONE`.
    pub client: u32,
    /// A hash of the session; 0: none.
    pub session: u64,
    /// May it go to a backend of another dialect, translated?
    #[serde(rename = "crosses")]
    pub translatable: bool,
    /// May it be sent twice? False where it may change something at the upstream (RFC 9110 section 9.2.2). Recorded the
    /// other way round.
    #[serde(rename = "acts", with = "negated")]
    pub idempotent: bool,
}

/// A flag that is recorded the other way round.
mod negated {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(flag: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(!flag)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        bool::deserialize(deserializer).map(|flag| !flag)
    }
}

/// An input: something that happened.
#[derive(Debug)]
pub enum Event {
    /// The request is there, body and all.
    Arrived,
    /// The policy decided; its answer is not checked yet.
    Decided(Decision),
    /// While waiting: capacity, held for us.
    Granted(Permit),
    /// While waiting: the time is up.
    WaitOver,
    /// The first byte of the attempt's answer goes downstream; of a resumed one, the first that is new.
    Committed,
    /// The attempt under way ended, before or after the commit.
    Ended(Ended),
    /// The attempt under way ended too early after its commit, and what was delivered can be continued.
    Broke(Ended),
    /// The attempt was not sent for want of something of our own; the message says of what. It never was one.
    NotSent(String),
    /// The client disconnected.
    ClientGone,
}

/// The end of an attempt.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Outcome of the attempt.
    pub outcome: Outcome,
    /// Tokens that it used, told by the provider or estimated.
    pub usage: Usage,
    /// Time to the response head.
    pub first_byte: Option<Duration>,
    /// Time to the first content.
    pub first_token: Option<Duration>,
    /// The id that the provider gave the request.
    pub upstream_id: Option<Box<str>>,
}

impl Facts {
    /// The number of a session: the same text gives the same number for as long as the build is the same; never 0.
    pub fn session_number(text: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        hasher.finish().max(1)
    }
}

impl Ended {
    /// An attempt that ended without an answer.
    pub fn failed(outcome: Outcome) -> Self {
        Self { outcome, usage: Usage::default(), first_byte: None, first_token: None, upstream_id: None }
    }
}

/// An output: the next thing to do.
#[derive(Debug)]
pub enum Action {
    /// Ask the policy for a decision.
    Ask(Query),
    /// Send the request to a backend.
    Send(Sending),
    /// Wait for a grant for this ticket, at most so long.
    Wait {
        /// Place in the queue.
        ticket: Ticket,
        /// Maximum length of the wait.
        max: Duration,
    },
    /// Go on relaying; the end of the body is the next event.
    Relay,
    /// Give the client the refusal that the last attempt brought, as it came.
    PassOn,
    /// Give the client this error; in-band when part of an answer was delivered.
    Reject(Refusal),
    /// Nothing is left to do.
    Finish(End),
}

/// An attempt to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Sending {
    /// Index into the backend table.
    pub backend: u32,
    /// Lane that the attempt is sent in.
    pub lane: Lane,
    /// The model name to send; as asked where the request names none.
    pub model: String,
    /// Time limits of the attempt.
    pub timeouts: Timeouts,
    /// Commit gate of its stream.
    pub commit: Commit,
    /// Resume mode after a break.
    pub resume: Resume,
    /// Way to continue the delivered text; `None` when nothing was delivered.
    pub join: Option<Join>,
}

/// The way an attempt continues an answer that broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Join {
    /// It answers from the beginning; what was delivered is dropped while it agrees.
    Splice,
    /// It is given what was delivered as the beginning of its answer, where the request allows it; else as for splice.
    Prefill,
}

/// An error of Pointsman's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Reason, by which status and type of the error are chosen.
    pub reason: Reason,
    /// Message to the client, which says what to do.
    pub message: String,
    /// Time until a retry may succeed.
    pub retry_after: Option<Duration>,
}

/// The reason why Pointsman itself refuses a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// No backend serves the model.
    NoSuchModel,
    /// No backend is of the dialect that has the operation.
    NoSuchOperation,
    /// Every backend that could serve the model has said that it does not have it.
    ModelMissing,
    /// Only backends of another dialect serve the model, and the request cannot be translated for them.
    Untranslatable,
    /// Every attempt and wait is used up.
    Exhausted,
    /// The same, every backend is at a limit, and the client is to be told just that.
    Limits,
    /// Every backend refuses its key.
    KeysRefused,
    /// The waiting line is full.
    QueueFull,
    /// The exchange's time is up.
    OutOfTime,
    /// It must not be done twice, and the upstream may have done it.
    NotRepeated,
    /// Pointsman itself had no descriptor or memory left for it; no backend is to blame.
    OwnShortage,
    /// The policy rejected it, in its own words.
    Policy {
        /// HTTP status, 400..=599.
        status: u16,
        /// The `type` of the error object.
        kind: String,
    },
}

impl Reason {
    /// Returns the kind of error object that the client gets.
    pub fn error_kind(&self) -> ErrorKind {
        match self {
            Reason::NoSuchModel | Reason::ModelMissing => ErrorKind::ModelNotFound,
            Reason::NoSuchOperation => ErrorKind::NotFound,
            Reason::Untranslatable => ErrorKind::InvalidRequest,
            Reason::Limits => ErrorKind::RateLimited,
            Reason::KeysRefused => ErrorKind::Unauthorised,
            Reason::Exhausted | Reason::QueueFull | Reason::Policy { .. } => ErrorKind::AllPoolsExhausted,
            Reason::OutOfTime => ErrorKind::Timeout,
            Reason::NotRepeated => ErrorKind::UpstreamFailed,
            Reason::OwnShortage => ErrorKind::Overloaded,
        }
    }

    /// The HTTP status a client is told.
    pub fn status(&self) -> u16 {
        match self {
            Reason::Policy { status, .. } => *status,
            Reason::NoSuchModel
            | Reason::NoSuchOperation
            | Reason::ModelMissing
            | Reason::Untranslatable
            | Reason::Exhausted
            | Reason::Limits
            | Reason::KeysRefused
            | Reason::QueueFull
            | Reason::OutOfTime
            | Reason::NotRepeated
            | Reason::OwnShortage => self.error_kind().status(),
        }
    }
}
