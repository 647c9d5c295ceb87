//! Answers of a policy.

use crate::table::Lane;

/// Point at which an answer is passed on to the client; before it, a failure is only a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// As soon as the upstream's response head is there.
    Headers,
    /// With the first event that carries content.
    FirstContent,
    /// After this many content events.
    Tokens(u32),
    /// Once the whole answer has arrived.
    Complete,
}

/// Reaction to the break of a committed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// An in-band error ends it.
    None,
    /// Another backend is asked again; what was delivered is dropped while it agrees.
    Splice,
    /// Another backend continues the delivered text.
    Prefill,
}

/// Send the request; each field left out means: as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dispatch {
    /// Index into the table's backends; none lets the host choose the least loaded ready one of the lane.
    pub backend: Option<u32>,
    /// Index into the table's models: ask for this one from now on instead of the client's.
    pub model: Option<u32>,
    /// Limit to the response head, in ms.
    pub first_byte_ms: Option<u32>,
    /// Limit to the first content of a stream, in ms.
    pub first_token_ms: Option<u32>,
    /// Limit between two pieces of the body, in ms.
    pub idle_ms: Option<u32>,
    /// Limit of the whole attempt, in ms.
    pub total_ms: Option<u32>,
    /// Point at which the answer is passed on.
    pub commit: Option<Commit>,
    /// Reaction to a break after that.
    pub resume: Option<Resume>,
}

impl Dispatch {
    /// To this backend, everything else as configured.
    pub fn to(backend: usize) -> Self {
        Self { backend: Some(backend as u32), ..Self::default() }
    }

    /// The same, but for this model of the table from now on.
    pub fn with_model(self, model: usize) -> Self {
        Self { model: Some(model as u32), ..self }
    }
}

/// Wait in the host's fair queue, and be asked again when there is capacity or the time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The longest this wait may take, in ms; the host caps it.
    pub max_ms: u32,
    /// Lane to wait for: any backend usable in it.
    pub lane: Lane,
}

/// Refuse the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejection {
    /// 400..=599; 0 means 503, all pools exhausted, in the host's own words.
    pub status: u16,
    /// The error's `type`, as the client sees it.
    pub kind: String,
    /// Message to the client.
    pub message: String,
    /// Time until a retry may succeed, in ms.
    pub retry_after_ms: Option<u32>,
}

/// The next step of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send to a primary backend.
    Primary(Dispatch),
    /// Send to a fallback backend.
    Fallback(Dispatch),
    /// Send to any backend, under the emergency rate.
    Emergency(Dispatch),
    /// Wait.
    Wait(Hold),
    /// Refuse.
    Reject(Rejection),
}

impl Decision {
    /// Send to this primary backend.
    pub fn primary(backend: usize) -> Self {
        Decision::Primary(Dispatch::to(backend))
    }

    /// Send to this fallback backend.
    pub fn fallback(backend: usize) -> Self {
        Decision::Fallback(Dispatch::to(backend))
    }

    /// Send to this backend under the emergency rate.
    pub fn emergency(backend: usize) -> Self {
        Decision::Emergency(Dispatch::to(backend))
    }

    /// Wait for a primary backend, at most this many ms.
    pub fn wait_for_primary(max_ms: u32) -> Self {
        Decision::Wait(Hold { max_ms, lane: Lane::Primary })
    }

    /// Returns the dispatch, if the request is sent.
    pub fn dispatch(&self) -> Option<&Dispatch> {
        match self {
            Decision::Primary(dispatch) | Decision::Fallback(dispatch) | Decision::Emergency(dispatch) => {
                Some(dispatch)
            }
            Decision::Wait(_) | Decision::Reject(_) => None,
        }
    }

    /// The index of the backend it sends to; none when it does not, or leaves the choice to the host.
    pub fn backend(&self) -> Option<usize> {
        self.dispatch()?.backend.map(|index| index as usize)
    }

    /// Refuse with 503 in the host's own words.
    pub fn exhausted() -> Self {
        Decision::Reject(Rejection::default())
    }
}
