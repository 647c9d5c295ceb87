//! The health of a backend, or of one model on it: cooldown, the probe after it, and the ramp after that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::state_change::{Change, REPORTED_OUTAGE};
use crate::outcome::{Kind, Outcome};
use crate::time::Timestamp;

/// How far an outcome reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It says nothing against the backend.
    Nothing,
    /// Only this model on this backend.
    Model,
    /// The whole backend: its host, its key, its account.
    Backend,
}

/// What a kind of outcome does to a backend.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// How far it reaches.
    pub scope: Scope,
    /// The first cooldown when the upstream did not say how long, in [`Bounds::base`]s; doubled with each further failure.
    pub base_factor: f64,
    /// Where doubling ends, in [`Bounds::max`]s.
    pub max_factor: f64,
}

/// The rule for each kind of outcome.
///
/// Rate limits and server errors belong to a model (providers limit and fail per model); connections, keys and money
/// belong to the backend. Nothing but rate limits, money, keys and unknown models is left alone for longer than a third
/// of the longest cooldown (20 s of 60 s), so that a recovered backend is found within half a minute.
pub fn rule(kind: Kind) -> Rule {
    let rule = |scope, base_factor, max_factor| Rule { scope, base_factor, max_factor };
    let third = 1.0 / 3.0;
    match kind {
        Kind::Answered | Kind::Refused | Kind::TooLong | Kind::ClientGone | Kind::NotResumed => {
            rule(Scope::Nothing, 0.0, 0.0)
        }
        Kind::RateLimited => rule(Scope::Model, 1.0, 1.0),
        Kind::Overloaded | Kind::ServerError => rule(Scope::Model, 0.5, third),
        Kind::Cut | Kind::Stalled | Kind::Malformed => rule(Scope::Model, 1.0, third),
        Kind::TimedOut => rule(Scope::Model, 5.0, third),
        Kind::Reset => rule(Scope::Backend, 0.5, third),
        Kind::ConnectFailed => rule(Scope::Backend, 1.0, third),
        Kind::ModelMissing => rule(Scope::Model, 600.0, 60.0),
        Kind::Unauthorised | Kind::OutOfCredit => rule(Scope::Backend, 900.0, 360.0),
    }
}

/// Is a retry pointless before the operator or the provider changes something: the key, the account, the model?
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

/// How long cooldowns are: of our own making, and what an upstream may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// The first cooldown after a rate limit without a Retry-After.
    pub base: Duration,
    /// The longest of our own making.
    pub max: Duration,
    /// Up to this share is added by chance, 0..=1.
    pub jitter: f64,
    /// A shorter Retry-After counts as this.
    pub retry_after_floor: Duration,
    /// A longer one counts as this.
    pub retry_after_cap: Duration,
}

impl Default for Bounds {
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

/// Where a backend (or a model on it) stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Takes what its limits allow.
    Open,
    /// Excluded until then.
    Cooling {
        /// The end of the cooldown.
        until: Timestamp,
    },
    /// The cooldown is over; one attempt may find out.
    Due,
    /// That attempt is under way.
    Probing,
    /// The probe went well; so many may be under way at a time.
    Ramping {
        /// At most this many.
        allowed: u32,
    },
}

/// The ramp doubles from 2 and is over here.
const RAMP_END: u32 = 64;

/// Cooldown, probe and ramp of one backend or one model on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The end of the cooldown; in the past when there is none.
    pub until: Timestamp,
    /// Why it cools, or cooled last.
    pub reason: Kind,
    /// Failures since the last answer.
    pub failures: u32,
    cooled_at: Timestamp,
    /// Until when the upstream itself asked to be left alone, by a Retry-After; a longer cooldown of our own may be in
    /// force meanwhile.
    asked_until: Timestamp,
    /// Probes sent so far; they are known by their number.
    probes: u32,
    probing: Option<Probe>,
    ramp: Option<u32>,
    /// The first failure since the last answer.
    failing_since: Timestamp,
    /// What the operator was told since the last answer.
    reported: Option<Reported>,
}

/// What was reported of the failures since the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    Cooling,
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
            cooled_at: Timestamp::default(),
            asked_until: Timestamp::default(),
            probes: 0,
            probing: None,
            ramp: None,
            failing_since: Timestamp::default(),
            reported: None,
        }
    }
}

