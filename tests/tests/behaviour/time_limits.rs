//! Connect, first byte, first token, idle and total: each ends an attempt, and says so; those that are bets that another
//! backend is faster only where there is one.

use std::time::{Duration, Instant};

use pointsman_tests::{
    Event, Gate, Narrow, Proxy, RawConnection, backend, bytes, chat, proxy, silence, sse, tokens, upstream,
};

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
    // Nobody can go on in the middle of a file, so only the total limit ends it.
    let target = backend("p1").primary(&up).timeout("idle_ms", 200).timeout("total_ms", 900);
    let proxy = proxy!().backend(target).setting("primary_wait_ms", 0).start().await;
    let began = Instant::now();
    let answer = proxy.get("/v1/files/f/content").send().await;
    assert!(answer.broken || answer.status.is_server_error(), "{answer:?}");
    assert!(began.elapsed() < QUICK);
    let rows = proxy.wait_rows(1, "SELECT outcome FROM attempts").await;
    assert_eq!(rows[0]["outcome"], "timed_out");
}

/// The notes of the only exchange.
async fn notes(proxy: &Proxy) -> String {
    proxy.wait_rows(1, "SELECT notes FROM exchanges").await[0]["notes"].to_string()
}

#[tokio::test]
async fn who_is_alone_is_waited_for_beyond_first_byte_ms() {
    let up = upstream().reply(chat("late").slow_head(Duration::from_millis(900))).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).timeout("first_byte_ms", 200)).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!((answer.says().as_str(), answer.header("x-pointsman-attempts")), ("late", "1"), "{}", answer.text());
    assert_eq!(up.count(), 1);
    let notes = notes(&proxy).await;
    assert!(notes.contains("timeouts.first_byte_ms") && notes.contains("no other backend is ready"), "{notes}");
}

#[tokio::test]
async fn who_is_alone_is_waited_for_in_a_body_too() {
    let whole = chat("late").pace(Duration::from_millis(900));
    let up = upstream().reply(whole).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).timeout("idle_ms", 200)).start().await;
    assert_eq!(proxy.chat().send().await.says(), "late");
    assert_eq!(up.count(), 1);
}

#[tokio::test]
async fn a_pause_in_a_stream_of_who_is_alone_is_a_pause() {
    let up = upstream().reply(tokens(4).pace(Duration::from_millis(700))).start().await;
    let target = backend("p1").primary(&up).timeout("idle_ms", 400).timeout("first_token_ms", 300);
    let proxy = proxy!().backend(target).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let text: String = stream.rest().await.iter().map(Event::content).collect();
    assert_eq!((text.as_str(), stream.ended_in_order(), up.count()), ("t0 t1 t2 t3 ", true, 1));
    let notes = notes(&proxy).await;
    assert!(notes.contains("timeouts.first_token_ms") && notes.contains("timeouts.idle_ms"), "{notes}");
}

