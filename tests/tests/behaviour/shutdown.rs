//! An end has an end of its own: after the drain's limit everybody under way is told, and nothing is waited for any longer.

use pointsman_tests::{Answer, Gate, backend, chat, eventually, proxy, silence, soon, tokens, upstream};
use tokio::task::JoinHandle;

/// Longer than any test waits.
const LONG_MS: i64 = 600_000;

async fn told(request: JoinHandle<Answer>) -> (u16, String) {
    let answer = soon("an answer", request).await.expect("the request is sent");
    (answer.status.as_u16(), answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn who_waits_at_the_end_of_the_drain_is_told_so_and_recorded_as_that() {
    let up = upstream().reply(silence()).start().await;
    let one = backend("p1").primary(&up).max_concurrency(1);
    let mut proxy = proxy!().backend(one).setting("primary_wait_ms", LONG_MS).set("limits.max_wait_ms", LONG_MS);
    proxy = proxy.set("server.drain_timeout_ms", 200);
    let mut proxy = proxy.start().await;
    let under_way = tokio::spawn(proxy.chat().send());
    eventually("a request at the upstream", || (up.count() == 1).then_some(())).await;
    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(proxy.chat().send())).collect();
    proxy.wait_backends("\"waiting\":3").await;
    proxy.sigterm();
    for request in waiting {
        assert_eq!(told(request).await, (503, "shutting_down".to_owned()));
    }
    assert_eq!(told(under_way).await, (503, "shutting_down".to_owned()), "also whose upstream had not answered yet");
    assert!(proxy.wait_exit().await.success());
    assert_eq!(up.count(), 1, "no waiter was sent");
    let rows = proxy.rows("SELECT status, \"end\", error FROM exchanges");
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!((&row["status"], &row["end"]), (&503.into(), &"rejected".into()), "{row}");
        assert!(row["error"].as_str().unwrap().contains("shutting down"), "{row}");
    }
}

#[tokio::test]
async fn a_stream_that_waits_and_an_upload_under_way_are_told_too() {
    let up = upstream().reply(silence()).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).max_concurrency(1)).set("stream.keepalive_ms", 20);
    let proxy = proxy.setting("primary_wait_ms", LONG_MS).set("limits.max_wait_ms", LONG_MS);
    let mut proxy = proxy.set("server.drain_timeout_ms", 400).start().await;
    let _under_way = tokio::spawn(proxy.chat().send());
    eventually("a request at the upstream", || (up.count() == 1).then_some(())).await;
    let mut stream = proxy.chat_stream().stream().await;
    let mut upload = pointsman_tests::RawConnection::open(proxy.addr()).await;
    upload.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{").await;
    proxy.wait_backends("\"waiting\":1").await;
    proxy.sigterm();
    let last = stream.rest().await.pop().expect("an event");
    assert!(last.data().contains("shutting down") && stream.ended_in_order(), "{last:?}");
    let answer = String::from_utf8(upload.read_to_end().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("shutting_down"), "{answer}");
    assert!(proxy.wait_exit().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_tells_whom_it_cuts() {
    let up = upstream().reply(tokens(5).stall_after(1)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.drain_timeout_ms", LONG_MS);
    let mut proxy = proxy.start().await;
    let mut stream = proxy.chat_stream().stream().await;
    stream.next().await.unwrap();
    proxy.sigterm();
    proxy.wait_log("the drain", |l| (l["message"] == "draining").then_some(())).await;
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success(), "nothing was lost");
    let last = stream.rest().await.pop().expect("an event");
    assert!(last.data().contains("shutting down") && stream.ended_in_order(), "{last:?}");
    assert_eq!(proxy.rows("SELECT \"end\" FROM exchanges")[0]["end"], "broken");
}

#[tokio::test]
async fn who_is_answered_within_the_drain_is_not_told_otherwise() {
    let gate = Gate::new();
    let up = upstream().reply(chat("served").gated_head(&gate)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).max_concurrency(1));
    let proxy = proxy.setting("primary_wait_ms", LONG_MS).set("limits.max_wait_ms", LONG_MS);
    let mut proxy = proxy.set("server.drain_timeout_ms", LONG_MS).start().await;
    let first = tokio::spawn(proxy.chat().send());
    eventually("a request at the upstream", || (up.count() == 1).then_some(())).await;
    let waiting = tokio::spawn(proxy.chat().send());
    proxy.wait_backends("\"waiting\":1").await;
    proxy.sigterm();
    proxy.wait_log("the drain", |l| (l["message"] == "draining").then_some(())).await;
    gate.open();
    for request in [first, waiting] {
        assert_eq!(soon("an answer", request).await.unwrap().says(), "served");
    }
    assert!(proxy.wait_exit().await.success());
    assert_eq!((up.count(), proxy.rows("SELECT id FROM exchanges WHERE status = 200").len()), (2, 2));
}

/// A log of which nothing is read behind the first lines.
struct UnreadLog {
    child: tokio::process::Child,
    dir: tempfile::TempDir,
    addr: String,
    _stderr: tokio::io::BufReader<tokio::process::ChildStderr>,
}

/// A proxy whose log nobody reads any more once it listens.
async fn with_unread_log(up: &pointsman_tests::Upstream, more: &str) -> UnreadLog {
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{more}[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = \"pointsman.db\"\n\
         [[backend]]\nid = \"p1\"\nbase_url = \"{}\"\napi_key = \"key-of-p1-12345\"\n",
        up.url()
    );
    std::fs::write(dir.path().join("pointsman.toml"), config).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_proxy-under-test"));
    command.arg("serve").current_dir(dir.path()).env_clear().env("HOME", dir.path());
    command.env("XDG_CACHE_HOME", std::env::temp_dir().join("pointsman-tests-cache"));
    let mut child = command.stderr(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stderr.take().unwrap()));
    let addr = soon("it listens", async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it goes on");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == "listening" {
                return line["addr"].as_str().unwrap().to_owned();
            }
        }
    })
    .await;
    UnreadLog { child, dir, addr, _stderr: lines.into_inner() }
}

