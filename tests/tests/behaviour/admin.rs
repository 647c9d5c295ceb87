//! The operator's listener.

use pointsman_tests::{Answer, Proxy, backend, chat, forget_sums, proxy, status, upstream};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn health_and_readiness_are_told() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(proxy.admin("/healthz").send().await.status, 200);
    assert_eq!(proxy.admin("/readyz").send().await.status, 200);
    assert_eq!(proxy.admin("/no-such-page").send().await.status, 404);
}

#[tokio::test]
async fn metrics_count_exchanges_attempts_tokens_and_money() {
    let up = upstream().reply(status(429).header("retry-after-ms", 50)).then(chat("hi")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).price("m", 1.0, 1.0)).start().await;
    proxy.chat().send().await;
    let answer = proxy.admin("/metrics").send().await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.lines().any(|l| l.starts_with("# TYPE pointsman_")), "{text}");
    let counted = |words: &[&str]| text.lines().any(|l| !l.starts_with('#') && words.iter().all(|w| l.contains(w)));
    assert!(counted(&["pointsman", "_total", "rate_limited", "p1", " 1"]), "{text}");
    assert!(counted(&["pointsman", "_total", "answered", "p1", " 1"]), "{text}");
    assert!(counted(&["pointsman", "tokens", "11"]), "{text}");
    assert!(!text.contains("key-of-p1"));
}

#[tokio::test]
async fn backends_policy_and_usage_are_told_as_json() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).rpm(40)).start().await;
    let answer = proxy.chat().send().await;
    let backends = proxy.admin("/api/backends").send().await;
    assert!(backends.text().contains("\"p1\"") && backends.text().contains("ready"), "{}", backends.text());
    let policy = proxy.admin("/api/policy").send().await;
    assert!(policy.text().contains(answer.header("x-pointsman-policy")), "{}", policy.text());
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    let usage = proxy.admin("/api/usage").send().await;
    assert_eq!(usage.status, 200);
    assert!(usage.text().contains("11"), "{}", usage.text());
    for told in [backends, policy, usage] {
        told.json();
        assert!(!told.text().contains("key-of-p1"));
    }
}

#[tokio::test]
async fn a_token_keeps_the_admin_listener_closed() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("admin.token", "env:ADMIN");
    let proxy = proxy.env("ADMIN", "open-sesame").start().await;
    for path in ["/metrics", "/api/backends", "/api/policy", "/api/usage"] {
        assert_eq!(proxy.admin(path).send().await.status, 401, "{path}");
        assert_eq!(proxy.admin(path).bearer("wrong").send().await.status, 401, "{path}");
        assert_eq!(proxy.admin(path).bearer("open-sesame").send().await.status, 200, "{path}");
    }
    assert_eq!(proxy.admin("/healthz").send().await.status, 200, "a probe carries no token");
}

#[tokio::test]
async fn one_line_of_the_log_tells_of_each_exchange() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let id = proxy.chat().send().await.header("x-request-id").to_owned();
    proxy.wait_log("the exchange's line", |l| l.to_string().contains(&id).then_some(())).await;
    assert_eq!(proxy.output().iter().filter(|l| l.contains(&id)).count(), 1);
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens_and_a_watcher_does_not_hold_up_the_end() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let mut watched = proxy.admin("/api/events").stream().await;
    assert_eq!(watched.header("content-type"), "text/event-stream");
    let id = proxy.chat().send().await.header("x-request-id").to_owned();
    let told = watched.next().await.unwrap();
    assert!(told.text.starts_with("event: exchange\n"), "{}", told.text);
    assert_eq!((&told.json()["request_id"], &told.json()["backend"]), (&id.into(), &"p1".into()));
    proxy.put_policy("not a component").await;
    let told = watched.next().await.unwrap();
    assert!(told.text.starts_with("event: change\n") && told.json()["what"] == "policy", "{}", told.text);
    assert!(told.json()["error"].as_str().is_some_and(|why| !why.is_empty()), "{}", told.data());
    proxy.sigterm();
    assert!(watched.next().await.is_none());
    assert!(proxy.wait_exit().await.success());
}

/// A record of this many exchanges takes tenths of a second to sum.
const LONG_RECORD: u32 = 300_000;

#[tokio::test]
async fn questions_that_nobody_waits_for_stop_neither_traffic_nor_the_end() {
    const ABANDONED: usize = 700;
    let up = upstream().reply(chat("hi")).start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    proxy.chat().send().await;
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    multiply_exchanges(&proxy.store_path(), LONG_RECORD);
    let question = "GET /api/usage?since=3650d&group=model HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for _ in 0..ABANDONED {
        let mut socket = TcpStream::connect(proxy.admin_addr()).await.unwrap();
        socket.write_all(question.as_bytes()).await.unwrap();
    }
    assert_eq!(proxy.chat().send().await.status, 200);
    assert_eq!(up.count(), 2);
    let asked = eventually_answered(&proxy).await;
    let counted = asked.json()["total"]["requests"].as_u64().unwrap();
    assert!(counted > u64::from(LONG_RECORD), "those who wait get their answer: {counted}");
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
}

/// Multiplies the one exchange of the store.
fn multiply_exchanges(store: &std::path::Path, n: u32) {
    let store = rusqlite::Connection::open(store).unwrap();
    store.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    let mut columns = store.prepare("SELECT name FROM pragma_table_info('exchange') WHERE name <> 'ended_us'").unwrap();
    let columns: Vec<String> = columns.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let columns = columns.join(", ");
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})
         INSERT INTO exchange (ended_us, {columns}) SELECT ended_us - i, {columns} FROM n, (SELECT * FROM exchange LIMIT 1)"
    );
    assert_eq!(store.execute(&sql, []).unwrap(), n as usize);
    forget_sums(&store);
}

/// Asks for the usage until the line has room.
async fn eventually_answered(proxy: &Proxy) -> Answer {
    loop {
        let answer = proxy.admin("/api/usage?since=3650d&group=model").send().await;
        if answer.status == 200 {
            return answer;
        }
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"), "{}", answer.text());
    }
}
