//! Time until a backend can take an attempt: its health, its limits, and the rate of the emergency lane.

use std::time::Duration;

use super::Member;
use super::parts::PartsUsed;
use crate::contract::RowState;
use crate::fleet::health::{Health, HealthState, is_exclusion};
use crate::origin::Size;
use crate::outcome::Kind;
use crate::time::Timestamp;

impl Member {
    /// Health for a request: the worst of the backend's, its model's, its operation's, its own and its exchange's, with the attempts under
    /// way that it counts.
    pub(super) fn health(&self, now: Timestamp, parts: PartsUsed<'_>) -> (HealthState, &Health, u32) {
        let mut worst = (self.wide.state(now), &self.wide, self.in_flight);
        let narrow = [
            self.models.get(parts.model),
            self.operations.get(parts.endpoint),
            self.single_requests.get(&parts.request),
            self.exchanges.get(&parts.exchange),
        ];
        for part in narrow.into_iter().flatten() {
            let state = part.health.state(now);
            if severity(state) >= severity(worst.0) {
                worst = (state, &part.health, part.in_flight);
            }
        }
        worst
    }

    /// Health of each part that a request uses.
    fn healths<'a>(&'a self, parts: PartsUsed<'a>) -> impl Iterator<Item = &'a Health> {
        let narrow = [
            self.models.get(parts.model),
            self.operations.get(parts.endpoint),
            self.single_requests.get(&parts.request),
            self.exchanges.get(&parts.exchange),
        ];
        narrow.into_iter().flatten().map(|part| &part.health).chain([&self.wide])
    }

    /// Returns true if it has failed since its last answer, and is likely to fail again: in a way that lasts, or more than
    /// once. A rate limit ends by itself.
    pub(crate) fn is_down(&self, parts: PartsUsed<'_>) -> bool {
        self.healths(parts).any(|health| health.failures > hiccups(health.reason))
    }

    /// Failures since the last answer that a request would meet, and the kind of the one that weighs most; `None`: none.
    pub(crate) fn last_failure(&self, now: Timestamp, parts: PartsUsed<'_>) -> Option<(Kind, u32)> {
        let failures = self.healths(parts).map(|health| health.failures).max().unwrap_or_default();
        let (_, worst, _) = self.health(now, parts);
        (failures > 0 && worst.failures > 0).then_some((worst.reason, failures))
    }

    /// Time left of the cooldown for a request.
    pub(crate) fn cooldown_left(&self, now: Timestamp, parts: PartsUsed<'_>) -> Duration {
        match self.health(now, parts).0 {
            HealthState::Cooling { until } => until.since(now),
            HealthState::Healthy | HealthState::ProbeDue | HealthState::Probing | HealthState::Ramping { .. } => {
                Duration::ZERO
            }
        }
    }

    /// State for a request, and the time until it can take an attempt; `None` when unknown.
    pub(crate) fn readiness(&self, now: Timestamp, parts: PartsUsed<'_>, tokens: u32) -> (RowState, Option<Duration>) {
        let (health, _, in_flight) = self.health(now, parts);
        let limits_in = self.limits_ready_in(now, Some(parts.model), tokens);
        self.readiness_at(now, health, in_flight, limits_in)
    }

    fn readiness_at(
        &self,
        now: Timestamp,
        health: HealthState,
        in_flight: u32,
        limits_in: Option<Duration>,
    ) -> (RowState, Option<Duration>) {
        if self.drained {
            return (RowState::Drained, None);
        }
        match health {
            HealthState::Cooling { until } => {
                (RowState::Cooling, Some(until.since(now).max(limits_in.unwrap_or_default())))
            }
            HealthState::Probing => (RowState::Probing, None),
            HealthState::Ramping { allowed } if in_flight >= allowed => (RowState::Throttled, None),
            HealthState::Healthy | HealthState::ProbeDue | HealthState::Ramping { .. } => match limits_in {
                Some(Duration::ZERO) => (RowState::Ready, Some(Duration::ZERO)),
                later => (RowState::Throttled, later),
            },
        }
    }

    /// Returns true if its cooldown for this request is over and its probe has not been sent.
    pub(crate) fn is_probe_due(&self, now: Timestamp, parts: PartsUsed<'_>) -> bool {
        !self.drained && self.health(now, parts).0 == HealthState::ProbeDue
    }

