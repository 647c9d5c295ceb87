//! The health of a backend, or of one model on it: cooldown, the probe after it, and the ramp after that.

mod evidence;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::state_change::{Change, REPORTED_OUTAGE};
use crate::outcome::{Kind, Outcome};
use crate::time::Timestamp;

pub use crate::outcome::Scope;
pub use evidence::{Evidence, Witness};

use evidence::Witnesses;

/// The effect of a kind of outcome on a backend.
#[derive(Clone, Copy, Debug)]
pub struct CooldownRule {
    /// First cooldown without a Retry-After, as a multiple of [`CooldownSettings::base`]; doubled with each further failure.
    pub base_factor: f64,
    /// Longest cooldown without a Retry-After, as a multiple of [`CooldownSettings::max`].
    pub max_factor: f64,
}

/// Returns the cooldown rule for a kind of outcome.
///
/// Except for rate limits, credit, keys and unknown models a cooldown is at most a third of the longest one (20 s of
/// 60 s), so that a recovered backend is found within half a minute.
pub fn cooldown_rule(kind: Kind) -> CooldownRule {
    let rule = |base_factor, max_factor| CooldownRule { base_factor, max_factor };
    let third = 1.0 / 3.0;
    match kind {
        Kind::Answered | Kind::Refused | Kind::TooLong | Kind::ClientGone | Kind::NotResumed => rule(0.0, 0.0),
        Kind::RateLimited => rule(1.0, 1.0),
        Kind::Overloaded | Kind::ServerError | Kind::Reset => rule(0.5, third),
        Kind::Cut | Kind::Stalled | Kind::Malformed | Kind::ConnectFailed => rule(1.0, third),
        Kind::TimedOut => rule(5.0, third),
        Kind::ModelMissing => rule(600.0, 60.0),
        Kind::Unauthorised | Kind::OutOfCredit => rule(900.0, 360.0),
    }
}

/// Returns the rule for a refused key or used up credit that only one request has seen: a second or so, until another
/// request or a health check confirms it.
const fn unconfirmed_rule() -> CooldownRule {
    CooldownRule { base_factor: 1.0, max_factor: 1.0 / 60.0 }
}

/// Returns the rule for the one request that was refused for its key or credit.
const fn own_rule() -> CooldownRule {
    CooldownRule { base_factor: 30.0, max_factor: 5.0 }
}

/// Returns true if one request may bring the outcome about at any backend, so that what it alone has met says little.
pub const fn may_be_requests(kind: Kind) -> bool {
    match kind {
        Kind::ServerError
        | Kind::Cut
        | Kind::Stalled
        | Kind::Malformed
        | Kind::TimedOut
        | Kind::Reset
        | Kind::Unauthorised
        | Kind::OutOfCredit => true,
        Kind::Answered
        | Kind::RateLimited
        | Kind::Overloaded
        | Kind::Refused
        | Kind::TooLong
        | Kind::ModelMissing
        | Kind::ConnectFailed
        | Kind::ClientGone
        | Kind::NotResumed => false,
    }
}

/// Returns true if the key or its account was refused.
const fn is_of_account(kind: Kind) -> bool {
    matches!(kind, Kind::Unauthorised | Kind::OutOfCredit)
}

/// Returns true if a retry is pointless before the operator or the provider changes the key, the account or the
/// models.
pub fn is_exclusion(kind: Kind) -> bool {
    match kind {
        Kind::Unauthorised | Kind::OutOfCredit | Kind::ModelMissing => true,
        Kind::Answered
        | Kind::RateLimited
        | Kind::Overloaded
        | Kind::ServerError
        | Kind::Refused
        | Kind::TooLong
        | Kind::ConnectFailed
        | Kind::Reset
        | Kind::TimedOut
        | Kind::Cut
        | Kind::Stalled
        | Kind::Malformed
        | Kind::ClientGone
        | Kind::NotResumed => false,
    }
}

