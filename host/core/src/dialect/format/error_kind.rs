//! Kinds of errors that we ourselves tell a client.

use crate::outcome::Kind;

/// Kind of error, from a client's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No backend could take the request.
    AllPoolsExhausted,
    /// The request is malformed or ambiguous.
    InvalidRequest,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The headers are larger than the limit.
    HeadersTooLarge,
    /// The client key is missing or wrong.
    Unauthorised,
    /// The client may not ask this listener.
    Forbidden,
    /// No backend serves the model.
    ModelNotFound,
    /// No backend has the path or operation.
    NotFound,
    /// The client's own rate limit.
    RateLimited,
    /// The client's own budget.
    BudgetExceeded,
    /// The exchange's total time is over.
    Timeout,
    /// The upstream's stream broke after it was committed.
    StreamBroken,
    /// The upstream failed at a request that must not be sent twice.
    UpstreamFailed,
    /// The proxy is going away.
    ShuttingDown,
    /// The proxy has no room for the request at the moment.
    Overloaded,
    /// Our own fault.
    Internal,
}

/// HTTP status, code, and whether a retry may help.
struct Row {
    status: u16,
    code: &'static str,
    retry: bool,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [ErrorKind; 16] = [
        ErrorKind::AllPoolsExhausted,
        ErrorKind::InvalidRequest,
        ErrorKind::BodyTooLarge,
        ErrorKind::HeadersTooLarge,
        ErrorKind::Unauthorised,
        ErrorKind::Forbidden,
        ErrorKind::ModelNotFound,
        ErrorKind::NotFound,
        ErrorKind::RateLimited,
        ErrorKind::BudgetExceeded,
        ErrorKind::Timeout,
        ErrorKind::StreamBroken,
        ErrorKind::UpstreamFailed,
        ErrorKind::ShuttingDown,
        ErrorKind::Overloaded,
        ErrorKind::Internal,
    ];

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

    const fn row(self) -> Row {
        const fn row(status: u16, code: &'static str, retry: bool) -> Row {
            Row { status, code, retry }
        }
        match self {
            ErrorKind::AllPoolsExhausted => row(503, "all_pools_exhausted", false),
            ErrorKind::InvalidRequest => row(400, "invalid_request", false),
            ErrorKind::BodyTooLarge => row(413, "request_too_large", false),
            ErrorKind::HeadersTooLarge => row(431, "headers_too_large", false),
            ErrorKind::Unauthorised => row(401, "invalid_api_key", false),
            ErrorKind::Forbidden => row(403, "forbidden", false),
            ErrorKind::ModelNotFound => row(404, "model_not_found", false),
            ErrorKind::NotFound => row(404, "not_found", false),
            ErrorKind::RateLimited => row(429, "rate_limit_exceeded", true),
            ErrorKind::BudgetExceeded => row(429, "budget_exceeded", false),
            ErrorKind::Timeout => row(504, "timeout", false),
            ErrorKind::StreamBroken => row(502, "stream_broken", false),
            ErrorKind::UpstreamFailed => row(502, "upstream_failed", false),
            ErrorKind::ShuttingDown => row(503, "shutting_down", true),
            ErrorKind::Overloaded => row(503, "proxy_overloaded", true),
            ErrorKind::Internal => row(500, "internal_error", false),
        }
    }

    /// The HTTP status. A broken stream's is only for logs: its head has gone out long ago.
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// OpenAI's `code`, and our word for it in logs and metrics.
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// `x-should-retry`: the official SDKs repeat 408, 409, 429 and 5xx by themselves, on top of all we have tried
    /// already; only where trying again soon makes sense are they told to.
    pub const fn should_retry(self) -> bool {
        self.row().retry
    }
}
