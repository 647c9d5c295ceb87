//! Cost of recording one exchange with one attempt: handing it over and writing it.
//!
//! `cargo bench -p pointsman-store --bench store`

#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

mod sample;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pointsman_core::time::Timestamp;
use pointsman_store::{JournalLimits, Store, StoreLimits, StorePath};

/// Exchanges of one measured batch.
const BATCH: u64 = 1_000;

fn recording(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = StorePath::File(folder.path().join("bench.db"));
    let limits = StoreLimits {
        backlog: 1 << 20,
        backlog_bytes: usize::MAX,
        retention_days: None,
        max_bytes: None,
        journal: JournalLimits::default(),
    };
    let store = Store::open(path, limits, Arc::new(Timestamp::default)).expect("a new file opens");
    let handle = store.handle();
    let mut number = 0;
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("hand over and write 1000 exchanges to the file", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                let exchanges: Vec<_> = (number..number + BATCH).map(sample::exchange).collect();
                number += BATCH;
                let begin = Instant::now();
                exchanges.into_iter().for_each(|exchange| handle.record(exchange, None));
                handle.flush_blocking().expect("the file can be written");
                took += begin.elapsed();
            }
            took
        });
    });
    group.finish();
}

criterion_group!(benches, recording);
criterion_main!(benches);
