//! Policies and configurations that take each other's place while requests are served.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pointsman_tests::{
    Gate, Proxy, ProxyBuilder, Upstream, backend, chat, proxy, revision_of, sends_to, soon, tokens, upstream,
};

/// Two backends, told apart by what they say, and a policy file.
struct Scene {
    proxy: Proxy,
    file: PathBuf,
    dir: tempfile::TempDir,
    _upstreams: [Upstream; 2],
}

async fn scene(first: &[u8]) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.wasm");
    std::fs::write(&file, first).unwrap();
    let (builder, upstreams) = two_backends().await;
    Scene { proxy: builder.policy_file(&file).start().await, file, dir, _upstreams: upstreams }
}

async fn two_backends() -> (ProxyBuilder, [Upstream; 2]) {
    let [a, b] = [upstream().reply(chat("a")).start().await, upstream().reply(chat("b")).start().await];
    let builder = proxy!().backend(backend("a").primary(&a)).backend(backend("b").primary(&b));
    (builder, [a, b])
}

impl Scene {
    fn write(&self, component: &[u8]) {
        std::fs::write(&self.file, component).unwrap();
    }

    async fn taken(&self, component: &[u8]) {
        let revision = revision_of(component);
        self.proxy.wait_policy("the policy of the file", |policy| policy["revision"] == *revision).await;
    }

    async fn refused(&self, words: &str) {
        let is_refused = |policy: &serde_json::Value| policy["last_error"].as_str().is_some_and(|e| e.contains(words));
        self.proxy.wait_policy("a refusal", is_refused).await;
    }
}

#[tokio::test]
async fn a_policy_decides_and_the_next_one_decides_otherwise() {
    let (a, b) = (sends_to(0).build(), sends_to(1).build());
    let s = scene(&a).await;
    assert_eq!(s.proxy.chat().send().await.says(), "a");
    s.write(&b);
    s.taken(&b).await;
    let answer = s.proxy.chat().send().await;
    assert_eq!((answer.says().as_str(), answer.header("x-pointsman-policy")), ("b", revision_of(&b).as_str()));
    let policy = s.proxy.policy().await;
    assert_eq!(policy["origin"], s.file.display().to_string());
    let before = &policy["history"][1];
    assert_eq!((&before["revision"], &before["end"]), (&revision_of(&a).into(), &"replaced".into()));
    assert_eq!((&before["decisions"], &before["faults"]), (&1.into(), &0.into()));
    assert_eq!(policy["decisions"], 1);
}

#[tokio::test]
async fn a_file_written_in_pieces_is_judged_when_it_is_whole() {
    let (a, b) = (sends_to(0).build(), sends_to(1).build());
    let s = scene(&a).await;
    let mut file = std::fs::File::create(&s.file).unwrap();
    for piece in b.chunks(b.len() / 12) {
        std::io::Write::write_all(&mut file, piece).unwrap();
        for _ in 0..3 {
            assert_eq!(s.proxy.chat().send().await.says(), "a");
        }
    }
    s.taken(&b).await;
    assert_eq!(s.proxy.told("refused"), 0);
}

