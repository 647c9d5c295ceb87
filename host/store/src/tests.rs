use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use pointsman_core::contract::Operation;
use pointsman_core::denial::Denial;
use pointsman_core::outcome::Kind;
use pointsman_core::record::{AttemptRecord, End, ExchangeRecord, Usage};
use pointsman_core::table::Lane;
use rusqlite::Connection;

use super::*;

pub(super) const DAY_MS: u64 = 86_400_000;
/// 2026-01-15T10:30:00Z
pub(super) const T0_MS: u64 = 1_768_473_000_000;

pub(super) fn fixed(ms: u64) -> Clock {
    Arc::new(move || Timestamp::from_millis(ms))
}

/// A minute later at each look, so that what is due every minute is due after every batch.
pub(super) fn hurried(ms: u64) -> Clock {
    let looks = AtomicU64::new(0);
    Arc::new(move || Timestamp::from_millis(ms + 60_000 * looks.fetch_add(1, Ordering::Relaxed)))
}

pub(super) fn unlimited() -> StoreLimits {
    StoreLimits {
        backlog: 1_000_000,
        backlog_bytes: usize::MAX,
        retention_days: None,
        max_bytes: None,
        journal: JournalLimits::default(),
    }
}

pub(super) fn memory() -> Store {
    Store::open(StorePath::Memory, unlimited(), fixed(T0_MS)).unwrap()
}

pub(super) fn on_disk(file: &Path) -> Result<Store, StoreError> {
    Store::open(StorePath::File(file.to_owned()), unlimited(), fixed(T0_MS))
}

fn attempt(backend: &str, lane: Lane, outcome: Kind) -> AttemptRecord {
    AttemptRecord {
        backend: backend.into(),
        lane,
        model_sent: "meta/llama".to_owned(),
        started: Timestamp::from_millis(T0_MS + 1),
        elapsed: Duration::from_millis(40),
        first_byte: Some(Duration::from_millis(20)),
        first_token: None,
        scope: outcome.usual_scope(),
        outcome,
        status: 200,
        retry_after: None,
        message: String::new(),
        upstream_id: Some("req_of_the_provider".into()),
        usage: Usage { input_tokens: 100, output_tokens: 10, cached_input_tokens: 5, ..Usage::default() },
        cost_usd: 0.25,
    }
}

fn failed(backend: &str, lane: Lane) -> AttemptRecord {
    AttemptRecord {
        status: 429,
        retry_after: Some(Duration::from_millis(2_000)),
        message: "slow down".to_owned(),
        upstream_id: None,
        usage: Usage::default(),
        cost_usd: 0.0,
        ..attempt(backend, lane, Kind::RateLimited)
    }
}

pub(super) fn exchange(id: &str, started_ms: u64) -> Box<ExchangeRecord> {
    Box::new(ExchangeRecord {
        id: id.to_owned(),
        started: Timestamp::from_millis(started_ms),
        elapsed: Duration::from_micros(50_600),
        client: Some("agent-1".into()),
        session: None,
        operation: Operation::Chat,
        path: "/v1/chat/completions".to_owned(),
        model: "llama".to_owned(),
        streaming: true,
        status: 200,
        end: End::Delivered,
        lane: Some(Lane::Primary),
        backend: Some("p1".into()),
        waits: 1,
        waited: Duration::from_millis(7),
        first_byte: Some(Duration::from_millis(21)),
        policy: "abc123".into(),
        policy_faults: 0,
        attempts: vec![attempt("p1", Lane::Primary, Kind::Answered)],
        notes: Vec::new(),
        error: None,
        denied: None,
        saved_usd: None,
    })
}

pub(super) fn count(store: &Store) -> i64 {
    store.reader().connection().query_row("SELECT count(*) FROM exchanges", [], |row| row.get(0)).unwrap()
}

