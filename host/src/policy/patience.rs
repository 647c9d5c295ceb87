//! How often a component that keeps failing at great expense is still asked.
//!
//! A failure that costs microseconds can be had for every request. One that costs the whole deadline, or a slow start of a
//! fresh instance, cannot: it takes a thread from everybody else. After a few such failures in a row the component is
//! asked only so often that it wastes a twentieth of one thread's time; in between the twin decides at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Fault;

/// Expensive failures in a row that have no consequence.
const FREE_STRIKES: u32 = 3;

/// The pause after a failure, in times of what it cost.
const PAUSE_PER_COST: u64 = 20;

/// The longest pause, in ms.
const MAX_PAUSE_MS: u64 = 20_000;

/// The state of one revision's credit. Time is the query's, in ms.
#[derive(Default)]
pub(super) struct Patience {
    strikes: AtomicU32,
    paused_until_ms: AtomicU64,
    last: Mutex<Option<Fault>>,
}

impl Patience {
    /// Why the component is not asked now; none: ask it.
    #[inline]
    pub(super) fn refusal(&self, now_ms: u64) -> Option<Fault> {
        if self.strikes.load(Ordering::Relaxed) < FREE_STRIKES { None } else { self.pause(now_ms) }
    }

    /// It answered.
    #[inline]
    pub(super) fn went_well(&self) {
        let strikes = self.strikes.load(Ordering::Relaxed);
        if strikes > 0 {
            // Whoever is first; a strike more or less does not matter.
            let _ = self.strikes.compare_exchange(strikes, strikes - 1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// It failed, which took so long.
    #[cold]
    pub(super) fn went_wrong(&self, now_ms: u64, cost_ms: u32, fault: &Fault) {
        if cost_ms == 0 {
            // Whoever was let go ahead is back.
            self.paused_until_ms.store(now_ms, Ordering::Relaxed);
            return;
        }
        let pause_ms = (u64::from(cost_ms) * PAUSE_PER_COST).min(MAX_PAUSE_MS);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.clone());
        self.paused_until_ms.store(now_ms.saturating_add(pause_ms), Ordering::Relaxed);
        let add = |strikes: u32| (strikes < FREE_STRIKES).then_some(strikes + 1);
        // Full already: no more is needed.
        let _ = self.strikes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    #[cold]
    fn pause(&self, now_ms: u64) -> Option<Fault> {
        let until = self.paused_until_ms.load(Ordering::Relaxed);
        let left_ms = until.saturating_sub(now_ms);
        // A pause longer than any is a clock that was set back.
        if left_ms == 0 || left_ms > MAX_PAUSE_MS {
            // One goes ahead; the others wait for what comes of it.
            let next = now_ms.saturating_add(MAX_PAUSE_MS);
            let is_first =
                self.paused_until_ms.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if is_first {
                return None;
            }
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let message =
            format!("not asked, because it failed {FREE_STRIKES} times or more at great expense: {}", last.message);
        Some(Fault { message, ..last })
    }
}

#[cfg(test)]
mod tests {
    use super::super::FaultKind;
    use super::*;

    fn fault() -> Fault {
        Fault { kind: FaultKind::Deadline, message: "no answer".into() }
    }

    #[test]
    fn expensive_failures_in_a_row_make_pauses_and_one_success_ends_them() {
        let patience = Patience::default();
        for now in 0..u64::from(FREE_STRIKES) {
            assert_eq!(patience.refusal(now), None);
            patience.went_wrong(now, 6, &fault());
        }
        let refused = patience.refusal(3).expect("it has no credit left");
        assert_eq!(refused.kind, FaultKind::Deadline);
        assert!(refused.message.contains("no answer"), "{refused}");
        assert!(patience.refusal(121).is_some());
        assert_eq!(patience.refusal(122), None, "twenty times its cost later");
        assert!(patience.refusal(122).is_some(), "but only one question goes ahead");
        patience.went_wrong(122, 6, &fault());
        assert!(patience.refusal(200).is_some());
        assert_eq!(patience.refusal(242), None);
        patience.went_well();
        assert_eq!(patience.refusal(243), None);
    }

    #[test]
    fn cheap_failures_cost_no_credit() {
        let patience = Patience::default();
        for now in 0..100 {
            patience.went_wrong(now, 0, &fault());
            assert_eq!(patience.refusal(now), None);
        }
    }

    #[test]
    fn a_clock_set_back_does_not_make_a_pause_endless() {
        let patience = Patience::default();
        (0..3).for_each(|_| patience.went_wrong(1_000_000_000, 6, &fault()));
        assert!(patience.refusal(1_000_000_001).is_some());
        assert_eq!(patience.refusal(5_000), None);
    }
}
