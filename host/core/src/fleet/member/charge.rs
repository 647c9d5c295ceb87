//! Counting attempts under way, and learning from their ends.

use std::sync::Arc;
use std::time::Duration;

use super::parts::{PartCharge, PartsUsed};
use super::{MAX_SERVED, Member};
use crate::fleet::health::{
    CooldownSettings, Evidence, Health, Probe, Scope, Tries, Witness, cooldown_rule, is_exclusion, may_be_requests,
    pause_after,
};
use crate::fleet::limits::RateLimits;
use crate::origin::Origin;
use crate::outcome::{Kind, Outcome};
use crate::time::Timestamp;

/// Everything counted for one attempt when its permit was taken, to be undone when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    tokens: u32,
    probe: Option<Probe>,
    of_model: PartCharge,
    of_operation: PartCharge,
    of_request: PartCharge,
    /// The request's number when its attempt was counted.
    request: u64,
    emergency: bool,
}

impl Charge {
    /// Returns true if it probes a part that others use too.
    pub(crate) fn is_probe(self) -> bool {
        self.probe.or(self.of_model.probe).or(self.of_operation.probe).is_some()
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedAttempt<'a> {
    pub now: Timestamp,
    pub sent_at: Timestamp,
    pub model: &'a Arc<str>,
    pub origin: &'a Origin,
    /// Tries of its request that failed, this one included.
    pub tries: Tries,
    /// Its request failed alike at another backend.
    pub is_blamed: bool,
    pub outcome: &'a Outcome,
    pub first_token: Option<Duration>,
    pub tokens_used: Option<u32>,
    pub cooldown: &'a CooldownSettings,
    /// A random number in 0..1, for the jitter of cooldowns.
    pub chance: f64,
}

impl EndedAttempt<'_> {
    const fn witness(&self) -> Witness {
        Witness { request: self.origin.request, client: self.origin.client }
    }

    fn record_failure_of(&self, health: &mut Health, evidence: Evidence) {
        health.record_failure(self.now, self.sent_at, self.outcome, self.cooldown, self.chance, evidence);
    }

    fn record_success_of(&self, health: &mut Health) {
        health.record_success(self.now, self.sent_at, self.outcome.kind, self.witness());
    }
}

impl Member {
    /// Counts an attempt that is sent now.
    pub(crate) fn charge(&mut self, now: Timestamp, parts: PartsUsed<'_>, tokens: u32, emergency: bool) -> Charge {
        self.in_flight += 1;
        self.exchanges.remove(&parts.exchange);
        self.rates.take(now, tokens);
        self.model_rates.take(now, parts.model, tokens);
        if emergency {
            self.emergency.take(now, 1);
        }
        self.quota_requests.take(1);
        self.quota_tokens.take(tokens);
        Charge {
            tokens,
            probe: self.wide.record_sent(now),
            of_model: self.models.record_sent(now, parts.model),
            of_operation: self.operations.record_sent(now, parts.endpoint),
            of_request: self.single_requests.record_sent(now, &parts.request),
            request: parts.request,
            emergency,
        }
    }

    /// Undoes the charge of an attempt that was never sent.
    pub(crate) fn refund(&mut self, taken_at: Timestamp, parts: PartsUsed<'_>, charge: Charge) {
        self.release(parts, charge);
        self.rates.give_back(taken_at, charge.tokens);
        self.model_rates.update(parts.model, |rates| rates.give_back(taken_at, charge.tokens));
        if charge.emergency {
            self.emergency.give_back(taken_at, 1);
        }
        self.return_probes(parts, charge);
    }

    fn release(&mut self, parts: PartsUsed<'_>, charge: Charge) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.model_rates.release(parts.model);
        self.models.release(parts.model, charge.of_model);
        self.operations.release(parts.endpoint, charge.of_operation);
        self.single_requests.release(&charge.request, charge.of_request);
    }

    /// Takes back the probes that an attempt is, if it still is one.
    pub(crate) fn return_probes(&mut self, parts: PartsUsed<'_>, charge: Charge) {
        self.wide.return_probe(charge.probe);
        self.models.return_probe(parts.model, charge.of_model);
        self.operations.return_probe(parts.endpoint, charge.of_operation);
        self.single_requests.return_probe(&charge.request, charge.of_request);
    }

    /// Settles an attempt that ended: frees its slot, corrects its tokens, and updates health and averages.
    pub(crate) fn settle(&mut self, at: EndedAttempt<'_>, charge: Charge) {
        let (parts, in_flight) = (PartsUsed::of(at.origin, at.model), self.in_flight);
        self.release(parts, charge);
        self.settle_rates(at, charge);
        self.stats.sent += 1;
        let has_model = at.outcome.kind == Kind::Answered || at.first_token.is_some();
        if has_model && self.served.len() < MAX_SERVED && !self.served.contains(at.model) {
            self.served.insert(at.model.clone());
        }
        let makes_room =
            self.max_concurrency.is_none() && self.concurrency.learn(at.now, at.sent_at, in_flight, at.outcome);
        if makes_room {
            // The next attempt waits for one under way to end, which a cooldown would only add to.
            self.return_probes(parts, charge);
            return;
        }
        if at.outcome.scope.is_size() {
            let Outcome { scope, message, .. } = at.outcome;
            self.ceilings.refused(at.now, *scope, at.model, at.origin.size, message);
        }
        let is_failure = cooldown_rule(at.outcome.kind).base_factor > 0.0;
        if !is_failure && at.outcome.kind != Kind::ClientGone {
            self.settle_answer(at, charge);
            return;
        }
        // Where the backend was reached but has not answered, a probe of it stays due.
        self.return_probes(parts, charge);
        if is_failure {
            self.settle_failure(at);
        }
    }

