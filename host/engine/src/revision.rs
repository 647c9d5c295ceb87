//! A revision: one component, configured for one table, with its pool of instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pointsman_core::contract::{
    AttemptFacts, BackendRow, Column, Decision, NONE, OnFault, Operation, Query, RequestFacts, RowState, Rows,
};
use pointsman_core::journal::StateUse;
use pointsman_core::outcome::Kind;
use pointsman_core::table::{Lane, Table, Tier};

use super::check::LoadError;
use super::deadline::Measure;
use super::engine::{Code, Engine, EngineLimits};
use super::hash::Hash;
use super::judge::judge;
use super::patience::Patience;
use super::pool::Pool;
use super::settings::{SettingsOffer, Told};
use super::twin::Twin;
use super::wire::TableParts;
use super::workshop::{Scrap, breathe};
use super::{Fault, FaultKind, Said, Texts, Verdict};

/// A policy in force: it has been compiled, checked, configured and probed.
pub struct Revision {
    engine: Engine,
    code: Arc<Code>,
    table: Arc<Table>,
    /// The settings it was offered, as JSON.
    offered: Arc<str>,
    told: Told,
    twin: Twin,
    pool: Arc<Pool>,
    patience: Patience,
    /// Time for one decision, in ms.
    decide_ms: u32,
    /// For how many decisions more it is taken to be slow.
    slow_for: AtomicU32,
}

/// The clock sees one of several: a policy that was slow once is taken to be so for this many decisions.
const SLOW_FOR: u32 = 64;

/// What an instance that could not be started is taken to have cost, in ms.
const FAILED_START_MS: u32 = 5;

/// A pool with instances that took the settings, or so many of them as are for this component.
pub(super) fn filled(
    engine: &Engine,
    code: &Arc<Code>,
    offer: &SettingsOffer,
    table: &Table,
    make: impl Fn(&str) -> Arc<Pool>,
) -> Result<(Arc<Pool>, Told), LoadError> {
    let whole = offer.whole();
    let pool = make(&whole.json);
    breathe();
    let Err(refusal) = pool.fill() else { return Ok((pool, whole)) };
    let told = offer.fit(refusal, |settings| {
        breathe();
        // In a `state` of its own: a trial leaves no trace.
        let parts = TableParts::new(table);
        Pool::patient(engine.clone(), code.clone(), Arc::default(), settings, parts).start_once()
    })?;
    let pool = make(&told.json);
    pool.fill()?;
    Ok((pool, told))
}

/// What a policy pays for with time whose instances are of no use after a decision.
fn bloated() -> Fault {
    let message =
        "its instance grew by more than 8 MiB in one decision, so that a fresh one had to be started".to_owned();
    Fault { kind: FaultKind::Memory, message }
}

/// The component did not decide.
struct Failure {
    fault: Fault,
    /// What it noted before.
    notes: Vec<String>,
    /// What it did with `state` before.
    state: Vec<StateUse>,
    /// How long it ran, in ms, without the time that the machine took for others.
    cost_ms: u32,
}

impl Revision {
    pub(super) fn new(
        engine: Engine,
        code: Arc<Code>,
        offer: SettingsOffer,
        table: Arc<Table>,
    ) -> Result<Self, LoadError> {
        let shared = engine.0.shared.clone();
        let make =
            |settings: &str| Pool::new(engine.clone(), code.clone(), shared.clone(), settings, TableParts::new(&table));
        let (pool, told) = filled(&engine, &code, &offer, &table, make)?;
        breathe();
        let revision = Self::over(engine, code, pool, &offer, told, table);
        revision.probe()?;
        Ok(revision)
    }

    fn over(
        engine: Engine,
        code: Arc<Code>,
        pool: Arc<Pool>,
        offer: &SettingsOffer,
        told: Told,
        table: Arc<Table>,
    ) -> Self {
        Self {
            code,
            twin: Twin::new(offer.fallback(), &table),
            offered: offer.json().into(),
            told,
            table,
            pool,
            patience: Patience::default(),
            decide_ms: engine.0.limits.decide_ms,
            engine,
            slow_for: AtomicU32::new(0),
        }
    }

