//! Cost of one decision: the real query, through [`Revision::decide`], to the default policy and back.
//!
//! `cargo bench -p pointsman-engine --bench decision`

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman_engine::sample::{query, rate_limited, table};
use pointsman_engine::{Engine, EngineLimits, Texts};

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
