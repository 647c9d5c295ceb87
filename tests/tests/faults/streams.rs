//! Failures inside a stream: the client gets the whole text, or hears in time that it does not.

use std::time::Duration;

use pointsman_tests::{Event, Reply, Seen, backend, proxy, silence, status, tokens, upstream};

use crate::{Pair, primary_that_gives, timed, whole_text};

/// A stream's text and events, and how long it took to its end.
struct Streamed {
    text: String,
    events: Vec<Event>,
    took: Duration,
    in_order: bool,
}

async fn stream(pair: &Pair) -> Streamed {
    let ((events, in_order), took) = timed(async {
        let mut stream = pair.proxy.chat_stream().stream().await;
        assert_eq!(stream.status, 200);
        let events = stream.rest().await;
        (events, stream.ended_in_order())
    })
    .await;
    Streamed { text: events.iter().map(Event::content).collect(), events, took, in_order }
}

impl Streamed {
    fn is_whole(&self) {
        assert_eq!(self.text, whole_text());
        assert!(self.in_order);
        let finishes = self.events.iter().filter(|e| e.json()["choices"][0]["finish_reason"] == "stop").count();
        let dones = self.events.iter().filter(|e| e.data() == "[DONE]").count();
        assert_eq!((finishes, dones), (1, 1), "{:?}", self.events.last());
    }
}

/// Starts a pair of providers of which the primary gives this reply the first time, and a good one later.
async fn once(reply: fn() -> Reply) -> Pair {
    primary_that_gives(move |i| if i == 0 { reply() } else { tokens(60) }).await
}

#[tokio::test]
async fn a_head_at_once_and_a_first_token_after_20_s_is_answered_within_15_s() {
    let p = primary_that_gives(|_| tokens(60).pace(Duration::from_secs(20))).await;
    let streamed = stream(&p).await;
    streamed.is_whole();
    assert!(streamed.took < Duration::from_secs(15), "{:?}", streamed.took);
    assert_eq!(p.tries(), (1, 1));
}

#[tokio::test]
async fn a_malformed_event_costs_that_event_only() {
    let p = once(|| tokens(60).with_bytes_after(40, "data: {\"choices\": [{]}\n\n")).await;
    let streamed = stream(&p).await;
    streamed.is_whole();
    assert_eq!(p.tries(), (1, 0));
}

#[tokio::test]
async fn a_stream_cut_after_40_of_60_tokens_is_whole() {
    let p = once(|| tokens(60).end_after(40)).await;
    let streamed = stream(&p).await;
    streamed.is_whole();
    assert!(streamed.took < Duration::from_secs(15), "{:?}", streamed.took);
    assert_eq!(p.tries().0 + p.tries().1, 2);
}

#[tokio::test]
async fn a_stream_that_is_silent_for_30_s_in_its_middle_is_whole_and_the_proxy_well() {
    let p = once(|| tokens(60).stall_after(40)).await;
    let streamed = stream(&p).await;
    streamed.is_whole();
    assert!(streamed.took < Duration::from_secs(45), "{:?}", streamed.took);
    assert_eq!(p.tries().0 + p.tries().1, 2);
    let again = stream(&p).await;
    again.is_whole();
    assert!(again.took < Duration::from_secs(10), "{:?}", again.took);
}

#[tokio::test]
async fn a_stream_without_done_ends_at_once_and_its_usage_is_known() {
    let p = once(|| tokens(60).only_content(62)).await;
    let streamed = stream(&p).await;
    streamed.is_whole();
    assert!(streamed.took < Duration::from_secs(5), "{:?}", streamed.took);
    let rows = p.proxy.wait_rows(1, "SELECT output_tokens, estimated FROM exchanges").await;
    assert_eq!((&rows[0]["output_tokens"], &rows[0]["estimated"]), (&60.into(), &0.into()));
    assert_eq!(p.tries(), (1, 0));
}

#[tokio::test]
async fn a_cut_stream_is_whole_though_the_fallback_takes_no_prefill() {
    let primary = upstream().reply(tokens(60).end_after(40)).then(silence()).start().await;
    let refuses = |seen: &Seen, _: usize| {
        let last = seen.json()["messages"].as_array().and_then(|m| m.last().cloned()).unwrap_or_default();
        if last["role"] == "assistant" { status(400) } else { tokens(60) }
    };
    let fallback = upstream().handler(refuses).start().await;
    let proxy = proxy!()
        .backend(backend("free").primary(&primary).timeout("first_byte_ms", 2_000))
        .backend(backend("paid").fallback(&fallback).set("capabilities.prefill", true))
        .set("stream.resume", "prefill")
        .start()
        .await;
    let p = Pair { proxy, primary, fallback };
    let streamed = stream(&p).await;
    streamed.is_whole();
    assert!(streamed.took < Duration::from_secs(40), "{:?}", streamed.took);
    assert_eq!(p.fallback.count(), 2, "the prefill, and then from the beginning");
}