#[test]
fn an_exchange_is_read_as_it_was_recorded() {
    let store = memory();
    let mut record = exchange("req-1", T0_MS);
    record.attempts.insert(0, failed("p0", Lane::Primary));
    record.notes = vec!["first".to_owned(), "second \"quoted\"".to_owned()];
    record.error = Some("no".to_owned());
    store.handle().record(record, None);
    store.handle().flush_blocking().unwrap();

    let row = store.reader().exchange("req-1").unwrap().unwrap();
    assert_eq!(row.started, "2026-01-15T10:30:00.000Z");
    assert_eq!((row.elapsed_ms, row.first_byte_ms, row.waited_ms, row.waits), (51, Some(21), 7, 1));
    assert_eq!(
        (row.client.as_deref(), row.lane.as_deref(), row.end.as_str()),
        (Some("agent-1"), Some("primary"), "delivered")
    );
    assert_eq!((row.input_tokens, row.output_tokens, row.cached_input_tokens, row.cost_usd), (100, 10, 5, 0.25));
    assert_eq!((row.policy.as_str(), row.operation.as_str(), row.streaming), ("abc123", "chat", true));
    assert_eq!(row.notes, ["first", "second \"quoted\""]);
    assert_eq!(row.error.as_deref(), Some("no"));
    let [first, second] = &row.attempts[..] else { panic!("{row:?}") };
    assert_eq!((first.number, first.backend.as_str(), first.status), (1, "p0", 429));
    assert_eq!((first.retry_after_ms, first.message.as_deref()), (Some(2_000), Some("slow down")));
    assert_eq!((first.input_tokens, first.cost_usd), (0, 0.0));
    assert_eq!((second.number, second.backend.as_str(), second.outcome.as_str()), (2, "p1", "answered"));
    assert_eq!((second.model_sent.as_str(), second.status, second.input_tokens), ("meta/llama", 200, 100));
    assert_eq!(second.started, "2026-01-15T10:30:00.001Z");
    assert_eq!((first.upstream_id.as_deref(), second.upstream_id.as_deref()), (None, Some("req_of_the_provider")));
    assert_eq!((first.scope.as_deref(), second.scope.as_deref()), (Some("model"), None));
}

#[test]
fn the_last_attempt_keeps_its_own_values_where_they_differ_from_the_exchange() {
    let store = memory();
    let mut record = exchange("gone", T0_MS);
    record.status = 503;
    (record.end, record.lane, record.backend) = (End::Rejected, None, None);
    record.model = "meta/llama".to_owned();
    record.attempts = vec![attempt("p1", Lane::Primary, Kind::Cut), failed("f1", Lane::Fallback)];
    store.handle().record(record, None);
    store.handle().flush_blocking().unwrap();
    let row = store.reader().exchange("gone").unwrap().unwrap();
    assert_eq!(row.attempts[0].upstream_id.as_deref(), Some("req_of_the_provider"));
    let last = &row.attempts[1];
    assert_eq!((last.backend.as_str(), last.lane.as_str(), last.status), ("f1", "fallback", 429));
    assert_eq!(last.scope.as_deref(), Some("model"));
    assert_eq!((last.input_tokens, last.cost_usd, last.model_sent.as_str()), (0, 0.0, "meta/llama"));
    assert_eq!((row.backend, row.lane, row.cost_usd), (None, None, 0.25));
}

#[test]
fn an_exchange_without_attempts_has_none() {
    let store = memory();
    let mut record = exchange("none", T0_MS);
    record.attempts.clear();
    store.handle().record(record, None);
    store.handle().flush_blocking().unwrap();
    assert!(store.reader().exchange("none").unwrap().unwrap().attempts.is_empty());
    assert!(store.reader().exchange("unknown").unwrap().is_none());
}

#[test]
fn a_flushed_batch_is_seen_by_another_program_while_the_store_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let store = on_disk(&file).unwrap();
    for i in 0..3 {
        store.handle().record(exchange(&format!("r{i}"), T0_MS), None);
    }
    store.handle().flush_blocking().unwrap();
    let other = Connection::open(&file).unwrap();
    let seen: Vec<String> = other
        .prepare("SELECT id FROM exchanges ORDER BY ended_us")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(seen, ["r0", "r1", "r2"], "and exchanges of one microsecond do not push each other out");
}

/// Tells the child of the test below where its store is.
const KILLED_STORE: &str = "POINTSMAN_TEST_KILLED_STORE";

