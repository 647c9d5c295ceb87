//! Kinds of outcome of an attempt.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The kinds of outcome. The words are those of logs, metrics, the journal and the contract (`table.outcomes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The backend gave the answer, whole.
    Answered,
    /// 429, or a body that says so.
    RateLimited,
    /// The account behind the key has no money or quota left.
    OutOfCredit,
    /// 503, 529 or a body that says the provider is overloaded.
    Overloaded,
    /// Any other 5xx, or an error event inside a 200.
    ServerError,
    /// The request itself is wrong or not allowed; no other try can succeed.
    Refused,
    /// The prompt does not fit the model's context.
    TooLong,
    /// The backend does not know the model.
    ModelMissing,
    /// The backend refuses the key.
    Unauthorised,
    /// No connection: refused, unreachable, DNS, TLS.
    ConnectFailed,
    /// The connection broke before the response head.
    Reset,
    /// A time limit passed before the answer was committed.
    TimedOut,
    /// The connection broke inside the body.
    Cut,
    /// The body fell silent for longer than the idle limit.
    Stalled,
    /// The upstream sent something that is not HTTP, or not its dialect.
    Malformed,
    /// The client went away; says nothing about the backend.
    ClientGone,
    /// A broken stream could not be continued here: the backend took no prefill, or its answer goes another way than
    /// the one that was begun. Says nothing against the backend.
    NotResumed,
}

impl Kind {
    /// Every kind, in the order of the contract's vocabulary. New kinds join at the end.
    pub const ALL: [Kind; 17] = [
        Kind::Answered,
        Kind::RateLimited,
        Kind::OutOfCredit,
        Kind::Overloaded,
        Kind::ServerError,
        Kind::Refused,
        Kind::TooLong,
        Kind::ModelMissing,
        Kind::Unauthorised,
        Kind::ConnectFailed,
        Kind::Reset,
        Kind::TimedOut,
        Kind::Cut,
        Kind::Stalled,
        Kind::Malformed,
        Kind::ClientGone,
        Kind::NotResumed,
    ];

    /// The word for this kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Answered => "answered",
            Kind::RateLimited => "rate_limited",
            Kind::OutOfCredit => "out_of_credit",
            Kind::Overloaded => "overloaded",
            Kind::ServerError => "server_error",
            Kind::Refused => "refused",
            Kind::TooLong => "too_long",
            Kind::ModelMissing => "model_missing",
            Kind::Unauthorised => "unauthorised",
            Kind::ConnectFailed => "connect_failed",
            Kind::Reset => "reset",
            Kind::TimedOut => "timed_out",
            Kind::Cut => "cut",
            Kind::Stalled => "stalled",
            Kind::Malformed => "malformed",
            Kind::ClientGone => "client_gone",
            Kind::NotResumed => "not_resumed",
        }
    }

    /// Its place in the contract's vocabulary.
    pub const fn index(self) -> u32 {
        self as u32
    }
}

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Kind of outcome.
    pub kind: Kind,
    /// The HTTP status the upstream sent, if it sent one.
    pub status: Option<u16>,
    /// Delay that the upstream asked for before the next request.
    pub retry_after: Option<Duration>,
    /// One sentence for people: what the upstream said, or what happened to the connection. Never holds a secret.
    pub message: String,
}

impl Outcome {
    /// An outcome without a response.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, status: None, retry_after: None, message: message.into() }
    }

    /// The backend answered with this status.
    pub fn answered(status: u16) -> Self {
        Self { kind: Kind::Answered, status: Some(status), retry_after: None, message: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_is_in_the_order_of_the_enum() {
        for (i, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index() as usize, i);
        }
    }
}
