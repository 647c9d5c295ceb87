//! Deadlines of guest calls.
//!
//! The bound is on wall time, because that is what the client and the thread lose. A call that sees no tick, as nearly all
//! do, only reads the clock once, at its begin. At the first tick that it sees, an alarm is set to the end of its time, so
//! that it is not the next regular tick that ends it.
//!
//! But a thread may be put aside by the operating system in the middle of a decision of a microsecond, for longer than the
//! whole deadline, and that is not the policy's doing. So time alone is not enough: the guest must also have been seen
//! running at a few ticks. One that was only put aside goes on and is done. One that loops is stopped at its deadline; on a
//! machine too busy to run it, after a few ticks of its own running time. (The thread's own clock would not do: where a
//! virtual machine is put aside as a whole, it runs on.)
//!
//! A policy that is being judged runs on a thread that gives way to all others, where the wall says nothing of it: there
//! only its own running time counts.

use std::time::Duration;

use wasmtime::UpdateDeadline;

use super::clock::Measure;
use super::ticker::{Alarm, TICK};

/// Ticks at which a guest must have been seen running before it can be too late.
const SEEN_RUNNING: u32 = 3;

/// Until the next look at one that is late and was not seen often enough.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The time of one call.
#[derive(Default)]
pub(super) struct Deadline {
    measure: Measure,
    limit_ms: u32,
    begun: Duration,
    /// None until a tick has seen the guest running.
    seen: Option<RunningTime>,
}

/// A guest at the ticks that saw it.
#[derive(Clone, Copy)]
struct RunningTime {
    ticks: u32,
    /// The thread's own time at the first.
    running_since: Duration,
    /// Time used before the first tick.
    elapsed_before: Duration,
    /// Time used by the last tick.
    elapsed: Duration,
    /// Time that it ran between the first and the last tick.
    ran: Duration,
}

impl Deadline {
    /// Starts the deadline of a call, `limit_ms` from now.
    #[inline]
    pub(super) fn start(&mut self, measure: Measure, limit_ms: u32) {
        self.measure = measure;
        self.limit_ms = limit_ms;
        self.begun = measure.now();
        self.seen = None;
    }

    /// At a tick that the guest sees.
    #[cold]
    pub(super) fn on_tick(&mut self, alarm: &Alarm) -> UpdateDeadline {
        match self.left_at(self.measure.now(), Measure::Running.now()) {
            None => UpdateDeadline::Interrupt,
            Some(left) => {
                alarm.ring_in(left);
                UpdateDeadline::Continue(1)
            }
        }
    }

    /// Returns when to look again, given this time and the thread's own time at a tick; `None` when the guest is to be
    /// stopped.
    fn left_at(&mut self, now: Duration, running: Duration) -> Option<Duration> {
        let elapsed = now.saturating_sub(self.begun);
        let first =
            RunningTime { ticks: 0, running_since: running, elapsed_before: elapsed, elapsed, ran: Duration::ZERO };
        let seen = self.seen.get_or_insert(first);
        seen.ticks += 1;
        seen.elapsed = elapsed;
        seen.ran = running.saturating_sub(seen.running_since);
        let left = Duration::from_millis(self.limit_ms.into()).saturating_sub(elapsed);
        match left.is_zero() {
            false => Some(left),
            true => (seen.ticks < SEEN_RUNNING).then_some(LOOK_AGAIN),
        }
    }

    pub(super) fn limit_ms(&self) -> u32 {
        self.limit_ms
    }

    /// From its begin to the last tick that it saw.
    pub(super) fn elapsed_ms(&self) -> u128 {
        self.seen.map_or(0, |seen| seen.elapsed.as_millis())
    }

    /// Returns true if it was seen at more than one tick. A quick call is seen once by chance.
    #[inline]
    pub(super) fn is_long(&self) -> bool {
        self.seen.is_some_and(|seen| seen.ticks > 1)
    }

    /// Returns how long the guest ran, without the time in which the machine ran other threads; zero for most, which no
    /// tick saw. Before the first tick it counts as running for at most a tick's length.
    #[inline]
    pub(super) fn ran(&self) -> Duration {
        self.seen.map_or(Duration::ZERO, |seen| seen.elapsed_before.min(TICK) + seen.ran)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call with 5 ms, seen at ticks.
    struct Call {
        deadline: Deadline,
        now: Duration,
        running: Duration,
    }

    impl Call {
        fn begin() -> Self {
            let mut deadline = Deadline::default();
            deadline.start(Measure::Wall, 5);
            Self { now: deadline.begun, deadline, running: Duration::from_secs(9) }
        }

        /// Returns the time left at a tick, after so many more ms of which the guest ran some.
        fn left_after(&mut self, ms: f64, of_which_running: f64) -> Option<f64> {
            self.now += Duration::from_secs_f64(ms / 1e3);
            self.running += Duration::from_secs_f64(of_which_running / 1e3);
            let left = self.deadline.left_at(self.now, self.running);
            left.map(|left| (left.as_secs_f64() * 1e6).round() / 1e3)
        }
    }

    #[test]
    fn a_guest_that_runs_is_stopped_when_its_time_is_over_and_not_before() {
        let mut call = Call::begin();
        assert_eq!(call.left_after(0.6, 0.6), Some(4.4));
        assert_eq!(call.left_after(2.0, 2.0), Some(2.4));
        assert_eq!(call.left_after(2.399, 2.399), Some(0.001));
        assert_eq!(call.left_after(0.001, 0.001), None);
        assert_eq!((call.deadline.elapsed_ms(), call.deadline.ran()), (5, Duration::from_millis(5)));
        call.deadline.start(Measure::Wall, 5);
        assert_eq!(call.deadline.ran(), Duration::ZERO, "the next call has its own time");
    }

    #[test]
    fn a_guest_that_was_put_aside_for_long_may_finish_but_not_loop() {
        for before in [300.0, 1.0] {
            let mut call = Call::begin();
            assert!(call.left_after(before, before).is_some());
            assert_eq!(call.left_after(300.0, 300.0), Some(1.0), "the machine was busy, not the guest");
            assert!(call.deadline.is_long());
            assert_eq!(call.left_after(1.0, 1.0), None);
        }
    }

    #[test]
    fn time_put_aside_is_not_given_back() {
        let mut call = Call::begin();
        assert!(call.left_after(1.0, 1.0).is_some());
        assert!(!call.deadline.is_long());
        assert!(call.left_after(1.0, 1.0).is_some());
        assert_eq!(call.left_after(300.0, 0.0), None);
    }

    #[test]
    fn what_was_put_aside_before_the_first_tick_is_not_held_against_it() {
        let mut call = Call::begin();
        call.left_after(40.0, 40.0);
        assert_eq!(call.deadline.ran(), TICK);
        call.left_after(0.5, 0.25);
        assert_eq!(call.deadline.ran(), TICK + Duration::from_micros(250));
    }
}
