//! When a guest has had its time.
//!
//! The bound is on wall time, because that is what the client and the thread lose. It is measured from the first tick at
//! which the guest is seen running, which is within a millisecond of its begin, so that a call that sees no tick, as nearly
//! all do, reads no clock.
//!
//! But a thread may be put aside by the operating system in the middle of a decision of a microsecond, for longer than the
//! whole deadline, and that is not the policy's doing. So time alone is not enough: the guest must also have been seen
//! running at a few ticks. One that was only put aside goes on and is done. One that loops is seen at every tick and is
//! stopped within a millisecond or two after its deadline; on a machine too busy to run it, after a few milliseconds of its
//! own running time.
//!
//! A policy that is being judged runs on a thread that gives way to all others, where the wall says nothing of it: there
//! only its own running time counts.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

/// Ticks at which a guest must have been seen running before it can be too late.
const SEEN_RUNNING: u32 = 3;

/// Ticks come late, some later than others; by less than this where nothing is in their way.
const LATENESS: Duration = Duration::from_micros(250);

/// Whose time is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Measure {
    /// The wall's: somebody waits.
    #[default]
    Wall,
    /// The thread's own, on one that gives way to all others.
    Running,
}

impl Measure {
    /// From an arbitrary beginning.
    pub(super) fn now(self) -> Duration {
        let now = clock_gettime(match self {
            Measure::Wall => ClockId::Monotonic,
            Measure::Running => ClockId::ThreadCPUTime,
        });
        Duration::try_from(now).unwrap_or_default()
    }
}

/// The time of one call.
#[derive(Default)]
pub(super) struct Deadline {
    measure: Measure,
    limit_ms: u32,
    seen: u32,
    first_seen: Option<Duration>,
    elapsed: Duration,
}

impl Deadline {
    /// Before a call.
    #[inline]
    pub(super) fn start(&mut self, measure: Measure, limit_ms: u32) {
        self.measure = measure;
        self.limit_ms = limit_ms;
        self.seen = 0;
        self.first_seen = None;
    }

    /// At a tick that the guest sees.
    #[cold]
    pub(super) fn on_tick(&mut self) -> UpdateDeadline {
        self.at(self.measure.now())
    }

    fn at(&mut self, now: Duration) -> UpdateDeadline {
        self.seen += 1;
        self.elapsed = now.saturating_sub(*self.first_seen.get_or_insert(now));
        let is_over = self.elapsed + LATENESS >= Duration::from_millis(self.limit_ms.into());
        if is_over && self.seen >= SEEN_RUNNING { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) }
    }

    pub(super) fn limit_ms(&self) -> u32 {
        self.limit_ms
    }

    /// From the first to the last tick that the guest saw, and the one before.
    pub(super) fn elapsed_ms(&self) -> u128 {
        self.elapsed.as_millis() + 1
    }

    /// Ticks at which the guest was seen running: about the ms of its own running time.
    #[inline]
    pub(super) fn seen(&self) -> u32 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Call {
        deadline: Deadline,
        now: Duration,
    }

    impl Call {
        fn begin() -> Self {
            let mut deadline = Deadline::default();
            deadline.start(Measure::Wall, 5);
            Self { deadline, now: Measure::Wall.now() }
        }

        fn is_stopped_after(&mut self, ms: u64) -> bool {
            self.now += Duration::from_millis(ms);
            matches!(self.deadline.at(self.now), UpdateDeadline::Interrupt)
        }
    }

    #[test]
    fn a_guest_that_runs_is_stopped_when_its_time_is_over_and_not_before() {
        let mut call = Call::begin();
        for ms in 1..=5 {
            assert!(!call.is_stopped_after(1), "{ms}");
        }
        assert!(call.is_stopped_after(1));
        call.deadline.start(Measure::Wall, 5);
        assert!(!call.is_stopped_after(1), "the next call has its own time");
    }

    #[test]
    fn a_guest_that_was_put_aside_for_long_may_finish_but_not_loop() {
        for before in [300, 1] {
            let mut call = Call::begin();
            assert_eq!(call.deadline.seen(), 0);
            assert!(!call.is_stopped_after(before));
            assert!(!call.is_stopped_after(300), "the machine was busy, not the guest");
            assert!(call.is_stopped_after(1));
            assert_eq!(call.deadline.seen(), 3);
        }
    }

    #[test]
    fn time_put_aside_is_not_given_back() {
        let mut call = Call::begin();
        assert!(!call.is_stopped_after(1));
        assert!(!call.is_stopped_after(1));
        assert!(call.is_stopped_after(300));
    }
}
