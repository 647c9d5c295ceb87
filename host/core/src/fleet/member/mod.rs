//! What the fleet knows of one backend while it runs: limits in use, health, and how well it has been doing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::health::{Bounds, Health, Probe, Scope, Standing, is_exclusion, rule};
use super::limits::{Quota, RateLimit};
use super::state_change::{Change, Reporter, StateChange};
use crate::contract::{Column, NONE, RowState, STRIDE};
use crate::outcome::{Kind, Outcome};
use crate::table::{Lane, Limits};
use crate::time::{Timestamp, millis_u32};

/// Models with a health of their own, per backend; beyond that the cooldown that ends soonest makes room.
const MAX_MODELS: usize = 1_024;

/// The emergency rate of a backend without an rpm limit is a fraction of this.
const UNLIMITED_RPM: u32 = 60;

/// The running state of one backend.
#[derive(Debug)]
pub(crate) struct Member {
    pub id: Arc<str>,
    drained: bool,
    pub in_flight: u32,
    max_concurrency: Option<u32>,
    requests: Option<RateLimit>,
    tokens: Option<RateLimit>,
    emergency: RateLimit,
    quota_requests: Quota,
    quota_tokens: Quota,
    wide: Health,
    models: HashMap<Arc<str>, ModelHealth>,
    pub stats: Stats,
    reporter: Reporter,
    /// Changes to report that the fleet has not taken yet.
    changes: Vec<StateChange>,
}

#[derive(Debug, Default)]
struct ModelHealth {
    health: Health,
    in_flight: u32,
}

/// How well a backend has been doing: moving averages over its attempts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Whole time of an answer, ms.
    pub latency_ms: f32,
    /// Time to the first content, ms.
    pub first_token_ms: f32,
    /// Share of failed attempts, 0..=1.
    pub errors: f32,
    /// Attempts sent.
    pub sent: u64,
    /// Attempts answered.
    pub answered: u64,
}

/// What a backend has behind it when a world begins that did not begin today.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// Its cooldown: what is left of it, and why. Nothing left: it waits for its probe.
    pub cooldown: Option<(Duration, Kind)>,
    /// Failures since the last answer; counts with a cooldown only.
    pub failures: u32,
    /// The operator took it out.
    pub drained: bool,
    /// Attempts of others under way, which do not end.
    pub in_flight: u32,
    /// What is left of its rpm limit, where it has one.
    pub requests_left: Option<u32>,
    /// What is left of its tpm limit, where it has one.
    pub tokens_left: Option<u32>,
    /// It takes nothing before this is over.
    pub full_for: Option<Duration>,
    /// The emergency lane may not use it before this is over.
    pub emergency_in: Option<Duration>,
    /// Moving average of an answer's whole time; zero: unknown.
    pub latency: Duration,
    /// Moving average of the time to the first content; zero: unknown.
    pub first_token: Duration,
    /// Moving average of the share of failed attempts, 0..=1.
    pub errors: f32,
}

/// What was counted when an attempt was let go, to be undone when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    tokens: u32,
    probe: Option<Probe>,
    model_probe: Option<Probe>,
    in_model: bool,
    emergency: bool,
}

impl Charge {
    pub fn is_probe(self) -> bool {
        self.probe.is_some() || self.model_probe.is_some()
    }
}

impl Member {
    pub fn new(id: Arc<str>, limits: Limits, emergency_fraction: f64) -> Self {
        let mut member = Self {
            id,
            drained: false,
            in_flight: 0,
            max_concurrency: None,
            requests: None,
            tokens: None,
            emergency: RateLimit::per_minute(1),
            quota_requests: Quota::default(),
            quota_tokens: Quota::default(),
            wide: Health::default(),
            models: HashMap::new(),
            stats: Stats::default(),
            reporter: Reporter::default(),
            changes: Vec::new(),
        };
        member.set_limits(limits, emergency_fraction);
        member
    }

