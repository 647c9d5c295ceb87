//! Limits of backends: what the provider allows is never exceeded, and who waits is served in order.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use pointsman_tests::{Gate, Proxy, ProxyBuilder, Upstream, backend, chat, eventually, proxy, status, upstream};
use serde_json::json;

/// The most requests that an upstream saw within any 60 seconds, as a provider counts them.
fn most_in_a_minute(up: &Upstream) -> usize {
    let times: Vec<_> = up.seen().iter().map(|s| s.at).collect();
    let until = |end: Instant| times.iter().filter(|at| **at <= end && end - **at < Duration::from_secs(60)).count();
    times.iter().map(|end| until(*end)).max().unwrap_or(0)
}

/// Returns the requests left of each backend's rpm, from `/api/backends`.
async fn requests_left(proxy: &Proxy) -> Vec<u64> {
    let told = proxy.admin("/api/backends").send().await.json();
    let backends = told["backends"].as_array().expect("a list");
    backends.iter().filter_map(|backend| backend["requests_left"].as_u64()).collect()
}

#[tokio::test]
async fn all_that_a_minute_allows_goes_at_once_and_what_is_over_elsewhere() {
    let gate = Gate::new();
    let key = || upstream().reply(chat("free").gated_head(&gate)).start();
    let (keys, paid) = ([key().await, key().await, key().await], upstream().reply(chat("paid")).start().await);
    let mut proxy = proxy!().backend(backend("f1").fallback(&paid));
    for (n, key) in (1..).zip(&keys) {
        proxy = proxy.backend(backend(&format!("p{n}")).primary(key).rpm(20));
    }
    let proxy = proxy.start().await;
    assert_eq!(requests_left(&proxy).await, [20; 3]);

    // As long as nobody has been answered, all are under way at once.
    let first: Vec<_> = (0..18).map(|_| tokio::spawn(proxy.chat().send())).collect();
    let seen = || keys.iter().map(Upstream::count).sum::<usize>();
    eventually("18 requests at the primaries", || (seen() == 18).then_some(())).await;
    assert_eq!(requests_left(&proxy).await.iter().sum::<u64>(), 42, "it says what can go now");
    let more: Vec<_> = (18..60).map(|_| tokio::spawn(proxy.chat().send())).collect();
    eventually("60 requests at the primaries", || (seen() == 60).then_some(())).await;
    assert_eq!(requests_left(&proxy).await, [0; 3]);
    gate.open();
    for request in first {
        let answer = request.await.unwrap();
        assert_eq!((answer.status, answer.header("x-pointsman-lane")), (StatusCode::OK, "primary"));
        assert_eq!((answer.header("x-pointsman-waited-ms"), answer.header("x-pointsman-attempts")), ("0", "1"));
    }
    for request in more {
        assert_eq!(request.await.unwrap().says(), "free");
    }

    // The minute is used up, and longer than anybody would wait.
    for _ in 0..3 {
        assert_eq!(proxy.chat().send().await.says(), "paid");
    }
    assert_eq!(keys.each_ref().map(most_in_a_minute), [20; 3]);
    assert_eq!(paid.count(), 3);
}

#[tokio::test]
async fn with_a_burst_so_many_go_at_once_and_the_rest_in_turn() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).rpm(600).set("burst", 2)).start().await;
    assert_eq!(requests_left(&proxy).await, [2]);
    let answers = join_all((0..8).map(|_| proxy.chat().send())).await;
    assert!(answers.iter().all(|a| a.status == 200 && a.header("x-pointsman-lane") == "primary"), "{answers:?}");
    // When the proxy let them go, by its own clock: whole milliseconds, 60.5 s / 600 apart.
    let started = "SELECT CAST(ROUND(1000 * (julianday(started) - 2440587.5) * 86400) AS INTEGER) AS ms \
                   FROM attempts ORDER BY ms";
    let rows = proxy.wait_rows(8, started).await;
    let times: Vec<_> = rows.iter().map(|row| row["ms"].as_u64().expect("a time")).collect();
    for (n, at) in times.iter().enumerate().skip(2) {
        let apart = at - times[0];
        assert!(apart + 2 >= 100 * (n as u64 - 1), "number {n} went {apart} ms after the first: {times:?}");
    }
    assert_eq!(up.count(), 8);
}

#[tokio::test]
async fn a_reload_that_changes_a_limit_keeps_what_is_used() {
    let (up, paid) = (upstream().start().await, upstream().reply(chat("paid")).start().await);
    let backends = |rpm| [backend("p1").primary(&up).rpm(rpm), backend("f1").fallback(&paid)];
    let mut proxy = backends(4).into_iter().fold(proxy!(), ProxyBuilder::backend).start().await;
    for _ in 0..3 {
        assert_eq!(proxy.chat().send().await.says(), "hello");
    }
    proxy.reconfigure_backends(backends(5));
    proxy.wait_backends("\"requests_left\":2").await;
    let answers = join_all((0..4).map(|_| proxy.chat().send())).await;
    assert_eq!(answers.iter().filter(|a| a.says() == "paid").count(), 2);
    assert_eq!((up.count(), most_in_a_minute(&up)), (5, 5));
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
