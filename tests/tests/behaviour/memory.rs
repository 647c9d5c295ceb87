//! Memory in sum: what requests and uploads hold together is bounded, shared fairly, and refused honestly beyond.

use std::io::Write;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use pointsman_tests::{Answer, Gate, Proxy, RawConnection, backend, chat, proxy, upstream};
use serde_json::json;

const MIB: usize = 1 << 20;

/// A chat request for this model with so many MiB of an image.
fn large(model: &str, mib: usize) -> Bytes {
    let image = "A".repeat(mib * MIB);
    let parts = json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,IMAGE"}}]);
    let body = json!({"model": model, "messages": [{"role": "user", "content": parts}]}).to_string();
    body.replace("IMAGE", &image).into()
}

async fn post(proxy: &Proxy, key: &str, body: Bytes) -> Answer {
    proxy.post("/v1/chat/completions").bearer(key).body("application/json", body).send().await
}

/// The head of a POST with so long a body, whose sender waits to be asked for it.
fn head(key: &str, length: usize) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// The growth of its memory at most, in MiB.
fn grown_mib(proxy: &Proxy, before_kib: u64) -> u64 {
    proxy.peak_resident_kib().saturating_sub(before_kib) / 1_024
}

fn is_told_to_come_again(refused: &Answer) -> bool {
    let after: u64 = refused.header("retry-after").parse().expect("it says when");
    assert_eq!(refused.json()["error"]["code"], "proxy_overloaded", "{}", refused.text());
    assert!(refused.text().contains("server.memory_budget_mb"), "{}", refused.text());
    (1..=60).contains(&after) && refused.header("x-should-retry") == "true"
}

#[tokio::test]
async fn a_client_is_let_in_before_its_body_is_read() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.memory_budget_mb", 512);
    let proxy = proxy.client_with("one", "key-one-at-a-time", &[("max_concurrency", 1)]).start().await;
    let before = proxy.resident_kib();
    let body = large("m", 60);
    let mut first = RawConnection::open(proxy.addr()).await;
    first.write(head("key-one-at-a-time", body.len()).as_bytes()).await;
    assert!(first.read_at_least(25).await.starts_with(b"HTTP/1.1 100"), "it is let in");
    let others = join_all((0..8).map(|_| post(&proxy, "key-one-at-a-time", body.clone()))).await;
    for refused in others {
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"), "{}", refused.text());
        assert!(refused.text().contains("client.max_concurrency"), "{}", refused.text());
    }
    let mut polite = RawConnection::open(proxy.addr()).await;
    let answer = polite.write(head("key-one-at-a-time", body.len()).as_bytes()).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 429"), "who waits to be asked for its body is not asked: {answer}");
    assert!(grown_mib(&proxy, before) < 40, "{} MiB", grown_mib(&proxy, before));
    let small = proxy.chat().bearer("key-one-at-a-time").send().await;
    assert_eq!(small.status, 429, "the one at a time is the one whose body is read");
    let answer = first.write(&body).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(up.only().body, body);
    assert!(grown_mib(&proxy, before) < 240, "{} MiB", grown_mib(&proxy, before));
    assert_eq!(proxy.chat().bearer("key-one-at-a-time").send().await.status, 200);
}