impl Health {
    /// As it was before a restart.
    pub fn restored(until: Timestamp, reason: Kind, failures: u32) -> Self {
        let asked_until = if reason == Kind::RateLimited { until } else { Timestamp::default() };
        Self { until, reason, failures: failures.max(1), asked_until, ..Self::default() }
    }

    /// Where it stands now.
    pub fn standing(&self, now: Timestamp) -> Standing {
        match (self.failures, self.ramp) {
            _ if now < self.until => Standing::Cooling { until: self.until },
            (0, None) => Standing::Open,
            (0, Some(allowed)) => Standing::Ramping { allowed },
            _ if self.probing.is_some() => Standing::Probing,
            _ => Standing::Due,
        }
    }

    /// An attempt is sent. Answers its number when it is the probe.
    pub fn sent(&mut self, now: Timestamp) -> Option<Probe> {
        if self.standing(now) != Standing::Due {
            return None;
        }
        self.probes = self.probes.wrapping_add(1);
        self.probing = Some(self.probes);
        self.probing
    }

    /// The probe came back without a verdict (the client left): the next attempt is the probe. Any other attempt, an
    /// earlier probe among them, leaves the one under way alone.
    pub fn probe_returned(&mut self, probe: Option<Probe>) {
        if probe.is_some() && self.probing == probe {
            self.probing = None;
        }
    }

    /// The backend answered an attempt sent at `sent_at`.
    ///
    /// An attempt from before the cooldown says nothing about the time after it; and when the upstream asked to be left
    /// alone, that one answer came through does not shorten it.
    pub fn succeeded(&mut self, now: Timestamp, sent_at: Timestamp) {
        let of_before = self.failures > 0 && sent_at <= self.cooled_at;
        if of_before || now < self.asked_until {
            return;
        }
        self.ramp = match self.ramp {
            _ if self.failures > 0 => Some(2),
            Some(allowed) if allowed * 2 < RAMP_END => Some(allowed * 2),
            Some(_) | None => None,
        };
        self.until = Timestamp::default();
        self.reason = Kind::Answered;
        self.failures = 0;
        self.probing = None;
    }

    /// An attempt sent at `sent_at` failed. `chance` in 0..1 spreads cooldowns of our own making.
    ///
    /// A cooldown in force is never shortened, and attempts that were under way before it was set do not lengthen it
    /// by doubling: a burst of failures is one failure.
    pub fn failed(&mut self, now: Timestamp, sent_at: Timestamp, outcome: &Outcome, bounds: &Bounds, chance: f64) {
        self.ramp = None;
        // A cleared cooldown keeps one failure, not the time of the first.
        if self.failures == 0 || self.failing_since == Timestamp::default() {
            self.failing_since = now;
        }
        let of_the_same_burst = self.failures > 0 && sent_at <= self.cooled_at;
        if !of_the_same_burst {
            self.failures = self.failures.saturating_add(1);
        }
        let length = match outcome.retry_after {
            // "At once" from a provider that has just refused again is not believed twice.
            Some(asked) if asked < bounds.base && self.failures > 1 && !of_the_same_burst => {
                let own = backoff(rule(outcome.kind), bounds, self.failures - 1, chance);
                asked.max(own).max(bounds.retry_after_floor)
            }
            Some(asked) => asked.clamp(bounds.retry_after_floor, bounds.retry_after_cap),
            None if of_the_same_burst => return,
            None => backoff(rule(outcome.kind), bounds, self.failures, chance),
        };
        self.cooled_at = now;
        if outcome.retry_after.is_some() {
            self.asked_until = self.asked_until.max(now + length);
        }
        if now + length > self.until {
            self.until = now + length;
            self.reason = outcome.kind;
        }
    }

    /// The failure to report, after one: once for each series of failures that lasts, and once more when a cooldown
    /// becomes an exclusion or the reverse.
    pub fn failure_to_report(&mut self, now: Timestamp) -> Option<Change> {
        let Self { until, reason, failures, .. } = *self;
        if now >= until {
            return None;
        }
        let (state, change) = if is_exclusion(reason) {
            (Reported::Excluded, Change::Excluded { until, reason })
        } else if until.since(self.failing_since) >= REPORTED_OUTAGE {
            (Reported::Cooling, Change::Cooling { until, reason, failures })
        } else {
            return None;
        };
        (self.reported.replace(state) != Some(state)).then_some(change)
    }

