//! Cost of a shadow and of a guarded promotion per exchange.
//!
//! `cargo bench -p pointsman --bench shadow`
//!
//! `mirror/off` is a proxy without a shadow; `mirror/asked` leaves a copy of the question for the shadow's thread, which
//! runs meanwhile; `mirror/spent` finds the shadow's share of a processor used up.

#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman::proxy::{Shadow, ShadowPolicy};
use pointsman::telemetry::metrics::Metrics;
use pointsman_core::contract::{Decision, Dispatch};
use pointsman_core::lifecycle::promotion::{Plan, Promotion, Sample, Share, Side, Subject};
use pointsman_core::time::Timestamp;
use pointsman_engine::sample::{query, table};
use pointsman_engine::{Engine, EngineLimits, Texts};

criterion_group!(benches, mirror, promotion);
criterion_main!(benches);

/// Questions left before the shadow is given time to answer them; fewer than may wait.
const BATCH: u64 = 64;

fn mirror(criterion: &mut Criterion) {
    let engine = Engine::new(EngineLimits::default()).expect("the engine starts");
    let texts = Arc::new(Texts { model: "llama-70b".into(), path: "/v1/chat/completions".into(), ..Texts::default() });
    let decision = Decision::Primary(Dispatch { backend: Some(0), ..Dispatch::default() });
    let mut group = criterion.benchmark_group("mirror");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    for backends in [4, 64] {
        let table = Arc::new(table(backends));
        let question = query(backends, Vec::new());
        let shadow = Shadow::new(Metrics::new(&table, "0", Timestamp::default()));
        let ask = |shadow: &Shadow| shadow.mirror(&table, "req_0123456789abcdef00000001", &question, &texts, &decision);
        group.bench_function(BenchmarkId::new("off", backends), |bencher| bencher.iter(|| ask(black_box(&shadow))));
        for (name, core_share) in [("asked", 1.0), ("spent", 0.000_001)] {
            let compiled = engine.compile_embedded().expect("the default policy compiles");
            let revision = compiled.shadow("{}", table.clone(), 5).expect("the default policy loads");
            let policy = ShadowPolicy { revision, core_share, stats: Arc::default() };
            shadow.install(Some(Arc::new(policy))).expect("a thread starts");
            group.bench_function(BenchmarkId::new(name, backends), |bencher| {
                bencher.iter_custom(|times| {
                    let (mut left, mut spent) = (times, Duration::ZERO);
                    while left > 0 {
                        let batch = left.min(BATCH);
                        let begun = Instant::now();
                        (0..batch).for_each(|_| ask(black_box(&shadow)));
                        spent += begun.elapsed();
                        left -= batch;
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

fn promotion(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("promotion");
    let share = Share::parse("5%").expect("it is a share");
    group.bench_function("takes", |bencher| {
        bencher.iter(|| share.takes(black_box(7), Subject::Session { client: Some("agent-1"), session: "a-session" }));
    });
    let plan = Plan::parse(None, None, []).expect("there are defaults");
    let mut promotion = Promotion::new(plan, Timestamp::default());
    let mut n = 0u64;
    group.bench_function("ended", |bencher| {
        bencher.iter(|| {
            n += 1;
            let side = if n.is_multiple_of(20) { Side::Candidate } else { Side::Control };
            let sample = Sample {
                arrived: Timestamp::from_millis(1),
                failed: n.is_multiple_of(97),
                took: Duration::from_micros(200_000 + n * 7_919 % 900_000),
                cost_usd: (n % 7) as f64 * 0.001,
            };
            promotion.ended(Timestamp::from_millis(2), side, black_box(&sample))
        });
    });
    group.finish();
}
