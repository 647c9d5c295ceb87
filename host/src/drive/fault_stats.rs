//! A policy revision in force, under watch: what it decided and how often it failed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use pointsman_core::lifecycle::fault_breaker::{Probation, Rule};
use pointsman_core::time::Timestamp;
use pointsman_engine::{Fault, FaultKind};

/// Counts without a lock; only a fault takes one.
pub struct Conduct {
    decisions: AtomicU64,
    faults: AtomicU64,
    probation: Mutex<Probation>,
    given_up: OnceLock<String>,
}

impl Conduct {
    /// A revision that has just come into force.
    pub fn new(rule: Option<Rule>) -> Self {
        Self {
            decisions: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            probation: Mutex::new(Probation::new(rule)),
            given_up: OnceLock::new(),
        }
    }

    /// Goes on under another rule.
    pub fn set_rule(&self, rule: Option<Rule>) {
        self.probation.lock().unwrap_or_else(PoisonError::into_inner).set_rule(rule);
    }

    /// It was asked. True, once, when it failed so often by now that it is given up.
    #[inline]
    pub fn decided(&self, now: Timestamp, fault: Option<&Fault>) -> bool {
        let nth = self.decisions.fetch_add(1, Ordering::Relaxed) + 1;
        fault.is_some_and(|fault| fault.kind != FaultKind::Busy && self.failed(now, nth, fault))
    }

    #[cold]
    fn failed(&self, now: Timestamp, nth: u64, fault: &Fault) -> bool {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let given_up = self.probation.lock().unwrap_or_else(PoisonError::into_inner).fault(now, nth);
        given_up.is_some_and(|why| self.given_up.set(format!("{why}, the last with a {fault}")).is_ok())
    }

    /// Why it is given up; none: it is not.
    pub fn given_up(&self) -> Option<&str> {
        self.given_up.get().map(String::as_str)
    }

    /// Decisions asked of it.
    pub fn decisions(&self) -> u64 {
        self.decisions.load(Ordering::Relaxed)
    }

    /// How many of them failed.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}
