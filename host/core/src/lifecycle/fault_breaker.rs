//! The fault breaker: decides from a policy's decisions and faults when to roll it back, as a pure state machine.
//!
//! Two rules, each enough: too large a share of the first decisions, for a policy that never worked, and too many in a
//! short time, for one that stopped working. The first is judged as soon as no later decision could change it.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::time::Timestamp;

/// Limits on the faults of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultLimits {
    /// The first decisions, judged by their share; at least 1.
    pub first_decisions: u32,
    /// The share of those that may fail, in 1/1000; more is too much.
    pub fault_permille: u32,
    /// The time that [`FaultLimits::window_faults`] is about.
    pub window: Duration,
    /// So many faults within the window are too many; 1 to [`FaultLimits::MAX_WINDOW_FAULTS`].
    pub window_faults: u32,
}

impl FaultLimits {
    /// The time of each is remembered.
    pub const MAX_WINDOW_FAULTS: u32 = 10_000;

    /// Faults among the first decisions that are too many.
    fn first_faults(&self) -> u64 {
        u64::from(self.first_decisions) * u64::from(self.fault_permille) / 1_000 + 1
    }
}

impl Default for FaultLimits {
    fn default() -> Self {
        Self { first_decisions: 200, fault_permille: 100, window: Duration::from_secs(60), window_faults: 20 }
    }
}

/// The reason why a policy is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TripCause {
    /// Too many of its first decisions failed.
    FirstDecisions {
        /// Number of those that failed.
        faults: u64,
        /// Decisions asked of it by then.
        of: u64,
    },
    /// Too many decisions failed in a short time.
    Window {
        /// Faults.
        faults: u64,
        /// Between the first and the last of them.
        within: Duration,
    },
}

impl fmt::Display for TripCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TripCause::FirstDecisions { faults, of } => write!(f, "{faults} of its first {of} decisions failed"),
            TripCause::Window { faults, within } => {
                write!(f, "{faults} of its decisions failed within {:.1} s", within.as_secs_f64())
            }
        }
    }
}

/// Counts of one revision's faults, by which it is rolled back.
#[derive(Clone, Debug)]
pub struct FaultBreaker {
    limits: Option<FaultLimits>,
    first_faults: u64,
    /// Times of the latest faults, oldest first; never more than the window's limit.
    recent: VecDeque<Timestamp>,
    is_tripped: bool,
}

impl FaultBreaker {
    /// A revision that has not decided yet; without a limits it is kept whatever it does.
    pub fn new(limits: Option<FaultLimits>) -> Self {
        Self { limits, first_faults: 0, recent: VecDeque::new(), is_tripped: false }
    }

    /// Goes on under another limits; what has been seen counts.
    pub fn set_limits(&mut self, limits: Option<FaultLimits>) {
        self.limits = limits;
    }

    /// Its `nth` decision (from 1) failed at `now`. Says once that it is given up, and nothing from then on.
    pub fn record_fault(&mut self, now: Timestamp, nth: u64) -> Option<TripCause> {
        let limits = self.limits.filter(|_| !self.is_tripped)?;
        let cause = self.first(&limits, nth).or_else(|| self.window(&limits, now));
        self.is_tripped = cause.is_some();
        cause
    }

    fn first(&mut self, limits: &FaultLimits, nth: u64) -> Option<TripCause> {
        if nth > u64::from(limits.first_decisions) {
            return None;
        }
        self.first_faults += 1;
        let faults = self.first_faults;
        (faults >= limits.first_faults()).then_some(TripCause::FirstDecisions { faults, of: nth.max(faults) })
    }

