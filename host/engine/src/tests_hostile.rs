//! Policies that mean harm, at the engine: what they cost, and that nothing of them stays.

#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

use std::time::{Duration, Instant};

use pointsman_core::contract::{Decision, Query};

use super::tests::{CONTRACT, MODULE, READY, WAIT, component, engine, handmade, only_when_asked, query, table};
use super::*;

const ENDLESS: &str = "(loop $l (br $l))";

fn load(decide: &str) -> Revision {
    engine().load(&handmade("", &only_when_asked(decide)), "", table()).unwrap()
}

/// The `i`th question, long enough after the one before that no credit is used up.
fn unhurried(i: u64) -> Query {
    Query { now_ms: 1_000_000 + 30_000 * i, ..query(&READY) }
}

fn fault_of(revision: &Revision, query: &Query) -> Fault {
    let verdict = revision.decide(query, &std::sync::Arc::default());
    assert!(matches!(verdict.decision, Decision::Primary(_)), "the native fallback decides: {verdict:?}");
    verdict.fault.expect("it is a fault")
}

fn fault(decide: &str) -> Fault {
    fault_of(&load(decide), &query(&READY))
}

/// Measures `n` failing questions, in wall time and in this thread's own time, both sorted.
fn times(revision: &Revision, n: u64) -> [Vec<Duration>; 2] {
    let own = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let time_one = |i| {
        let (began, own_began) = (Instant::now(), own());
        assert_eq!(fault_of(revision, &unhurried(i)).kind, FaultKind::Deadline);
        (began.elapsed(), own() - own_began)
    };
    let (mut wall, mut own): (Vec<_>, Vec<_>) = (0..n).map(time_one).unzip();
    wall.sort_unstable();
    own.sort_unstable();
    [wall, own]
}

#[test]
fn the_deadline_is_kept_within_two_milliseconds() {
    let note = "(call $note (i32.const 512) (i32.const 5))";
    let log = "(call $log (i32.const 0) (i32.const 512) (i32.const 5))";
    let long_note = "(call $note (i32.const 131072) (i32.const 130000))";
    let add = "(drop (call $state_add (i32.const 512) (i32.const 5) (i64.const 1) (i64.const 0)))";
    let past = "(call $past (i32.const 768))";
    let grow = "(drop (memory.grow (i32.const 1)))";
    for step in ["", note, log, long_note, add, past, grow] {
        let [wall, own] = times(&load(&format!("(drop (memory.grow (i32.const 4))) (loop $l {step} (br $l))")), 15);
        assert!(wall[0] >= Duration::from_millis(4), "not before its time: {step} {wall:?}");
        // The quickest: what the machine does besides is in the others, and in all of them on the wall. The bench `deadline`
        // has the median and the wall, on a machine of its own.
        assert!(own[0] <= Duration::from_millis(7), "{step}: {own:?}");
        assert!(wall[wall.len() - 1] <= Duration::from_secs(2), "{step}: {wall:?}");
    }
}

#[test]
fn the_message_of_a_deadline_says_how_long() {
    let fault = fault(ENDLESS);
    assert!(fault.message.starts_with("no answer within 5 ms; it was stopped after "), "{fault}");
    assert!(fault.message.contains("inner_work"), "{fault}");
}

#[test]
fn one_that_never_answers_is_soon_asked_only_now_and_then() {
    let revision = load(ENDLESS);
    let began = Instant::now();
    let mut asked = 0;
    for _ in 0..1_000 {
        let fault = fault_of(&revision, &query(&READY));
        assert_eq!(fault.kind, FaultKind::Deadline);
        asked += u32::from(!fault.message.starts_with("not asked"));
    }
    assert!((2..=8).contains(&asked), "{asked}");
    assert!(began.elapsed() < Duration::from_secs(3), "a thousand deadlines would take five seconds");
    assert!(!fault_of(&revision, &unhurried(1)).message.starts_with("not asked"), "later it is asked again");
}

#[test]
fn one_that_traps_is_asked_every_time() {
    let revision = load("(unreachable)");
    for _ in 0..100 {
        let fault = fault_of(&revision, &query(&READY));
        assert!(fault.message.contains("unreachable"), "{fault}");
    }
}

#[test]
fn one_that_takes_milliseconds_is_known_to_be_slow() {
    let millions = "(local.set $n (i32.const 0)) (loop $l (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $n) (i32.const 2000000))))";
    let module = MODULE.replace("{configure}", "").replace(
        "(func $inner_work (param $now i64) (result i32)",
        "(func $inner_work (param $now i64) (result i32) (local $n i32)",
    );
    let load =
        |decide: &str| engine().load(&component(CONTRACT, &module.replace("{decide}", decide)), "", table()).unwrap();
    let quick = load(WAIT);
    quick.decide(&query(&READY), &std::sync::Arc::default());
    assert!(!quick.is_slow());
    let slow = load(&only_when_asked(millions));
    // Nobody can say how fast this machine is, but a deadline is slow for certain.
    let slow_seen = (0..50).any(|i| {
        slow.decide(&unhurried(i), &std::sync::Arc::default());
        slow.is_slow()
    });
    assert!(slow_seen || cfg!(not(debug_assertions)));
}