#[test]
fn a_killed_process_loses_nothing_of_the_batches_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::the_process_that_is_killed", "--nocapture"])
        .env(KILLED_STORE, &file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).find(|l| l.contains("written"));
    assert!(told.is_some(), "the child ended before it wrote");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(count(&on_disk(&file).unwrap()), 100);
}

/// Helper process of the test above: writes without a flush, says so and waits to be killed. Does nothing when run as a
/// test.
#[test]
fn the_process_that_is_killed() {
    let Some(file) = std::env::var_os(KILLED_STORE) else {
        return;
    };
    let store = on_disk(Path::new(&file)).unwrap();
    for i in 0..100 {
        store.handle().record(exchange(&format!("r{i}"), T0_MS + i), None);
    }
    while store.handle().stats().backlog > 0 {
        std::thread::yield_now();
    }
    println!("written");
    // Ends by itself when the parent is gone.
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn rows_are_written_without_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_disk(&folder.path().join("s.db")).unwrap();
    store.handle().record(exchange("r", T0_MS), None);
    while store.handle().stats().backlog > 0 {
        std::thread::yield_now();
    }
    assert_eq!(count(&store), 1);
}

#[test]
fn closing_writes_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let store = on_disk(&file).unwrap();
    let handle = store.handle();
    for i in 0..5_000 {
        handle.record(exchange(&format!("r{i}"), T0_MS + i), None);
    }
    store.close().unwrap();
    assert_eq!(count(&on_disk(&file).unwrap()), 5_000);
    handle.record(exchange("late", T0_MS), None);
    assert_eq!(handle.stats().dropped, 1, "a closed store counts what it is still given");
    assert!(matches!(handle.flush_blocking(), Err(StoreError::Closed)));
}

#[test]
fn a_full_backlog_drops_and_counts_and_a_locked_file_loses_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let limits = StoreLimits { backlog: 10, ..unlimited() };
    let store = Store::open(StorePath::File(file.clone()), limits, fixed(T0_MS)).unwrap();
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for i in 0..13 {
        store.handle().record(exchange(&format!("r{i}"), T0_MS + i), None);
    }
    let refused = store.handle().flush_blocking();
    assert!(matches!(&refused, Err(StoreError::Unwritten { rows: 10, .. })), "{refused:?}");
    assert_eq!(store.handle().stats().dropped, 3);
    assert_eq!(store.handle().stats().backlog, 10, "what the writer holds counts towards the bound");
    other.execute_batch("ROLLBACK").unwrap();
    store.handle().flush_blocking().unwrap();
    let stats = store.handle().stats();
    assert_eq!((stats.written, stats.dropped, stats.backlog), (10, 3, 0));
    assert!(stats.failed_batches >= 1);
    assert_eq!(count(&store), 10);
}

#[test]
fn a_full_disk_loses_only_what_the_backlog_cannot_hold() {
    let store = memory();
    store.reader().connection().pragma_update(None, "max_page_count", 1).unwrap();
    // A page count that is already exceeded is set to what is there: the next page is refused.
    for i in 0..100 {
        store.handle().record(exchange(&format!("r{i}"), T0_MS + i), None);
    }
    let refused = store.handle().flush_blocking();
    assert!(
        matches!(&refused, Err(StoreError::Unwritten { rows: 100, reason }) if reason.contains("full")),
        "{refused:?}"
    );
    store.reader().connection().pragma_update(None, "max_page_count", 1_000_000).unwrap();
    store.handle().flush_blocking().unwrap();
    assert_eq!((count(&store), store.handle().stats().dropped), (100, 0));
}

