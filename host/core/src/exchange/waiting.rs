//! Waits: for whom, for how long, and what becomes of one that cannot be.

use std::sync::Arc;
use std::time::Duration;

use super::{Action, Exchange, Phase, Shown};
use crate::contract::Hold;
use crate::fleet::Fleet;
use crate::table::Lane;
use crate::time::Timestamp;
use crate::view::Want;

/// Waits of one exchange that are over at once. They cost a policy call each, and no time.
pub(super) const MAX_EMPTY_WAITS: u32 = 64;

/// The longest wait for a dispatch that could not be had, while there are further waits: the policy is asked again
/// after it, and may have changed its mind.
const DENIED_WAIT: Duration = Duration::from_secs(5);

impl Exchange {
    /// Waits for the backend that a dispatch names, or for any of its lane where it names none.
    ///
    /// What cannot recover, or is known not to within the waiting time that is left, is not waited for. The last wait
    /// takes all of that time, so that no exchange ends while the backend it asks for would still be had.
    pub(super) fn wait_for_dispatch(
        &mut self,
        fleet: &mut Fleet,
        now: Timestamp,
        lane: Lane,
        backend: Option<u32>,
    ) -> Action {
        let left = self.waiting_time_left(now);
        // Also those that need longer, as far as is known now: who comes later must not be given one that is back sooner.
        let is_meant =
            |index: &u32| backend.is_none_or(|named| named == *index) && lane.admits(self.view.backend(*index).tier);
        let candidates: Arc<[u32]> = self.want.candidates.iter().copied().filter(is_meant).collect();
        let in_time = |index: &u32| fleet.may_be_ready_within(now, &self.view, &self.want, lane, *index, left);
        if !candidates.iter().any(in_time) {
            return self.empty_wait(fleet, now);
        }
        let want = Want { candidates, home: None, ..self.want.clone() };
        let is_last = self.waits.saturating_add(1) >= self.budgets.max_waits;
        let max = if is_last { left } else { DENIED_WAIT };
        self.wait(fleet, now, Hold { max, lane }, &want)
    }

    /// A wait of the policy's own is for others than those it was shown as open and turned down: else it would be
    /// granted one of them at once, again and again.
    pub(super) fn policy_wait(&mut self, fleet: &mut Fleet, now: Timestamp, hold: Hold, shown: &[Shown]) -> Action {
        self.longest_hold = self.longest_hold.max(Some(hold.max));
        let turned_down = |s: &Shown| match hold.lane {
            Lane::Primary | Lane::Fallback => s.ready,
            Lane::Emergency => s.open_to_emergency,
        };
        let left = shown.iter().filter(|s| hold.lane.admits(self.view.backend(s.index).tier) && !turned_down(s));
        let candidates: Arc<[u32]> = left.map(|s| s.index).collect();
        if candidates.is_empty() {
            return self.empty_wait(fleet, now);
        }
        let want = Want { candidates, home: None, ..self.want.clone() };
        self.wait(fleet, now, hold, &want)
    }

    pub(super) fn wait(&mut self, fleet: &mut Fleet, now: Timestamp, hold: Hold, want: &Want) -> Action {
        let left = self.waiting_time_left(now);
        if self.waits >= self.budgets.max_waits || left.is_zero() {
            return self.empty_wait(fleet, now);
        }
        match fleet.join(&self.view, want, hold.lane) {
            Some(ticket) => {
                self.queue_full = false;
                self.want.rank = ticket.rank();
                self.phase = Phase::Waiting { ticket, since: now };
                Action::Wait { ticket, max: hold.max.min(left) }
            }
            None => {
                self.queue_full = true;
                self.empty_wait(fleet, now)
            }
        }
    }

    /// Time that this exchange may still wait: of its waits' budget, which time lost in attempts counts against, and of
    /// its own.
    fn waiting_time_left(&self, now: Timestamp) -> Duration {
        let of_waits = self.budgets.max_wait.saturating_sub(self.waited).saturating_sub(self.lost);
        of_waits.min(self.budgets.max_total.saturating_sub(self.spent(now)))
    }

    /// A wait that cannot be is over at once. The policy sees its waits grow, and goes on to what it does without.
    pub(super) fn empty_wait(&mut self, fleet: &mut Fleet, now: Timestamp) -> Action {
        if self.empty_waits >= MAX_EMPTY_WAITS {
            return self.exhausted(fleet, now);
        }
        self.empty_waits += 1;
        self.ask(fleet, now, None)
    }

    pub(super) fn wait_ended(&mut self, now: Timestamp, since: Timestamp) {
        self.waits += 1;
        self.waited += now.since(since);
    }
}
