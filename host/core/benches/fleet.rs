//! The fleet under its lock: the rows of a query, and an attempt from its permit to its end. Run with
//! `cargo bench -p pointsman-core --bench fleet`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman_core::contract::Operation;
use pointsman_core::fleet::{AttemptReport, Fleet, Settings};
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::table::{Backend, Lane, Limits, Table};
use pointsman_core::time::Timestamp;
use pointsman_core::view::{View, Want};

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn backend(n: usize, limits: Limits) -> Backend {
    Backend { limits, ..Backend::new(format!("backend-{n}")) }
}

fn fleet(backends: usize, rpm: u32, tpm: u32) -> (Fleet, Arc<View>, Want) {
    let limits = Limits { rpm: Some(rpm), tpm: Some(tpm), ..Limits::default() };
    let table = Table::new((0..backends).map(|n| backend(n, limits)).collect(), Vec::new());
    let mut fleet = Fleet::new(Settings::default(), 7);
    let view = fleet.adopt(Arc::new(table), Settings::default());
    let want = view.want(&"m".into(), Operation::Chat, 1_000);
    (fleet, view, want)
}

/// One attempt that is answered a second later with fewer tokens than it was charged.
fn attempt(fleet: &mut Fleet, now: Timestamp, view: &View, want: &Want, answered: &Outcome) {
    if let Ok(permit) = fleet.acquire(now, view, want, Lane::Primary, None) {
        let report = AttemptReport { outcome: answered, first_token: None, tokens_used: Some(600) };
        fleet.settle(now + Duration::from_secs(1), permit, report);
    }
}

/// Limits nearly used up, so that every number has to be looked for.
fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows");
    let answered = Outcome::new(Kind::Answered, "");
    for (backends, rpm) in [(16, 40), (256, 40), (256, 480)] {
        let (mut fleet, view, want) = fleet(backends, rpm, 1_000_000);
        for i in 0..backends as u64 * u64::from(rpm) {
            let now = START + Duration::from_micros(i * 60_000_000 / (backends as u64 * u64::from(rpm)));
            attempt(&mut fleet, now, &view, &want, &answered);
        }
        // Half of what was sent is more than a minute ago.
        let now = START + Duration::from_secs(90);
        group.bench_function(format!("{backends}_backends_of_{rpm}_rpm"), |b| {
            b.iter(|| black_box(fleet.rows(now, &view, &want, None)))
        });
    }
    group.finish();
}

/// An attempt at one backend, at the pace of its limit.
fn attempts(c: &mut Criterion) {
    let mut group = c.benchmark_group("attempt");
    let answered = Outcome::new(Kind::Answered, "");
    for rpm in [40, 480, 60_000, 6_000_000] {
        let (mut fleet, view, want) = fleet(1, rpm, 4_000_000_000);
        let gap = Duration::from_micros(60_000_000 / u64::from(rpm) * 101 / 100);
        let mut now = START;
        group.bench_function(format!("{rpm}_rpm"), |b| {
            b.iter(|| {
                now = now + gap;
                attempt(&mut fleet, now, &view, &want, &answered);
            })
        });
    }
    group.finish();
}

criterion_group!(benches, rows, attempts);
criterion_main!(benches);
