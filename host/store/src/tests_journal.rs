//! The journal's rows.

use std::ops::ControlFlow;

use pointsman_core::clients::Spending;
use pointsman_core::contract::{
    BackendRow, Commit, Decision, Dispatch, NONE, Operation, Query, RequestFacts, Resume, RowState,
};
use pointsman_core::exchange::{Budgets, Facts, StreamDefaults};
use pointsman_core::fleet;
use pointsman_core::journal::{Question, Setup, Trail};
use pointsman_core::table::Table;
use rusqlite::Connection;

use super::tests::{DAY_MS, T0_MS, count, exchange, fixed, hurried, memory, on_disk, unlimited};
use super::*;

fn setup(settings: &str) -> Setup {
    Setup {
        table: Table::default(),
        settings: settings.to_owned(),
        fleet: fleet::Settings::default(),
        budgets: Budgets::default(),
        streams: StreamDefaults { commit: Commit::FirstContent, resume: Resume::Splice },
        clients: Vec::new(),
    }
}

fn json(settings: &str) -> Arc<str> {
    serde_json::to_string(&setup(settings)).unwrap().into()
}

fn trail(arrived_ms: u64, rows: usize) -> Box<Trail> {
    let facts = Facts {
        operation: Operation::Chat,
        streaming: true,
        priority: 0,
        prompt_tokens: 10,
        max_tokens: 0,
        client: NONE,
        session: 0,
        translatable: false,
        idempotent: true,
    };
    let arrived = Timestamp::from_millis(arrived_ms);
    let mut trail = Trail::new(arrived, facts, Vec::new(), Spending::default());
    let request = RequestFacts {
        model: 0,
        operation: Operation::Chat,
        client: NONE,
        streaming: true,
        priority: 0,
        prompt_tokens: 10,
        max_tokens: 0,
        session: 0,
        elapsed_ms: 0,
        remaining_ms: 1,
    };
    let query = Query {
        now_ms: arrived_ms,
        seed: 5,
        request,
        attempts: Vec::new(),
        waits: 0,
        waited_ms: 0,
        rows: (0..rows).map(|_| BackendRow::new(RowState::Ready)).collect(),
    };
    let question = Question {
        query,
        decision: Decision::Primary(Dispatch::default()),
        notes: vec!["a note".to_owned()],
        fault: None,
        state: Vec::new(),
        took: Duration::from_micros(1),
    };
    trail.asked(arrived, question);
    Box::new(trail)
}

fn record(store: &Store, id: &str, started_ms: u64, setup: &Arc<str>) {
    let part = JournalPart { trail: trail(started_ms, 2), setup: setup.clone(), sampled: true, bodies: None };
    store.handle().record(exchange(id, started_ms), Some(Box::new(part)));
}

fn ids(store: &Store, since_ms: u64, until_ms: u64) -> (Vec<String>, Skipped) {
    let mut ids = Vec::new();
    let times = [since_ms, until_ms].map(Timestamp::from_millis);
    let skipped = store.reader().journal(times[0], times[1], |journaled| {
        ids.push(journaled.exchange.id);
        ControlFlow::Continue(())
    });
    (ids, skipped.unwrap())
}

#[test]
fn a_trail_is_read_as_it_was_recorded_with_its_exchange_and_setup() {
    let store = memory();
    let (one, other) = (json("{}"), json("{\"a\":1}"));
    record(&store, "r1", T0_MS, &one);
    record(&store, "r2", T0_MS + 1, &other);
    store.handle().record(exchange("bare", T0_MS + 2), None);
    store.handle().flush_blocking().unwrap();

    let found = store.reader().journaled("r2").unwrap().unwrap();
    assert_eq!((found.exchange.id.as_str(), found.exchange.attempts.len(), found.sampled), ("r2", 1, true));
    assert_eq!(*found.setup, setup("{\"a\":1}"));
    assert_eq!(found.trail.steps, trail(T0_MS + 1, 2).steps);
    assert_eq!(found.trail.arrived, Timestamp::from_millis(T0_MS + 1));
    assert!(
        store.reader().journaled("bare").unwrap().is_none(),
        "an exchange without a trail is none of the journal's"
    );
    assert!(store.reader().journaled("nobody").unwrap().is_none());
}

#[test]
fn the_journal_says_from_when_to_when_it_has_something() {
    let store = memory();
    assert_eq!(store.reader().journal_span().unwrap(), None);
    let setup = json("{}");
    for n in 0..3 {
        record(&store, &format!("r{n}"), T0_MS + n * 1_000, &setup);
    }
    store.handle().flush_blocking().unwrap();
    let (first, last) = store.reader().journal_span().unwrap().unwrap();
    assert_eq!(last.since(first), Duration::from_secs(2));
    assert_eq!(store.reader().journal_size(first, last + Duration::from_micros(1)).unwrap(), 3);
}

