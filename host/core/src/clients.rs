//! Limits of a client key: rate, concurrency, and a budget a day.

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
    spent_usd: f64,
    day: u64,
}

/// A client key's money, in millionths of a USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// Spent since midnight UTC.
    pub today_microusd: u64,
    /// Daily budget; `None`: no limit.
    pub budget_microusd: Option<u64>,
}

/// Backends that an admitted request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Every backend.
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
    /// The client's budget of the day is spent.
    Budget {
        /// Spent today, USD.
        spent_usd: f64,
        /// Time until the next midnight, UTC.
        retry_after: Duration,
    },
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
            spent_usd,
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
    /// serves this request for nothing. Whoever is let in must [`ClientGate::leave`].
    pub fn enter(&mut self, now: Timestamp, may_be_free: bool) -> Result<Admission, ClientDenied> {
        self.turn_day(now);
        let is_over_budget = self.budget_usd_per_day.is_some_and(|budget| self.spent_usd >= budget);
        if is_over_budget && !may_be_free {
            let retry_after = (Timestamp::default() + DAY * (self.day as u32 + 1)).since(now);
            return Err(ClientDenied::Budget { spent_usd: self.spent_usd, retry_after });
        }
        if self.max_concurrency.is_some_and(|max| self.in_flight >= max) {
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
        Ok(if is_over_budget { Admission::FreeOnly } else { Admission::Full })
    }

    /// At midnight UTC nothing has been spent yet.
    fn turn_day(&mut self, now: Timestamp) {
        if day_of(now) != self.day {
            self.day = day_of(now);
            self.spent_usd = 0.0;
        }
    }

    /// A request that was let in is over: what it used counts from now on.
    pub fn leave(&mut self, now: Timestamp, tokens: u64, cost_usd: f64) {
        self.turn_day(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.spent_usd += cost_usd;
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
        gate.enter(at(0), false).unwrap();
        gate.leave(at(10), 100, 0.6);
        let Err(ClientDenied::Budget { spent_usd, retry_after }) = gate.enter(at(20), false) else {
            panic!("over budget")
        };
        assert!((spent_usd - 1.1).abs() < 1e-9);
        assert!(retry_after <= Duration::from_secs(86_400));
        let midnight = at(20) + retry_after;
        assert_eq!(gate.spending(at(20)), Spending { today_microusd: 1_100_000, budget_microusd: Some(1_000_000) });
        assert_eq!(gate.spending(midnight).today_microusd, 0);
        gate.leave(midnight, 0, 0.25);
        assert_eq!(gate.spending(midnight).today_microusd, 250_000, "what ends after midnight is the new day's");
        gate.enter(midnight, false).unwrap();
    }

    #[test]
    fn over_its_budget_it_may_use_what_costs_nothing() {
        let limits = Limits { rpm: Some(3), ..Limits::default() };
        let mut gate = ClientGate::new(limits, Some(1.0), at(0), 0.5);
        assert_eq!(gate.enter(at(0), true), Ok(Admission::Full));
        gate.leave(at(1), 0, 0.5);
        assert_eq!(gate.enter(at(2), true), Ok(Admission::FreeOnly));
        assert!(matches!(gate.enter(at(2), false), Err(ClientDenied::Budget { .. })), "nothing serves it for nothing");
        assert_eq!(gate.enter(at(3), true), Ok(Admission::FreeOnly));
        assert!(matches!(gate.enter(at(4), true), Err(ClientDenied::Rate { .. })), "its other limits hold");
    }

    #[test]
    fn rate_and_concurrency_are_its_own() {
        let limits = Limits { rpm: Some(5), max_concurrency: Some(1), ..Limits::default() };
        let mut gate = ClientGate::new(limits, None, at(0), 0.0);
        for ms in 0..5 {
            gate.enter(at(ms), false).unwrap();
            assert_eq!(gate.enter(at(ms), false), Err(ClientDenied::Concurrency));
            gate.leave(at(ms), 0, 0.0);
        }
        let retry_after = Duration::from_millis(59_000);
        assert_eq!(gate.enter(at(1_000), false), Err(ClientDenied::Rate { retry_after }));
        gate.enter(at(1_000) + retry_after, false).unwrap();
    }

    #[test]
    fn tokens_are_paid_off_after_the_answer() {
        let limits = Limits { tpm: Some(1_000), ..Limits::default() };
        let mut gate = ClientGate::new(limits, None, at(0), 0.0);
        (0..3).for_each(|_| assert_eq!(gate.enter(at(0), false), Ok(Admission::Full)));
        (0..3).for_each(|_| gate.leave(at(5_000), 1_000, 0.0));
        // Three minutes' worth: the first token of it is free again when two of them and a 1000th are over.
        assert_eq!(
            gate.enter(at(5_000), false),
            Err(ClientDenied::Rate { retry_after: Duration::from_millis(120_060) })
        );
    }

    #[test]
    fn another_limit_keeps_what_was_used() {
        let limits = |rpm| Limits { rpm: Some(rpm), tpm: Some(rpm), ..Limits::default() };
        let mut gate = ClientGate::new(limits(5), None, at(0), 0.0);
        (0..4).for_each(|_| assert_eq!(gate.enter(at(0), false), Ok(Admission::Full)));
        gate.set_limits(limits(6), None);
        (0..2).for_each(|_| assert_eq!(gate.enter(at(1), false), Ok(Admission::Full)));
        gate.set_limits(limits(4), None);
        let retry_after = Duration::from_secs(30);
        assert_eq!(gate.enter(at(30_000), false), Err(ClientDenied::Rate { retry_after }), "six of four are used");
        gate.enter(at(60_000), false).unwrap();
    }
}
