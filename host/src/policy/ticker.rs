//! The clock of deadlines: a plain thread that advances the engine's epoch once a millisecond while there are calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use super::deadline::Measure;

/// The unit of deadlines.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Without a call for this long the thread sleeps until the next one. Longer than any call may take, so that a call
/// under way never loses its clock; longer calls take a [`Hold`].
pub(super) const IDLE_TICKS: u32 = 100;

/// Owns the thread; it ends with its owner.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

struct Shared {
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
        let (mut ticks, mut due) = (0, Measure::Wall.now());
        while !self.stop.load(Ordering::SeqCst) {
            // From due to due, not from late to late: a deadline is a number of ticks.
            let now = Measure::Wall.now();
            due = (due + TICK).max(now);
            thread::park_timeout(due - now);
            tick();
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
}
