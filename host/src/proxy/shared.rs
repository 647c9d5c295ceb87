//! State shared by all exchanges: the fleet, the snapshot in force, the limits of clients, the record.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use pointsman_core::contract::{NONE, Operation};
use pointsman_core::denial::{Denial, DenialGate, Recorded};
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::text::{MAX_NAME_BYTES, beginning};
use pointsman_core::time::Timestamp;
use pointsman_engine::Verdict;
use pointsman_engine::clock::Clock;
use pointsman_store::{JournalPart, StoreHandle, StoreReader};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::affinity::SharedAffinity;
use super::background::SharedBackground;
use super::client_gates::ClientGates;
use super::memory::SharedMemory;
use super::recently_exhausted::ExhaustedRequests;
use super::shadow::Shadow;
use super::shared_fleet::SharedFleet;
use super::snapshot::Snapshot;
use crate::telemetry::events::Events;
use crate::telemetry::logs::ExchangeLog;
use crate::telemetry::metrics::Metrics;

/// Memory for requests of a proxy that is not told how much there is, bytes.
const DEFAULT_MEMORY: u64 = 1 << 30;

/// Everything exchanges share for as long as the process lives.
pub struct Proxy {
    /// Clock of the server, the one that logic sees.
    pub clock: Clock,
    /// The fleet, with its queue.
    pub fleet: Arc<SharedFleet>,
    /// Metrics of the server.
    pub metrics: Metrics,
    /// Writing side of the store.
    pub store: StoreHandle,
    /// Events that watchers are sent.
    pub events: Events,
    /// Ends every exchange under way, with a word to its client; for when the drain is over.
    pub cut: CancellationToken,
    /// Told when a policy has failed so often that it is given up.
    pub breaker_tripped: Notify,
    /// Told when there is a verdict over a promotion.
    pub promotion_judged: Notify,
    /// The policy that is asked beside the one in force.
    pub shadow: Shadow,
    /// Backends of sessions and stored things.
    pub affinity: SharedAffinity,
    /// Responses that were begun in the background.
    pub background: SharedBackground,
    /// Budget of memory for all requests.
    pub memory: Arc<SharedMemory>,
    /// The disk for large requests that wait for memory.
    pub disk: Arc<SharedMemory>,
    log: ExchangeLog,
    snapshot: ArcSwap<Snapshot>,
    denials: Mutex<DenialGate>,
    /// Limits and budgets of the clients.
    pub gates: Arc<ClientGates>,
    /// Requests that were just found exhausted.
    pub exhausted: ExhaustedRequests,
    exchanges: Exchanges,
}

/// Exchanges under way, for the drain at shutdown.
#[derive(Default)]
struct Exchanges {
    under_way: AtomicUsize,
    closing: AtomicBool,
    all_over: Notify,
}

impl Proxy {
    /// A proxy with its first snapshot.
    pub fn new(
        clock: Clock,
        fleet: Arc<SharedFleet>,
        metrics: Metrics,
        log: ExchangeLog,
        store: StoreHandle,
        spent: StoreReader,
        snapshot: Snapshot,
    ) -> Self {
        let gates = ClientGates::new(&snapshot.config, clock, spent);
        Self {
            clock,
            fleet,
            store,
            events: Events::default(),
            cut: CancellationToken::new(),
            breaker_tripped: Notify::new(),
            promotion_judged: Notify::new(),
            shadow: Shadow::new(metrics.clone()),
            affinity: SharedAffinity::default(),
            background: SharedBackground::default(),
            memory: SharedMemory::new(clock, DEFAULT_MEMORY),
            disk: SharedMemory::new(clock, snapshot.config.server.spill.as_ref().map_or(0, |spill| spill.bytes)),
            metrics,
            log,
            snapshot: ArcSwap::from_pointee(snapshot),
            gates,
            denials: Mutex::default(),
            exhausted: ExhaustedRequests::default(),
            exchanges: Exchanges::default(),
        }
    }

    /// The same with what the last process knew of where things live.
    pub fn with_affinity(self, affinity: SharedAffinity) -> Self {
        Self { affinity, ..self }
    }

    /// The same with this memory for requests, bytes, where the configuration says nothing of it.
    pub fn with_memory(self, default_bytes: u64) -> Self {
        let memory = SharedMemory::new(self.clock, default_bytes);
        memory.set_total(self.snapshot().config.server.memory_budget);
        Self { memory, ..self }
    }