    /// Takes new limits; what is used of them stays used.
    pub fn set_limits(&mut self, limits: Limits, emergency_fraction: f64) {
        fn set(held: &mut Option<RateLimit>, limit: Option<u32>, burst: Option<u32>) {
            match (held, limit) {
                (Some(held), Some(limit)) => held.set(limit, burst.unwrap_or(limit)),
                (held, limit) => *held = limit.map(|limit| RateLimit::of_provider(limit, burst)),
            }
        }
        set(&mut self.requests, limits.rpm, limits.burst);
        set(&mut self.tokens, limits.tpm, None);
        self.max_concurrency = limits.max_concurrency;
        let emergency_rpm = (f64::from(limits.rpm.unwrap_or(UNLIMITED_RPM)) * emergency_fraction).max(1.0) as u32;
        // One at a time: what would be tried at the same moment would fail for the same reason.
        self.emergency.set(emergency_rpm, 1);
    }

    /// Where it stands for a model: the worse of its own standing and the model's.
    fn standing(&self, now: Timestamp, model: &str) -> (Standing, &Health, u32) {
        let wide = (self.wide.standing(now), &self.wide, self.in_flight);
        if self.models.is_empty() {
            return wide;
        }
        let Some(of_model) = self.models.get(model) else { return wide };
        let narrow = (of_model.health.standing(now), &of_model.health, of_model.in_flight);
        if severity(narrow.0) >= severity(wide.0) { narrow } else { wide }
    }

    /// What is left of its cooldown for a model.
    pub fn cools_for(&self, now: Timestamp, model: &str) -> Duration {
        match self.standing(now, model).0 {
            Standing::Cooling { until } => until.since(now),
            Standing::Open | Standing::Due | Standing::Probing | Standing::Ramping { .. } => Duration::ZERO,
        }
    }

    /// When it could take an attempt, and what keeps it from it until then.
    pub fn readiness(&self, now: Timestamp, model: &str, tokens: u32) -> (RowState, Option<Duration>) {
        let (standing, _, standing_in_flight) = self.standing(now, model);
        self.readiness_at(now, standing, standing_in_flight, tokens)
    }

    fn readiness_at(
        &self,
        now: Timestamp,
        standing: Standing,
        standing_in_flight: u32,
        tokens: u32,
    ) -> (RowState, Option<Duration>) {
        if self.drained {
            return (RowState::Drained, None);
        }
        let limits_in = self.limits_ready_in(now, tokens);
        match standing {
            Standing::Cooling { until } => {
                (RowState::Cooling, Some(until.since(now).max(limits_in.unwrap_or_default())))
            }
            Standing::Probing => (RowState::Probing, None),
            Standing::Ramping { allowed } if standing_in_flight >= allowed => (RowState::Throttled, None),
            Standing::Open | Standing::Due | Standing::Ramping { .. } => match limits_in {
                Some(Duration::ZERO) => (RowState::Ready, Some(Duration::ZERO)),
                later => (RowState::Throttled, later),
            },
        }
    }

    /// Is its cooldown for this model over, with nobody trying it yet?
    pub fn is_due(&self, now: Timestamp, model: &str) -> bool {
        !self.drained && self.standing(now, model).0 == Standing::Due
    }

    /// How long its limits keep it; none when a slot has to come free first.
    fn limits_ready_in(&self, now: Timestamp, tokens: u32) -> Option<Duration> {
        if self.max_concurrency.is_some_and(|max| self.in_flight >= max) {
            return None;
        }
        let quota = self.quota_requests.ready_in(now, 1).max(self.quota_tokens.ready_in(now, 1));
        Some(self.windows_ready_in(now, tokens).max(quota))
    }