#[test]
fn too_much_for_the_host_is_not_copied() {
    let fault = fault("(drop (memory.grow (i32.const 1))) (call $note (i32.const 0) (i32.const 131073))");
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.starts_with("it handed the host more than 131072 bytes"), "{fault}");
}

/// `reject` (case 4), its kind and message at `at`, `len` bytes each.
fn reject(at: u32, len: u32) -> String {
    format!(
        "(i32.store8 (i32.const 1024) (i32.const 4)) (i32.store16 (i32.const 1028) (i32.const 429))
        (i32.store (i32.const 1032) (i32.const {at})) (i32.store (i32.const 1036) (i32.const {len}))
        (i32.store (i32.const 1040) (i32.const {at})) (i32.store (i32.const 1044) (i32.const {len}))
        (i32.store8 (i32.const 1048) (i32.const 0))"
    )
}

#[test]
fn answers_that_are_none_are_invalid() {
    let bytes_ff = "(i32.store (i32.const 512) (i32.const -1))";
    for (decide, words) in [
        (format!("(drop (memory.grow (i32.const 4))) {}", reject(131_072, 120_000)), "its answer has more than"),
        (reject(2_000, 6_000), "12000 bytes of text"),
        (reject(100, 0x7FFF_FFFF), "out of bounds"),
        (format!("{bytes_ff} {}", reject(512, 4)), "utf-8"),
        ("(i32.store8 (i32.const 1024) (i32.const 9))".to_owned(), "discriminant"),
        ("(return (i32.const 0x7FFFFFF0))".to_owned(), "out of bounds"),
        ("(return (i32.const 3))".to_owned(), "align"),
    ] {
        let fault = fault(&decide);
        assert_eq!(fault.kind, FaultKind::Invalid, "{decide}: {fault}");
        assert!(fault.message.contains(words), "{decide}: {fault}");
    }
}

#[test]
fn a_note_that_is_no_text_is_a_trap() {
    let fault = fault("(i32.store (i32.const 512) (i32.const -1)) (call $note (i32.const 512) (i32.const 4))");
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("utf-8") && fault.message.contains("inner_work"), "{fault}");
}

#[test]
fn an_allocator_that_lies_is_caught() {
    for (lie, words) in [
        ("(i32.const 0x7FFFFFF0)", "realloc return"),
        ("(i32.const 3)", "not aligned"),
        ("(unreachable)", "unreachable"),
    ] {
        // Only once the probes are over, as the rows of a query are handed over through it.
        let realloc = format!("(if (result i32) (i32.eqz (global.get $lies)) (then (local.get $at)) (else {lie})))");
        let module = MODULE
            .replace("(local.get $at))\n    (func $configure", &format!("{realloc}\n    (func $configure"))
            .replace("(memory (export", "(global $lies (mut i32) (i32.const 0)) (memory (export")
            .replace("{configure}", "")
            .replace("{decide}", &only_when_asked("(global.set $lies (i32.const 1))"));
        let revision = engine().load(&component(CONTRACT, &module), "", table()).unwrap();
        // The first question sets it up, the second one is lied to, the third has a fresh instance.
        assert_eq!(revision.decide(&query(&READY), &std::sync::Arc::default()).fault, None);
        let fault = fault_of(&revision, &query(&READY));
        assert!(fault.message.contains(words), "{lie}: {fault}");
        assert_eq!(revision.decide(&query(&READY), &std::sync::Arc::default()).fault, None);
    }
}

#[test]
fn an_instance_that_grows_a_little_each_time_is_started_afresh() {
    let engine = Engine::new(EngineLimits::default()).unwrap();
    // The wait's length is the pages it has.
    let grow = "(drop (memory.grow (i32.const 1))) (i32.store (i32.const 1028) (memory.size))";
    let revision = engine.load(&handmade("", &only_when_asked(grow)), "", table()).unwrap();
    let pages = |_| match revision.decide(&query(&READY), &std::sync::Arc::default()) {
        Verdict { decision: Decision::Wait(hold), fault: None, .. } => hold.max.as_millis(),
        other => panic!("{other:?}"),
    };
    let most = (0..1_000).map(pages).max().unwrap();
    assert_eq!(most, 2 + (8 << 20) / 65_536 + 1);
}

