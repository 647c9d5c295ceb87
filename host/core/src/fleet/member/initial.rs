//! A backend's state that does not come from attempts: restored after a restart, or given by a simulation.

use std::time::Duration;

use super::Member;
use super::ceilings::Ceilings;
use super::stats::Stats;
use crate::fleet::health::Health;
use crate::fleet::limits::{Ceiling, Quota};
use crate::outcome::Kind;
use crate::time::Timestamp;

/// A backend's state at the start of a simulation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InitialState {
    /// Time left of its cooldown, and the cause; zero: its probe is due.
    pub cooldown: Option<(Duration, Kind)>,
    /// Failures since the last answer; ignored without a cooldown.
    pub failures: u32,
    /// Taken out of service by the operator.
    pub drained: bool,
    /// Attempts under way that never end.
    pub in_flight: u32,
    /// Requests left of its rpm limit; ignored without one.
    pub requests_left: Option<u32>,
    /// Tokens left of its tpm limit; ignored without one.
    pub tokens_left: Option<u32>,
    /// Time for which the provider's quota is used up.
    pub full_for: Option<Duration>,
    /// Time for which the emergency lane may not use it.
    pub emergency_in: Option<Duration>,
    /// Moving average of the time of an answer; zero: unknown.
    pub latency: Duration,
    /// Moving average of the time to the first content; zero: unknown.
    pub first_token: Duration,
    /// Moving average of the share of failed attempts, 0..=1.
    pub errors: f32,
}

impl Member {
    /// Restores a cooldown after a restart.
    pub(crate) fn restore(&mut self, now: Timestamp, model: Option<&str>, mut health: Health) {
        health.set_failing_since(now);
        let change = health.failure_to_report(now);
        match model {
            None => self.wide = health,
            Some(model) => {
                if let Some(of_model) = self.models.health(now, &model.into()) {
                    *of_model = health;
                }
            }
        }
        self.report(now, model, change);
    }

    /// Takes what was used of the day before a restart.
    pub(crate) fn restore_day(&mut self, at: Timestamp, sent: &str, requests: u32, tokens: u32) {
        self.rates.restore_day(at, requests, tokens);
        self.model_rates.restore_day(at, sent, requests, tokens);
    }

    /// Resets health, used limits and averages; attempts under way stay counted.
    pub(crate) fn reset(&mut self) {
        self.rates.reset();
        self.model_rates.reset();
        self.concurrency = Ceiling::default();
        self.emergency = self.emergency.unused();
        self.quota_requests = Quota::default();
        self.quota_tokens = Quota::default();
        self.wide = Health::default();
        self.models.clear();
        self.operations.clear();
        self.single_requests.clear();
        self.ceilings = Ceilings::default();
        self.stats = Stats::default();
    }

    /// Sets the state recorded or given for the start of a simulation.
    pub(crate) fn set_initial_state(&mut self, now: Timestamp, state: &InitialState) {
        self.drained = state.drained;
        self.in_flight = state.in_flight;
        if let Some((left, reason)) = state.cooldown {
            self.wide = Health::restored(now + left, reason, state.failures);
        }
        self.rates.set_left(now, state.requests_left, state.tokens_left);
        if let Some(wait) = state.full_for {
            self.quota_requests.set(0, now + wait);
        }
        if let Some(wait) = state.emergency_in {
            self.emergency.block_for(now, wait);
        }
        self.stats.latency_ms = state.latency.as_secs_f32() * 1_000.0;
        self.stats.first_token_ms = state.first_token.as_secs_f32() * 1_000.0;
        self.stats.errors = state.errors;
    }
}
