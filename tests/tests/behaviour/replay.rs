//! `pointsman replay`, over journals that the real proxy wrote.

use std::time::Duration;

use pointsman_tests::{
    Finished, Proxy, ProxyBuilder, WatPolicy, backend, chat, proxy, revision_of, rough_day, run, run_within, sends_to,
    status, takes_turns, takes_turns_in_memory, upstream,
};
use serde_json::Value as Json;

/// The issue's number.
const MANY: usize = 10_000;

/// For so many questions, in a debug build on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(600);

/// `pointsman replay`, in the directory of a proxy that may have ended.
async fn replay(proxy: &Proxy, args: &[&str]) -> Finished {
    let args = [&["replay", "--store", "pointsman.db"], args].concat();
    run_within(PATIENCE, env!("CARGO_BIN_EXE_proxy-under-test"), proxy.dir(), &args, &[]).await
}

/// The same, as JSON, with its exit code.
async fn replayed(proxy: &Proxy, args: &[&str]) -> (Json, Option<i32>) {
    let finished = replay(proxy, &[&["--json"], args].concat()).await;
    let report = serde_json::from_str(&finished.stdout);
    (report.unwrap_or_else(|e| panic!("{e}: {}{}", finished.stdout, finished.stderr)), finished.code)
}

/// Writes a component beside the proxy's store.
fn write(proxy: &Proxy, name: &str, policy: &WatPolicy) {
    std::fs::write(proxy.dir().join(name), policy.build()).expect("a component can be written");
}

/// A proxy whose policy is this one, in a folder that outlives the call.
fn decided_by(policy: &WatPolicy) -> (ProxyBuilder, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("mine.wasm");
    std::fs::write(&file, policy.build()).expect("a component can be written");
    (proxy!().policy_file(&file).set("log.exchanges", false), dir)
}

/// All of a report's one revision, which must have been asked everything.
fn only(report: &Json, exchanges: usize) -> &Json {
    assert_eq!(report["exchanges"], exchanges, "{report:#}");
    assert_eq!(report["revisions"].as_array().map(Vec::len), Some(1), "{report:#}");
    let revision = &report["revisions"][0];
    assert_eq!(revision["exchanges"], exchanges, "{report:#}");
    revision
}

fn is_exact(revision: &Json) {
    assert_eq!(revision["differing"], 0, "{revision:#}");
    assert_eq!(revision["fresh"]["differing"], 0, "{revision:#}");
    assert_eq!(revision["fresh"]["questions"], revision["questions"], "{revision:#}");
    assert_eq!(revision["not_compared"]["state"], 0, "{revision:#}");
    let (timed, questions) = (&revision["not_compared"]["time"], &revision["questions"]);
    assert!(timed.as_u64() <= questions.as_u64().map(|n| n / 100), "nearly all were compared: {revision:#}");
}

/// The journal of a rough day has what replay is about.
fn is_rough(proxy: &Proxy) {
    let number = |sql: &str| proxy.rows(sql)[0]["n"].as_u64().expect("a number");
    let retried = number("SELECT count(*) AS n FROM exchanges WHERE attempts > 1");
    let waited = number("SELECT count(*) AS n FROM exchanges WHERE waits > 0");
    assert!(retried > 300 && waited > 100, "{retried} were retried, {waited} waited");
    for what in ["rate_limited", "server_error", "cut"] {
        let sql = format!("SELECT count(*) AS n FROM attempts WHERE outcome = '{what}'");
        let outcomes = || proxy.rows("SELECT outcome, count(*) AS n FROM attempts GROUP BY outcome");
        assert!(number(&sql) > 50, "{what}: {:?}", outcomes());
    }
}

#[tokio::test]
async fn ten_thousand_exchanges_of_the_default_policy_replay_exactly() {
    let day = rough_day(proxy!(), MANY).await;
    is_rough(&day.proxy);
    let (report, code) = replayed(&day.proxy, &[]).await;
    is_exact(only(&report, MANY));
    assert_eq!(code, Some(0));
    assert!(report["questions"].as_u64() > Some(MANY as u64), "some were asked more than once: {report:#}");
}

