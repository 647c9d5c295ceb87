//! Cost of counting one exchange with one attempt in the metrics.
//!
//! `cargo bench -p pointsman --bench metrics`

#[path = "../store/benches/sample/mod.rs"]
mod sample;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman::telemetry::metrics::Metrics;
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;

fn counting(criterion: &mut Criterion) {
    let metrics = Metrics::new(&Table::default(), "bench", Timestamp::default());
    let one = sample::exchange(0);
    criterion.bench_function("count one exchange in the metrics", |bencher| {
        bencher.iter(|| metrics.observe(black_box(&one)));
    });
}

criterion_group!(benches, counting);
criterion_main!(benches);
