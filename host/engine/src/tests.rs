//! The engine with real components: the default policy, and small ones written by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{
    AttemptFacts, BackendRow, Column, Columns, Decision, Operation, Query, RequestFacts, RowState,
};
use pointsman_core::outcome::Kind;
use pointsman_core::table::{Backend, Lane, Pattern, Price, Route, Table, Tier};

use super::*;

pub(super) const CONTRACT: &str = include_str!("../../../wit/policy.wit");

/// Common part of every handmade policy; `{decide}` is its body, which leaves the address of its answer on the stack.
pub(super) const MODULE: &str = r#"(module
    (import "pointsman:policy/state@1.0.0" "add" (func $state_add (param i32 i32 i64 i64) (result i64)))
    (import "pointsman:policy/request@1.0.0" "past" (func $past (param i32)))
    (import "pointsman:policy/request@1.0.0" "spending" (func $spending (param i32)))
    (import "pointsman:policy/log@1.0.0" "note" (func $note (param i32 i32)))
    (import "pointsman:policy/log@1.0.0" "log" (func $log (param i32 i32 i32)))
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 65536))
    ;; At 1024: a decision, its case at 0 and its payload from 4 on.
    (data (i32.const 512) "hello")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        ;; Bump, aligned to 8; starts over for every decision.
        (local $at i32)
        (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
        (global.set $free (i32.add (local.get $at) (local.get 3)))
        (local.get $at))
    (func $configure (export "configure") (param i32) (param i32) (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
        {configure}
        (i32.const 256))
    (func $inner_work (param $now i64) (result i32)
        {decide}
        (i32.const 1024))
    ;; Now and seed, the request, whether it is the first question, the rows.
    (func (export "decide") (param i64 i64) (param i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (param i32) (param i32 i32)
        (result i32)
        (global.set $free (i32.const 65536))
        (call $inner_work (local.get 0)))
)"#;

/// `wait` (case 3) of 7 ms in the lane `primary`.
pub(super) const WAIT: &str = "(i32.store8 (i32.const 1024) (i32.const 3)) (i32.store (i32.const 1028) (i32.const 7))";

pub(super) fn component(contract: &str, module: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("policy.wit", contract).unwrap();
    let world = resolve.select_world(&[package], Some("policy")).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8).unwrap();
    wit_component::ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

pub(super) fn handmade(configure: &str, decide: &str) -> Vec<u8> {
    component(CONTRACT, &MODULE.replace("{configure}", configure).replace("{decide}", decide))
}

pub(super) fn engine() -> Engine {
    Engine::new(EngineLimits { max_instances: 8, memory_bytes: 4 << 20, ..EngineLimits::default() }).unwrap()
}

fn backend(id: &str, tier: Tier) -> Backend {
    Backend {
        tier,
        routes: vec![Route { asked: Pattern::Exact("m".into()), sent: "maker/m".into() }],
        prices: BTreeMap::from([("*".to_owned(), Price { input_per_mtok: 1.0, ..Price::default() })]),
        labels: BTreeMap::from([("region".to_owned(), "eu".to_owned())]),
        capabilities: BTreeMap::from([("prefill".to_owned(), true)]),
        ..Backend::new(id)
    }
}

pub(super) fn table() -> Arc<Table> {
    let backends = vec![backend("a", Tier::Primary), backend("b", Tier::Fallback), backend("c", Tier::Primary)];
    Arc::new(Table::new(backends, vec!["agent".into()]))
}

pub(super) fn query(states: &[RowState]) -> Query {
    Query {
        now_ms: 1_000_000,
        seed: 7,
        request: RequestFacts {
            model: 0,
            operation: Operation::Chat,
            client: 0,
            streaming: false,
            priority: 0,
            prompt_tokens: 10,
            max_tokens: 0,
            session: 0,
            elapsed_ms: 0,
            remaining_ms: 60_000,
        },
        attempts: Vec::new(),
        waits: 0,
        waited_ms: 0,
        rows: states.iter().copied().map(BackendRow::new).collect(),
    }
}

#[test]
fn a_recorded_table_is_told_and_probed_in_its_own_columns() {
    let columns = Columns::named(&["queued", "novelty", "state"]);
    let table = Table { columns: columns.clone(), ..Table::clone(&table()) };
    super::wire::TableParts::new(&table).with(|told| assert_eq!(told.columns, ["queued", "novelty", "state"]));
    for (_, query) in super::revision::probes(&table) {
        assert_eq!((query.rows.columns(), query.rows.len()), (&columns, table.backends.len()));
    }
    let rows = query(&READY).rows;
    assert_eq!(rows.number(0, Column::EmergencyMs), pointsman_core::contract::NONE, "a row made by hand is closed");
}

fn attempt(backend: u32, outcome: Kind) -> AttemptFacts {
    AttemptFacts { backend, lane: Lane::Primary, outcome, status: 429, elapsed_ms: 3, waits_before: 0 }
}

pub(super) const READY: [RowState; 3] = [RowState::Ready; 3];

fn backend_of(decision: &Decision) -> Option<u32> {
    match decision {
        Decision::Primary(d) | Decision::Fallback(d) | Decision::Emergency(d) => d.backend,
        Decision::Wait(_) | Decision::Reject(_) => None,
    }
}

#[test]
fn the_embedded_policy_decides_as_its_native_fallback() {
    let revision = engine().embedded("{}", table()).unwrap();
    assert_eq!(revision.id().len(), 12);
    let native = NativeFallback::new("{}", &table());
    let texts = Arc::default();
    let states = [RowState::Ready, RowState::Throttled, RowState::Cooling, RowState::Drained];
    for i in 0..4usize.pow(3) {
        let mut query = query(&[states[i % 4], states[i / 4 % 4], states[i / 16 % 4]]);
        query.seed = i as u64;
        query.attempts = [attempt(0, Kind::RateLimited), attempt(2, Kind::TooLong)][..i % 3].to_vec();
        query.waits = i as u32 % 5;
        let verdict = revision.decide(&query, &texts);
        assert_eq!(verdict.fault, None);
        assert_eq!((verdict.decision, verdict.notes), native.decide(&query, &texts), "{i}");
    }
}

#[test]
fn a_common_first_decision_is_a_primary_without_a_note() {
    let revision = engine().embedded("", table()).unwrap();
    let verdict = revision.decide(&query(&READY), &Arc::default());
    assert!(matches!(verdict.decision, Decision::Primary(_)), "{verdict:?}");
    assert!(verdict.notes.is_empty());
}

#[test]
fn settings_reach_the_policy_and_its_refusal_is_told() {
    let refused = |settings| engine().embedded(settings, table()).err().unwrap().to_string();
    assert!(refused(r#"{"primary_wait": 1}"#).contains("`primary_wait`"));
    assert!(refused(r#"{"primary_wait_ms": -1}"#).contains("`primary_wait_ms`"));
}

#[test]
fn a_revision_over_another_table_shares_the_code() {
    let revision = engine().embedded("", table()).unwrap();
    let smaller = Arc::new(Table::new(vec![backend("only", Tier::Fallback)], Vec::new()));
    let other = revision.with_table("", smaller).unwrap();
    assert_eq!(other.id(), revision.id());
    let verdict = other.decide(&query(&[RowState::Ready]), &Arc::default());
    assert!(matches!(verdict.decision, Decision::Fallback(_)), "{verdict:?}");
    assert_eq!(verdict.notes.len(), 1, "spending on a fallback is explained");
}

#[test]
fn a_handmade_policy_is_asked_and_its_notes_and_state_are_kept_apart() {
    let note = "(call $note (i32.const 512) (i32.const 5))";
    // The wait's length counts the questions, in the shared state.
    let count = "(i32.store8 (i32.const 1024) (i32.const 3)) (i32.store (i32.const 1028) (i32.wrap_i64
        (call $state_add (i32.const 512) (i32.const 5) (i64.const 1) (i64.const 0))))";
    let engine = engine();
    let bytes = handmade("", &format!("{note} {count}"));
    let wait = |revision: &Revision| match revision.decide(&query(&READY), &Arc::default()) {
        Verdict { decision: Decision::Wait(hold), notes, fault: None, .. } => {
            assert_eq!(notes, ["hello"]);
            (hold.max, hold.lane)
        }
        other => panic!("{other:?}"),
    };
    let first = engine.load(&bytes, "", table()).unwrap();
    // Three probes came before.
    assert_eq!(wait(&first), (Duration::from_millis(4), Lane::Primary));
    assert_eq!(wait(&first), (Duration::from_millis(5), Lane::Primary));
    let second = engine.load(&bytes, "", table()).unwrap();
    assert_eq!(wait(&second), (Duration::from_millis(9), Lane::Primary), "the state survives a swap");
    let alone = engine.compile(&bytes).unwrap().isolated("", table()).unwrap();
    assert_eq!(wait(&alone), (Duration::from_millis(1), Lane::Primary), "a state of its own, without the probes");
    assert_eq!(wait(&alone), (Duration::from_millis(2), Lane::Primary));
    assert_eq!(wait(&second), (Duration::from_millis(10), Lane::Primary), "which nobody else sees");
}

#[test]
fn a_shadow_speaks_for_itself_and_takes_no_instance_from_others() {
    let engine = Engine::new(EngineLimits { max_instances: 2, ..EngineLimits::default() }).unwrap();
    let bytes = handmade("", &only_when_asked("unreachable"));
    let shadow = engine.compile(&bytes).unwrap().shadow("", table(), 5).unwrap();
    let ask = || shadow.ask_alone(&query(&READY), &Arc::default());
    assert_eq!(ask().decision.unwrap_err().kind, FaultKind::Trap, "nobody decides in its place");
    let live = [engine.embedded("", table()).unwrap(), engine.embedded("", table()).unwrap()];
    let decide = || live.iter().all(|live| live.decide(&query(&READY), &Arc::default()).fault.is_none());
    assert!(decide());
    let fault = ask().decision.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Busy, "{fault}");
    assert!(decide() && engine.instances() == 2, "they have kept theirs");
}

#[test]
fn the_past_is_told_to_those_who_ask() {
    // The wait's length has the past in its digits: the number of attempts, the last one's time, the waits, their time.
    let digit = |number: &str, worth: u32| format!("(i32.mul {number} (i32.const {worth}))");
    let list = "(i32.load (i32.const 768))";
    let ask = [
        digit("(i32.load (i32.const 772))", 100_000),
        digit(
            &format!(
                "(if (result i32) (i32.load (i32.const 772)) (then (i32.load offset=40 {list})) (else (i32.const 0)))"
            ),
            10_000,
        ),
        digit("(i32.load (i32.const 776))", 1_000),
        digit("(i32.load (i32.const 780))", 1),
    ]
    .into_iter()
    .reduce(|sum, digit| format!("(i32.add {sum} {digit})"))
    .unwrap();
    let answer =
        format!("(call $past (i32.const 768)) {WAIT} (i32.store (i32.const 1028) (i32.add (i32.const 7) {ask}))");
    let revision = engine().load(&handmade("", &only_when_asked(&answer)), "", table()).unwrap();
    let wait_ms = |query: &Query| match revision.decide(query, &Arc::default()) {
        Verdict { decision: Decision::Wait(hold), fault: None, .. } => hold.max.as_millis(),
        other => panic!("{other:?}"),
    };
    let mut query = query(&READY);
    assert_eq!(wait_ms(&query), 7);
    query.waits = 1;
    query.waited_ms = 250;
    assert_eq!(wait_ms(&query), 1_257, "a wait alone is a past");
    query.attempts = vec![attempt(0, Kind::RateLimited), attempt(2, Kind::TimedOut)];
    assert_eq!(wait_ms(&query), 231_257);
    query = self::query(&READY);
    assert_eq!(wait_ms(&query), 7, "the next exchange has none of it");
}

#[test]
fn what_the_client_has_spent_is_told_to_those_who_ask() {
    let answer = "(call $spending (i32.const 768)) (i32.store (i32.const 1028) (i32.add (i32.load (i32.const 768))
        (i32.mul (i32.load8_u (i32.const 776)) (i32.load (i32.const 784)))))";
    let revision = engine().load(&handmade("", &only_when_asked(answer)), "", table()).unwrap();
    let wait_ms = |today_microusd, budget_microusd| {
        let spending = Spending { today_microusd, budget_microusd };
        let texts = Arc::new(Texts { spending, ..Texts::default() });
        match revision.decide(&query(&READY), &texts) {
            Verdict { decision: Decision::Wait(hold), fault: None, .. } => hold.max.as_millis(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wait_ms(40, Some(2_000)), 2_040);
    assert_eq!(wait_ms(41, None), 41, "without a budget none is told");
}

#[test]
fn another_model_must_be_one_that_the_target_serves() {
    // `primary` to a backend, for a model: two options of 8 bytes each.
    let to = |backend: u32, model: u32| {
        let at = |offset: u32, value: u32| format!("(i32.store (i32.const {offset}) (i32.const {value}))");
        [at(1024, 0), at(1028, 1), at(1032, backend), at(1036, 1), at(1040, model)].join(" ")
    };
    let mut other = backend("other", Tier::Primary);
    other.routes = vec![Route { asked: Pattern::Exact("small".into()), sent: "maker/small".into() }];
    let table = Arc::new(Table::new(vec![backend("a", Tier::Primary), other], Vec::new()));
    let small = table.model_index("small").unwrap();
    let decide = |what: &str| {
        let revision = engine().load(&handmade("", &only_when_asked(what)), "", table.clone()).unwrap();
        revision.decide(&query(&READY[..2]), &Arc::default())
    };
    match decide(&to(1, small)) {
        Verdict { decision: Decision::Primary(d), fault: None, .. } => {
            assert_eq!((d.backend, d.model), (Some(1), Some(small)));
        }
        other => panic!("{other:?}"),
    }
    for (what, words) in [(to(0, small), "does not serve it"), (to(1, 7), "has only 2")] {
        let fault = decide(&what).fault.expect(words);
        assert_eq!(fault.kind, FaultKind::Invalid);
        assert!(fault.message.contains(words), "{fault}");
    }
}

/// Runs this for a query that is no probe, and waits otherwise; probes have a later `now-ms`.
pub(super) fn only_when_asked(what: &str) -> String {
    format!("{WAIT} (if (i64.lt_u (local.get 0) (i64.const 1000000000000)) (then {what}))")
}

#[test]
fn each_fault_is_named_and_the_native_fallback_decides() {
    let grow = "(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then (unreachable)))";
    let index = "(i32.store8 (i32.const 1024) (i32.const 0)) (i32.store8 (i32.const 1028) (i32.const 1))
        (i32.store (i32.const 1032) (i32.const 99))";
    let lane = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1028) (i32.const 1))
        (i32.store (i32.const 1032) (i32.const 0))";
    let zero_wait = "(i32.store (i32.const 1028) (i32.const 0))";
    let engine = engine();
    for (decide, kind, words) in [
        ("(loop $l (br $l))", FaultKind::Deadline, "inner_work"),
        ("(unreachable)", FaultKind::Trap, "inner_work"),
        ("(drop (call $inner_work (local.get 0)))", FaultKind::Trap, "stack"),
        (grow, FaultKind::Memory, "it asked for 64128 KiB of memory and may have 4096 KiB"),
        (index, FaultKind::Invalid, "backend 99"),
        (lane, FaultKind::Invalid, "fallback to backend a, which is a primary"),
        (zero_wait, FaultKind::Invalid, "0 ms"),
    ] {
        let revision = engine.load(&handmade("", &only_when_asked(decide)), "", table()).unwrap();
        for i in 0..20 {
            // More often than there are instances: each faulty one is given back. And not too often to be asked.
            let query = Query { now_ms: 1_000_000 + 30_000 * i, ..query(&READY) };
            let verdict = revision.decide(&query, &Arc::default());
            let fault = verdict.fault.expect(decide);
            assert_eq!(fault.kind, kind, "{decide}: {fault}");
            assert!(fault.message.contains(words), "{decide}: {fault}");
            assert!(verdict.notes[0].starts_with("policy fault ("), "{:?}", verdict.notes);
            assert!(matches!(verdict.decision, Decision::Primary(_)) && backend_of(&verdict.decision).is_some());
        }
    }
}

