//! Changes that an operator makes to a backend, and the changes of state to report.

use super::members::Fleet;
use super::state_change::StateChange;
use crate::time::Timestamp;

/// Changes of state kept until they are taken; the oldest are dropped first.
const MAX_CHANGES: usize = 256;

impl Fleet {
    /// Drains a backend or puts it back into service; false when there is none of that id.
    pub fn set_drained(&mut self, now: Timestamp, id: &str, drained: bool) -> bool {
        self.update_member(id, |member| member.set_drained(now, drained))
    }

    /// Ends a backend's cooldowns; false when there is none of that id.
    pub fn clear_cooldown(&mut self, now: Timestamp, id: &str) -> bool {
        self.update_member(id, |member| member.clear_cooldown(now))
    }

    /// Ends the exclusions of a backend that was given another key or base URL: the old key was refused, out of credit,
    /// or did not have the model. False when there is no backend of that id.
    pub fn forget_key_faults(&mut self, now: Timestamp, id: &str) -> bool {
        self.update_member(id, |member| member.forget_key_faults(now))
    }

    /// Returns true if changes of state wait to be reported.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Takes the changes of state to report, oldest first. To be called now and then also without changes: one that
    /// was left out because its backend had changed too often becomes due with time.
    pub fn take_changes(&mut self, now: Timestamp) -> Vec<StateChange> {
        let mut changes: Vec<StateChange> = self.changes.drain(..).collect();
        changes.extend(self.all_mut().filter_map(|member| member.overdue_change(now)));
        changes
    }

    /// Moves a backend's changes of state into the list to report.
    pub(super) fn collect_changes(&mut self, slot: usize) {
        let taken: Vec<StateChange> = self.member_mut(slot).take_changes();
        self.changes.extend(taken);
        let surplus = self.changes.len().saturating_sub(MAX_CHANGES);
        self.changes.drain(..surplus);
    }
}
