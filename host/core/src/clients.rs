//! Limits of a client key: rate, concurrency, and a budget a day.
//!
//! Money is reserved when a request is let in and settled when it is over, so that what is under way counts too. One request
//! may exceed the budget, many at once may not.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::limits::RateLimit;
use crate::table::Limits;
use crate::time::Timestamp;

const DAY: Duration = Duration::from_secs(86_400);

/// Usage of one client key against its limits and its daily budget.
#[derive(Clone, Debug)]
pub struct ClientGate {
    requests: Option<RateLimit>,
    tokens: Option<RateLimit>,
    max_concurrency: Option<u32>,
    budget_usd_per_day: Option<f64>,
    in_flight: u32,
    /// Requests whose body is still read.
    arriving: u32,
    spent_usd: f64,
    /// Money that requests under way may cost.
    reserved_usd: f64,
    day: u64,
}

/// A client key's money, in millionths of a USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// Spent since midnight UTC, in millionths of a USD.
    pub today_microusd: u64,
    /// Daily budget; `None`: no limit.
    pub budget_microusd: Option<u64>,
}

/// Backends that an admitted request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Every backend may be used.
    Full,
    /// Backends that cost nothing: the budget of the day is spent.
    FreeOnly,
}

/// The reason why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClientDenied {
    /// The client's rpm or tpm limit is reached.
    Rate {
        /// Time until the limit has room.
        retry_after: Duration,
    },
    /// The client's `max_concurrency` is reached.
    Concurrency,
    /// The client's budget of the day is spent, or reserved for requests under way.
    Budget {
        /// Spent since midnight UTC, USD.
        spent_usd: f64,
        /// Reserved for requests under way, USD.
        reserved_usd: f64,
        /// Time until the next midnight, UTC; or until a request under way may be over.
        retry_after: Duration,
    },
}

/// Answer tokens for which money is reserved where the request names no limit.
pub const UNSAID_ANSWER_TOKENS: u32 = 4_096;

/// Time after which a client may try again whose budget is reserved.
const RESERVED_RETRY: Duration = Duration::from_secs(1);

/// The most that a request is expected to cost, USD: an estimate of its prompt and the longest answer it allows, at the
/// highest prices (USD per million tokens) of a prompt token and an answer token.
pub fn estimate_usd(dearest: (f64, f64), prompt_tokens: u32, max_tokens: u32, answers: u32) -> f64 {
    let answer_tokens = if max_tokens == 0 { UNSAID_ANSWER_TOKENS } else { max_tokens };
    let output = f64::from(answer_tokens) * f64::from(answers.max(1));
    (f64::from(prompt_tokens) * dearest.0 + output * dearest.1) / 1e6
}

impl ClientGate {
    /// A gate for these limits; `spent_usd` is what the client has spent since midnight (UTC) before `now`.
    pub fn new(limits: Limits, budget_usd_per_day: Option<f64>, now: Timestamp, spent_usd: f64) -> Self {
        Self {
            requests: limits.rpm.map(RateLimit::per_minute),
            tokens: limits.tpm.map(RateLimit::per_minute),
            max_concurrency: limits.max_concurrency,
            budget_usd_per_day,
            in_flight: 0,
            arriving: 0,
            spent_usd,
            reserved_usd: 0.0,
            day: day_of(now),
        }
    }

    /// Takes new limits and keeps what was used.
    pub fn set_limits(&mut self, limits: Limits, budget_usd_per_day: Option<f64>) {
        fn set(held: &mut Option<RateLimit>, limit: Option<u32>) {
            match (held, limit) {
                (Some(held), Some(limit)) => held.set(limit, limit),
                (held, limit) => *held = limit.map(RateLimit::per_minute),
            }
        }
        set(&mut self.requests, limits.rpm);
        set(&mut self.tokens, limits.tpm);
        self.max_concurrency = limits.max_concurrency;
        self.budget_usd_per_day = budget_usd_per_day;
    }

