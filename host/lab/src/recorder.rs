//! Remembers every exchange of a world: as a story for people, and as facts to compare with.

use std::time::Duration;

use pointsman_core::record::AttemptRecord;
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;
use pointsman_engine::Verdict;

use super::story::{Answered, Sent, Story, Teller, title};
use super::world::{Ask, EventKind, Finished, Scene, Watcher};

pub use super::story::{Decided, DecidedWhat, Ended};

/// Remembers everything; for worlds of at most some ten thousand exchanges.
#[derive(Debug)]
pub struct Recorder {
    /// Time at which the world began.
    start: Timestamp,
    /// In the order of arrival.
    pub exchanges: Vec<Recorded>,
}

/// An exchange of a world, as its recorder has seen it.
#[derive(Clone, Debug)]
pub struct Recorded {
    teller: Teller,
    /// Arrival, from the world's beginning.
    pub arrived: Duration,
    /// Decisions of the policy, oldest first.
    pub decisions: Vec<Decided>,
    /// Notes of the policy, oldest first.
    pub notes: Vec<String>,
    /// Faults of the policy in order.
    pub faults: Vec<String>,
    /// The attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// Waits, and their time together.
    pub waits: (u32, Duration),
    /// End of the exchange; `None` before it.
    pub end: Option<Ended>,
}

impl Recorder {
    /// A recorder of a world that begins at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { start, exchanges: Vec::new() }
    }
}

impl Watcher for Recorder {
    fn saw(&mut self, scene: &Scene<'_>, sight: EventKind<'_>) {
        let at = scene.now.since(self.start);
        if let EventKind::Arrived(ask) = sight {
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
        let title = title(&format!("request {}", number + 1), &ask.model, &ask.facts);
        let teller = Teller::new(title, &ask.model, at);
        Self {
            teller,
            arrived: at,
            decisions: Vec::new(),
            notes: Vec::new(),
            faults: Vec::new(),
            attempts: Vec::new(),
            waits: (0, Duration::ZERO),
            end: None,
        }
    }

    /// Returns the story so far.
    pub fn story(&self) -> &Story {
        &self.teller.story
    }

    /// Records an event at `at` after the world's beginning.
    pub fn saw(&mut self, at: Duration, view: &View, sight: EventKind<'_>) {
        let table = &view.table;
        match sight {
            EventKind::Arrived(_) | EventKind::Granted { .. } => {}
            EventKind::Asked(query) => self.teller.asked(at, table, query),
            EventKind::Decided(verdict) => self.decided(at, table, verdict),
            EventKind::Sent { sending, probe, model: _ } => {
                let backend = &view.backend(sending.backend).id;
                if let Some(last) = self.decisions.last_mut().filter(|d| d.backend.is_none()) {
                    last.backend = Some(backend.clone());
                }
                let (backend, lane, join) = (sending.backend, sending.lane, sending.join);
                self.teller.sent(at, table, Sent { backend, lane, model: &sending.model, probe, join });
            }
            EventKind::Committed => self.teller.committed(at),
            EventKind::Ended(attempt) => self.teller.outcome(at, attempt.into()),
            EventKind::Waits { max, model: _ } => self.teller.waits(at, table, max),
            EventKind::Waited { granted } => {
                self.teller.waited(at, granted.map(|index| view.backend(index).id.clone()));
            }
            EventKind::Finished(finished) => self.finished(at, view, finished),
        }
    }

    fn decided(&mut self, at: Duration, table: &Table, verdict: &Verdict) {
        let fault = verdict.fault.as_ref().map(|fault| (fault.kind.as_str(), fault.message.as_str()));
        self.faults.extend(fault.map(|(kind, message)| format!("{kind}: {message}")));
        self.notes.extend_from_slice(&verdict.notes);
        let Verdict { decision, notes, state, .. } = verdict;
        self.decisions.push(self.teller.answered(at, table, Answered { decision, notes, fault, state, took: None }));
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
        self.teller.ended(at, &ended, finished.waits);
        self.end = Some(ended);
    }
}