#[tokio::test]
async fn ten_thousand_exchanges_of_a_policy_that_uses_state_replay_exactly() {
    let (proxy, _dir) = decided_by(&takes_turns(3));
    let day = rough_day(proxy, MANY).await;
    let (report, code) = replayed(&day.proxy, &[]).await;
    is_exact(only(&report, MANY));
    assert_eq!(code, Some(0));
}

/// A proxy before the primaries `a` and `b` and the fallback `c`, all well, that was asked so often for each model, in this order,
/// and has ended.
async fn asked(policy: &WatPolicy, models: &[(&str, usize)]) -> Proxy {
    let up = upstream().start().await;
    let names: Vec<toml::Value> = models.iter().map(|(model, _)| (*model).into()).collect();
    let serves = |id| backend(id).set("models", names.clone());
    let (proxy, _dir) = decided_by(policy);
    let proxy = proxy.backend(serves("a").primary(&up)).backend(serves("b").primary(&up).price("*", 1.0, 1.0));
    let mut proxy = proxy.backend(serves("c").fallback(&up)).start().await;
    for (model, times) in models {
        for _ in 0..*times {
            assert_eq!(proxy.chat_for(model).send().await.status, 200);
        }
    }
    proxy.sigterm();
    proxy.wait_exit().await;
    proxy
}

/// Changes a store by hand.
fn change(proxy: &Proxy, sql: &str) {
    let store = rusqlite::Connection::open(proxy.store_path()).expect("the store opens");
    store.execute_batch(sql).expect("it is SQL");
}

#[tokio::test]
async fn a_policy_that_counts_in_memory_is_named_with_its_first_difference() {
    let proxy = asked(&takes_turns_in_memory(2), &[("m", 40)]).await;
    let told = replay(&proxy, &[]).await;
    assert_eq!(told.code, Some(1), "{}{}", told.stdout, told.stderr);
    let ids = proxy.rows("SELECT id FROM exchanges ORDER BY ended_us");
    let first = ids[0]["id"].as_str().unwrap();
    for part in ["NON-DETERMINISTIC", first, "question 1, model m", "primary a", "primary b"] {
        assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
    }
    assert!(
        told.stdout.contains("its answers depend on what it remembers in memory, which may vanish"),
        "{}",
        told.stdout
    );
}

#[tokio::test]
async fn a_policy_that_decided_by_memory_as_it_does_again_is_found_out_by_fresh_instances() {
    // The live instance was asked three probes first, so that its turns are the same again.
    let proxy = asked(&takes_turns_in_memory(3).for_model(0, TO_A_OR_B), &[("m", 30)]).await;
    let (report, code) = replayed(&proxy, &[]).await;
    let revision = only(&report, 30);
    assert_eq!(code, Some(1));
    assert!(revision["fresh"]["differing"].as_u64() >= Some(15), "{report:#}");
    assert!(!revision["fresh"]["first_difference"]["exchange"].is_null(), "{report:#}");
}

/// The turn of three, but the fallback's is `a`'s.
const TO_A_OR_B: &str =
    "(if (i32.eq (i32.load (i32.const 1032)) (i32.const 2)) (then (i32.store (i32.const 1032) (i32.const 0))))";

#[tokio::test]
async fn where_the_use_of_state_went_another_way_is_told() {
    // Every other time it counts under another key, and says nothing of it. The live instance was asked three probes first.
    let key = "(i32.add (i32.const 3) (i32.and (global.get $asked) (i32.const 1)))";
    let counts = format!("(drop (call $state_add (i32.const 768) {key} (i64.const 1) (i64.const 0)))");
    let proxy = asked(&sends_to(0).then(&counts), &[("m", 10)]).await;
    let told = replay(&proxy, &[]).await;
    assert_eq!(told.code, Some(1), "{}", told.stdout);
    let differs = "use 1 of `state`: recorded add 1 to tur = ";
    assert!(told.stdout.contains("NON-DETERMINISTIC, 10 of them") && told.stdout.contains(differs), "{}", told.stdout);
    assert!(told.stdout.contains("; now add 1 to turn = "), "{}", told.stdout);
}