/// Lengths of cooldowns, with and without a Retry-After from the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CooldownSettings {
    /// The first cooldown after a rate limit without a Retry-After.
    pub base: Duration,
    /// The longest cooldown without a Retry-After.
    pub max: Duration,
    /// Largest share of a cooldown that is added at random, 0..=1.
    pub jitter: f64,
    /// Minimum for a Retry-After; a shorter one is raised to it.
    pub retry_after_floor: Duration,
    /// Maximum for a Retry-After; a longer one is cut to it.
    pub retry_after_cap: Duration,
}

impl Default for CooldownSettings {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(1_000),
            max: Duration::from_millis(60_000),
            jitter: 0.2,
            retry_after_floor: Duration::from_millis(100),
            retry_after_cap: Duration::from_secs(3_600),
        }
    }
}

/// State of health of a backend, or of one model on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// Takes what its limits allow.
    Healthy,
    /// In cooldown: nothing is sent outside the emergency lane.
    Cooling {
        /// The end of the cooldown.
        until: Timestamp,
    },
    /// The cooldown is over; the next attempt is the probe.
    ProbeDue,
    /// The probe is under way.
    Probing,
    /// The probe was answered; the number of attempts under way is limited.
    Ramping {
        /// Attempts that may be under way at a time.
        allowed: u32,
    },
}

/// A key that gave an answer so lately is not suspected because of one request.
const TRUSTED_FOR: Duration = Duration::from_secs(60);

/// The shortest time between a failure and an attempt in the emergency lane.
const EMERGENCY_PAUSE: Duration = Duration::from_secs(1);

/// The ramp doubles from 2 attempts under way and ends at this many.
const RAMP_END: u32 = 64;

/// The failed tries of one exchange that count for its next one at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// Their number, the last one included.
    pub count: u32,
    /// The longest that it was told to wait at a time; `None`: it has not waited.
    pub wait: Option<Duration>,
}

impl Tries {
    /// The first try of a request at a backend.
    pub const FIRST: Self = Self { count: 1, wait: None };
}

/// Cooldown, probe and ramp of one backend or one model on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// End of the cooldown; in the past when there is none.
    pub until: Timestamp,
    /// Cause of this cooldown, or of the last one.
    pub reason: Kind,
    /// Failures since the last answer.
    pub failures: u32,
    /// Those of them that were for the key or the account.
    account_failures: u32,
    cooled_at: Timestamp,
    /// End of the time that the upstream's Retry-After asked for; a longer cooldown may be in force meanwhile.
    retry_after_until: Timestamp,
    /// End of the pause of an exchange ([`Self::paused`]).
    paused_until: Timestamp,
    /// Probes sent so far, which numbers them.
    probes: u32,
    probing: Option<Probe>,
    ramp: Option<u32>,
    /// Time of the first failure since the last answer.
    failing_since: Timestamp,
    /// The failure reported to the operator since the last answer.
    reported: Option<Reported>,
    /// The requests that failed since the last answer.
    witnesses: Witnesses,
    /// Time of the last answer that a key was needed for.
    answered_at: Timestamp,
}

/// The failure that was reported last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    Cooling,
    /// Excluded until another request confirms it.
    Suspected,
    Excluded,
}

/// The number of a probe of one [`Health`].
pub type Probe = u32;

impl Default for Health {
    fn default() -> Self {
        Self {
            until: Timestamp::default(),
            reason: Kind::Answered,
            failures: 0,
            account_failures: 0,
            cooled_at: Timestamp::default(),
            retry_after_until: Timestamp::default(),
            paused_until: Timestamp::default(),
            probes: 0,
            probing: None,
            ramp: None,
            failing_since: Timestamp::default(),
            reported: None,
            witnesses: Witnesses::default(),
            answered_at: Timestamp::default(),
        }
    }
}

