//! Tables and questions to try a policy with where no configuration is given.

use std::collections::BTreeMap;

use pointsman_core::contract::{AttemptFacts, BackendRow, Column, Operation, Query, RequestFacts, RowState};
use pointsman_core::outcome::Kind;
use pointsman_core::table::{Backend, Lane, Limits, Pattern, Price, Route, Table, Tier};

/// Every fourth backend is a fallback; all have limits and prices and serve two models.
pub fn table(backends: usize) -> Table {
    let route = |asked: &str, sent: &str| Route { asked: Pattern::Exact(asked.into()), sent: sent.into() };
    let backend = |i: usize| Backend {
        tier: if i % 4 == 3 { Tier::Fallback } else { Tier::Primary },
        weight: 1 + i as u32 % 3,
        limits: Limits { rpm: Some(600), tpm: Some(1_000_000), max_concurrency: Some(64), ..Limits::default() },
        routes: vec![
            route("llama-70b", "meta/llama-3.1-70b-instruct"),
            route("llama-8b", "meta/llama-3.1-8b-instruct"),
        ],
        prices: BTreeMap::from([("*".to_owned(), price(i))]),
        labels: BTreeMap::from([("region".to_owned(), if i.is_multiple_of(2) { "eu" } else { "us" }.to_owned())]),
        ..Backend::new(format!("backend-{i}"))
    };
    Table::new((0..backends).map(backend).collect(), vec!["agent-1".into()])
}

fn price(i: usize) -> Price {
    let input_per_mtok = 0.1 * (1 + i % 5) as f64;
    Price { input_per_mtok, output_per_mtok: 3.0 * input_per_mtok, ..Price::default() }
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
        rows: (0..backends).map(row).collect(),
    }
}

fn row(i: usize) -> BackendRow {
    let n = i as u32;
    let row = match i % 6 {
        5 => BackendRow::new(RowState::Cooling)
            .with(Column::CooldownMs, 4_000)
            .with(Column::CooldownReason, Kind::RateLimited.index())
            .with(Column::ReadyMs, 4_000),
        _ => BackendRow::new(RowState::Ready),
    };
    row.with(Column::RequestsLeft, 600 - (n * 37) % 500)
        .with(Column::TokensLeft, 1_000_000 - (n * 7_919) % 900_000)
        .with(Column::InFlight, n % 9)
        .with(Column::ConcurrencyLeft, 64 - n % 9)
        .with(Column::LatencyMs, 900 + (n * 131) % 3_000)
        .with(Column::FirstTokenMs, 200 + (n * 53) % 900)
        .with(Column::ErrorPermille, (n * 7) % 40)
        .with(Column::EmergencyMs, 0)
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
