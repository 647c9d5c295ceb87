//! A shadow policy: asked beside the one in force, compared, and never in anybody's way.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pointsman_tests::{
    Proxy, ProxyBuilder, Upstream, WatPolicy, backend, chat, proxy, revision_of, sends_to, upstream,
};
use serde_json::Value;

/// Two backends, a policy that sends to the first, and a shadow's file.
struct Scene {
    proxy: Proxy,
    file: PathBuf,
    _dir: tempfile::TempDir,
    upstreams: [Upstream; 2],
}

/// Two primaries, of which the second is the dearer one.
async fn scene(shadow: &[u8], with: impl FnOnce(ProxyBuilder) -> ProxyBuilder) -> Scene {
    scene_at(2.0, shadow, with).await
}

/// The same, at this price of the second.
async fn scene_at(price: f64, shadow: &[u8], with: impl FnOnce(ProxyBuilder) -> ProxyBuilder) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let (live, file) = (dir.path().join("live.wasm"), dir.path().join("shadow.wasm"));
    std::fs::write(&live, sends_to(0).build()).unwrap();
    std::fs::write(&file, shadow).unwrap();
    let upstreams = [upstream().reply(chat("a")).start().await, upstream().reply(chat("b")).start().await];
    let builder = proxy!()
        .backend(backend("a").primary(&upstreams[0]).price("*", 1.0, 1.0))
        .backend(backend("b").primary(&upstreams[1]).price("*", price, 1.0))
        .policy_file(&live)
        .set("policy.shadow.file", file.display().to_string());
    let proxy = with(builder).start().await;
    Scene { proxy, file, _dir: dir, upstreams }
}

impl Scene {
    async fn wait(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.proxy.wait_policy(what, |policy| is_so(&policy["shadow"])).await["shadow"].clone()
    }

    async fn install(&self, component: &[u8]) {
        let revision = revision_of(component);
        self.wait("the shadow of the file", |shadow| shadow["revision"] == *revision).await;
    }

    async fn report(&self) -> Value {
        self.proxy.admin("/api/policy/shadow").send().await.json()
    }
}

fn endless() -> WatPolicy {
    sends_to(1).then("(if (i32.ne (local.get $prompt) (i32.const 1000)) (then (loop $l (br $l))))")
}

#[tokio::test]
async fn it_is_counted_where_it_differs_and_changes_nothing() {
    let shadow = sends_to(1).build();
    let s = scene(&shadow, |builder| builder).await;
    s.install(&shadow).await;
    for _ in 0..5 {
        let answer = s.proxy.chat().header("x-request-id", "looked-at").send().await;
        assert_eq!((answer.status.as_u16(), answer.says().as_str()), (200, "a"));
        assert_ne!(answer.header("x-pointsman-policy"), revision_of(&shadow));
    }
    let told = s.wait("five differences", |shadow| shadow["decisions"]["backend"] == 5).await;
    assert_eq!((&told["decisions"]["same"], &told["decisions"]["fault"]), (&0.into(), &0.into()));
    assert_eq!((&told["compared"], &told["different"], &told["different_share"]), (&5.into(), &5.into(), &1.0.into()));
    let report = s.report().await;
    let one = &report["divergences"][0];
    assert_eq!(
        (&one["kind"], &one["request_id"], &one["model"]),
        (&"backend".into(), &"looked-at".into(), &"m".into())
    );
    assert_eq!((&one["live"], &one["shadow"]), (&"primary to a".into(), &"primary to b".into()));
    assert_eq!(report["divergences"].as_array().unwrap().len(), 5);
    assert_eq!(s.proxy.metric("pointsman_policy_shadow_decisions_total{result=\"backend\"}").await, 5.0);
    assert_eq!((s.upstreams[0].count(), s.upstreams[1].count()), (5, 0), "what the upstreams saw");
    assert_eq!(s.proxy.policy().await["decisions"], 5, "the live policy's own");
}

/// Among equals chance chooses: another backend that is as good is listed, apart, and is no difference.
#[tokio::test]
async fn a_tie_is_no_difference() {
    let shadow = sends_to(1).build();
    let s = scene_at(1.0, &shadow, |builder| builder).await;
    s.install(&shadow).await;
    for _ in 0..3 {
        assert_eq!(s.proxy.chat().send().await.says(), "a");
    }
    let told = s.wait("three ties", |shadow| shadow["decisions"]["tie"] == 3).await;
    assert_eq!((&told["compared"], &told["different"], &told["different_share"]), (&3.into(), &0.into(), &0.0.into()));
    let report = s.report().await;
    assert_eq!(report["divergences"], Value::Array(Vec::new()));
    let ties = report["ties"].as_array().unwrap();
    assert_eq!((ties.len(), &ties[0]["kind"], &ties[0]["shadow"]), (3, &"tie".into(), &"primary to b".into()));
    assert_eq!(s.proxy.metric("pointsman_policy_shadow_decisions_total{result=\"tie\"}").await, 3.0);
}

