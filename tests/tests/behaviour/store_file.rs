//! Records while the store's file is locked, deleted or replaced: none is lost without a word.

use pointsman_tests::{Proxy, backend, eventually, proxy, sends_to, upstream};
use rusqlite::Connection;

async fn asked(proxy: &Proxy, n: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..n {
        let answer = proxy.chat().send().await;
        assert_eq!(answer.status, 200);
        ids.push(answer.header("x-request-id").to_owned());
    }
    ids
}

fn recorded(proxy: &Proxy) -> Vec<String> {
    proxy.rows("SELECT id FROM exchanges ORDER BY id").iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect()
}

/// The warnings of `/readyz`, which stays 200.
async fn warnings(proxy: &Proxy) -> String {
    let answer = proxy.admin("/readyz").send().await;
    assert_eq!(answer.status, 200);
    answer.json()["warnings"].to_string()
}

async fn wait_warnings(proxy: &Proxy, words: &str, is_there: bool) {
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
    let told = async {
        while warnings(proxy).await.contains(words) != is_there {
            ticks.tick().await;
        }
    };
    pointsman_tests::soon(words, told).await;
}

#[tokio::test]
async fn a_store_that_is_locked_at_the_end_says_how_many_records_are_lost() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let kept = asked(&proxy, 1).await;
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    let other = Connection::open(proxy.store_path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    asked(&proxy, 7).await;
    // Some are with the writer, some still wait for it.
    eventually("a batch that fails", || (proxy.told("the store cannot be written") > 0).then_some(())).await;
    asked(&proxy, 5).await;
    wait_warnings(&proxy, "the store cannot be written", true).await;
    proxy.sigterm();
    assert_eq!(proxy.wait_exit().await.code(), Some(1));
    eventually("the count", || (proxy.told("12 exchanges are not written and lost") > 0).then_some(())).await;
    assert_eq!(proxy.told("0 exchanges"), 0);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(recorded(&proxy), kept);
}

#[tokio::test]
async fn a_lock_that_ends_in_time_loses_nothing_and_is_no_failure() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let other = Connection::open(proxy.store_path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ids = asked(&proxy, 3).await;
    eventually("a batch that fails", || (proxy.told("the store cannot be written") > 0).then_some(())).await;
    other.execute_batch("ROLLBACK").unwrap();
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    assert_eq!(recorded(&proxy).len(), ids.len());
}

#[tokio::test]
async fn a_file_that_is_deleted_is_noticed_and_begun_anew_with_the_policies_in_it() {
    let up = [upstream().start().await, upstream().start().await];
    let proxy = proxy!().backend(backend("p1").primary(&up[0])).backend(backend("p2").primary(&up[1]));
    let mut proxy = proxy.start().await;
    assert_eq!(proxy.put_policy(sends_to(1).build()).await.status, 200);
    let revision = proxy.policy().await["revision"].clone();
    asked(&proxy, 1).await;
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    for name in ["pointsman.db", "pointsman.db-wal", "pointsman.db-shm"] {
        std::fs::remove_file(proxy.dir().join(name)).unwrap();
    }
    // Also where nothing is written.
    eventually("a word", || (proxy.told("was deleted or moved away while Pointsman is running") > 0).then_some(()))
        .await;
    eventually("the new file", || (proxy.told("the store is open again") > 0).then_some(())).await;
    let after = asked(&proxy, 2).await;
    proxy.wait_rows(2, "SELECT id FROM exchanges").await;
    assert_eq!(recorded(&proxy), after, "what was in the old file is gone, and nothing after it");
    let shown = proxy.admin("/api/exchanges").send().await.text();
    assert!(after.iter().all(|id| shown.contains(id.as_str())), "{shown}");
    assert_eq!(proxy.told("was deleted"), 1, "told once");
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    proxy.restart().await;
    assert_eq!(proxy.policy().await["revision"], revision, "the upload is in the new file too");
    assert_eq!(up[1].count(), 3);
}

#[tokio::test]
async fn a_file_that_is_replaced_by_something_else_is_not_touched_and_records_wait() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    asked(&proxy, 1).await;
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    let text = "a diary, and no store".repeat(500);
    std::fs::write(proxy.dir().join("diary"), &text).unwrap();
    std::fs::rename(proxy.dir().join("diary"), proxy.store_path()).unwrap();
    wait_warnings(&proxy, "the store cannot be written", true).await;
    let waiting = asked(&proxy, 2).await;
    assert_eq!(std::fs::read_to_string(proxy.store_path()).unwrap(), text);
    std::fs::remove_file(proxy.store_path()).unwrap();
    wait_warnings(&proxy, "the store cannot be written", false).await;
    proxy.wait_rows(2, "SELECT id FROM exchanges").await;
    assert_eq!(recorded(&proxy), waiting);
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
}

