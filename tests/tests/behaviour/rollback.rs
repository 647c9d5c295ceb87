//! Going back to an earlier policy, and what a restart comes up with.

use std::path::PathBuf;

use pointsman_tests::{Proxy, ProxyBuilder, Upstream, backend, chat, proxy, revision_of, sends_to, upstream};
use serde_json::{Value, json};

struct Scene {
    proxy: Proxy,
    file: PathBuf,
    _dir: tempfile::TempDir,
    _upstreams: [Upstream; 2],
}

async fn scene(first: &[u8], with: impl FnOnce(ProxyBuilder) -> ProxyBuilder) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.wasm");
    std::fs::write(&file, first).unwrap();
    let [a, b] = [upstream().reply(chat("a")).start().await, upstream().reply(chat("b")).start().await];
    let builder = proxy!().backend(backend("a").primary(&a)).backend(backend("b").primary(&b)).policy_file(&file);
    let proxy = with(builder).start().await;
    Scene { proxy, file, _dir: dir, _upstreams: [a, b] }
}

impl Scene {
    async fn write(&self, component: &[u8]) {
        std::fs::write(&self.file, component).unwrap();
        let revision = revision_of(component);
        self.proxy.wait_policy("the policy of the file", |policy| policy["revision"] == *revision).await;
    }

    async fn in_force(&self) -> String {
        let revision = self.proxy.policy().await["revision"].as_str().unwrap().to_owned();
        assert_eq!(self.proxy.chat().send().await.header("x-pointsman-policy"), revision);
        revision
    }

    async fn restart(&mut self) {
        self.proxy.kill9().await;
        self.proxy.restart().await;
    }

    /// Looks at the files, and at nothing new.
    async fn look_again(&self) {
        let said = self.proxy.told("reload requested");
        self.proxy.sighup();
        pointsman_tests::eventually("a look", || (self.proxy.told("reload requested") > said).then_some(())).await;
    }
}

