//! Remembers every exchange of a world: as a story for people, and as facts to compare with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Decision, Dispatch, Query, STRIDE};
use pointsman_core::record::{AttemptRecord, End};
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;

use super::story::{Moment, Standing, Story, in_words};
use super::world::{Ask, Finished, Scene, Sight, Watcher};
use crate::policy::Verdict;

/// Remembers everything; for worlds of at most some ten thousand exchanges.
#[derive(Debug)]
pub struct Recorder {
    /// The world's beginning.
    start: Timestamp,
    /// In the order of arrival.
    pub exchanges: Vec<Recorded>,
}

/// One exchange.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What happened, in words.
    pub story: Story,
    /// Arrival, from the world's beginning.
    pub arrived: Duration,
    /// What was decided, in order.
    pub decisions: Vec<Decided>,
    /// What was noted, in order.
    pub notes: Vec<String>,
    /// How the policy failed, in order.
    pub faults: Vec<String>,
    /// The attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// Waits, and their time together.
    pub waits: (u32, Duration),
    /// How it ended; none while it has not.
    pub end: Option<Ended>,
    waiting_since: Duration,
}

/// How an exchange ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// As its client saw it.
    pub end: End,
    /// The status the client got.
    pub status: u16,
    /// Who answered it.
    pub by: Option<(Lane, Arc<str>)>,
    /// Arrival to end.
    pub took: Duration,
    /// The error the client got, if it got one.
    pub error: Option<String>,
}

/// A decision with the table's names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What.
    pub what: DecidedWhat,
    /// The backend it named, or the one the host chose for it.
    pub backend: Option<Arc<str>>,
    /// The model it asks for from now on.
    pub model: Option<String>,
}

/// The kind of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedWhat {
    /// Send in this lane.
    Send(Lane),
    /// Wait for this lane's capacity.
    Wait(Lane),
    /// Refuse with this status.
    Reject(u16),
}

impl Recorder {
    /// Remembers from `start` on.
    pub fn new(start: Timestamp) -> Self {
        Self { start, exchanges: Vec::new() }
    }
}

impl Watcher for Recorder {
    fn saw(&mut self, scene: &Scene<'_>, sight: Sight<'_>) {
        let at = scene.now.since(self.start);
        if let Sight::Arrived(ask) = sight {
            return self.exchanges.push(Recorded::new(scene.exchange, at, ask));
        }
        if let Some(exchange) = usize::try_from(scene.exchange).ok().and_then(|i| self.exchanges.get_mut(i)) {
            exchange.saw(at, scene.view, sight);
        }
    }
}

impl Recorded {
    /// The exchange of this number, counted from 0, arrived.
    pub fn new(number: u64, at: Duration, ask: &Ask) -> Self {
        let facts = &ask.facts;
        let stream = if facts.streaming { ", as a stream" } else { "" };
        let priority = if facts.priority == 0 { String::new() } else { format!(", priority {}", facts.priority) };
        let title =
            format!("request {}: {}, {} prompt tokens{stream}{priority}", number + 1, ask.model, facts.prompt_tokens);
        Self {
            story: Story { title, moments: vec![(at, Moment::Arrived)] },
            arrived: at,
            decisions: Vec::new(),
            notes: Vec::new(),
            faults: Vec::new(),
            attempts: Vec::new(),
            waits: (0, Duration::ZERO),
            end: None,
            waiting_since: at,
        }
    }