pub(super) fn policies(hashes: &[&str]) -> PolicyRows {
    let row = |hash: &&str| PolicyRow {
        sha256: (*hash).to_owned(),
        bytes: 3,
        origin: "upload".to_owned(),
        file: None,
        name: Some("mine".to_owned()),
        settings: Some(r#"{"a":1}"#.to_owned()),
        taken_ms: T0_MS,
        ended_ms: (hash != hashes.last().unwrap()).then_some(T0_MS + 1),
        end: (hash != hashes.last().unwrap()).then(|| "replaced".to_owned()),
        why: None,
        decisions: 7,
        faults: 1,
    };
    let source = PolicySourceRow { file: Some("mine.wasm".to_owned()), sha256: "zero".to_owned() };
    PolicyRows { revisions: hashes.iter().map(row).collect(), source: Some(source) }
}

#[test]
fn policies_are_kept_with_their_components_and_forgotten_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let store = on_disk(&file).unwrap();
    assert_eq!(store.policies().load().unwrap(), PolicyRows::default());
    for hashes in [&["one"][..], &["one", "two"], &["two", "three"]] {
        let newest = hashes.last().unwrap();
        store.policies().save(&policies(hashes), &[(newest.to_string(), newest)]).unwrap();
    }
    store.policies().save(&policies(&["three", "two"]), &[] as &[(String, &[u8])]).unwrap();
    store.close().unwrap();
    let store = on_disk(&file).unwrap();
    assert_eq!(store.policies().load().unwrap(), policies(&["three", "two"]));
    let component = |hash: &str| store.policies().component(hash).unwrap();
    assert_eq!((component("one"), component("two")), (None, Some(b"two".to_vec())));
    let by_its_beginning = |revision: &str| store.reader().policy_component(revision).unwrap();
    assert_eq!((by_its_beginning("tw"), by_its_beginning("wo")), (Some(b"two".to_vec()), None));
    let synchronous: i64 =
        store.policies().connection().unwrap().pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
    assert_eq!(synchronous, 1, "exchanges are written as before");
}

/// The file of an earlier Pointsman with this schema and one exchange in it, whose cost is -0.0 as it was written then.
fn of_schema(version: usize, file: &Path) {
    let old = schema::open_earlier(file, version).unwrap();
    old.execute_batch(
        "INSERT INTO exchange (ended_us, id, started_ms, elapsed_ms, operation, path, model, streaming, status, end, attempts,
            waits, waited_ms, policy, policy_faults, input_tokens, output_tokens, cached_input_tokens, estimated, cost_usd, error,
            last_started_ms, last_elapsed_ms, last_outcome, last_backend, last_lane)
         VALUES (1768473000050600, 'old', 1768473000000, 51, 'chat', '/v1/chat/completions', 'm', 0, 503, 'rejected', 1,
            0, 0, 'abc', 0, 0, 0, 0, 0, -0.0, 'no', 1768473000000, 51, 'server_error', 'p1', 'primary')",
    )
    .unwrap();
}

#[test]
fn stores_of_every_earlier_schema_are_brought_up_to_date() {
    for version in 1..schema::LATEST {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.db");
        of_schema(version, &file);
        let store = on_disk(&file).unwrap();
        let mut denied = exchange("denied", T0_MS);
        (denied.end, denied.denied) = (End::Denied, Some(Denial::WrongKey));
        store.handle().record(denied, None);
        store.handle().flush_blocking().unwrap();
        assert_eq!(count(&store), 2, "schema {version}");
        let row = |id: &str| store.reader().exchange(id).unwrap().unwrap();
        let old = row("old");
        assert_eq!((old.end.as_str(), old.denied, old.saved_usd), ("rejected", None, None));
        assert!(old.cost_usd.is_sign_positive());
        assert_eq!(row("denied").denied.as_deref(), Some("wrong_key"));
        store.policies().save(&policies(&["one"]), &[("one".to_owned(), b"one")]).unwrap();
    }
}

#[test]
fn a_store_of_an_earlier_schema_is_read_as_it_is() {
    for version in 3..schema::LATEST {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.db");
        of_schema(version, &file);
        let reader = StoreReader::open(&file).unwrap();
        let old = reader.exchange("old").unwrap().unwrap();
        assert_eq!((old.status, old.denied, old.saved_usd), (503, None, None), "schema {version}");
        assert_eq!(old.attempts.iter().map(|a| a.upstream_id.clone()).collect::<Vec<_>>(), [None]);
        assert_eq!(old.attempts[0].scope, None);
        assert_eq!(reader.latest_explainable().unwrap(), None);
        assert_eq!(reader.exchanges(&Filter::default(), 9).unwrap().len(), 1);
        drop(reader);
        let found: i64 =
            schema::open_reader(&file).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(found, version as i64, "nothing was changed");
    }
}

