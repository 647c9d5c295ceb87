//! A revision: one component, configured for one table, with its pool of instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pointsman_core::contract::{
    AttemptFacts, BackendRow, Column, Decision, NONE, OnFault, Operation, Query, RequestFacts, RowState, Rows,
};
use pointsman_core::journal::StateUse;
use pointsman_core::outcome::Kind;
use pointsman_core::table::{Lane, Table, Tier};

use super::background::yield_now;
use super::check::LoadError;
use super::clock::Measure;
use super::fault_penalty::FaultPenalty;
use super::fitting::filled_pool;
use super::limits::EngineLimits;
use super::native_fallback::NativeFallback;
use super::pool::{Pool, Source};
use super::settings::{AcceptedSettings, SettingsOffer};
use super::validate::validate;
use super::wire::TableParts;
use super::{Fault, FaultKind, Said, Texts, Verdict};
use pointsman_core::lifecycle::Hash;

/// A policy in force: compiled, checked, configured and probed.
pub struct Revision {
    source: Source,
    table: Arc<Table>,
    /// The settings offered to it, as JSON.
    offered: Arc<str>,
    accepted: AcceptedSettings,
    native_fallback: NativeFallback,
    pool: Arc<Pool>,
    penalty: FaultPenalty,
    /// Time for one decision, in ms.
    decide_ms: u32,
    /// Decisions for which it still counts as slow.
    slow_for: AtomicU32,
}

/// The ticker sees one slow decision of several, so that a policy counts as slow for this many decisions after one.
const SLOW_FOR: u32 = 64;

/// The least cost of an instance that could not be started, in ms.
const FAILED_START_MS: u32 = 5;

/// The fault of an instance that has grown too much to be asked again.
fn bloated() -> Fault {
    let message =
        "its instance grew by more than 8 MiB in one decision, so that a fresh one had to be started".to_owned();
    Fault { kind: FaultKind::Memory, message }
}

/// A question that the component did not answer.
struct Failure {
    fault: Fault,
    /// Notes that it had left before it failed.
    notes: Vec<String>,
    /// Its uses of `state` until then.
    state: Vec<StateUse>,
    /// Its running time, in ms, without the time that the machine took for others.
    cost_ms: u32,
}

impl Revision {
    pub(crate) fn new(source: Source, offer: SettingsOffer, table: Arc<Table>) -> Result<Self, LoadError> {
        let (pool, accepted) = filled_pool(&source, &offer, &table)?;
        yield_now();
        let revision = Self::with_pool(source, pool, &offer, accepted, table);
        revision.probe()?;
        Ok(revision)
    }

    fn with_pool(
        source: Source,
        pool: Arc<Pool>,
        offer: &SettingsOffer,
        accepted: AcceptedSettings,
        table: Arc<Table>,
    ) -> Self {
        Self {
            native_fallback: NativeFallback::new(offer.fallback(), &table),
            offered: offer.json().into(),
            accepted,
            table,
            pool,
            penalty: FaultPenalty::default(),
            decide_ms: source.runtime.limits.decide_ms,
            source,
            slow_for: AtomicU32::new(0),
        }
    }

    /// The same code over another table or with other settings, on fresh instances.
    ///
    /// # Errors
    /// When it does not start, refuses the settings or the table, or fails a probe.
    pub fn with_table(&self, settings: impl Into<SettingsOffer>, table: Arc<Table>) -> Result<Self, LoadError> {
        let source =
            Source { shared: self.source.runtime.shared.clone(), waits_for_start: false, ..self.source.clone() };
        Self::new(source, settings.into(), table)
    }

    /// A revision with an empty `state` of its own, in which not even the probes leave a trace. For the lab: its instances
    /// are started when they are asked, however long that takes, and only the running time of its calls counts.
    pub(crate) fn isolated(source: &Source, offer: &SettingsOffer, table: &Arc<Table>) -> Result<Self, LoadError> {
        let rehearsal = source.isolated();
        let (pool, accepted) = filled_pool(&rehearsal, offer, table)?;
        Self::with_pool(rehearsal, pool, offer, accepted.clone(), table.clone()).probe()?;
        let source = source.isolated();
        let pool = source.pool(&accepted.json, TableParts::new(table));
        Ok(Self::with_pool(source, pool, offer, accepted, table.clone()))
    }

