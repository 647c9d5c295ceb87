//! A policy that is slow to compile holds up nothing and nobody: neither a rollback, a reload, a drain, another policy nor
//! the end; and what is in force afterwards is the newest that is good.

use http::Method;
use pointsman_tests::{
    Answer, CompileGate, HeldCompilation, Proxy, Upstream, backend, eventually, proxy, revision_of, sends_to, soon,
    takes_turns, upstream,
};
use tokio::task::JoinHandle;

struct Scene {
    proxy: Proxy,
    up: [Upstream; 2],
    file: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

/// A component in no cache, so that it is compiled.
fn fresh(policy: &[u8]) -> Vec<u8> {
    use std::hash::{BuildHasher, Hasher};
    let chance = std::hash::RandomState::new().build_hasher().finish().to_le_bytes();
    // A custom section without a name makes it another file.
    policy.iter().copied().chain([0, 9, 0]).chain(chance).collect()
}

fn first() -> Vec<u8> {
    fresh(&sends_to(0).build())
}

fn second() -> Vec<u8> {
    fresh(&sends_to(1).build())
}

async fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.wasm");
    std::fs::write(&file, sends_to(0).build()).unwrap();
    let up = [upstream().start().await, upstream().start().await];
    let proxy = proxy!().backend(backend("p1").primary(&up[0])).backend(backend("p2").primary(&up[1]));
    let proxy = proxy.policy_file(&file).set("server.drain_timeout_ms", 600_000).start().await;
    Scene { proxy, up, file, _dir: dir }
}

impl Scene {
    /// Uploads a policy whose compilation is held.
    async fn slow_upload(&self, component: Vec<u8>) -> (HeldCompilation, JoinHandle<Answer>) {
        self.slow_upload_beside(component, &[]).await
    }

    async fn slow_upload_beside(
        &self,
        component: Vec<u8>,
        others: &[&HeldCompilation],
    ) -> (HeldCompilation, JoinHandle<Answer>) {
        let gate = CompileGate::hold_next(self.proxy.dir());
        let upload = self.proxy.admin_request(Method::PUT, "/api/policy").body("application/wasm", component);
        let upload = tokio::spawn(upload.send());
        (gate.held_beside(others).await, upload)
    }

    async fn in_force(&self) -> String {
        self.proxy.policy().await["revision"].as_str().expect("a name").to_owned()
    }

    async fn serves(&self) {
        assert_eq!(self.proxy.chat().send().await.status, 200);
    }
}

#[tokio::test]
async fn a_newer_upload_is_in_force_at_once_and_ends_the_older_compilation() {
    let scene = scene().await;
    let (slow, late) = scene.slow_upload(first()).await;
    let newer = second();
    assert_eq!(scene.proxy.put_policy(newer.clone()).await.status, 200);
    assert_eq!(scene.in_force().await, revision_of(&newer));
    let refused = soon("the older upload's answer", late).await.unwrap();
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains(&revision_of(&newer)), "{}", refused.text());
    slow.ended().await;
    scene.serves().await;
    assert_eq!((scene.up[0].count(), scene.up[1].count()), (0, 1));
}

#[tokio::test]
async fn a_newer_upload_that_is_bad_leaves_the_older_its_turn() {
    let scene = scene().await;
    let older = second();
    let (slow, late) = scene.slow_upload(older.clone()).await;
    let bad = scene.proxy.put_policy(b"\0asm\x0d\0\x01\0garbage".to_vec()).await;
    assert_eq!(bad.status, 422, "{}", bad.text());
    assert!(slow.is_at_work());
    drop(slow);
    assert_eq!(soon("the older upload's answer", late).await.unwrap().status, 200);
    assert_eq!(scene.in_force().await, revision_of(&older));
    scene.serves().await;
    assert_eq!((scene.up[0].count(), scene.up[1].count()), (0, 1));
}

#[tokio::test]
async fn a_rollback_and_a_drain_wait_for_no_compilation() {
    let scene = scene().await;
    let before = scene.in_force().await;
    assert_eq!(scene.proxy.put_policy(second()).await.status, 200);
    let (slow, late) = scene.slow_upload(fresh(&takes_turns(2).build())).await;
    let drained = scene.proxy.admin_request(Method::POST, "/api/backends/p2/drain").send().await;
    assert_eq!(drained.status, 200);
    let went = scene.proxy.rollback(None).await;
    assert_eq!(went.status, 200, "{}", went.text());
    assert_eq!(scene.in_force().await, before);
    assert_eq!(soon("the upload's answer", late).await.unwrap().status, 409);
    slow.ended().await;
    assert_eq!(scene.in_force().await, before, "what was compiled before does not come after it");
    scene.serves().await;
    assert_eq!((scene.up[0].count(), scene.up[1].count()), (1, 0));
}

