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

    /// The scope of a failure of this kind where nothing narrows it: providers limit and fail by the model; connections,
    /// keys and money belong to the backend.
    pub const fn usual_scope(self) -> Scope {
        match self {
            Kind::Answered | Kind::ClientGone | Kind::NotResumed => Scope::Nothing,
            Kind::Refused => Scope::Request,
            Kind::TooLong => Scope::PromptSize,
            Kind::RateLimited
            | Kind::Overloaded
            | Kind::ServerError
            | Kind::ModelMissing
            | Kind::TimedOut
            | Kind::Cut
            | Kind::Stalled
            | Kind::Malformed => Scope::Model,
            Kind::OutOfCredit | Kind::Unauthorised | Kind::ConnectFailed | Kind::Reset => Scope::Backend,
        }
    }
}

vocabulary! {
    /// The smallest part that explains a failed attempt: only that may be held back for it. The words are those of the record.
    pub enum Scope {
        /// Nothing: an answer, or a client that left.
        Nothing = "nothing",
        /// This one request, at any backend.
        Request = "request",
        /// This one request at this backend: a firewall, a feature that its model does not have.
        RequestHere = "request_here",
        /// A header that the client sent.
        Headers = "headers",
        /// The size of the body in bytes: larger ones are refused alike.
        BodySize = "body_size",
        /// The number of tokens that the request needs: larger ones are refused alike.
        PromptSize = "prompt_size",
        /// The number of tokens that the answer may have: larger ones are refused alike.
        AnswerSize = "answer_size",
        /// The model on this backend.
        Model = "model",
        /// The operation on this backend: its key may not use it, or it is not there.
        Operation = "operation",
        /// The whole backend: its host, its key, its account.
        Backend = "backend",
    }
}

impl Scope {
    /// Returns true if the request is to blame: its content, its headers or its size.
    pub const fn is_of_request(self) -> bool {
        match self {
            Scope::Request
            | Scope::RequestHere
            | Scope::Headers
            | Scope::BodySize
            | Scope::PromptSize
            | Scope::AnswerSize => true,
            Scope::Nothing | Scope::Model | Scope::Operation | Scope::Backend => false,
        }
    }

    /// The word of what is to blame; `None`: nothing is.
    pub fn blamed(self) -> Option<&'static str> {
        (self != Scope::Nothing).then(|| self.as_str())
    }

    /// Returns true if requests of at least this size are to blame.
    pub const fn is_size(self) -> bool {
        matches!(self, Scope::BodySize | Scope::PromptSize | Scope::AnswerSize)
    }

    /// Returns true if another backend may take the same request.
    pub const fn may_differ_elsewhere(self) -> bool {
        !matches!(self, Scope::Nothing | Scope::Request | Scope::Headers)
    }
}

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Kind, by which it is counted and cooled down for.
    pub kind: Kind,
    /// The HTTP status the upstream sent, if it sent one.
    pub status: Option<u16>,
    /// Delay that the upstream asked for before the next request.
    pub retry_after: Option<Duration>,
    /// One sentence for people: what the upstream said, or what happened to the connection. Never holds a secret.
    pub message: String,
    /// The smallest part that explains it.
    pub scope: Scope,
}

impl Outcome {
    /// An outcome without a response.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, status: None, retry_after: None, message: message.into(), scope: kind.usual_scope() }
    }

    /// The backend answered with this status.
    pub fn answered(status: u16) -> Self {
        Self { status: Some(status), ..Self::new(Kind::Answered, String::new()) }
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