    /// Something happened to it.
    pub fn saw(&mut self, at: Duration, view: &View, sight: Sight<'_>) {
        match sight {
            Sight::Arrived(_) | Sight::Granted { .. } => {}
            Sight::Asked(query) => self.tell(at, Moment::Asked(standings(query, view))),
            Sight::Decided(verdict) => self.decided(at, view, verdict),
            Sight::Sent { sending, probe, model: _ } => {
                let backend = &view.backend(sending.backend).id;
                if let Some(last) = self.decisions.last_mut().filter(|d| d.backend.is_none()) {
                    last.backend = Some(backend.clone());
                }
                let (lane, model) = (sending.lane, sending.model.clone());
                self.tell(at, Moment::Sent { backend: backend.clone(), lane, model, probe });
            }
            Sight::Committed => self.tell(at, Moment::Committed),
            Sight::Ended(attempt) => self.tell(at, outcome(attempt)),
            Sight::Waits { max, model: _ } => {
                self.waiting_since = at;
                self.tell(at, Moment::Waits(max));
            }
            Sight::Waited { granted } => {
                let backend = granted.map(|index| view.backend(index).id.clone());
                self.tell(at, Moment::Waited(at.saturating_sub(self.waiting_since), backend));
            }
            Sight::Finished(finished) => self.finished(at, view, finished),
        }
    }

    fn decided(&mut self, at: Duration, view: &View, verdict: &Verdict) {
        if let Some(fault) = &verdict.fault {
            let told = format!("{}: {}", fault.kind.as_str(), fault.message);
            self.tell(at, Moment::Fault(told.clone()));
            self.faults.push(told);
        }
        for note in &verdict.notes {
            self.tell(at, Moment::Noted(note.clone()));
            self.notes.push(note.clone());
        }
        let decided = Decided::of(&verdict.decision, view);
        let longest = match &verdict.decision {
            Decision::Wait(hold) => format!(", at most {}", in_words(hold.max)),
            Decision::Primary(_) | Decision::Fallback(_) | Decision::Emergency(_) | Decision::Reject(_) => {
                String::new()
            }
        };
        self.tell(at, Moment::Decided(format!("{decided}{longest}")));
        self.decisions.push(decided);
    }

    fn finished(&mut self, at: Duration, view: &View, finished: &Finished<'_>) {
        self.attempts = finished.attempts.to_vec();
        self.waits = finished.waits;
        let ended = Ended {
            end: finished.end,
            status: finished.status,
            by: finished.by.map(|(lane, index)| (lane, view.backend(index).id.clone())),
            took: finished.took,
            error: finished.error.map(str::to_owned),
        };
        let (waits, waited) = finished.waits;
        let lane = ended.by.as_ref().map_or(String::new(), |(lane, _)| format!(" in the {} lane", lane.as_str()));
        let error = ended.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
        let text = format!(
            "{ended}{lane} after {} ({}, {}){error}",
            in_words(finished.took),
            counted(finished.attempts.len(), "attempt"),
            match waits {
                0 => "no wait".to_owned(),
                waits => format!("{} of {} together", counted(waits as usize, "wait"), in_words(waited)),
            },
        );
        self.tell(at, Moment::End(text));
        self.end = Some(ended);
    }

    fn tell(&mut self, at: Duration, moment: Moment) {
        self.story.moments.push((at, moment));
    }
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn standings(query: &Query, view: &View) -> Vec<Standing> {
    let rows = view.table.backends.iter().zip(query.rows.chunks_exact(STRIDE));
    rows.filter_map(|(backend, row)| Standing::read(&backend.id, row)).collect()
}

fn outcome(attempt: &AttemptRecord) -> Moment {
    Moment::Outcome {
        backend: attempt.backend.clone(),
        kind: attempt.outcome,
        status: attempt.status,
        took: attempt.elapsed,
        retry_after: attempt.retry_after,
        message: attempt.message.clone(),
        cost_usd: attempt.cost_usd,
    }
}

impl Decided {
    fn of(decision: &Decision, view: &View) -> Self {
        let send = |lane, dispatch: &Dispatch| Self {
            what: DecidedWhat::Send(lane),
            backend: dispatch.backend.map(|index| view.backend(index).id.clone()),
            model: dispatch.model.and_then(|index| view.table.models.get(index as usize).cloned()),
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
        }
        self.by.as_ref().map_or(Ok(()), |(_, backend)| write!(f, " by {backend}"))
    }
}