#[test]
fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    on_disk(&file).unwrap().close().unwrap();
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = on_disk(&file).unwrap_err();
    let latest = schema::LATEST as i64;
    assert!(matches!(refused, StoreError::Newer { found: 99, known, .. } if known == latest), "{refused}");
    assert!(refused.to_string().contains("use the newer version"));
}

#[test]
fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.db");
    std::fs::write(&text, "This is a shopping list, not a database. ".repeat(100)).unwrap();
    let refused = on_disk(&text).unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert!(std::fs::read_to_string(&text).unwrap().starts_with("This is a shopping list"));

    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    assert!(matches!(on_disk(&foreign), Err(StoreError::Foreign { .. })));

    let nowhere = on_disk(&folder.path().join("missing/s.db")).unwrap_err();
    assert!(matches!(nowhere, StoreError::Open { .. }), "{nowhere}");
}

#[test]
fn a_truncated_file_is_damaged_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let store = on_disk(&file).unwrap();
    for i in 0..500 {
        store.handle().record(exchange(&format!("r{i}"), T0_MS + i), None);
    }
    store.close().unwrap();
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let refused = on_disk(&file).unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), whole.len() as u64 / 2);
}

#[test]
fn homes_of_things_outlive_a_restart_until_they_are_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let row = |key, backend: &str, until_ms| HomeRow { key, backend: backend.to_owned(), until_ms };
    let store = on_disk(&file).unwrap();
    store.handle().save_homes([row(1, "a", T0_MS + 10), row(u64::MAX, "a", T0_MS + 20), row(3, "a", T0_MS)]);
    store.handle().save_homes([row(1, "b", T0_MS + 30)]);
    store.close().unwrap();
    let store = on_disk(&file).unwrap();
    assert_eq!(store.load_homes(T0_MS).unwrap(), [row(1, "b", T0_MS + 30), row(u64::MAX, "a", T0_MS + 20)]);
    assert_eq!(store.load_homes(T0_MS + 20).unwrap(), [row(1, "b", T0_MS + 30)]);
}

#[test]
fn cooldowns_outlive_a_restart_until_they_are_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    let row = |backend: &str, model: Option<&str>, until_ms| CooldownRow {
        backend: backend.to_owned(),
        model: model.map(str::to_owned),
        until_ms,
        reason: "rate_limited".to_owned(),
        failures: 3,
    };
    let store = on_disk(&file).unwrap();
    store.handle().save_cooldowns(vec![row("old", None, T0_MS + 9)]);
    let kept = vec![row("p1", None, T0_MS + 5_000), row("p1", Some("llama"), T0_MS + 7_000)];
    store.handle().save_cooldowns([kept.clone(), vec![row("p2", None, T0_MS)]].concat());
    store.close().unwrap();
    assert_eq!(on_disk(&file).unwrap().load_cooldowns(T0_MS).unwrap(), kept);
}