impl UnreadLog {
    /// More requests than a pipe takes lines of.
    async fn ask(&self, requests: usize) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for _ in 0..requests {
            let body = r#"{"model":"a-model-with-a-name-that-makes-long-lines-in-the-log","messages":[{"role":"user","content":"hi"}]}"#;
            let request = http.post(format!("http://{}/v1/chat/completions", self.addr));
            let answer = soon("an answer", request.header("content-type", "application/json").body(body).send()).await;
            assert_eq!(answer.unwrap().status(), 200);
        }
    }

    fn signal(&self) {
        let pid = i32::try_from(self.child.id().expect("it runs")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end() {
    let up = upstream().start().await;
    let mut proxy = with_unread_log(&up, &format!("drain_timeout_ms = {LONG_MS}\n")).await;
    proxy.ask(400).await;
    proxy.signal();
    let ended = soon("its end", proxy.child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(0), "nothing is lost but lines of the log");
    let store = rusqlite::Connection::open(proxy.dir.path().join("pointsman.db")).unwrap();
    let rows: i64 = store.query_row("SELECT count(*) FROM exchanges", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 400);
}

/// Another program's lock on the store, so that what is recorded from now on cannot be written.
fn locked(proxy: &UnreadLog) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(proxy.dir.path().join("pointsman.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

#[tokio::test]
async fn an_end_that_hangs_on_its_last_word_is_forced() {
    let up = upstream().start().await;
    let mut proxy = with_unread_log(&up, &format!("drain_timeout_ms = {LONG_MS}\n")).await;
    proxy.ask(400).await;
    let _lock = locked(&proxy);
    proxy.ask(1).await;
    proxy.signal();
    // It complains of the record that is lost, to a reader that reads nothing.
    assert_eq!(soon("its end", proxy.child.wait()).await.unwrap().code(), Some(1), "something is lost");
}

#[tokio::test]
async fn a_second_signal_forces_an_end_that_hangs() {
    let gate = Gate::new();
    let hanging = gate.clone();
    let up = upstream().handler(move |seen, _| match seen.json()["model"] == "hangs" {
        true => chat("never").gated_head(&hanging),
        false => chat("hello"),
    });
    let up = up.start().await;
    let mut proxy = with_unread_log(&up, &format!("drain_timeout_ms = {LONG_MS}\n")).await;
    proxy.ask(400).await;
    let _lock = locked(&proxy);
    let mut under_way = pointsman_tests::RawConnection::open(proxy.addr.parse().unwrap()).await;
    let body = r#"{"model":"hangs","messages":[{"role":"user","content":"hi"}]}"#;
    let length = body.len();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    under_way.write(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes()).await;
    up.wait_seen(401).await;
    proxy.signal();
    // The drain goes on for as long as the exchange does, or ten minutes.
    eventually("it listens no more", || std::net::TcpStream::connect(&proxy.addr).is_err().then_some(())).await;
    proxy.signal();
    assert_eq!(soon("its end", proxy.child.wait()).await.unwrap().code(), Some(1), "its record is lost");
}

#[tokio::test]
async fn questions_to_the_record_that_do_not_end_do_not_hold_up_the_end() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(proxy.chat().send().await.status, 200);
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    let other = rusqlite::Connection::open(proxy.store_path()).unwrap();
    let columns: String = other
        .query_row("SELECT group_concat(name, ', ') FROM pragma_table_info('exchanges')", [], |row| row.get(0))
        .unwrap();
    other
        .execute_batch(&format!(
            "ALTER TABLE exchange RENAME TO kept; DROP VIEW exchanges; ALTER TABLE kept RENAME TO exchange;
             CREATE VIEW exchanges AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
             SELECT {columns} FROM (SELECT *, strftime('%Y', started_ms / 1000.0, 'unixepoch') AS started FROM exchange), n WHERE i < 0"
        ))
        .unwrap();
    drop(other);
    let asked: Vec<_> = (0..40).map(|_| tokio::spawn(proxy.admin("/api/exchanges").send())).collect();
    eventually("more than may wait", || asked.iter().any(JoinHandle::is_finished).then_some(())).await;
    assert_eq!(proxy.chat().send().await.status, 200, "nobody waits for them");
    assert_eq!(proxy.admin("/healthz").send().await.status, 200);
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success(), "they are interrupted, and nothing is lost");
    let mut refused = 0;
    for one in asked {
        refused += usize::from(soon("an answer", one).await.is_ok_and(|answer| answer.status == 503));
    }
    assert!(refused >= 6, "{refused}: two are answered and 32 wait");
}
