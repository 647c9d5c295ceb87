//! The backend that answers first, by what was learned of each.
//!
//! 1. Of the ready primaries, those about as fast as the fastest (`close`) share the traffic by load. A backend's time is
//!    its moving average, to the first token of a stream or to the end, made longer by its failures and its load.
//! 2. With a chance of `explore` another goes first: one of which nothing is known; else one that would be faster but for
//!    its failures, so that it comes back when it is well; else, once in five, any, so that one that has become faster is
//!    noticed.
//! 3. When no primary is ready it waits for one, then goes on to fallbacks, to the emergency lane, and gives up. With
//!    `any_tier` a fallback is as good as a primary.

use pointsman_sdk::settings::{self, within};
use pointsman_sdk::{Candidate, Choose, Decision, Dice, Patience, Policy, Query, Roster, Table, Tier, note};
use serde::Deserialize;

/// Settings of the policy; see `README.md`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    explore: f64,
    close: f64,
    any_tier: bool,
    primary_wait_ms: u32,
    primary_wait_max_retries: u32,
    max_pool_retries: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            explore: 0.05,
            close: 0.15,
            any_tier: false,
            primary_wait_ms: 5_000,
            primary_wait_max_retries: 6,
            max_pool_retries: 3,
        }
    }
}

/// The policy.
pub struct Fastest {
    settings: Settings,
    roster: Roster,
}

pointsman_sdk::export!(Fastest);

impl Policy for Fastest {
    fn configure(settings: &str, table: &Table) -> Result<Self, String> {
        let settings: Settings = settings::parse(settings)?;
        within("explore", settings.explore, 0.0..=1.0)?;
        within("close", settings.close, 0.0..=10.0)?;
        within("primary_wait_ms", settings.primary_wait_ms, 0..=600_000)?;
        within("primary_wait_max_retries", settings.primary_wait_max_retries, 0..=1_000)?;
        within("max_pool_retries", settings.max_pool_retries, 0..=100)?;
        Ok(Self { settings, roster: Roster::new(table) })
    }

    fn decide(&mut self, query: &Query) -> Decision {
        let candidates = self.roster.candidates(query);
        let in_budget = candidates.clone().with_retries_left(query, self.settings.max_pool_retries);
        let patience =
            Patience { longest_ms: self.settings.primary_wait_ms, waits: self.settings.primary_wait_max_retries };
        let decision = if self.settings.any_tier {
            self.choose(query, in_budget.clone()).or_else(|| in_budget.wait(query, patience))
        } else {
            let (primaries, fallbacks) = (in_budget.clone().of(Tier::Primary), in_budget.of(Tier::Fallback));
            self.choose(query, primaries.clone())
                .or_else(|| primaries.wait(query, patience))
                .or_else(|| self.choose(query, fallbacks.clone()))
                .or_else(|| fallbacks.wait(query, patience))
        };
        decision.or_else(|| candidates.emergency(query, patience)).unwrap_or_else(Decision::exhausted)
    }
}

impl Fastest {
    fn choose<'a>(&self, query: &'a Query<'a>, candidates: impl Choose<'a>) -> Option<Decision> {
        let mut dice = query.dice();
        let ready = candidates.ready().least_tried(query);
        let best = self.best(query, ready.clone(), &mut dice)?;
        // A retry has waited long enough.
        if query.attempts.is_empty()
            && dice.chance(self.settings.explore)
            && let Some(other) = explore(query, ready, &best, &mut dice)
        {
            note(&format!("exploring {} instead of {}", other.id(), best.id()));
            return Some(other.send());
        }
        Some(best.send())
    }

    fn best<'a>(&self, query: &'a Query<'a>, ready: impl Choose<'a>, dice: &mut Dice) -> Option<Candidate<'a>> {
        let Some(least) = ready.clone().filter_map(|c| expected_us(&c, query)).min() else {
            return ready.two_choices(&query.request, dice);
        };
        let limit = least + (least as f64 * self.settings.close) as u64;
        ready.filter(|c| expected_us(c, query).is_some_and(|us| us <= limit)).least_loaded(dice)
    }
}

/// One that may be faster than the best known without our knowing.
fn explore<'a>(query: &Query, ready: impl Choose<'a>, best: &Candidate, dice: &mut Dice) -> Option<Candidate<'a>> {
    const SHARE_WHEN_ALL_ARE_KNOWN: f64 = 0.2;
    let ms = |c: &Candidate| c.answer_ms(&query.request);
    let others = ready.filter(|c| c.index() != best.index());
    let unknown = others.clone().filter(|c| ms(c).is_none());
    // Only who is asked can show that it is well again.
    let has_failed = others.clone().filter(|c| ms(c) < ms(best) && c.row().error_permille() > 0);
    let first = unknown.least_loaded(dice).or_else(|| has_failed.least_loaded(dice));
    first.or_else(|| if dice.chance(SHARE_WHEN_ALL_ARE_KNOWN) { others.weighted(dice) } else { None })
}

