//! Refusals: the message, its cause and the Retry-After of an exchange that ends without an answer.

use std::time::Duration;

use super::alike::InCommon;
use super::{Action, Exchange, ExhaustedStatus, Facts, Reason, Refusal};
use crate::contract::{AttemptFacts, Rejection, RowState};
use crate::fleet::Fleet;
use crate::outcome::Kind;
use crate::suited::{Unsuited, shown, takes_operation};
use crate::table::{Backend, Lane, UNKNOWN_MODEL};
use crate::time::Timestamp;
use crate::view::Want;

/// Names listed in an error.
const SHOWN_BACKENDS: usize = 8;

/// The Retry-After where no backend's recovery is known.
const UNKNOWN_RECOVERY: Duration = Duration::from_secs(5);

/// The Retry-After where Pointsman itself was short of something, for which the attempt had waited before.
const OWN_RECOVERY: Duration = Duration::from_secs(1);

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

    /// Everything was tried. What all upstreams say alike explains more than our words.
    pub(super) fn exhausted(&mut self, fleet: &Fleet, now: Timestamp) -> Action {
        if !self.resuming && self.is_request_to_blame(fleet, now) {
            if self.attempt_facts.iter().any(|attempt| attempt.status >= 500) {
                self.exhausted_until = Some(now + self.recovery(fleet, now));
            }
            return Action::PassOn;
        }
        let in_common = self.in_common(fleet, now);
        let is_told_unauthorised = self.attempt_facts.iter().any(|a| a.outcome == Kind::Unauthorised);
        let reason = match in_common {
            InCommon::Refusal if !self.resuming => return Action::PassOn,
            InCommon::ModelMissing if self.is_told_missing() => return Action::PassOn,
            InCommon::ModelMissing => return Action::Reject(self.model_missing(fleet, now)),
            InCommon::KeysRefused(401 | 403) if is_told_unauthorised && !self.resuming => {
                return Action::PassOn;
            }
            InCommon::KeysRefused(_) => Reason::KeysRefused,
            InCommon::Limits if self.exhausted_status == ExhaustedStatus::Common => Reason::Limits,
            InCommon::Refusal | InCommon::Limits | InCommon::Nothing => Reason::Exhausted,
        };
        let (reason, message) = match self.queue_full {
            true => (Reason::QueueFull, why_no_room(fleet)),
            false => (reason, self.why_exhausted(fleet, now)),
        };
        let over_budget = if self.only.free {
            "; backends that cost money are left out, because the client's budget of the day is spent"
        } else {
            ""
        };
        let message = message + over_budget;
        let recovery = self.recovery(fleet, now);
        if matches!(reason, Reason::Exhausted | Reason::Limits) {
            // Who comes again at once is told the same; a full queue may have room by then.
            self.exhausted_until = Some(now + recovery);
        }
        // To come again is no help where the keys are refused.
        let retry_after = (reason != Reason::KeysRefused).then_some(recovery);
        Action::Reject(Refusal { reason, message, retry_after })
    }

    pub(super) fn why_exhausted(&self, fleet: &Fleet, now: Timestamp) -> String {
        let want = self.whole_want();
        let rows = fleet.rows(now, &self.view, &want, None);
        let of = |&index: &u32| {
            let id = &self.view.backend(index).id;
            // For this very request: one that is too large for what a limit leaves is not what the policy could have had.
            let is_ready = rows[index as usize].is(RowState::Ready);
            let last = self.attempt_facts.iter().rfind(|attempt| attempt.backend == index);
            match last {
                None if is_ready && self.exhausted_before.is_none() => {
                    return format!("{id} is ready, but the policy did not choose it");
                }
                None if is_ready => return format!("{id} is ready"),
                Some(last) if is_ready => return format!("{id} failed this request ({})", outcome_words(last)),
                None | Some(_) => {}
            }
            match fleet.state_for(now, &self.view, &want, index) {
                (RowState::Cooling, Some((until, reason))) => {
                    let left = until.since(now).as_secs_f64();
                    let last = last.filter(|last| last.outcome != reason);
                    let and_said = last.map_or_else(String::new, |last| format!("; here {}", outcome_words(last)));
                    format!("{id} is cooling down for {left:.1} s ({}{and_said})", reason.as_str())
                }
                // An attempt in this exchange says more than a limit.
                (RowState::Throttled, _) if last.is_some_and(|last| last.outcome != Kind::RateLimited) => {
                    let said = last.map_or_else(String::new, outcome_words);
                    format!("{id} failed this request ({said}) and is at its limits")
                }
                (RowState::Drained, _) => format!("{id} is drained"),
                (RowState::Probing, _) => format!("{id} is being probed"),
                (RowState::Ready | RowState::Throttled | RowState::Cooling | RowState::Unsuited, _) => {
                    format!("{id} is at its limits")
                }
            }
        };
        let candidates = want.candidates.iter().map(of);
        if self.home.is_some_and(|home| home.is_binding) {
            let why = "; the request names something that only this backend has";
            return self.after_attempts(&(listed(candidates, ", ") + why));
        }
        let unsuited = self.unsuited();
        let no_others = match unsuited.is_empty() {
            true => String::new(),
            false => {
                format!("; no other backend serves {:?}: {}", shown(&self.want.model), unsuited)
            }
        };
        if self.exhausted_before.is_some() {
            let candidates = listed(candidates, ", ");
            let tried = match self.attempts.len() {
                0 => "no backend was asked again".to_owned(),
                n => format!("only those that may have recovered were asked again ({})", counted(n, "attempt")),
            };
            return format!(
                "No backend could answer the same request a moment ago, so {tried}: {candidates}{no_others}"
            );
        }
        self.after_attempts(&(listed(candidates, ", ") + &no_others))
    }

    fn after_attempts(&self, why: &str) -> String {
        let attempts = (!self.attempts.is_empty()).then(|| counted(self.attempts.len(), "attempt"));
        let waited = (!self.waited.is_zero()).then(|| format!("{:.1} s of waiting", self.waited.as_secs_f64()));
        let after: Vec<String> = attempts.into_iter().chain(waited).collect();
        let after = if after.is_empty() { String::new() } else { format!(" after {}", after.join(" and ")) };
        format!("No backend could answer{after}: {why}")
    }

    /// Those that work have said that they do not have the model: a retry cannot help.
    fn model_missing(&self, fleet: &Fleet, now: Timestamp) -> Refusal {
        let want = self.whole_want();
        let of = |&index: &u32| {
            let backend = self.view.backend(index);
            let (id, asked) = (&backend.id, &self.want.model);
            match fleet.state_for(now, &self.view, &want, index) {
                (RowState::Cooling, Some((until, Kind::ModelMissing))) => {
                    let left = until.since(now).as_secs_f64();
                    let sent = backend.sent_model(asked).filter(|sent| **sent != **asked);
                    let sent = sent.map_or_else(String::new, |sent| format!(" (there it is {:?})", shown(&sent)));
                    format!("{id} does not have it{sent}, and is not asked for it again for {left:.0} s")
                }
                (_, Some((_, reason))) => format!("{id} cannot be asked ({})", reason.as_str()),
                (_, None) => format!("{id} cannot be asked"),
            }
        };
        let message = format!(
            "No backend has the model {:?}: {}; GET /v1/models lists what can be asked for",
            shown(&self.want.model),
            listed(want.candidates.iter().map(of), "; "),
        );
        Refusal { reason: Reason::ModelMissing, message, retry_after: None }
    }

    /// The backends that are no candidates, each with its reason; empty when all are.
    fn unsuited(&self) -> String {
        let Facts { operation, translatable, .. } = self.facts;
        let of = |backend: &Backend| {
            let why = Unsuited::of(&self.view.table, backend, &self.want.model, operation, translatable)?;
            Some(format!("{} {}", backend.id, why.told(backend, operation)))
        };
        listed(self.view.table.backends.iter().filter_map(of), "; ")
    }

    /// Estimates the time until a backend may answer again: at least a second, so that clients do not hammer. One that has
    /// refused the request itself would do so again.
    pub(super) fn recovery(&self, fleet: &Fleet, now: Timestamp) -> Duration {
        let want = self.whole_want();
        let candidates = want.candidates.iter().copied().filter(|index| !self.has_final_word(*index)).collect();
        let want = Want { candidates, ..want };
        let soonest = |lane| fleet.earliest_ready(now, &self.view, &want, lane);
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
        let operation = self.facts.operation;
        let has_operation = |backend: &Backend| takes_operation(&self.view.table, backend, operation);
        if *self.want.model == *UNKNOWN_MODEL && !self.view.table.backends.iter().any(has_operation) {
            let message = format!("No backend takes {} requests: {}", operation.as_str(), self.unsuited());
            return Refusal { reason: Reason::NoSuchOperation, message, retry_after: None };
        }
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
                "No answer within {:.0} s (limits.max_exchange_ms), after {}",
                self.budgets.max_total.as_secs_f64(),
                counted(self.attempts.len(), "attempt")
            ),
            retry_after: None,
        }
    }
}

/// Pointsman could not send an attempt for want of something of its own.
pub(super) fn own_shortage(message: String) -> Refusal {
    Refusal { reason: Reason::OwnShortage, message, retry_after: Some(OWN_RECOVERY) }
}

/// "1 attempt", "2 attempts".
fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Kind and status of an attempt.
fn outcome_words(attempt: &AttemptFacts) -> String {
    let AttemptFacts { outcome, status, .. } = attempt;
    if *status == 0 { outcome.as_str().to_owned() } else { format!("{}, {status}", outcome.as_str()) }
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
