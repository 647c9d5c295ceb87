//! The instances of one revision: kept warm between questions, started when one is missing, given up when others need the
//! room.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use pointsman_core::journal::StateUse;

use super::background::Garbage;
use super::check::{self, LoadError};
use super::clock::Measure;
use super::code::Code;
use super::guest::{Guest, Shared};
use super::instance::{Instance, NotStarted};
use super::runtime::Runtime;
use super::slots::{Found, Slots, Taken};
use super::ticker::Hold;
use super::wire::TableParts;
use super::{Fault, FaultKind, LOG_TARGET};

/// An instance may be started while an exchange waits for it if that takes no longer than this, in ms.
const QUICK_START_MS: u32 = 20;

/// But not longer than this, in ms: other instances of the component were quick.
const MAX_QUICK_START_MS: u32 = 60;

/// Instances started ahead when starting one takes long; with fewer processors there are fewer threads to serve.
const STARTED_AHEAD: usize = 4;

/// After a failed start nothing is started for so many times the time it took: a twentieth of a thread at most.
const PAUSE_PER_FAILED_START: u32 = 20;

/// Starts of the messages of faults that came before the question.
const AT_START: [&str; 3] = [
    "at the start of a fresh instance",
    "in `configure` of a fresh instance",
    "a fresh instance refused the configuration that another accepted",
];

/// Returns true if an instance failed to start, so that the fault is not the question's.
pub(crate) fn is_at_start(message: &str) -> bool {
    AT_START.iter().any(|beginning| message.starts_with(beginning))
}

/// Room made for an instance may be taken by another exchange before it is used; so often it is made again.
const MAX_TRIES: usize = 8;

/// Parts that a pool makes instances of.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) code: Arc<Code>,
    /// The `state` that the instances see, and where their faults are logged.
    pub(crate) shared: Arc<Shared>,
    /// True if callers wait for an instance however long it takes to start.
    pub(crate) waits_for_start: bool,
}

/// Instances of a revision: idle ones, and how many there may be.
pub(crate) struct Pool {
    source: Source,
    settings: String,
    parts: TableParts,
    /// True while other pools keep their idle instances when this one finds no room.
    no_eviction: AtomicBool,
    slots: Arc<Slots>,
    /// The running time of the last start, in ms.
    start_ms: AtomicU32,
    is_starting: AtomicBool,
    /// The last failed start in the background; none after a good one.
    failed_start: Mutex<Option<FailedStart>>,
}

struct FailedStart {
    fault: Fault,
    /// By [`Measure::Wall`].
    again_at: Duration,
}

impl Source {
    /// The same code with an empty `state` of its own, waiting for slow starts.
    pub(crate) fn isolated(&self) -> Self {
        Self { shared: Arc::default(), waits_for_start: true, ..self.clone() }
    }

    /// The measure of its calls' time. Where callers wait, how busy the machine is does not decide.
    pub(crate) const fn measure(&self) -> Measure {
        if self.waits_for_start { Measure::Running } else { Measure::Wall }
    }

    /// A pool without instances yet.
    pub(crate) fn pool(&self, settings: &str, parts: TableParts) -> Arc<Pool> {
        let pool = Arc::new(Pool {
            source: self.clone(),
            settings: settings.to_owned(),
            parts,
            no_eviction: AtomicBool::new(false),
            slots: Arc::default(),
            start_ms: AtomicU32::new(0),
            is_starting: AtomicBool::new(false),
            failed_start: Mutex::default(),
        });
        self.runtime.idle.register(&pool.slots);
        pool
    }
}

impl Pool {
    /// Sets the shared `state` to the values found there, by key; none removes the key.
    pub(crate) fn bring_state(&self, found: &[(String, Option<i64>)], now_ms: u64) {
        for (key, found) in found {
            self.source.shared.state.learn(&StateUse::Get { key: key.clone(), found: *found }, now_ms);
        }
    }

    /// From now on no other pool gives up an instance for this one.
    pub(crate) fn forbid_eviction(&self) {
        self.no_eviction.store(true, Ordering::Relaxed);
    }

