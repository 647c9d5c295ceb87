//! The contract may gain columns: a store whose rows have fewer than this version's is told, replayed and backtested with those
//! that it has. `tests/journal/12-columns` is such a store, as a Pointsman whose rows end with `failures` would have written it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pointsman_config::{self as config, ProcessEnv};
use pointsman_core::contract::{COLUMNS, Columns, NONE, Operation, Query};
use pointsman_core::exchange::Facts;
use pointsman_core::time::Timestamp;
use pointsman_engine::{Compiled, Engine, EngineLimits, Texts};
use pointsman_lab::answer::{Answer, Behavior, Response};
use pointsman_lab::chronicle::Chronicler;
use pointsman_lab::world::{Ask, Attempt, Environment, World};
use pointsman_store::{Store, StoreLimits, StorePath};
use pointsman_tests::run_within;
use serde_json::{Value, json};

/// The last of them is `failures`: there is neither `emergency_ms` nor `queued`.
const FEWER: usize = 12;

const EXCHANGES: u32 = 160;

const START: Timestamp = Timestamp::from_millis(1_767_571_200_000);

/// Longer than anything takes in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

const CONFIG: &str = r#"
[policy.settings]
primary_wait_ms = 2000
primary_wait_max_retries = 2
[[backend]]
id = "free-1"
base_url = "http://x"
tier = "primary"
max_concurrency = 4
models = ["m"]
[[backend]]
id = "free-2"
base_url = "http://x"
tier = "primary"
models = ["m"]
[[backend]]
id = "paid"
base_url = "http://x"
tier = "fallback"
models = ["m"]
price = { m = { input_per_mtok = 1.0, output_per_mtok = 4.0 } }
"#;

/// The default policy as it was when the contract was published: its bytes never change.
fn component() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contract/1.0.0/default.wasm")
}

fn policy() -> Compiled {
    let engine = Engine::new(EngineLimits::default()).unwrap();
    engine.compile(&std::fs::read(component()).unwrap()).unwrap()
}

/// A request each second; the free backends take 15 a minute each.
struct Day {
    left: u32,
    at: Timestamp,
    taken: [VecDeque<Timestamp>; 2],
}

impl Environment for Day {
    fn next_request(&mut self) -> Option<(Timestamp, Ask)> {
        self.left = self.left.checked_sub(1)?;
        self.at = self.at + Duration::from_millis(900);
        let facts = Facts {
            operation: Operation::Chat,
            streaming: false,
            priority: 0,
            prompt_tokens: 200,
            max_tokens: 0,
            client: NONE,
            session: 0,
            translatable: false,
            idempotent: true,
        };
        let texts = Texts { model: "m".to_owned(), path: "/v1/chat/completions".to_owned(), ..Texts::default() };
        Some((self.at, Ask { model: "m".into(), facts, texts: Arc::new(texts), patience: None }))
    }

    fn answer(&mut self, attempt: &Attempt<'_>) -> Answer {
        let mut response = Response { status: 200, headers: http::HeaderMap::new(), body: None };
        let mut after = Duration::from_millis(1_400);
        if let Some(taken) = self.taken.get_mut(attempt.sending.backend as usize) {
            taken.retain(|at| attempt.now.since(*at) < Duration::from_secs(60));
            if taken.len() < 15 {
                taken.push_back(attempt.now);
            } else {
                response.status = 429;
                response.headers.insert("retry-after", 5.into());
                after = Duration::from_millis(30);
            }
        }
        let first_token = after.min(Duration::from_millis(300));
        Answer {
            behavior: Behavior::Response(Arc::new(response)),
            head: None,
            first_token,
            after,
            tokens: 80,
            prompt: None,
        }
    }
}

/// The store of a Pointsman whose rows have these columns.
fn record(file: &Path, columns: &Columns) {
    let mut setup = config::parse(CONFIG, "columns.toml", &ProcessEnv).unwrap().config.setup();
    setup.table.columns = columns.clone();
    let policy = policy();
    let revision = policy.isolated(&setup.settings, Arc::new(setup.table.clone())).unwrap();
    let limits = StoreLimits { retention_days: None, ..StoreLimits::default() };
    let store = Store::open(StorePath::File(file.to_owned()), limits, Arc::new(|| START)).unwrap();
    let decide = |query: &Query, texts: &Arc<Texts>| {
        assert_eq!(query.rows.columns(), columns);
        revision.decide(query, texts)
    };
    let chronicler = Chronicler::new(store.handle(), &setup, policy.id().clone());
    let day = Day { left: EXCHANGES, at: START, taken: Default::default() };
    World::new(&setup, START, 1, &[], day, decide, chronicler).run();
    store.close().unwrap();
}

/// Runs a command beside the store; its output.
async fn command(dir: &Path, args: &[&str]) -> String {
    let args = [args, &["--store", "pointsman.db"]].concat();
    let ended = run_within(PATIENCE, env!("CARGO_BIN_EXE_proxy-under-test"), dir, &args, &[]).await;
    assert_eq!(ended.code, Some(0), "{args:?}: {}{}", ended.stdout, ended.stderr);
    ended.stdout
}

async fn json_of(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&command(dir, &[args, &["--json"]].concat()).await).unwrap()
}

/// Request ids that are worth telling: one that waited, one that paid, the last.
fn notable(store: &rusqlite::Connection) -> Vec<String> {
    let id = |condition: &str| {
        let sql = format!("SELECT id FROM exchanges WHERE {condition} ORDER BY ended_us DESC LIMIT 1");
        store.query_row(&sql, [], |row| row.get(0)).unwrap_or_else(|e| panic!("{condition}: {e}"))
    };
    ["waits > 0", "lane = 'fallback'", "1"].map(id).into()
}