    /// Time until its limits, and those of the model, have room; `None` when an attempt has to end first.
    fn limits_ready_in(&self, now: Timestamp, model: Option<&str>, tokens: u32) -> Option<Duration> {
        let quota = self.quota_requests.ready_in(now, 1).max(self.quota_tokens.ready_in(now, 1));
        Some(self.rates_ready_in(now, model, tokens)?.max(quota))
    }

    /// Time until its own limits, and those of the model, have room; `None` when an attempt has to end first.
    fn rates_ready_in(&self, now: Timestamp, model: Option<&str>, tokens: u32) -> Option<Duration> {
        if self.is_full() {
            return None;
        }
        let of_model = model.map_or(Some(Duration::ZERO), |model| self.model_rates.ready_in(now, model, tokens))?;
        Some(self.rates.ready_in(now, tokens).max(of_model))
    }

    /// Returns true if it is excluded (key, credit or model), which holds in an emergency too.
    pub(crate) fn is_excluded(&self, now: Timestamp, parts: PartsUsed<'_>) -> bool {
        self.healths(parts).any(|health| now < health.until && is_exclusion(health.reason))
    }

    /// Time until the emergency lane may use it; `None`: not at all. The provider's limits and its Retry-After hold in an
    /// emergency too, because requests beyond them would be refused.
    pub(crate) fn emergency_in(&self, now: Timestamp, parts: PartsUsed<'_>, tokens: u32) -> Option<Duration> {
        if self.drained || self.is_excluded(now, parts) {
            return None;
        }
        let rates = self.rates_ready_in(now, Some(parts.model), tokens)?;
        let after_failures = self.healths(parts).map(|health| health.emergency_in(now)).max().unwrap_or_default();
        Some(self.emergency.ready_in(now, 1).max(rates).max(after_failures))
    }

    /// Returns true if this size of request was refused here lately.
    pub(crate) fn is_too_large(&self, now: Timestamp, model: &str, size: Size) -> bool {
        self.ceilings.is_over(now, model, size)
    }

    /// Returns true if some size of request was refused here lately.
    pub(crate) fn has_ceilings(&self) -> bool {
        !self.ceilings.is_empty()
    }

    /// State and cooldown of the backend as a whole, without its models'.
    pub(crate) fn own_state(&self, now: Timestamp) -> (RowState, Option<(Timestamp, Kind)>) {
        let (state, _) =
            self.readiness_at(now, self.wide.state(now), self.in_flight, self.limits_ready_in(now, None, 1));
        (state, cooldown_in_force(&self.wide, now))
    }

    /// State for a request, and the cooldown that causes it: of those of its parts the one that lasts longest.
    pub(crate) fn state_for(
        &self,
        now: Timestamp,
        parts: PartsUsed<'_>,
        tokens: u32,
    ) -> (RowState, Option<(Timestamp, Kind)>) {
        let (_, health, _) = self.health(now, parts);
        (self.readiness(now, parts, tokens).0, cooldown_in_force(health, now))
    }
}

/// Failures of a kind in a row that say nothing of the next attempt.
const fn hiccups(kind: Kind) -> u32 {
    match kind {
        Kind::Overloaded | Kind::ServerError | Kind::Reset | Kind::Cut | Kind::Malformed => 1,
        Kind::OutOfCredit
        | Kind::ModelMissing
        | Kind::Unauthorised
        | Kind::ConnectFailed
        | Kind::TimedOut
        | Kind::Stalled => 0,
        Kind::Answered | Kind::RateLimited | Kind::Refused | Kind::TooLong | Kind::ClientGone | Kind::NotResumed => {
            u32::MAX
        }
    }
}

fn cooldown_in_force(health: &Health, now: Timestamp) -> Option<(Timestamp, Kind)> {
    (health.until > now).then_some((health.until, health.reason))
}

/// Order of severity; of two cooldowns the longer is the worse.
fn severity(health: HealthState) -> (u8, Timestamp) {
    match health {
        HealthState::Healthy => (0, Timestamp::default()),
        HealthState::Ramping { .. } => (1, Timestamp::default()),
        HealthState::ProbeDue => (2, Timestamp::default()),
        HealthState::Probing => (3, Timestamp::default()),
        HealthState::Cooling { until } => (4, until),
    }
}