    /// Starts an instance, or several when that takes long. Afterwards the component is known to start. Blocks for as long
    /// as that takes.
    pub(crate) fn fill(&self) -> Result<(), LoadError> {
        self.slots.keep(self.start_slowly()?);
        if self.starts_quickly() {
            return Ok(());
        }
        let threads = thread::available_parallelism().map_or(1, usize::from);
        (1..threads.min(STARTED_AHEAD)).try_for_each(|_| self.start_slowly().map(|instance| self.slots.keep(instance)))
    }

    /// Starts an instance and drops it.
    pub(crate) fn start_once(&self) -> Result<(), LoadError> {
        self.start_slowly().map(drop)
    }

    /// A free instance, or a fresh one. An exchange never waits for one that takes long to start.
    #[inline]
    pub(crate) fn take(self: &Arc<Self>) -> Result<Taken<'_>, Fault> {
        let empty = match self.slots.take() {
            Found::Instance(taken) => return Ok(taken),
            Found::None(empty) => empty,
        };
        if !self.starts_quickly() {
            drop(empty);
            return Err(self.start_in_background());
        }
        let limit_ms = if self.source.waits_for_start { self.configure_ms() } else { MAX_QUICK_START_MS };
        let instance = self.start(self.source.measure(), limit_ms).map_err(StartError::into_fault)?;
        Ok(match empty {
            Some(place) => place.fill(instance),
            None => Taken::Fresh(instance),
        })
    }

    /// Frees all instances that are not in use, in the background.
    pub(crate) fn release_idle(&self) {
        self.source.runtime.background.defer_drop(self.slots.drain_idle().map(Garbage::Instance));
    }

    /// Starts and configures one more instance, and drops it; its linear memory, in bytes.
    pub(crate) fn try_start(&self) -> Result<usize, Fault> {
        self.fresh(Measure::Wall).map(|instance| instance.memory_bytes())
    }

    /// An instance that is none of the pool's.
    pub(crate) fn fresh(&self, measure: Measure) -> Result<Instance, Fault> {
        self.start(measure, self.configure_ms()).map_err(StartError::into_fault)
    }

    /// The linear memory of the largest instance that is not in use, in bytes.
    pub(crate) fn largest_bytes(&self) -> usize {
        self.slots.largest_bytes()
    }

    fn configure_ms(&self) -> u32 {
        self.source.runtime.limits.configure_ms
    }

    fn starts_quickly(&self) -> bool {
        self.source.waits_for_start || self.start_ms() <= QUICK_START_MS
    }

    /// Starts an instance for later exchanges; the fault for the present one.
    #[cold]
    fn start_in_background(self: &Arc<Self>) -> Fault {
        if let Some(failed) = self.failure().as_ref().filter(|failed| Measure::Wall.now() < failed.again_at) {
            return failed.fault.clone();
        }
        let start_ms = self.start_ms();
        if !self.is_starting.swap(true, Ordering::SeqCst) {
            let pool = self.clone();
            let work = move || {
                pool.start_ahead();
                pool.is_starting.store(false, Ordering::SeqCst);
            };
            if thread::Builder::new().name("policy-starter".to_owned()).spawn(work).is_err() {
                self.is_starting.store(false, Ordering::SeqCst);
            }
        }
        let message = format!("no instance is free, and to start one takes {start_ms} ms; it is done aside");
        Fault { kind: FaultKind::Busy, message }
    }

    fn start_ahead(&self) {
        let begun = Measure::Wall.now();
        match self.start(Measure::Wall, self.configure_ms()) {
            Ok(instance) => {
                *self.failure() = None;
                self.slots.keep(instance);
            }
            Err(error) => {
                let fault = error.into_fault();
                let now = Measure::Wall.now();
                let again_at = now + now.saturating_sub(begun) * PAUSE_PER_FAILED_START;
                *self.failure() = Some(FailedStart { fault: fault.clone(), again_at });
                tracing::warn!(target: LOG_TARGET, policy = %self.source.code.id, error = fault.message, "an instance of the policy could not be started");
            }
        }
    }

    fn start_slowly(&self) -> Result<Instance, LoadError> {
        self.start(Measure::Running, self.configure_ms()).map_err(|error| match error {
            StartError::Refused(refusal) => LoadError::Refused(check::sentence(&refusal)),
            StartError::Start(fault) => LoadError::Start(fault),
            StartError::Configure(fault) => LoadError::Configure(fault),
        })
    }

    #[cold]
    fn start(&self, measure: Measure, limit_ms: u32) -> Result<Instance, StartError> {
        let _ticking = self.source.runtime.ticker.hold();
        // A component that starts or fails slowly must not be started while an exchange waits.
        let _timed = Timed { ms: &self.start_ms, begun: Measure::Running.now() };
        let mut instance = self.instantiate(measure, limit_ms)?;
        let answer = instance.configure(&self.settings, &self.parts, measure, limit_ms);
        match answer {
            Ok(Ok(())) => Ok(instance),
            Ok(Err(refusal)) => Err(StartError::Refused(refusal)),
            Err(fault) => Err(StartError::Configure(fault)),
        }
    }

    fn instantiate(&self, measure: Measure, limit_ms: u32) -> Result<Instance, StartError> {
        let Source { runtime, code, shared, .. } = &self.source;
        for _ in 0..MAX_TRIES {
            let mut guest = Guest::new(shared.clone(), code.id.clone(), runtime.limits.memory_bytes);
            guest.lines.clone_from(&code.lines);
            let started = match runtime.instances.take() {
                Some(permit) => Instance::start(&code.pre, permit, guest, runtime.ticker.alarm(), measure, limit_ms),
                None => Err(NotStarted::PoolFull),
            };
            match started {
                Ok(instance) => return Ok(instance),
                Err(NotStarted::Fault(fault)) => return Err(StartError::Start(fault)),
                Err(NotStarted::PoolFull) if runtime.background.drop_garbage_now() => {}
                Err(NotStarted::PoolFull) if self.no_eviction.load(Ordering::Relaxed) => break,
                Err(NotStarted::PoolFull) if runtime.idle.evict_for(&self.slots) => {}
                Err(NotStarted::PoolFull) => break,
            }
        }
        let message = format!("all {} instances of policies are in use", runtime.limits.max_instances);
        Err(StartError::Start(Fault { kind: FaultKind::Busy, message }))
    }

    /// Keeps the clock of deadlines going for a question; to be held until its answer. One whose running time alone counts
    /// may take any time.
    #[inline]
    pub(crate) fn clock_for(&self, measure: Measure) -> Option<Hold> {
        let ticker = &self.source.runtime.ticker;
        match measure {
            Measure::Wall => {
                ticker.touch();
                None
            }
            Measure::Running => Some(ticker.hold()),
        }
    }

    /// The running time of the last start, in ms, without the time that the machine took for others.
    pub(crate) fn start_ms(&self) -> u32 {
        self.start_ms.load(Ordering::Relaxed)
    }

    fn failure(&self) -> MutexGuard<'_, Option<FailedStart>> {
        self.failed_start.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.release_idle();
        self.source.runtime.background.defer_drop([Garbage::Code(self.source.code.clone())]);
    }
}

/// Records the running time of a start when it is dropped, however the start ended.
struct Timed<'a> {
    ms: &'a AtomicU32,
    begun: Duration,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let ran = Measure::Running.now().saturating_sub(self.begun);
        self.ms.store(u32::try_from(ran.as_millis()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// The reason why there is no configured instance.
enum StartError {
    Refused(String),
    Start(Fault),
    Configure(Fault),
}

impl StartError {
    fn into_fault(self) -> Fault {
        let [start, configure, refused] = AT_START;
        let (kind, beginning, why) = match self {
            StartError::Start(fault) => (fault.kind, start, fault.message),
            StartError::Configure(fault) => (fault.kind, configure, fault.message),
            StartError::Refused(refusal) => (FaultKind::Invalid, refused, check::sentence(&refusal)),
        };
        Fault { kind, message: format!("{beginning}: {why}") }
    }
}