    /// The same code over another table or with other settings, on fresh instances.
    pub fn with_table(&self, settings: impl Into<SettingsOffer>, table: Arc<Table>) -> Result<Self, LoadError> {
        Self::new(self.engine.clone(), self.code.clone(), settings.into(), table)
    }

    /// A revision with an empty `state` of its own that nobody else sees; not even the probes leave a trace in it. For
    /// the lab: its instances are started when they are asked, however long that takes.
    pub(super) fn isolated(
        engine: Engine,
        code: Arc<Code>,
        offer: SettingsOffer,
        table: Arc<Table>,
    ) -> Result<Self, LoadError> {
        let make = |settings: &str| {
            let (engine, code, parts) = (engine.clone(), code.clone(), TableParts::new(&table));
            Pool::patient(engine, code, Arc::default(), settings, parts)
        };
        let over = |pool, told| Self::over(engine.clone(), code.clone(), pool, &offer, told, table.clone());
        let (rehearsal, told) = filled(&engine, &code, &offer, &table, make)?;
        let pool = make(&told.json);
        over(rehearsal, told.clone()).probe()?;
        Ok(over(pool, told))
    }

    /// Brings `state` to what a recorded question found there, by key; none: nothing. For the lab.
    pub fn bring_state(&self, found: &[(String, Option<i64>)], now_ms: u64) {
        self.pool.bring_state(found, now_ms);
    }

    /// The same as a shadow: with a time of its own for one decision, in ms, at most [`EngineLimits::MAX_DECIDE_MS`], and
    /// without instances that others would have to give up for it.
    pub(super) fn for_shadow(self, decide_ms: u32) -> Self {
        self.pool.no_eviction();
        Self { decide_ms: decide_ms.clamp(1, EngineLimits::MAX_DECIDE_MS), ..self }
    }

    /// The name that a component of these bytes has.
    pub fn id_of(bytes: &[u8]) -> Arc<str> {
        Hash::of(bytes).revision().into()
    }

    /// The first 12 hexadecimal digits of the component's SHA-256.
    pub fn id(&self) -> &Arc<str> {
        &self.code.id
    }

    /// What it calls itself.
    pub fn name(&self) -> Option<&str> {
        self.code.name.as_deref()
    }

    /// The settings that it was offered, as JSON.
    pub fn offered(&self) -> &str {
        &self.offered
    }

    /// Those that it was told.
    pub fn settings(&self) -> &str {
        &self.told.json
    }

    /// Keys that it was offered and does not know: they belong to another policy.
    pub fn left_out(&self) -> &[String] {
        &self.told.left_out
    }

    /// The table it was configured with; a query's rows must be in its order.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Does it take milliseconds rather than microseconds? Then threads that have other work should not wait for it.
    pub fn is_slow(&self) -> bool {
        self.slow_for.load(Ordering::Relaxed) > 0
    }

    /// Decides, in about a microsecond and never in more than [`super::EngineLimits::decide_ms`] and a millisecond or two.
    /// When the component fails, the native twin of the default policy decides and the verdict says why.
    pub fn decide(&self, query: &Query, texts: &Arc<Texts>) -> Verdict {
        self.decide_or(OnFault::AskDefault, query, texts)
    }

    /// The same; when the component fails, it is as the operator wants it then.
    pub fn decide_or(&self, on_fault: OnFault, query: &Query, texts: &Arc<Texts>) -> Verdict {
        if let Some(fault) = self.patience.refusal(query.now_ms) {
            let failure = Failure { fault, notes: Vec::new(), state: Vec::new(), cost_ms: 0 };
            return self.do_without(query, texts, failure, on_fault);
        }
        match self.ask(query, texts, Measure::Wall) {
            Ok(verdict) => verdict,
            Err(failure) => {
                self.patience.went_wrong(query.now_ms, failure.cost_ms, &failure.fault);
                self.do_without(query, texts, failure, on_fault)
            }
        }
    }

