//! Usage read from the sums of hours is that of the exchanges one by one.

use pointsman_core::denial::Denial;
use pointsman_core::random::SplitMix64;
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use rusqlite::Connection;

use super::tests::{T0_MS, exchange, fixed, unlimited};
use super::usage_parts::HOUR_US;
use super::*;

const GROUPS: [Group; 6] = Group::ALL;
const HOUR_MS: u64 = 3_600_000;

/// Exchanges of some days, of every kind.
fn exchanges(count: u64) -> Vec<ExchangeRecord> {
    let mut random = SplitMix64(7);
    let mut below = move |n: u64| random.draw() % n;
    let some = |i: u64| {
        let mut record = exchange(&format!("r{i}"), T0_MS + below(100 * HOUR_MS));
        record.client = ["a", "b"].get(below(3) as usize).map(|name| (*name).into());
        record.model = format!("model-{}", below(5));
        record.waits = u32::try_from(below(3)).unwrap();
        record.saved_usd = (below(3) > 0).then_some(below(100) as f64);
        record.end = [End::Delivered, End::Broken, End::Rejected, End::ClientGone][below(4) as usize];
        record.lane = [Some(Lane::Primary), Some(Lane::Fallback), Some(Lane::Emergency), None][below(4) as usize];
        record.backend = ["p1", "p2"].get(below(3) as usize).map(|name| (*name).into());
        if below(6) == 0 {
            (record.end, record.denied) = (End::Denied, Some(Denial::ClientRate));
            record.attempts.clear();
        }
        for _ in 0..below(3) {
            let mut earlier = exchange("", 0).attempts.remove(0);
            (earlier.backend, earlier.lane) = ("p3".into(), Lane::Emergency);
            earlier.usage.output_tokens = below(1_000);
            record.attempts.insert(0, earlier);
        }
        *record
    };
    (0..count).map(some).collect()
}

fn usage_of(store: &Store, since: Timestamp) -> Vec<Vec<UsageRow>> {
    GROUPS.iter().map(|group| store.reader().usage(since, *group).unwrap()).collect()
}

/// Forgets the sums, so that every exchange is read.
fn without_sums(store: &Store) {
    let policies = store.policies();
    let connection = policies.connection().unwrap();
    connection.execute_batch("DELETE FROM usage_hour; UPDATE usage_filled SET from_us = 9223372036854775807").unwrap();
}

fn times() -> Vec<Timestamp> {
    [0, 1, HOUR_MS / 2, HOUR_MS, 7 * HOUR_MS + 1, 99 * HOUR_MS, 101 * HOUR_MS]
        .into_iter()
        .map(|ms| Timestamp::from_millis(T0_MS + ms))
        .chain([Timestamp::default()])
        .collect()
}

#[test]
fn sums_of_hours_say_what_the_exchanges_say() {
    let store = Store::open(StorePath::Memory, unlimited(), fixed(T0_MS)).unwrap();
    for record in exchanges(900) {
        store.handle().record(Box::new(record), None);
    }
    store.handle().flush_blocking().unwrap();
    let summed: Vec<_> = times().into_iter().map(|since| usage_of(&store, since)).collect();
    let spent = store.reader().spend_since("a", times()[2]).unwrap();
    without_sums(&store);
    let single: Vec<_> = times().into_iter().map(|since| usage_of(&store, since)).collect();
    for ((summed, single), since) in summed.iter().zip(&single).zip(times()) {
        assert_eq!(summed, single, "since {since:?}");
    }
    assert!((spent - store.reader().spend_since("a", times()[2]).unwrap()).abs() < 1e-9 && spent > 1.0);
}

