//! {{name}}: the primary where one more request costs least; a wait while one recovers soon enough; a fallback; the end.

use pointsman_sdk::{Decision, Load, NONE, Policy, Query, Table, Tier, note, pool, settings};
use serde::Deserialize;

/// Tries a backend gets for one request.
const MAX_TRIES: u32 = 3;

/// Waits of one request.
const MAX_WAITS: u32 = 8;

/// `[policy.settings]` of pointsman.toml. Any other key is refused: it may be a slip of the pen.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Total time that a request waits for a primary, in ms.
    primary_wait_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { primary_wait_ms: 3_000 }
    }
}

/// Everything that is known before the first question.
struct Chooser {
    settings: Settings,
    /// Limits that each backend's load is measured against, by its index in the table.
    loads: Vec<Load>,
    primaries: Vec<usize>,
    fallbacks: Vec<usize>,
}

pointsman_sdk::export!(Chooser);

impl Policy for Chooser {
    fn configure(settings: &str, table: &Table) -> Result<Self, String> {
        Ok(Self {
            settings: settings::parse(settings)?,
            loads: table.backends.iter().map(Load::of).collect(),
            primaries: pool(table, Tier::Primary, None),
            fallbacks: pool(table, Tier::Fallback, None),
        })
    }

    fn decide(&mut self, query: &Query) -> Decision {
        if let Some(backend) = self.best(query, &self.primaries) {
            return Decision::primary(backend);
        }
        let left_ms = self.settings.primary_wait_ms.saturating_sub(query.waited_ms);
        let recovers = |&backend: &usize| recovers_within(query, backend, left_ms);
        if left_ms > 0 && query.waits < MAX_WAITS && self.primaries.iter().any(recovers) {
            return Decision::wait_for_primary(left_ms);
        }
        if let Some(backend) = self.best(query, &self.fallbacks) {
            note(&format!("no primary recovers within {left_ms} ms"));
            return Decision::fallback(backend);
        }
        Decision::exhausted()
    }
}

impl Chooser {
    /// The ready backend of a pool where one more request costs least.
    fn best(&self, query: &Query, pool: &[usize]) -> Option<usize> {
        let usable = |&i: &usize| query.backend(i).is_ready() && query.tries(i) < MAX_TRIES;
        let cost = |&i: &usize| self.loads[i].cost(query.backend(i), query.request.streaming);
        pool.iter().copied().filter(usable).min_by_key(cost)
    }
}

/// Will it be ready within this time, as far as anybody knows?
fn recovers_within(query: &Query, backend: usize, ms: u32) -> bool {
    let row = query.backend(backend);
    let in_time = row.ready_ms() == NONE || row.ready_ms() <= ms;
    row.is_candidate() && in_time && query.tries(backend) < MAX_TRIES
}

#[cfg(test)]
mod tests {
    use pointsman_sdk::Outcome;
    use pointsman_sdk::testing::{case, fallback, primary};

    use super::*;

    #[test]
    fn the_primary_that_fails_less_is_taken() {
        let shaky = primary("shaky").with("error_permille", 500);
        assert_eq!(case([shaky, primary("sound"), fallback("paid")]).decision::<Chooser>(), Decision::primary(1));
    }

    #[test]
    fn a_primary_that_recovers_soon_is_waited_for() {
        let cooling = |ms| case([primary("a").cooling(Outcome::RateLimited, ms), fallback("paid")]);
        assert_eq!(cooling(2_000).decision::<Chooser>(), Decision::wait_for_primary(3_000));
        assert_eq!(cooling(9_000).decision::<Chooser>(), Decision::fallback(1));
        assert_eq!(cooling(2_000).after_waits(MAX_WAITS).decision::<Chooser>(), Decision::fallback(1));
        let impatient = cooling(2_000).settings(r#"{"primary_wait_ms": 500}"#).ask::<Chooser>();
        assert_eq!(impatient.decision, Decision::fallback(1));
        assert_eq!(impatient.notes, ["no primary recovers within 500 ms"]);
    }

    #[test]
    fn a_backend_gets_three_tries_and_then_all_is_exhausted() {
        let tried = |times| case([primary("a")]).after_times(times, 0, Outcome::ServerError);
        assert_eq!(tried(2).decision::<Chooser>(), Decision::primary(0));
        assert_eq!(tried(3).decision::<Chooser>(), Decision::exhausted());
    }

    #[test]
    fn settings_that_mean_nothing_are_refused() {
        let table = case([primary("a")]).table();
        let refused = Chooser::configure(r#"{"primary_wait": 1}"#, &table).err().unwrap();
        assert!(refused.contains("`primary_wait`"), "{refused}");
    }
}