#[test]
fn usage_sums_by_group() {
    let store = memory();
    let handle = store.handle();
    handle.record(exchange("a", T0_MS), None);
    let mut b = exchange("b", T0_MS + 3_600_000);
    b.client = None;
    b.model = "other".to_owned();
    b.attempts.insert(0, attempt("p0", Lane::Primary, Kind::Cut));
    (b.lane, b.backend) = (Some(Lane::Fallback), Some("f1".into()));
    b.attempts[1] = attempt("f1", Lane::Fallback, Kind::Answered);
    handle.record(b, None);
    let mut c = exchange("c", T0_MS + DAY_MS);
    (c.lane, c.backend, c.end, c.status) = (None, None, End::Rejected, 503);
    c.attempts.clear();
    handle.record(c, None);
    handle.flush_blocking().unwrap();

    let start = Timestamp::from_millis(T0_MS);
    let keys = |group| -> Vec<(Option<String>, u64, u64, u64, f64)> {
        let rows = store.reader().usage(start, group).unwrap();
        rows.into_iter().map(|r| (r.key, r.requests, r.failures, r.attempts, r.cost_usd)).collect()
    };
    let some = |s: &str| Some(s.to_owned());
    assert_eq!(keys(Group::Client), [(None, 1, 0, 2, 0.5), (some("agent-1"), 2, 1, 1, 0.25)]);
    assert_eq!(keys(Group::Model), [(some("llama"), 2, 1, 1, 0.25), (some("other"), 1, 0, 2, 0.5)]);
    assert_eq!(
        keys(Group::Backend),
        [(None, 1, 1, 0, 0.0), (some("f1"), 1, 0, 1, 0.25), (some("p0"), 0, 0, 1, 0.25), (some("p1"), 1, 0, 1, 0.25)],
        "each attempt's cost goes to its own backend"
    );
    assert_eq!(
        keys(Group::Lane),
        [(None, 1, 1, 0, 0.0), (some("fallback"), 1, 0, 1, 0.25), (some("primary"), 1, 0, 2, 0.5)]
    );
    assert_eq!(keys(Group::Day), [(some("2026-01-15"), 2, 0, 3, 0.75), (some("2026-01-16"), 1, 1, 0, 0.0)]);
    assert_eq!(keys(Group::Hour)[1], (some("2026-01-15T11:00:00Z"), 1, 0, 2, 0.5));
    let waits: u64 = store.reader().usage(start, Group::Lane).unwrap().iter().map(|r| r.waited_ms).sum();
    assert_eq!(waits, 21);

    assert_eq!(store.reader().usage(Timestamp::from_millis(T0_MS + DAY_MS), Group::Day).unwrap().len(), 1);
    assert_eq!(store.reader().spend_since("agent-1", start).unwrap(), 0.25);
    assert_eq!(store.reader().spend_since("nobody", start).unwrap(), 0.0);
}

#[test]
fn exchanges_are_filtered_and_come_newest_first() {
    let store = memory();
    for i in 0..10u64 {
        let mut record = exchange(&format!("r{i}"), T0_MS + i);
        if i % 2 == 0 {
            record.status = 429;
            record.client = None;
            record.attempts.insert(0, failed("p0", Lane::Primary));
        }
        store.handle().record(record, None);
    }
    store.handle().flush_blocking().unwrap();
    let ids = |filter: Filter, limit| -> Vec<String> {
        store.reader().exchanges(&filter, limit).unwrap().into_iter().map(|row| row.id).collect()
    };
    assert_eq!(ids(Filter::default(), 2), ["r9", "r8"]);
    assert_eq!(ids(Filter { status: Some(400..=499), ..Filter::default() }, 2), ["r8", "r6"]);
    assert_eq!(ids(Filter { backend: Some("p0".to_owned()), ..Filter::default() }, 9).len(), 5);
    assert_eq!(ids(Filter { client: Some("agent-1".to_owned()), ..Filter::default() }, 1), ["r9"]);
}

#[test]
fn a_page_has_a_bound_in_bytes_and_says_where_the_next_one_begins() {
    let store = memory();
    for i in 0..50u64 {
        let mut record = exchange(&format!("r{i}"), T0_MS + i);
        record.notes = vec!["n".repeat(900); 10];
        store.handle().record(record, None);
    }
    store.handle().flush_blocking().unwrap();
    // As a store of an earlier version may have it.
    store.reader().connection().execute("UPDATE exchange SET model = printf('%.*c', 3000000, 'x')", []).unwrap();
    let mut ids = Vec::new();
    let mut filter = Filter { client: Some("agent-1".to_owned()), ..Filter::default() };
    loop {
        let page = store.reader().page(&filter, 20, 100_000).unwrap();
        let bytes = serde_json::to_vec(&page.exchanges).unwrap().len();
        assert!(bytes <= 100_000 && page.exchanges.iter().all(|row| row.model == "x".repeat(256)), "{bytes}");
        assert!((1..=10).contains(&page.exchanges.len()));
        ids.extend(page.exchanges.into_iter().map(|row| row.id));
        filter.before = page.next;
        if filter.before.is_none() {
            break;
        }
    }
    let all: Vec<String> = (0..50).rev().map(|i| format!("r{i}")).collect();
    assert_eq!(ids, all, "none is lost and none comes twice");
    let tiny = store.reader().page(&Filter::default(), 20, 1).unwrap();
    assert_eq!((tiny.exchanges.len(), tiny.next.is_some()), (1, true), "one that is larger stands alone");
}

