//! One backend at run time: used limits, health, and averages of its attempts.

mod ceilings;
mod charge;
mod initial;
mod models;
mod parts;
mod readiness;
mod row;
mod stats;

use std::collections::HashSet;
use std::sync::Arc;

use super::health::{Health, is_exclusion};
use super::limits::{Ceiling, ModelRates, Quota, RateLimit, RateLimits};
use super::state_change::{Change, Reporter, StateChange};
use crate::contract::NONE;
use crate::origin::Endpoint;
use crate::table::Backend;
use crate::time::Timestamp;

use ceilings::Ceilings;
pub(crate) use charge::{Charge, EndedAttempt};
pub use initial::InitialState;
use models::Models;
use parts::Parts;
pub(crate) use parts::PartsUsed;
pub(crate) use row::RowContext;
pub use stats::Stats;

/// Operations with a health of their own per backend.
const MAX_OPERATIONS: usize = 64;

/// Requests with a cooldown of their own, and exchanges with a pause, per backend.
const MAX_REQUESTS: usize = 256;

/// Models that a backend is remembered to have answered for; the names are those that clients use.
const MAX_SERVED: usize = 256;

/// Requests per minute that the emergency rate of a backend without an rpm limit is a fraction of.
const UNLIMITED_RPM: u32 = 60;

/// One backend at run time.
#[derive(Debug)]
pub(crate) struct Member {
    pub id: Arc<str>,
    drained: bool,
    pub in_flight: u32,
    max_concurrency: Option<u32>,
    /// The ceiling that is learned where none is configured.
    concurrency: Ceiling,
    rates: RateLimits,
    model_rates: ModelRates,
    emergency: RateLimit,
    quota_requests: Quota,
    quota_tokens: Quota,
    /// Health of the backend as a whole.
    wide: Health,
    models: Models,
    operations: Parts<Endpoint>,
    /// Cooldowns of single requests: nobody else is kept from the backend by them.
    single_requests: Parts<u64>,
    /// Pauses of exchanges that failed here again and again: nobody else is kept from the backend by them either.
    exchanges: Parts<u64>,
    ceilings: Ceilings,
    /// Models that it has answered for, at most [`MAX_SERVED`].
    served: HashSet<Arc<str>>,
    pub stats: Stats,
    reporter: Reporter,
    /// Changes to report that the fleet has not taken yet.
    changes: Vec<StateChange>,
}

impl Member {
    pub(super) fn new(backend: &Backend, emergency_fraction: f64) -> Self {
        let mut member = Self {
            id: backend.id.clone(),
            drained: false,
            in_flight: 0,
            max_concurrency: None,
            concurrency: Ceiling::default(),
            rates: RateLimits::default(),
            model_rates: ModelRates::default(),
            emergency: RateLimit::per_minute(1),
            quota_requests: Quota::default(),
            quota_tokens: Quota::default(),
            wide: Health::default(),
            models: Models::new(),
            operations: Parts::new(MAX_OPERATIONS),
            single_requests: Parts::new(MAX_REQUESTS),
            exchanges: Parts::new(MAX_REQUESTS),
            ceilings: Ceilings::default(),
            served: HashSet::new(),
            stats: Stats::default(),
            reporter: Reporter::default(),
            changes: Vec::new(),
        };
        member.set_limits(backend, emergency_fraction);
        member
    }

    /// Replaces the limits; units already used stay used.
    pub(super) fn set_limits(&mut self, backend: &Backend, emergency_fraction: f64) {
        let limits = backend.limits;
        self.rates.set(limits);
        self.model_rates.set(backend);
        self.models.set_routes(backend);
        self.max_concurrency = limits.max_concurrency;
        let emergency_rpm = (f64::from(limits.rpm.unwrap_or(UNLIMITED_RPM)) * emergency_fraction).max(1.0) as u32;
        // One at a time: attempts of the same moment would fail for the same reason.
        self.emergency.set(emergency_rpm, 1);
    }

    /// Applies what the provider says is left of its limits, each with the time of its reset.
    pub(super) fn learn(&mut self, requests: Option<(u32, Timestamp)>, tokens: Option<(u32, Timestamp)>) {
        if let Some((left, until)) = requests {
            self.quota_requests.set(left, until);
        }
        if let Some((left, until)) = tokens {
            self.quota_tokens.set(left, until);
        }
    }

    /// Returns true if it has answered for this model.
    pub(super) fn has_served(&self, model: &str) -> bool {
        self.served.contains(model)
    }

