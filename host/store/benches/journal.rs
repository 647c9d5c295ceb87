//! Cost of the journal per request: following it (core's steps with and without a trail), and handing the trail over.
//!
//! `cargo bench -p pointsman-store --bench journal`

#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pointsman_core::clients::Spending;
use pointsman_core::contract::{Commit, Decision, Dispatch, NONE, Operation, Query, Resume};
use pointsman_core::exchange::{Action, Budgets, Ended, Event, Exchange, Facts, StreamDefaults};
use pointsman_core::fleet::{Fleet, Settings};
use pointsman_core::journal::{Question, Setup, Trail};
use pointsman_core::outcome::Outcome;
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::table::{Backend, Lane, Pattern, Price, Route, Table, Tier};
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;
use pointsman_store::{JournalLimits, JournalPart, Store, StoreLimits, StorePath};

const BACKENDS: [usize; 2] = [1, 16];

/// Exchanges handed over in one measured piece; the backlog takes them all.
const PIECE: u64 = 1_000;

fn facts() -> Facts {
    Facts {
        operation: Operation::Chat,
        streaming: true,
        priority: 0,
        prompt_tokens: 900,
        max_tokens: 0,
        client: NONE,
        session: 0,
        translatable: false,
        idempotent: true,
    }
}

/// Every fourth backend is a fallback. None has limits: what is measured are steps.
fn table(backends: usize) -> Table {
    let backend = |i: usize| Backend {
        tier: if i % 4 == 3 { Tier::Fallback } else { Tier::Primary },
        routes: vec![Route { asked: Pattern::Exact("llama-70b".into()), sent: "meta/llama-3.1-70b-instruct".into() }],
        prices: BTreeMap::from([(
            "*".to_owned(),
            Price { input_per_mtok: 0.1, output_per_mtok: 0.3, ..Price::default() },
        )]),
        ..Backend::new(format!("backend-{i}"))
    };
    Table::new((0..backends).map(backend).collect(), Vec::new())
}

/// A fleet, and how far its time has come.
struct Stage {
    fleet: Fleet,
    view: Arc<View>,
    now: Timestamp,
}

impl Stage {
    fn new(backends: usize) -> Self {
        let table = table(backends);
        let mut fleet = Fleet::new(Settings::default(), 1);
        let view = fleet.adopt(Arc::new(table), Settings::default());
        Self { fleet, view, now: Timestamp::from_millis(1_768_473_000_000) }
    }

    /// An exchange of one question and one attempt, stepped as `proxy/live.rs` does.
    fn exchange(&mut self, is_followed: bool) -> Option<Box<Trail>> {
        self.now = self.now + Duration::from_millis(1);
        let facts = facts();
        let mut trail =
            is_followed.then(|| Box::new(Trail::new(self.now, facts.clone(), Vec::new(), Spending::default())));
        let (budgets, streams) =
            (Budgets::default(), StreamDefaults { commit: Commit::FirstContent, resume: Resume::Splice });
        let model: Arc<str> = "llama-70b".into();
        let mut exchange = Exchange::new(self.now, self.view.clone(), &model, facts, budgets, streams);
        let mut event = Event::Arrived;
        loop {
            if let Some(trail) = &mut trail {
                trail.heard(self.now, &event);
            }
            let action = exchange.step(&mut self.fleet, self.now, event);
            if let Some(trail) = &mut trail {
                trail.told(self.now, &exchange, &action);
            }
            event = match action {
                Action::Ask(query) => Event::Decided(self.decide(query, trail.as_deref_mut())),
                Action::Send(_) => Event::Committed,
                Action::Relay => Event::Ended(Ended::failed(Outcome::answered(200))),
                Action::Wait { .. } | Action::PassOn | Action::Reject(_) => unreachable!("everything is ready"),
                Action::Finish(_) => return trail,
            };
        }
    }

