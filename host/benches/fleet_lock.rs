//! Exchanges without sockets on 1 to 8 threads: core's steps under the fleet's lock, the policy, and the hand-over to the store.
//!
//! `cargo bench -p pointsman --bench fleet_lock`
//!
//! The lock is what all threads share. The time under it is measured on one thread, where nobody waits for it: so many requests a
//! second are the most that any number of processors can serve.

#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pointsman::proxy::SharedFleet;
use pointsman_core::clients::Spending;
use pointsman_core::contract::{Commit, NONE, Operation, Resume};
use pointsman_core::exchange::{Action, Budgets, Ended, Event, Exchange, Facts, StreamDefaults};
use pointsman_core::fleet::{Fleet, Settings};
use pointsman_core::journal::{Question, Setup, Trail};
use pointsman_core::outcome::Outcome;
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::table::{Lane, Limits};
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;
use pointsman_engine::clock::Clock;
use pointsman_engine::sample::table;
use pointsman_engine::{Engine, EngineLimits, Revision, Texts};
use pointsman_store::{JournalLimits, JournalPart, Store, StoreHandle, StoreLimits, StorePath};

const THREADS: [usize; 4] = [1, 2, 4, 8];
const BACKENDS: [usize; 3] = [1, 16, 64];
const RUN: Duration = Duration::from_secs(2);

/// The goal: the lock must not be the limit below this, requests a second.
const GOAL: f64 = 400_000.0;

struct Stage {
    fleet: SharedFleet,
    clock: Clock,
    view: Arc<View>,
    policy: Revision,
    texts: Arc<Texts>,
    setup: Arc<str>,
    store: StoreHandle,
    /// Time under the lock, ns,.
    locked_ns: AtomicU64,
}

fn main() {
    let engine = Engine::new(EngineLimits::default()).expect("the engine starts");
    println!(
        "| backends | threads | exchanges/s | a thread | under the lock, ns an exchange | most exchanges/s | ≥ {GOAL:.0} |"
    );
    println!("|--:|--:|--:|--:|--:|--:|---|");
    for backends in BACKENDS {
        for threads in THREADS {
            let folder = tempfile::tempdir().expect("a folder for temporary files");
            let journal = JournalLimits { max_bytes: None, ..JournalLimits::default() };
            let limits = StoreLimits {
                backlog: 1 << 16,
                backlog_bytes: 256 << 20,
                retention_days: None,
                max_bytes: None,
                journal,
            };
            let path = StorePath::File(folder.path().join("bench.db"));
            let store = Store::open(path, limits, Arc::new(Timestamp::default)).expect("a new file opens");
            let stage = Stage::new(&engine, backends, store.handle());
            let done = run(&stage, threads);
            let each = stage.locked_ns.load(Ordering::Relaxed) as f64 / done as f64;
            let (per_second, most) = (done as f64 / RUN.as_secs_f64(), 1e9 / each);
            let is_met = if threads > 1 {
                ""
            } else if most >= GOAL {
                "yes"
            } else {
                "**no**"
            };
            println!(
                "| {backends} | {threads} | {per_second:.0} | {:.0} | {each:.0} | {most:.0} | {is_met} |",
                per_second / threads as f64
            );
        }
    }
}

/// Runs as many exchanges as go in [`RUN`]; returns their number.
fn run(stage: &Stage, threads: usize) -> u64 {
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..threads as u64 {
            let (over, done) = (&over, &done);
            scope.spawn(move || {
                let (mut number, mut locked) = (0, Duration::ZERO);
                while !over.load(Ordering::Relaxed) {
                    number += 1;
                    locked += stage.exchange(thread << 40 | number);
                }
                done.fetch_add(number, Ordering::Relaxed);
                stage.locked_ns.fetch_add(locked.as_nanos() as u64, Ordering::Relaxed);
            });
        }
        let begun = Instant::now();
        while let Some(left) = RUN.checked_sub(begun.elapsed()) {
            std::thread::sleep(left);
        }
        over.store(true, Ordering::Relaxed);
    });
    done.load(Ordering::Relaxed)
}

impl Stage {
    fn new(engine: &Engine, backends: usize, store: StoreHandle) -> Self {
        let mut table = table(backends);
        for backend in &mut table.backends {
            let enough = Some(u32::MAX);
            backend.limits = Limits { rpm: enough, tpm: enough, max_concurrency: enough, ..Limits::default() };
        }
        let table = Arc::new(table);
        let clock = Clock::start();
        let mut fleet = Fleet::new(Settings::default(), 1);
        let view = fleet.adopt(table.clone(), Settings::default());
        let setup = Setup {
            table: (*table).clone(),
            settings: "{}".to_owned(),
            fleet: Settings::default(),
            budgets: Budgets::default(),
            streams: STREAMS,
            clients: Vec::new(),
        };
        Self {
            fleet: SharedFleet::new(fleet, clock),
            clock,
            view,
            policy: engine.embedded("{}", table).expect("the default policy loads"),
            texts: Arc::new(Texts {
                model: "llama-70b".into(),
                path: "/v1/chat/completions".into(),
                ..Texts::default()
            }),
            setup: serde_json::to_string(&setup).expect("a setup is JSON").into(),
            store,
            locked_ns: AtomicU64::new(0),
        }
    }

    /// An exchange of one question and one attempt; returns how long it was under the lock.
    fn exchange(&self, number: u64) -> Duration {
        let (facts, now) = (facts(), self.clock.now());
        let mut trail = Box::new(Trail::new(now, facts.clone(), Vec::new(), Spending::default()));
        let model: Arc<str> = "llama-70b".into();
        let mut exchange = Exchange::new(now, self.view.clone(), &model, facts, Budgets::default(), STREAMS);
        let (mut event, mut locked) = (Event::Arrived, Duration::ZERO);
        loop {
            let begun = Instant::now();
            let action = self.fleet.with(|fleet, now| {
                trail.heard(now, &event);
                let action = exchange.step(fleet, now, event);
                trail.told(now, &exchange, &action);
                action
            });
            locked += begun.elapsed();
            event = match action {
                Action::Ask(query) => {
                    let verdict = self.policy.decide(&query, &self.texts);
                    let decision = verdict.decision.clone();
                    let question = Question {
                        query,
                        decision: verdict.decision,
                        notes: verdict.notes,
                        fault: None,
                        state: verdict.state,
                        took: Duration::from_micros(1),
                    };
                    trail.asked(now, question);
                    Event::Decided(decision)
                }
                Action::Send(_) => Event::Committed,
                Action::Relay => Event::Ended(Ended::failed(Outcome::answered(200))),
                Action::Wait { .. } | Action::PassOn | Action::Reject(_) => unreachable!("all backends are ready"),
                Action::Finish(_) => break,
            };
        }
        let setup = Arc::clone(&self.setup);
        let part = Box::new(JournalPart { trail, setup, sampled: true, bodies: None });
        self.store.record(record(number), Some(part));
        locked
    }
}

const STREAMS: StreamDefaults = StreamDefaults { commit: Commit::FirstContent, resume: Resume::Splice };

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