#[tokio::test]
async fn the_same_decisions_are_no_differences() {
    let shadow = sends_to(0).then("nop").build();
    let s = scene(&shadow, |builder| builder).await;
    s.install(&shadow).await;
    for _ in 0..3 {
        s.proxy.chat().send().await;
    }
    s.wait("three answers", |shadow| shadow["decisions"]["same"] == 3).await;
    assert_eq!(s.report().await["divergences"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn one_that_loops_for_ever_costs_its_share_and_the_clients_nothing() {
    let shadow = endless().build();
    // Less than what patience with its faults lets it have, so that it is the share that runs out.
    const SHARE: f64 = 0.02;
    let s = scene(&shadow, |builder| builder.set("policy.shadow.core_share", SHARE)).await;
    s.install(&shadow).await;
    let begun = Instant::now();
    // Each batch waits for the shadow's thread, which gives way to all others: it comes to every question or drops it.
    let (mut asked, mut told) = (0, Value::Null);
    while told["dropped"]["share"].as_u64() <= Some(0) {
        for _ in 0..20 {
            assert_eq!(s.proxy.chat().send().await.says(), "a");
        }
        asked += 20;
        assert!(asked < 1_000, "its share is not used up: {told}");
        let sum = |of: &Value| of.as_object().map_or(0, |counts| counts.values().filter_map(Value::as_u64).sum());
        let come_to = |shadow: &Value| sum(&shadow["decisions"]) + sum(&shadow["dropped"]);
        told = s.wait("every question asked or dropped", |shadow| come_to(shadow) >= asked).await;
    }
    assert!(told["decisions"]["fault"].as_u64() > Some(0), "{told}");
    let ran = Duration::from_millis(told["ran_ms"].as_u64().unwrap());
    // What may be saved up, and one question on top.
    let most = begun.elapsed().mul_f64(SHARE) + Duration::from_millis(10 + 90);
    assert!(ran <= most, "{ran:?}, at most {most:?}");
    let one = &s.report().await["divergences"][0];
    assert_eq!(one["kind"], "fault");
    assert!(one["shadow"].as_str().unwrap().starts_with("policy fault (deadline)"), "{one}");
    let policy = s.proxy.policy().await;
    assert_eq!(
        (&policy["faults"], &policy["decisions"]),
        (&0.into(), &asked.into()),
        "none of them is the live policy's"
    );
    assert_eq!(s.upstreams[1].count(), 0);
}

#[tokio::test]
async fn another_file_is_another_shadow_and_a_bad_one_is_told_and_changes_nothing() {
    let (first, second) = (sends_to(0).then("nop").build(), sends_to(1).build());
    let mut s = scene(&first, |builder| builder).await;
    s.install(&first).await;
    std::fs::write(&s.file, b"nonsense").unwrap();
    let refused = s.wait("a refusal", |shadow| shadow["error"].is_string()).await;
    assert_eq!(refused["revision"], *revision_of(&first), "it goes on");
    assert!(refused["error"].as_str().unwrap().contains("shadow.wasm"), "{refused}");
    assert_eq!(s.proxy.metric("pointsman_policy_shadow_refused").await, 1.0);
    assert_eq!(s.proxy.metric("pointsman_reloads_total{what=\"shadow\",result=\"failed\"}").await, 1.0);
    assert_eq!(s.proxy.policy().await["last_error"], Value::Null, "nothing is wrong with the policy");
    s.proxy.chat().send().await;
    s.wait("the first one's answer", |shadow| shadow["decisions"]["same"] == 1).await;
    std::fs::write(&s.file, &second).unwrap();
    s.install(&second).await;
    let told = s.wait("no error", |shadow| shadow["error"].is_null()).await;
    assert_eq!(told["decisions"]["same"], 0, "another one's counts");
    s.proxy.chat().send().await;
    s.wait("the second one's answer", |shadow| shadow["decisions"]["backend"] == 1).await;

    // Another configuration: asked for the table there is now, and what was counted goes on.
    s.proxy.reconfigure("limits.max_attempts", 5);
    s.proxy.wait_log("the configuration", |l| (l["message"] == "configuration reloaded").then_some(())).await;
    let mut asked = 1;
    let goes_on = |shadow: &Value| shadow["decisions"]["backend"].as_u64() > Some(1);
    while !goes_on(&s.proxy.policy().await["shadow"]) {
        s.proxy.chat().send().await;
        asked += 1;
        assert!(asked < 1_000);
    }
}

#[tokio::test]
async fn it_has_settings_and_a_state_of_its_own() {
    let shadow = sends_to(1).wants_settings_of(12).build();
    let s = scene(&shadow, |builder| builder.setting("a", 1)).await;
    s.wait("a refusal", |shadow| shadow["error"].as_str().is_some_and(|e| e.contains("more"))).await;
    let own = scene(&shadow, |builder| builder.set("policy.shadow.settings.number", 1_000)).await;
    own.install(&shadow).await;
}

#[tokio::test]
async fn a_start_does_not_need_it() {
    let s = scene(b"nonsense", |builder| builder).await;
    assert_eq!(s.proxy.chat().send().await.says(), "a");
    s.wait("a refusal", |shadow| shadow["error"].is_string() && shadow["revision"].is_null()).await;
    let without = proxy!().backend(backend("a").primary(&s.upstreams[0])).start().await;
    assert_eq!(without.policy().await["shadow"], Value::Null);
    assert_eq!(without.admin("/api/policy/shadow").send().await.status, 404);
}
