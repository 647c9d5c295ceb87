//! A backend's row: its live numbers as a query shows them.

use std::time::Duration;

use super::Member;
use super::parts::PartsUsed;
use crate::contract::{BackendRow, Column, NONE, RowState};
use crate::fleet::health::HealthState;
use crate::table::Lane;
use crate::time::{Timestamp, millis_u32};

/// Facts about the asking exchange that a backend's row depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowContext {
    /// Lane of the permit of this backend that the exchange was given while it waited: for it the backend is ready.
    pub holds: Option<Lane>,
    /// An earlier waiter wants the same, so that free capacity is not for this exchange.
    pub is_behind: bool,
    /// Number of exchanges before it in the queue for this backend's tier.
    pub queued: u32,
    /// Things at the backend that the exchange builds on: a number of [`Column::Home`].
    pub home: u32,
}

impl Member {
    /// Writes the row for a query about a request; `tokens` are its estimated tokens.
    pub(crate) fn write_row(
        &self,
        now: Timestamp,
        parts: PartsUsed<'_>,
        tokens: u32,
        context: RowContext,
        row: &mut BackendRow,
    ) {
        let (state_of_health, health, in_flight) = self.health(now, parts);
        let (state, ready) = match (self.readiness(now, parts, tokens), context.holds) {
            (found @ (RowState::Cooling | RowState::Drained, _), _) => found,
            (_, Some(Lane::Primary | Lane::Fallback)) => (RowState::Ready, Some(Duration::ZERO)),
            ((RowState::Ready, _), _) if context.is_behind => (RowState::Throttled, None),
            (found, Some(Lane::Emergency) | None) => found,
        };
        let slots = self.most_in_flight().map_or(NONE, |most| most.saturating_sub(self.in_flight));
        let (model_requests, model_tokens, model_slots) = self.model_rates.left(now, parts.model);
        let probe_slots = match state_of_health {
            HealthState::Ramping { allowed } => allowed.saturating_sub(in_flight),
            HealthState::ProbeDue => 1,
            HealthState::Probing => 0,
            HealthState::Healthy | HealthState::Cooling { .. } => NONE,
        };
        let mut put = |column, number| row.put(column, number);
        put(Column::State, state as u32);
        put(Column::ReadyMs, ready.map_or(NONE, millis_u32));
        match state_of_health {
            HealthState::Cooling { until } => {
                put(Column::CooldownMs, millis_u32(until.since(now)));
                put(Column::CooldownReason, health.reason.index());
            }
            // The cause of the cooldown before.
            HealthState::ProbeDue | HealthState::Probing => put(Column::CooldownReason, health.reason.index()),
            HealthState::Healthy | HealthState::Ramping { .. } => {}
        }
        put(Column::RequestsLeft, self.requests_left(now).min(model_requests));
        put(Column::TokensLeft, self.tokens_left(now).min(model_tokens));
        put(Column::InFlight, self.in_flight);
        put(Column::ConcurrencyLeft, slots.min(probe_slots).min(model_slots));
        put(Column::LatencyMs, self.stats.latency_ms as u32);
        put(Column::FirstTokenMs, self.stats.first_token_ms as u32);
        put(Column::ErrorPermille, (self.stats.errors * 1_000.0) as u32);
        put(Column::Failures, self.wide.failures.max(health.failures));
        let emergency = match context.holds {
            Some(Lane::Emergency) => Some(Duration::ZERO),
            Some(Lane::Primary | Lane::Fallback) | None => self.emergency_in(now, parts, tokens),
        };
        put(Column::EmergencyMs, emergency.map_or(NONE, millis_u32));
        put(Column::Queued, context.queued);
        put(Column::Home, context.home);
    }
}
