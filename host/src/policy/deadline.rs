//! When a guest has had its time.
//!
//! The bound is on wall time, because that is what the client and the thread lose. But a thread may be put aside by the
//! operating system in the middle of a decision of a microsecond, for longer than the whole deadline, and that is not the
//! policy's doing. So time alone is not enough: the guest must also have been seen running at two ticks. One that was only
//! put aside is seen at most once, and goes on. One that loops is seen at every tick, and stopped with the first one after
//! its deadline: not later than a millisecond after it, if the machine runs both threads; on a busy one, after a
//! millisecond of its own running time more.

use wasmtime::UpdateDeadline;

use super::ticker::Clock;

/// Ticks at which a guest must have been seen running before it can be too late.
const SEEN_RUNNING: u32 = 2;

/// The time of one call.
pub(super) struct Deadline {
    clock: Clock,
    started_ms: u64,
    limit_ms: u32,
    seen: u32,
}

impl Deadline {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, started_ms: 0, limit_ms: 0, seen: 0 }
    }

    /// Before a call.
    #[inline]
    pub(super) fn start(&mut self, limit_ms: u32) {
        self.started_ms = self.clock.now_ms();
        self.limit_ms = limit_ms;
        self.seen = 0;
    }

    /// At a tick that the guest sees.
    #[cold]
    pub(super) fn on_tick(&mut self) -> UpdateDeadline {
        self.seen += 1;
        // The call began within its first millisecond, so only the one after the limit is surely over.
        let is_over = self.elapsed_ms() > u64::from(self.limit_ms);
        if is_over && self.seen >= SEEN_RUNNING { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) }
    }

    /// Since the call began, in ms, rounded up or down.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.clock.now_ms().saturating_sub(self.started_ms)
    }

    pub(super) fn limit_ms(&self) -> u32 {
        self.limit_ms
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

    fn stopped(deadline: &mut Deadline) -> bool {
        matches!(deadline.on_tick(), UpdateDeadline::Interrupt)
    }

    #[test]
    fn a_guest_that_runs_is_stopped_with_the_first_tick_after_its_time() {
        let clock = Clock::default();
        clock.advance(1_000);
        let mut deadline = Deadline::new(clock.clone());
        deadline.start(5);
        for ms in 1..=5 {
            clock.advance(1);
            assert!(!stopped(&mut deadline), "{ms}");
        }
        clock.advance(1);
        assert!(stopped(&mut deadline));
        deadline.start(5);
        clock.advance(1);
        assert!(!stopped(&mut deadline), "the next call has its own time");
    }

    #[test]
    fn a_guest_that_was_put_aside_for_long_may_finish_but_not_loop() {
        let clock = Clock::default();
        let mut deadline = Deadline::new(clock.clone());
        deadline.start(5);
        assert_eq!(deadline.seen(), 0);
        clock.advance(300);
        assert!(!stopped(&mut deadline), "the machine was busy, not the guest");
        assert_eq!(deadline.seen(), 1);
        clock.advance(1);
        assert!(stopped(&mut deadline));
    }

    #[test]
    fn time_put_aside_is_not_given_back() {
        let clock = Clock::default();
        let mut deadline = Deadline::new(clock.clone());
        deadline.start(5);
        clock.advance(1);
        assert!(!stopped(&mut deadline));
        clock.advance(300);
        assert!(stopped(&mut deadline));
    }
}
