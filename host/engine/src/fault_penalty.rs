//! The limit on the time that a component's failures may take.
//!
//! A failure that costs microseconds is affordable for every request. One that costs the whole deadline, or a slow start of a
//! fresh instance, is not: it occupies a thread. The cost of failures is a debt that elapsed time pays off at a rate of one
//! twentieth; while the debt is too large the native fallback decides at once. So, apart from the first few, failures take at
//! most a twentieth of one thread, however many answers come in between.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Fault;

/// Time that pays off one ms of failures, in ms.
const MS_PER_WASTED_MS: u64 = 20;

/// The longest time to pay off a debt that has no consequence, in ms.
const TOLERANCE_MS: u64 = 400;

/// The longest time to pay off any debt, in ms.
const MAX_DEBT_MS: u64 = 20_000;

/// The beginning of the message of a fault when the component was not asked at all.
pub(crate) const NOT_ASKED: &str = "not asked for";

/// One revision's debt. Time is the query's, in ms.
#[derive(Default)]
pub(crate) struct FaultPenalty {
    /// The time at which the debt is paid off.
    free_at_ms: AtomicU64,
    last: Mutex<Option<Fault>>,
}

impl FaultPenalty {
    /// The fault to report instead of asking the component; none: ask it.
    #[inline]
    pub(crate) fn refusal(&self, now_ms: u64) -> Option<Fault> {
        let debt_ms = self.free_at_ms.load(Ordering::Relaxed).saturating_sub(now_ms);
        if debt_ms <= TOLERANCE_MS { None } else { self.refuse(debt_ms) }
    }

    /// Records a fault and the time it cost.
    #[cold]
    pub(crate) fn record_fault(&self, now_ms: u64, cost_ms: u32, fault: &Fault) {
        if cost_ms == 0 {
            return;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.clone());
        let charge = |free_at: u64| {
            // A debt larger than any is a clock that was set back.
            let debt_ms = Some(free_at.saturating_sub(now_ms)).filter(|&debt| debt <= MAX_DEBT_MS).unwrap_or(0);
            let debt_ms = (debt_ms + u64::from(cost_ms) * MS_PER_WASTED_MS).min(MAX_DEBT_MS);
            Some(now_ms.saturating_add(debt_ms))
        };
        // It always has a new value, so it cannot fail.
        let _ = self.free_at_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charge);
    }

    #[cold]
    fn refuse(&self, debt_ms: u64) -> Option<Fault> {
        if debt_ms > MAX_DEBT_MS {
            return None;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let pause_ms = debt_ms - TOLERANCE_MS;
        let message = format!("{NOT_ASKED} {pause_ms} ms, because its failures cost too much time: {}", last.message);
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
    fn a_few_expensive_failures_are_free_and_more_are_paid_for_with_time() {
        let penalty = FaultPenalty::default();
        for _ in 0..4 {
            assert_eq!(penalty.refusal(1_000), None);
            penalty.record_fault(1_000, 6, &fault());
        }
        let refused = penalty.refusal(1_000).expect("480 ms of debt");
        assert_eq!(refused.kind, FaultKind::Deadline);
        assert!(refused.message.starts_with("not asked for 80 ms") && refused.message.contains("no answer"));
        assert!(penalty.refusal(1_079).is_some());
        assert_eq!(penalty.refusal(1_080), None);
        penalty.record_fault(1_080, 6, &fault());
        assert!(penalty.refusal(1_199).is_some(), "twenty times what it cost");
        assert_eq!(penalty.refusal(1_200), None);
    }

    #[test]
    fn answers_in_between_pay_for_nothing() {
        let penalty = FaultPenalty::default();
        let asked = (0..100_000).filter(|&now| {
            let is_asked = penalty.refusal(now).is_none();
            if is_asked && now % 5 == 0 {
                penalty.record_fault(now, 6, &fault());
            }
            is_asked && now % 5 == 0
        });
        let wasted_ms = asked.count() * 6;
        assert!((4_900..5_200).contains(&wasted_ms), "{wasted_ms} ms of 100,000");
    }

    #[test]
    fn cheap_failures_make_no_debt() {
        let penalty = FaultPenalty::default();
        for now in 0..100 {
            penalty.record_fault(now, 0, &fault());
            assert_eq!(penalty.refusal(now), None);
        }
    }

    #[test]
    fn a_clock_set_back_does_not_make_a_pause_endless() {
        let penalty = FaultPenalty::default();
        (0..5).for_each(|_| penalty.record_fault(1_000_000_000, 6, &fault()));
        assert!(penalty.refusal(1_000_000_001).is_some());
        assert_eq!(penalty.refusal(5_000), None);
    }
}