    /// Returns the budget and what finished requests have spent since midnight UTC.
    pub fn spending(&self, now: Timestamp) -> Spending {
        let microusd = |usd: f64| (usd * 1e6).round() as u64;
        let today_microusd = if day_of(now) == self.day { microusd(self.spent_usd) } else { 0 };
        Spending { today_microusd, budget_microusd: self.budget_usd_per_day.map(microusd) }
    }

    /// Lets a request in, or says why not. `may_be_free`: a client over its budget may use what costs nothing, and a backend
    /// serves this request for nothing. `estimate_usd` is reserved until it leaves, unless it may cost nothing. Whoever is let
    /// in must [`ClientGate::leave`].
    pub fn enter(&mut self, now: Timestamp, may_be_free: bool, estimate_usd: f64) -> Result<Admission, ClientDenied> {
        self.turn_day(now);
        let (spent_usd, reserved_usd) = (self.spent_usd, self.reserved_usd);
        let is_over_budget = self.budget_usd_per_day.is_some_and(|budget| spent_usd + reserved_usd >= budget);
        if is_over_budget && !may_be_free {
            let is_spent = self.budget_usd_per_day.is_some_and(|budget| spent_usd >= budget);
            let midnight = (Timestamp::default() + DAY * (self.day as u32 + 1)).since(now);
            let retry_after = if is_spent { midnight } else { RESERVED_RETRY };
            return Err(ClientDenied::Budget { spent_usd, reserved_usd, retry_after });
        }
        if self.max_concurrency.is_some_and(|max| self.in_flight + self.arriving >= max) {
            return Err(ClientDenied::Concurrency);
        }
        let ready_in =
            |limit: &Option<RateLimit>| limit.as_ref().map_or(Duration::ZERO, |limit| limit.ready_in(now, 1));
        let retry_after = ready_in(&self.requests).max(ready_in(&self.tokens));
        if !retry_after.is_zero() {
            return Err(ClientDenied::Rate { retry_after });
        }
        if let Some(b) = &mut self.requests {
            b.take(now, 1);
        }
        self.in_flight += 1;
        if is_over_budget {
            return Ok(Admission::FreeOnly);
        }
        self.reserved_usd += estimate_usd;
        Ok(Admission::Full)
    }

    /// Lets the body of a request be read, or says why the request would not be let in. Whoever is told so must say that it has
    /// [`ClientGate::arrived`] before it is to enter, or when it goes away.
    pub fn arrive(&mut self, now: Timestamp, may_be_free: bool) -> Result<(), ClientDenied> {
        let mut as_if = self.clone();
        as_if.enter(now, may_be_free, 0.0)?;
        self.arriving += 1;
        Ok(())
    }

    /// A body has come, or never will.
    pub fn arrived(&mut self) {
        self.arriving = self.arriving.saturating_sub(1);
    }

    /// At midnight UTC nothing has been spent yet.
    fn turn_day(&mut self, now: Timestamp) {
        if day_of(now) != self.day {
            self.day = day_of(now);
            self.spent_usd = 0.0;
        }
    }