    /// How long its rpm and tpm keep it.
    fn windows_ready_in(&self, now: Timestamp, tokens: u32) -> Duration {
        let requests = self.requests.as_ref().map_or(Duration::ZERO, |limit| limit.ready_in(now, 1));
        requests.max(self.tokens.as_ref().map_or(Duration::ZERO, |limit| limit.ready_in(now, tokens)))
    }

    /// Does it cool for a reason that not even an emergency gets around: the key, the money, the model?
    pub fn is_hopeless(&self, now: Timestamp, model: &str) -> bool {
        let of_model = self.models.get(model).map(|m| &m.health);
        of_model.into_iter().chain([&self.wide]).any(|health| now < health.until && is_exclusion(health.reason))
    }

    /// When the emergency lane may use it; none: not at all. Its own limits hold in an emergency too: a provider refuses
    /// what is beyond them.
    pub fn emergency_in(&self, now: Timestamp, model: &str, tokens: u32) -> Option<Duration> {
        let full = self.max_concurrency.is_some_and(|max| self.in_flight >= max);
        (!self.drained && !self.is_hopeless(now, model) && !full)
            .then(|| self.emergency.ready_in(now, 1).max(self.windows_ready_in(now, tokens)))
    }

    /// Counts an attempt that is let go now.
    pub fn charge(&mut self, now: Timestamp, model: &str, tokens: u32, emergency: bool) -> Charge {
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
        let probe = self.wide.sent(now);
        let of_model = if self.models.is_empty() { None } else { self.models.get_mut(model) };
        let in_model = of_model.is_some();
        let model_probe = of_model.and_then(|m| {
            m.in_flight += 1;
            m.health.sent(now)
        });
        Charge { tokens, probe, model_probe, in_model, emergency }
    }

    /// Undoes a charge that was never sent.
    pub fn refund(&mut self, taken_at: Timestamp, model: &str, charge: Charge) {
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
        self.wide.probe_returned(charge.probe);
        if charge.model_probe.is_some()
            && let Some(m) = self.models.get_mut(model)
        {
            m.health.probe_returned(charge.model_probe);
        }
    }

    /// Settles an attempt that ended: gives back its slot, corrects its tokens, and learns from its outcome.
    pub fn settle(&mut self, at: Settled<'_>, charge: Charge) {
        self.release(at.model, charge);
        if let (Some(b), Some(used)) = (&mut self.tokens, at.tokens_used) {
            b.give_back(at.sent_at, charge.tokens.saturating_sub(used));
            b.take(at.now, used.saturating_sub(charge.tokens));
        }
        if at.outcome.kind == Kind::ConnectFailed
            && let Some(b) = &mut self.requests
        {
            // The provider never saw it.
            b.give_back(at.sent_at, 1);
        }
        self.stats.sent += 1;
        match rule(at.outcome.kind).scope {
            Scope::Nothing if at.outcome.kind == Kind::ClientGone => self.return_probes(at.model, charge),
            Scope::Nothing => self.answered(at, charge),
            Scope::Backend => {
                self.return_probes(at.model, charge);
                self.stats.failed();
                self.wide.failed(at.now, at.sent_at, at.outcome, at.bounds, at.chance);
                let change = self.wide.failure_to_report(at.now);
                self.report(at.now, None, change);
            }
            Scope::Model => {
                // The backend itself was reached, but nothing was proved yet: the wide probe stays due.
                self.return_probes(at.model, charge);
                self.stats.failed();
                if let Some(health) = self.health_of(at.now, at.model) {
                    health.failed(at.now, at.sent_at, at.outcome, at.bounds, at.chance);
                    let change = health.failure_to_report(at.now);
                    self.report(at.now, Some(at.model), change);
                }
            }
        }
    }

