//! Limits of backends: what the provider allows is never exceeded, and who waits is served in order.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use pointsman_tests::{Gate, backend, chat, eventually, proxy, status, upstream};
use serde_json::json;

#[tokio::test]
async fn requests_a_minute_are_spaced_and_the_rest_goes_elsewhere() {
    let (up, paid) = (upstream().start().await, upstream().start().await);
    let proxy = proxy!()
        .backend(backend("p1").primary(&up).rpm(20))
        .backend(backend("f1").fallback(&paid))
        .setting("primary_wait_ms", 0)
        .start()
        .await;
    let answers = join_all((0..10).map(|_| proxy.chat().send())).await;
    assert!(answers.iter().all(|a| a.status == 200), "{answers:?}");
    // A tenth of the limit at once; ten requests take far less than the 3 s after which one more would be let through.
    assert!((1..=3).contains(&up.count()), "{} of 20 a minute went at once", up.count());
    assert_eq!(up.count() + paid.count(), 10);
}

#[tokio::test]
async fn a_request_over_the_rate_waits_for_its_turn() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).rpm(120)).start().await;
    let answers = join_all((0..16).map(|_| proxy.chat().send())).await;
    assert!(answers.iter().all(|a| a.status == 200), "{answers:?}");
    assert!(answers.iter().all(|a| a.header("x-pointsman-lane") == "primary"));
    let seen = up.seen();
    let mut times: Vec<_> = seen.iter().map(|s| s.at).collect();
    times.sort();
    // Twelve at once, then one each 60/109 s; a little less for what the network and the clock's grain take.
    assert!(times[15] - times[0] >= Duration::from_millis(4 * 530), "{:?}", times[15] - times[0]);
}

#[tokio::test]
async fn requests_at_a_time_are_kept_and_the_queue_is_served_in_order() {
    const WAITING: usize = 6;
    let gate = Gate::new();
    let up = upstream().reply(chat("hi").gated_head(&gate)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).max_concurrency(1)).start().await;
    let mut requests = Vec::new();
    for i in 0..=WAITING {
        let body = json!({"model": "m", "messages": [], "number": i});
        requests.push(tokio::spawn(proxy.post("/v1/chat/completions").json(&body).send()));
        match i {
            0 => up.wait_seen(1).await,
            _ => proxy.wait_backends(&format!("\"queued\":{i}")).await,
        }
    }
    gate.open();
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    let order: Vec<_> = up.seen().iter().map(|s| s.json()["number"].as_u64().unwrap()).collect();
    assert_eq!(order, (0..=WAITING as u64).collect::<Vec<_>>());
    assert_eq!(up.peak(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_leaves_the_queue() {
    let gate = Gate::new();
    let up = upstream().reply(chat("hi").gated_head(&gate)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).max_concurrency(1)).start().await;
    let asks = |number: u64| {
        let body = json!({"model": "m", "messages": [], "number": number});
        tokio::spawn(proxy.post("/v1/chat/completions").json(&body).send())
    };
    let first = asks(0);
    up.wait_seen(1).await;
    let leaving = asks(1);
    proxy.wait_backends("\"queued\":1").await;
    let patient = asks(2);
    proxy.wait_backends("\"queued\":2").await;
    leaving.abort();
    proxy.wait_backends("\"queued\":1").await;
    gate.open();
    assert_eq!((first.await.unwrap().status, patient.await.unwrap().status), (StatusCode::OK, StatusCode::OK));
    let order: Vec<_> = up.seen().iter().map(|s| s.json()["number"].as_u64().unwrap()).collect();
    assert_eq!(order, [0, 2], "nothing is sent for who has left");
    proxy.wait_rows(1, "SELECT id FROM exchanges WHERE end = 'client_gone' AND attempts = 0").await;
}

#[tokio::test]
async fn a_retry_after_beyond_the_cap_is_said_and_not_slept() {
    let up = upstream().reply(status(429).retry_after(86_400)).start().await;
    let paid = upstream().reply(chat("paid")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("f1").fallback(&paid)).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!((answer.says().as_str(), answer.header("x-pointsman-waited-ms")), ("paid", "0"));
    let asked = proxy.wait_rows(1, "SELECT retry_after_ms FROM attempts WHERE backend = 'p1'").await;
    assert_eq!(asked[0]["retry_after_ms"], 86_400_000, "the record says what was asked for");
    let backends = proxy.admin("/api/backends").send().await.json();
    let cooling = backends["backends"][0]["model_cooldowns"][0]["cooldown_ms"].as_u64().expect("it cools");
    assert!((3_500_000..=3_600_000).contains(&cooling), "{backends}");
}

#[tokio::test]
async fn a_full_queue_refuses_instead_of_growing() {
    let gate = Gate::new();
    let up = upstream().reply(chat("hi").gated_head(&gate)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).max_concurrency(1)).set("limits.queue_length", 2);
    let proxy = proxy.setting("emergency_rpm_fraction", 0.0).start().await;
    let first = tokio::spawn(proxy.chat().send());
    up.wait_seen(1).await;
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(proxy.chat().send())).collect();
    proxy.wait_backends("\"queued\":2").await;
    let refused = proxy.chat().send().await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    gate.open();
    assert_eq!(first.await.unwrap().status, 200);
    for request in waiting {
        assert_eq!(request.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_cooldown_is_told_to_the_operator() {
    let up = upstream().reply(status(429).retry_after(30)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up));
    let proxy = proxy.setting("primary_wait_ms", 20).setting("primary_wait_max_retries", 1).start().await;
    proxy.chat().send().await;
    let told = proxy.admin("/api/backends").send().await.json();
    let p1 = &told["backends"][0];
    assert_eq!((&p1["state"], &p1["models_cooling"]), (&"ready".into(), &1.into()), "{told}");
    let m = &p1["model_cooldowns"][0];
    assert_eq!((&m["model"], &m["reason"]), (&"m".into(), &"rate_limited".into()), "{told}");
    let rows = eventually("a stored cooldown", || {
        Some(proxy.rows("SELECT backend, reason FROM cooldowns")).filter(|r| !r.is_empty())
    });
    assert_eq!(rows.await[0], json!({"backend": "p1", "reason": "rate_limited"}));
}
