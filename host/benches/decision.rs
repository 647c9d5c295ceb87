//! What one decision costs: the real query, through [`Revision::decide`], to the default policy and back.
//!
//! `cargo bench -p pointsman --bench decision`

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman::policy::{Engine, EngineLimits, Texts};
use pointsman_core::contract::{AttemptFacts, Column, Operation, Query, RequestFacts, RowState, STRIDE};
use pointsman_core::outcome::Kind;
use pointsman_core::table::{Backend, Dialect, Lane, Limits, Pattern, Route, Table, Tier, Timeouts};

criterion_group!(benches, decisions);
criterion_main!(benches);

fn decisions(criterion: &mut Criterion) {
    let engine = Engine::new(EngineLimits::default()).expect("the engine starts");
    let texts = Arc::new(Texts { model: "llama-70b".into(), path: "/v1/chat/completions".into(), ..Texts::default() });
    let mut group = criterion.benchmark_group("decision");
    for backends in [1, 16, 64, 256] {
        let table = Arc::new(table(backends));
        let policy = engine.embedded("{}", table.clone()).expect("the default policy loads");
        let mut first = query(backends, Vec::new());
        group.bench_function(BenchmarkId::new("first", backends), |bencher| {
            bencher.iter(|| {
                first.seed = first.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let verdict = policy.decide(black_box(&first), &texts);
                assert!(verdict.fault.is_none());
                verdict
            });
        });
        let mut retry = query(backends, vec![rate_limited()]);
        group.bench_function(BenchmarkId::new("retry", backends), |bencher| {
            bencher.iter(|| {
                retry.seed = retry.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                policy.decide(black_box(&retry), &texts)
            });
        });
    }
    group.finish();
}

fn rate_limited() -> AttemptFacts {
    AttemptFacts {
        backend: 0,
        lane: Lane::Primary,
        outcome: Kind::RateLimited,
        status: 429,
        elapsed_ms: 40,
        waits_before: 0,
    }
}

/// Three of four backends are primary, all with limits, all serving the model asked for.
fn table(backends: usize) -> Table {
    let backend = |i: usize| Backend {
        id: format!("backend-{i}").into(),
        tier: if i % 4 == 3 { Tier::Fallback } else { Tier::Primary },
        dialect: Dialect::Openai,
        weight: 1 + i as u32 % 3,
        limits: Limits { rpm: Some(600), tpm: Some(1_000_000), max_concurrency: Some(64) },
        routes: vec![Route { asked: Pattern::Exact("llama-70b".into()), sent: "meta/llama-3.1-70b-instruct".into() }],
        prices: Default::default(),
        timeouts: Timeouts::default(),
        labels: Default::default(),
        capabilities: Default::default(),
    };
    Table::new((0..backends).map(backend).collect(), vec!["agent-1".into()])
}

/// Every sixth backend cools; the others have some load and a history.
fn query(backends: usize, attempts: Vec<AttemptFacts>) -> Query {
    let rows = (0..backends)
        .flat_map(|i| {
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
        })
        .collect();
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
        rows,
    }
}