    /// The recovery to report, after an answer: only that of a reported failure.
    pub fn recovery_to_report(&mut self, now: Timestamp) -> Option<Change> {
        if self.failures > 0 {
            return None;
        }
        self.reported.take().map(|_| Change::Back { after: now.since(self.failing_since) })
    }

    /// The cooldown of before a restart counts as failing from now on.
    pub fn failing_from(&mut self, now: Timestamp) {
        self.failing_since = now;
    }

    /// The operator ends the cooldown; the next attempt is a probe.
    pub fn clear(&mut self) {
        *self = Self { failures: self.failures.min(1), probes: self.probes, ..Self::default() };
    }
}

/// Exponential, with some more by chance.
fn backoff(rule: Rule, bounds: &Bounds, failures: u32, chance: f64) -> Duration {
    let doubled = bounds.base.mul_f64(rule.base_factor).saturating_mul(1 << failures.saturating_sub(1).min(20));
    doubled.min(bounds.max.mul_f64(rule.max_factor)).mul_f64(1.0 + bounds.jitter * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    fn rate_limited(retry_after_ms: Option<u64>) -> Outcome {
        Outcome { retry_after: retry_after_ms.map(Duration::from_millis), ..Outcome::new(Kind::RateLimited, "") }
    }

    fn fail(h: &mut Health, now: u64, sent: u64, outcome: &Outcome) {
        h.failed(at(now), at(sent), outcome, &Bounds::default(), 0.0);
    }

    #[test]
    fn retry_after_is_obeyed_to_the_millisecond() {
        let mut h = Health::default();
        fail(&mut h, 0, 0, &rate_limited(Some(2_000)));
        assert_eq!(h.standing(at(1_999)), Standing::Cooling { until: at(2_000) });
        assert_eq!(h.standing(at(2_000)), Standing::Due);
    }

    #[test]
    fn retry_after_beyond_the_cap_is_cut_to_it() {
        let mut h = Health::default();
        fail(&mut h, 0, 0, &rate_limited(Some(86_400_000)));
        assert_eq!(h.until, at(3_600_000));
    }

    #[test]
    fn a_retry_after_of_nothing_is_believed_once() {
        let mut h = Health::default();
        fail(&mut h, 0, 0, &rate_limited(Some(0)));
        assert_eq!(h.until, at(100));
        fail(&mut h, 150, 150, &rate_limited(Some(0)));
        assert_eq!(h.until, at(1_150));
        fail(&mut h, 1_200, 1_200, &rate_limited(Some(0)));
        assert_eq!(h.until, at(3_200));
    }

    #[test]
    fn a_cooldown_in_force_is_never_shortened() {
        let mut h = Health::default();
        fail(&mut h, 0, 0, &rate_limited(Some(10_000)));
        fail(&mut h, 100, 0, &rate_limited(Some(1_000)));
        assert_eq!(h.until, at(10_000));
        fail(&mut h, 200, 0, &rate_limited(None));
        assert_eq!(h.until, at(10_000));
        fail(&mut h, 300, 0, &rate_limited(Some(20_000)));
        assert_eq!(h.until, at(20_300));
    }

    #[test]
    fn a_burst_of_failures_counts_as_one() {
        let mut h = Health::default();
        for _ in 0..10 {
            fail(&mut h, 50, 0, &rate_limited(None));
        }
        assert_eq!(h.until, at(1_050));
        assert_eq!(h.failures, 1);
    }

    #[test]
    fn one_probe_goes_first_then_the_ramp_doubles() {
        let mut h = Health::default();
        fail(&mut h, 0, 0, &rate_limited(None));
        assert!(h.sent(at(1_000)).is_some(), "the first after the cooldown is the probe");
        assert_eq!(h.standing(at(1_000)), Standing::Probing);
        assert!(h.sent(at(1_000)).is_none());
        h.succeeded(at(1_100), at(1_000));
        assert_eq!(h.standing(at(1_100)), Standing::Ramping { allowed: 2 });
        for allowed in [4, 8, 16, 32] {
            h.succeeded(at(1_200), at(1_100));
            assert_eq!(h.standing(at(1_200)), Standing::Ramping { allowed });
        }
        h.succeeded(at(1_300), at(1_200));
        assert_eq!(h.standing(at(1_300)), Standing::Open);
    }

    #[test]
    fn a_failed_probe_cools_twice_as_long() {
        let mut h = Health::default();
        fail(&mut h, 0, 0, &rate_limited(None));
        let probe = h.sent(at(1_000));
        h.probe_returned(probe);
        fail(&mut h, 1_100, 1_000, &rate_limited(None));
        assert_eq!(h.until, at(3_100));
    }

    #[test]
    fn an_answer_does_not_shorten_what_the_provider_asked_for() {
        let mut h = Health::default();
        fail(&mut h, 0, 0, &rate_limited(Some(5_000)));
        h.succeeded(at(100), at(50));
        assert_eq!(h.standing(at(200)), Standing::Cooling { until: at(5_000) });
    }

    #[test]
    fn no_retry_after_counts_as_less_than_the_floor() {
        let base = Duration::from_millis(20);
        let bounds = Bounds { base, ..Bounds::default() };
        let mut h = Health::default();
        for ms in [0, 1_000, 2_000] {
            h.failed(at(ms), at(ms), &rate_limited(Some(0)), &bounds, 0.0);
            assert!(h.until >= at(ms) + bounds.retry_after_floor, "{ms}");
        }
    }

    #[test]
    fn what_the_provider_asked_for_holds_also_under_a_longer_cooldown_of_our_own() {
        let mut h = Health::default();
        fail(&mut h, 0, 0, &Outcome::new(Kind::TimedOut, ""));
        assert_eq!(h.until, at(5_000));
        fail(&mut h, 10, 0, &rate_limited(Some(2_000)));
        assert_eq!(h.until, at(5_000));
        h.succeeded(at(100), at(50));
        assert_eq!(h.standing(at(200)), Standing::Cooling { until: at(5_000) });
        h.succeeded(at(2_020), at(60));
        assert_eq!(h.standing(at(2_020)), Standing::Ramping { allowed: 2 });
    }

    #[test]
    fn an_answer_from_before_the_cooldown_does_not_end_it() {
        let reset = Outcome::new(Kind::Reset, "");
        let mut h = Health::default();
        fail(&mut h, 100, 0, &reset);
        h.succeeded(at(200), at(50));
        assert_eq!(h.standing(at(200)), Standing::Cooling { until: at(600) });
        h.succeeded(at(700), at(50));
        assert_eq!(h.standing(at(700)), Standing::Due, "nor does it stand for the probe");
        fail(&mut h, 700, 700, &reset);
        h.succeeded(at(800), at(750));
        assert_eq!(h.standing(at(800)), Standing::Ramping { allowed: 2 }, "an emergency found it well");
    }

    #[test]
    fn only_the_probe_under_way_ends_the_probing() {
        let mut h = Health::default();
        fail(&mut h, 0, 0, &rate_limited(None));
        let first = h.sent(at(1_000));
        fail(&mut h, 1_001, 0, &rate_limited(None));
        assert_eq!(h.standing(at(1_001)), Standing::Probing, "a straggler is not the probe");
        h.clear();
        let second = h.sent(at(1_100));
        h.probe_returned(first);
        h.probe_returned(None);
        assert_eq!(h.standing(at(1_200)), Standing::Probing, "nor is the probe of before");
        h.probe_returned(second);
        assert_eq!(h.standing(at(1_200)), Standing::Due);
    }

    proptest! {
        #[test]
        fn until_only_grows_while_failures_come(steps in prop::collection::vec((0u64..5_000, prop::option::of(0u64..10_000_000), 0f64..1.0), 1..50)) {
            let mut h = Health::default();
            let mut now = 0;
            for (gap, retry_after, jitter) in steps {
                now += gap;
                let before = h.until;
                h.failed(at(now), at(now), &rate_limited(retry_after), &Bounds::default(), jitter);
                prop_assert!(h.until >= before);
                prop_assert!(h.until <= at(now) + Duration::from_secs(3_600) || h.until == before);
                prop_assert!(h.until > at(now));
            }
        }
    }
}