impl Health {
    /// Restores a cooldown from before a restart.
    pub fn restored(until: Timestamp, reason: Kind, failures: u32) -> Self {
        let retry_after_until = if reason == Kind::RateLimited { until } else { Timestamp::default() };
        let witnesses = Witnesses::confirmed();
        let failures = failures.max(1);
        let account_failures = if is_of_account(reason) { failures } else { 0 };
        Self { until, reason, failures, account_failures, retry_after_until, witnesses, ..Self::default() }
    }

    /// The health of a backend for one exchange that pauses before it tries there again: not in an emergency either.
    pub fn paused(until: Timestamp, reason: Kind, failures: u32) -> Self {
        Self { until, reason, failures: failures.max(1), paused_until: until, ..Self::default() }
    }

    /// Returns the state of health at `now`.
    pub fn state(&self, now: Timestamp) -> HealthState {
        match (self.failures, self.ramp) {
            _ if now < self.until => HealthState::Cooling { until: self.until },
            (0, None) => HealthState::Healthy,
            (0, Some(allowed)) => HealthState::Ramping { allowed },
            _ if self.probing.is_some() => HealthState::Probing,
            _ => HealthState::ProbeDue,
        }
    }

    /// Records that an attempt is sent; returns its number when it is the probe.
    pub fn record_sent(&mut self, now: Timestamp) -> Option<Probe> {
        if self.state(now) != HealthState::ProbeDue {
            return None;
        }
        self.probes = self.probes.wrapping_add(1);
        self.probing = Some(self.probes);
        self.probing
    }

    /// Takes back a probe that neither succeeded nor failed (the client left): the next attempt is the probe. An attempt
    /// that is not the present probe changes nothing.
    pub fn return_probe(&mut self, probe: Option<Probe>) {
        if probe.is_some() && self.probing == probe {
            self.probing = None;
        }
    }

    /// Records an answer to an attempt sent at `sent_at`, or a refusal of the request itself.
    ///
    /// Attempts sent before the cooldown was set are ignored, except that any answer ends a suspicion against the key:
    /// it was given with the same key. Only an answer speaks for a key. It does not shorten the time that a Retry-After
    /// asked for.
    pub fn record_success(&mut self, now: Timestamp, sent_at: Timestamp, kind: Kind, witness: Witness) {
        if kind == Kind::Answered {
            self.answered_at = now;
            self.witnesses.was_answered(now, witness.client);
        } else if is_of_account(self.reason) {
            return;
        }
        let is_suspicion = is_of_account(self.reason) && !self.witnesses.is_confirmed();
        let precedes_cooldown = self.failures > 0 && sent_at <= self.cooled_at && !is_suspicion;
        if precedes_cooldown || now < self.retry_after_until {
            return;
        }
        self.ramp = match self.ramp {
            _ if is_suspicion => None,
            _ if self.failures > 0 => Some(2),
            Some(allowed) if allowed * 2 < RAMP_END => Some(allowed * 2),
            Some(_) | None => None,
        };
        self.until = Timestamp::default();
        self.reason = Kind::Answered;
        (self.failures, self.account_failures) = (0, 0);
        self.probing = None;
        self.witnesses.answered(now, witness);
    }