    /// Sets `state` to the values that a recorded question found there, by key; none removes the key. For the lab.
    pub fn bring_state(&self, found: &[(String, Option<i64>)], now_ms: u64) {
        self.pool.bring_state(found, now_ms);
    }

    /// The same with its own time for one decision, in ms, at most [`EngineLimits::MAX_DECIDE_MS`], and without the right to
    /// evict other revisions' instances.
    pub(crate) fn for_shadow(self, decide_ms: u32) -> Self {
        self.pool.forbid_eviction();
        Self { decide_ms: decide_ms.clamp(1, EngineLimits::MAX_DECIDE_MS), ..self }
    }

    /// The name of a component with these bytes.
    pub fn id_of(bytes: &[u8]) -> Arc<str> {
        Hash::of(bytes).revision().into()
    }

    /// The first 12 hexadecimal digits of the component's SHA-256.
    pub fn id(&self) -> &Arc<str> {
        &self.source.code.id
    }

    /// The name in the component, where it has one.
    pub fn name(&self) -> Option<&str> {
        self.source.code.name.as_deref()
    }

    /// The settings offered to it, as JSON.
    pub fn offered(&self) -> &str {
        &self.offered
    }

    /// The settings that it took, as JSON.
    pub fn settings(&self) -> &str {
        &self.accepted.json
    }

    /// Keys that were offered and that it does not know: they belong to another policy.
    pub fn left_out(&self) -> &[String] {
        &self.accepted.left_out
    }

    /// The table it was configured with; a query's rows must be in its order.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Returns true if it takes milliseconds rather than microseconds. Threads with other work should not wait for it
    /// then.
    pub fn is_slow(&self) -> bool {
        self.slow_for.load(Ordering::Relaxed) > 0
    }

    /// Decides, in about a microsecond and never in more than [`super::EngineLimits::decide_ms`] and a millisecond or two.
    /// When the component fails, the native fallback decides and the verdict says why.
    pub fn decide(&self, query: &Query, texts: &Arc<Texts>) -> Verdict {
        self.decide_or(OnFault::AskDefault, query, texts)
    }

    /// As [`Revision::decide`]; `on_fault` says what happens when the component fails.
    pub fn decide_or(&self, on_fault: OnFault, query: &Query, texts: &Arc<Texts>) -> Verdict {
        if let Some(fault) = self.penalty.refusal(query.now_ms) {
            let failure = Failure { fault, notes: Vec::new(), state: Vec::new(), cost_ms: 0 };
            return self.fall_back(query, texts, failure, on_fault);
        }
        match self.ask(query, texts, self.source.measure()) {
            Ok(verdict) => verdict,
            Err(failure) => {
                self.penalty.record_fault(query.now_ms, failure.cost_ms, &failure.fault);
                self.fall_back(query, texts, failure, on_fault)
            }
        }
    }

    /// Asks the component without a fallback: a fault is returned, not logged. Blocks for as long as a fresh instance takes to
    /// start, where one is needed.
    pub fn ask_alone(&self, query: &Query, texts: &Arc<Texts>) -> Said {
        if let Some(fault) = self.penalty.refusal(query.now_ms) {
            return Said { decision: Err(fault), notes: Vec::new() };
        }
        match self.ask(query, texts, self.source.measure()) {
            Ok(Verdict { decision, notes, .. }) => Said { decision: Ok(decision), notes },
            Err(Failure { fault, notes, cost_ms, .. }) => {
                self.penalty.record_fault(query.now_ms, cost_ms, &fault);
                Said { decision: Err(fault), notes }
            }
        }
    }

    /// Frees the idle instances, when another revision takes over. Exchanges that stay with this one start fresh ones where
    /// they need to.
    pub fn release_instances(&self) {
        self.pool.release_idle();
    }

    /// Starts and configures one more instance, and drops it; its linear memory, in bytes.
    ///
    /// # Errors
    /// The fault it would have been in the middle of a decision.
    pub fn try_start(&self) -> Result<usize, Fault> {
        self.pool.try_start()
    }

