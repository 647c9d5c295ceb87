//! Cost of recording one exchange with one attempt: handing it over and writing it.
//!
//! `cargo bench -p pointsman-store --bench store`

#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pointsman_core::contract::Operation;
use pointsman_core::outcome::Kind;
use pointsman_core::record::{AttemptRecord, End, ExchangeRecord, Usage};
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use pointsman_store::{JournalLimits, Store, StoreLimits, StorePath};

/// Exchanges of one measured batch.
const BATCH: u64 = 1_000;

fn exchange(number: u64) -> Box<ExchangeRecord> {
    let backend: Arc<str> = "nvidia-1".into();
    let started = Timestamp::from_micros(1_768_473_000_000_000 + number * 100);
    let attempt = AttemptRecord {
        backend: Arc::clone(&backend),
        lane: Lane::Primary,
        model_sent: "meta/llama-3.1-70b-instruct".to_owned(),
        started,
        elapsed: Duration::from_micros(812_000),
        first_byte: Some(Duration::from_millis(200)),
        first_token: None,
        outcome: Kind::Answered,
        status: 200,
        retry_after: None,
        message: String::new(),
        usage: Usage { input_tokens: 1_200, output_tokens: 300, cached_input_tokens: 0, estimated: false },
        cost_usd: 0.000_234,
    };
    Box::new(ExchangeRecord {
        id: format!("req_{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        started,
        elapsed: Duration::from_micros(812_345),
        client: Some("agent-1".into()),
        session: None,
        operation: Operation::Chat,
        path: "/v1/chat/completions".to_owned(),
        model: "llama-70b".to_owned(),
        streaming: false,
        status: 200,
        end: End::Delivered,
        lane: Some(Lane::Primary),
        backend: Some(backend),
        waits: 0,
        waited: Duration::ZERO,
        first_byte: Some(Duration::from_millis(200)),
        policy: "a1b2c3d4e5f6".into(),
        policy_faults: 0,
        attempts: vec![attempt],
        notes: Vec::new(),
        error: None,
        denied: None,
        saved_usd: None,
    })
}

fn recording(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = StorePath::File(folder.path().join("bench.db"));
    let limits =
        StoreLimits { backlog: 1 << 20, retention_days: None, max_bytes: None, journal: JournalLimits::default() };
    let store = Store::open(path, limits, Arc::new(Timestamp::default)).expect("a new file opens");
    let handle = store.handle();
    let mut number = 0;
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("hand over and write 1000 exchanges to the file", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                let exchanges: Vec<_> = (number..number + BATCH).map(exchange).collect();
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
