//! The cheapest backend, of any tier, that answers in time.
//!
//! 1. Of those that are ready, the cheapest for this request whose learned time to answer is within the bound; when all
//!    are slower, the cheapest of these. One of which no time is known yet is taken to be in time.
//! 2. Before one that is dear (`dear_factor` times the price of one that only has to recover) it waits for that one.
//! 3. When none is ready it waits for the first to recover, then tries the emergency lane, then gives up.
//!
//! A primary without a price is taken to be free, a fallback without one to be the dearest of all. Of what costs the same,
//! the one tried least in this exchange goes first, then the better of two drawn by weight.

use pointsman_sdk::settings::{self, within};
use pointsman_sdk::{Candidate, Choose, Decision, Patience, Policy, Query, Roster, Table, Tier, note};
use serde::Deserialize;

/// Settings of the policy; see `README.md`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    max_first_token_ms: u32,
    max_latency_ms: u32,
    dear_factor: f64,
    primary_wait_ms: u32,
    primary_wait_max_retries: u32,
    max_pool_retries: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_first_token_ms: 3_000,
            max_latency_ms: 30_000,
            dear_factor: 2.0,
            primary_wait_ms: 5_000,
            primary_wait_max_retries: 6,
            max_pool_retries: 3,
        }
    }
}

/// The policy.
pub struct Cheapest {
    settings: Settings,
    roster: Roster,
}

pointsman_sdk::export!(Cheapest);

impl Policy for Cheapest {
    fn configure(settings: &str, table: &Table) -> Result<Self, String> {
        let settings: Settings = settings::parse(settings)?;
        within("max_first_token_ms", settings.max_first_token_ms, 1..=600_000)?;
        within("max_latency_ms", settings.max_latency_ms, 1..=3_600_000)?;
        within("dear_factor", settings.dear_factor, 1.0..=1_000_000.0)?;
        within("primary_wait_ms", settings.primary_wait_ms, 0..=600_000)?;
        within("primary_wait_max_retries", settings.primary_wait_max_retries, 0..=1_000)?;
        within("max_pool_retries", settings.max_pool_retries, 0..=100)?;
        Ok(Self { settings, roster: Roster::new(table) })
    }

    fn decide(&mut self, query: &Query) -> Decision {
        let candidates = self.roster.candidates(query);
        let in_budget = candidates.clone().with_retries_left(query, self.settings.max_pool_retries);
        let best = in_budget.clone().ready().least_by(|c| self.rank(c, query));
        match best.two_choices(&query.request, &mut query.dice()) {
            Some(choice) => self.wait_for_a_cheaper(query, &choice).unwrap_or_else(|| self.send(query, &choice)),
            None => in_budget
                .wait(query, self.patience())
                .or_else(|| candidates.emergency(query, self.patience()))
                .unwrap_or_else(Decision::exhausted),
        }
    }
}

impl Cheapest {
    /// Returns the sort key: smaller first. After two failed tries even the cheapest backend goes behind the others.
    fn rank(&self, c: &Candidate, query: &Query) -> (bool, bool, u64, u32) {
        let tries = query.tries(c.index());
        (tries >= 2, !self.is_in_time(c, query), price_microusd(c, query), tries)
    }

    fn is_in_time(&self, c: &Candidate, query: &Query) -> bool {
        let row = c.row();
        if query.request.streaming {
            row.first_token_ms() <= self.settings.max_first_token_ms
        } else {
            row.latency_ms() <= self.settings.max_latency_ms
        }
    }

    fn wait_for_a_cheaper(&self, query: &Query, choice: &Candidate) -> Option<Decision> {
        let price = price_microusd(choice, query);
        let is_cheaper = |c: &Candidate| {
            let theirs = price_microusd(c, query);
            theirs < price && theirs as f64 * self.settings.dear_factor <= price as f64 && self.is_in_time(c, query)
        };
        let in_budget = self.roster.candidates(query).with_retries_left(query, self.settings.max_pool_retries);
        let wait = in_budget.filter(is_cheaper).wait(query, self.patience())?;
        note(&format!("{} is ready, but dear; a cheaper one is waited for", choice.id()));
        Some(wait)
    }

