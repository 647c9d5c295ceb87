//! The rate limits of a backend, or of one model on it: requests and tokens, of a minute and of a day.

use std::time::Duration;

use super::RateLimit;
use crate::contract::NONE;
use crate::table::Limits;
use crate::time::Timestamp;

/// Requests and tokens in any minute and any day, as a provider counts them.
#[derive(Clone, Debug, Default)]
pub struct RateLimits {
    requests: [Option<RateLimit>; 2],
    tokens: [Option<RateLimit>; 2],
}

impl RateLimits {
    /// Limits of which nothing is used.
    pub fn new(limits: Limits) -> Self {
        let mut new = Self::default();
        new.set(limits);
        new
    }

    /// Changes the limits; units already used stay used.
    pub fn set(&mut self, limits: Limits) {
        let Limits { rpm, burst, tpm, rpd, tpd, max_concurrency: _ } = limits;
        for ([minute, day], per_minute, burst, per_day) in
            [(&mut self.requests, rpm, burst, rpd), (&mut self.tokens, tpm, None, tpd)]
        {
            set(minute, per_minute, burst, |limit| RateLimit::for_provider(limit, burst));
            set(day, per_day, None, RateLimit::per_day);
        }
    }

    /// Makes all of it unused.
    pub fn reset(&mut self) {
        for limit in self.requests.iter_mut().chain(&mut self.tokens).flatten() {
            *limit = limit.unused();
        }
    }

    /// Takes a request of so many tokens, ready or not.
    pub fn take(&mut self, now: Timestamp, tokens: u32) {
        self.requests.iter_mut().flatten().for_each(|limit| limit.take(now, 1));
        self.tokens.iter_mut().flatten().for_each(|limit| limit.take(now, tokens));
    }

    /// Gives back a request that was taken at `taken_at` and not sent.
    pub fn give_back(&mut self, taken_at: Timestamp, tokens: u32) {
        self.give_back_request(taken_at);
        self.tokens.iter_mut().flatten().for_each(|limit| limit.give_back(taken_at, tokens));
    }

    /// Gives back the request alone: its provider did not see it.
    pub fn give_back_request(&mut self, taken_at: Timestamp) {
        self.requests.iter_mut().flatten().for_each(|limit| limit.give_back(taken_at, 1));
    }

    /// Corrects the tokens of a request that was taken at `taken_at`, once it is known how many it used.
    pub fn correct_tokens(&mut self, now: Timestamp, taken_at: Timestamp, taken: u32, used: u32) {
        for limit in self.tokens.iter_mut().flatten() {
            limit.give_back(taken_at, taken.saturating_sub(used));
            limit.take(now, used.saturating_sub(taken));
        }
    }

    /// Time until a request of so many tokens may be sent.
    pub fn ready_in(&self, now: Timestamp, tokens: u32) -> Duration {
        let requests = self.requests.iter().flatten().map(|limit| limit.ready_in(now, 1));
        let tokens = self.tokens.iter().flatten().map(|limit| limit.ready_in(now, tokens));
        requests.chain(tokens).max().unwrap_or_default()
    }

    /// Requests that may be sent now; [`NONE`] without a limit.
    pub fn requests_left(&self, now: Timestamp) -> u32 {
        self.requests.iter().flatten().map(|limit| limit.left(now)).min().unwrap_or(NONE)
    }

    /// Tokens that may be sent now; [`NONE`] without a limit.
    pub fn tokens_left(&self, now: Timestamp) -> u32 {
        self.tokens.iter().flatten().map(|limit| limit.left(now)).min().unwrap_or(NONE)
    }

    /// Takes what was used of the day before a restart, at a time when it was; times ascend.
    pub fn restore_day(&mut self, at: Timestamp, requests: u32, tokens: u32) {
        for (limit, used) in [(&mut self.requests[1], requests), (&mut self.tokens[1], tokens)] {
            if let Some(limit) = limit {
                limit.take(at, used);
            }
        }
    }

    /// Sets what is left of the minute's limits, for the start of a simulation.
    pub fn set_left(&mut self, now: Timestamp, requests: Option<u32>, tokens: Option<u32>) {
        for (limit, left) in [(&mut self.requests[0], requests), (&mut self.tokens[0], tokens)] {
            if let (Some(limit), Some(left)) = (limit, left) {
                limit.set_left(now, left);
            }
        }
    }
}

fn set(held: &mut Option<RateLimit>, limit: Option<u32>, burst: Option<u32>, new: impl Fn(u32) -> RateLimit) {
    match (held, limit) {
        (Some(held), Some(limit)) => held.set(limit, burst.unwrap_or(limit)),
        (held, limit) => *held = limit.map(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    #[test]
    fn a_days_limit_holds_for_24_hours_and_all_that_is_left_may_go_at_once() {
        let mut rates = RateLimits::new(Limits { rpd: Some(3), ..Limits::default() });
        for i in 0..3 {
            assert_eq!(rates.ready_in(at(i), 100), Duration::ZERO);
            rates.take(at(i), 100);
        }
        assert_eq!((rates.requests_left(at(3)), rates.tokens_left(at(3))), (0, NONE));
        let wait = rates.ready_in(at(3), 1);
        assert!(wait > 23 * HOUR && wait <= 24 * HOUR + Duration::from_secs(1), "{wait:?}");
        assert_eq!(rates.ready_in(at(0) + 24 * HOUR + Duration::from_millis(501), 1), Duration::ZERO);
    }

    #[test]
    fn the_tighter_of_a_minute_and_a_day_counts() {
        let mut rates = RateLimits::new(Limits { rpm: Some(2), rpd: Some(3), tpd: Some(1_000), ..Limits::default() });
        rates.take(at(0), 400);
        rates.take(at(0), 400);
        let wait = rates.ready_in(at(0), 100);
        assert!(wait > Duration::from_secs(59) && wait < Duration::from_secs(61), "{wait:?}");
        assert!(rates.ready_in(at(0), 300) > 23 * HOUR);
        rates.correct_tokens(at(10), at(0), 400, 100);
        assert_eq!(rates.tokens_left(at(10)), 500);
        rates.reset();
        assert_eq!((rates.requests_left(at(20)), rates.tokens_left(at(20))), (2, 1_000));
    }

    #[test]
    fn many_requests_of_a_day_are_kept_in_few_entries() {
        let mut limit = RateLimit::per_day(1_000_000);
        for second in 0..86_000_u64 {
            limit.take(at(second * 1_000), 10);
        }
        assert!(limit.log.len() <= 1_002, "{}", limit.log.len());
        assert_eq!(limit.left(at(86_000_000)), 140_000);
    }
}