    fn window(&mut self, limits: &FaultLimits, now: Timestamp) -> Option<TripCause> {
        let limit = limits.window_faults.clamp(1, FaultLimits::MAX_WINDOW_FAULTS) as usize;
        self.recent.push_back(now);
        while self.recent.len() > limit {
            self.recent.pop_front();
        }
        let within = now.since(*self.recent.front()?);
        let faults = self.recent.len();
        (faults == limit && within <= limits.window).then_some(TripCause::Window { faults: faults as u64, within })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: FaultLimits =
        FaultLimits { first_decisions: 100, fault_permille: 50, window: Duration::from_secs(10), window_faults: 8 };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    #[test]
    fn a_policy_that_never_works_is_given_up_with_the_first_fault_too_many() {
        let mut breaker = FaultBreaker::new(Some(LIMITS));
        // An hour apart, so that only the share can count.
        let verdicts: Vec<_> = (1..=6).map(|n| breaker.record_fault(at(n * 3_600_000), n)).collect();
        assert_eq!(verdicts[..5], [None; 5]);
        assert_eq!(verdicts[5], Some(TripCause::FirstDecisions { faults: 6, of: 6 }));
        assert_eq!(breaker.record_fault(at(7 * 3_600_000), 7), None, "told once");
    }

    #[test]
    fn a_policy_that_stops_working_is_given_up_by_the_window() {
        let mut breaker = FaultBreaker::new(Some(LIMITS));
        let verdicts: Vec<_> = (0..8).map(|n| breaker.record_fault(at(n * 1_000), 5_000 + n)).collect();
        assert_eq!(verdicts[7], Some(TripCause::Window { faults: 8, within: Duration::from_secs(7) }));
        let told = TripCause::Window { faults: 8, within: Duration::from_micros(1_134_719) }.to_string();
        assert_eq!(told, "8 of its decisions failed within 1.1 s");
        assert_eq!(verdicts[..7], [None; 7]);
    }

    #[test]
    fn rare_faults_are_lived_with_and_no_rule_is_patient() {
        let mut breaker = FaultBreaker::new(Some(LIMITS));
        assert!((0..10_000).all(|n| breaker.record_fault(at(n * 1_500), 101 + n).is_none()));
        let mut patient = FaultBreaker::new(None);
        assert!((1..10_000).all(|n| patient.record_fault(at(0), n).is_none()));
        patient.set_limits(Some(LIMITS));
        assert!(
            (0..8).any(|n| patient.record_fault(at(0), 20_000 + n).is_some()),
            "a limits that comes later counts from then"
        );
    }

    proptest! {
        /// Against the rules written out over the whole past.
        #[test]
        fn it_judges_as_the_rules_say(
            steps in prop::collection::vec((0u64..3_000, prop::bool::weighted(0.3)), 1..400),
            first_decisions in 1u32..200, fault_permille in 0u32..=1_000, window_ms in 0u64..20_000, window_faults in 1u32..40,
        ) {
            let limits = FaultLimits { first_decisions, fault_permille, window: Duration::from_millis(window_ms), window_faults };
            let mut breaker = FaultBreaker::new(Some(limits));
            let (mut now, mut faults) = (0, Vec::new());
            for (nth, (pause, faulted)) in (1..).zip(steps) {
                now += pause;
                if !faulted {
                    continue;
                }
                faults.push((nth, now));
                let first = faults.iter().filter(|(n, _)| *n <= u64::from(first_decisions)).count() as u64;
                let too_many_first = nth <= u64::from(first_decisions)
                    && first * 1_000 > u64::from(first_decisions) * u64::from(fault_permille);
                let in_window = faults.iter().filter(|(_, t)| now - t <= window_ms).count();
                let verdict = breaker.record_fault(at(now), nth);
                prop_assert_eq!(verdict.is_some(), too_many_first || in_window >= window_faults as usize);
                prop_assert!(breaker.recent.len() <= window_faults as usize);
                if verdict.is_some() {
                    break;
                }
            }
        }

        /// Decisions that succeed never make it worse: the same faults, later among the decisions, are judged no harder.
        #[test]
        fn good_decisions_only_help(gaps in prop::collection::vec(1u64..20, 1..60), extra in 0u64..50) {
            let judge = |extra: u64| {
                let mut breaker = FaultBreaker::new(Some(FaultLimits { window_faults: 10_000, ..LIMITS }));
                let mut nth = 0;
                gaps.iter().position(|gap| {
                    nth += gap + extra;
                    breaker.record_fault(at(nth), nth).is_some()
                })
            };
            let (tight, loose) = (judge(0), judge(extra));
            prop_assert!(loose.is_none() || tight.is_some_and(|t| Some(t) <= loose));
        }
    }
}
