use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clients::Spending;
use crate::contract::{
    AttemptFacts, COLUMNS, Columns, Decision, Dispatch, Hold, NONE, Operation, Query, Rejection, RequestFacts, Rows,
};
use crate::exchange::{Facts, Join};
use crate::outcome::Kind;
use crate::table::{Lane, Price};
use crate::time::Timestamp;

fn facts() -> Facts {
    Facts {
        operation: Operation::Chat,
        streaming: true,
        priority: -3,
        prompt_tokens: 1_200,
        max_tokens: 0,
        client: NONE,
        session: u64::MAX,
        translatable: false,
        idempotent: true,
    }
}

fn question(rows: Rows, decision: Decision) -> Question {
    let facts = facts();
    Question {
        query: Query {
            now_ms: 1_768_473_000_123,
            seed: 0xDEAD_BEEF_0BAD_F00D,
            request: RequestFacts {
                model: NONE,
                operation: facts.operation,
                client: facts.client,
                streaming: facts.streaming,
                priority: facts.priority,
                prompt_tokens: facts.prompt_tokens,
                max_tokens: facts.max_tokens,
                session: facts.session,
                elapsed_ms: 12,
                remaining_ms: 599_988,
            },
            attempts: vec![AttemptFacts {
                backend: 1,
                lane: Lane::Emergency,
                outcome: Kind::RateLimited,
                status: 429,
                elapsed_ms: 80,
                waits_before: 2,
            }],
            waits: 2,
            waited_ms: 900,
            rows,
        },
        decision,
        notes: vec!["no primary recovers".to_owned()],
        fault: Some(Failed { kind: "trap".to_owned(), message: "no price".to_owned() }),
        state: vec![
            StateUse::Get { key: "a".to_owned(), found: None },
            StateUse::Add { key: "a".to_owned(), delta: -1, ttl_ms: 60_000, sum: -1 },
            StateUse::Set { key: "b".to_owned(), value: i64::MIN, ttl_ms: 0 },
            StateUse::TooMany,
        ],
        took: Duration::from_micros(3),
    }
}

/// So many rows of a number each.
fn narrow(numbers: Vec<u32>) -> Rows {
    Rows::recorded(numbers, &Columns::named(&["state"])).expect("they fit")
}

fn trail() -> Trail {
    let arrived = Timestamp::from_micros(1_768_473_000_123_456);
    let mut trail = Trail::new(
        arrived,
        facts(),
        vec![("team".to_owned(), "blue".to_owned())],
        Spending { today_microusd: 7, budget_microusd: Some(2_500_000) },
    );
    let dispatch = Dispatch { backend: Some(3), first_token: Some(Duration::from_millis(900)), ..Dispatch::default() };
    let decisions = [
        Decision::Wait(Hold { max: Duration::from_secs(5), lane: Lane::Primary }),
        Decision::Primary(dispatch),
        Decision::Reject(Rejection { status: 503, kind: "k".to_owned(), message: "m".to_owned(), retry_after: None }),
    ];
    for (n, decision) in (0u64..).zip(decisions) {
        let columns = Columns::of_1_0_0();
        let numbers = (0..2 * columns.width() as u32).map(|i| if i % 5 == 0 { NONE } else { i }).collect();
        let rows = Rows::recorded(numbers, &columns).expect("two rows");
        trail.asked(arrived + Duration::from_millis(n), question(rows, decision));
    }
    for what in [
        Happened::Waits { max: Duration::from_secs(5) },
        Happened::Waited { granted: Some(1) },
        Happened::Sent { backend: 1, lane: Lane::Fallback, probe: true, join: Some(Join::Splice) },
        Happened::Committed,
        Happened::Ended,
    ] {
        trail.steps.push(Step { at: Duration::from_micros(4_001), what });
    }
    trail
}

fn read(bytes: &[u8]) -> Result<Trail, TrailError> {
    decode(bytes, &Columns::of_1_0_0())
}

/// Compares two trails without the counters that only bound memory.
fn same(a: &Trail, b: &Trail) -> bool {
    (a.arrived, &a.facts, &a.labels, a.spending, &a.steps, a.left_out)
        == (b.arrived, &b.facts, &b.labels, b.spending, &b.steps, b.left_out)
}

#[test]
fn a_trail_is_read_as_it_was_written() {
    let trail = trail();
    assert!(same(&read(&encode(&trail)).unwrap(), &trail));
}

/// These bytes were written when version 1 was published. Should this fail, a type of the trail has changed: make a
/// version 2 and keep the old types for version 1, instead of changing the bytes here.
#[test]
fn version_1_is_what_it_was() {
    let golden = include_bytes!("version_1.bin");
    assert!(same(&read(golden).unwrap(), &trail()));
    assert_eq!(encode(&trail()), golden);
}

#[test]
fn what_is_no_trail_is_told() {
    let bytes = encode(&trail());
    assert!(read(&[]).unwrap_err().to_string().contains("empty"));
    assert!(read(&bytes[..bytes.len() - 1]).unwrap_err().to_string().contains("damaged"));
    assert!(read(&[&bytes[..], &[0]].concat()).unwrap_err().to_string().contains("1 bytes too many"));
    assert_eq!(read(&[VERSION + 1, 0]), Err(TrailError::Newer { found: VERSION + 1 }));
    assert!(read(&[0]).unwrap_err().to_string().contains("version 0"));
}

#[test]
fn an_absent_number_takes_a_byte() {
    let size = |rows| {
        encode(&{
            let mut trail = Trail::new(Timestamp::default(), facts(), Vec::new(), Spending::default());
            trail.asked(Timestamp::default(), question(narrow(rows), Decision::Primary(Dispatch::default())));
            trail
        })
        .len()
    };
    assert_eq!(size(vec![NONE; 100]) - size(vec![NONE; 50]), 50);
}

#[test]
fn a_trail_that_grows_too_large_says_what_it_left_out() {
    let mut trail = Trail::new(Timestamp::default(), facts(), Vec::new(), Spending::default());
    let rows = vec![1; 100_000];
    for _ in 0..5 {
        trail.asked(Timestamp::default(), question(narrow(rows.clone()), Decision::Primary(Dispatch::default())));
    }
    assert_eq!((trail.questions().count(), trail.left_out), (2, 3));
    assert!(trail.bytes() <= MAX_TRAIL_BYTES + 10_000);
}

#[test]
fn rows_have_the_columns_of_the_setup() {
    let bytes = encode(&trail());
    let halves: Vec<&str> = COLUMNS[..7].to_vec();
    let read = decode(&bytes, &Columns::named(&halves)).unwrap();
    assert!(read.questions().all(|question| question.query.rows.len() == 4));
    let refused = decode(&bytes, &Columns::named(&COLUMNS[..5])).unwrap_err();
    assert!(refused.to_string().contains("not of 5 columns"), "{refused}");
}

proptest! {
    /// A policy that is asked again must be told the same prices.
    #[test]
    fn a_price_in_a_setup_comes_back_to_the_last_bit(bits in any::<u64>()) {
        let price = f64::from_bits(bits);
        prop_assume!(price.is_finite());
        let price = Price { input_per_mtok: price, output_per_mtok: price / 3.0, cached_input_per_mtok: Some(0.1 * price), ..Price::default() };
        let json = serde_json::to_string(&price).unwrap();
        prop_assert_eq!(serde_json::from_str::<Price>(&json).unwrap(), price);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(trail) = read(&bytes) {
            prop_assert!(same(&read(&encode(&trail)).unwrap(), &trail));
        }
        let mut versioned = vec![VERSION];
        versioned.extend(&bytes);
        let _ = read(&versioned);
    }
}
