//! Results of the shadow policy: counts, and the latest differences.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pointsman_core::time::Timestamp;

use pointsman_core::lifecycle::shadow::{ShadowDrop, ShadowResult};

/// Differences kept to be looked at; the oldest go.
const KEPT: usize = 100;

/// Ties kept to be looked at.
const KEPT_TIES: usize = 20;

/// A shadow that would have decided otherwise, or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergent {
    /// Time at which the question was asked.
    pub at: Timestamp,
    /// Request id of the exchange.
    pub request_id: String,
    /// The model as the client wrote it.
    pub model: String,
    /// Kind of the difference between both decisions.
    pub result: ShadowResult,
    /// The decision that was carried out, in words.
    pub live: String,
    /// The shadow's decision in words, or its fault.
    pub shadow: String,
    /// Notes that the shadow left.
    pub notes: Vec<String>,
}

/// Counts of a shadow's results, and its latest differences.
#[derive(Debug, Default)]
pub struct ShadowStats {
    results: [AtomicU64; ShadowResult::ALL.len()],
    drops: [AtomicU64; ShadowDrop::ALL.len()],
    ran_micros: AtomicU64,
    latest: Mutex<VecDeque<Divergent>>,
    /// Differences that do not matter: another backend was as good.
    ties: Mutex<VecDeque<Divergent>>,
}

impl ShadowStats {
    /// Returns the number of answers with this result.
    pub fn results(&self, result: ShadowResult) -> u64 {
        self.results[result as usize].load(Ordering::Relaxed)
    }

    /// Returns the number of questions dropped for this reason.
    pub fn drops(&self, why: ShadowDrop) -> u64 {
        self.drops[why as usize].load(Ordering::Relaxed)
    }

    /// Returns the total time that the shadow ran.
    pub fn ran(&self) -> Duration {
        Duration::from_micros(self.ran_micros.load(Ordering::Relaxed))
    }

    /// The latest differences, the newest first.
    pub fn latest(&self) -> Vec<Divergent> {
        newest_first(&self.latest)
    }

    /// The latest choices of another backend that was as good, the newest first.
    pub fn ties(&self) -> Vec<Divergent> {
        newest_first(&self.ties)
    }

    /// Returns the number of answers compared with the decision carried out.
    pub fn compared(&self) -> u64 {
        ShadowResult::ALL.into_iter().map(|result| self.results(result)).sum()
    }

    /// Returns the number of answers that differed.
    pub fn different(&self) -> u64 {
        ShadowResult::ALL.into_iter().filter(|result| result.is_different()).map(|result| self.results(result)).sum()
    }

    pub(super) fn count(&self, result: ShadowResult) {
        self.results[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, why: ShadowDrop) {
        self.drops[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ran_for(&self, time: Duration) {
        self.ran_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn keep(&self, divergent: Divergent) {
        let (list, kept) = match divergent.result {
            ShadowResult::Tie => (&self.ties, KEPT_TIES),
            ShadowResult::Same
            | ShadowResult::Terms
            | ShadowResult::Backend
            | ShadowResult::Lane
            | ShadowResult::Wait
            | ShadowResult::Reject
            | ShadowResult::Fault => (&self.latest, KEPT),
        };
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() == kept {
            list.pop_front();
        }
        list.push_back(divergent);
    }
}

fn newest_first(list: &Mutex<VecDeque<Divergent>>) -> Vec<Divergent> {
    list.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
}
