//! The journal outlives what happens to its process, its disk and its file; and it outlives its version.

use std::path::{Path, PathBuf};

use pointsman_tests::{Finished, Proxy, backend, chat, eventually, proxy, run, status, tokens, upstream};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

async fn explain(dir: &Path, args: &[&str]) -> Finished {
    run(BINARY, dir, &[&["explain"], args].concat(), &[]).await
}

async fn told(dir: &Path, id: &str) -> Value {
    let ended = explain(dir, &[id, "--json", "--store", "pointsman.db"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

async fn ask(proxy: &Proxy) -> String {
    let answer = proxy.chat().send().await;
    assert_eq!(answer.status, 200);
    answer.header("x-request-id").to_owned()
}

#[tokio::test]
async fn what_is_older_than_a_second_outlives_kill_9() {
    let well = upstream().reply(status(429).retry_after(60)).then(chat("hello")).start().await;
    let other = upstream().reply(chat("hello")).start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&well)).backend(backend("p2").primary(&other)).start().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(ask(&proxy).await);
    }
    let ended = tokio::time::Instant::now();
    proxy.wait_rows(20, "SELECT ended_us FROM trail").await;
    assert!(ended.elapsed() < std::time::Duration::from_secs(1), "kept after {:?}", ended.elapsed());
    for _ in 0..5 {
        ask(&proxy).await;
    }
    proxy.kill9().await;
    for id in &ids {
        assert_eq!(told(proxy.dir(), id).await["end"]["end"], "delivered");
    }
    let whole = proxy.rows("PRAGMA integrity_check");
    assert_eq!(whole, [json!({"integrity_check": "ok"})]);
    proxy.restart().await;
    let after = ask(&proxy).await;
    proxy.wait_rows(1, &format!("SELECT 1 FROM trail JOIN exchange USING (ended_us) WHERE id = '{after}'")).await;
}

#[tokio::test]
async fn a_full_disk_stops_the_journal_and_not_the_traffic() {
    let well = upstream().reply(chat("hello")).start().await;
    let proxy =
        proxy!().backend(backend("p1").primary(&well)).set("store.backlog", 200).max_file_blocks(2_048).start().await;
    let lost = async || proxy.metric("pointsman_journal_dropped_total").await;
    let mut asked = 0;
    let full = async || proxy.metric("pointsman_store_failed_batches_total").await >= 1.0;
    while !full().await || lost().await == 0.0 {
        for _ in 0..50 {
            ask(&proxy).await;
            asked += 1;
        }
        assert!(asked < 20_000, "the disk was never full");
    }
    for words in ["exchanges are not recorded", "their records wait in memory"] {
        proxy.wait_log(words, |line| line["message"].as_str().filter(|m| m.contains(words)).map(|_| ())).await;
    }
    assert!(
        proxy.told("exchanges are not recorded") <= 12,
        "the log tells of the first that is lost, then of doublings"
    );
    let written = proxy.metric("pointsman_journal_written_total").await;
    assert!(written > 0.0 && written + lost().await <= f64::from(asked), "{written} of {asked}");
    assert_eq!(proxy.rows("PRAGMA integrity_check"), [json!({"integrity_check": "ok"})]);
    assert_eq!(explain(proxy.dir(), &["last"]).await.code, Some(0), "what was written before is there");
}

