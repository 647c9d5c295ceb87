//! Conclusions from the attempts of this exchange for the next one.

use pointsman_sdk::{Attempt, Lane, Outcome};

/// The attempts so far, oldest first.
#[derive(Clone, Copy)]
pub(crate) struct History<'a> {
    attempts: &'a [Attempt],
}

impl<'a> History<'a> {
    /// Times a fallback may be tried in one exchange.
    const TRIES_PER_FALLBACK: u32 = 2;

    pub(crate) fn of(attempts: &'a [Attempt]) -> Self {
        Self { attempts }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Attempts in the primary lane.
    pub(crate) fn primaries(&self) -> u32 {
        self.count(|a| a.lane == Lane::Primary)
    }

    /// Attempts in the primary lane since the last of so many waits.
    pub(crate) fn primaries_since(&self, waits: u32) -> u32 {
        self.count(|a| a.lane == Lane::Primary && a.waits_before >= waits)
    }

    /// Attempts in the fallback lane.
    pub(crate) fn fallbacks(&self) -> u32 {
        self.count(|a| a.lane == Lane::Fallback)
    }

    /// Attempts of this backend in the emergency lane.
    pub(crate) fn emergencies_of(&self, backend: usize) -> u32 {
        self.count(|a| a.lane == Lane::Emergency && a.backend == backend)
    }

    /// Waits before the first attempt in the emergency lane; none before that attempt.
    pub(crate) fn waits_before_emergency(&self) -> Option<u32> {
        self.attempts.iter().find(|a| a.lane == Lane::Emergency).map(|a| a.waits_before)
    }

    /// Returns true if this exchange has tried it, in any lane.
    #[inline]
    pub(crate) fn tried(&self, backend: usize) -> bool {
        self.attempts.iter().any(|a| a.backend == backend)
    }

    /// Returns true if it was the last one tried.
    pub(crate) fn is_last(&self, backend: usize) -> bool {
        self.attempts.last().is_some_and(|a| a.backend == backend)
    }

    /// Returns true if another attempt there may succeed. Not after it said that it has no such model, or no room for
    /// this prompt.
    #[inline]
    pub(crate) fn usable(&self, backend: usize) -> bool {
        let final_word = |o: Outcome| matches!(o, Outcome::TooLong | Outcome::ModelMissing | Outcome::Refused);
        !self.attempts.iter().any(|a| a.backend == backend && final_word(a.outcome))
    }

    /// Returns true if the fallback lane may use it (again).
    pub(crate) fn may_fall_back_to(&self, backend: usize) -> bool {
        self.usable(backend)
            && self.count(|a| a.lane == Lane::Fallback && a.backend == backend) < Self::TRIES_PER_FALLBACK
    }

    /// Returns true if its last attempt in this exchange met a rate limit.
    pub(crate) fn is_rate_limited(&self, backend: usize) -> bool {
        let last = self.attempts.iter().rev().find(|a| a.backend == backend);
        last.is_some_and(|a| a.outcome == Outcome::RateLimited)
    }

    /// Time lost in attempts that hung, in ms.
    pub(crate) fn lost_ms(&self) -> u64 {
        let hung = |a: &&Attempt| matches!(a.outcome, Outcome::TimedOut | Outcome::Stalled);
        self.attempts.iter().filter(hung).map(|a| u64::from(a.elapsed_ms)).sum()
    }

    fn count(&self, which: impl Fn(&Attempt) -> bool) -> u32 {
        self.attempts.iter().filter(|a| which(a)).count() as u32
    }
}