    fn decide(&self, query: Query, trail: Option<&mut Trail>) -> Decision {
        let decision = Decision::Primary(Dispatch { backend: Some(0), ..Dispatch::default() });
        if let Some(trail) = trail {
            let (notes, state) = (Vec::new(), Vec::new());
            let question = Question {
                query,
                decision: decision.clone(),
                notes,
                fault: None,
                state,
                took: Duration::from_micros(1),
            };
            trail.asked(self.now, question);
        }
        decision
    }
}

fn following(criterion: &mut Criterion) {
    for (is_followed, name) in [(false, "an exchange not followed"), (true, "an exchange followed")] {
        let mut group = criterion.benchmark_group(name);
        for backends in BACKENDS {
            let mut stage = Stage::new(backends);
            group.bench_function(BenchmarkId::from_parameter(backends), |bencher| {
                // The writer's thread is who frees a trail.
                bencher.iter_with_large_drop(|| stage.exchange(black_box(is_followed)));
            });
        }
        group.finish();
    }
}

fn handing_over(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = StorePath::File(folder.path().join("bench.db"));
    let journal = JournalLimits { max_bytes: None, ..JournalLimits::default() };
    let limits =
        StoreLimits { backlog: 1 << 20, backlog_bytes: usize::MAX, retention_days: None, max_bytes: None, journal };
    let store = Store::open(path, limits, Arc::new(Timestamp::default)).expect("a new file opens");
    let handle = store.handle();
    let setup = setup();
    let mut number = 0;
    for (is_followed, name) in [(false, "hand over a record"), (true, "hand over a record and its trail")] {
        let mut group = criterion.benchmark_group(name);
        for backends in BACKENDS {
            let mut stage = Stage::new(backends);
            let mut one = || {
                number += 1;
                let part = stage.exchange(is_followed).map(|trail| {
                    Box::new(JournalPart { trail, setup: Arc::clone(&setup), sampled: true, bodies: None })
                });
                (record(number), part)
            };
            group.bench_function(BenchmarkId::from_parameter(backends), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut took = Duration::ZERO;
                    let mut left = rounds;
                    while left > 0 {
                        let piece: Vec<_> = (0..left.min(PIECE)).map(|_| one()).collect();
                        left -= piece.len() as u64;
                        let begin = Instant::now();
                        piece.into_iter().for_each(|(record, part)| handle.record(record, part));
                        took += begin.elapsed();
                        handle.flush_blocking().expect("the file can be written");
                    }
                    took
                });
            });
        }
        group.finish();
    }
    assert_eq!(handle.stats().trails_dropped, 0, "what was measured is not the dropping of trails");
}

fn setup() -> Arc<str> {
    let setup = Setup {
        table: table(16),
        settings: "{}".to_owned(),
        fleet: Settings::default(),
        budgets: Budgets::default(),
        streams: StreamDefaults { commit: Commit::FirstContent, resume: Resume::Splice },
        clients: Vec::new(),
    };
    serde_json::to_string(&setup).expect("a setup is JSON").into()
}

fn record(number: u64) -> Box<ExchangeRecord> {
    Box::new(ExchangeRecord {
        id: format!("req_{number:016x}"),
        started: Timestamp::from_micros(1_768_473_000_000_000 + number * 100),
        elapsed: Duration::from_micros(812_345),
        client: None,
        session: None,
        operation: Operation::Chat,
        path: "/v1/chat/completions".to_owned(),
        model: "llama-70b".to_owned(),
        streaming: true,
        status: 200,
        end: End::Delivered,
        lane: Some(Lane::Primary),
        backend: Some("backend-0".into()),
        waits: 0,
        waited: Duration::ZERO,
        first_byte: Some(Duration::from_millis(200)),
        policy: "a1b2c3d4e5f6".into(),
        policy_faults: 0,
        attempts: Vec::new(),
        notes: Vec::new(),
        error: None,
        denied: None,
        saved_usd: None,
    })
}

criterion_group!(benches, following, handing_over);
criterion_main!(benches);
