//! Kinds of outcome of an attempt.

use std::time::Duration;

vocabulary! {
    /// The kinds of outcome. The words are those of logs, metrics, the journal and the contract (`table.outcomes`),
    /// whose order is this one; new kinds join at the end.
    pub enum Kind: serde {
        /// The backend gave the answer, whole.
        Answered = "answered",
        /// 429, or a body that says so.
        RateLimited = "rate_limited",
        /// The account behind the key has no money or quota left.
        OutOfCredit = "out_of_credit",
        /// 503, 529 or a body that says the provider is overloaded.
        Overloaded = "overloaded",
        /// Any other 5xx, or an error event inside a 200.
        ServerError = "server_error",
        /// The request itself is wrong or not allowed; no other try can succeed.
        Refused = "refused",
        /// The prompt does not fit the model's context.
        TooLong = "too_long",
        /// The backend does not know the model.
        ModelMissing = "model_missing",
        /// The backend refuses the key.
        Unauthorised = "unauthorised",
        /// No connection: refused, unreachable, DNS, TLS.
        ConnectFailed = "connect_failed",
        /// The connection broke before the response head.
        Reset = "reset",
        /// A time limit passed before the answer was committed.
        TimedOut = "timed_out",
        /// The connection broke inside the body.
        Cut = "cut",
        /// The body fell silent for longer than the idle limit.
        Stalled = "stalled",
        /// The upstream sent something that is not HTTP, or not its dialect.
        Malformed = "malformed",
        /// The client went away; says nothing about the backend.
        ClientGone = "client_gone",
        /// A broken stream could not be continued here: the backend took no prefill, or its answer goes another way than
        /// the one that was begun. Says nothing against the backend.
        NotResumed = "not_resumed",
    }
}

impl Kind {
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
