//! The clock of deadlines: a plain thread that advances the engine's epoch regularly while there are calls, and at the
//! moments it is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use super::clock::Measure;

/// Interval at which calls under way are checked. Each check costs some 25 µs of a processor where calls are frequent.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// Without a call for this long the thread sleeps until the next one. Longer than any call may take, so that a call
/// under way never loses its clock; longer calls take a [`Hold`].
pub(super) const IDLE_TICKS: u32 = 50;

const NO_ALARM: u64 = u64::MAX;

/// Owns the thread; it ends with its owner.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

/// Asks for a tick of its own.
#[derive(Clone)]
pub(super) struct Alarm(Arc<Shared>);

struct Shared {
    /// Time of the next extra tick between the regular ones, in ns of [`Measure::Wall`].
    alarm_ns: AtomicU64,
    /// Set by every call, cleared by the thread.
    called: AtomicBool,
    /// Set while the thread sleeps, or is about to.
    parked: AtomicBool,
    /// Number of calls under way that keep the ticker running.
    holds: AtomicUsize,
    stop: AtomicBool,
}

/// Keeps the clock going for a call that may take longer than the idle time.
pub(super) struct Hold(Arc<Shared>);

impl Ticker {
    /// Starts calling `tick` once a [`TICK`].
    pub(super) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            alarm_ns: AtomicU64::new(NO_ALARM),
            called: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            holds: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        let handle = thread::Builder::new().name("policy-clock".to_owned()).spawn(move || theirs.run(tick))?;
        Ok(Self { shared, thread: handle.thread().clone(), handle: Some(handle) })
    }

    /// To be called before every short call; costs one relaxed load while the clock runs.
    #[inline]
    pub(super) fn touch(&self) {
        if !self.shared.called.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// For calls to ask for a tick at their deadline.
    pub(super) fn alarm(&self) -> Alarm {
        Alarm(self.shared.clone())
    }

    /// To be held during a long call.
    pub(super) fn hold(&self) -> Hold {
        self.shared.holds.fetch_add(1, Ordering::SeqCst);
        self.wake();
        Hold(self.shared.clone())
    }

    #[cold]
    fn wake(&self) {
        // Sequentially consistent on both sides: either the thread sees the call, or we see that it sleeps.
        self.shared.called.store(true, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(handle) = self.handle.take() {
            // A panic of the thread was reported when it happened.
            let _ = handle.join();
        }
    }
}

impl Alarm {
    /// There will be a tick after so much time; one before it takes the alarm away, and whoever sees that tick asks again.
    /// After less than a [`TICK`] it may be the next regular one instead.
    pub(super) fn ring_in(&self, time: Duration) {
        self.0.alarm_ns.fetch_min(nanos(Measure::Wall.now() + time), Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NO_ALARM)
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn run(&self, tick: impl Fn()) {
        // By default the system is up to 50 µs late, to save power. Where this cannot be changed it stays so.
        #[cfg(target_os = "linux")]
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let (mut ticks, mut due) = (0, Measure::Wall.now() + TICK);
        while !self.stop.load(Ordering::SeqCst) {
            let alarm = Duration::from_nanos(self.alarm_ns.load(Ordering::Relaxed));
            thread::park_timeout(due.min(alarm).saturating_sub(Measure::Wall.now()));
            let now = Measure::Wall.now();
            // Before the tick, at which those whose alarm this takes away with it ask again.
            if self.alarm_ns.load(Ordering::Relaxed) <= nanos(now) {
                self.alarm_ns.store(NO_ALARM, Ordering::Relaxed);
            }
            tick();
            if now < due {
                continue;
            }
            due = if now < due + TICK { due + TICK } else { now + TICK };
            ticks += 1;
            if ticks == IDLE_TICKS {
                ticks = 0;
                if !self.called.swap(false, Ordering::SeqCst) {
                    self.sleep();
                }
            }
        }
    }

    fn sleep(&self) {
        self.parked.store(true, Ordering::SeqCst);
        while !self.called.load(Ordering::SeqCst)
            && self.holds.load(Ordering::SeqCst) == 0
            && !self.stop.load(Ordering::SeqCst)
        {
            thread::park();
        }
        self.parked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(20);

    #[test]
    fn it_ticks_for_a_call_falls_asleep_and_wakes_for_the_next() {
        let (sender, ticks) = mpsc::channel();
        let ticker = Ticker::start(move || {
            // The receiver goes first when the test ends.
            let _ = sender.send(());
        })
        .unwrap();
        for _ in 0..3 {
            ticker.touch();
            ticks.recv_timeout(GENEROUS).expect("a tick after a call");
            // Asleep: no tick for much longer than one takes.
            while ticks.recv_timeout(TICK * 3 * IDLE_TICKS).is_ok() {}
        }
    }

    #[test]
    fn it_does_not_fall_asleep_during_a_long_call() {
        let (sender, ticks) = mpsc::channel();
        let ticker = Ticker::start(move || {
            let _ = sender.send(());
        })
        .unwrap();
        let hold = ticker.hold();
        for _ in 0..5 * IDLE_TICKS {
            ticks.recv_timeout(GENEROUS).expect("ticks go on");
        }
        drop(hold);
    }
    #[test]
    fn there_is_a_tick_when_an_alarm_is_due_and_not_only_at_the_next_regular_one() {
        let (sender, ticks) = mpsc::channel();
        let ticker = Ticker::start(move || {
            let _ = sender.send(Measure::Wall.now());
        })
        .unwrap();
        let _hold = ticker.hold();
        // A regular tick may fall on the same moment, or a machine be busy; all of them cannot.
        let is_early = |_| {
            let begun = ticks.recv_timeout(GENEROUS).unwrap();
            let due = begun + TICK * 5 / 2;
            ticker.alarm().ring_in(due.saturating_sub(Measure::Wall.now()));
            let after = std::iter::from_fn(|| ticks.recv_timeout(GENEROUS).ok()).find(|&tick| tick >= due).unwrap();
            after - due < TICK / 4
        };
        assert!((0..1_000).any(is_early));
    }
}