#[tokio::test]
async fn a_new_configuration_waits_for_no_policy_that_is_compiled() {
    let mut scene = scene().await;
    let slow_one = second();
    let gate = CompileGate::hold_next(scene.proxy.dir());
    std::fs::write(&scene.file, &slow_one).unwrap();
    scene.proxy.sighup();
    let slow = gate.held().await;
    scene.proxy.reconfigure("limits.max_attempts", 3);
    scene.proxy.sighup();
    scene.proxy.wait_log("the configuration", |l| (l["message"] == "configuration reloaded").then_some(())).await;
    assert!(slow.is_at_work(), "the same content is compiled on");
    drop(slow);
    let name = revision_of(&slow_one);
    scene.proxy.wait_policy("the file's policy", |policy| policy["revision"] == *name).await;
    scene.serves().await;
    assert_eq!((scene.up[0].count(), scene.up[1].count()), (0, 1));
}

#[tokio::test]
async fn a_configuration_that_comes_with_a_slow_policy_goes_before_it() {
    let mut scene = scene().await;
    let slow_one = second();
    let gate = CompileGate::hold_next(scene.proxy.dir());
    std::fs::write(&scene.file, &slow_one).unwrap();
    scene.proxy.reconfigure("limits.max_attempts", 3);
    scene.proxy.sighup();
    let slow = gate.held().await;
    scene.proxy.wait_log("the configuration", |l| (l["message"] == "configuration reloaded").then_some(())).await;
    let name = revision_of(&slow_one);
    drop(slow);
    scene.proxy.wait_policy("the file's policy", |policy| policy["revision"] == *name).await;
}

#[tokio::test]
async fn another_content_of_the_file_ends_the_compilation_of_the_one_before() {
    let scene = scene().await;
    let gate = CompileGate::hold_next(scene.proxy.dir());
    std::fs::write(&scene.file, first()).unwrap();
    scene.proxy.sighup();
    let slow = gate.held().await;
    let newer = second();
    std::fs::write(&scene.file, &newer).unwrap();
    scene.proxy.sighup();
    slow.ended().await;
    let name = revision_of(&newer);
    scene.proxy.wait_policy("the newer content", |policy| policy["revision"] == *name).await;
    assert_eq!(scene.proxy.told("policy refused"), 0);
    scene.serves().await;
    assert_eq!((scene.up[0].count(), scene.up[1].count()), (0, 1));
}

#[tokio::test]
async fn an_upload_goes_before_a_file_that_is_compiled_and_the_file_does_not_come_after_it() {
    let scene = scene().await;
    let gate = CompileGate::hold_next(scene.proxy.dir());
    std::fs::write(&scene.file, first()).unwrap();
    scene.proxy.sighup();
    let slow = gate.held().await;
    let upload = second();
    assert_eq!(scene.proxy.put_policy(upload.clone()).await.status, 200);
    slow.ended().await;
    eventually("a word", || (scene.proxy.told("is not put in force") > 0).then_some(())).await;
    scene.proxy.sighup();
    let nothing = |l: &serde_json::Value| l["message"] == "reload requested: nothing has changed";
    scene.proxy.wait_log("the look", |l| nothing(l).then_some(())).await;
    assert_eq!(scene.in_force().await, revision_of(&upload));
}

#[tokio::test]
async fn more_slow_policies_than_the_compiler_takes_give_way_to_the_newest() {
    let scene = scene().await;
    let mut slow: Vec<(HeldCompilation, JoinHandle<Answer>)> = Vec::new();
    for _ in 0..3 {
        let others: Vec<_> = slow.iter().map(|(held, _)| held).collect();
        let one = scene.slow_upload_beside(first(), &others).await;
        slow.push(one);
    }
    let newest = second();
    assert_eq!(scene.proxy.put_policy(newest.clone()).await.status, 200);
    assert_eq!(scene.in_force().await, revision_of(&newest));
    let mut answers = Vec::new();
    for (held, late) in slow {
        let answer = soon("an older upload's answer", late).await.unwrap();
        answers.push((answer.status.as_u16(), answer.text()));
        held.ended().await;
    }
    assert!(answers.iter().all(|(status, _)| [409, 422].contains(status)), "{answers:#?}");
    assert_eq!(scene.in_force().await, revision_of(&newest));
}

