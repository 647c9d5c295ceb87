//! The instances of one revision: kept warm between questions, started when one is missing, given up when others need the
//! room.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use pointsman_core::journal::StateUse;

use super::check::{self, LoadError};
use super::deadline::Measure;
use super::engine::{Code, Engine};
use super::guest::{Guest, Shared};
use super::instance::{Instance, NotStarted};
use super::wire::TableParts;
use super::workshop::Scrap;
use super::{Fault, FaultKind, LOG_TARGET};

/// Instances kept; more threads than this do not decide at the same time.
const MAX_KEPT: usize = 32;

/// An instance may be started while an exchange waits for it if that takes no longer than this, in ms.
const QUICK_START_MS: u32 = 20;

/// But not longer than this, in ms: other instances of the component were quick.
const MAX_QUICK_START_MS: u32 = 60;

/// Instances started ahead when starting one takes long; with fewer processors there are fewer threads to serve.
const STARTED_AHEAD: usize = 4;

/// After a failed start nothing is started for so many times what it took: a twentieth of a thread at most.
const PAUSE_PER_FAILED_START: u32 = 20;

/// How the message of a fault begins that came before the question.
const AT_START: [&str; 3] = [
    "at the start of a fresh instance",
    "in `configure` of a fresh instance",
    "a fresh instance refused the configuration that another accepted",
];

/// Was it the start of an instance that failed, and not the question it was started for?
pub(super) fn is_at_start(message: &str) -> bool {
    AT_START.iter().any(|beginning| message.starts_with(beginning))
}

/// Room made for an instance may be taken by another exchange before it is used; so often it is made again.
const MAX_TRIES: usize = 8;

/// A revision's instances.
pub(super) struct Pool {
    engine: Engine,
    code: Arc<Code>,
    shared: Arc<Shared>,
    settings: String,
    parts: TableParts,
    is_patient: bool,
    /// Does it go without where others would have to give something up for it?
    is_modest: AtomicBool,
    slots: [Slot; MAX_KEPT],
    /// How long the last start ran, in ms, without the time that the machine took for others.
    start_ms: AtomicU32,
    is_starting: AtomicBool,
    /// Why the last start aside came to nothing.
    failed_start: Mutex<Option<FailedStart>>,
}

struct FailedStart {
    fault: Fault,
    again_at: Instant,
}

/// A place for an instance, locked while it is asked. The first free one is taken: its instance was used not long ago and
/// has its memory still in the processor's cache.
type Slot = Mutex<Option<Instance>>;

/// An instance in use. It is kept for the next question unless it is spent.
pub(super) struct Taken<'a> {
    instance: Option<Instance>,
    place: Option<MutexGuard<'a, Option<Instance>>>,
}

impl Taken<'_> {
    #[inline]
    pub(super) fn instance(&mut self) -> &mut Instance {
        let kept = self.place.as_deref_mut().and_then(Option::as_mut);
        kept.or(self.instance.as_mut()).expect("what was taken is there until it is dropped")
    }

    /// Ends the instance's life.
    pub(super) fn spend(mut self) {
        self.instance = None;
        if let Some(place) = &mut self.place {
            **place = None;
        }
    }
}

impl Pool {
    /// A pool without instances yet.
    pub(super) fn new(
        engine: Engine,
        code: Arc<Code>,
        shared: Arc<Shared>,
        settings: &str,
        parts: TableParts,
    ) -> Arc<Self> {
        Self::make(engine, code, shared, settings, parts, false)
    }

    /// Brings the shared `state` to what was found there, by key; none: nothing.
    pub(super) fn bring_state(&self, found: &[(String, Option<i64>)], now_ms: u64) {
        for (key, found) in found {
            self.shared.state.learn(&StateUse::Get { key: key.clone(), found: *found }, now_ms);
        }
    }

    /// One whose users wait for an instance however long it takes to start.
    pub(super) fn patient(
        engine: Engine,
        code: Arc<Code>,
        shared: Arc<Shared>,
        settings: &str,
        parts: TableParts,
    ) -> Arc<Self> {
        Self::make(engine, code, shared, settings, parts, true)
    }