    /// Takes the backend out of service or puts it back.
    pub(super) fn set_drained(&mut self, now: Timestamp, drained: bool) {
        if self.drained != drained {
            self.drained = drained;
            self.report(now, None, Some(if drained { Change::Drained } else { Change::Resumed }));
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Takes the changes of state to report.
    pub(super) fn take_changes(&mut self) -> Vec<StateChange> {
        std::mem::take(&mut self.changes)
    }

    /// Takes the newest change that was left out, once it may be reported.
    pub(super) fn overdue_change(&mut self, now: Timestamp) -> Option<StateChange> {
        self.reporter.overdue(now)
    }

    fn report(&mut self, now: Timestamp, model: Option<&str>, change: Option<Change>) {
        self.report_part(now, model, None, change);
    }

    fn report_operation(&mut self, now: Timestamp, operation: &Endpoint, change: Option<Change>) {
        self.report_part(now, None, Some(operation), change);
    }

    fn report_part(
        &mut self,
        now: Timestamp,
        model: Option<&str>,
        operation: Option<&Endpoint>,
        change: Option<Change>,
    ) {
        if let Some(change) = change {
            let (backend, model) = (self.id.clone(), model.map(Arc::from));
            let operation = operation.map(|operation| operation.as_str().into());
            let change = StateChange { at: now, backend, model, operation, change, left_out: 0 };
            self.changes.extend(self.reporter.report(change));
        }
    }

    /// Ends every cooldown and forgets the provider's quota; the next attempt is a probe.
    pub(super) fn clear_cooldown(&mut self, now: Timestamp) {
        if self.cooldowns(now).next().is_some() || self.operation_cooldowns(now).next().is_some() {
            self.report(now, None, Some(Change::Cleared));
        }
        self.quota_requests = Quota::default();
        self.quota_tokens = Quota::default();
        self.wide.clear();
        self.models.healths_mut().chain(self.operations.healths_mut()).for_each(Health::clear);
        self.single_requests.clear();
        self.exchanges.clear();
        self.ceilings = Ceilings::default();
    }

    /// Ends the exclusions that an old key or base URL caused.
    pub(super) fn forget_key_faults(&mut self, now: Timestamp) {
        if self.cooldowns(now).any(|(_, health)| is_exclusion(health.reason)) {
            self.report(now, None, Some(Change::Cleared));
        }
        let of_parts = self.models.healths_mut().chain(self.operations.healths_mut());
        of_parts.chain([&mut self.wide]).filter(|health| is_exclusion(health.reason)).for_each(Health::clear);
        self.single_requests.clear();
        self.exchanges.clear();
        self.ceilings = Ceilings::default();
    }

    /// The cooldowns in force, of the backend as a whole (no model) and of its models, by the names that are sent.
    pub(super) fn cooldowns(&self, now: Timestamp) -> impl Iterator<Item = (Option<&Arc<str>>, &Health)> {
        std::iter::once((None, &self.wide))
            .chain(self.models.iter().map(|(model, m)| (Some(model), &m.health)))
            .filter(move |(_, h)| h.until > now)
    }

    /// The cooldowns of its operations in force.
    pub(super) fn operation_cooldowns(&self, now: Timestamp) -> impl Iterator<Item = (&Endpoint, &Health)> {
        self.operations.iter().map(|(operation, part)| (operation, &part.health)).filter(move |(_, h)| h.until > now)
    }

    /// Returns true if this request has a cooldown of its own here, or its exchange a pause, or had one lately.
    pub(super) fn holds_back(&self, parts: PartsUsed<'_>) -> bool {
        self.single_requests.get(&parts.request).is_some() || self.exchanges.get(&parts.exchange).is_some()
    }

    /// Ends the cooldowns that this request alone has brought about.
    pub(super) fn end_cooldowns_of(&mut self, parts: PartsUsed<'_>) {
        self.wide.end_cooldown_of(parts.request);
        let of_model = self.models.get_mut(parts.model).map(|part| &mut part.health);
        let of_operation = self.operations.get_mut(parts.endpoint).map(|part| &mut part.health);
        of_model.into_iter().chain(of_operation).for_each(|health| health.end_cooldown_of(parts.request));
    }

    /// Forgets that this request failed, wherever no other one did.
    pub(super) fn forget_failures_of(&mut self, request: u64) {
        let parts = self.models.healths_mut().chain(self.operations.healths_mut());
        std::iter::once(&mut self.wide).chain(parts).for_each(|health| health.forget_failure_of(request));
    }

    /// Load and error rate as one number; lower is better.
    pub(super) fn load_score(&self) -> f32 {
        let load = match self.most_in_flight() {
            Some(max) => self.in_flight as f32 / max as f32,
            None => self.in_flight as f32 / 16.0,
        };
        load + 4.0 * self.stats.errors
    }

    /// Requests and tokens that may be sent now, by its limits and the provider's quota; `None`: no limit is known.
    pub(super) fn left(&self, now: Timestamp) -> (Option<u32>, Option<u32>) {
        let known = |left: u32| (left != NONE).then_some(left);
        (known(self.requests_left(now)), known(self.tokens_left(now)))
    }

    fn requests_left(&self, now: Timestamp) -> u32 {
        self.rates.requests_left(now).min(self.quota_requests.left(now))
    }

    fn tokens_left(&self, now: Timestamp) -> u32 {
        self.rates.tokens_left(now).min(self.quota_tokens.left(now))
    }

    /// The most attempts under way at a time: as configured, else as learned.
    pub(super) fn most_in_flight(&self) -> Option<u32> {
        self.max_concurrency.or(self.concurrency.most())
    }

    fn is_full(&self) -> bool {
        self.most_in_flight().is_some_and(|most| self.in_flight >= most)
    }

    /// Failures of the whole backend since the last answer.
    pub(super) fn failures(&self) -> u32 {
        self.wide.failures
    }
}