    fn answered(&mut self, at: Settled<'_>, charge: Charge) {
        self.stats.answered(at.now.since(at.sent_at), at.first_token);
        self.wide.succeeded(at.now, at.sent_at);
        let change = self.wide.recovery_to_report(at.now);
        self.report(at.now, None, change);
        if charge.in_model
            && let Some(m) = self.models.get_mut(at.model)
        {
            m.health.succeeded(at.now, at.sent_at);
            let change = m.health.recovery_to_report(at.now);
            if m.health.standing(at.now) == Standing::Open && m.in_flight == 0 {
                self.models.remove(at.model);
            }
            self.report(at.now, Some(at.model), change);
        }
        // An answer from before the cooldown is no verdict.
        self.return_probes(at.model, charge);
    }

    /// The health of a model; none when there is room for no more (names are the clients' to invent).
    fn health_of(&mut self, now: Timestamp, model: &str) -> Option<&mut Health> {
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

    /// What the provider said is left of its own limits: requests, then tokens, each with the time of its reset.
    pub fn learn(&mut self, requests: Option<(u32, Timestamp)>, tokens: Option<(u32, Timestamp)>) {
        if let Some((left, until)) = requests {
            self.quota_requests.learn(left, until);
        }
        if let Some((left, until)) = tokens {
            self.quota_tokens.learn(left, until);
        }
    }

    /// Takes it out of service, or back in.
    pub fn set_drained(&mut self, now: Timestamp, drained: bool) {
        if self.drained != drained {
            self.drained = drained;
            self.report(now, None, Some(if drained { Change::Drained } else { Change::Resumed }));
        }
    }

    /// Out of service by the operator's wish?
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// Changes of its state to report.
    pub fn take_changes(&mut self) -> impl Iterator<Item = StateChange> {
        self.changes.drain(..)
    }

    /// The newest change that was left out and may be reported by now.
    pub fn overdue_change(&mut self, now: Timestamp) -> Option<StateChange> {
        self.reporter.overdue(now)
    }

    fn report(&mut self, now: Timestamp, model: Option<&str>, change: Option<Change>) {
        if let Some(change) = change {
            let (backend, model) = (self.id.clone(), model.map(Arc::from));
            let change = StateChange { at: now, backend, model, change, left_out: 0 };
            self.changes.extend(self.reporter.report(change));
        }
    }

    /// Ends every cooldown, and what is known of the provider's own limits; the next attempt is a probe.
    pub fn clear_cooldown(&mut self, now: Timestamp) {
        if self.cooldowns(now).next().is_some() {
            self.report(now, None, Some(Change::Cleared));
        }
        self.quota_requests = Quota::default();
        self.quota_tokens = Quota::default();
        self.wide.clear();
        for m in self.models.values_mut() {
            m.health.clear();
        }
    }

    /// It has another key or another place now: ends the cooldowns that the old one earned.
    pub fn forget_key_faults(&mut self, now: Timestamp) {
        if self.cooldowns(now).any(|(_, health)| is_exclusion(health.reason)) {
            self.report(now, None, Some(Change::Cleared));
        }
        let of_models = self.models.values_mut().map(|m| &mut m.health);
        of_models.chain([&mut self.wide]).filter(|health| is_exclusion(health.reason)).for_each(Health::clear);
    }

    /// The cooldowns in force: of the whole backend (no model) and of its models.
    pub fn cooldowns(&self, now: Timestamp) -> impl Iterator<Item = (Option<&Arc<str>>, &Health)> {
        std::iter::once((None, &self.wide))
            .chain(self.models.iter().map(|(model, m)| (Some(model), &m.health)))
            .filter(move |(_, h)| h.until > now)
    }

    /// Puts a cooldown back as it was before a restart.
    pub fn restore(&mut self, now: Timestamp, model: Option<&str>, mut health: Health) {
        health.failing_from(now);
        let change = health.failure_to_report(now);
        match model {
            None => self.wide = health,
            Some(model) => {
                if let Some(of_model) = self.health_of(now, model) {
                    *of_model = health;
                }
            }
        }
        self.report(now, model, change);
    }

    /// Has nothing behind it, but what is under way goes on.
    pub fn forget(&mut self) {
        self.requests = self.requests.as_ref().map(RateLimit::unused);
        self.tokens = self.tokens.as_ref().map(RateLimit::unused);
        self.emergency = self.emergency.unused();
        self.quota_requests = Quota::default();
        self.quota_tokens = Quota::default();
        self.wide = Health::default();
        self.models.clear();
        self.stats = Stats::default();
    }

    /// Has all this behind it.
    pub fn assume(&mut self, now: Timestamp, past: &Past) {
        self.drained = past.drained;
        self.in_flight = past.in_flight;
        if let Some((left, reason)) = past.cooldown {
            self.wide = Health::restored(now + left, reason, past.failures);
        }
        if let (Some(limit), Some(left)) = (&mut self.requests, past.requests_left) {
            limit.leave(now, left);
        }
        if let (Some(limit), Some(left)) = (&mut self.tokens, past.tokens_left) {
            limit.leave(now, left);
        }
        if let Some(wait) = past.full_for {
            self.quota_requests.learn(0, now + wait);
        }
        if let Some(wait) = past.emergency_in {
            self.emergency.leave_none_for(now, wait);
        }
        self.stats.latency_ms = past.latency.as_secs_f32() * 1_000.0;
        self.stats.first_token_ms = past.first_token.as_secs_f32() * 1_000.0;
        self.stats.errors = past.errors;
    }

    /// Its numbers for a query about `model`.
    pub fn write_row(&self, now: Timestamp, model: &str, tokens: u32, asker: Asker, row: &mut [u32]) {
        debug_assert_eq!(row.len(), STRIDE);
        let (standing, health, standing_in_flight) = self.standing(now, model);
        let (state, ready) = match (self.readiness(now, model, tokens), asker.holds) {
            (found @ (RowState::Cooling | RowState::Drained, _), _) => found,
            (_, Some(Lane::Primary | Lane::Fallback)) => (RowState::Ready, Some(Duration::ZERO)),
            ((RowState::Ready, _), _) if asker.is_behind => (RowState::Throttled, None),
            (found, Some(Lane::Emergency) | None) => found,
        };
        let slots = self.max_concurrency.map_or(NONE, |max| max.saturating_sub(self.in_flight));
        let of_standing = match standing {
            Standing::Ramping { allowed } => allowed.saturating_sub(standing_in_flight),
            Standing::Due => 1,
            Standing::Probing => 0,
            Standing::Open | Standing::Cooling { .. } => NONE,
        };
        let mut put = |column: Column, value: u32| row[column as usize] = value;
        put(Column::State, state as u32);
        put(Column::ReadyMs, ready.map_or(NONE, millis_u32));
        match standing {
            Standing::Cooling { until } => {
                put(Column::CooldownMs, millis_u32(until.since(now)));
                put(Column::CooldownReason, health.reason.index());
            }
            // Why it has to be probed.
            Standing::Due | Standing::Probing => put(Column::CooldownReason, health.reason.index()),
            Standing::Open | Standing::Ramping { .. } => {}
        }
        put(Column::RequestsLeft, self.requests_left(now));
        put(Column::TokensLeft, self.tokens_left(now));
        put(Column::InFlight, self.in_flight);
        put(Column::ConcurrencyLeft, slots.min(of_standing));
        put(Column::LatencyMs, self.stats.latency_ms as u32);
        put(Column::FirstTokenMs, self.stats.first_token_ms as u32);
        put(Column::ErrorPermille, (self.stats.errors * 1_000.0) as u32);
        put(Column::Failures, self.wide.failures.max(health.failures));
        let emergency = match asker.holds {
            Some(Lane::Emergency) => Some(Duration::ZERO),
            Some(Lane::Primary | Lane::Fallback) | None => self.emergency_in(now, model, tokens),
        };
        put(Column::EmergencyMs, emergency.map_or(NONE, millis_u32));
        put(Column::Queued, asker.queued);
    }

    /// Lower is better: load first, then errors.
    pub fn score(&self) -> f32 {
        let load = match self.max_concurrency {
            Some(max) => self.in_flight as f32 / max as f32,
            None => self.in_flight as f32 / 16.0,
        };
        load + 4.0 * self.stats.errors
    }

    /// Its own state and cooldown, whatever its models do.
    pub fn own_state(&self, now: Timestamp) -> (RowState, Option<(Timestamp, Kind)>) {
        let (state, _) = self.readiness_at(now, self.wide.standing(now), self.in_flight, 1);
        (state, cooldown_in_force(&self.wide, now))
    }

    /// Its state for a model, and the cooldown behind that: its own or the model's, whichever lasts longer.
    pub fn state_for(&self, now: Timestamp, model: &str, tokens: u32) -> (RowState, Option<(Timestamp, Kind)>) {
        let (_, health, _) = self.standing(now, model);
        (self.readiness(now, model, tokens).0, cooldown_in_force(health, now))
    }

    /// Requests and tokens that may go now, by its limits and by what the provider said is left of its own; none: no limit
    /// is known.
    pub fn left(&self, now: Timestamp) -> (Option<u32>, Option<u32>) {
        let known = |left: u32| (left != NONE).then_some(left);
        (known(self.requests_left(now)), known(self.tokens_left(now)))
    }

    fn requests_left(&self, now: Timestamp) -> u32 {
        let limit = self.requests.as_ref().map_or(NONE, |limit| limit.left(now));
        limit.min(self.quota_requests.left(now))
    }

    fn tokens_left(&self, now: Timestamp) -> u32 {
        let limit = self.tokens.as_ref().map_or(NONE, |limit| limit.left(now));
        limit.min(self.quota_tokens.left(now))
    }

    /// Failures of the whole backend since the last answer.
    pub fn failures(&self) -> u32 {
        self.wide.failures
    }
}

/// What a backend's row depends on besides the backend: who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// The lane of the permit that the asker was handed here while it waited: that one is ready for it.
    pub holds: Option<Lane>,
    /// Somebody before it in line wants the same: what is free is not for it.
    pub is_behind: bool,
    /// Exchanges before it in the line for this backend's tier.
    pub queued: u32,
}

