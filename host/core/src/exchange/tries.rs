//! Tries: how often this exchange has failed at a backend, so that it is repeated there at a growing pace and not at that of
//! the backend's cooldowns.

use super::Exchange;
use crate::contract::{AttemptFacts, RowState};
use crate::fleet::Fleet;
use crate::fleet::health::Tries;
use crate::outcome::Kind;
use crate::time::Timestamp;

/// Tries from which on a request is given the longest pause.
const MANY: u32 = 3;

impl Exchange {
    /// Counts the failed tries that an attempt at this backend, which has just failed so, adds to: those here or, where that is
    /// more, those at any backend beyond the first at each. After an exhausted exchange of the same request every one counts.
    ///
    /// Another backend that is ready and was not asked makes a third try here pointless, except where a limit is waited out.
    pub(super) fn tries(
        &mut self,
        fleet: &Fleet,
        now: Timestamp,
        backend: u32,
        kind: Kind,
        is_committed: bool,
    ) -> Tries {
        if is_committed && self.resuming {
            self.counted_from = self.attempt_facts.len();
        }
        // What broke after its commit is repeated once, and by each other one.
        if self.exhausted_before.is_some() || self.resuming && !is_committed && is_fault(kind) {
            return Tries { count: MANY, wait: self.longest_hold };
        }
        let before = self.counted();
        let mut failed: Vec<u32> = before.iter().filter(is_try).map(|a| a.backend).collect();
        failed.push(backend);
        let here = failed.iter().filter(|failed_at| **failed_at == backend).count();
        let all = failed.len();
        failed.sort_unstable();
        failed.dedup();
        let again = all - failed.len();
        let count = u32::try_from(here.max(again + 1)).unwrap_or(u32::MAX);
        let is_faulty = |a: &AttemptFacts| a.backend == backend && is_fault(a.outcome);
        let is_pointless = is_fault(kind) && before.iter().any(is_faulty) && self.is_other_ready(fleet, now);
        Tries { count: if is_pointless { count.max(MANY) } else { count }, wait: self.longest_hold }
    }

    /// The attempts that count as tries.
    fn counted(&self) -> &[AttemptFacts] {
        self.attempt_facts.get(self.counted_from..).unwrap_or_default()
    }

    /// Returns true if the exchange has tried every candidate, and together as often as its client would by itself: one time
    /// more than there are backends. At a single backend, and where one has no room or is not there, that holds for a client
    /// that says that it repeats; another is served when the backend serves others, and has the emergency lane.
    pub(super) fn has_tried_enough(&self) -> bool {
        let mut tried: Vec<u32> = self.counted().iter().filter(is_try).map(|a| a.backend).collect();
        let tries = tried.len();
        tried.sort_unstable();
        tried.dedup();
        let is_of_backend =
            |a: &AttemptFacts| matches!(a.outcome, Kind::RateLimited | Kind::Overloaded | Kind::ConnectFailed);
        let may_end = self.announces_retries || tried.len() > 1 && !self.counted().iter().any(is_of_backend);
        let is_untried = |index: &u32| !tried.contains(index);
        may_end && tries > tried.len() && !self.want.candidates.iter().any(is_untried)
    }

    /// Returns true if a candidate that was not asked is ready.
    fn is_other_ready(&self, fleet: &Fleet, now: Timestamp) -> bool {
        let is_asked = |index: u32| self.attempt_facts.iter().any(|attempt| attempt.backend == index);
        let is_ready = |index: u32| fleet.state_for(now, &self.view, &self.want, index).0 == RowState::Ready;
        self.want.candidates.iter().any(|&index| !is_asked(index) && is_ready(index))
    }
}

/// Returns true for a failed attempt that counts as a try.
fn is_try(attempt: &&AttemptFacts) -> bool {
    is_failure(attempt.outcome)
}

/// Returns true where the backend gave no answer, for whatever reason of its own.
pub(super) const fn is_failure(kind: Kind) -> bool {
    !matches!(kind, Kind::Answered | Kind::ClientGone | Kind::NotResumed)
}

/// Returns true for a failure that no limit explains.
const fn is_fault(kind: Kind) -> bool {
    is_failure(kind) && !matches!(kind, Kind::RateLimited)
}