    /// Records a failed attempt sent at `sent_at`. `chance` in 0..1 is the jitter of a cooldown without a Retry-After.
    ///
    /// A cooldown in force is never shortened, and attempts sent before it was set do not double it: a burst of failures
    /// counts once. Nor is it doubled by a request that has failed here before and may itself be the cause, until another
    /// one fails too.
    pub fn record_failure(
        &mut self,
        now: Timestamp,
        sent_at: Timestamp,
        outcome: &Outcome,
        settings: &CooldownSettings,
        chance: f64,
        evidence: Evidence,
    ) {
        let Some(is_confirmed) = self.weigh(now, outcome.kind, evidence) else { return };
        self.ramp = None;
        // A cleared cooldown keeps one failure, not the time of the first.
        if self.failures == 0 || self.failing_since == Timestamp::default() {
            self.failing_since = now;
        }
        let alike = self.failures_alike(outcome.kind);
        let is_same_burst = alike > 0 && sent_at <= self.cooled_at;
        if !is_same_burst && (is_confirmed || alike == 0 || !may_be_requests(outcome.kind)) {
            self.failures = self.failures.saturating_add(1);
            self.account_failures += u32::from(is_of_account(outcome.kind) && self.account_failures < u32::MAX);
        }
        let alike = self.failures_alike(outcome.kind);
        let rule = self.rule(outcome.kind, evidence, is_confirmed);
        // Of a refused key the first failure was the suspicion, the second confirms it.
        let is_second = is_of_account(outcome.kind) && is_confirmed && evidence != Evidence::Own;
        let doubled = if is_second { alike.saturating_sub(1).max(1) } else { alike };
        let most = self.witnesses.most(now, outcome.kind, evidence, settings);
        let grown = |failures| {
            let length = backoff(rule, settings, failures, chance);
            most.map_or(length, |most| length.min(most))
        };
        let asked = outcome.retry_after.map(|asked| {
            // What one request has met keeps the others waiting no longer with a Retry-After than without.
            let bound = match may_be_requests(outcome.kind) && !is_confirmed {
                true if is_of_account(outcome.kind) => grown(doubled),
                true => most.unwrap_or(settings.retry_after_cap),
                false => settings.retry_after_cap,
            };
            asked.min(bound).clamp(settings.retry_after_floor, settings.retry_after_cap)
        });
        let length = match asked {
            // It did as it was told and was refused again: from the second failure on, failures count too.
            Some(asked) if doubled > 1 && !is_same_burst => asked.max(grown(doubled - 1)),
            Some(asked) => asked,
            None if is_same_burst && !(is_second && self.until <= now + settings.max) => return,
            None => grown(doubled),
        };
        self.cooled_at = now;
        if let Some(asked) = asked {
            self.retry_after_until = self.retry_after_until.max(now + asked);
        }
        if now + length > self.until {
            self.until = now + length;
            self.reason = outcome.kind;
        }
    }

    /// Failures of the same sort, of the account or not, since the last answer: those of the other sort do not multiply its
    /// cooldown.
    const fn failures_alike(&self, kind: Kind) -> u32 {
        if is_of_account(kind) { self.account_failures } else { self.failures.saturating_sub(self.account_failures) }
    }

    /// Weighs a failure: whether more than one request has met it; `None` where it says nothing against this part.
    fn weigh(&mut self, now: Timestamp, kind: Kind, evidence: Evidence) -> Option<bool> {
        let (witness, is_blamed) = match evidence {
            Evidence::Own => return Some(true),
            Evidence::Seen { witness, is_blamed } => (witness, is_blamed),
        };
        if may_be_requests(kind) && self.witnesses.is_discredited(now, witness) {
            return None;
        }
        let is_confirmed = self.witnesses.add(kind, witness);
        let was_answered_lately = is_of_account(kind) && now.since(self.answered_at) < TRUSTED_FOR;
        let is_doubtful = may_be_requests(kind) && (is_blamed || was_answered_lately);
        (is_confirmed || !is_doubtful).then_some(is_confirmed)
    }

    fn rule(&self, kind: Kind, evidence: Evidence, is_confirmed: bool) -> CooldownRule {
        match evidence {
            Evidence::Own if is_of_account(kind) => own_rule(),
            Evidence::Seen { .. } if is_of_account(kind) && !is_confirmed => unconfirmed_rule(),
            Evidence::Own | Evidence::Seen { .. } => cooldown_rule(kind),
        }
    }

    /// Returns true if more than one request has failed here since the last answer.
    pub fn is_confirmed(&self) -> bool {
        self.witnesses.is_confirmed()
    }

    /// Ends the cooldown that this request alone has brought about, once it is known that the request is to blame; what
    /// others have met stands. It stays in mind that it failed.
    pub fn end_cooldown_of(&mut self, request: u64) {
        if self.failures > 0 && may_be_requests(self.reason) && self.witnesses.is_only(request) {
            let Self { probes, reported, failing_since, witnesses, answered_at, .. } = self.clone();
            *self = Self { probes, reported, failing_since, witnesses, answered_at, ..Self::default() };
        }
    }