#[tokio::test]
async fn a_locked_store_is_written_when_it_is_free_again() {
    let well = upstream().reply(chat("hello")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&well)).set("store.backlog", 30).start().await;
    let other = rusqlite::Connection::open(proxy.store_path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(ask(&proxy).await);
    }
    proxy
        .wait_log("the lock", |line| line["message"].as_str().filter(|m| m.contains("records wait")).map(|_| ()))
        .await;
    assert_eq!(proxy.metric("pointsman_journal_dropped_total").await, 20.0, "the backlog holds 30");
    assert_eq!(proxy.metric("pointsman_store_dropped_total").await, 20.0);
    other.execute_batch("ROLLBACK").unwrap();
    proxy.wait_rows(30, "SELECT ended_us FROM trail").await;
    for id in &ids[..30] {
        assert_eq!(told(proxy.dir(), id).await["end"]["end"], "delivered");
    }
    let lost = explain(proxy.dir(), &[&ids[49]]).await;
    assert!(lost.code == Some(1) && lost.stderr.contains("no exchange"), "{}", lost.stderr);
    let late = ask(&proxy).await;
    eventually("a store that is written again", || {
        let sql = format!("SELECT 1 FROM trail JOIN exchange USING (ended_us) WHERE id = '{late}'");
        Some(proxy.rows(&sql)).filter(|rows| !rows.is_empty())
    })
    .await;
}

/// Keeps the part of `explain --json` that later versions must not change; they may add to it, and change its words.
pub(crate) fn kept(told: &Value) -> Value {
    let of = |key: &str| told[key].clone();
    json!({
        "id": of("id"), "started": of("started"), "request": of("request"), "decisions": of("decisions"),
        "end": of("end"), "cost": of("cost"),
    })
}

/// Three exchanges, and what is told of them; `tests/journal/freeze` keeps the store.
#[tokio::test]
async fn a_store_to_be_frozen_is_whole() {
    let free =
        upstream().reply(status(429).retry_after(1)).then(chat("one")).then(status(429).retry_after(60)).start().await;
    let paid = upstream().reply(chat("two")).then(tokens(20).end_after(10)).then(tokens(20)).start().await;
    let mut proxy = proxy!()
        .backend(backend("free").primary(&free).price("m", 0.0, 0.0))
        .backend(backend("paid").fallback(&paid).price("m", 1.0, 2.0))
        .start()
        .await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(ask(&proxy).await);
    }
    let mut stream = proxy.chat_stream().stream().await;
    ids.push(stream.header("x-request-id").to_owned());
    stream.rest().await;
    proxy.wait_rows(3, "SELECT ended_us FROM trail").await;
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    let mut all = Vec::new();
    for id in &ids {
        all.push(kept(&told(proxy.dir(), id).await));
    }
    assert_eq!(all[0]["decisions"], json!(["primary free", "wait primary", "primary free"]));
    assert!(all[1]["decisions"].to_string().contains("fallback paid"), "{}", all[1]);
    assert_eq!(all[2]["end"]["end"], "delivered", "{}", all[2]);
    if let Some(folder) = std::env::var_os("POINTSMAN_FREEZE_JOURNAL") {
        let folder = PathBuf::from(folder);
        let kept = folder.join("pointsman.db");
        let whole = rusqlite::Connection::open(proxy.store_path()).unwrap();
        whole.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        std::fs::copy(proxy.store_path(), &kept).unwrap();
        // Four fifths of it are the component of the policy, which has fixtures of its own.
        let store = rusqlite::Connection::open(kept).unwrap();
        store
            .execute_batch(
                "DELETE FROM policy_component; DELETE FROM policy_revision; DELETE FROM policy_source; VACUUM",
            )
            .unwrap();
        std::fs::write(folder.join("told.json"), format!("{:#}\n", Value::Array(all))).unwrap();
    }
}

#[tokio::test]
async fn stores_of_every_published_version_are_told() {
    let versions = Path::new(env!("CARGO_MANIFEST_DIR")).join("journal");
    let mut found = 0;
    for version in std::fs::read_dir(versions).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(version.path().join("pointsman.db"), folder.path().join("pointsman.db")).unwrap();
        let then: Value = serde_json::from_slice(&std::fs::read(version.path().join("told.json")).unwrap()).unwrap();
        for then in then.as_array().unwrap() {
            let now = told(folder.path(), then["id"].as_str().unwrap()).await;
            assert_eq!(kept(&now), *then, "{}", version.path().display());
            assert!(now["events"].as_array().unwrap().iter().any(|event| event["what"] == "passed_over"));
        }
        found += 1;
    }
    assert!(found > 0);
}