#[tokio::test]
async fn a_candidate_diverges_in_exactly_the_groups_it_should() {
    let counts = [10, 2, 3, 4, 5, 6, 7, 8, 9];
    let names: Vec<String> = (0..counts.len()).map(|i| format!("m{i}")).collect();
    let models: Vec<_> = names.iter().map(String::as_str).zip(counts).collect();
    let proxy = asked(&sends_to(0), &models).await;
    let store8 = |at: u32, value: u32| format!("(i32.store8 (i32.const {at}) (i32.const {value}))");
    let store = |at: u32, value: u32| format!("(i32.store (i32.const {at}) (i32.const {value}))");
    let candidate = sends_to(0)
        .for_model(1, &store(1032, 1))
        .for_model(2, &(store8(1024, 1) + &store(1032, 2)))
        .for_model(3, &(store8(1024, 3) + &store(1028, 7)))
        .for_model(4, &(store8(1044, 1) + &store(1048, 1_000)))
        .for_model(
            5,
            &(store8(1024, 4)
                + &store(1028, 429)
                + &[1032, 1040].map(|at| store(at, 768) + &store(at + 4, 4)).concat()),
        )
        .for_model(6, "unreachable")
        .for_model(7, "(call $note (i32.const 768) (i32.const 4))")
        .for_model(8, &(store8(1036, 1) + &store(1040, 0)));
    write(&proxy, "candidate.wasm", &candidate);
    let (report, code) = replayed(&proxy, &["--policy", "candidate.wasm", "--examples", "2"]).await;
    assert_eq!(code, Some(0), "a report is no failure");
    let divergences = &report["divergences"];
    let found: Vec<(&str, u64)> = divergences["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| (group["kind"].as_str().unwrap(), group["exchanges"].as_u64().unwrap()))
        .collect();
    let expected = [
        ("another model, primary", 9),
        ("notes only", 8),
        ("it fails (trap)", 7),
        ("primary -> reject", 6),
        ("limits, commit or resume only, primary", 5),
        ("primary -> wait", 4),
        ("primary -> fallback", 3),
        ("another backend, primary", 2),
    ];
    assert_eq!(found, expected, "{report:#}");
    let all: usize = counts.iter().sum();
    assert_eq!((&divergences["exchanges"], &divergences["differing"]), (&all.into(), &(all - 10).into()));
    let example = &divergences["groups"][4]["examples"][1];
    assert_eq!((&example["model"], &example["recorded"]["decision"]), (&"m4".into(), &"primary a".into()));
    assert_eq!(example["now"]["decision"], "primary a (first byte 1000 ms)");
    assert_eq!(divergences["groups"][0]["examples"].as_array().unwrap().len(), 2);

    let told = replay(&proxy, &["--policy", "candidate.wasm"]).await.stdout;
    assert!(told.contains("44 (81.48 %) diverge"), "{told}");
    assert!(told.contains("what followed would have been another history"), "{told}");
    assert!(told.contains("primary -> wait: 4 exchanges (7.41 %)"), "{told}");
}

#[tokio::test]
async fn only_the_first_other_decision_of_an_exchange_counts() {
    let failing = upstream().reply(status(500)).then(status(500)).then(chat("well")).start().await;
    let (proxy, _dir) = decided_by(&sends_to(0));
    let proxy = proxy.set("cooldown.base_ms", 1).backend(backend("a").primary(&failing));
    let mut proxy = proxy.backend(backend("b").primary(&failing).price("*", 1.0, 1.0)).start().await;
    assert_eq!(proxy.chat().send().await.says(), "well");
    proxy.sigterm();
    proxy.wait_exit().await;
    write(&proxy, "candidate.wasm", &sends_to(1));
    let (report, _) = replayed(&proxy, &["--policy", "candidate.wasm"]).await;
    assert_eq!(report["divergences"]["differing"], 1, "{report:#}");
    assert_eq!(report["questions"], 1, "what followed is not asked: {report:#}");
    let (own, code) = replayed(&proxy, &[]).await;
    assert!(only(&own, 1)["questions"].as_u64() >= Some(3), "{own:#}");
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn what_another_revision_reads_is_answered_as_it_was_recorded_or_counted() {
    let proxy = asked(&takes_turns(2), &[("m", 20)]).await;
    // The same decisions by the same turns, without the note.
    let quiet = WatPolicy::default().then(
        "(i32.store8 (i32.const 1028) (i32.const 1)) (i32.store (i32.const 1032) (i32.wrap_i64 (i64.rem_u
            (call $state_add (i32.const 768) (i32.const 4) (i64.const 1) (i64.const 0)) (i64.const 2))))",
    );
    // Reads first what nobody recorded.
    let curious = quiet.clone().then("(call $state_get (i32.const 768) (i32.const 3) (i32.const 904))");
    for (name, policy, unrecorded) in [("quiet.wasm", &quiet, 0), ("curious.wasm", &curious, 20)] {
        write(&proxy, name, policy);
        let (report, _) = replayed(&proxy, &["--policy", name]).await;
        let divergences = &report["divergences"];
        assert_eq!(divergences["groups"][0]["kind"], "notes only", "{report:#}");
        assert_eq!(divergences["groups"][0]["exchanges"], 20, "{report:#}");
        assert_eq!(divergences["state_not_recorded"], unrecorded, "{name} {report:#}");
        assert_eq!(divergences["fresh"]["differing"], 0, "{report:#}");
    }
}

