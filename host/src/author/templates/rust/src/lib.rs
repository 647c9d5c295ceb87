//! {{name}}: the primary that costs others least; a wait while one recovers soon enough; a fallback; then the end.

use pointsman_sdk::{Decision, Load, NONE, Outcome, Policy, Query, Table, Tier, note, pool};
use serde::Deserialize;

/// More waits than this are not for lack of patience.
const MAX_WAITS: u32 = 8;

/// `[policy.settings]` of pointsman.toml. What stands there for other policies is left alone.
#[derive(Deserialize)]
#[serde(default)]
struct Settings {
    /// How long a request waits for a primary, all its waits together, in ms.
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
    /// What each backend's load is measured against, by its index in the table.
    loads: Vec<Load>,
    primaries: Vec<usize>,
    fallbacks: Vec<usize>,
}

pointsman_sdk::export!(Chooser);

impl Policy for Chooser {
    fn configure(settings: &str, table: &Table) -> Result<Self, String> {
        Ok(Self {
            settings: serde_json::from_str(settings).map_err(|e| format!("[policy.settings]: {e}"))?,
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
        let recovers = |&i: &usize| recovers_within(query, i, left_ms);
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
        let usable = |&i: &usize| query.backend(i).is_ready() && !failed(query, i);
        let cost = |&i: &usize| self.loads[i].cost(query.backend(i), query.request.streaming);
        pool.iter().copied().filter(usable).min_by_key(cost)
    }
}

/// Will it be ready within this time, as far as anybody knows?
fn recovers_within(query: &Query, backend: usize, ms: u32) -> bool {
    let row = query.backend(backend);
    row.is_candidate() && !failed(query, backend) && (row.ready_ms() == NONE || row.ready_ms() <= ms)
}

/// Has it failed at this very request? A 429 does not count: it says nothing about the request.
fn failed(query: &Query, backend: usize) -> bool {
    query.attempts.iter().any(|a| a.backend == backend && a.outcome != Outcome::RateLimited)
}

#[cfg(test)]
mod tests {
    use pointsman_sdk::{Backend, Operation, Request, TableParts};

    use super::*;

    const READY: [u32; 2] = [0, 0];
    const COOLING_FOR_2_S: [u32; 2] = [2, 2_000];

    /// Asks about backend 0, a primary, and backend 1, a fallback, in these states.
    fn decide(settings: &str, rows: [[u32; 2]; 2], waited_ms: u32) -> Decision {
        let table = Table::new(TableParts {
            backends: vec![backend(Tier::Primary), backend(Tier::Fallback)],
            columns: vec!["state".into(), "ready_ms".into()],
            ..TableParts::default()
        });
        let query = Query {
            now_ms: 0,
            seed: 1,
            request: REQUEST,
            attempts: &[],
            waits: waited_ms.min(1),
            waited_ms,
            rows: rows.as_flattened(),
            layout: table.layout(),
        };
        Chooser::configure(settings, &table).unwrap().decide(&query)
    }

    const REQUEST: Request = Request {
        model: None,
        operation: Operation::Chat,
        client: None,
        streaming: false,
        priority: 0,
        prompt_tokens: 10,
        max_tokens: 0,
        session: 0,
        elapsed_ms: 0,
        remaining_ms: 60_000,
    };

    fn backend(tier: Tier) -> Backend {
        Backend {
            id: String::new(),
            tier,
            dialect: "openai".into(),
            weight: 1,
            rpm: None,
            tpm: None,
            max_concurrency: None,
            routes: Vec::new(),
            any_model: true,
            labels: Vec::new(),
            capabilities: Vec::new(),
            attributes: Vec::new(),
        }
    }

    #[test]
    fn a_ready_primary_is_taken() {
        assert_eq!(decide("{}", [READY, READY], 0), Decision::primary(0));
    }

    #[test]
    fn a_cooling_primary_is_waited_for_as_long_as_the_settings_say() {
        assert_eq!(decide("{}", [COOLING_FOR_2_S, READY], 0), Decision::wait_for_primary(3_000));
        assert_eq!(decide("{}", [COOLING_FOR_2_S, READY], 1_500), Decision::fallback(1));
        assert_eq!(decide(r#"{"primary_wait_ms": 0}"#, [COOLING_FOR_2_S, READY], 0), Decision::fallback(1));
        assert_eq!(decide(r#"{"primary_wait_ms": 0}"#, [COOLING_FOR_2_S, COOLING_FOR_2_S], 0), Decision::exhausted());
    }

    #[test]
    fn settings_of_the_wrong_kind_are_refused() {
        let table = Table::new(TableParts::default());
        let refused = Chooser::configure(r#"{"primary_wait_ms": "long"}"#, &table).err().unwrap();
        assert!(refused.contains("invalid type"), "{refused}");
    }
}