#[tokio::test]
async fn half_a_file_is_refused_once_and_the_whole_is_taken() {
    let (a, b) = (sends_to(0).build(), sends_to(1).build());
    let s = scene(&a).await;
    s.write(&b[..b.len() / 2]);
    s.refused("mine.wasm").await;
    // Neither a signal nor a touch is another reason to tell of it.
    s.proxy.sighup();
    s.proxy
        .wait_log("a word to who asked", |l| (l["message"] == "reload requested: nothing has changed").then_some(()))
        .await;
    s.write(&b[..b.len() / 2]);
    s.proxy.sighup();
    // A signal's look does not wait for a quiet file: it must be over before the next write.
    pointsman_tests::eventually("another look", || (s.proxy.told("reload requested") == 2).then_some(())).await;
    assert_eq!(s.proxy.chat().send().await.says(), "a");
    s.write(&b);
    s.taken(&b).await;
    assert_eq!(s.proxy.told("refused; the previous one stays"), 1);
    assert_eq!(s.proxy.metric("pointsman_reloads_total{what=\"policy\",result=\"failed\"}").await, 1.0);
    assert_eq!(s.proxy.policy().await["last_error"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_bad_file_put_back_to_the_good_one_is_forgiven() {
    let a = sends_to(0).build();
    let s = scene(&a).await;
    s.write(b"nonsense");
    s.refused("mine.wasm").await;
    assert!(s.proxy.admin("/readyz").send().await.text().contains("GET /api/policy says why"));
    assert_eq!(s.proxy.metric("pointsman_policy_refused").await, 1.0);
    s.write(&a);
    s.proxy.wait_policy("no error", |policy| policy["last_error"].is_null()).await;
    assert_eq!(s.proxy.admin("/readyz").send().await.json()["warnings"], serde_json::json!([]));
}

#[tokio::test]
async fn a_file_that_goes_is_told_once_and_taken_when_it_returns() {
    let (a, b) = (sends_to(0).build(), sends_to(1).build());
    let s = scene(&a).await;
    std::fs::remove_file(&s.file).unwrap();
    s.refused("No such file").await;
    s.proxy.sighup();
    assert_eq!(s.proxy.chat().send().await.says(), "a");
    s.write(&a);
    s.proxy.wait_policy("no error", |policy| policy["last_error"].is_null()).await;
    std::fs::remove_file(&s.file).unwrap();
    s.refused("No such file").await;
    s.write(&b);
    s.taken(&b).await;
    assert_eq!(s.proxy.told("refused; the previous one stays"), 2, "once for each time it went");
}

#[tokio::test]
async fn links_are_swapped_as_kubernetes_does() {
    let (a, b) = (sends_to(0).build(), sends_to(1).build());
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (version, component) in [("..v1", &a), ("..v2", &b)] {
        std::fs::create_dir(at(version)).unwrap();
        std::fs::write(at(version).join("mine.wasm"), component).unwrap();
    }
    symlink("..v1", at("..data")).unwrap();
    symlink("..data/mine.wasm", at("mine.wasm")).unwrap();
    let (builder, _upstreams) = two_backends().await;
    let proxy = builder.policy_file(&at("mine.wasm")).start().await;
    assert_eq!(proxy.chat().send().await.says(), "a");
    symlink("..v2", at("..tmp")).unwrap();
    std::fs::rename(at("..tmp"), at("..data")).unwrap();
    std::fs::remove_dir_all(at("..v1")).unwrap();
    proxy.wait_policy("the swapped one", |policy| policy["revision"] == *revision_of(&b)).await;
    assert_eq!(proxy.chat().send().await.says(), "b");
}

#[tokio::test]
async fn an_upload_is_in_force_when_it_is_answered_and_is_called_one() {
    let (a, b) = (sends_to(0).build(), sends_to(1).build());
    let s = scene(&a).await;
    let answer = s.proxy.put_policy(b.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let policy = answer.json();
    assert_eq!((&policy["revision"], &policy["origin"]), (&revision_of(&b).into(), &"upload".into()));
    assert_eq!(policy["history_error"], serde_json::Value::Null);
    assert_eq!(s.proxy.chat().send().await.says(), "b");
    let kept = s.proxy.rows("SELECT revision, origin, ended FROM policies WHERE ended IS NULL");
    assert_eq!((&kept[0]["revision"], &kept[0]["origin"]), (&revision_of(&b).into(), &"upload".into()));
    let refused = s.proxy.put_policy(&b"nonsense"[..]).await;
    assert_eq!(refused.status, 422);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("uploaded policy is refused"));
    assert_eq!(s.proxy.chat().send().await.says(), "b");
    assert_eq!(s.proxy.put_policy(b).await.json()["last_error"], serde_json::Value::Null);
}

#[tokio::test]
async fn an_upload_that_cannot_be_written_down_is_in_force_and_says_so() {
    let (a, b) = (sends_to(0).build(), sends_to(1).build());
    let s = scene(&a).await;
    let other = rusqlite::Connection::open(s.proxy.store_path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let policy = s.proxy.put_policy(b.clone()).await.json();
    assert_eq!(policy["revision"], *revision_of(&b));
    assert!(policy["history_error"].as_str().unwrap().contains("locked"), "{policy}");
    assert_eq!(s.proxy.chat().send().await.says(), "b");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(s.proxy.put_policy(a).await.json()["history_error"], serde_json::Value::Null);
    let b_is_written = format!("SELECT sha256 FROM policy_component WHERE sha256 LIKE '{}%'", revision_of(&b));
    assert_eq!(s.proxy.rows(&b_is_written).len(), 1, "what could not be written is written with the next change");
    assert_eq!(s.proxy.rollback(None).await.json()["to"], *revision_of(&b));
}

#[tokio::test]
async fn what_is_too_large_is_refused_in_one_sentence() {
    let a = sends_to(0).build();
    let s = scene(&a).await;
    let answer = s.proxy.put_policy(vec![0; (64 << 20) + 1]).await;
    assert_eq!(answer.status, 413);
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("at most 67108864 bytes"), "{message}");
    // A sparse file: reading it would take a while.
    std::fs::OpenOptions::new().write(true).open(&s.file).unwrap().set_len(1 << 40).unwrap();
    s.refused("at most 67108864").await;
    assert_eq!(s.proxy.chat().send().await.says(), "a");
}

#[tokio::test]
async fn an_exchange_stays_with_its_revision_and_frees_it_when_it_ends() {
    let (a, b) = (sends_to(0).build(), sends_to(1).build());
    let gate = Gate::new();
    let slow = upstream().reply(tokens(3).gated(&gate)).start().await;
    let fast = upstream().reply(chat("b")).start().await;
    let proxy = proxy!().backend(backend("a").primary(&slow)).backend(backend("b").primary(&fast)).start().await;
    assert_eq!(proxy.put_policy(a.clone()).await.status, 200);
    let freed = |policy: &serde_json::Value| (policy["live_revisions"].as_u64(), policy["instances"].as_u64());
    proxy.wait_policy("one revision", |policy| freed(policy).0 == Some(1)).await;
    gate.pass(1);
    let mut stream = proxy.chat_stream().stream().await;
    stream.next().await.unwrap();
    assert_eq!(proxy.put_policy(b).await.status, 200);
    proxy.wait_policy("its instances are not needed, it is", |policy| freed(policy) == (Some(2), Some(1))).await;
    assert_eq!(proxy.chat().send().await.says(), "b");
    assert_eq!(stream.header("x-pointsman-policy"), revision_of(&a));
    gate.open();
    assert!(stream.rest().await.last().unwrap().data().contains("[DONE]"));
    proxy.wait_policy("the old one is freed", |policy| freed(policy) == (Some(1), Some(1))).await;
    assert_eq!(proxy.metric("pointsman_policy_revisions").await, 1.0);
}

#[tokio::test]
async fn a_configuration_that_the_policy_refuses_is_refused() {
    let a = sends_to(0).wants_settings_of(10).build();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.wasm");
    std::fs::write(&file, &a).unwrap();
    let (builder, _upstreams) = two_backends().await;
    let mut proxy = builder.policy_file(&file).setting("word", "long enough").start().await;
    proxy.reconfigure("policy.settings", toml_table(&[]));
    proxy.wait_log("the refusal", |l| l["error"].as_str()?.contains("more").then_some(())).await;
    assert_eq!(proxy.policy().await["settings"]["word"], "long enough");
    proxy.reconfigure("policy.settings", toml_table(&[("other", "long enough too")]));
    proxy.wait_policy("the new settings", |policy| policy["settings"]["other"] == "long enough too").await;
    assert_eq!(proxy.told("refused; the previous one stays"), 1);
}

/// Each alone would be refused: the new policy wants the settings, and neither is there a moment before the other.
#[tokio::test]
async fn a_policy_and_the_settings_it_needs_come_together_in_either_order() {
    let (old, new) = (sends_to(0).build(), sends_to(1).wants_settings_of(10).build());
    let s = scene(&old).await;
    let mut proxy = s.proxy;
    std::fs::write(&s.file, &new).unwrap();
    proxy.wait_log("the refusal", |l| l["error"].as_str()?.contains("mine.wasm").then_some(())).await;
    proxy.reconfigure("policy.settings", toml_table(&[("word", "long enough")]));
    proxy.wait_policy("both", |policy| policy["revision"] == *revision_of(&new)).await;
    let policy = proxy.policy().await;
    assert_eq!((&policy["settings"]["word"], &policy["last_error"]), (&"long enough".into(), &serde_json::Value::Null));
    drop(s.dir);
}

fn toml_table(settings: &[(&str, &str)]) -> toml::Table {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
}

/// Returns true if the memory after is within 5 % of the memory before.
fn is_level(before_kib: u64, after_kib: u64) -> bool {
    after_kib * 100 <= before_kib * 105
}

/// The proof: swaps as fast as they are taken, under load. `POINTSMAN_SWAPS=10000` for the long run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_swaps_fail_no_request_misroute_none_and_leak_nothing() {
    const CONNECTIONS: usize = 64;
    let swaps: usize = std::env::var("POINTSMAN_SWAPS").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    let components = [sends_to(0).build(), sends_to(1).build()];
    let backend_of = |revision: &str| match components.iter().position(|c| revision_of(c) == revision) {
        Some(0) => "a",
        Some(_) => "b",
        None => panic!("{revision} is neither"),
    };
    // Each exchange sees several swaps come and go.
    let slow = |text: &str| chat(text).slow_head(Duration::from_millis(50));
    let [a, b] = [upstream().reply(slow("a")).start().await, upstream().reply(slow("b")).start().await];
    let proxy = proxy!().backend(backend("a").primary(&a)).backend(backend("b").primary(&b));
    let proxy = proxy.set("log.exchanges", false).start().await;
    let swap = async |from: usize, to: usize| {
        for n in from..to {
            let answer = proxy.put_policy(components[n % 2].clone()).await;
            assert_eq!(answer.json()["revision"], *revision_of(&components[n % 2]), "swap {n}");
        }
    };
    swap(0, 2).await;
    let over = std::sync::atomic::AtomicBool::new(false);
    let ask = async |_| {
        let mut asked = 0;
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            let answer = proxy.chat().send().await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let told = (answer.header("x-pointsman-backend"), answer.says());
            let by = backend_of(answer.header("x-pointsman-policy"));
            assert_eq!((told.0, told.1.as_str()), (by, by));
            asked += 1;
        }
        asked
    };
    let began = std::time::Instant::now();
    let work = async {
        let mut done = (swaps / 5).max(500);
        swap(2, done).await;
        // What grows with use and not with time (connections, stacks, the allocator's arenas) is there after a while; a
        // leak grows for ever.
        let mut rounds = Vec::new();
        while rounds.len() < 4 && rounds.last().is_none_or(|&(before, after)| !is_level(before, after)) {
            let before = proxy.resident_kib();
            swap(done, done + swaps).await;
            done += swaps;
            rounds.push((before, proxy.resident_kib()));
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        rounds
    };
    let (asked, rounds) = futures_util::join!(futures_util::future::join_all((0..CONNECTIONS).map(ask)), work);
    let (asked, took) = (asked.iter().sum::<u64>(), began.elapsed());
    println!("rounds of {swaps} swaps, {asked} requests in {took:?}; resident before and after (KiB): {rounds:?}");
    assert!(asked > 0 && rounds.last().is_some_and(|&(before, after)| is_level(before, after)), "{rounds:?} KiB");
    let policy = proxy.wait_policy("one revision", |policy| policy["live_revisions"] == 1).await;
    assert_eq!((&policy["faults"], policy["history"].as_array().unwrap().len()), (&0.into(), 3));
    assert_eq!(proxy.metric("pointsman_reloads_total{what=\"policy\",result=\"failed\"}").await, 0.0);
}

#[tokio::test]
async fn the_file_may_be_named_by_a_path_relative_to_the_configuration() {
    let (a, b) = (sends_to(0).build(), sends_to(1).build());
    let (builder, _upstreams) = two_backends().await;
    let mut proxy = builder.start().await;
    std::fs::write(proxy.dir().join("mine.wasm"), &a).unwrap();
    proxy.reconfigure("policy.file", "mine.wasm");
    proxy.wait_policy("the file's", |policy| policy["revision"] == *revision_of(&a)).await;
    std::fs::write(proxy.dir().join("mine.wasm"), &b).unwrap();
    proxy.wait_policy("the file's", |policy| policy["revision"] == *revision_of(&b)).await;
    proxy.reconfigure("policy.file", "missing.wasm");
    proxy.wait_log("the refusal", |l| l["error"].as_str()?.contains("missing.wasm").then_some(())).await;
    assert_eq!(soon("an answer", proxy.chat().send()).await.says(), "b");
    assert!(Path::new(proxy.policy().await["origin"].as_str().unwrap()).ends_with("mine.wasm"));
}
