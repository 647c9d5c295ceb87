//! Refusals: the message, its cause and the Retry-After of an exchange that ends without an answer.

use std::time::Duration;

use super::{Action, Exchange, Facts, Reason, Refusal};
use crate::contract::{AttemptFacts, Rejection, RowState};
use crate::fleet::Fleet;
use crate::outcome::Kind;
use crate::suited::{Unsuited, shown};
use crate::table::{Backend, Lane};
use crate::time::Timestamp;

/// Names listed in an error.
const SHOWN_BACKENDS: usize = 8;

/// The Retry-After where no backend's recovery is known.
const UNKNOWN_RECOVERY: Duration = Duration::from_secs(5);

impl Exchange {
    pub(super) fn rejected(&mut self, fleet: &mut Fleet, now: Timestamp, rejection: Rejection) -> Action {
        if rejection.status == 0 {
            return self.exhausted(fleet, now);
        }
        Action::Reject(Refusal {
            reason: Reason::Policy { status: rejection.status, kind: rejection.kind },
            message: rejection.message,
            retry_after: rejection.retry_after,
        })
    }

    /// Everything was tried. When every upstream refused the request itself, its refusal explains more than our words.
    pub(super) fn exhausted(&mut self, fleet: &Fleet, now: Timestamp) -> Action {
        let refused = |a: &AttemptFacts| matches!(a.outcome, Kind::Refused | Kind::TooLong | Kind::ModelMissing);
        if !self.resuming && !self.attempt_facts.is_empty() && self.attempt_facts.iter().all(refused) {
            return Action::PassOn;
        }
        // Over its budget a client has not asked those that cost money.
        if !self.free_only
            && let Some(missing) = self.missing_everywhere(fleet, now)
        {
            return Action::Reject(missing);
        }
        let (reason, message) = match self.queue_full {
            true => (Reason::QueueFull, why_no_room(fleet)),
            false => (Reason::Exhausted, self.why_exhausted(fleet, now)),
        };
        let over_budget = if self.free_only {
            "; backends that cost money are left out, because the client's budget of the day is spent"
        } else {
            ""
        };
        let message = message + over_budget;
        Action::Reject(Refusal { reason, message, retry_after: Some(self.recovery(fleet, now)) })
    }

    pub(super) fn why_exhausted(&self, fleet: &Fleet, now: Timestamp) -> String {
        let rows = fleet.rows(now, &self.view, &self.want, None);
        let of = |&index: &u32| {
            let id = &self.view.backend(index).id;
            // For this very request: one that is too large for what a limit leaves is not what the policy could have had.
            let is_ready = rows[index as usize].is(RowState::Ready);
            let last = self.attempt_facts.iter().rfind(|attempt| attempt.backend == index);
            match last {
                None if is_ready => return format!("{id} is ready, but the policy did not choose it"),
                Some(last) if is_ready => return format!("{id} failed at it ({})", last.outcome.as_str()),
                None | Some(_) => {}
            }
            match fleet.state_for(now, &self.view, &self.want, index) {
                (RowState::Cooling, Some((until, reason))) => {
                    let left = until.since(now).as_secs_f64();
                    format!("{id} is cooling down for {left:.1} s ({})", reason.as_str())
                }
                (RowState::Drained, _) => format!("{id} is drained"),
                (RowState::Probing, _) => format!("{id} is being probed"),
                (RowState::Ready | RowState::Throttled | RowState::Cooling | RowState::Unsuited, _) => {
                    format!("{id} is at its limits")
                }
            }
        };
        let candidates = self.want.candidates.iter().map(of);
        let unsuited = self.unsuited();
        let no_others = match unsuited.is_empty() {
            true => String::new(),
            false => {
                format!("; no other backend serves {:?}: {}", shown(&self.want.model), unsuited)
            }
        };
        format!(
            "No backend could answer after {} attempts and {:.1} s of waiting: {}{no_others}",
            self.attempts.len(),
            self.waited.as_secs_f64(),
            listed(candidates, ", "),
        )
    }