/// An attempt that ended, as a member needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled<'a> {
    pub now: Timestamp,
    pub sent_at: Timestamp,
    pub model: &'a str,
    pub outcome: &'a Outcome,
    pub first_token: Option<Duration>,
    pub tokens_used: Option<u32>,
    pub bounds: &'a Bounds,
    pub chance: f64,
}

fn cooldown_in_force(health: &Health, now: Timestamp) -> Option<(Timestamp, Kind)> {
    (health.until > now).then_some((health.until, health.reason))
}

/// Of two cooldowns the longer is the worse: the other says nothing of the time after it.
fn severity(standing: Standing) -> (u8, Timestamp) {
    match standing {
        Standing::Open => (0, Timestamp::default()),
        Standing::Ramping { .. } => (1, Timestamp::default()),
        Standing::Due => (2, Timestamp::default()),
        Standing::Probing => (3, Timestamp::default()),
        Standing::Cooling { until } => (4, until),
    }
}

impl Stats {
    fn answered(&mut self, elapsed: Duration, first_token: Option<Duration>) {
        fn mix(average: &mut f32, sample: Duration) {
            let sample = sample.as_secs_f32() * 1_000.0;
            *average = if *average == 0.0 { sample } else { *average * 0.8 + sample * 0.2 };
        }
        self.answered += 1;
        self.errors *= 0.9;
        mix(&mut self.latency_ms, elapsed);
        if let Some(first_token) = first_token {
            mix(&mut self.first_token_ms, first_token);
        }
    }

    fn failed(&mut self) {
        self.errors = self.errors * 0.9 + 0.1;
    }
}