#[tokio::test]
async fn nine_uploads_stay_within_the_budget_and_another_client_has_room() {
    let gate = Gate::new();
    let up = upstream().reply(chat("well").gated_head(&gate)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.memory_budget_mb", 512);
    let proxy = proxy.client("a", "key-of-client-a").client("b", "key-of-client-b").start().await;
    let before = proxy.resident_kib();
    let body = large("m", 60);
    let proxy = std::sync::Arc::new(proxy);
    let upload = |key: &'static str| {
        let (proxy, body) = (proxy.clone(), body.clone());
        tokio::spawn(async move { post(&proxy, key, body).await })
    };
    let all: Vec<_> = (0..9).map(|_| upload("key-of-client-a")).collect();
    up.wait_seen(2).await;
    let others = upload("key-of-client-b");
    up.wait_seen(3).await;
    let small = {
        let proxy = proxy.clone();
        tokio::spawn(async move { proxy.chat().bearer("key-of-client-a").send().await })
    };
    up.wait_seen(4).await;
    gate.open();
    assert_eq!(small.await.unwrap().status, 200, "small ones pass");
    let mut answered = 0;
    for answer in all {
        let answer = answer.await.unwrap();
        if answer.status == 200 {
            answered += 1;
        } else {
            assert_eq!(answer.status, 503);
            assert!(is_told_to_come_again(&answer), "{:?}", answer.headers);
        }
    }
    assert_eq!((answered, others.await.unwrap().status.as_u16()), (2, 200), "one client leaves as much as it takes");
    assert!(grown_mib(&proxy, before) < 512, "{} MiB", grown_mib(&proxy, before));
    assert_eq!(post(&proxy, "key-of-client-a", body).await.status, 200, "what was held is free again");
}

#[tokio::test]
async fn forty_that_wait_hold_no_more_than_the_budget() {
    let gate = Gate::new();
    let up = upstream().reply(chat("well").gated_head(&gate)).start().await;
    let free = upstream().start().await;
    let slow = backend("slow").primary(&up).max_concurrency(1).model("slow", "slow");
    let proxy = proxy!().backend(slow).backend(backend("free").primary(&free).model("m", "m"));
    let proxy = std::sync::Arc::new(proxy.set("server.memory_budget_mb", 512).start().await);
    let before = proxy.resident_kib();
    let body = large("slow", 41);
    let all: Vec<_> = (0..40)
        .map(|_| {
            let (proxy, body) = (proxy.clone(), body.clone());
            tokio::spawn(async move { post(&proxy, "", body).await })
        })
        .collect();
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
    while proxy.metric("pointsman_denied_total{reason=\"memory\"} ").await < 38.0 {
        ticks.tick().await;
    }
    assert_eq!(proxy.chat().send().await.says(), "hello", "small requests pass");
    assert!(grown_mib(&proxy, before) < 512, "{} MiB", grown_mib(&proxy, before));
    gate.open();
    let answers = join_all(all).await.into_iter().map(Result::unwrap);
    let (answered, refused): (Vec<_>, Vec<_>) = answers.partition(|answer| answer.status == 200);
    assert_eq!((answered.len(), up.count()), (2, 2));
    assert!(refused.iter().all(is_told_to_come_again));
}

#[tokio::test]
async fn twelve_uploads_of_an_operator_stay_within_the_budget() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.memory_budget_mb", 128).start().await;
    let before = proxy.resident_kib();
    let upload = format!(
        "PUT /api/policy HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        30 * MIB
    );
    let mut first = RawConnection::open(proxy.admin_addr()).await;
    first.write(upload.as_bytes()).await;
    assert!(first.read_at_least(25).await.starts_with(b"HTTP/1.1 100"));
    let component = Bytes::from(vec![0; 30 * MIB]);
    let others = join_all((0..11).map(|_| proxy.put_policy(component.clone()))).await;
    for refused in others {
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "5"), "{}", refused.text());
        assert!(refused.text().contains("server.memory_budget_mb"), "{}", refused.text());
    }
    let chunks = futures_util::stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(vec![0; MIB])));
    let unannounced = reqwest::Client::new().put(format!("http://{}/api/policy", proxy.admin_addr()));
    let unannounced = unannounced.body(reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
    assert_eq!(unannounced.status(), 503, "counted as it comes");
    assert!(grown_mib(&proxy, before) < 128, "{} MiB", grown_mib(&proxy, before));
    assert_eq!(proxy.chat().send().await.status, 200);
    let answer = first.write(&component).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 422"), "it is read and is no component: {answer}");
    assert_eq!(proxy.put_policy(component).await.status, 422, "what was held is free again");
}

