//! Ends, orderly and not, and what the next start still knows.

use pointsman_tests::{Gate, backend, chat, proxy, status, tokens, upstream};

#[tokio::test]
async fn kill_9_loses_nothing_that_is_older_than_a_second() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(proxy.chat().send().await.header("x-request-id").to_owned());
    }
    let ended = std::time::Instant::now();
    let second = ended + std::time::Duration::from_millis(1_000);
    tokio::time::sleep_until(second.into()).await;
    proxy.kill9().await;
    let mut kept: Vec<_> = proxy.rows("SELECT id FROM exchanges");
    kept.retain(|r| ids.iter().any(|id| r["id"] == id.as_str()));
    assert_eq!(kept.len(), ids.len());
    assert_eq!(proxy.rows("PRAGMA integrity_check")[0]["integrity_check"], "ok");
    proxy.restart().await;
    assert_eq!(proxy.chat().send().await.status, 200);
}

#[tokio::test]
async fn cooldowns_are_kept_over_a_restart() {
    let up = upstream().reply(status(429).retry_after(120)).start().await;
    let paid = upstream().reply(chat("paid")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("f1").fallback(&paid));
    let mut proxy = proxy.setting("primary_wait_ms", 0).start().await;
    assert_eq!(proxy.chat().send().await.says(), "paid");
    proxy.wait_rows(1, "SELECT backend FROM cooldowns").await;
    proxy.kill9().await;
    proxy.restart().await;
    assert_eq!(proxy.chat().send().await.says(), "paid");
    assert_eq!(up.count(), 1, "a cooling backend was asked after the restart");
}

#[tokio::test]
async fn sigterm_lets_streams_finish_and_takes_no_new_ones() {
    let gate = Gate::new();
    let up = upstream().reply(tokens(5).gated(&gate)).start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    gate.pass(1);
    let mut stream = proxy.chat_stream().stream().await;
    stream.next().await.unwrap();
    proxy.sigterm();
    let addr = proxy.addr();
    let refused = async {
        while tokio::net::TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    pointsman_tests::soon("the listener's end", refused).await;
    gate.open();
    let rest = stream.rest().await;
    assert_eq!(rest.last().unwrap().data(), "[DONE]");
    assert!(stream.ended_in_order());
    assert!(proxy.wait_exit().await.success());
    let rows = proxy.rows("SELECT end, output_tokens FROM exchanges");
    assert_eq!((&rows[0]["end"], &rows[0]["output_tokens"]), (&"delivered".into(), &5.into()));
}

#[tokio::test]
async fn a_drain_has_a_limit() {
    let up = upstream().reply(tokens(5).stall_after(1)).start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).set("server.drain_timeout_ms", 200).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    stream.next().await.unwrap();
    proxy.sigterm();
    proxy.wait_exit().await;
    let rest = stream.rest().await;
    assert!(rest.iter().all(|e| e.data() != "[DONE]"));
    assert!(rest.last().unwrap().data().contains("shutting down"), "{rest:?}");
    assert!(stream.ended_in_order());
    let rows = proxy.rows("SELECT end FROM exchanges");
    assert_eq!((rows.len(), &rows[0]["end"]), (1, &"broken".into()));
}

#[tokio::test]
async fn sigterm_ends_an_idle_proxy_at_once() {
    let up = upstream().start().await;
    let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(proxy.chat().send().await.status, 200);
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    assert_eq!(proxy.rows("SELECT id FROM exchanges").len(), 1);
}