#[tokio::test]
async fn failures_come_again_and_what_used_too_much_state_is_not_compared() {
    let hungry = "(i32.store (i32.const 900) (i32.const 0))
        (loop $again
            (drop (call $state_add (i32.const 768) (i32.const 4) (i64.const 1) (i64.const 0)))
            (i32.store (i32.const 900) (i32.add (i32.load (i32.const 900)) (i32.const 1)))
            (br_if $again (i32.lt_u (i32.load (i32.const 900)) (i32.const 300))))";
    let policy = sends_to(0).faulty_for_model(1).for_model(2, hungry);
    let proxy = asked(&policy, &[("m0", 60), ("m1", 4), ("m2", 3)]).await;
    let (report, code) = replayed(&proxy, &[]).await;
    let revision = only(&report, 67);
    assert_eq!((&revision["failed_again"], &revision["differing"]), (&4.into(), &0.into()), "{report:#}");
    assert_eq!(revision["not_compared"]["state"], 3, "{report:#}");
    assert_eq!(code, Some(0));
    assert!(replay(&proxy, &[]).await.stdout.contains("3 questions not compared: they used `state` more often"));
}

#[tokio::test]
async fn a_revision_that_is_not_kept_is_named_and_can_be_given() {
    let policy = takes_turns(2);
    let proxy = asked(&policy, &[("m", 5)]).await;
    let revision = revision_of(&policy.build());
    change(&proxy, "DELETE FROM policy_component");
    let told = replay(&proxy, &[]).await;
    assert!(told.stdout.contains(&format!("revision {revision}: 5 exchanges not replayed")), "{}", told.stdout);
    assert_eq!(told.code, Some(1), "nothing was compared");
    let told = replay(&proxy, &["--policy", &revision]).await;
    assert_eq!(told.code, Some(2));
    assert!(told.stderr.contains(&format!("revision {revision} is not kept in this store")), "{}", told.stderr);
    write(&proxy, "again.wasm", &policy);
    let (report, code) = replayed(&proxy, &["--policy", "again.wasm"]).await;
    is_exact(only(&report, 5));
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn settings_that_a_candidate_refuses_can_be_given() {
    let proxy = asked(&sends_to(0), &[("m", 5)]).await;
    write(&proxy, "demanding.wasm", &sends_to(1).wants_settings_of(10));
    let told = replay(&proxy, &["--policy", "demanding.wasm"]).await;
    assert_eq!(told.code, Some(1), "{}", told.stdout);
    assert!(
        told.stderr.contains("cannot be asked under the table and the settings") && told.stderr.contains("more"),
        "{}",
        told.stderr
    );
    assert!(told.stderr.contains("--settings FILE"), "{}", told.stderr);
    std::fs::write(proxy.dir().join("settings.json"), r#"{"patience": 7}"#).unwrap();
    let args = ["--policy", "demanding.wasm", "--settings", "settings.json"];
    let (report, code) = replayed(&proxy, &args).await;
    assert_eq!((&report["divergences"]["differing"], code), (&5.into(), Some(0)), "{report:#}");
    std::fs::write(proxy.dir().join("settings.json"), "[1]").unwrap();
    let told = replay(&proxy, &args).await;
    assert_eq!(told.code, Some(2));
    assert!(told.stderr.contains("as TOML or as a JSON object"), "{}", told.stderr);
}

#[tokio::test]
async fn wrong_usage_is_told_in_a_sentence() {
    let proxy = asked(&sends_to(0), &[("m", 2)]).await;
    let nothing = tempfile::tempdir().unwrap();
    let away = run(env!("CARGO_BIN_EXE_proxy-under-test"), nothing.path(), &["replay", "--store", "no.db"], &[]).await;
    assert_eq!(away.code, Some(2));
    assert!(away.stderr.contains("there is no store no.db"), "{}", away.stderr);
    let cases: [(&[&str], &str); 5] = [
        (
            &["--until", "2020-01-01"],
            "no exchange in the journal of pointsman.db ended in that time; it has those from 20",
        ),
        (&["--since", "soon"], "--since: `soon` is not understood"),
        (&["--since", "1h", "--until", "2h"], "--since must be before --until"),
        (&["--policy", "nowhere.wasm"], "there is no file nowhere.wasm, and it is no revision"),
        (&["--policy", "0123456789ab"], "revision 0123456789ab is not kept in this store"),
    ];
    for (args, words) in cases {
        let told = replay(&proxy, args).await;
        assert_eq!(told.code, Some(2), "{args:?} {}", told.stderr);
        assert!(told.stderr.contains(words), "{args:?} {}", told.stderr);
    }
    // A file that is no policy is a policy that was refused.
    std::fs::write(proxy.dir().join("text.wasm"), "hello").unwrap();
    let told = replay(&proxy, &["--policy", "text.wasm"]).await;
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("text.wasm is no policy that can be asked"), "{}", told.stderr);

    change(&proxy, "DELETE FROM trail");
    let told = replay(&proxy, &[]).await;
    assert_eq!(told.code, Some(2));
    assert!(told.stderr.contains("the journal of pointsman.db is empty"), "{}", told.stderr);
    change(&proxy, "PRAGMA user_version = 99");
    let told = replay(&proxy, &[]).await;
    assert_eq!(told.code, Some(2));
    assert!(told.stderr.contains("made by a newer Pointsman"), "{}", told.stderr);
}

#[tokio::test]
async fn the_configuration_names_the_store_and_a_running_proxy_is_not_in_the_way() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p").primary(&up)).start().await;
    for _ in 0..20 {
        proxy.chat().send().await;
    }
    proxy.wait_rows(20, "SELECT ended_us FROM trail").await;
    let args = ["replay", "--config", "pointsman.toml", "--json", "--since", "1h", "--policy", "default"];
    let finished = run(env!("CARGO_BIN_EXE_proxy-under-test"), proxy.dir(), &args, &[]).await;
    let report: Json = serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {}", finished.stderr));
    is_exact(only(&report, 20));
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "no progress bar where there is no terminal");
}
