//! The end of an attempt: its permit goes back, what it came to is kept, and what follows from it.

use super::{Action, Ended, Exchange, Join, Phase, Sending};
use crate::contract::{AttemptFacts, Resume};
use crate::fleet::{AttemptReport, Fleet, Permit};
use crate::outcome::{Kind, Outcome};
use crate::record::{AttemptRecord, End};
use crate::time::{Timestamp, millis_u32};

impl Exchange {
    pub(super) fn settle(
        &mut self,
        fleet: &mut Fleet,
        now: Timestamp,
        (mut permit, sending): (Permit, Sending),
        ended: Ended,
        is_committed: bool,
    ) -> Kind {
        let Ended { outcome, usage, first_byte, first_token, upstream_id } = ended;
        let used = usage.total();
        // Who answered without a word about usage has used something; who did not answer has used nothing.
        let known = used > 0 || !matches!(outcome.kind, Kind::Answered | Kind::Cut | Kind::Stalled | Kind::ClientGone);
        let tokens_used = known.then(|| u32::try_from(used).unwrap_or(u32::MAX));
        let sent_at = self.sent_at;
        let tries = self.tries(fleet, now, sending.backend, outcome.kind, is_committed);
        permit.set_request(self.want.origin.request, tries);
        fleet.settle(now, permit, AttemptReport { outcome: &outcome, first_token, tokens_used });
        let backend = self.view.backend(sending.backend);
        let kind = outcome.kind;
        if kind == Kind::NotResumed && sending.join == Some(Join::Prefill) {
            self.no_prefill.push(sending.backend);
        }
        self.scopes.push(outcome.scope);
        self.attempt_facts.push(AttemptFacts {
            backend: sending.backend,
            lane: sending.lane,
            outcome: kind,
            status: outcome.status.unwrap_or(0),
            elapsed_ms: millis_u32(now.since(sent_at)),
            waits_before: self.waits + self.empty_waits,
        });
        let priced_as = self.priced_as.as_deref().unwrap_or(&sending.model);
        self.attempts.push(AttemptRecord {
            backend: backend.id.clone(),
            lane: sending.lane,
            started: sent_at,
            elapsed: now.since(sent_at),
            first_byte,
            first_token,
            outcome: kind,
            scope: outcome.scope,
            status: outcome.status.unwrap_or(0),
            retry_after: outcome.retry_after,
            message: outcome.message,
            usage,
            cost_usd: usage.cost_usd(backend.price(priced_as)),
            model_sent: sending.model,
            upstream_id,
        });
        self.leave_out_after(fleet, now, sending.backend, kind, is_committed);
        kind
    }

    /// `is_final`: a refusal that no other backend is asked about.
    pub(super) fn after_attempt(&mut self, fleet: &mut Fleet, now: Timestamp, kind: Kind, is_final: bool) -> Action {
        match kind {
            Kind::Answered => Action::Finish(End::Delivered),
            Kind::ClientGone => Action::Finish(End::ClientGone),
            // No other try can succeed: what the upstream said is what the client gets.
            Kind::Refused if is_final && !self.resuming => Action::PassOn,
            Kind::ServerError if !self.facts.idempotent => Action::PassOn,
            Kind::Reset | Kind::TimedOut | Kind::Cut | Kind::Stalled | Kind::Malformed if !self.facts.idempotent => {
                Action::Reject(self.not_repeated())
            }
            Kind::Refused
            | Kind::RateLimited
            | Kind::OutOfCredit
            | Kind::Overloaded
            | Kind::ServerError
            | Kind::TooLong
            | Kind::ModelMissing
            | Kind::Unauthorised
            | Kind::ConnectFailed
            | Kind::Reset
            | Kind::TimedOut
            | Kind::Cut
            | Kind::Stalled
            | Kind::Malformed
            | Kind::NotResumed => {
                self.leave_out_breaking(fleet, now);
                if self.want.candidates.is_empty() { self.exhausted(fleet, now) } else { self.ask(fleet, now, None) }
            }
        }
    }

    /// A committed answer broke off and could be continued.
    pub(super) fn broke(&mut self, fleet: &mut Fleet, now: Timestamp, kind: Kind, resume: Resume) -> Action {
        match kind {
            Kind::Answered => Action::Finish(End::Delivered),
            Kind::ClientGone => Action::Finish(End::ClientGone),
            // A verdict on the request: to go on elsewhere would be to get around it.
            Kind::Refused | Kind::TooLong => Action::Finish(End::Broken),
            Kind::RateLimited
            | Kind::OutOfCredit
            | Kind::Overloaded
            | Kind::ServerError
            | Kind::ModelMissing
            | Kind::Unauthorised
            | Kind::ConnectFailed
            | Kind::Reset
            | Kind::TimedOut
            | Kind::Cut
            | Kind::Stalled
            | Kind::Malformed
            | Kind::NotResumed => match resume {
                Resume::None => Action::Finish(End::Broken),
                Resume::Splice | Resume::Prefill => {
                    self.resuming = true;
                    self.ask(fleet, now, None)
                }
            },
        }
    }

    pub(super) fn abandon(&mut self, fleet: &mut Fleet, now: Timestamp, phase: Phase) -> Action {
        match phase {
            Phase::New | Phase::Done => {}
            Phase::Asking { held, .. } => self.give_up_permit(fleet, held),
            Phase::Waiting { ticket, since } => {
                fleet.leave(ticket);
                self.wait_ended(now, since);
                if !self.attempt_facts.is_empty() {
                    // All that was tried had failed: what its client sends next is the same run.
                    self.exhausted_until = Some(now + self.recovery(fleet, now));
                }
            }
            Phase::Sending { permit, sending } | Phase::Relaying { permit, sending } => {
                let gone = Outcome::new(Kind::ClientGone, "the client went away");
                self.settle(fleet, now, (permit, sending), Ended::failed(gone), false);
            }
        }
        Action::Finish(End::ClientGone)
    }
}