/// The learned time, in µs, as often over as it takes attempts at the learned rate of errors, twice as long for a failure
/// since the last answer, three times for two, and up to twice as long when full; none while no time is known.
fn expected_us(c: &Candidate, query: &Query) -> Option<u64> {
    const MAX_ERROR_PERMILLE: u32 = 950;
    let row = c.row();
    let us = u64::from(c.answer_ms(&query.request)?) * 1_000;
    let answered_permille = 1_000 - row.error_permille().min(MAX_ERROR_PERMILLE);
    let failures = 1 + u64::from(row.failures().min(100));
    Some(us * failures * u64::from(1_000 + c.load_permille()) / u64::from(answered_permille))
}

#[cfg(test)]
mod tests {
    use pointsman_sdk::testing::{Case, Given, case, fallback, primary};
    use pointsman_sdk::{Lane, Outcome};

    use super::*;

    fn known(id: &str, ms: u32) -> Given {
        primary(id).with("first_token_ms", ms).with("latency_ms", 4 * ms)
    }

    fn without_exploring(backends: impl IntoIterator<Item = Given>) -> Case {
        case(backends).settings(r#"{"explore": 0}"#)
    }

    #[test]
    fn the_fastest_is_chosen_and_those_nearly_as_fast_share() {
        let shares = without_exploring([known("a", 300), known("b", 310), known("c", 500)]).shares::<Fastest>();
        assert!(shares[0].abs_diff(500) < 60 && shares[1].abs_diff(500) < 60, "{shares:?}");
        assert_eq!(shares[2], 0);
    }

    #[test]
    fn failures_errors_and_load_make_it_slower() {
        for worse in [
            known("a", 300).with("error_permille", 500),
            known("a", 300).with("failures", 1),
            known("a", 300).with("in_flight", 90).with("concurrency_left", 10),
        ] {
            assert_eq!(
                without_exploring([worse.clone(), known("b", 450)]).shares::<Fastest>(),
                [0, 1_000],
                "{worse:?}"
            );
        }
    }

    #[test]
    fn the_unknown_are_explored_first_and_then_all_a_little() {
        let shares = case([known("a", 300), known("b", 900), primary("new")]).shares::<Fastest>();
        assert_eq!(shares[1], 0);
        assert!((25..80).contains(&shares[2]), "{shares:?}");
        let shares = case([known("a", 300), known("b", 900)]).settings(r#"{"explore": 0.5}"#).shares::<Fastest>();
        assert!((70..130).contains(&shares[1]), "a fifth of a half: {shares:?}");
        let failed = known("a", 300).with("error_permille", 900);
        let shares = case([failed, known("b", 900)]).shares::<Fastest>();
        assert!((25..80).contains(&shares[0]), "{shares:?}");
        let retry = case([known("a", 300), known("b", 300), primary("new")]).after(0, Outcome::ServerError);
        assert_eq!(retry.settings(r#"{"explore": 1}"#).shares::<Fastest>(), [0, 1_000, 0], "a retry does not explore");
    }

    #[test]
    fn with_nothing_known_all_are_equal() {
        let shares = without_exploring([primary("a"), primary("b")]).shares::<Fastest>();
        assert!(shares[0].abs_diff(500) < 60, "{shares:?}");
    }

    #[test]
    fn fallbacks_come_after_waiting_unless_any_tier_will_do() {
        let fast_fallback = || fallback("paid").with("first_token_ms", 50);
        let cooling = || known("a", 300).cooling(Outcome::RateLimited, 2_000);
        assert_eq!(without_exploring([known("a", 300), fast_fallback()]).decision::<Fastest>(), Decision::primary(0));
        let recovering = without_exploring([cooling(), fast_fallback()]);
        assert_eq!(recovering.decision::<Fastest>(), Decision::wait_for_primary(5_000));
        assert_eq!(recovering.after_waits(6).decision::<Fastest>(), Decision::fallback(1));
        let any = case([known("a", 300), fast_fallback()]).settings(r#"{"any_tier": true, "explore": 0}"#);
        assert_eq!(any.decision::<Fastest>(), Decision::fallback(1));
    }

    #[test]
    fn the_emergency_lane_is_the_last_resort() {
        let lost = case([known("a", 300).cooling(Outcome::RateLimited, 90_000).with("emergency_ms", 0)]);
        assert_eq!(lost.decision::<Fastest>(), Decision::emergency(0));
        let spent = (0..3).fold(lost, |case, _| case.after_in(Lane::Emergency, 0, Outcome::RateLimited));
        assert_eq!(spent.decision::<Fastest>(), Decision::exhausted());
    }

    #[test]
    fn wrong_settings_are_named() {
        let error = Fastest::configure(r#"{"explore": 5}"#, &case([]).table()).err().unwrap_or_default();
        assert_eq!(error, "setting `explore`: 5 is not within 0 to 1");
    }
}