#[test]
fn a_backlog_is_bounded_in_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.db");
    let size = exchange("r0", T0_MS).bytes();
    let limits = StoreLimits { backlog_bytes: 10 * size, ..unlimited() };
    let store = Store::open(StorePath::File(file.clone()), limits, fixed(T0_MS)).unwrap();
    let locked = Connection::open(&file).unwrap();
    locked.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for i in 0..13 {
        store.handle().record(exchange(&format!("r{}", i % 10), T0_MS + i), None);
    }
    assert_eq!((store.handle().stats().backlog, store.handle().stats().dropped), (10, 3));
    locked.execute_batch("ROLLBACK").unwrap();
    store.handle().flush_blocking().unwrap();
    store.handle().record(exchange("r0", T0_MS + 20), None);
    store.handle().flush_blocking().unwrap();
    assert_eq!((store.handle().stats().written, store.handle().stats().dropped), (11, 3), "what is written makes room");
}

#[test]
fn refusals_at_the_door_are_counted_apart_and_can_be_asked_for() {
    let store = memory();
    for (id, denial, client) in
        [("d1", Denial::WrongKey, None), ("d2", Denial::ClientRate, Some("agent-1")), ("d3", Denial::ClientRate, None)]
    {
        let mut record = exchange(id, T0_MS);
        (record.end, record.denied, record.client) = (End::Denied, Some(denial), client.map(Into::into));
        (record.lane, record.backend, record.waits) = (None, None, 0);
        record.attempts.clear();
        store.handle().record(record, None);
    }
    store.handle().record(exchange("a", T0_MS), None);
    store.handle().flush_blocking().unwrap();
    let reader = store.reader();
    let rows = reader.usage(Timestamp::from_millis(T0_MS), Group::Client).unwrap();
    let counts: Vec<_> = rows.iter().map(|row| (row.key.as_deref(), row.requests, row.failures, row.denied)).collect();
    assert_eq!(counts, [(None, 0, 0, 2), (Some("agent-1"), 1, 0, 1)]);
    let by_lane = reader.usage(Timestamp::from_millis(T0_MS), Group::Lane).unwrap();
    assert_eq!(by_lane.iter().map(|row| (row.requests, row.denied)).collect::<Vec<_>>(), [(0, 3), (1, 0)]);
    let ids = |ends: &[End]| -> Vec<String> {
        let filter = Filter { ends: ends.to_vec(), ..Filter::default() };
        reader.exchanges(&filter, 9).unwrap().into_iter().map(|row| row.id).collect()
    };
    assert_eq!(ids(&[End::Denied]), ["d3", "d2", "d1"]);
    assert_eq!(ids(&[End::Delivered, End::Broken]), ["a"]);
    assert_eq!(reader.latest_explainable().unwrap().as_deref(), Some("d3"));
}

#[test]
fn what_was_saved_is_summed_and_the_unknown_is_not_nothing() {
    let store = memory();
    let record = |id: &str, model: &str, waits: u32, saved_usd: Option<f64>| {
        let mut record = exchange(id, T0_MS);
        (record.model, record.waits, record.saved_usd) = (model.to_owned(), waits, saved_usd);
        store.handle().record(record, None);
    };
    record("a", "known", 1, Some(0.5));
    record("b", "known", 2, Some(0.25));
    record("c", "known", 0, Some(2.0));
    record("d", "unknown", 1, None);
    record("e", "without", 0, Some(0.0));
    store.handle().flush_blocking().unwrap();
    let rows = store.reader().usage(Timestamp::from_millis(T0_MS), Group::Model).unwrap();
    let saved: Vec<_> = rows
        .iter()
        .map(|row| (row.key.as_deref().unwrap(), row.saved_by_waiting_usd, row.saved_without_waiting_usd))
        .collect();
    assert_eq!(
        saved,
        [("known", Some(0.75), Some(2.0)), ("unknown", None, Some(0.0)), ("without", Some(0.0), Some(0.0))]
    );
    let total =
        |rows: &[UsageRow]| rows.iter().fold(UsageRow::nothing(), |sum, row| sum.plus(row)).saved_by_waiting_usd;
    assert_eq!((total(&rows), total(&rows[1..]), total(&rows[2..])), (Some(0.75), None, Some(0.0)));
    let lanes = store.reader().usage(Timestamp::from_millis(T0_MS), Group::Lane).unwrap();
    assert_eq!((lanes[0].saved_by_waiting_usd, lanes[0].requests, lanes[0].attempts), (Some(0.75), 5, 5));
    assert_eq!(store.reader().exchange("b").unwrap().unwrap().saved_usd, Some(0.25));
}