    /// Returns the snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts another snapshot into force; exchanges under way keep theirs.
    pub fn publish(&self, snapshot: Snapshot) {
        self.gates.configure(&snapshot.config);
        self.memory.set_total(snapshot.config.server.memory_budget);
        self.disk.set_total(Some(snapshot.config.server.spill.as_ref().map_or(0, |spill| spill.bytes)));
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Counts what the policy decided.
    pub fn decided(&self, verdict: &Verdict, took: Duration) {
        self.metrics.decided(&verdict.decision, took);
        if let Some(fault) = &verdict.fault {
            self.metrics.policy_fault(fault.kind.as_str());
        }
    }

    /// Identifies the client. With client keys configured, the bearer token, `x-api-key`, `api-key` or `x-goog-api-key`
    /// must be one of them.
    pub fn identify(&self, snapshot: &Snapshot, headers: &HeaderMap) -> Result<Option<(u32, Arc<str>)>, Unknown> {
        if snapshot.config.clients.is_empty() {
            return Ok(None);
        }
        let mut presented = presented_keys(headers).peekable();
        presented.peek().ok_or(Unknown::Missing)?;
        // Some clients send a key of their own beside ours.
        let index = presented.find_map(|key| snapshot.config.client_of(key)).ok_or(Unknown::Wrong)?;
        Ok(Some((u32::try_from(index).unwrap_or(NONE), snapshot.config.clients[index].name.clone())))
    }

    /// Counts an exchange that begins.
    pub fn began(&self) {
        self.exchanges.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// An exchange is over; where a promotion is under way, it counts for its side.
    pub fn compared(&self, snapshot: &Snapshot, record: &ExchangeRecord) {
        let Some(split) = &snapshot.split else { return };
        if split.ended(self.clock.now(), snapshot.side, record) {
            self.promotion_judged.notify_one();
        }
    }

    /// An exchange is over: counted, written, told.
    pub fn finished(&self, record: ExchangeRecord, journal: Option<Box<JournalPart>>) {
        self.remember(record, journal);
        if self.exchanges.under_way.fetch_sub(1, Ordering::AcqRel) == 1 && self.is_closing() {
            self.exchanges.all_over.notify_waiters();
        }
    }

    /// A request is refused at the door: counted, and recorded as far as refusals are.
    pub fn denied(&self, denied: Denied<'_>) {
        let now = self.clock.now();
        let Denied { id, arrived, reason, client, operation, path, model, streaming, status, error } = denied;
        let record = ExchangeRecord {
            id: id.to_owned(),
            started: arrived,
            elapsed: now.since(arrived),
            client,
            session: None,
            operation,
            path: beginning(path, MAX_NAME_BYTES).to_owned(),
            model: beginning(model, MAX_NAME_BYTES).to_owned(),
            streaming,
            status,
            end: End::Denied,
            lane: None,
            backend: None,
            waits: 0,
            waited: Duration::ZERO,
            first_byte: None,
            policy: self.snapshot.load().policy.id().clone(),
            policy_faults: 0,
            attempts: Vec::new(),
            notes: Vec::new(),
            error: Some(error.to_owned()),
            denied: Some(reason),
            saved_usd: None,
        };
        self.remember(record, None);
    }

    /// Counts, tells and writes. Of refusals at the door no more than a bounded number a second is told and written.
    fn remember(&self, mut record: ExchangeRecord, journal: Option<Box<JournalPart>>) {
        record.cut_texts();
        self.metrics.observe(&record);
        if record.denied.is_some() && !self.is_recorded(&record) {
            return;
        }
        self.events.exchange(&record);
        if self.snapshot.load().config.log.exchanges {
            self.log.exchange_line(&record);
        }
        self.store.record(Box::new(record), journal);
    }

    fn is_recorded(&self, denied: &ExchangeRecord) -> bool {
        let now = self.clock.now();
        let recorded = {
            let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
            denials.admit(now, denied.client.as_ref())
        };
        match recorded {
            Recorded::Yes => true,
            Recorded::No { tell } => {
                self.metrics.denied_unrecorded();
                if let Some(unrecorded) = tell {
                    tracing::warn!(
                        unrecorded,
                        reason = denied.denied.map(Denial::as_str),
                        client = denied.client.as_deref(),
                        "requests are refused at the door faster than refusals are recorded; the rest is only counted \
                         (pointsman_denied_total, pointsman_denied_unrecorded_total)"
                    );
                }
                false
            }
        }
    }

    /// Returns the number of exchanges under way.
    pub fn under_way(&self) -> usize {
        self.exchanges.under_way.load(Ordering::Acquire)
    }

    /// Returns true during a shutdown. New requests are then refused.
    pub fn is_closing(&self) -> bool {
        self.exchanges.closing.load(Ordering::Acquire)
    }

    /// From now on new requests are refused.
    pub fn close(&self) {
        self.exchanges.closing.store(true, Ordering::Release);
    }

    /// Waits until no exchange is under way.
    pub async fn drained(&self) {
        loop {
            let over = self.exchanges.all_over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if self.under_way() == 0 {
                return;
            }
            over.await;
        }
    }
}

/// A client key that does not open anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The request has no key.
    Missing,
    /// It is none of the configured ones.
    Wrong,
}

/// A request that is refused at the door.
pub struct Denied<'a> {
    /// Request id of the refused request.
    pub id: &'a str,
    /// Time of its arrival.
    pub arrived: Timestamp,
    /// The reason of the refusal.
    pub reason: Denial,
    /// The client key's name; none: no key was recognised, or none is configured.
    pub client: Option<Arc<str>>,
    /// Operation of the request.
    pub operation: Operation,
    /// The path without its query.
    pub path: &'a str,
    /// The model as asked; "unknown" where the body was not read.
    pub model: &'a str,
    /// The client asked for a stream.
    pub streaming: bool,
    /// The status it is told.
    pub status: u16,
    /// The message it is told.
    pub error: &'a str,
}

/// The keys that a request brings: a bearer token, and those of the headers of Anthropic, Azure and Google.
fn presented_keys(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let bearer = || {
        let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    let header = |name: &&str| headers.get(*name)?.to_str().ok().map(str::trim);
    bearer().into_iter().chain(["x-api-key", "api-key", "x-goog-api-key"].iter().filter_map(header))
}
