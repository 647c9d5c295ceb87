//! Writes down what happens in a world as the server writes down what happens to it: exchanges, attempts and trails, into a
//! store. What reads a journal can so be tried on worlds whose truth is known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::Query;
use pointsman_core::journal::{Failed, Happened, Question, Setup, Step, Trail};
use pointsman_core::outcome::Kind;
use pointsman_core::record::ExchangeRecord;
use pointsman_core::time::Timestamp;
use pointsman_engine::Verdict;
use pointsman_store::{JournalPart, StoreHandle};

use super::world::{Ask, EventKind, Finished, Scene, Watcher};

/// Writes a world down; wait for the store's [`StoreHandle::flush_blocking`] before it is read.
pub struct Chronicler {
    store: StoreHandle,
    setup: Arc<str>,
    clients: Vec<Arc<str>>,
    /// The policy revision that decides.
    policy: Arc<str>,
    under_way: HashMap<u64, Entry>,
    /// The store's backlog is bounded, and this world is quicker than the world is.
    unflushed: u32,
}

/// An exchange under way, with what its record needs.
struct Entry {
    trail: Box<Trail>,
    ask: Ask,
    query: Option<Query>,
    first_byte: Option<Duration>,
    committed: bool,
    notes: Vec<String>,
    faults: u32,
}

/// Exchanges that may wait to be written.
const UNFLUSHED: u32 = 500;

impl Chronicler {
    /// Creates a recorder for a world with this setup, decided by this revision, into this store.
    pub fn new(store: StoreHandle, setup: &Setup, policy: Arc<str>) -> Self {
        // What is made of numbers and texts can always be written.
        let written = serde_json::to_string(setup).unwrap_or_default();
        let clients = setup.clients.iter().map(|client| client.name.clone()).collect();
        Self { store, setup: written.into(), clients, policy, under_way: HashMap::new(), unflushed: 0 }
    }

    fn finished(&mut self, scene: &Scene<'_>, finished: &Finished<'_>) {
        let Some(entry) = self.under_way.remove(&scene.exchange) else { return };
        let record = self.record(scene, finished, &entry);
        let part = JournalPart { trail: entry.trail, setup: self.setup.clone(), sampled: true, bodies: None };
        self.store.record(Box::new(record), Some(Box::new(part)));
        self.unflushed += 1;
        if self.unflushed >= UNFLUSHED {
            self.unflushed = 0;
            // What is not written is counted by the store, and missed by whoever reads it.
            let _ = self.store.flush_blocking();
        }
    }

    fn record(&self, scene: &Scene<'_>, finished: &Finished<'_>, entry: &Entry) -> ExchangeRecord {
        let Entry { trail, ask, .. } = entry;
        let (waits, waited) = finished.waits;
        let told_by_us = (finished.status > 0).then_some(finished.took);
        ExchangeRecord {
            id: format!("world-{}", scene.exchange),
            started: trail.arrived,
            elapsed: finished.took,
            client: self.clients.get(ask.facts.client as usize).cloned(),
            session: ask.texts.session.clone(),
            operation: ask.facts.operation,
            path: ask.texts.path.clone(),
            model: ask.model.to_string(),
            streaming: ask.facts.streaming,
            status: finished.status,
            end: finished.end,
            lane: finished.by.map(|(lane, _)| lane),
            backend: finished.by.map(|(_, backend)| scene.view.backend(backend).id.clone()),
            waits,
            waited,
            first_byte: entry.first_byte.or(told_by_us),
            policy: self.policy.clone(),
            policy_faults: entry.faults,
            attempts: finished.attempts.to_vec(),
            notes: entry.notes.clone(),
            error: finished.error.map(str::to_owned),
            denied: None,
            saved_usd: None,
        }
    }
}

impl Entry {
    fn new(now: Timestamp, ask: &Ask) -> Self {
        let texts = &ask.texts;
        let trail = Trail::new(now, ask.facts.clone(), texts.labels.clone(), texts.spending);
        let trail = Box::new(trail);
        Self { trail, ask: ask.clone(), query: None, first_byte: None, committed: false, notes: Vec::new(), faults: 0 }
    }

    fn step(&mut self, now: Timestamp, what: Happened) {
        self.trail.steps.push(Step { at: now.since(self.trail.arrived), what });
    }

    fn decided(&mut self, now: Timestamp, verdict: &Verdict) {
        let Some(query) = self.query.take() else { return };
        let Verdict { decision, notes, fault, state } = verdict.clone();
        self.faults += u32::from(fault.is_some());
        self.notes.extend(notes.iter().cloned());
        let fault = fault.map(|f| Failed { kind: f.kind.as_str().to_owned(), message: f.message });
        self.trail.asked(now, Question { query, decision, notes, fault, state, took: Duration::ZERO });
    }

    fn saw(&mut self, now: Timestamp, sight: EventKind<'_>) {
        match sight {
            EventKind::Asked(query) => self.query = Some(query.clone()),
            EventKind::Decided(verdict) => self.decided(now, verdict),
            EventKind::Sent { sending, probe, .. } => {
                let (backend, lane, join) = (sending.backend, sending.lane, sending.join);
                self.committed = false;
                self.step(now, Happened::Sent { backend, lane, probe, join });
            }
            EventKind::Committed => {
                self.committed = true;
                self.first_byte = self.first_byte.or(Some(now.since(self.trail.arrived)));
                self.step(now, Happened::Committed);
            }
            // Of a client that goes before the commit, the server has nothing to tell.
            EventKind::Ended(record) if record.outcome == Kind::ClientGone && !self.committed => {}
            EventKind::Ended(_) => self.step(now, Happened::Ended),
            EventKind::Waits { max, .. } => self.step(now, Happened::Waits { max }),
            EventKind::Waited { granted } => self.step(now, Happened::Waited { granted }),
            EventKind::Granted { .. } | EventKind::Arrived(_) | EventKind::Finished(_) => {}
        }
    }
}

impl Watcher for Chronicler {
    fn saw(&mut self, scene: &Scene<'_>, sight: EventKind<'_>) {
        match sight {
            EventKind::Arrived(ask) => {
                self.under_way.insert(scene.exchange, Entry::new(scene.now, ask));
            }
            EventKind::Finished(finished) => self.finished(scene, finished),
            sight => {
                if let Some(entry) = self.under_way.get_mut(&scene.exchange) {
                    entry.saw(scene.now, sight);
                }
            }
        }
    }
}
