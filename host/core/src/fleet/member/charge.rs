//! Counting attempts under way, and learning from their ends.

use std::time::Duration;

use super::{MAX_MODELS, Member};
use crate::fleet::health::{CooldownSettings, Health, HealthState, Probe, Scope, cooldown_rule};
use crate::outcome::{Kind, Outcome};
use crate::time::Timestamp;

/// Everything counted for one attempt when its permit was taken, to be undone when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    tokens: u32,
    probe: Option<Probe>,
    model_probe: Option<Probe>,
    in_model: bool,
    emergency: bool,
}

impl Charge {
    pub(crate) fn is_probe(self) -> bool {
        self.probe.is_some() || self.model_probe.is_some()
    }
}

/// An attempt that ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedAttempt<'a> {
    pub now: Timestamp,
    pub sent_at: Timestamp,
    pub model: &'a str,
    pub outcome: &'a Outcome,
    pub first_token: Option<Duration>,
    pub tokens_used: Option<u32>,
    pub cooldown: &'a CooldownSettings,
    /// A random number in 0..1, for the jitter of cooldowns.
    pub chance: f64,
}

impl Member {
    /// Counts an attempt that is sent now.
    pub(crate) fn charge(&mut self, now: Timestamp, model: &str, tokens: u32, emergency: bool) -> Charge {
        self.in_flight += 1;
        if let Some(b) = &mut self.requests {
            b.take(now, 1);
        }
        if let Some(b) = &mut self.tokens {
            b.take(now, tokens);
        }
        if emergency {
            self.emergency.take(now, 1);
        }
        self.quota_requests.take(1);
        self.quota_tokens.take(tokens);
        let probe = self.wide.record_sent(now);
        let of_model = if self.models.is_empty() { None } else { self.models.get_mut(model) };
        let in_model = of_model.is_some();
        let model_probe = of_model.and_then(|m| {
            m.in_flight += 1;
            m.health.record_sent(now)
        });
        Charge { tokens, probe, model_probe, in_model, emergency }
    }

    /// Undoes the charge of an attempt that was never sent.
    pub(crate) fn refund(&mut self, taken_at: Timestamp, model: &str, charge: Charge) {
        self.release(model, charge);
        if let Some(b) = &mut self.requests {
            b.give_back(taken_at, 1);
        }
        if let Some(b) = &mut self.tokens {
            b.give_back(taken_at, charge.tokens);
        }
        if charge.emergency {
            self.emergency.give_back(taken_at, 1);
        }
        self.return_probes(model, charge);
    }

    fn release(&mut self, model: &str, charge: Charge) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if charge.in_model
            && let Some(m) = self.models.get_mut(model)
        {
            m.in_flight = m.in_flight.saturating_sub(1);
        }
    }

    fn return_probes(&mut self, model: &str, charge: Charge) {
        self.wide.return_probe(charge.probe);
        if charge.model_probe.is_some()
            && let Some(m) = self.models.get_mut(model)
        {
            m.health.return_probe(charge.model_probe);
        }
    }

    /// Settles an attempt that ended: frees its slot, corrects its tokens, and updates health and averages.
    pub(crate) fn settle(&mut self, at: EndedAttempt<'_>, charge: Charge) {
        self.release(at.model, charge);
        if let (Some(b), Some(used)) = (&mut self.tokens, at.tokens_used) {
            b.give_back(at.sent_at, charge.tokens.saturating_sub(used));
            b.take(at.now, used.saturating_sub(charge.tokens));
        }
        if at.outcome.kind == Kind::ConnectFailed
            && let Some(b) = &mut self.requests
        {
            // The provider did not see the request.
            b.give_back(at.sent_at, 1);
        }
        self.stats.sent += 1;
        match cooldown_rule(at.outcome.kind).scope {
            Scope::Nothing if at.outcome.kind == Kind::ClientGone => self.return_probes(at.model, charge),
            Scope::Nothing => self.settle_answer(at, charge),
            Scope::Backend => {
                self.return_probes(at.model, charge);
                self.stats.record_failure();
                self.wide.record_failure(at.now, at.sent_at, at.outcome, at.cooldown, at.chance);
                let change = self.wide.failure_to_report(at.now);
                self.report(at.now, None, change);
            }
            Scope::Model => {
                // The backend was reached, but has not answered: a probe of it as a whole stays due.
                self.return_probes(at.model, charge);
                self.stats.record_failure();
                if let Some(health) = self.model_health(at.now, at.model) {
                    health.record_failure(at.now, at.sent_at, at.outcome, at.cooldown, at.chance);
                    let change = health.failure_to_report(at.now);
                    self.report(at.now, Some(at.model), change);
                }
            }
        }
    }

    fn settle_answer(&mut self, at: EndedAttempt<'_>, charge: Charge) {
        self.stats.record_answer(at.now.since(at.sent_at), at.first_token);
        self.wide.record_success(at.now, at.sent_at);
        let change = self.wide.recovery_to_report(at.now);
        self.report(at.now, None, change);
        if charge.in_model
            && let Some(m) = self.models.get_mut(at.model)
        {
            m.health.record_success(at.now, at.sent_at);
            let change = m.health.recovery_to_report(at.now);
            if m.health.state(at.now) == HealthState::Healthy && m.in_flight == 0 {
                self.models.remove(at.model);
            }
            self.report(at.now, Some(at.model), change);
        }
        // An answer to an attempt from before the cooldown does not settle the probe.
        self.return_probes(at.model, charge);
    }

    /// The health of a model; `None` when there is no room for another (clients can invent model names).
    pub(super) fn model_health(&mut self, now: Timestamp, model: &str) -> Option<&mut Health> {
        if self.models.len() >= MAX_MODELS && !self.models.contains_key(model) {
            self.models.retain(|_, m| m.in_flight > 0 || m.health.until > now);
            if self.models.len() >= MAX_MODELS {
                let idle = self.models.iter().filter(|(_, m)| m.in_flight == 0);
                let soonest = idle.min_by_key(|(_, m)| m.health.until).map(|(name, _)| name.clone())?;
                self.models.remove(&soonest);
            }
        }
        Some(&mut self.models.entry(model.into()).or_default().health)
    }
}
