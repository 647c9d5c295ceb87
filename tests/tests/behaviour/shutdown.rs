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