    /// Forgets that this request failed, if no other one did: it is known to be to blame, so it is no witness.
    pub fn forget_failure_of(&mut self, request: u64) {
        if self.witnesses.is_only(request) {
            self.end_cooldown_of(request);
            self.witnesses.forget();
        }
    }

    /// Returns the time until the emergency lane may use it: what the upstream's Retry-After asked for holds there too,
    /// and no attempt follows a failure at once.
    pub fn emergency_in(&self, now: Timestamp) -> Duration {
        if self.failures == 0 {
            return Duration::ZERO;
        }
        self.retry_after_until.max(self.cooled_at + EMERGENCY_PAUSE).max(self.paused_until).since(now)
    }

    /// Returns the failure to report after [`Self::record_failure`]: once for each series of failures that lasts, and once
    /// more when a cooldown becomes an exclusion or the reverse.
    pub fn failure_to_report(&mut self, now: Timestamp) -> Option<Change> {
        let Self { until, reason, failures, .. } = *self;
        if now >= until {
            return None;
        }
        let (state, change) = if is_exclusion(reason) {
            let is_suspicion = is_of_account(reason) && !self.witnesses.is_confirmed();
            let state = if is_suspicion { Reported::Suspected } else { Reported::Excluded };
            (state, Change::Excluded { until, reason })
        } else if until.since(self.failing_since) >= REPORTED_OUTAGE {
            (Reported::Cooling, Change::Cooling { until, reason, failures })
        } else {
            return None;
        };
        (self.reported.replace(state) != Some(state)).then_some(change)
    }

    /// Returns the recovery to report after [`Self::record_success`], if its failure was reported.
    pub fn recovery_to_report(&mut self, now: Timestamp) -> Option<Change> {
        if self.failures > 0 {
            return None;
        }
        self.reported.take().map(|_| Change::Back { after: now.since(self.failing_since) })
    }

    /// Sets the time from which a restored cooldown counts as failing.
    pub fn set_failing_since(&mut self, now: Timestamp) {
        self.failing_since = now;
    }

    /// Ends the cooldown for the operator; the next attempt is a probe.
    pub fn clear(&mut self) {
        *self = Self { failures: self.failures.min(1), probes: self.probes, ..Self::default() };
    }
}

/// Returns the time that an exchange pauses before it tries a backend again, beside the backend's cooldown.
///
/// A failure may be a hiccup, so the second try follows the cooldown. Direct clients try two or three times within seconds; so
/// does an exchange, and then for half a minute only an answer to others makes a further try worth it. A rate limit takes
/// longer to pass than a hiccup: as long as the policy waits at a time.
pub fn pause_after(kind: Kind, tries: Tries, settings: &CooldownSettings) -> Duration {
    const AFTER_TWO: u32 = 2;
    const AFTER_TWO_LIMITS: u32 = 6;
    const AFTER_MORE: u32 = 30;
    let pause = match tries.count {
        0 | 1 => return Duration::ZERO,
        2 if kind == Kind::RateLimited => {
            let least = settings.base * AFTER_TWO;
            tries.wait.unwrap_or(least).clamp(least, settings.base * AFTER_TWO_LIMITS)
        }
        2 => settings.base * AFTER_TWO,
        3.. => settings.base * AFTER_MORE,
    };
    pause.min(settings.max)
}

/// Returns the length of a cooldown: exponential in the failures, with jitter.
fn backoff(rule: CooldownRule, settings: &CooldownSettings, failures: u32, chance: f64) -> Duration {
    let doubled = settings.base.mul_f64(rule.base_factor).saturating_mul(1 << failures.saturating_sub(1).min(20));
    doubled.min(settings.max.mul_f64(rule.max_factor)).mul_f64(1.0 + settings.jitter * chance.clamp(0.0, 1.0))
}
