//! Connect, first byte, first token, idle and total: each ends an attempt, and says so.

use std::time::{Duration, Instant};

use pointsman_tests::{backend, bytes, chat, proxy, silence, tokens, upstream};

/// Far below the 30 s and more that the defaults would take, far above what a busy machine delays.
const QUICK: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_provider_that_says_nothing_is_left_after_first_byte_ms() {
    let (mute, well) = (upstream().reply(silence()).start().await, upstream().reply(chat("well")).start().await);
    let proxy = proxy!()
        .backend(backend("p1").primary(&mute).timeout("first_byte_ms", 200))
        .backend(backend("f1").fallback(&well))
        .setting("primary_wait_ms", 0)
        .start()
        .await;
    let began = Instant::now();
    assert_eq!(proxy.chat().send().await.says(), "well");
    assert!(began.elapsed() >= Duration::from_millis(190) && began.elapsed() < QUICK, "{:?}", began.elapsed());
    mute.wait_hung_up(1).await;
}

#[tokio::test]
async fn a_stream_without_content_is_left_after_first_token_ms() {
    let (mute, well) =
        (upstream().reply(tokens(2).stall_after(0)).start().await, upstream().reply(tokens(2)).start().await);
    let proxy = proxy!()
        .backend(backend("p1").primary(&mute).timeout("first_token_ms", 200))
        .backend(backend("f1").fallback(&well))
        .setting("primary_wait_ms", 0)
        .start()
        .await;
    let began = Instant::now();
    let mut stream = proxy.chat_stream().stream().await;
    assert_eq!(stream.header("x-pointsman-backend"), "f1");
    assert_eq!(stream.next().await.unwrap().content(), "t0 ");
    assert!(began.elapsed() < QUICK);
}

#[tokio::test]
async fn an_answer_that_falls_silent_in_its_body_is_not_passed_on_as_whole() {
    let up = upstream().reply(bytes("application/octet-stream", "half").and_bytes("half").stall_after(1)).start().await;
    let target = backend("p1").primary(&up).timeout("idle_ms", 200);
    let proxy = proxy!().backend(target).setting("primary_wait_ms", 0).start().await;
    let began = Instant::now();
    let answer = proxy.get("/v1/files/f/content").send().await;
    assert!(answer.broken || answer.status.is_server_error(), "{answer:?}");
    assert!(began.elapsed() < QUICK);
    let rows = proxy.wait_rows(1, "SELECT outcome FROM attempts").await;
    assert_eq!(rows[0]["outcome"], "stalled");
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_in_all_is_ended() {
    let slow = tokens(10_000).pace(Duration::from_millis(20));
    let up = upstream().reply(slow).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).timeout("total_ms", 500)).set("stream.resume", "none");
    let proxy = proxy.start().await;
    let began = Instant::now();
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert!(began.elapsed() < QUICK);
    assert!(events.iter().all(|e| e.data() != "[DONE]"));
    assert!(events.iter().any(|e| e.json().get("error").is_some()), "{:?}", events.last());
    up.wait_hung_up(1).await;
}

#[tokio::test]
async fn the_whole_exchange_has_an_end_too() {
    let up = upstream().reply(silence()).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("limits.max_exchange_ms", 400).start().await;
    let began = Instant::now();
    let answer = proxy.chat().send().await;
    assert!(answer.status.is_server_error(), "{answer:?}");
    assert!(answer.json()["error"]["message"].is_string());
    assert!(began.elapsed() < QUICK);
}

#[tokio::test]
async fn a_client_that_never_finishes_its_head_is_let_go() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.header_read_timeout_ms", 200).start().await;
    let mut raw = pointsman_tests::RawConnection::open(proxy.addr()).await;
    let began = Instant::now();
    raw.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n").await.read_to_end().await;
    assert!(began.elapsed() < QUICK);
    assert_eq!(up.count(), 0);
}
