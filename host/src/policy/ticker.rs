//! The clock of deadlines: a plain thread that advances the engine's epoch once a millisecond while there are calls,
//! and counts the milliseconds that really went by, which are more when the machine is too busy to wake it in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// The unit of deadlines.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Without a call for this long the thread sleeps until the next one. Longer than any call may take, so that a call
/// under way never loses its clock; longer calls take a [`Hold`].
pub(super) const IDLE_TICKS: u64 = 100;

/// Milliseconds, without those during which the thread slept because there was no call. Only differences mean something.
#[derive(Clone, Default)]
pub(super) struct Clock(Arc<AtomicU64>);

impl Clock {
    #[inline]
    pub(super) fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets time go by.
    pub(super) fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

/// Owns the thread; it ends with its owner.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

struct Shared {
    clock: Clock,
    /// Has there been a call since the thread last looked?
    called: AtomicBool,
    /// Is the thread asleep, or about to be?
    parked: AtomicBool,
    /// Long calls under way.
    holds: AtomicUsize,
    stop: AtomicBool,
}

/// Keeps the clock going for a call that may take longer than the idle time.
pub(super) struct Hold(Arc<Shared>);

impl Ticker {
    /// Starts calling `tick` once a [`TICK`].
    pub(super) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            clock: Clock::default(),
            called: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            holds: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        let handle = thread::Builder::new().name("policy-clock".to_owned()).spawn(move || theirs.run(tick))?;
        Ok(Self { shared, thread: handle.thread().clone(), handle: Some(handle) })
    }

    /// What its deadlines are measured by.
    pub(super) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// To be called before every short call; costs one relaxed load while the clock runs.
    #[inline]
    pub(super) fn touch(&self) {
        if !self.shared.called.load(Ordering::Relaxed) {
            self.wake();
        }
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

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn run(&self, tick: impl Fn()) {
        let mut counted = Instant::now();
        let mut idle_ticks = 0;
        while !self.stop.load(Ordering::SeqCst) {
            thread::park_timeout((counted + TICK).saturating_duration_since(Instant::now()));
            let ticks = counted.elapsed().as_millis() as u64;
            if ticks == 0 {
                continue;
            }
            counted += TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
            self.clock.advance(ticks);
            tick();
            idle_ticks += ticks;
            if idle_ticks >= IDLE_TICKS {
                idle_ticks = 0;
                if !self.called.swap(false, Ordering::SeqCst) {
                    self.sleep();
                    counted = Instant::now();
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
            while ticks.recv_timeout(TICK * 3 * IDLE_TICKS as u32).is_ok() {}
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
    fn it_counts_the_milliseconds_that_went_by_however_few_ticks_it_could_give() {
        let (sender, ticks) = mpsc::channel();
        let slow_ms = 20;
        let ticker = Ticker::start(move || {
            // Stands for a machine that does not come round to this thread.
            let until = Instant::now() + Duration::from_millis(slow_ms);
            while Instant::now() < until {
                thread::yield_now();
            }
            let _ = sender.send(());
        })
        .unwrap();
        let _hold = ticker.hold();
        for _ in 0..5 {
            ticks.recv_timeout(GENEROUS).expect("ticks go on");
        }
        assert!(ticker.clock().now_ms() >= 4 * slow_ms, "{}", ticker.clock().now_ms());
    }
}