fn error(policy: &Value) -> &str {
    policy["last_error"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn the_operator_goes_back_and_the_untouched_file_stays_back() {
    let [a, b, c] = [sends_to(0).build(), sends_to(1).build(), sends_to(1).then("nop").build()];
    let mut s = scene(&a, |builder| builder).await;
    let nothing = s.proxy.rollback(None).await;
    assert_eq!(nothing.status, 409);
    assert!(nothing.json()["error"]["message"].as_str().unwrap().contains("no earlier policy revision"));
    s.write(&b).await;
    let back = s.proxy.rollback(None).await.json();
    assert_eq!((&back["from"], &back["to"]), (&revision_of(&b).into(), &revision_of(&a).into()));
    assert_eq!((&back["revision"], &back["history"][1]["end"]), (&revision_of(&a).into(), &"rolled_back".into()));
    s.look_again().await;
    std::fs::write(&s.file, &b).unwrap();
    s.look_again().await;
    assert_eq!(s.in_force().await, revision_of(&a), "the same bytes are no change");
    s.restart().await;
    assert_eq!(s.in_force().await, revision_of(&a), "nor after a restart");
    assert_eq!(s.proxy.rollback(None).await.status, 409, "what was left is not gone back to by itself");
    s.write(&c).await;
    assert_eq!(s.proxy.metric("pointsman_policy_rollbacks_total{why=\"operator\"}").await, 0.0, "since the start");
}

#[tokio::test]
async fn any_kept_revision_can_be_named() {
    let [a, b, c] = [sends_to(0).build(), sends_to(1).build(), sends_to(1).then("nop").build()];
    let mut s = scene(&a, |builder| builder).await;
    s.write(&b).await;
    s.write(&c).await;
    let unknown = s.proxy.rollback(Some("0123456789ab")).await;
    assert_eq!(unknown.status, 404);
    let message = unknown.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!([&a, &b, &c].iter().all(|kept| message.contains(&revision_of(kept))), "{message}");
    assert_eq!(s.proxy.rollback(Some(&revision_of(&c))).await.status, 409);
    s.restart().await;
    // Its code is no longer in memory; the component comes from the store, not from the file.
    let back = s.proxy.rollback(Some(&revision_of(&a))).await;
    assert_eq!(back.json()["to"], *revision_of(&a), "{}", back.text());
    assert_eq!(s.proxy.chat().send().await.says(), "a");
    assert_eq!(s.proxy.rollback(Some(&revision_of(&c))).await.json()["to"], *revision_of(&c));
    assert_eq!(s.proxy.metric("pointsman_policy_rollbacks_total{why=\"operator\"}").await, 2.0);
    let wrong = s.proxy.admin_request(http::Method::POST, "/api/policy/rollback?two=1").send().await;
    assert_eq!((wrong.status.as_u16(), wrong.text().contains("takes only to")), (400, true));
}

fn strict(builder: ProxyBuilder) -> ProxyBuilder {
    builder.set("policy.rollback.first_decisions", 40).set("policy.rollback.fault_permille", 100)
}

#[tokio::test]
async fn a_policy_that_never_works_goes_back_by_itself_and_stays_back() {
    let (good, bad) = (sends_to(0).build(), sends_to(1).faulty().build());
    let mut s = scene(&good, strict).await;
    s.write(&bad).await;
    // The native fallback decides meanwhile: nobody notices.
    for _ in 0..5 {
        assert_eq!(s.proxy.chat().send().await.status, 200);
    }
    let policy = s.proxy.wait_policy("the good one", |policy| policy["revision"] == *revision_of(&good)).await;
    assert!(error(&policy).contains("5 of its first 5 decisions failed"), "{policy}");
    assert!(error(&policy).contains("unreachable"), "the fault itself is told: {policy}");
    let left = &policy["history"][1];
    assert_eq!((&left["end"], &left["faults"], &left["decisions"]), (&"faults".into(), &5.into(), &5.into()));
    s.proxy.wait_log("the rollback", |l| l["to"].as_str().filter(|to| *to == revision_of(&good)).map(|_| ())).await;
    assert_eq!(s.proxy.told("the policy failed too often"), 1);
    assert_eq!(s.proxy.metric("pointsman_policy_rollbacks_total{why=\"faults\"}").await, 1.0);

    s.look_again().await;
    std::fs::remove_file(&s.file).unwrap();
    s.proxy.wait_policy("the removal", |policy| error(policy).contains("No such file")).await;
    std::fs::write(&s.file, &bad).unwrap();
    s.look_again().await;
    assert_eq!(s.in_force().await, revision_of(&good), "the same bytes are not taken again");
    s.restart().await;
    assert_eq!(s.in_force().await, revision_of(&good), "nor after a restart");
    let taken = s.proxy.rollback(Some(&revision_of(&bad))).await;
    assert_eq!(taken.json()["revision"], *revision_of(&bad), "unless the operator says so: {}", taken.text());
    for _ in 0..5 {
        s.proxy.chat().send().await;
    }
    s.proxy.wait_policy("the good one", |policy| policy["revision"] == *revision_of(&good)).await;
    assert_eq!(s.proxy.put_policy(bad.clone()).await.json()["revision"], *revision_of(&bad));
}

#[tokio::test]
async fn a_given_up_file_that_returns_after_another_is_refused_with_what_to_do() {
    let [good, bad, other] = [sends_to(0).build(), sends_to(1).faulty().build(), sends_to(1).build()];
    let s = scene(&good, strict).await;
    s.write(&bad).await;
    for _ in 0..5 {
        s.proxy.chat().send().await;
    }
    s.proxy.wait_policy("the good one", |policy| policy["revision"] == *revision_of(&good)).await;
    s.write(&other).await;
    std::fs::write(&s.file, &bad).unwrap();
    let to = format!("rollback?to={}", revision_of(&bad));
    s.proxy.wait_policy("what to do", |policy| error(policy).contains(&to)).await;
    assert_eq!(s.in_force().await, revision_of(&other));
}

#[tokio::test]
async fn a_policy_that_stops_working_goes_back_to_the_last_one() {
    let (good, bad) = (sends_to(0).build(), sends_to(1).faulty_for_model(1).build());
    let rule = |builder: ProxyBuilder| {
        let rule = builder.set("policy.rollback.first_decisions", 1).set("policy.rollback.window_faults", 3);
        rule.set("policy.rollback.window_ms", 3_600_000)
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.wasm");
    std::fs::write(&file, &good).unwrap();
    let up = upstream().start().await;
    let models = |id: &str| backend(id).primary(&up).model("m", "m").model("n", "n");
    let proxy = rule(proxy!().backend(models("a")).backend(models("b")).policy_file(&file)).start().await;
    std::fs::write(&file, &bad).unwrap();
    proxy.wait_policy("the file's", |policy| policy["revision"] == *revision_of(&bad)).await;
    for model in ["m", "m", "n", "n", "m"] {
        assert_eq!(proxy.chat_for(model).send().await.status, 200);
    }
    assert_eq!(proxy.policy().await["revision"], *revision_of(&bad), "two are lived with");
    proxy.chat_for("n").send().await;
    let policy = proxy.wait_policy("the good one", |policy| policy["revision"] == *revision_of(&good)).await;
    assert!(error(&policy).contains("3 of its decisions failed within"), "{policy}");
}

#[tokio::test]
async fn without_an_earlier_one_a_faulty_policy_stays_and_it_is_told_once() {
    let bad = sends_to(1).faulty().build();
    let s = scene(&bad, strict).await;
    for _ in 0..20 {
        assert_eq!(s.proxy.chat().send().await.status, 200);
    }
    s.proxy.wait_policy("the reason", |policy| error(policy).contains("no earlier one to go back to")).await;
    assert_eq!(s.in_force().await, revision_of(&bad));
    s.proxy.wait_log("a word", |l| l["message"].as_str()?.contains("it stays").then_some(())).await;
    assert_eq!(s.proxy.told("it stays in force, and the default policy decides"), 1);
    assert_eq!(s.proxy.metric("pointsman_policy_rollbacks_total{why=\"stayed\"}").await, 1.0);
}

#[tokio::test]
async fn going_back_by_itself_can_be_switched_off() {
    let (good, bad) = (sends_to(0).build(), sends_to(1).faulty().build());
    let s = scene(&good, |builder| strict(builder).set("policy.rollback.enabled", false)).await;
    s.write(&bad).await;
    for _ in 0..50 {
        assert_eq!(s.proxy.chat().send().await.status, 200);
    }
    let policy = s.proxy.policy().await;
    assert_eq!((&policy["revision"], &policy["faults"]), (&revision_of(&bad).into(), &json!(50)));
}

#[tokio::test]
async fn a_restart_with_a_bad_file_comes_up_with_what_was_in_force() {
    let [a, b, c] = [sends_to(0).build(), sends_to(1).build(), sends_to(0).then("nop").build()];
    let mut s = scene(&a, |builder| builder).await;
    s.write(&b).await;
    s.proxy.kill9().await;
    for bad in [Some(&b"nonsense"[..]), None] {
        match bad {
            Some(bad) => std::fs::write(&s.file, bad).unwrap(),
            None => std::fs::remove_file(&s.file).unwrap(),
        }
        s.proxy.restart().await;
        let policy = s.proxy.policy().await;
        assert_eq!(policy["revision"], *revision_of(&b));
        assert!(error(&policy).contains("mine.wasm"), "{policy}");
        assert_eq!(s.proxy.chat().send().await.says(), "b");
        let ready = s.proxy.admin("/readyz").send().await;
        assert_eq!((ready.status.as_u16(), ready.json()["warnings"].as_array().unwrap().len()), (200, 1));
        assert_eq!(s.proxy.told("the policy that should be in force cannot be used"), 1);
        assert_eq!(s.proxy.metric("pointsman_policy_refused").await, 1.0);
        s.look_again().await;
        assert_eq!(s.proxy.told("refused; the previous one stays"), 0, "told already");
        s.proxy.kill9().await;
    }
    std::fs::write(&s.file, &c).unwrap();
    s.proxy.restart().await;
    assert_eq!(s.in_force().await, revision_of(&c));
    assert_eq!(s.proxy.policy().await["history"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn an_upload_outlives_a_restart_until_the_file_changes() {
    let [a, b, c] = [sends_to(0).build(), sends_to(1).build(), sends_to(0).then("nop").build()];
    let mut s = scene(&a, |builder| builder).await;
    assert_eq!(s.proxy.chat().send().await.says(), "a");
    assert_eq!(s.proxy.put_policy(b.clone()).await.status, 200);
    s.look_again().await;
    s.restart().await;
    let policy = s.proxy.policy().await;
    assert_eq!((&policy["revision"], &policy["origin"]), (&revision_of(&b).into(), &"upload".into()));
    assert_eq!(policy["last_error"], Value::Null, "nothing is wrong");
    s.proxy.kill9().await;
    std::fs::write(&s.file, &c).unwrap();
    s.proxy.restart().await;
    assert_eq!(s.in_force().await, revision_of(&c), "the newer intention");
}

#[tokio::test]
async fn a_restart_names_the_upload_that_refuses_the_new_settings() {
    let (of_file, upload) = (sends_to(0).build(), sends_to(1).wants_settings_of(12).build());
    let mut s = scene(&of_file, |builder| builder.setting("more", 100)).await;
    assert_eq!(s.proxy.put_policy(upload.clone()).await.status, 200);
    s.proxy.kill9().await;
    s.proxy.reconfigure("policy.settings.more", 1);
    s.proxy.restart().await;
    assert_eq!(s.in_force().await, revision_of(&of_file));
    let policy = s.proxy.policy().await;
    let which = format!("the policy that was in force, revision {} (upload), cannot be used: ", revision_of(&upload));
    assert!(policy["history"][1]["why"].as_str().is_some_and(|why| why.starts_with(&which)), "{policy}");
}

#[tokio::test]
async fn an_orderly_end_keeps_what_was_counted() {
    let (a, b) = (sends_to(0).build(), sends_to(1).build());
    let mut s = scene(&a, |builder| builder).await;
    s.write(&b).await;
    for _ in 0..3 {
        s.proxy.chat().send().await;
    }
    s.proxy.sigterm();
    s.proxy.wait_exit().await;
    s.proxy.restart().await;
    s.proxy.chat().send().await;
    assert_eq!(s.proxy.policy().await["decisions"], 4);
}

#[tokio::test]
async fn a_way_back_by_name_says_nothing_about_what_the_file_holds() {
    let [a, b, c] = [sends_to(0).build(), sends_to(1).build(), sends_to(1).then("nop").build()];
    let mut s = scene(&a, |builder| builder).await;
    s.write(&b).await;
    assert_eq!(s.proxy.rollback(None).await.status, 200);
    s.write(&c).await;
    assert_eq!(s.proxy.rollback(None).await.json()["to"], *revision_of(&a));
    assert_eq!(s.proxy.rollback(Some(&revision_of(&b))).await.status, 200);
    s.look_again().await;
    assert_eq!(s.in_force().await, revision_of(&b), "the file is untouched");
    s.restart().await;
    assert_eq!(s.in_force().await, revision_of(&b), "nor after a restart");
}