    /// The linear memory of the largest idle instance, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.pool.largest_bytes()
    }

    #[inline]
    fn ask(&self, query: &Query, texts: &Arc<Texts>, measure: Measure) -> Result<Verdict, Failure> {
        let no_instance = |fault: Fault| {
            let is_shortage = fault.kind == FaultKind::Busy;
            let cost_ms = if is_shortage { 0 } else { self.pool.start_ms().max(FAILED_START_MS) };
            Failure { fault, notes: Vec::new(), state: Vec::new(), cost_ms }
        };
        let mut taken = self.pool.take().map_err(no_instance)?;
        let instance = taken.instance();
        let clock = self.pool.clock_for(measure);
        let answer = instance.ask(query, texts, measure, self.decide_ms);
        drop(clock);
        let (notes, state) = instance.end();
        let ran = instance.ran();
        self.record_pace(instance.was_long());
        if answer.is_err() || instance.is_bloated() {
            // A fault leaves it in an unknown state.
            if answer.is_ok() {
                self.penalty.record_fault(query.now_ms, self.pool.start_ms(), &bloated());
            }
            taken.discard();
        } else {
            drop(taken);
        }
        let valid = answer.and_then(|decision| {
            validate(decision, &self.table).map_err(|message| Fault { kind: FaultKind::Invalid, message })
        });
        match valid {
            Ok(decision) => Ok(Verdict { decision, notes, fault: None, state }),
            Err(fault) => Err(Failure { fault, notes, state, cost_ms: ran.as_micros().div_ceil(1_000) as u32 }),
        }
    }

    #[inline]
    fn record_pace(&self, was_long: bool) {
        let slow_for = self.slow_for.load(Ordering::Relaxed);
        if was_long {
            self.slow_for.store(SLOW_FOR, Ordering::Relaxed);
        } else if slow_for > 0 {
            // Concurrent decisions may count as one, which is precise enough.
            self.slow_for.store(slow_for - 1, Ordering::Relaxed);
        }
    }

    #[cold]
    fn fall_back(&self, query: &Query, texts: &Arc<Texts>, failure: Failure, on_fault: OnFault) -> Verdict {
        let Failure { fault, mut notes, state, cost_ms: _ } = failure;
        let instead = match on_fault {
            OnFault::AskDefault => "the default policy decided",
            OnFault::Refuse => "refused, as policy.on_fault says",
        };
        self.source.runtime.shared.fault_log.record(&self.source.code.id, query.now_ms, &fault, instead);
        notes.push(format!("{fault}; {instead}"));
        let decision = match on_fault {
            OnFault::AskDefault => {
                let (decision, native_notes) = self.native_fallback.decide(query, texts);
                notes.extend(native_notes);
                decision
            }
            OnFault::Refuse => Decision::Reject(OnFault::refusal(fault.kind.as_str())),
        };
        Verdict { decision, notes, fault: Some(fault), state }
    }

    /// Asks canned questions, so that a policy that fails at once is never put in force.
    fn probe(&self) -> Result<(), LoadError> {
        for (question, query) in probes(&self.table) {
            let failed = |Failure { fault, .. }| LoadError::Probe { question, fault };
            self.ask(&query, &Arc::default(), Measure::Running).map_err(failed)?;
        }
        Ok(())
    }
}

/// Questions every policy must have an answer to, with their names.
pub fn probes(table: &Table) -> [(&'static str, Query); 3] {
    let cooling = BackendRow::new(RowState::Cooling)
        .with(Column::CooldownMs, 2_000)
        .with(Column::CooldownReason, Kind::RateLimited.index())
        .with(Column::ReadyMs, 2_000);
    let query = |row: BackendRow, attempts: Vec<AttemptFacts>| Query {
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
        rows: Rows::new(vec![row.with(Column::EmergencyMs, 0); table.backends.len()], &table.columns),
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
        ("all backends ready", query(BackendRow::new(RowState::Ready), Vec::new())),
        ("all backends cooling after a 429", query(cooling, (0..table.backends.len().min(1)).map(failed).collect())),
        ("all backends drained", query(BackendRow::new(RowState::Drained), Vec::new())),
    ]
}