#[test]
fn refusals_of_strangers_make_room_for_each_other_and_not_for_what_was_answered() {
    let store = memory();
    for i in 0..10_500 {
        let mut record = exchange(&format!("d{i}"), T0_MS + i);
        (record.end, record.denied, record.client) = (End::Denied, Some(Denial::WrongKey), None);
        record.attempts.clear();
        store.handle().record(record, None);
    }
    store.handle().record(exchange("first", T0_MS - 1), None);
    let mut of_client = exchange("of a client", T0_MS - 1);
    of_client.denied = Some(Denial::ClientRate);
    store.handle().record(of_client, None);
    store.handle().flush_blocking().unwrap();
    let reader = store.reader();
    retention::step(&mut reader.connection(), &unlimited(), Timestamp::from_millis(T0_MS)).unwrap();
    assert_eq!(count(&store), 10_000 + 2);
    for (id, is_there) in [("d499", false), ("d500", true), ("first", true), ("of a client", true)] {
        assert_eq!(reader.exchange(id).unwrap().is_some(), is_there, "{id}");
    }
    let sql = "EXPLAIN QUERY PLAN SELECT count(*) FROM exchange WHERE denied IS NOT NULL AND (client IS NULL) = ?1";
    let plan: String = reader.connection().query_row(sql, [true], |row| row.get(3)).unwrap();
    assert!(plan.contains("exchange_denied"), "{plan}");
}

/// A store whose limits were looked at with `rows` exchanges in it, one a millisecond from [`T0_MS`] on.
fn tended(limits: StoreLimits, rows: u64, now_ms: u64) -> Store {
    let now = Arc::new(AtomicU64::new(T0_MS));
    let clock: Clock = {
        let now = Arc::clone(&now);
        Arc::new(move || Timestamp::from_millis(now.load(Ordering::Relaxed)))
    };
    let store = Store::open(StorePath::Memory, limits, clock).unwrap();
    for i in 0..rows {
        store.handle().record(exchange(&format!("r{i}"), T0_MS + i), None);
    }
    store.handle().flush_blocking().unwrap();
    now.store(now_ms, Ordering::Relaxed);
    // Every answered flush is one step of the limits' work.
    for _ in 0..10 {
        store.handle().flush_blocking().unwrap();
    }
    store
}

#[test]
fn exchanges_older_than_the_retention_are_deleted_with_their_attempts() {
    let limits = StoreLimits { retention_days: Some(2), ..unlimited() };
    // The exchange that began at 9,990 ms ended 50.6 ms later.
    let store = tended(limits, 10_000, T0_MS + 2 * DAY_MS + 9_990 + 50);
    assert_eq!(count(&store), 10);
    let attempts: i64 =
        store.reader().connection().query_row("SELECT count(*) FROM attempts", [], |r| r.get(0)).unwrap();
    assert_eq!(attempts, 10);
    assert!(store.reader().exchange("r9999").unwrap().is_some());
}

#[test]
fn the_oldest_go_when_the_store_is_too_large_and_their_space_is_given_back() {
    let max_bytes = 1_200_000;
    let limits = StoreLimits { max_bytes: Some(max_bytes), ..unlimited() };
    let store = tended(limits, 12_000, T0_MS + 3_600_000);
    let left = count(&store);
    assert!((1_000..6_000).contains(&left), "{left}");
    assert!(store.reader().exchange("r11999").unwrap().is_some());
    let pages: i64 = store.reader().connection().pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    assert!(pages * 4096 <= max_bytes as i64 + 4096 * 16, "{pages} pages");
}