    fn send(&self, query: &Query, choice: &Candidate) -> Decision {
        if !self.is_in_time(choice, query) {
            note(&format!("all that are ready are slow; {} is the cheapest of them", choice.id()));
        }
        choice.send()
    }

    fn patience(&self) -> Patience {
        Patience { longest_ms: self.settings.primary_wait_ms, waits: self.settings.primary_wait_max_retries }
    }
}

fn price_microusd(c: &Candidate, query: &Query) -> u64 {
    let unknown = match c.tier() {
        Tier::Primary => 0,
        Tier::Fallback => u64::MAX,
    };
    c.price_microusd(&query.request).unwrap_or(unknown)
}

#[cfg(test)]
mod tests {
    use pointsman_sdk::Outcome;
    use pointsman_sdk::testing::{Case, Given, case, fallback, primary};

    use super::*;

    fn cheap() -> Given {
        fallback("cheap").price(0.1, 0.1)
    }

    fn dear() -> Given {
        fallback("dear").price(1.0, 1.0)
    }

    fn decision(case: Case) -> Decision {
        case.decision::<Cheapest>()
    }

    #[test]
    fn the_cheapest_of_any_tier_that_is_in_time() {
        assert_eq!(decision(case([dear(), cheap()])), Decision::fallback(1));
        let priced = primary("priced").price(0.5, 0.5);
        assert_eq!(decision(case([priced, cheap()])), Decision::fallback(1));
        assert_eq!(decision(case([primary("free"), cheap()])), Decision::primary(0));
        assert_eq!(decision(case([fallback("unknown"), dear()])), Decision::fallback(1));
    }

    #[test]
    fn a_slow_one_only_when_all_are() {
        let slow = |given: Given| given.with("first_token_ms", 4_000).with("latency_ms", 5_000);
        assert_eq!(decision(case([slow(cheap()), dear()])), Decision::fallback(1));
        let all_slow = case([slow(dear()), slow(cheap())]).ask::<Cheapest>();
        assert_eq!(all_slow.decision, Decision::fallback(1));
        assert_eq!(all_slow.notes, ["all that are ready are slow; cheap is the cheapest of them"]);
        // Whoever wants no stream cares for the whole time only.
        let mut whole = case([slow(cheap()), dear()]);
        whole.request.streaming = false;
        assert_eq!(decision(whole), Decision::fallback(0));
    }

    #[test]
    fn it_waits_for_a_cheaper_one_rather_than_take_a_dear_one() {
        let soon = || primary("soon").cooling(Outcome::RateLimited, 2_000);
        let waiting = case([soon(), dear()]);
        assert_eq!(decision(waiting.clone()), Decision::wait_for_primary(5_000));
        assert_eq!(decision(waiting.clone().after_waits(6)), Decision::fallback(1));
        assert_eq!(decision(waiting.settings(r#"{"primary_wait_ms": 300}"#)), Decision::fallback(1));
        let nearly_as_cheap = primary("soon").price(0.6, 0.6).cooling(Outcome::RateLimited, 2_000);
        assert_eq!(decision(case([nearly_as_cheap, dear()])), Decision::fallback(1), "1.0 is not twice 0.6");
    }

    #[test]
    fn after_two_failures_others_go_first() {
        let both = case([cheap(), dear()]);
        assert_eq!(decision(both.clone().after(0, Outcome::ServerError)), Decision::fallback(0));
        assert_eq!(decision(both.after_times(2, 0, Outcome::ServerError)), Decision::fallback(1));
    }

    #[test]
    fn with_none_ready_it_waits_then_uses_the_emergency_lane_then_gives_up() {
        let lost = |left_ms| case([primary("a").cooling(Outcome::RateLimited, left_ms).with("emergency_ms", 0)]);
        assert_eq!(decision(lost(4_000)), Decision::wait_for_primary(5_000));
        assert_eq!(decision(lost(90_000)), Decision::emergency(0));
        assert_eq!(decision(case([primary("a").drained()])), Decision::exhausted());
    }

    #[test]
    fn wrong_settings_are_named() {
        let error = |json| Cheapest::configure(json, &case([]).table()).err().unwrap_or_default();
        assert!(error(r#"{"dear_factor": 0.5}"#).contains("`dear_factor`: 0.5 is not within 1 to"));
        assert!(error(r#"{"max_latency": 5}"#).contains("`max_latency`"));
    }
}