    /// What the component says for itself: nobody decides in its place, and its faults are nobody's but the asker's. Blocks for
    /// as long as a fresh instance takes to start, where one is needed.
    pub fn ask_alone(&self, query: &Query, texts: &Arc<Texts>) -> Said {
        if let Some(fault) = self.patience.refusal(query.now_ms) {
            return Said { decision: Err(fault), notes: Vec::new() };
        }
        // Its thread gives way to all others, where the wall says nothing of it.
        match self.ask(query, texts, Measure::Running) {
            Ok(Verdict { decision, notes, .. }) => Said { decision: Ok(decision), notes },
            Err(Failure { fault, notes, cost_ms, .. }) => {
                self.patience.went_wrong(query.now_ms, cost_ms, &fault);
                Said { decision: Err(fault), notes }
            }
        }
    }

    /// Frees the instances that are not being asked, when another revision takes over. Exchanges that stay with this one
    /// start them again where they need to.
    pub fn release_instances(&self) {
        self.engine.0.workshop.take_apart(self.pool.give_up_idle().map(Scrap::Instance));
    }

    /// Starts and configures one more instance, and lets it go; the linear memory it had, in bytes.
    ///
    /// # Errors
    /// The fault it would have been in the middle of a decision.
    pub fn try_start(&self) -> Result<usize, Fault> {
        self.pool.try_start()
    }

    /// The linear memory of the largest instance kept, in bytes; those that are being asked are left out.
    pub fn memory_bytes(&self) -> usize {
        self.pool.largest_bytes()
    }

    /// What the component says.
    #[inline]
    fn ask(&self, query: &Query, texts: &Arc<Texts>, measure: Measure) -> Result<Verdict, Failure> {
        let no_instance = |fault: Fault| {
            let is_shortage = fault.kind == FaultKind::Busy;
            let cost_ms = if is_shortage { 0 } else { self.pool.start_ms().max(FAILED_START_MS) };
            Failure { fault, notes: Vec::new(), state: Vec::new(), cost_ms }
        };
        let mut taken = self.pool.take().map_err(no_instance)?;
        let instance = taken.instance();
        self.engine.0.ticker.touch();
        let answer = instance.ask(query, texts, measure, self.decide_ms);
        let (notes, state) = instance.end();
        let ran = instance.ran();
        self.remember_pace(instance.was_long());
        if answer.is_err() || instance.is_bloated() {
            // A fault leaves it in an unknown state.
            if answer.is_ok() {
                self.patience.went_wrong(query.now_ms, self.pool.start_ms(), &bloated());
            }
            taken.spend();
        } else {
            drop(taken);
        }
        let judged = answer.and_then(|decision| {
            judge(decision, &self.table).map_err(|message| Fault { kind: FaultKind::Invalid, message })
        });
        match judged {
            Ok(decision) => Ok(Verdict { decision, notes, fault: None, state }),
            Err(fault) => Err(Failure { fault, notes, state, cost_ms: ran.as_micros().div_ceil(1_000) as u32 }),
        }
    }

    #[inline]
    fn remember_pace(&self, was_long: bool) {
        let slow_for = self.slow_for.load(Ordering::Relaxed);
        if was_long {
            self.slow_for.store(SLOW_FOR, Ordering::Relaxed);
        } else if slow_for > 0 {
            // Decisions at the same time may count as one: it is a matter of pace.
            self.slow_for.store(slow_for - 1, Ordering::Relaxed);
        }
    }

    #[cold]
    fn do_without(&self, query: &Query, texts: &Arc<Texts>, failure: Failure, on_fault: OnFault) -> Verdict {
        let Failure { fault, mut notes, state, cost_ms: _ } = failure;
        let instead = match on_fault {
            OnFault::AskDefault => "the default policy decided",
            OnFault::Refuse => "refused, as policy.on_fault says",
        };
        self.engine.0.shared.fault_log.tell(&self.code.id, query.now_ms, &fault, instead);
        notes.push(format!("{fault}; {instead}"));
        let decision = match on_fault {
            OnFault::AskDefault => {
                let (decision, twin_notes) = self.twin.decide(query, texts);
                notes.extend(twin_notes);
                decision
            }
            OnFault::Refuse => Decision::Reject(OnFault::refusal(fault.kind.as_str())),
        };
        Verdict { decision, notes, fault: Some(fault), state }
    }

    /// Asks canned questions.
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
