//! Watching of files: one thread for all of them, and nothing that the store writes beside them wakes it.

use std::time::{Duration, Instant};

use pointsman_tests::{Proxy, backend, eventually, proxy, upstream};

/// Interval of the watcher's own look at the files.
const LOOK: Duration = Duration::from_secs(2);

/// Name of the watcher's thread.
const WATCHER: &str = "file-watch";

/// Returns the number of waits so far of each thread of this name.
fn waits(proxy: &Proxy, name: &str) -> Vec<u64> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    let folders = threads.map(|thread| thread.unwrap().path());
    let of_that_name = folders.filter(|folder| {
        // A thread may end meanwhile.
        std::fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    let waits = of_that_name.map(|folder| {
        let status = std::fs::read_to_string(folder.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse().unwrap()
    });
    waits.collect()
}

#[tokio::test]
async fn the_stores_writes_wake_the_watcher_of_files_0_times() {
    const BATCHES: usize = 40;
    let up = upstream().start().await;
    // As by default the store lies beside the configuration.
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(proxy.store_path().parent(), Some(proxy.dir()));
    assert_eq!(proxy.chat().send().await.status, 200);
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    let (began, before) = (Instant::now(), waits(&proxy, WATCHER));
    for n in 2..=BATCHES {
        assert_eq!(proxy.chat().send().await.status, 200);
        // Each is a batch of its own, and writes to the log.
        proxy.wait_rows(n, "SELECT id FROM exchanges").await;
    }
    let after = waits(&proxy, WATCHER);
    let looks = began.elapsed().as_secs() / LOOK.as_secs() + 2;
    let ([before], [after]) = (&before[..], &after[..]) else { panic!("one watcher: {before:?} {after:?}") };
    let woken = after - before;
    assert!(woken <= looks, "woken {woken} times beside {BATCHES} batches, {looks} of them looks at the files");
    // What it watches it still sees.
    let other = upstream().start().await;
    proxy.reconfigure_backends([backend("p2").primary(&other)]);
    eventually("the other configuration", || (proxy.told("configuration reloaded") == 1).then_some(())).await;
    assert_eq!(proxy.chat().send().await.status, 200);
    assert_eq!((up.count(), other.count()), (BATCHES, 1));
}

#[tokio::test]
async fn any_number_of_secrets_has_one_watcher_and_each_change_is_seen() {
    const SECRETS: usize = 60;
    let up = upstream().start().await;
    let dir = tempfile::tempdir().unwrap();
    let key = |n: usize| dir.path().join(format!("key-{n}"));
    let mut proxy = proxy!();
    for n in 0..SECRETS {
        std::fs::write(key(n), format!("sk-first-{n:05}\n")).unwrap();
        let one = backend(&format!("p{n}")).primary(&up).model(&format!("m{n}"), "m");
        proxy = proxy.backend(one.set("api_key", format!("file:{}", key(n).display())));
    }
    let proxy = proxy.start().await;
    let last = SECRETS - 1;
    for (n, told) in [(0, 1), (last, 2)] {
        std::fs::write(key(n), format!("sk-second-{n:05}\n")).unwrap();
        eventually("the key's change", || (proxy.told("configuration reloaded") == told).then_some(())).await;
        assert_eq!(proxy.chat_for(&format!("m{n}")).send().await.status, 200);
        let sent = up.seen().last().unwrap().header("authorization").map(str::to_owned);
        assert_eq!(sent, Some(format!("Bearer sk-second-{n:05}")));
    }
    assert_eq!(waits(&proxy, WATCHER).len(), 1);
}
