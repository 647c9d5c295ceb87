//! Tables and questions to try a policy with where no configuration is given.

use std::collections::BTreeMap;

use pointsman_core::contract::{AttemptFacts, Column, Operation, Query, RequestFacts, RowState, STRIDE};
use pointsman_core::outcome::Kind;
use pointsman_core::table::{Backend, Dialect, Lane, Limits, Pattern, Price, Route, Table, Tier, Timeouts};

/// Every fourth backend is a fallback; all have limits and prices and serve two models.
pub fn table(backends: usize) -> Table {
    let route = |asked: &str, sent: &str| Route { asked: Pattern::Exact(asked.into()), sent: sent.into() };
    let backend = |i: usize| Backend {
        id: format!("backend-{i}").into(),
        tier: if i % 4 == 3 { Tier::Fallback } else { Tier::Primary },
        dialect: Dialect::Openai,
        weight: 1 + i as u32 % 3,
        limits: Limits { rpm: Some(600), burst: None, tpm: Some(1_000_000), max_concurrency: Some(64) },
        routes: vec![
            route("llama-70b", "meta/llama-3.1-70b-instruct"),
            route("llama-8b", "meta/llama-3.1-8b-instruct"),
        ],
        prices: BTreeMap::from([("*".to_owned(), price(i))]),
        timeouts: Timeouts::default(),
        labels: BTreeMap::from([("region".to_owned(), if i.is_multiple_of(2) { "eu" } else { "us" }.to_owned())]),
        capabilities: BTreeMap::new(),
    };
    Table::new((0..backends).map(backend).collect(), vec!["agent-1".into()])
}

fn price(i: usize) -> Price {
    let input_per_mtok = 0.1 * (1 + i % 5) as f64;
    Price { input_per_mtok, output_per_mtok: 3.0 * input_per_mtok, cached_input_per_mtok: None }
}

/// A question about a chat: every sixth backend cools, the others have some load and a history.
pub fn query(backends: usize, attempts: Vec<AttemptFacts>) -> Query {
    Query {
        now_ms: 1_767_225_600_000,
        seed: 42,
        request: RequestFacts {
            model: 0,
            operation: Operation::Chat,
            client: 0,
            streaming: true,
            priority: 0,
            prompt_tokens: 900,
            max_tokens: 2_048,
            session: 0,
            elapsed_ms: 0,
            remaining_ms: 600_000,
        },
        attempts,
        waits: 0,
        waited_ms: 0,
        rows: (0..backends).flat_map(row).collect(),
    }
}

fn row(i: usize) -> [u32; STRIDE] {
    let mut row = [0; STRIDE];
    let n = i as u32;
    let cooling = i % 6 == 5;
    row[Column::State as usize] = if cooling { RowState::Cooling } else { RowState::Ready } as u32;
    row[Column::CooldownMs as usize] = if cooling { 4_000 } else { 0 };
    row[Column::CooldownReason as usize] = if cooling { Kind::RateLimited.index() } else { 0 };
    row[Column::ReadyMs as usize] = if cooling { 4_000 } else { 0 };
    row[Column::RequestsLeft as usize] = 600 - (n * 37) % 500;
    row[Column::TokensLeft as usize] = 1_000_000 - (n * 7_919) % 900_000;
    row[Column::InFlight as usize] = n % 9;
    row[Column::ConcurrencyLeft as usize] = 64 - n % 9;
    row[Column::LatencyMs as usize] = 900 + (n * 131) % 3_000;
    row[Column::FirstTokenMs as usize] = 200 + (n * 53) % 900;
    row[Column::ErrorPermille as usize] = (n * 7) % 40;
    row
}

/// An attempt at the first backend that ended in a 429.
pub fn rate_limited() -> AttemptFacts {
    AttemptFacts {
        backend: 0,
        lane: Lane::Primary,
        outcome: Kind::RateLimited,
        status: 429,
        elapsed_ms: 40,
        waits_before: 0,
    }
}
