//! Decisions and ends of an exchange with the table's names, as scenario files write them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Decision, Dispatch};
use pointsman_core::record::End;
use pointsman_core::table::{Lane, Table};

/// A decision with the table's names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The decision without its reasons.
    pub what: DecidedWhat,
    /// The backend it named, or the one the host chose for it.
    pub backend: Option<Arc<str>>,
    /// The model it asks for from now on.
    pub model: Option<String>,
}

/// The kind of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedWhat {
    /// An attempt in this lane.
    Send(Lane),
    /// Wait for this lane's capacity.
    Wait(Lane),
    /// A refusal with this status.
    Reject(u16),
}

/// End of an exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// As its client saw it.
    pub end: End,
    /// The status the client got.
    pub status: u16,
    /// Lane and backend that answered it.
    pub by: Option<(Lane, Arc<str>)>,
    /// Time from arrival to end.
    pub took: Duration,
    /// The error the client got, if it got one.
    pub error: Option<String>,
}

impl Decided {
    /// The decision, for this table. Indices that are not in it have no name.
    pub fn of(decision: &Decision, table: &Table) -> Self {
        let name = |index: u32| table.backends.get(index as usize).map(|backend| backend.id.clone());
        let send = |lane, dispatch: &Dispatch| Self {
            what: DecidedWhat::Send(lane),
            backend: dispatch.backend.and_then(name),
            model: dispatch.model.and_then(|index| table.models.get(index as usize).cloned()),
        };
        let bare = |what| Self { what, backend: None, model: None };
        match decision {
            Decision::Primary(dispatch) => send(Lane::Primary, dispatch),
            Decision::Fallback(dispatch) => send(Lane::Fallback, dispatch),
            Decision::Emergency(dispatch) => send(Lane::Emergency, dispatch),
            Decision::Wait(hold) => bare(DecidedWhat::Wait(hold.lane)),
            Decision::Reject(rejection) if rejection.status == 0 => bare(DecidedWhat::Reject(EXHAUSTED)),
            Decision::Reject(rejection) => bare(DecidedWhat::Reject(rejection.status)),
        }
    }
}

/// The status of a rejection in the host's own words.
const EXHAUSTED: u16 = 503;

/// As scenario files write it.
impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            DecidedWhat::Send(lane) => f.write_str(lane.as_str())?,
            DecidedWhat::Wait(lane) => write!(f, "wait {}", lane.as_str())?,
            DecidedWhat::Reject(status) => write!(f, "reject {status}")?,
        }
        if let Some(backend) = &self.backend {
            write!(f, " {backend}")?;
        }
        if let Some(model) = &self.model {
            write!(f, " as {model}")?;
        }
        Ok(())
    }
}

/// As scenario files write it.
impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            End::Delivered => f.write_str("delivered")?,
            End::Refused => write!(f, "refused {}", self.status)?,
            End::Rejected => return write!(f, "rejected {}", self.status),
            End::Broken => f.write_str("broken")?,
            End::ClientGone => f.write_str("left by its client")?,
            End::Denied => return write!(f, "denied {}", self.status),
        }
        self.by.as_ref().map_or(Ok(()), |(_, backend)| write!(f, " by {backend}"))
    }
}
