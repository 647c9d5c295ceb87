//! Scripted or learned answers of backends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pointsman_core::attempt::PromptCount;
use pointsman_core::exchange::Facts;

/// A backend's answer to one attempt.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The response, or the way in which the attempt fails.
    pub behavior: Behavior,
    /// From sending to the head of a stream; none: half the time to its first content.
    pub head: Option<Duration>,
    /// From sending to the first content of a stream.
    pub first_token: Duration,
    /// From sending to the last byte, or to what happens instead of it. What is no stream comes all at once then.
    pub after: Duration,
    /// Tokens of the answer, each a piece of a stream, evenly spaced.
    pub tokens: u32,
    /// The prompt as the backend counts it; none: as it was estimated on arrival.
    pub prompt: Option<PromptCount>,
}

/// Behavior of a backend towards an attempt.
#[derive(Clone, Debug)]
pub enum Behavior {
    /// A response; shared, because many attempts get the same.
    Response(Arc<Response>),
    /// No connection is made: refused, unreachable, or its name is unknown.
    ConnectFailed,
    /// The connection breaks before the head.
    Reset,
    /// The request is taken and nothing ever comes: a time limit ends the attempt.
    Silence,
    /// The connection breaks inside the body.
    Cut,
    /// The body begins and nothing more comes; the connection stays open.
    Stall,
}

/// A response's head and body.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The HTTP status, 100 to 599.
    pub status: u16,
    /// Headers of the response, such as Retry-After and those of rate limits.
    pub headers: HeaderMap,
    /// Its body; none: a good answer where the status is a success, else an empty one.
    pub body: Option<Bytes>,
}

/// Returns true for a stream whose end can be told from a cut.
pub fn asks_stream(facts: &Facts) -> bool {
    facts.streaming && facts.operation.has_streams()
}