#[tokio::test]
async fn the_end_waits_for_no_compilation_and_takes_it_along() {
    let mut scene = scene().await;
    let (slow, _late) = scene.slow_upload(first()).await;
    let gate = CompileGate::hold_next(scene.proxy.dir());
    std::fs::write(&scene.file, second()).unwrap();
    scene.proxy.sighup();
    let slow_file = gate.held_beside(&[&slow]).await;
    scene.proxy.sigterm();
    assert!(scene.proxy.wait_exit().await.success());
    slow.ended().await;
    slow_file.ended().await;
}

#[tokio::test]
async fn a_start_that_compiles_ends_by_a_signal() {
    let mut scene = scene().await;
    scene.proxy.sigterm();
    assert!(scene.proxy.wait_exit().await.success());
    let gate = CompileGate::hold_next(scene.proxy.dir());
    std::fs::write(&scene.file, second()).unwrap();
    let binary = env!("CARGO_BIN_EXE_proxy-under-test");
    let mut starting = tokio::process::Command::new(binary);
    starting.current_dir(scene.proxy.dir()).env_clear().env("HOME", scene.proxy.dir()).kill_on_drop(true);
    starting.args(["serve", "--config", "pointsman.toml"]);
    starting.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut starting = starting.spawn().unwrap();
    let slow = gate.held().await;
    let pid = starting.id().expect("it runs").to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(soon("the end", starting.wait()).await.unwrap().success());
    slow.ended().await;
}

/// Stops a scene, and writes another content of its policy file that will be slow to compile at the next start.
async fn stopped_before_a_slow_start(scene: &mut Scene) -> (Vec<u8>, CompileGate) {
    scene.proxy.sigterm();
    assert!(scene.proxy.wait_exit().await.success());
    scene.proxy.reconfigure("policy.start_wait_ms", 50);
    let slow = second();
    std::fs::write(&scene.file, &slow).unwrap();
    (slow, CompileGate::hold_next(scene.proxy.dir()))
}

#[tokio::test]
async fn a_start_serves_with_the_last_policy_while_a_new_one_is_compiled() {
    let mut scene = scene().await;
    let before = scene.in_force().await;
    let (slow, gate) = stopped_before_a_slow_start(&mut scene).await;
    scene.proxy.restart().await;
    assert_eq!(scene.in_force().await, before);
    scene.serves().await;
    assert_eq!(scene.proxy.told("takes long to be compiled; until then another policy decides"), 1);
    // The one that was not awaited is given up, and the file is compiled again.
    drop(gate.held().await);
    let name = revision_of(&slow);
    scene.proxy.wait_policy("the new policy", |policy| policy["revision"] == *name).await;
    scene.serves().await;
    assert_eq!((scene.up[0].count(), scene.up[1].count()), (1, 1));
}

#[tokio::test]
async fn a_first_start_serves_with_the_embedded_policy_while_the_file_is_compiled() {
    let mut scene = scene().await;
    let (slow, gate) = stopped_before_a_slow_start(&mut scene).await;
    for name in ["pointsman.db", "pointsman.db-wal", "pointsman.db-shm"] {
        let _ = std::fs::remove_file(scene.proxy.dir().join(name));
    }
    scene.proxy.restart().await;
    assert_eq!(scene.proxy.policy().await["origin"], "embedded");
    scene.serves().await;
    drop(gate.held().await);
    let name = revision_of(&slow);
    let policy = scene.proxy.wait_policy("the new policy", |policy| policy["revision"] == *name).await;
    assert_eq!(policy["refusal"], serde_json::Value::Null);
}

#[tokio::test]
async fn where_nothing_else_may_decide_the_start_waits_for_the_policy() {
    let mut scene = scene().await;
    let (slow, gate) = stopped_before_a_slow_start(&mut scene).await;
    scene.proxy.reconfigure("policy.on_fault", "refuse");
    for name in ["pointsman.db", "pointsman.db-wal", "pointsman.db-shm"] {
        let _ = std::fs::remove_file(scene.proxy.dir().join(name));
    }
    let opened = async { drop(gate.held().await) };
    tokio::join!(scene.proxy.restart(), opened);
    assert_eq!(scene.in_force().await, revision_of(&slow));
}
