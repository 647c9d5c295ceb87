//! Kinds of errors that we ourselves tell a client.

use crate::outcome::Kind;

vocabulary! {
    /// Kind of error, from a client's view, by OpenAI's `code`, which is our word for it in logs and metrics too.
    pub enum ErrorKind {
        /// No backend could take the request.
        AllPoolsExhausted = "all_pools_exhausted",
        /// The request is malformed or ambiguous.
        InvalidRequest = "invalid_request",
        /// The body is larger than the limit.
        BodyTooLarge = "request_too_large",
        /// The headers are larger than the limit.
        HeadersTooLarge = "headers_too_large",
        /// The client key is missing or wrong.
        Unauthorised = "invalid_api_key",
        /// The client may not ask this listener.
        Forbidden = "forbidden",
        /// No backend serves the model.
        ModelNotFound = "model_not_found",
        /// No backend has the path or operation.
        NotFound = "not_found",
        /// The client's own rate limit.
        RateLimited = "rate_limit_exceeded",
        /// The client's budget of the day is spent.
        BudgetExceeded = "budget_exceeded",
        /// The exchange's total time is over.
        Timeout = "timeout",
        /// The upstream's stream broke after it was committed.
        StreamBroken = "stream_broken",
        /// The upstream failed at a request that must not be sent twice.
        UpstreamFailed = "upstream_failed",
        /// The proxy is going away.
        ShuttingDown = "shutting_down",
        /// The proxy has no room for the request at the moment.
        Overloaded = "proxy_overloaded",
        /// A fault of Pointsman's own.
        Internal = "internal_error",
    }
}

impl ErrorKind {
    /// The kind that tells a client of a refusal that is passed on.
    pub const fn of_refusal(outcome: Kind) -> Self {
        match outcome {
            Kind::Unauthorised => ErrorKind::Unauthorised,
            Kind::ModelMissing => ErrorKind::ModelNotFound,
            Kind::RateLimited => ErrorKind::RateLimited,
            Kind::OutOfCredit | Kind::Refused | Kind::TooLong => ErrorKind::InvalidRequest,
            Kind::Overloaded
            | Kind::ServerError
            | Kind::ConnectFailed
            | Kind::Reset
            | Kind::TimedOut
            | Kind::Cut
            | Kind::Stalled
            | Kind::Malformed
            | Kind::Answered
            | Kind::ClientGone
            | Kind::NotResumed => ErrorKind::UpstreamFailed,
        }
    }

    /// The HTTP status, and whether a retry may help.
    const fn row(self) -> (u16, bool) {
        match self {
            ErrorKind::AllPoolsExhausted => (503, false),
            ErrorKind::InvalidRequest => (400, false),
            ErrorKind::BodyTooLarge => (413, false),
            ErrorKind::HeadersTooLarge => (431, false),
            ErrorKind::Unauthorised => (401, false),
            ErrorKind::Forbidden => (403, false),
            ErrorKind::ModelNotFound => (404, false),
            ErrorKind::NotFound => (404, false),
            ErrorKind::RateLimited => (429, true),
            ErrorKind::BudgetExceeded => (429, false),
            ErrorKind::Timeout => (504, false),
            ErrorKind::StreamBroken => (502, false),
            ErrorKind::UpstreamFailed => (502, false),
            ErrorKind::ShuttingDown => (503, true),
            ErrorKind::Overloaded => (503, true),
            ErrorKind::Internal => (500, false),
        }
    }

    /// The HTTP status. A broken stream's is only for logs: its head has gone out long ago.
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// `x-should-retry`: the official SDKs repeat 408, 409, 429 and 5xx by themselves, on top of all we have tried
    /// already; only where trying again soon makes sense are they told to.
    pub const fn should_retry(self) -> bool {
        self.row().1
    }
}