#[tokio::test]
async fn a_body_without_a_length_is_counted_as_it_grows() {
    let gate = Gate::new();
    let up = upstream().reply(chat("well").gated_head(&gate)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.memory_budget_mb", 64).start().await;
    let before = proxy.resident_kib();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = |mib: usize| {
        let body = large("m", mib);
        let chunks: Vec<_> = body.chunks(100_000).map(|chunk| Ok::<_, std::io::Error>(body.slice_ref(chunk))).collect();
        let request = client.post(format!("http://{}/v1/chat/completions", proxy.addr()));
        let request = request.header("content-type", "application/json");
        request.body(reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))).send()
    };
    assert_eq!(send(40).await.unwrap().status(), 413, "more than there is for large requests");
    let held = tokio::spawn(send(11));
    up.wait_seen(1).await;
    let refused = send(11).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (503, true));
    assert!(grown_mib(&proxy, before) < 64, "{} MiB", grown_mib(&proxy, before));
    gate.open();
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    assert_eq!(send(20).await.unwrap().status(), 200, "alone it has room");
    assert_eq!(up.seen()[1].body, large("m", 20));
}

#[tokio::test]
async fn one_ordinary_large_request_passes_as_it_is_with_defaults() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let body = large("m", 30);
    assert_eq!(post(&proxy, "any", body.clone()).await.status, 200);
    assert_eq!(up.only().body, body);
    let upload = proxy.admin_request(Method::PUT, "/api/policy").body("application/wasm", vec![0; 20 * MIB]);
    assert_eq!(upload.send().await.status, 422);
}

#[tokio::test]
async fn what_a_small_compressed_body_becomes_is_counted() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.memory_budget_mb", 128).start().await;
    let before = proxy.resident_kib();
    let send = |body: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).unwrap();
        let request = proxy.post("/v1/chat/completions").header("content-encoding", "gzip");
        request.body("application/json", encoder.finish().unwrap()).send()
    };
    let bombs = join_all((0..12).map(|_| send(&large("m", 60)))).await;
    for refused in bombs {
        assert!(matches!(refused.status.as_u16(), 413 | 503), "{}", refused.text());
    }
    assert_eq!(up.count(), 0);
    assert!(grown_mib(&proxy, before) < 128, "{} MiB", grown_mib(&proxy, before));
    assert_eq!(send(&large("m", 2)).await.status, 200, "alone it has room");
    assert_eq!(up.only().body.len(), large("m", 2).len());
}

