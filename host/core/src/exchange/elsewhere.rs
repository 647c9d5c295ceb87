//! Other backends: who is left out after a hang, and whether anybody could answer sooner than the attempt under way.

use std::sync::Arc;
use std::time::Duration;

use super::tries::is_failure;
use super::{Action, Exchange, Phase, Sending};
use crate::contract::Resume;
use crate::fleet::Fleet;
use crate::origin::Origin;
use crate::outcome::Kind;
use crate::overdue::Overdue;
use crate::table::Lane;
use crate::time::Timestamp;
use crate::view::Want;

/// A backend that is ready within this time counts as ready.
const SOON: Duration = Duration::from_secs(1);

/// The longest time between two looks for somebody else while an attempt is overdue.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Exchange {
    /// Decides about the attempt under way when a time limit that fails over has passed: `None` ends it, because another
    /// backend is or soon will be ready; else the limit is put off to the time returned, and that is noted. An attempt that
    /// goes on so is a probe no more: the next one may be.
    ///
    /// `can_resume`: what was delivered of it, if anything was, can be continued by another.
    pub fn overdue(
        &mut self,
        fleet: &mut Fleet,
        now: Timestamp,
        overdue: Overdue,
        can_resume: bool,
    ) -> Option<Timestamp> {
        let (sending, is_committed) = match &self.phase {
            Phase::Sending { sending, .. } => (sending, false),
            Phase::Relaying { sending, .. } => (sending, true),
            Phase::New | Phase::Asking { .. } | Phase::Waiting { .. } | Phase::Done => return None,
        };
        let may_fail_over = self.may_fail_over(now, sending, is_committed, can_resume);
        let backend = sending.backend;
        let is_out = |index| index == backend || self.has_final_word(index);
        let other = may_fail_over.then(|| fleet.earliest_other(now, &self.view, &self.want, is_out)).flatten();
        let later = match other {
            Some(ready_in) if ready_in <= SOON => return None,
            Some(ready_in) => (ready_in - SOON).min(LOOK_AGAIN),
            None => LOOK_AGAIN,
        };
        if let Some(permit) = self.permit() {
            fleet.return_probe(permit);
        }
        self.note_overdue(backend, overdue);
        Some(now + later)
    }

    /// Returns true if another attempt may follow when this one is ended.
    fn may_fail_over(&self, now: Timestamp, sending: &Sending, is_committed: bool, can_resume: bool) -> bool {
        let has_attempts = (self.attempts.len() as u32).saturating_add(1) < self.budgets.max_attempts;
        let may_repeat =
            if is_committed { can_resume && sending.resume != Resume::None } else { self.facts.idempotent };
        has_attempts && may_repeat && self.spent(now) < self.budgets.max_total
    }

    /// Once for each attempt and limit.
    fn note_overdue(&mut self, backend: u32, overdue: Overdue) {
        let this = (self.attempts.len(), overdue.bet);
        if self.noted_overdue.replace(this) == Some(this) {
            return;
        }
        let (id, Overdue { bet, limit }) = (&self.view.backend(backend).id, overdue);
        let (missing, setting) = (bet.missing(), bet.setting());
        self.warnings.push(format!(
            "{id}: {missing} within {limit:?} (timeouts.{setting}), and no other backend is ready: the attempt goes on"
        ));
    }

    /// Takes the warnings for the record.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Time that counts against the exchange's total: all but that in which an answer was relayed.
    pub(super) fn spent(&self, now: Timestamp) -> Duration {
        let relaying = self.relaying_since.map_or(Duration::ZERO, |since| now.since(since));
        now.since(self.arrived).saturating_sub(self.relayed).saturating_sub(relaying)
    }

    /// An answer is relayed no longer.
    pub(super) fn relay_ended(&mut self, now: Timestamp) {
        if let Some(since) = self.relaying_since.take() {
            self.relayed += now.since(since);
        }
    }

    /// After an attempt there: one that hung is not asked again in this exchange. After an exhausted exchange of the same request
    /// nobody that failed before its commit is, and nobody else that has failed: the one try was this. Nor is anybody once the
    /// exchange has tried as often as its client would.
    pub(super) fn leave_out_after(
        &mut self,
        fleet: &Fleet,
        now: Timestamp,
        backend: u32,
        kind: Kind,
        is_committed: bool,
    ) {
        let hung = matches!(kind, Kind::TimedOut | Kind::Stalled);
        let failed = !is_committed && is_failure(kind);
        if hung || failed && self.exhausted_before.is_some() {
            self.leave_out(backend);
        }
        if failed && !hung && self.exhausted_before.is_some() {
            self.leave_out_failed(fleet, now);
        } else if failed && self.has_tried_enough() {
            let tried: Vec<u32> = self.attempt_facts.iter().map(|attempt| attempt.backend).collect();
            tried.into_iter().for_each(|backend| self.leave_out(backend));
        }
    }

    /// Leaves out who has failed since its last answer.
    fn leave_out_failed(&mut self, fleet: &Fleet, now: Timestamp) {
        let whole = self.whole_want();
        let has_failed = |index: &u32| fleet.last_failure(now, &self.view, &whole, *index).is_some();
        let failed: Vec<u32> = self.want.candidates.iter().copied().filter(has_failed).collect();
        failed.into_iter().for_each(|index| self.leave_out(index));
    }

    /// Does not ask it again in this exchange.
    pub(super) fn leave_out(&mut self, backend: u32) {
        if !self.left_out.contains(&backend) {
            self.left_out.push(backend);
            self.want = self.among_others(self.want.clone());
        }
    }

    /// The same want without the backends that are left out.
    pub(super) fn among_others(&self, want: Want) -> Want {
        if self.left_out.is_empty() {
            return want;
        }
        want.among(|index| !self.left_out.contains(&index))
    }

    /// The want of this exchange with the backends that are left out, and without its own pauses: what the backends would say
    /// to another exchange with the same request.
    pub(super) fn whole_want(&self) -> Want {
        let origin = Origin { exchange: 0, ..self.want.origin.clone() };
        if self.left_out.is_empty() {
            return Want { origin, ..self.want.clone() };
        }
        let mut candidates: Vec<u32> = self.want.candidates.iter().chain(&self.left_out).copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        Want { candidates: Arc::from(candidates), origin, ..self.want.clone() }
    }

    /// The beginning of an exchange whose request was just found exhausted: it is told so again while nobody is ready, or nobody
    /// that it may try.
    pub(super) fn exhausted_again(&mut self, fleet: &Fleet, now: Timestamp) -> Option<Action> {
        let before = self.exhausted_before?;
        if !before.may_try {
            self.leave_out_failed(fleet, now);
        }
        let is_ready = |lane| fleet.earliest_ready(now, &self.view, &self.want, lane) == Some(Duration::ZERO);
        let anyone = is_ready(Lane::Primary) || is_ready(Lane::Fallback);
        (self.want.candidates.is_empty() || now < before.until && !anyone).then(|| self.exhausted(fleet, now))
    }
}