#[tokio::test]
async fn comments_before_the_first_token_are_no_silence() {
    let mut slow = sse(["x"; 0]);
    for _ in 0..6 {
        slow = slow.and_bytes(": PROCESSING\n\n");
    }
    let event = |delta: serde_json::Value, finish: serde_json::Value| {
        format!("data: {}\n\n", serde_json::json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
    };
    let slow = slow
        .and_bytes(event(serde_json::json!({"content": "at last"}), serde_json::Value::Null))
        .and_bytes(event(serde_json::json!({}), "stop".into()))
        .and_bytes("data: [DONE]\n\n")
        .pace(Duration::from_millis(300));
    let up = upstream().reply(slow).start().await;
    let other = upstream().reply(tokens(2)).start().await;
    let proxy = proxy!()
        .backend(backend("p1").primary(&up).timeout("first_token_ms", 1_000))
        .backend(backend("f1").fallback(&other))
        .start()
        .await;
    let mut stream = proxy.chat_stream().stream().await;
    let text: String = stream.rest().await.iter().map(Event::content).collect();
    assert_eq!((text.as_str(), up.count(), other.count()), ("at last", 1, 0));
}

#[tokio::test]
async fn an_answer_that_is_repeated_to_resume_it_is_measured_by_its_progress() {
    let first = upstream().reply(tokens(40).end_after(30)).start().await;
    // It repeats for longer than the first token may take.
    let second = upstream().reply(tokens(40).pace(Duration::from_millis(50))).start().await;
    let slow = backend("f1").fallback(&second).timeout("first_token_ms", 600).timeout("idle_ms", 600);
    let proxy = proxy!()
        .backend(backend("p1").primary(&first))
        .backend(slow)
        .setting("max_pool_retries", 0)
        .setting("primary_wait_ms", 0);
    let proxy = proxy.start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let text: String = stream.rest().await.iter().map(Event::content).collect();
    let whole: String = (0..40).map(|i| format!("t{i} ")).collect();
    assert_eq!((text, stream.ended_in_order()), (whole, true));
    assert_eq!((first.count(), second.count()), (1, 1));
}

#[tokio::test]
async fn a_stream_that_flows_outlives_the_limits_of_an_exchange() {
    let up = upstream().reply(tokens(20).pace(Duration::from_millis(100))).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("limits.max_exchange_ms", 800).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let text: String = stream.rest().await.iter().map(Event::content).collect();
    assert!(text.ends_with("t19 ") && stream.ended_in_order(), "{text}");
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
    let mut raw = RawConnection::open(proxy.addr()).await;
    let began = Instant::now();
    raw.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n").await.read_to_end().await;
    assert!(began.elapsed() < QUICK);
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn an_http2_client_that_stops_reading_one_stream_loses_that_stream() {
    let gate = Gate::new();
    let up = upstream()
        .reply(tokens(1_000).stall_after(500))
        .then(tokens(20).gated(&gate))
        .then(chat("its slot is free"))
        .start()
        .await;
    let target = backend("p1").primary(&up).max_concurrency(2).timeout("idle_ms", 60_000);
    let proxy = proxy!().backend(target).set("server.unread_timeout_ms", 300).start().await;
    let mut client = Narrow::open(proxy.addr(), 500).await;
    let began = Instant::now();
    let unread = client.chat_stream().await;
    gate.pass(1);
    let read = client.chat_stream().await;

    let (came, reset) = unread.untaken().await;
    assert!(came <= 500, "{came} bytes came through a window of 500");
    assert_eq!(reset, Some(h2::Reason::CANCEL), "the client is told that it will not be whole");
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
    up.wait_hung_up(1).await;
    assert_eq!(proxy.chat().send().await.says(), "its slot is free");

    gate.open();
    let (text, broken) = read.taken().await;
    assert!(broken.is_none() && text.ends_with("data: [DONE]\n\n"), "{broken:?} after {text}");
    let rows = proxy.wait_rows(3, "SELECT end FROM exchanges ORDER BY started").await;
    let ends: Vec<_> = rows.iter().map(|row| row["end"].as_str().unwrap_or_default()).collect();
    assert_eq!(ends, ["client_gone", "delivered", "delivered"]);
}

#[tokio::test]
async fn an_http1_client_that_stops_reading_is_let_go() {
    let mut endless = bytes("application/octet-stream", vec![b'x'; 64 << 10]);
    for _ in 0..2_000 {
        endless = endless.and_bytes(vec![b'x'; 64 << 10]);
    }
    let up = upstream().reply(endless).start().await;
    let target = backend("p1").primary(&up).timeout("idle_ms", 60_000);
    let proxy = proxy!().backend(target).set("server.unread_timeout_ms", 300).start().await;
    let mut raw = RawConnection::open(proxy.addr()).await;
    raw.write(b"GET /v1/files/f/content HTTP/1.1\r\nhost: x\r\n\r\n").await.read_at_least(1).await;
    up.wait_hung_up(1).await;
    let rows = proxy.wait_rows(1, "SELECT end FROM exchanges").await;
    assert_eq!(rows[0]["end"], "client_gone");
}