#[test]
fn what_an_earlier_version_wrote_is_summed_in_pieces_and_counted_once_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.db"), folder.path().join("new.db"));
    {
        let store = Store::open(StorePath::File(new.clone()), unlimited(), fixed(T0_MS)).unwrap();
        for record in exchanges(9_000) {
            store.handle().record(Box::new(record), None);
        }
        store.close().unwrap();
    }
    {
        // The same exchanges in a store that has no sums.
        let earlier = schema::open_earlier(&old, 10).unwrap();
        earlier.execute("ATTACH DATABASE ?1 AS new", [new.to_str().unwrap()]).unwrap();
        earlier
            .execute_batch(
                "INSERT INTO exchange SELECT * FROM new.exchange; INSERT INTO earlier_attempt SELECT * FROM new.earlier_attempt",
            )
            .unwrap();
    }
    let expected = {
        let store = Store::open(StorePath::File(new), unlimited(), fixed(T0_MS)).unwrap();
        let usage = usage_of(&store, times()[2]);
        without_sums(&store);
        assert_eq!(usage, usage_of(&store, times()[2]));
        usage
    };
    let mut connection = schema::open(&StorePath::File(old.clone())).unwrap();
    let usage = |connection: Connection| {
        let reader = StoreReader::new(Shared::new(connection));
        GROUPS.iter().map(|group| reader.usage(times()[2], *group).unwrap()).collect::<Vec<_>>()
    };
    let mut pieces = 0;
    while rollups::fill(&mut connection).unwrap() {
        pieces += 1;
        assert_eq!(usage(schema::open_reader(&old).unwrap()), expected, "after {pieces} pieces");
    }
    assert_eq!(pieces, 2, "of 4,096 exchanges and a rest");
    assert_eq!(rollups::filled_from(&connection).unwrap(), 0);
    assert_eq!(usage(schema::open_reader(&old).unwrap()), expected);
    let hours: i64 = connection.query_row("SELECT count(DISTINCT hour) FROM usage_hour", [], |row| row.get(0)).unwrap();
    assert!((100..=102).contains(&hours), "{hours}");
    connection.execute("DELETE FROM exchange", []).unwrap();
    let left: u64 = usage(connection)[0].iter().map(|row| row.requests).sum();
    assert!(left > 7_000, "{left}: the sums outlive the exchanges");
}

#[test]
fn an_exchange_that_ends_before_those_that_are_not_summed_yet_is_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    {
        let earlier = schema::open_earlier(&file, 10).unwrap();
        let newest = i64::try_from(T0_MS).unwrap() * 1_000 + 50 * HOUR_US;
        earlier
            .execute(
                "INSERT INTO exchange (ended_us, id, started_ms, elapsed_ms, operation, path, model, streaming, status, end,
                    attempts, waits, waited_ms, policy, policy_faults, input_tokens, output_tokens, cached_input_tokens,
                    estimated, cost_usd) VALUES (?1, 'old', 1, 1, 'chat', '/', 'm', 0, 200, 'delivered', 0, 0, 0, '', 0, 0, 0, 0, 0, 0)",
                [newest],
            )
            .unwrap();
    }
    let store = Store::open(StorePath::File(file), unlimited(), fixed(T0_MS)).unwrap();
    store.handle().record(exchange("r1", T0_MS), None);
    store.handle().flush_blocking().unwrap();
    store.handle().record(exchange("r2", T0_MS), None);
    store.handle().flush_blocking().unwrap();
    for group in GROUPS {
        let requests: u64 =
            store.reader().usage(Timestamp::default(), group).unwrap().iter().map(|row| row.requests).sum();
        assert_eq!(requests, 3, "{group:?}");
    }
}

#[test]
fn sums_have_an_age_and_a_number() {
    let store = Store::open(StorePath::Memory, unlimited(), fixed(T0_MS)).unwrap();
    for record in exchanges(500) {
        store.handle().record(Box::new(record), None);
    }
    store.handle().flush_blocking().unwrap();
    let policies = store.policies();
    let connection = policies.connection().unwrap();
    let rows = || connection.query_row("SELECT count(*) FROM usage_hour", [], |row| row.get::<_, u64>(0)).unwrap();
    let at = |hours: u64| Timestamp::from_millis(T0_MS + hours * HOUR_MS);
    let all = rows();
    rollups::tend(&connection, &unlimited(), at(100)).unwrap();
    assert_eq!(rows(), all);
    let few = StoreLimits { max_bytes: Some(200 * 8 * 512), ..unlimited() };
    rollups::tend(&connection, &few, at(100)).unwrap();
    assert!((100..=200).contains(&rows()), "{} of {all}: the newest", rows());
    rollups::tend(&connection, &unlimited(), at(101 + 400 * 24)).unwrap();
    assert_eq!(rows(), 0);
}
