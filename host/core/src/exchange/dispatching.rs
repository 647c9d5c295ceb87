//! The decision carried out: a permit is had, the attempt is described; or the way leads back to the question.

use std::sync::Arc;

use super::arrival::wanted;
use super::{Action, Exchange, Join, Phase, Sending, Shown};
use crate::contract::{Decision, Dispatch, Resume};
use crate::fleet::{Fleet, Permit};
use crate::table::{Lane, Timeouts};
use crate::time::Timestamp;
use crate::view::Want;

/// The capability of a backend that can continue an answer that is put into its mouth.
const PREFILL: &str = "prefill";

/// Dispatches of one exchange that could not be had and are put to the policy again.
pub(super) const MAX_LOST_RACES: u32 = 3;

impl Exchange {
    pub(super) fn decided(
        &mut self,
        fleet: &mut Fleet,
        now: Timestamp,
        held: Option<Permit>,
        shown: &[Shown],
        decision: Decision,
    ) -> Action {
        match decision {
            Decision::Primary(dispatch) => self.dispatch(fleet, now, held, Lane::Primary, dispatch),
            Decision::Fallback(dispatch) => self.dispatch(fleet, now, held, Lane::Fallback, dispatch),
            Decision::Emergency(dispatch) => self.dispatch(fleet, now, held, Lane::Emergency, dispatch),
            Decision::Wait(hold) => {
                self.give_up_permit(fleet, held);
                self.policy_wait(fleet, now, hold, shown)
            }
            Decision::Reject(rejection) => {
                self.give_up_permit(fleet, held);
                self.rejected(fleet, now, rejection)
            }
        }
    }

    pub(super) fn dispatch(
        &mut self,
        fleet: &mut Fleet,
        now: Timestamp,
        held: Option<Permit>,
        lane: Lane,
        dispatch: Dispatch,
    ) -> Action {
        if self.attempts.len() as u32 >= self.budgets.max_attempts {
            self.give_up_permit(fleet, held);
            return self.exhausted(fleet, now);
        }
        let held = match dispatch.model {
            Some(model) if self.ask_for(model) => {
                self.give_up_permit(fleet, held);
                None
            }
            Some(_) | None => held,
        };
        let fits = |p: &Permit| p.lane == lane && dispatch.backend.is_none_or(|b| b == p.backend);
        let held = match held {
            Some(permit) if !fleet.is_usable(now, &permit) => {
                fleet.refund(permit);
                None
            }
            Some(permit) if fits(&permit) => return self.send(now, permit, dispatch),
            // The same slot in another lane: it has to come free first.
            Some(permit) if dispatch.backend == Some(permit.backend) => {
                fleet.refund(permit);
                None
            }
            other => other,
        };
        match fleet.acquire(now, &self.view, &self.want, lane, dispatch.backend) {
            Ok(permit) => {
                self.give_up_permit(fleet, held);
                self.send(now, permit, dispatch)
            }
            // Somebody else was quicker: the policy may know another way.
            Err(_) if self.lost_races < MAX_LOST_RACES => {
                self.lost_races += 1;
                self.ask(fleet, now, held)
            }
            // It insists on what is not to be had now: that becomes a wait for just that.
            Err(_) => {
                self.give_up_permit(fleet, held);
                self.wait_for_dispatch(fleet, now, lane, dispatch.backend)
            }
        }
    }

    /// From now on the exchange is for another model of the table; its place in line stays. False where that changes
    /// nothing: it is the same, or nobody serves it for this kind of request.
    pub(super) fn ask_for(&mut self, model: u32) -> bool {
        let Some(model) = self.view.table.models.get(model as usize).filter(|m| **m != *self.want.model) else {
            return false;
        };
        let want = wanted(&self.view, &Arc::from(model.as_str()), &self.facts, self.want.tokens);
        let want = self.confined(want);
        let want = self.among_others(want);
        let want = self.view.at_home(want, self.home);
        if want.candidates.is_empty() {
            return false;
        }
        self.want = Want { rank: self.want.rank, origin: self.want.origin.clone(), ..want };
        true
    }

    pub(super) fn send(&mut self, now: Timestamp, permit: Permit, dispatch: Dispatch) -> Action {
        let backend = self.view.backend(permit.backend);
        let left = self.budgets.max_total.saturating_sub(self.spent(now));
        let t = backend.timeouts;
        let sending = Sending {
            backend: permit.backend,
            lane: permit.lane,
            model: backend.sent_model(&self.want.model).unwrap_or_else(|| self.want.model.to_string()),
            timeouts: Timeouts {
                connect: t.connect,
                first_byte: dispatch.first_byte.unwrap_or(t.first_byte),
                first_token: dispatch.first_token.unwrap_or(t.first_token),
                idle: dispatch.idle.unwrap_or(t.idle),
                total: dispatch.total.unwrap_or(t.total).min(left),
                stream_total: dispatch.total.or(t.stream_total),
            },
            commit: dispatch.commit.unwrap_or(self.streams.commit),
            resume: dispatch.resume.unwrap_or(self.streams.resume),
            join: self.resuming.then(|| self.join(permit.backend, dispatch.resume)),
        };
        self.sent_at = now;
        self.phase = Phase::Sending { permit, sending: sending.clone() };
        Action::Send(sending)
    }

    /// Chooses how an attempt at this backend continues the delivered text. Only a backend with the capability gets a
    /// prefill.
    pub(super) fn join(&self, backend: u32, resume: Option<Resume>) -> Join {
        let is_able = self.view.backend(backend).capabilities.get(PREFILL).copied().unwrap_or(false);
        match resume.unwrap_or(self.streams.resume) {
            Resume::Prefill if is_able && !self.no_prefill.contains(&backend) => Join::Prefill,
            Resume::Prefill | Resume::Splice | Resume::None => Join::Splice,
        }
    }
}