#[test]
fn a_policy_that_fails_at_its_start_is_not_loaded() {
    let engine = engine();
    let load = |configure, decide| engine.load(&handmade(configure, decide), "", table()).err().unwrap();
    match load("(unreachable)", WAIT) {
        LoadError::Configure(fault) => assert_eq!(fault.kind, FaultKind::Trap),
        other => panic!("{other:?}"),
    }
    match load("(loop $l (br $l))", WAIT) {
        LoadError::Configure(fault) => assert_eq!(fault.kind, FaultKind::Deadline),
        other => panic!("{other:?}"),
    }
    match load(
        "(i32.store8 (i32.const 256) (i32.const 1)) (i32.store (i32.const 260) (i32.const 512)) (i32.store (i32.const 264) (i32.const 5))",
        WAIT,
    ) {
        LoadError::Refused(text) => assert_eq!(text, "hello"),
        other => panic!("{other:?}"),
    }
    match load("", "(loop $l (br $l))") {
        LoadError::Probe { question, fault } => {
            assert_eq!((question, fault.kind), ("all backends ready", FaultKind::Deadline));
        }
        other => panic!("{other:?}"),
    }
}

/// Runtimes of languages import files, whose functions speak of the streams of another interface.
#[test]
fn files_are_not_there_and_hand_out_the_streams_that_are() {
    const FILES: &str = r#"
        package wasi:io@0.2.6 { interface streams { resource input-stream; } }
        package wasi:filesystem@0.2.6 {
            interface types { use wasi:io/streams@0.2.6.{input-stream}; open: func() -> input-stream; }
        }"#;
    let contract = CONTRACT.replace("world policy {", "world policy {\n import wasi:filesystem/types@0.2.6;") + FILES;
    let module = MODULE
        .replace("(module", r#"(module (import "wasi:filesystem/types@0.2.6" "open" (func $open (result i32)))"#)
        .replace("{configure}", "")
        .replace("{decide}", &only_when_asked("(drop (call $open))"));
    let revision = engine().load(&component(&contract, &module), "", table()).unwrap();
    let fault = revision.decide(&query(&READY), &Arc::default()).fault.unwrap();
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("policies have no files"), "{fault}");
}

