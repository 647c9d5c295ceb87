//! A revision: one component, configured for one table, with its pool of instances.

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use pointsman_core::contract::{AttemptFacts, Column, NONE, Operation, Query, RequestFacts, RowState, STRIDE};
use pointsman_core::outcome::Kind;
use pointsman_core::table::{Lane, Table, Tier};

use super::check::LoadError;
use super::engine::{Code, Engine, ticks};
use super::guest::{Guest, Shared};
use super::instance::Instance;
use super::judge::judge;
use super::twin::Twin;
use super::wire::TableParts;
use super::{Fault, FaultKind, Texts, Verdict};

/// Instances kept; more threads than this do not decide at the same time.
const MAX_KEPT: usize = 32;

/// A policy in force: it has been compiled, checked, configured and probed.
pub struct Revision {
    engine: Engine,
    code: Arc<Code>,
    /// The state that its instances see.
    shared: Arc<Shared>,
    settings: String,
    table: Arc<Table>,
    parts: TableParts,
    twin: Twin,
    slots: [Slot; MAX_KEPT],
}

/// A place for an instance, locked while it is asked. The first free one is taken: its instance was used not long ago and
/// has its memory still in the processor's cache.
type Slot = Mutex<Option<Instance>>;

impl Revision {
    pub(super) fn new(engine: Engine, code: Arc<Code>, settings: &str, table: Arc<Table>) -> Result<Self, LoadError> {
        let shared = engine.0.shared.clone();
        Self::with_state(engine, code, shared, settings, table)
    }

    fn with_state(
        engine: Engine,
        code: Arc<Code>,
        shared: Arc<Shared>,
        settings: &str,
        table: Arc<Table>,
    ) -> Result<Self, LoadError> {
        let mut revision = Self {
            engine,
            code,
            shared,
            settings: settings.to_owned(),
            parts: TableParts::new(&table),
            twin: Twin::new(settings, &table),
            table,
            slots: std::array::from_fn(|_| Slot::default()),
        };
        revision.probe()?;
        Ok(revision)
    }

    /// The same code over another table or with other settings, on fresh instances.
    pub fn with_table(&self, settings: &str, table: Arc<Table>) -> Result<Self, LoadError> {
        Self::new(self.engine.clone(), self.code.clone(), settings, table)
    }

    /// The same, with an empty `state` of its own that nobody else sees; not even the probes leave a trace in it.
    pub fn isolated(&self, settings: &str, table: Arc<Table>) -> Result<Self, LoadError> {
        let probed = Self::with_state(self.engine.clone(), self.code.clone(), Arc::default(), settings, table)?;
        Ok(Self { shared: Arc::default(), slots: std::array::from_fn(|_| Slot::default()), ..probed })
    }

    /// The name that a component of these bytes has.
    pub fn id_of(bytes: &[u8]) -> Arc<str> {
        super::engine::revision_id(bytes)
    }

    /// The first 12 hexadecimal digits of the component's SHA-256.
    pub fn id(&self) -> &Arc<str> {
        &self.code.id
    }

    /// The table it was configured with; a query's rows must be in its order.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Decides, in about a microsecond and never in more than [`super::EngineLimits::decide_ms`] and a tick or two. When
    /// the component fails, the native twin of the default policy decides and the verdict says why.
    pub fn decide(&self, query: &Query, texts: &Arc<Texts>) -> Verdict {
        match self.ask(query, texts) {
            Ok(verdict) => verdict,
            Err((fault, notes)) => self.ask_twin(query, texts, fault, notes),
        }
    }

    /// Starts and configures one more instance, and lets it go; the linear memory it had, in bytes.
    ///
    /// # Errors
    /// The fault it would have been in the middle of a decision.
    pub fn try_start(&self) -> Result<usize, Fault> {
        self.start_instance().map(|instance| instance.memory_bytes()).map_err(StartError::into_fault)
    }

    /// The linear memory of the largest instance kept, in bytes; those that are being asked are left out.
    pub fn memory_bytes(&self) -> usize {
        let of = |slot: &Slot| take(slot).and_then(|place| place.as_ref().map(Instance::memory_bytes));
        self.slots.iter().filter_map(of).max().unwrap_or(0)
    }

    /// What the component says; with a fault, what it noted before.
    #[inline]
    fn ask(&self, query: &Query, texts: &Arc<Texts>) -> Result<Verdict, (Fault, Vec<String>)> {
        let mut slot = self.slots.iter().find_map(take);
        let mut spare = None;
        let place = slot.as_deref_mut().unwrap_or(&mut spare);
        let instance = match place {
            Some(instance) => instance,
            None => place.insert(self.start_instance().map_err(|e| (e.into_fault(), Vec::new()))?),
        };
        self.engine.0.ticker.touch();
        let answer = instance.ask(query, texts, ticks(self.engine.0.limits.decide_ms));
        let notes = instance.end();
        let decision = match answer {
            Ok(decision) => decision,
            Err(fault) => {
                // It leaves the instance in an unknown state.
                *place = None;
                return Err((fault, notes));
            }
        };
        drop(slot);
        match judge(decision, &self.table) {
            Ok(decision) => Ok(Verdict { decision, notes, fault: None }),
            Err(message) => Err((Fault { kind: FaultKind::Invalid, message }, notes)),
        }
    }