    /// Every backend that could serve the model has said that it does not have it: a retry cannot help.
    fn missing_everywhere(&self, fleet: &Fleet, now: Timestamp) -> Option<Refusal> {
        let until_known = |&index: &u32| match fleet.state_for(now, &self.view, &self.want, index) {
            (RowState::Cooling, Some((until, Kind::ModelMissing))) => Some(until),
            (
                RowState::Ready
                | RowState::Throttled
                | RowState::Cooling
                | RowState::Probing
                | RowState::Drained
                | RowState::Unsuited,
                _,
            ) => None,
        };
        let untils: Option<Vec<Timestamp>> = self.want.candidates.iter().map(until_known).collect();
        let soonest = untils?.into_iter().min()?.since(now).as_secs_f64();
        let ids = self.want.candidates.iter().take(SHOWN_BACKENDS);
        let ids: Vec<&str> = ids.map(|&index| &*self.view.backend(index).id).collect();
        let message = format!(
            "No backend has the model {:?}: {} said so, and will not be asked for it again for {soonest:.0} s; \
             GET /v1/models lists what can be asked for",
            shown(&self.want.model),
            ids.join(", "),
        );
        Some(Refusal { reason: Reason::ModelMissing, message, retry_after: None })
    }

    /// The backends that are no candidates, each with its reason; empty when all are.
    fn unsuited(&self) -> String {
        let Facts { operation, translatable, .. } = self.facts;
        let of = |backend: &Backend| {
            let why = Unsuited::of(backend, &self.want.model, operation, translatable)?;
            Some(format!("{} {}", backend.id, why.told(backend, operation)))
        };
        listed(self.view.table.backends.iter().filter_map(of), "; ")
    }

    /// Estimates the time until a backend may answer again: at least a second, so that clients do not hammer.
    pub(super) fn recovery(&self, fleet: &Fleet, now: Timestamp) -> Duration {
        let soonest = |lane| fleet.earliest_ready(now, &self.view, &self.want, lane);
        let soonest = [soonest(Lane::Primary), soonest(Lane::Fallback)].into_iter().flatten().min();
        soonest.unwrap_or(UNKNOWN_RECOVERY).max(Duration::from_secs(1))
    }

    /// The upstream may have carried the request out, and the client cannot tell.
    pub(super) fn not_repeated(&self) -> Refusal {
        let (backend, why) = self.attempts.last().map_or(("", ""), |last| (&last.backend, &last.message));
        let message = format!(
            "{backend} failed at this request: {why}. It may have carried it out before, so Pointsman did not send it again; \
             check whether it took effect before you retry"
        );
        Refusal { reason: Reason::NotRepeated, message, retry_after: None }
    }

    pub(super) fn no_such_model(&self) -> Refusal {
        let message = format!(
            "No backend serves the model {:?} for this kind of request: {}. GET /v1/models lists what can be asked for",
            shown(&self.want.model),
            self.unsuited()
        );
        Refusal { reason: Reason::NoSuchModel, message, retry_after: None }
    }

    pub(super) fn out_of_time(&self) -> Refusal {
        Refusal {
            reason: Reason::OutOfTime,
            message: format!(
                "No answer within {:.0} s (limits.max_exchange_ms), after {} attempts",
                self.budgets.max_total.as_secs_f64(),
                self.attempts.len()
            ),
            retry_after: None,
        }
    }
}

/// At most [`SHOWN_BACKENDS`] of them, and how many more there are.
fn listed(all: impl Iterator<Item = String>, separator: &str) -> String {
    let mut all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(SHOWN_BACKENDS);
    all.truncate(SHOWN_BACKENDS);
    let and_more = if more > 0 { format!("{separator}and {more} more") } else { String::new() };
    all.join(separator) + &and_more
}

pub(super) fn why_no_room(fleet: &Fleet) -> String {
    format!(
        "Pointsman's queue is full ({} exchanges are waiting); retry later, or raise limits.queue_length",
        fleet.waiting()
    )
}