#[test]
fn what_is_no_policy_is_refused_in_one_sentence() {
    let engine = engine();
    let load = |bytes: &[u8]| engine.load(bytes, "", table()).err().unwrap();
    assert_eq!(load(b""), LoadError::Empty);
    assert!(matches!(load(b"# a readme"), LoadError::NotWasm(_)));
    assert!(matches!(load(&wat::parse_str("(module)").unwrap()), LoadError::CoreModule));
    assert!(matches!(load(&wat::parse_str("(component)").unwrap()), LoadError::MissingExport("configure")));
    let bytes = handmade("", WAIT);
    for cut in [5, 20, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(load(&bytes[..cut]), LoadError::Truncated(_)), "cut at {cut}: {}", load(&bytes[..cut]));
    }
    let mut garbled = bytes.clone();
    garbled[200..260].fill(0xFF);
    assert!(matches!(load(&garbled), LoadError::Broken(_) | LoadError::Truncated(_)), "{}", load(&garbled));
    let text = load(&wat::parse_str(r#"(component (import "acme:db/query@1.0.0" (instance)))"#).unwrap()).to_string();
    assert!(text.contains("acme:db/query@1.0.0"), "{text}");
}

#[test]
fn another_contract_is_refused_by_its_version() {
    let contract = CONTRACT.replace("policy@1.0.0", "policy@2.0.0");
    let module = MODULE.replace("@1.0.0", "@2.0.0").replace("{configure}", "").replace("{decide}", WAIT);
    let error = engine().load(&component(&contract, &module), "", table()).err().unwrap();
    assert!(matches!(&error, LoadError::Version { found } if found.contains("@2.0.0")), "{error}");
    // The right version, but not its shapes.
    let contract = CONTRACT.replace("remaining-ms: u32,", "remaining-ms: s32,");
    let module = MODULE.replace("{configure}", "").replace("{decide}", WAIT);
    let error = engine().load(&component(&contract, &module), "", table()).err().unwrap();
    assert!(matches!(error, LoadError::Shape(_)), "{error}");
}

#[test]
fn decisions_are_made_on_many_threads_at_once_and_inside_a_runtime() {
    let revision = Arc::new(engine().embedded("", table()).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let revision = revision.clone();
            runtime.spawn(async move {
                for i in 0..500 {
                    let mut query = query(&READY);
                    query.seed = task * 1_000 + i;
                    assert_eq!(revision.decide(&query, &Arc::default()).fault, None);
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
}

#[test]
fn in_a_replay_state_answers_as_recorded_and_fresh_instances_remember_nothing() {
    // A wait of as many ms as the shared sum and the questions in memory come to.
    let sum = "(i32.wrap_i64 (call $state_add (i32.const 512) (i32.const 5) (i64.const 1) (i64.const 0)))";
    let asked = "(i32.store (i32.const 900) (i32.add (i32.load (i32.const 900)) (i32.const 1)))";
    let wait = format!(
        "{asked} (i32.store8 (i32.const 1024) (i32.const 3))
        (i32.store (i32.const 1028) (i32.add {sum} (i32.load (i32.const 900))))"
    );
    let compiled = engine().compile(&handmade("", &wait)).unwrap();
    let replay = Replay::default();
    let replayer = replay.configure(&compiled, &"".into(), table()).unwrap();
    let recorded = |sum| [StateUse::Add { key: "hello".to_owned(), delta: 1, ttl_ms: 0, sum }];
    let ms = |heard: &Heard| match &heard.answer {
        Ok(Decision::Wait(hold)) => hold.max.as_millis(),
        other => panic!("{other:?}"),
    };
    let ask = |sum: i64| replayer.ask(&query(&READY), &Arc::default(), &recorded(sum));
    assert_eq!((ms(&ask(100)), ms(&ask(500))), (101, 502), "not probed before, and then asked twice");
    let heard = ask(7);
    assert_eq!((&heard.state[..], heard.unrecorded), (&recorded(7)[..], 0));
    let fresh = replayer.ask_fresh(&query(&READY), &Arc::default(), &recorded(7));
    assert_eq!((ms(&heard), ms(&fresh)), (10, 8));
    let unrecorded = replayer.ask(&query(&READY), &Arc::default(), &[]);
    assert_eq!((ms(&unrecorded), unrecorded.unrecorded), (12, 1), "it goes on from what was seen last");
}

#[test]
fn in_a_replay_a_fault_has_no_penalty_and_ends_the_instance() {
    let compiled = engine().compile(&handmade("", "(unreachable)")).unwrap();
    let replayer = Replay::default().configure(&compiled, &"".into(), table()).unwrap();
    for _ in 0..20 {
        let heard = replayer.ask(&query(&READY), &Arc::default(), &[]);
        let fault = heard.answer.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Trap);
        assert!(!is_of_the_moment(fault.kind.as_str(), &fault.message), "{fault}");
    }
}
