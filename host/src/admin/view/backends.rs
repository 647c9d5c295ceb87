//! Backends and waiting lines as JSON.

use pointsman_core::contract::RowState;
use pointsman_core::fleet::{ModelCooldown, OperationCooldown, Overview};
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::proxy::Proxy;
use pointsman_config::BackendConfig;
use pointsman_core::rfc3339::Rfc3339;

/// Every backend, in the table's order.
pub(in crate::admin) fn backends(proxy: &Proxy) -> Vec<BackendView> {
    let snapshot = proxy.snapshot();
    let (overview, now) = proxy.fleet.with(|fleet, now| (fleet.overview(now, &snapshot.view), now));
    let backends = snapshot.config.backends.iter().zip(overview);
    backends.map(|(backend, overview)| BackendView::new(backend, overview, now)).collect()
}

/// The waiting line of every lane.
pub(in crate::admin) fn lanes(proxy: &Proxy) -> Vec<LaneView> {
    let queued = proxy.fleet.with(|fleet, _| Lane::ALL.map(|lane| fleet.waiting_in(lane) as u64));
    Lane::ALL.iter().zip(queued).map(|(lane, queued)| LaneView { lane: lane.as_str(), queued }).collect()
}

/// A backend with its live numbers. Never holds a key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct BackendView {
    /// Its id.
    pub id: String,
    /// `primary` or `fallback`.
    pub tier: &'static str,
    /// Its wire format.
    pub dialect: &'static str,
    /// Base URL without user and password.
    pub base_url: String,
    /// Models that clients can ask for, as configured.
    pub models: Vec<String>,
    /// Its own state, whatever its models do: `ready`, `throttled`, `cooling`, `probing` or `drained`.
    pub state: &'static str,
    /// Time left of the backend's cooldown, in ms; 0: none.
    pub cooldown_ms: u64,
    /// The outcome that set its own cooldown.
    pub cooldown_reason: Option<String>,
    /// Models of it in cooldown.
    pub models_cooling: u64,
    /// Those of them that end last, at most 16, the latest first.
    pub model_cooldowns: Vec<ModelCooldownView>,
    /// Operations of it in cooldown, at most 16, the one that ends last first.
    pub operation_cooldowns: Vec<OperationCooldownView>,
    /// Attempts under way.
    pub in_flight: u64,
    /// The most attempts under way: `max_concurrency`, else a ceiling that was learned from refusals; none: no ceiling is known.
    pub most_in_flight: Option<u64>,
    /// Requests that may go now, by its rpm, burst and rpd and by what the provider said is left; none: no limit is known.
    pub requests_left: Option<u64>,
    /// Tokens left before its tpm or tpd limit bites; none: unlimited.
    pub tokens_left: Option<u64>,
    /// Moving average of an answer's whole time, in ms; 0: unknown.
    pub latency_ms: u64,
    /// Moving average of the time to the first content, in ms; 0: unknown.
    pub first_token_ms: u64,
    /// Moving average of the share of failed attempts, in 1/1000.
    pub error_permille: u32,
    /// Failures of the whole backend since the last answer; those of a model stand with its cooldown.
    pub failures: u32,
    /// Attempts answered since the start.
    pub served: u64,
    /// Attempts since the start.
    pub attempts: u64,
}

/// The waiting line of a lane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct LaneView {
    /// `primary`, `fallback` or `emergency`.
    pub lane: &'static str,
    /// Exchanges waiting for capacity in this lane.
    pub queued: u64,
}

/// The cooldown of one model on a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ModelCooldownView {
    /// The model as it is named to the backend.
    pub model: String,
    /// Time left of the cooldown, in ms.
    pub cooldown_ms: u64,
    /// Its end (RFC 3339).
    pub until: String,
    /// The outcome that set it.
    pub reason: &'static str,
    /// Failures since the last answer.
    pub failures: u32,
}

/// The cooldown of one operation on a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct OperationCooldownView {
    /// The operation (`chat`), or the words of its path (`GET files`).
    pub operation: String,
    /// Time left of the cooldown, in ms.
    pub cooldown_ms: u64,
    /// Its end (RFC 3339).
    pub until: String,
    /// The outcome that set it.
    pub reason: &'static str,
    /// Failures since the last answer.
    pub failures: u32,
}

impl BackendView {
    fn new(backend: &BackendConfig, o: Overview, now: Timestamp) -> Self {
        let served = backend.backend.routes.iter().filter(|route| route.is_served());
        Self {
            id: o.id.to_string(),
            tier: backend.backend.tier.as_str(),
            dialect: backend.backend.dialect.as_str(),
            base_url: backend.base_url.to_string(),
            models: served.map(|route| route.asked.to_string()).collect(),
            state: state_word(o.state),
            cooldown_ms: o.cooldown.map_or(0, |(until, _)| until.since(now).as_millis() as u64),
            cooldown_reason: o.cooldown.map(|(_, reason)| reason.as_str().to_owned()),
            models_cooling: o.models_cooling as u64,
            model_cooldowns: o.model_cooldowns.iter().map(|cooldown| ModelCooldownView::new(cooldown, now)).collect(),
            operation_cooldowns: o.operation_cooldowns.iter().map(|c| OperationCooldownView::new(c, now)).collect(),
            in_flight: u64::from(o.in_flight),
            most_in_flight: o.most_in_flight.map(u64::from),
            requests_left: o.requests_left.map(u64::from),
            tokens_left: o.tokens_left.map(u64::from),
            latency_ms: o.stats.latency_ms as u64,
            first_token_ms: o.stats.first_token_ms as u64,
            error_permille: (o.stats.errors * 1_000.0) as u32,
            failures: o.failures,
            served: o.stats.answered,
            attempts: o.stats.sent,
        }
    }
}

impl ModelCooldownView {
    fn new(cooldown: &ModelCooldown, now: Timestamp) -> Self {
        Self {
            model: cooldown.model.to_string(),
            cooldown_ms: cooldown.until.since(now).as_millis() as u64,
            until: Rfc3339(cooldown.until).to_string(),
            reason: cooldown.reason.as_str(),
            failures: cooldown.failures,
        }
    }
}

impl OperationCooldownView {
    fn new(cooldown: &OperationCooldown, now: Timestamp) -> Self {
        Self {
            operation: cooldown.operation.to_string(),
            cooldown_ms: cooldown.until.since(now).as_millis() as u64,
            until: Rfc3339(cooldown.until).to_string(),
            reason: cooldown.reason.as_str(),
            failures: cooldown.failures,
        }
    }
}

fn state_word(state: RowState) -> &'static str {
    match state {
        RowState::Unsuited => RowState::Ready.as_str(),
        RowState::Ready | RowState::Throttled | RowState::Cooling | RowState::Probing | RowState::Drained => {
            state.as_str()
        }
    }
}