#[test]
fn a_time_of_the_journal_is_read_in_order_and_what_is_damaged_is_counted() {
    let store = memory();
    let setup = json("{}");
    for n in 0..6 {
        record(&store, &format!("r{n}"), T0_MS + n * 1_000, &setup);
    }
    store.handle().flush_blocking().unwrap();
    assert_eq!(ids(&store, T0_MS + 1_000, T0_MS + 4_000).0, ["r1", "r2", "r3"]);
    let until = Timestamp::from_millis(T0_MS + 60_000);
    assert_eq!(store.reader().journal_size(Timestamp::from_millis(T0_MS), until).unwrap(), 6);
    let mut first = None;
    let stopped = store.reader().journal(Timestamp::default(), until, |journaled| {
        first.get_or_insert(journaled.exchange.id);
        ControlFlow::Break(())
    });
    assert_eq!((first.as_deref(), stopped.unwrap()), (Some("r0"), Skipped::default()));

    let writing = store.policies();
    let sql = "UPDATE trail SET trail = x'63' WHERE ended_us = (SELECT ended_us FROM exchange WHERE id = 'r2')";
    writing.connection().unwrap().execute(sql, []).unwrap();
    let (rest, skipped) = ids(&store, 0, T0_MS + 60_000);
    assert_eq!(rest, ["r0", "r1", "r3", "r4", "r5"]);
    assert_eq!(skipped.trails, 1);
    assert!(skipped.why.unwrap().contains("newer"), "version 0x63 is of tomorrow");
    let refused = store.reader().journaled("r2").unwrap_err().to_string();
    assert!(refused.contains("r2") && refused.contains("newer"), "{refused}");
}

#[test]
fn trails_leave_by_age_and_their_exchanges_stay() {
    let store_limits =
        StoreLimits { journal: JournalLimits { retention_days: Some(2), ..JournalLimits::default() }, ..unlimited() };
    // However the records fall into batches: half a day before r8 is too old.
    let store = Store::open(StorePath::Memory, store_limits, hurried(T0_MS + 10 * DAY_MS - DAY_MS / 2)).unwrap();
    let (old, new) = (json("{\"old\":1}"), json("{}"));
    for day in 0..10 {
        record(&store, &format!("r{day}"), T0_MS + day * DAY_MS + 1_000, if day < 5 { &old } else { &new });
    }
    store.handle().flush_blocking().unwrap();
    assert_eq!(ids(&store, 0, u64::MAX / 1_000).0, ["r8", "r9"]);
    assert_eq!(count(&store), 10);
    let connection = store.reader();
    let setups: i64 = connection.connection().query_row("SELECT count(*) FROM setup", [], |row| row.get(0)).unwrap();
    assert_eq!(setups, 1, "a setup goes with the last trail under it");
}

#[test]
fn trails_leave_by_size() {
    let most = 5_000 * encoded_bytes();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let store = on_disk(&file).unwrap();
    let setup = json("{}");
    for n in 0..9_000 {
        record(&store, &format!("r{n}"), T0_MS + n, &setup);
    }
    store.close().unwrap();
    let journal = JournalLimits { max_bytes: Some(most), retention_days: None, ..JournalLimits::default() };
    let store = Store::open(StorePath::File(file), StoreLimits { journal, ..unlimited() }, fixed(T0_MS)).unwrap();
    // A flush waits for one step of the deletion.
    for _ in 0..3 {
        store.handle().flush_blocking().unwrap();
    }
    let reader = store.reader();
    let number = |sql: &str| reader.connection().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let (left, total) = (number("SELECT sum(length(trail)) FROM trail"), number("SELECT bytes FROM trail_total"));
    assert_eq!(left, total, "the sum that is kept is the sum");
    assert!((left as u64) <= most && left > 0, "{left} of {most}");
    assert_eq!(count(&store), 9_000);
}

fn encoded_bytes() -> u64 {
    pointsman_core::journal::encode(&trail(T0_MS, 2)).len() as u64
}

#[test]
fn a_backlog_without_room_for_trails_keeps_the_exchanges() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let journal = JournalLimits { backlog_bytes: 3 * trail(T0_MS, 2).bytes(), ..JournalLimits::default() };
    let store =
        Store::open(StorePath::File(file.clone()), StoreLimits { journal, ..unlimited() }, fixed(T0_MS)).unwrap();
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let setup = json("{}");
    for n in 0..10 {
        record(&store, &format!("r{n}"), T0_MS + n, &setup);
    }
    assert!(store.handle().flush_blocking().is_err(), "another program holds the lock");
    let stats = store.handle().stats();
    assert_eq!((stats.backlog, stats.dropped, stats.trails_dropped), (10, 0, 7));
    other.execute_batch("ROLLBACK").unwrap();
    store.handle().flush_blocking().unwrap();
    assert_eq!((count(&store), ids(&store, 0, u64::MAX / 1_000).0.len()), (10, 3));
    for n in 10..13 {
        record(&store, &format!("r{n}"), T0_MS + n, &setup);
    }
    store.handle().flush_blocking().unwrap();
    assert_eq!(store.handle().stats().trails_dropped, 7, "what is written takes no room any more");
}

#[test]
fn a_store_is_opened_beside_its_server_to_be_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let missing = StoreReader::open(&file).unwrap_err();
    assert!(matches!(missing, StoreError::Open { .. }), "{missing}");
    assert!(!file.exists(), "reading makes no file");
    let store = on_disk(&file).unwrap();
    record(&store, "r1", T0_MS, &json("{}"));
    store.handle().flush_blocking().unwrap();
    let beside = StoreReader::open(&file).unwrap();
    assert_eq!(beside.journaled("r1").unwrap().unwrap().exchange.id, "r1");
    drop(beside);
    store.close().unwrap();
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let old = StoreReader::open(&file).unwrap_err();
    assert!(old.to_string().contains("without a journal"), "{old}");
}
