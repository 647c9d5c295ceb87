//! Duration of `pointsman backtest` for a day of traffic: `cargo bench -p pointsman-lab --bench backtest [-- EXCHANGES
//! [FOLDER]]`.
//!
//! Makes a journal of a world with two rate-limited free backends and a paid one (in FOLDER, where it then stays), and backtests the
//! default policy that never waits on it, with the default number of worlds.

#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use pointsman_config as config;
use pointsman_core::contract::{NONE, Operation, Query};
use pointsman_core::exchange::Facts;
use pointsman_core::time::Timestamp;
use pointsman_engine::clock::Stopwatch;
use pointsman_engine::{Engine, EngineLimits, Texts};
use pointsman_lab::answer::{Answer, Behavior, Response};
use pointsman_lab::backtest::{self, Html, Named, Options, SEEDS, Terminal};
use pointsman_lab::chronicle::Chronicler;
use pointsman_lab::settings::GivenSettings;
use pointsman_lab::world::{Ask, Attempt, Environment, World};
use pointsman_store::{Store, StoreLimits, StorePath, StoreReader};

const CONFIG: &str = r#"
[policy.settings]
primary_wait_ms = 4000
primary_wait_max_retries = 3
[[backend]]
id = "free-1"
base_url = "http://x"
rpm = 60
models = ["m"]
[[backend]]
id = "free-2"
base_url = "http://x"
models = ["m"]
[[backend]]
id = "paid"
base_url = "http://x"
tier = "fallback"
models = ["m"]
price = { m = { input_per_mtok = 1.0, output_per_mtok = 4.0 } }
"#;

const START: Timestamp = Timestamp::from_millis(1_767_571_200_000);

/// A day in the life of two free backends and a paid one.
struct Day {
    random: u64,
    at: Timestamp,
    left: u64,
    /// Requests that the free backends took in the minute before.
    taken: [std::collections::VecDeque<Timestamp>; 2],
}

impl Day {
    fn unit(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn takes(&mut self, backend: usize, now: Timestamp) -> bool {
        let limit = [50, 40].get(backend).copied().unwrap_or(usize::MAX);
        let Some(taken) = self.taken.get_mut(backend) else { return true };
        while taken.front().is_some_and(|at| now.since(*at) >= Duration::from_secs(60)) {
            taken.pop_front();
        }
        let has_room = taken.len() < limit;
        if has_room {
            taken.push_back(now);
        }
        has_room
    }
}

impl Environment for Day {
    fn next_request(&mut self) -> Option<(Timestamp, Ask)> {
        self.left = self.left.checked_sub(1)?;
        // 100,000 a day, more by day than by night.
        let hours = self.at.since(START).as_secs_f64() / 3_600.0;
        let busy = 1.0 + 0.7 * (hours * std::f64::consts::TAU / 24.0).sin();
        self.at = self.at + Duration::from_secs_f64(-0.864 * (1.0 - self.unit()).ln() / busy);
        let facts = Facts {
            operation: Operation::Chat,
            streaming: self.unit() < 0.5,
            priority: 0,
            prompt_tokens: (100.0 * 40f64.powf(self.unit())) as u32,
            max_tokens: 0,
            client: NONE,
            session: (self.unit() * 500.0) as u64,
            translatable: false,
            idempotent: true,
        };
        let (path, session) = ("/v1/chat/completions".to_owned(), Some(format!("s{}", facts.session)));
        let texts = Arc::new(Texts { model: "m".to_owned(), path, session, ..Texts::default() });
        Some((self.at, Ask { model: "m".into(), facts, texts, patience: None }))
    }

    fn answer(&mut self, attempt: &Attempt<'_>) -> Answer {
        let backend = attempt.sending.backend as usize;
        let minutes = attempt.now.since(START).as_secs() / 60;
        let is_out = (backend == 0 && (500..530).contains(&minutes)) || (backend == 1 && (900..910).contains(&minutes));
        let (status, after_ms) = if is_out || self.unit() < 0.003 {
            (502, 40)
        } else if self.takes(backend, attempt.now) {
            (200, 0)
        } else {
            (429, 30)
        };
        let mut headers = HeaderMap::new();
        if status == 429 {
            headers.insert("retry-after", 5.into());
        }
        let behavior = Behavior::Response(Arc::new(Response { status, headers, body: None }));
        let tokens = (20.0 * 40f64.powf(self.unit())) as u32;
        let first = Duration::from_millis(300).mul_f64(0.5 + 2.0 * self.unit());
        let whole = first + Duration::from_millis(10).mul_f64(f64::from(tokens) * (0.7 + 0.6 * self.unit()));
        let after = if status == 200 { whole } else { Duration::from_millis(after_ms) };
        Answer { behavior, head: None, first_token: first.min(after), after, tokens, prompt: None }
    }
}

fn chronicle(file: PathBuf, exchanges: u64) {
    let setup = config::parse(CONFIG, "bench.toml", &config::ProcessEnv).expect("it is a configuration").config.setup();
    let engine = Engine::new(EngineLimits::default()).expect("the engine starts");
    let policy = engine.compile_embedded().expect("it is a policy");
    let revision = policy.isolated(&setup.settings, Arc::new(setup.table.clone())).expect("it takes the table");
    let limits = StoreLimits { retention_days: None, ..StoreLimits::default() };
    let store = Store::open(StorePath::File(file), limits, Arc::new(|| START)).expect("the store opens");
    let decide = |query: &Query, texts: &Arc<Texts>| revision.decide(query, texts);
    let chronicler = Chronicler::new(store.handle(), &setup, policy.id().clone());
    let day = Day { random: 7, at: START, left: exchanges, taken: Default::default() };
    World::new(&setup, START, 1, &[], day, decide, chronicler).run();
    store.close().expect("it is written");
}

fn main() {
    let mut given = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let exchanges = given.next().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let temporary = tempfile::tempdir().expect("a folder can be made");
    let folder = given.next().map_or(temporary.path().to_owned(), PathBuf::from);
    let file = folder.join("day.db");
    if !file.exists() {
        let watch = Instant::now();
        chronicle(file.clone(), exchanges);
        println!("the journal of {exchanges} exchanges: written in {:.1} s", watch.elapsed().as_secs_f64());
    }
    let (whole, watch) = (Instant::now(), Stopwatch::start());
    let until = START + Duration::from_secs(7 * 86_400);
    let reader = StoreReader::open(&file).expect("the store opens");
    let engine = backtest::engine().expect("the engine starts");
    let policy = engine.compile_embedded().expect("it is a policy");
    let (past, skipped) = backtest::read(&reader, (Timestamp::default(), until), &mut |_, _| {}).expect("it is enough");
    let current = backtest::of_revision(&engine, &reader, &past.revisions[0].0).expect("it is kept");
    let candidate = Named { name: "default with primary_wait_max_retries=0".to_owned(), policy };
    let never = GivenSettings::new(None, [("primary_wait_max_retries".to_owned(), 0.into())].into_iter().collect());
    let settings = never.over(config::recorded_settings(&past.setup.settings));
    let policies = [&current, &candidate];
    let options = Options { past: &past, skipped, policies, settings, seeds: SEEDS, watch };
    let report = backtest::backtest(options, &mut |_| {}).expect("both take what was recorded");
    std::fs::write(folder.join("day.html"), Html(&report).to_string()).expect("it can be written");
    print!("{}", Terminal(&report));
    println!("\nbacktest of {exchanges} exchanges: {:.1} s in all", whole.elapsed().as_secs_f64());
}
