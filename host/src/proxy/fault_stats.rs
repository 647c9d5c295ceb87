//! Decisions and faults of a policy revision, and its fault breaker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use pointsman_core::lifecycle::fault_breaker::{FaultBreaker, FaultLimits};
use pointsman_core::time::Timestamp;
use pointsman_engine::{Fault, FaultKind};

/// Counts of one revision. Counting takes no lock; a fault does.
pub struct FaultStats {
    decisions: AtomicU64,
    faults: AtomicU64,
    breaker: Mutex<FaultBreaker>,
    trip_reason: OnceLock<String>,
}

impl FaultStats {
    /// Zero counts. Without limits the breaker never trips.
    pub fn new(limits: Option<FaultLimits>) -> Self {
        Self {
            decisions: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            breaker: Mutex::new(FaultBreaker::new(limits)),
            trip_reason: OnceLock::new(),
        }
    }

    /// Continues under other limits; faults so far count.
    pub fn set_limits(&self, limits: Option<FaultLimits>) {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner).set_limits(limits);
    }

    /// Counts a decision and its fault. True once, when this fault trips the breaker. A shortage of instances is no fault.
    #[inline]
    pub fn record_decision(&self, now: Timestamp, fault: Option<&Fault>) -> bool {
        let nth = self.decisions.fetch_add(1, Ordering::Relaxed) + 1;
        fault.is_some_and(|fault| fault.kind != FaultKind::Busy && self.record_fault(now, nth, fault))
    }

    #[cold]
    fn record_fault(&self, now: Timestamp, nth: u64, fault: &Fault) -> bool {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let tripped = self.breaker.lock().unwrap_or_else(PoisonError::into_inner).record_fault(now, nth);
        tripped.is_some_and(|why| self.trip_reason.set(format!("{why}, the last with a {fault}")).is_ok())
    }

    /// The reason why the breaker tripped; none while it has not.
    pub fn trip_reason(&self) -> Option<&str> {
        self.trip_reason.get().map(String::as_str)
    }

    /// Returns the number of decisions since it came into force.
    pub fn decisions(&self) -> u64 {
        self.decisions.load(Ordering::Relaxed)
    }

    /// Returns the number of those that failed.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}