#[tokio::test]
async fn a_policy_that_is_uploaded_while_there_is_no_store_is_in_the_next_one() {
    let up = [upstream().start().await, upstream().start().await];
    let proxy = proxy!().backend(backend("p1").primary(&up[0])).backend(backend("p2").primary(&up[1]));
    let mut proxy = proxy.start().await;
    asked(&proxy, 1).await;
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    std::fs::write(proxy.dir().join("diary"), "a diary, and no store".repeat(500)).unwrap();
    std::fs::rename(proxy.dir().join("diary"), proxy.store_path()).unwrap();
    wait_warnings(&proxy, "the store cannot be written", true).await;
    assert_eq!(proxy.put_policy(sends_to(1).build()).await.status, 200);
    eventually("a word", || (proxy.told("the policies are not written to the store") > 0).then_some(())).await;
    std::fs::remove_file(proxy.store_path()).unwrap();
    wait_warnings(&proxy, "the store cannot be written", false).await;
    let revision = proxy.policy().await["revision"].clone();
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    proxy.restart().await;
    assert_eq!(proxy.policy().await["revision"], revision);
}

#[tokio::test]
async fn a_file_that_is_emptied_is_noticed_and_begun_anew() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    asked(&proxy, 1).await;
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    std::fs::write(proxy.store_path(), "").unwrap();
    eventually("a word", || (proxy.told("was emptied while Pointsman is running") > 0).then_some(())).await;
    eventually("the new file", || (proxy.told("the store is open again") > 0).then_some(())).await;
    let after = asked(&proxy, 2).await;
    proxy.wait_rows(2, "SELECT id FROM exchanges").await;
    assert_eq!(recorded(&proxy).len(), after.len());
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
}

/// Copies this over the store's file, which stays the same one.
fn copy_over(proxy: &Proxy, from: &std::path::Path) {
    std::fs::copy(from, proxy.store_path()).unwrap();
}

#[tokio::test]
async fn a_copy_of_another_store_over_the_file_is_noticed_and_gone_on_with() {
    let up = upstream().start().await;
    let mut other = proxy!().backend(backend("p1").primary(&up)).start().await;
    let of_other = asked(&other, 3).await;
    other.sigterm();
    assert!(other.wait_exit().await.success());
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    asked(&proxy, 2).await;
    proxy.wait_rows(2, "SELECT id FROM exchanges").await;
    copy_over(&proxy, &other.store_path());
    eventually("a word", || (proxy.told("was overwritten while Pointsman is running") > 0).then_some(())).await;
    eventually("the new content", || (proxy.told("the store is open again") > 0).then_some(())).await;
    let after = asked(&proxy, 2).await;
    proxy.wait_rows(5, "SELECT id FROM exchanges").await;
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    let mut expected = [of_other, after].concat();
    expected.sort();
    assert_eq!(recorded(&proxy), expected, "what is in the copy, and what came after it");
    assert_eq!(proxy.rows("PRAGMA integrity_check")[0]["integrity_check"], "ok");
}

#[tokio::test]
async fn a_backup_of_the_same_store_over_the_file_is_noticed_too() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let kept = asked(&proxy, 2).await;
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    let backup = proxy.dir().join("backup.db");
    std::fs::copy(proxy.store_path(), &backup).unwrap();
    assert_eq!(
        Connection::open(&backup)
            .unwrap()
            .query_row("SELECT count(*) FROM exchanges", [], |row| row.get::<_, i64>(0))
            .unwrap(),
        2,
        "after the end the file is whole without what lies beside it"
    );
    proxy.restart().await;
    asked(&proxy, 3).await;
    proxy.wait_rows(5, "SELECT id FROM exchanges").await;
    copy_over(&proxy, &backup);
    eventually("the old content", || (proxy.told("the store is open again") > 0).then_some(())).await;
    let after = asked(&proxy, 1).await;
    proxy.wait_rows(3, "SELECT id FROM exchanges").await;
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    let mut expected = [kept, after].concat();
    expected.sort();
    assert_eq!(recorded(&proxy), expected);
}

#[tokio::test]
async fn a_log_of_the_store_that_is_deleted_loses_nothing_and_is_told() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let mut ids = asked(&proxy, 3).await;
    proxy.wait_rows(3, "SELECT id FROM exchanges").await;
    std::fs::remove_file(proxy.dir().join("pointsman.db-wal")).unwrap();
    eventually("a word", || (proxy.told("was robbed of its -wal or -shm file") > 0).then_some(())).await;
    eventually("it is open", || (proxy.told("the store is open again") > 0).then_some(())).await;
    ids.extend(asked(&proxy, 2).await);
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    ids.sort();
    assert_eq!(recorded(&proxy), ids);
}

#[tokio::test]
async fn a_log_of_the_store_that_is_cut_is_told_as_lost() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    asked(&proxy, 3).await;
    proxy.wait_rows(3, "SELECT id FROM exchanges").await;
    std::fs::write(proxy.dir().join("pointsman.db-wal"), "").unwrap();
    eventually("a word", || (proxy.told("the records that were written last are lost") > 0).then_some(())).await;
    eventually("it is open", || (proxy.told("the store is open again") > 0).then_some(())).await;
    let after = asked(&proxy, 2).await;
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    assert_eq!(recorded(&proxy).len(), after.len());
}
