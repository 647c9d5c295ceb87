//! Event streams: relayed as they come, at the client's pace, and never ended as if whole when they are not.

use std::time::Duration;

use pointsman_tests::{Event, Gate, RawConnection, Reply, backend, bytes, proxy, sse, tokens, upstream};
use serde_json::json;

fn text(events: &[Event]) -> String {
    events.iter().map(Event::content).collect()
}

#[tokio::test]
async fn a_stream_is_relayed_to_its_end() {
    let up = upstream().reply(tokens(50)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    assert_eq!(stream.status, 200);
    assert!(stream.header("content-type").starts_with("text/event-stream"));
    assert_eq!(stream.header("x-pointsman-lane"), "primary");
    let events = stream.rest().await;
    let expected: String = (0..50).map(|i| format!("t{i} ")).collect();
    assert_eq!(text(&events), expected);
    assert_eq!(events.last().unwrap().data(), "[DONE]");
    assert!(stream.ended_in_order());
}

#[tokio::test]
async fn every_event_reaches_the_client_before_the_next_is_sent() {
    let gate = Gate::new();
    let up = upstream().reply(tokens(20).gated(&gate)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    gate.pass(1);
    let mut stream = proxy.chat_stream().stream().await;
    assert_eq!(stream.next().await.unwrap().content(), "t0 ");
    for i in 1..20 {
        gate.pass(1);
        assert_eq!(stream.next().await.unwrap().content(), format!("t{i} "));
    }
    gate.open();
    assert_eq!(stream.rest().await.last().unwrap().data(), "[DONE]");
}

#[tokio::test]
async fn events_come_through_however_the_provider_cuts_its_bytes() {
    let whole = "data: {\"choices\":[{\"delta\":{\"content\":\"h\u{e9}\"}}]}\r\n\r\n: a comment\n\ndata: [DONE]\n\n";
    for size in [1, 2, 3, 7, 1000] {
        let mut reply = sse(["x"; 0]);
        for chunk in whole.as_bytes().chunks(size) {
            reply = reply.and_bytes(chunk.to_vec());
        }
        let up = upstream().reply(reply).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
        let answer = proxy.chat_stream().send().await;
        assert!(answer.text().contains("h\u{e9}"), "cut every {size} bytes: {}", answer.text());
        assert!(answer.text().contains("[DONE]"), "cut every {size} bytes: {}", answer.text());
        assert!(!answer.broken);
    }
}

#[tokio::test]
async fn one_large_event_passes() {
    let content = "y".repeat(3 << 20);
    let event = json!({"choices": [{"index": 0, "delta": {"content": content}}]}).to_string();
    let up = upstream().reply(sse([event, "[DONE]".into()])).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    assert_eq!(stream.next().await.unwrap().content(), content);
    assert_eq!(stream.next().await.unwrap().data(), "[DONE]");
}

/// After two events were delivered, `broken` happens; with `resume = "none"` the client is told in-band.
async fn is_told_of(broken: Reply) {
    let up = upstream().reply(broken).start().await;
    let target = backend("p1").primary(&up).timeout("total_ms", 2_500);
    let proxy = proxy!().backend(target).set("stream.resume", "none").start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert!(text(&events).starts_with("t0 t1 "), "{events:?}");
    assert!(events.iter().all(|e| e.data() != "[DONE]"), "ended as if whole: {events:?}");
    assert!(stream.ended_in_order(), "a torn connection hides the error from many clients");
    let told = events.iter().rev().find_map(|e| e.json().get("error").cloned());
    assert!(told.is_some_and(|e| e["message"].is_string() && e["type"].is_string()), "{events:?}");
    let rows = proxy.wait_rows(1, "SELECT end, output_tokens, estimated FROM exchanges").await;
    assert_eq!(rows[0]["end"], "broken");
    assert_eq!(rows[0]["estimated"], 1, "a cut stream's tokens are estimated: {rows:?}");
    assert!(rows[0]["output_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_cut_after_delivery_is_told_in_band() {
    is_told_of(tokens(9).cut_after(2)).await;
}

#[tokio::test]
async fn an_early_end_after_delivery_is_told_in_band() {
    is_told_of(tokens(9).end_after(2)).await;
}

#[tokio::test]
async fn a_stall_after_delivery_is_told_in_band() {
    is_told_of(tokens(9).stall_after(2)).await;
}

#[tokio::test]
async fn a_missing_done_is_told_in_band() {
    is_told_of(tokens(2).only_content(2)).await;
}

#[tokio::test]
async fn nonsense_after_delivery_is_told_in_band() {
    is_told_of(tokens(9).then_bytes(2, "data: {\"choices\": [{]}\n\n")).await;
}

#[tokio::test]
async fn an_error_event_after_delivery_is_told_in_band() {
    is_told_of(tokens(9).then_bytes(2, "data: {\"error\":{\"message\":\"boom\",\"type\":\"server_error\"}}\n\n")).await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_upstream_with_it() {
    let up = upstream().reply(tokens(1000).stall_after(3)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    stream.next().await.unwrap();
    assert_eq!(up.hung_up(), 0);
    drop(stream);
    up.wait_hung_up(1).await;
    let rows = proxy.wait_rows(1, "SELECT end FROM exchanges").await;
    assert_eq!(rows[0]["end"], "client_gone");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_takes_the_upstream_with_it() {
    let up = upstream().reply(pointsman_tests::silence()).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).max_concurrency(1)).start().await;
    let request = tokio::spawn(proxy.chat().try_send());
    up.wait_seen(1).await;
    request.abort();
    up.wait_hung_up(1).await;
    // Its permit came back: the only slot can be had again.
    let again = tokio::spawn(proxy.chat().try_send());
    up.wait_seen(2).await;
    again.abort();
}

#[tokio::test]
async fn a_slow_client_slows_the_upstream_and_not_the_proxys_memory() {
    const PIECE: usize = 64 << 10;
    const PIECES: usize = 2_000;
    let mut reply = bytes("application/octet-stream", vec![b'x'; PIECE]);
    for _ in 1..PIECES {
        reply = reply.and_bytes(vec![b'x'; PIECE]);
    }
    let up = upstream().reply(reply).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).timeout("idle_ms", 60_000)).start().await;
    let before = proxy.resident_kib();
    let mut raw = RawConnection::open(proxy.addr()).await;
    raw.write(b"GET /v1/files/f/content HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    raw.read_at_least(1).await;
    let stuck = up.wait_stuck(Duration::from_millis(300)).await;
    assert!(
        stuck < (PIECE * PIECES) as u64 / 2,
        "{stuck} bytes were taken off the upstream for a client that reads none"
    );
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "the proxy grew by {grown} KiB");
    let rest = raw.read_to_end().await;
    assert!(rest.len() + (PIECE * 2) > PIECE * PIECES, "only {} bytes came", rest.len());
}

#[tokio::test]
async fn a_stream_that_said_done_is_over_even_if_its_connection_is_not() {
    let up = upstream().reply(tokens(3).stall_after(6)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).timeout("idle_ms", 60_000)).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_eq!(events.last().unwrap().data(), "[DONE]", "{events:?}");
    assert!(stream.ended_in_order());
    let rows = proxy.wait_rows(1, "SELECT end FROM exchanges").await;
    assert_eq!(rows[0]["end"], "delivered");
}
