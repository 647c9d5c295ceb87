//! When a guest has had its time.
//!
//! The bound is on wall time, because that is what the client and the thread lose. A call that sees no tick, as nearly all
//! do, only reads the clock once, at its begin. At the first tick that it sees, an alarm is set to the end of its time, so
//! that it is not the next regular tick that ends it.
//!
//! But a thread may be put aside by the operating system in the middle of a decision of a microsecond, for longer than the
//! whole deadline, and that is not the policy's doing. So time alone is not enough: the guest must also have been seen
//! running at a few ticks. One that was only put aside goes on and is done. One that loops is seen at every tick and is
//! stopped within a millisecond after its deadline; on a machine too busy to run it, after a few milliseconds of its own
//! running time.
//!
//! A policy that is being judged runs on a thread that gives way to all others, where the wall says nothing of it: there
//! only its own running time counts.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

use super::ticker::Alarm;

/// Ticks at which a guest must have been seen running before it can be too late.
const SEEN_RUNNING: u32 = 3;

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
    begun: Duration,
    elapsed: Duration,
}

impl Deadline {
    /// Before a call.
    #[inline]
    pub(super) fn start(&mut self, measure: Measure, limit_ms: u32) {
        self.measure = measure;
        self.limit_ms = limit_ms;
        self.seen = 0;
        self.begun = measure.now();
    }

    /// At a tick that the guest sees.
    #[cold]
    pub(super) fn on_tick(&mut self, alarm: &Alarm) -> UpdateDeadline {
        match self.left_at(self.measure.now()) {
            None => UpdateDeadline::Interrupt,
            Some(left) => {
                if !left.is_zero() {
                    alarm.ring_in(left);
                }
                UpdateDeadline::Continue(1)
            }
        }
    }

    /// What is left of its time at this tick; none when it is over and is to be stopped.
    fn left_at(&mut self, now: Duration) -> Option<Duration> {
        self.seen += 1;
        self.elapsed = now.saturating_sub(self.begun);
        let left = Duration::from_millis(self.limit_ms.into()).saturating_sub(self.elapsed);
        (!left.is_zero() || self.seen < SEEN_RUNNING).then_some(left)
    }

    pub(super) fn limit_ms(&self) -> u32 {
        self.limit_ms
    }

    /// From its begin to the last tick that it saw.
    pub(super) fn elapsed_ms(&self) -> u128 {
        self.elapsed.as_millis()
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
            Self { now: deadline.begun, deadline }
        }

        fn is_stopped_after(&mut self, ms: u64) -> bool {
            self.now += Duration::from_millis(ms);
            self.deadline.left_at(self.now).is_none()
        }
    }

    #[test]
    fn a_guest_that_runs_is_stopped_when_its_time_is_over_and_not_before() {
        let mut call = Call::begin();
        for ms in 1..5 {
            assert!(!call.is_stopped_after(1), "{ms}");
        }
        assert!(call.is_stopped_after(1));
        call.deadline.start(Measure::Wall, 5);
        assert!(!call.is_stopped_after(1), "the next call has its own time");
    }

    #[test]
    fn what_is_left_is_counted_from_the_begin() {
        let mut call = Call::begin();
        let left = |call: &mut Call, ms: f64| call.deadline.left_at(call.now + Duration::from_secs_f64(ms / 1e3));
        assert_eq!(left(&mut call, 0.6), Some(Duration::from_micros(4_400)));
        assert_eq!(left(&mut call, 4.9), Some(Duration::from_micros(100)));
        assert_eq!(left(&mut call, 5.0), None);
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