/// The beginning of an event of so many MiB, and its end.
fn long_event(mib: usize) -> (String, String) {
    let text = "A".repeat(mib * MIB);
    (
        format!(r#"data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"#),
        r#""}}]}

data: [DONE]

"#
        .to_owned(),
    )
}

#[tokio::test]
async fn what_is_held_of_forty_answers_stays_within_the_budget_and_is_nobodys_fault() {
    let gate = Gate::new();
    let (begin, end) = long_event(6);
    let reply = pointsman_tests::sse::<String>([]).and_bytes(begin).and_gate(&gate).and_bytes(end);
    let up = upstream().reply(reply).start().await;
    let proxy =
        proxy!().backend(backend("p1").primary(&up).timeout("first_token_ms", 600_000).timeout("idle_ms", 600_000));
    let proxy =
        std::sync::Arc::new(proxy.set("server.memory_budget_mb", 96).set("stream.keepalive_ms", 600_000).start().await);
    let before = proxy.resident_kib();
    let all: Vec<_> = (0..40)
        .map(|_| {
            let proxy = proxy.clone();
            tokio::spawn(async move { proxy.chat_stream().send().await })
        })
        .collect();
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
    while proxy.metric("pointsman_denied_total{reason=\"memory\"} ").await
        + proxy.metric("pointsman_memory_refused_total ").await
        < 30.0
    {
        ticks.tick().await;
    }
    assert!(grown_mib(&proxy, before) < 96, "{} MiB", grown_mib(&proxy, before));
    let used = proxy.metric("pointsman_memory_used_bytes ").await;
    assert!(used > 8e6 && used <= proxy.metric("pointsman_memory_limit_bytes ").await, "{used}");
    assert_eq!(proxy.metric("pointsman_memory_limit_bytes ").await, 96.0 * 1_048_576.0);
    gate.open();
    let answers = join_all(all).await.into_iter().map(Result::unwrap);
    let (whole, refused): (Vec<_>, Vec<_>) = answers.partition(|answer| answer.status == 200);
    assert!(!whole.is_empty() && refused.len() >= 20, "{} of 40", whole.len());
    for answer in &whole {
        assert!(
            answer.body.len() > 6 * MIB && answer.text().ends_with("data: [DONE]\n\n"),
            "{} bytes",
            answer.body.len()
        );
    }
    assert!(refused.iter().all(is_told_to_come_again));
    let backends = proxy.admin("/api/backends").send().await.json();
    assert_eq!(backends["backends"][0]["state"], "ready", "{backends}");
    assert_eq!(proxy.chat_stream().send().await.status, 200, "what was held is free again");
    assert_eq!(proxy.metric("pointsman_memory_used_bytes ").await, 0.0);
}

#[tokio::test]
async fn large_requests_wait_on_disk_for_memory_where_that_is_set_and_beyond_its_bound_are_refused() {
    let gate = Gate::new();
    let up = upstream().reply(chat("well").gated_head(&gate)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.memory_budget_mb", 64);
    let proxy = proxy.set("server.spill_dir", ".").set("server.spill_mb", 200);
    let mut proxy = proxy.client("a", "key-of-client-a").client("b", "key-of-client-b").start().await;
    let before = proxy.resident_kib();
    // Each takes 40 MiB of the 48 that large ones have.
    let bodies: Vec<Bytes> = (0..12).map(|n| large(&format!("m{n}"), 20)).collect();
    let url = format!("http://{}/v1/chat/completions", proxy.addr());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = |n: usize, key: &str| {
        let request = http.post(&url).bearer_auth(key).header("content-type", "application/json");
        tokio::spawn(request.body(bodies[n].clone()).send())
    };
    let first = send(0, "key-of-client-a");
    up.wait_seen(1).await;
    let held = |n: usize| (n * bodies[1].len()) as f64;
    let waiting: Vec<_> = (1..4).map(|n| send(n, "key-of-client-a")).collect();
    let other = send(4, "key-of-client-b");
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
    while proxy.metric("pointsman_spill_used_bytes ").await < held(4) {
        ticks.tick().await;
    }
    // Of the 150 MiB that large ones have of 200, it has 60, and gets no more than others leave: 70.
    let beyond: Vec<_> = (5..12).map(|n| send(n, "key-of-client-a")).collect();
    let mut refused = 0;
    for one in beyond {
        let answer = one.await.unwrap().unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true));
        refused += 1;
    }
    assert_eq!(refused, 7);
    assert!(grown_mib(&proxy, before) < 80, "{} MiB", grown_mib(&proxy, before));
    assert_eq!(up.count(), 1, "they wait");
    gate.open();
    for one in [first, other].into_iter().chain(waiting) {
        assert_eq!(one.await.unwrap().unwrap().status(), 200);
    }
    let mut seen: Vec<Bytes> = up.seen().into_iter().map(|seen| seen.body).collect();
    seen.sort();
    let mut sent = bodies.clone();
    sent.sort();
    assert!(seen.len() >= 5 && seen.iter().all(|body| sent.binary_search(body).is_ok()), "byte for byte");
    let left = std::fs::read_dir(proxy.dir()).unwrap().count();
    assert!(left <= 5, "{left}: nothing is left in the folder");
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
}