    fn make(
        engine: Engine,
        code: Arc<Code>,
        shared: Arc<Shared>,
        settings: &str,
        parts: TableParts,
        is_patient: bool,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            engine,
            code,
            shared,
            settings: settings.to_owned(),
            parts,
            is_patient,
            is_modest: AtomicBool::new(false),
            slots: std::array::from_fn(|_| Slot::default()),
            start_ms: AtomicU32::new(0),
            is_starting: AtomicBool::new(false),
            failed_start: Mutex::default(),
        });
        pool.engine.0.pools.join(&pool);
        pool
    }

    /// From now on no other revision gives up an instance for this one.
    pub(super) fn no_eviction(&self) {
        self.is_modest.store(true, Ordering::Relaxed);
    }

    /// Starts an instance, or several when that takes long. Afterwards the component is known to start. Nobody waits for
    /// it but who judges.
    pub(super) fn fill(&self) -> Result<(), LoadError> {
        self.keep(self.start_slowly()?);
        if self.starts_quickly() {
            return Ok(());
        }
        let threads = thread::available_parallelism().map_or(1, usize::from);
        (1..threads.min(STARTED_AHEAD)).try_for_each(|_| self.start_slowly().map(|instance| self.keep(instance)))
    }

    /// Starts an instance and lets it go.
    pub(super) fn start_once(&self) -> Result<(), LoadError> {
        self.start_slowly().map(drop)
    }

    /// A free instance, or a fresh one. An exchange never waits for one that takes long to start.
    #[inline]
    pub(super) fn take(self: &Arc<Self>) -> Result<Taken<'_>, Fault> {
        match self.slots.first().and_then(take) {
            Some(place) if place.is_some() => Ok(Taken { instance: None, place: Some(place) }),
            _ => self.take_another(),
        }
    }

    fn take_another(self: &Arc<Self>) -> Result<Taken<'_>, Fault> {
        let mut empty = None;
        for slot in &self.slots {
            let Some(place) = take(slot) else { continue };
            if place.is_some() {
                return Ok(Taken { instance: None, place: Some(place) });
            }
            empty = empty.or(Some(place));
        }
        if !self.starts_quickly() {
            drop(empty);
            return Err(self.start_aside());
        }
        let limit_ms = if self.is_patient { self.engine.0.limits.configure_ms } else { MAX_QUICK_START_MS };
        let instance = self.start(Measure::Wall, limit_ms).map_err(StartError::into_fault)?;
        match empty {
            Some(mut place) => {
                *place = Some(instance);
                Ok(Taken { instance: None, place: Some(place) })
            }
            None => Ok(Taken { instance: Some(instance), place: None }),
        }
    }

    /// Gives up all instances that are not in use; they are freed by dropping them.
    pub(super) fn give_up_idle(&self) -> impl Iterator<Item = Instance> {
        self.slots.iter().filter_map(take).filter_map(|mut place| place.take())
    }

    /// Starts and configures one more instance, and lets it go; the linear memory it had, in bytes.
    pub(super) fn try_start(&self) -> Result<usize, Fault> {
        self.fresh(Measure::Wall).map(|instance| instance.memory_bytes())
    }

    /// An instance that is none of the pool's.
    pub(super) fn fresh(&self, measure: Measure) -> Result<Instance, Fault> {
        self.start(measure, self.engine.0.limits.configure_ms).map_err(StartError::into_fault)
    }

    /// The linear memory of the largest instance that is not in use, in bytes.
    pub(super) fn largest_bytes(&self) -> usize {
        let of = |slot: &Slot| take(slot).and_then(|place| place.as_ref().map(Instance::memory_bytes));
        self.slots.iter().filter_map(of).max().unwrap_or(0)
    }

    fn starts_quickly(&self) -> bool {
        self.is_patient || self.start_ms.load(Ordering::Relaxed) <= QUICK_START_MS
    }

    /// Starts one for later exchanges; what this one is told.
    #[cold]
    fn start_aside(self: &Arc<Self>) -> Fault {
        if let Some(failed) = self.failure().as_ref().filter(|failed| Instant::now() < failed.again_at) {
            return failed.fault.clone();
        }
        let start_ms = self.start_ms.load(Ordering::Relaxed);
        if !self.is_starting.swap(true, Ordering::SeqCst) {
            let pool = self.clone();
            let work = move || {
                let begun = Instant::now();
                match pool.start(Measure::Wall, pool.engine.0.limits.configure_ms) {
                    Ok(instance) => {
                        *pool.failure() = None;
                        pool.keep(instance);
                    }
                    Err(error) => {
                        let fault = error.into_fault();
                        let again_at = Instant::now() + begun.elapsed() * PAUSE_PER_FAILED_START;
                        *pool.failure() = Some(FailedStart { fault: fault.clone(), again_at });
                        tracing::warn!(target: LOG_TARGET, policy = %pool.code.id, error = fault.message, "an instance of the policy could not be started");
                    }
                }
                pool.is_starting.store(false, Ordering::SeqCst);
            };
            if thread::Builder::new().name("policy-starter".to_owned()).spawn(work).is_err() {
                self.is_starting.store(false, Ordering::SeqCst);
            }
        }
        let message = format!("no instance is free, and to start one takes {start_ms} ms; it is done aside");
        Fault { kind: FaultKind::Busy, message }
    }

    fn keep(&self, instance: Instance) {
        let empty = self.slots.iter().filter_map(take).find(|place| place.is_none());
        if let Some(mut place) = empty {
            *place = Some(instance);
        }
    }

    fn start_slowly(&self) -> Result<Instance, LoadError> {
        self.start(Measure::Running, self.engine.0.limits.configure_ms).map_err(|error| match error {
            StartError::Refused(refusal) => LoadError::Refused(check::sentence(&refusal)),
            StartError::Start(fault) => LoadError::Start(fault),
            StartError::Configure(fault) => LoadError::Configure(fault),
        })
    }

    #[cold]
    fn start(&self, measure: Measure, limit_ms: u32) -> Result<Instance, StartError> {
        let engine = &self.engine.0;
        let _clock = engine.ticker.hold();
        // What starts or fails slowly must not be tried while an exchange waits.
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
        let engine = &self.engine.0;
        for _ in 0..MAX_TRIES {
            let mut guest = Guest::new(self.shared.clone(), self.code.id.clone(), engine.limits.memory_bytes);
            guest.lines.clone_from(&self.code.lines);
            match Instance::start(&self.code.pre, guest, engine.ticker.alarm(), measure, limit_ms) {
                Ok(instance) => return Ok(instance),
                Err(NotStarted::Fault(fault)) => return Err(StartError::Start(fault)),
                Err(NotStarted::PoolFull) if engine.workshop.clear() => {}
                Err(NotStarted::PoolFull) if self.is_modest.load(Ordering::Relaxed) => break,
                Err(NotStarted::PoolFull) if engine.pools.make_room(self) => {}
                Err(NotStarted::PoolFull) => break,
            }
        }
        let message = format!("all {} instances of policies are in use", engine.limits.max_instances);
        Err(StartError::Start(Fault { kind: FaultKind::Busy, message }))
    }

    /// A question is about to be put to an instance.
    pub(super) fn touch_clock(&self) {
        self.engine.0.ticker.touch();
    }

    /// How long the last start took, in ms.
    pub(super) fn start_ms(&self) -> u32 {
        self.start_ms.load(Ordering::Relaxed)
    }

    fn failure(&self) -> MutexGuard<'_, Option<FailedStart>> {
        self.failed_start.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let workshop = &self.engine.0.workshop;
        workshop.take_apart(self.give_up_idle().map(Scrap::Instance));
        workshop.take_apart([Scrap::Code(self.code.clone())]);
    }
}

/// Writes down how long a start ran, however it ended.
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

/// Why there is no configured instance.
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