    fn settle_failure(&mut self, at: EndedAttempt<'_>) {
        let evidence = Evidence::Seen { witness: at.witness(), is_blamed: at.is_blamed };
        let is_confirmed = match at.outcome.scope {
            Scope::Nothing
            | Scope::Request
            | Scope::RequestHere
            | Scope::Headers
            | Scope::BodySize
            | Scope::PromptSize
            | Scope::AnswerSize => return self.hold_back(at),
            Scope::Backend => {
                at.record_failure_of(&mut self.wide, evidence);
                let change = self.wide.failure_to_report(at.now);
                self.report(at.now, None, change);
                self.wide.is_confirmed()
            }
            Scope::Model => {
                let sent = self.models.sent(at.model);
                match self.models.health(at.now, &sent) {
                    None => true,
                    Some(health) => {
                        at.record_failure_of(health, evidence);
                        let (change, is_confirmed) = (health.failure_to_report(at.now), health.is_confirmed());
                        self.report(at.now, Some(&sent), change);
                        is_confirmed
                    }
                }
            }
            Scope::Operation => match self.operations.health(at.now, &at.origin.endpoint) {
                None => true,
                Some(health) => {
                    at.record_failure_of(health, evidence);
                    let (change, is_confirmed) = (health.failure_to_report(at.now), health.is_confirmed());
                    self.report_operation(at.now, &at.origin.endpoint, change);
                    is_confirmed
                }
            },
        };
        if at.outcome.kind != Kind::ModelMissing {
            // A name that the provider does not know says nothing of how it answers for others.
            self.stats.record_failure();
        }
        if !is_confirmed && may_be_requests(at.outcome.kind) {
            self.hold_back(at);
        }
        self.pause_exchange(at);
    }

    /// Closes the request's own way to this backend for a while: it may itself be the cause.
    fn hold_back(&mut self, at: EndedAttempt<'_>) {
        if at.origin.request == 0 {
            return;
        }
        if let Some(health) = self.single_requests.health(at.now, &at.origin.request) {
            at.record_failure_of(health, Evidence::Own);
        }
    }

    /// Keeps the exchange that has failed here again from its next try for a while; others go by the cooldown alone.
    fn pause_exchange(&mut self, at: EndedAttempt<'_>) {
        let pause = pause_after(at.outcome.kind, at.tries, at.cooldown);
        if pause.is_zero() || at.origin.exchange == 0 || is_exclusion(at.outcome.kind) {
            return;
        }
        let failures =
            self.last_failure(at.now, PartsUsed::of(at.origin, at.model)).map_or(1, |(_, failures)| failures);
        if let Some(health) = self.exchanges.health(at.now, &at.origin.exchange) {
            *health = Health::paused(at.now + pause, at.outcome.kind, failures);
        }
    }

    /// Corrects what was taken of the limits, for the backend and for the model.
    fn settle_rates(&mut self, at: EndedAttempt<'_>, charge: Charge) {
        let correct = |rates: &mut RateLimits| {
            if let Some(used) = at.tokens_used {
                rates.correct_tokens(at.now, at.sent_at, charge.tokens, used);
            }
            if at.outcome.kind == Kind::ConnectFailed {
                // The provider did not see the request.
                rates.give_back_request(at.sent_at);
            }
        };
        correct(&mut self.rates);
        self.model_rates.update(at.model, correct);
    }

    fn settle_answer(&mut self, at: EndedAttempt<'_>, charge: Charge) {
        let parts = PartsUsed::of(at.origin, at.model);
        self.stats.record_answer(at.now.since(at.sent_at), at.first_token);
        at.record_success_of(&mut self.wide);
        let change = self.wide.recovery_to_report(at.now);
        self.report(at.now, None, change);
        if let Some(part) = self.models.counted(parts.model, charge.of_model) {
            at.record_success_of(&mut part.health);
            let change = part.health.recovery_to_report(at.now);
            self.models.drop_healthy(at.now, parts.model);
            let sent = self.models.sent(at.model);
            self.report(at.now, Some(&sent), change);
        }
        if let Some(part) = self.operations.counted(parts.endpoint, charge.of_operation) {
            at.record_success_of(&mut part.health);
            let change = part.health.recovery_to_report(at.now);
            self.operations.drop_healthy(at.now, parts.endpoint);
            self.report_operation(at.now, parts.endpoint, change);
        }
        if at.outcome.kind == Kind::Answered {
            self.ceilings.answered(parts.model, at.origin.size);
            self.single_requests.remove(&parts.request);
            // A limit that lets others pass is over for all.
            self.exchanges.drop_idle(|health| !may_be_requests(health.reason));
        }
        // An answer to an attempt from before the cooldown does not settle the probe.
        self.return_probes(parts, charge);
    }
}