#[test]
fn what_happens_before_the_first_question_is_bounded_too() {
    let start = |body: &str| {
        let module = MODULE.replace("{configure}", "").replace("{decide}", WAIT);
        let module = module.trim_end().strip_suffix(')').unwrap().to_owned() + &format!("(func $s {body}) (start $s))");
        engine().load(&component(CONTRACT, &module), "", table()).err().unwrap()
    };
    match start(ENDLESS) {
        LoadError::Start(fault) => assert_eq!(fault.kind, FaultKind::Deadline),
        other => panic!("{other}"),
    }
    match start("(unreachable)") {
        LoadError::Start(fault) => assert_eq!(fault.kind, FaultKind::Trap),
        other => panic!("{other}"),
    }
    match start("(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then (unreachable)))") {
        LoadError::Start(fault) => assert_eq!(fault.kind, FaultKind::Memory),
        other => panic!("{other}"),
    }
}

#[test]
fn more_revisions_than_instances_still_decide() {
    let limits = EngineLimits { max_instances: 4, memory_bytes: 4 << 20, ..EngineLimits::default() };
    let engine = Engine::new(limits).unwrap();
    let revisions: Vec<Revision> =
        (0..16).map(|_| engine.load(&handmade("", WAIT), "", table()).expect("an idle one makes room")).collect();
    for _ in 0..3 {
        for revision in &revisions {
            assert_eq!(revision.decide(&query(&READY), &std::sync::Arc::default()).fault, None);
        }
    }
}

#[test]
fn a_revision_that_starts_slowly_is_started_ahead_and_aside() {
    let spin = "(local.set 0 (i32.const 0)) (loop $l (local.set 0 (i32.add (local.get 0) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get 0) (i32.const 100000000))))";
    let limits = EngineLimits { configure_ms: 20_000, max_instances: 8, ..EngineLimits::default() };
    let engine = Engine::new(limits).unwrap();
    let revision = engine.load(&handmade(spin, &only_when_asked("(unreachable)")), "", table()).unwrap();
    let mut aside = 0;
    let began = Instant::now();
    for i in 0..50 {
        let fault = fault_of(&revision, &unhurried(i));
        aside += u32::from(fault.message.contains("it is done aside"));
    }
    assert!(aside >= 20, "{aside}: only few had an instance");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}: nobody waits for a start", began.elapsed());
}

#[test]
fn compilation_that_takes_too_long_is_given_up() {
    let engine = Engine::new(EngineLimits { compile_ms: 0, max_instances: 8, ..EngineLimits::default() }).unwrap();
    // Unlike the embedded one it is in no cache.
    let functions = "(func (drop (i32.add (i32.const 1) (i32.const 2))))".repeat(20_000);
    let module = MODULE.replace("{configure}", "").replace("{decide}", WAIT);
    let module = module.trim_end().strip_suffix(')').unwrap().to_owned() + &functions + ")";
    let bytes = component(CONTRACT, &module);
    let load = |marks: usize| {
        // A custom section makes it another file.
        let other: Vec<u8> = bytes.iter().copied().chain([[0, 2, 1, b'x']; 8][..marks].concat()).collect();
        engine.load(&other, "", table()).err()
    };
    // Each goes on without us; more than a few at a time are not begun.
    let errors: Vec<Option<LoadError>> = (0..8).map(load).collect();
    assert!(errors.iter().flatten().any(|e| matches!(e, LoadError::CompileTime { .. })), "{errors:?}");
    assert!(errors.iter().flatten().any(|e| matches!(e, LoadError::CompilerBusy)), "{errors:?}");
}

#[test]
fn many_small_functions_compile_in_bounded_time() {
    let functions = "(func (drop (i32.add (i32.const 1) (i32.const 2))))".repeat(5_000);
    let module = MODULE.replace("{configure}", "").replace("{decide}", WAIT);
    let module = module.trim_end().strip_suffix(')').unwrap().to_owned() + &functions + ")";
    let revision = engine().load(&component(CONTRACT, &module), "", table()).unwrap();
    assert_eq!(revision.decide(&query(&READY), &std::sync::Arc::default()).fault, None);
}

#[test]
fn a_name_of_any_length_makes_a_short_message() {
    let long = "f".repeat(20_000);
    let module = MODULE.replace("$inner_work", &format!("${long}")).replace("{configure}", "");
    let module = module.replace("{decide}", &only_when_asked("(unreachable)"));
    let revision = engine().load(&component(CONTRACT, &module), "", table()).unwrap();
    let fault = fault_of(&revision, &query(&READY));
    assert!(fault.message.len() < 2_000 && fault.message.contains("fff"), "{}", fault.message.len());
}