/// A copy of the frozen store, in a folder of its own.
fn frozen() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("journal/12-columns/pointsman.db");
    std::fs::copy(store, dir.path().join("pointsman.db")).unwrap();
    dir
}

async fn replayed(dir: &Path) {
    let component = component().display().to_string();
    let report = json_of(dir, &["replay", "--policy", &component]).await;
    assert_eq!(report["exchanges"], EXCHANGES, "{report:#}");
    let revision = &report["revisions"][0];
    assert!(revision["questions"].as_u64() > Some(EXCHANGES.into()), "{report:#}");
    assert_eq!((&revision["differing"], &revision["fresh"]["differing"]), (&json!(0), &json!(0)), "{report:#}");
}

/// `tests/journal/freeze 12-columns` keeps the store.
#[tokio::test]
async fn a_store_of_fewer_columns_is_told_and_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pointsman.db");
    record(&file, &Columns::named(&COLUMNS[..FEWER]));
    replayed(dir.path()).await;
    let mut told = Vec::new();
    for id in notable(&rusqlite::Connection::open(&file).unwrap()) {
        told.push(crate::journal::kept(&json_of(dir.path(), &["explain", &id]).await));
    }
    if let Some(folder) = std::env::var_os("POINTSMAN_FREEZE_JOURNAL") {
        let folder = PathBuf::from(folder);
        let store = rusqlite::Connection::open(&file).unwrap();
        store.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); VACUUM; PRAGMA journal_mode = DELETE").unwrap();
        std::fs::copy(&file, folder.join("pointsman.db")).unwrap();
        std::fs::write(folder.join("told.json"), format!("{:#}\n", Value::Array(told))).unwrap();
    }
}

#[tokio::test]
async fn columns_of_another_name_and_order_are_replayed_too() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["novelty", "queued", "failures", "in_flight", "ready_ms", "state"];
    record(&dir.path().join("pointsman.db"), &Columns::named(&names));
    replayed(dir.path()).await;
}

#[tokio::test]
async fn the_frozen_store_replays_exactly_and_another_policy_is_asked_in_its_columns() {
    let dir = frozen();
    replayed(dir.path()).await;
    let report = json_of(dir.path(), &["replay", "--policy", "default"]).await;
    assert_eq!(report["exchanges"], EXCHANGES, "{report:#}");
    assert_eq!(report["divergences"]["exchanges"], EXCHANGES, "{report:#}");
    assert_eq!(report["unreadable"]["exchanges"], 0, "{report:#}");
}

#[tokio::test]
async fn the_frozen_store_tells_the_numbers_that_were_recorded_and_no_others() {
    let dir = frozen();
    for id in notable(&rusqlite::Connection::open(dir.path().join("pointsman.db")).unwrap()) {
        let told = json_of(dir.path(), &["explain", &id]).await;
        let asked = told["events"].as_array().unwrap().iter().filter(|event| event["what"] == "asked");
        for row in asked.flat_map(|event| event["backends"].as_array().unwrap()) {
            let row = row.as_object().unwrap();
            assert!(COLUMNS[..FEWER].iter().all(|column| row.contains_key(*column)), "{row:?}");
            assert!(COLUMNS[FEWER..].iter().all(|column| !row.contains_key(*column)), "{row:?}");
        }
        let story = command(dir.path(), &["explain", &id]).await;
        assert!(!story.contains("emergency"), "of that nothing is known: {story}");
        let scenario = command(dir.path(), &["explain", &id, "--as-scenario"]).await;
        assert!(!scenario.contains("differ from the record"), "{scenario}");
    }
}

#[tokio::test]
async fn the_frozen_store_is_backtested_in_its_columns() {
    let dir = frozen();
    let component = component().display().to_string();
    let time = ["--since", "2026-01-05T00:00:00Z", "--until", "2026-01-05T01:00:00Z"];
    let policies = ["--against", &component, "--policy", "default", "--set", "primary_wait_max_retries=0"];
    let args = [&["backtest", "--seeds", "4"][..], &time, &policies].concat();
    let report = json_of(dir.path(), &args).await;
    let journal = &report["journal"];
    assert_eq!((&journal["exchanges"], &journal["unreadable_trails"]), (&json!(EXCHANGES), &json!(0)), "{report:#}");
    // The record is of a version with other cooldowns, so the modelled spend need not be the recorded one.
    assert!(report["calibration"]["is_within_5_percent"].is_boolean(), "{:#}", report["calibration"]);
    // A policy to which the columns are right knows who is ready, and none takes the emergency lane for open.
    let mean = |metric: &str, of: &str| report["metrics"][metric][of]["mean"].as_f64();
    assert!(mean("lane_primary_share", "candidate") > Some(0.3), "{:#}", report["metrics"]);
    for of in ["current", "candidate"] {
        assert_eq!(mean("lane_emergency_share", of), Some(0.0), "{:#}", report["metrics"]);
    }
}

/// Without its list of columns the store would be one of 14, and its rows would be read askew.
#[tokio::test]
async fn rows_that_do_not_fit_their_setup_are_not_guessed_at() {
    let dir = frozen();
    let store = rusqlite::Connection::open(dir.path().join("pointsman.db")).unwrap();
    store.execute_batch("UPDATE setup SET setup = json_remove(setup, '$.table.columns')").unwrap();
    let id = notable(&store).remove(0);
    drop(store);
    let args = ["explain", &id, "--store", "pointsman.db"];
    let ended = run_within(PATIENCE, env!("CARGO_BIN_EXE_proxy-under-test"), dir.path(), &args, &[]).await;
    assert!(ended.code != Some(0) && ended.stderr.contains("not of 14 columns"), "{}{}", ended.stdout, ended.stderr);
}
