//! Many clients while every provider is well and ill by turns: no wrong answer, no hang, no error in other words than
//! the documented ones, and no provider hammered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pointsman_core::random::mix;
use pointsman_tests::{Event, Reply, Upstream, backend, chat, proxy, silence, status, tokens, upstream};

use crate::whole_text;

const CLIENTS: u64 = 200;
const FOR: Duration = Duration::from_secs(60);
/// Time for which a provider keeps its condition.
const SPELL: Duration = Duration::from_millis(1_500);
/// A client that has no answer after this hangs.
const HANG: Duration = Duration::from_secs(45);
const SEED: u64 = 0x5EED;

/// A number for these two that looks like chance.
fn chance(a: u64, b: u64) -> u64 {
    mix(SEED ^ a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_mul(0xD1B5_4A32_D192_ED03))
}

/// Returns the answer of provider `i` at this time: it works in half of its spells.
fn weather(i: u64, time: Duration, wants_stream: bool) -> Reply {
    let well = || if wants_stream { tokens(60) } else { chat("well") };
    match chance(i, (time.as_millis() / SPELL.as_millis()) as u64) % 14 {
        0 => status(429),
        1 => status(429).retry_after(1),
        2 => status(500),
        3 => status(503),
        4 => well().cut_after(0),
        5 => well().end_after(if wants_stream { 40 } else { 0 }),
        6 => silence(),
        _ => well(),
    }
}

#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_get_whole_answers_or_proper_errors() {
    let begun = Instant::now();
    let mut ups: Vec<Upstream> = Vec::new();
    for i in 0..4 {
        let handler = move |seen: &pointsman_tests::Seen, _| weather(i, begun.elapsed(), seen.json()["stream"] == true);
        ups.push(upstream().handler(handler).start().await);
    }
    let mut builder = proxy!();
    for (i, up) in ups.iter().enumerate() {
        let target = backend(&format!("b{i}"));
        let target = if i < 3 { target.primary(up) } else { target.fallback(up) };
        builder = builder
            .backend(target.timeout("first_byte_ms", 2_000).timeout("idle_ms", 2_000).timeout("total_ms", 20_000));
    }
    let proxy = Arc::new(builder.start().await);
    let tally = Arc::new(Tally::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (proxy, tally) = (proxy.clone(), tally.clone());
            tokio::spawn(async move {
                let mut round = 0;
                while begun.elapsed() < FOR {
                    round += 1;
                    let wants_stream = chance(client, round).is_multiple_of(2);
                    let one = async {
                        match wants_stream {
                            true => stream_once(&proxy, &tally).await,
                            false => chat_once(&proxy, &tally).await,
                        }
                    };
                    tokio::time::timeout(HANG, one).await.unwrap_or_else(|_| panic!("client {client} hangs"));
                    // A pace of about one request in two seconds, out of step with the others.
                    tokio::time::sleep(Duration::from_millis(1_000 + chance(round, client) % 2_000)).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let count = |n: &AtomicUsize| n.load(Ordering::Relaxed);
    let (answered, refused, broken) = (count(&tally.answered), count(&tally.refused), count(&tally.broken));
    let requests = answered + refused + broken;
    let tries: usize = ups.iter().map(Upstream::count).sum();
    println!("{requests} requests: {answered} answered, {refused} refused, {broken} broken; {tries} tries upstream");
    assert!(requests > 2_000, "only {requests} requests: nothing was tested");
    assert!(answered * 100 >= requests * 99, "{answered} of {requests} answered");
    assert!(tries < requests * 2, "{tries} tries for {requests} requests");
}

async fn chat_once(proxy: &pointsman_tests::Proxy, tally: &Tally) {
    let answer = proxy.chat().send().await;
    if answer.status == 200 {
        assert_eq!(answer.says(), "well");
        tally.answered.fetch_add(1, Ordering::Relaxed);
    } else {
        is_documented(answer.status.as_u16(), &answer.json());
        tally.refused.fetch_add(1, Ordering::Relaxed);
    }
}

async fn stream_once(proxy: &pointsman_tests::Proxy, tally: &Tally) {
    let mut stream = proxy.chat_stream().stream().await;
    if stream.status != 200 {
        let body = stream.text().await;
        is_documented(stream.status.as_u16(), &serde_json::from_str(&body).unwrap_or_default());
        tally.refused.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let events = stream.rest().await;
    let text: String = events.iter().map(Event::content).collect();
    let error = events.iter().find_map(|e| e.json().get("error").cloned());
    match error {
        None => {
            assert_eq!(text, whole_text());
            assert!(stream.ended_in_order());
            tally.answered.fetch_add(1, Ordering::Relaxed);
        }
        Some(error) => {
            assert!(whole_text().starts_with(&text), "wrong text before the error: {text}");
            assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
            tally.broken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn is_documented(status: u16, body: &serde_json::Value) {
    let error = &body["error"];
    assert!(matches!(status, 500..=504), "{status}: {body}");
    assert!(error["message"].is_string() && error["type"].is_string(), "{status}: {body}");
}