    /// A request that was let in is over: what it used counts from now on, and nothing is reserved for it any more.
    pub fn leave(&mut self, now: Timestamp, tokens: u64, cost_usd: f64, reserved_usd: f64) {
        self.turn_day(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.spent_usd += cost_usd;
        // Sums of many small numbers drift.
        self.reserved_usd = if self.in_flight == 0 { 0.0 } else { (self.reserved_usd - reserved_usd).max(0.0) };
        if let Some(b) = &mut self.tokens {
            b.take(now, u32::try_from(tokens).unwrap_or(u32::MAX));
        }
    }

    /// The midnight (UTC) before `now`.
    pub fn midnight(now: Timestamp) -> Timestamp {
        Timestamp::default() + DAY * u32::try_from(day_of(now)).unwrap_or(u32::MAX)
    }
}

fn day_of(now: Timestamp) -> u64 {
    now.as_millis() / 86_400_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    #[test]
    fn a_budget_ends_the_day_and_the_next_day_begins_anew() {
        let mut gate = ClientGate::new(Limits::default(), Some(1.0), at(0), 0.5);
        gate.enter(at(0), false, 0.0).unwrap();
        gate.leave(at(10), 100, 0.6, 0.0);
        let Err(ClientDenied::Budget { spent_usd, retry_after, .. }) = gate.enter(at(20), false, 0.0) else {
            panic!("over budget")
        };
        assert!((spent_usd - 1.1).abs() < 1e-9);
        assert!(retry_after <= Duration::from_secs(86_400));
        let midnight = at(20) + retry_after;
        assert_eq!(gate.spending(at(20)), Spending { today_microusd: 1_100_000, budget_microusd: Some(1_000_000) });
        assert_eq!(gate.spending(midnight).today_microusd, 0);
        gate.leave(midnight, 0, 0.25, 0.0);
        assert_eq!(gate.spending(midnight).today_microusd, 250_000, "what ends after midnight is the new day's");
        gate.enter(midnight, false, 0.0).unwrap();
    }

    #[test]
    fn over_its_budget_it_may_use_what_costs_nothing() {
        let limits = Limits { rpm: Some(3), ..Limits::default() };
        let mut gate = ClientGate::new(limits, Some(1.0), at(0), 0.5);
        assert_eq!(gate.enter(at(0), true, 0.0), Ok(Admission::Full));
        gate.leave(at(1), 0, 0.5, 0.0);
        assert_eq!(gate.enter(at(2), true, 0.0), Ok(Admission::FreeOnly));
        assert!(
            matches!(gate.enter(at(2), false, 0.0), Err(ClientDenied::Budget { .. })),
            "nothing serves it for nothing"
        );
        assert_eq!(gate.enter(at(3), true, 0.0), Ok(Admission::FreeOnly));
        assert!(matches!(gate.enter(at(4), true, 0.0), Err(ClientDenied::Rate { .. })), "its other limits hold");
    }

    #[test]
    fn twenty_at_once_cannot_spend_twenty_budgets() {
        let mut gate = ClientGate::new(Limits::default(), Some(1.0), at(0), 0.0);
        let estimate = estimate_usd((2.0, 10.0), 50_000, 10_000, 2);
        assert!((estimate - 0.3).abs() < 1e-9);
        let entered = (0..20).filter(|_| gate.enter(at(0), false, estimate).is_ok()).count();
        assert_eq!(entered, 4, "0.3 + 0.3 + 0.3 are reserved when the fourth comes");
        let Err(ClientDenied::Budget { spent_usd, reserved_usd, retry_after }) = gate.enter(at(0), false, estimate)
        else {
            panic!("all is reserved")
        };
        assert!(spent_usd == 0.0 && (reserved_usd - 1.2).abs() < 1e-9 && retry_after == Duration::from_secs(1));
        assert_eq!(gate.enter(at(0), true, estimate), Ok(Admission::FreeOnly));
        gate.leave(at(1), 0, 0.0, 0.0);
        // They cost less than was reserved.
        (0..3).for_each(|_| gate.leave(at(1), 100, 0.01, estimate));
        assert_eq!(gate.enter(at(1), false, estimate), Ok(Admission::Full));
        gate.leave(at(1), 100, 0.01, estimate);
        gate.leave(at(1), 100, 0.01, estimate);
        assert_eq!((gate.reserved_usd, gate.spending(at(1)).today_microusd), (0.0, 50_000));
    }

    #[test]
    fn a_request_without_a_limit_is_reserved_for_by_a_usual_answer() {
        let usual = f64::from(UNSAID_ANSWER_TOKENS);
        assert!((estimate_usd((0.0, 1.0), 0, 0, 1) - usual / 1e6).abs() < 1e-12);
        assert!(estimate_usd((1e9, 1e9), u32::MAX, u32::MAX, u32::MAX).is_finite());
    }

    #[test]
    fn rate_and_concurrency_are_its_own() {
        let limits = Limits { rpm: Some(5), max_concurrency: Some(1), ..Limits::default() };
        let mut gate = ClientGate::new(limits, None, at(0), 0.0);
        for ms in 0..5 {
            gate.enter(at(ms), false, 0.0).unwrap();
            assert_eq!(gate.enter(at(ms), false, 0.0), Err(ClientDenied::Concurrency));
            gate.leave(at(ms), 0, 0.0, 0.0);
        }
        let retry_after = Duration::from_millis(59_000);
        assert_eq!(gate.enter(at(1_000), false, 0.0), Err(ClientDenied::Rate { retry_after }));
        gate.enter(at(1_000) + retry_after, false, 0.0).unwrap();
    }

    #[test]
    fn a_body_that_is_read_has_its_place_and_uses_up_nothing() {
        let limits = Limits { rpm: Some(5), max_concurrency: Some(2), ..Limits::default() };
        let mut gate = ClientGate::new(limits, Some(1.0), at(0), 0.0);
        for _ in 0..20 {
            gate.arrive(at(0), false).unwrap();
            gate.enter(at(0), false, 0.0).unwrap();
            assert_eq!(gate.arrive(at(0), false), Err(ClientDenied::Concurrency));
            assert_eq!(gate.enter(at(0), false, 0.0), Err(ClientDenied::Concurrency));
            gate.arrived();
            gate.leave(at(0), 0, 0.0, 0.0);
            gate.requests = limits.rpm.map(RateLimit::per_minute);
        }
        (0..5).for_each(|_| {
            gate.enter(at(0), false, 0.0).unwrap();
            gate.leave(at(0), 0, 0.0, 0.0);
        });
        assert!(matches!(gate.arrive(at(0), false), Err(ClientDenied::Rate { .. })));
        gate.leave(at(0), 0, 2.0, 0.0);
        assert!(matches!(gate.arrive(at(0), false), Err(ClientDenied::Budget { .. })));
        assert_eq!(gate.arriving, 0);
    }

    #[test]
    fn tokens_are_paid_off_after_the_answer() {
        let limits = Limits { tpm: Some(1_000), ..Limits::default() };
        let mut gate = ClientGate::new(limits, None, at(0), 0.0);
        (0..3).for_each(|_| assert_eq!(gate.enter(at(0), false, 0.0), Ok(Admission::Full)));
        (0..3).for_each(|_| gate.leave(at(5_000), 1_000, 0.0, 0.0));
        // Three minutes' worth: the first token of it is free again when two of them and a 1000th are over.
        assert_eq!(
            gate.enter(at(5_000), false, 0.0),
            Err(ClientDenied::Rate { retry_after: Duration::from_millis(120_060) })
        );
    }

    #[test]
    fn another_limit_keeps_what_was_used() {
        let limits = |rpm| Limits { rpm: Some(rpm), tpm: Some(rpm), ..Limits::default() };
        let mut gate = ClientGate::new(limits(5), None, at(0), 0.0);
        (0..4).for_each(|_| assert_eq!(gate.enter(at(0), false, 0.0), Ok(Admission::Full)));
        gate.set_limits(limits(6), None);
        (0..2).for_each(|_| assert_eq!(gate.enter(at(1), false, 0.0), Ok(Admission::Full)));
        gate.set_limits(limits(4), None);
        let retry_after = Duration::from_secs(30);
        assert_eq!(gate.enter(at(30_000), false, 0.0), Err(ClientDenied::Rate { retry_after }), "six of four are used");
        gate.enter(at(60_000), false, 0.0).unwrap();
    }
}