    #[cold]
    fn ask_twin(&self, query: &Query, texts: &Arc<Texts>, fault: Fault, mut notes: Vec<String>) -> Verdict {
        let (decision, twin_notes) = self.twin.decide(query, texts);
        notes.extend(twin_notes);
        Verdict { decision, notes, fault: Some(fault) }
    }

    #[cold]
    fn start_instance(&self) -> Result<Instance, StartError> {
        let engine = &self.engine.0;
        let _clock = engine.ticker.hold();
        let ticks = ticks(engine.limits.configure_ms);
        let guest = Guest::new(self.shared.clone(), self.code.id.clone(), engine.limits.memory_bytes);
        let mut instance = Instance::start(&self.code.pre, guest, ticks).map_err(StartError::Fault)?;
        match instance.configure(&self.settings, &self.parts, ticks) {
            Ok(Ok(())) => Ok(instance),
            Ok(Err(refusal)) => Err(StartError::Refused(refusal)),
            Err(fault) => Err(StartError::Fault(fault)),
        }
    }

    /// Asks canned questions on a fresh instance.
    fn probe(&mut self) -> Result<(), LoadError> {
        let instance = self.start_instance().map_err(|e| match e {
            StartError::Refused(refusal) => LoadError::Refused(refusal),
            StartError::Fault(fault) => LoadError::Configure(fault),
        })?;
        self.slots[0] = Mutex::new(Some(instance));
        for (question, query) in probes(&self.table) {
            self.ask(&query, &Arc::default()).map_err(|(fault, _)| LoadError::Probe { question, fault })?;
        }
        Ok(())
    }
}

/// Takes a slot that is free. What a panic left in one is dropped.
#[inline]
fn take(slot: &Slot) -> Option<MutexGuard<'_, Option<Instance>>> {
    match slot.try_lock() {
        Ok(place) => Some(place),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Poisoned(poisoned)) => {
            slot.clear_poison();
            let mut place = poisoned.into_inner();
            *place = None;
            Some(place)
        }
    }
}

/// Why there is no instance.
enum StartError {
    Refused(String),
    Fault(Fault),
}

impl StartError {
    fn into_fault(self) -> Fault {
        match self {
            StartError::Fault(fault) => fault,
            StartError::Refused(refusal) => Fault {
                kind: FaultKind::Invalid,
                message: format!("a fresh instance refused the configuration that another accepted: {refusal}"),
            },
        }
    }
}

/// Questions every policy must have an answer to, with their names.
pub fn probes(table: &Table) -> [(&'static str, Query); 3] {
    let row = |state: RowState, ready_ms: u32| {
        let mut row = [0; STRIDE];
        row[Column::State as usize] = state as u32;
        row[Column::ReadyMs as usize] = ready_ms;
        for unlimited in [Column::RequestsLeft, Column::TokensLeft, Column::ConcurrencyLeft] {
            row[unlimited as usize] = NONE;
        }
        if state == RowState::Cooling {
            row[Column::CooldownMs as usize] = ready_ms;
            row[Column::CooldownReason as usize] = Kind::RateLimited.index();
        }
        row
    };
    let query = |row: [u32; STRIDE], attempts: Vec<AttemptFacts>| Query {
        now_ms: 1_767_225_600_000,
        seed: 0x1234_5678_9ABC_DEF0,
        request: RequestFacts {
            model: if table.models.is_empty() { NONE } else { 0 },
            operation: Operation::Chat,
            client: NONE,
            streaming: true,
            priority: 0,
            prompt_tokens: 1_000,
            max_tokens: 0,
            session: 0,
            elapsed_ms: 0,
            remaining_ms: 600_000,
        },
        attempts,
        waits: 0,
        waited_ms: 0,
        rows: row.repeat(table.backends.len()),
    };
    let failed = |index: usize| AttemptFacts {
        backend: index as u32,
        lane: match table.backends[index].tier {
            Tier::Primary => Lane::Primary,
            Tier::Fallback => Lane::Fallback,
        },
        outcome: Kind::RateLimited,
        status: 429,
        elapsed_ms: 120,
        waits_before: 0,
    };
    [
        ("all backends ready", query(row(RowState::Ready, 0), Vec::new())),
        (
            "all backends cooling after a 429",
            query(row(RowState::Cooling, 2_000), (0..table.backends.len().min(1)).map(failed).collect()),
        ),
        ("all backends drained", query(row(RowState::Drained, NONE), Vec::new())),
    ]
}
