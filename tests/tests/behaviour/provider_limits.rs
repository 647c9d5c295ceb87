//! Limits of providers: of a day, of a model, told in bodies, and learned where nobody tells them.

use pointsman_tests::{Gate, backend, chat, json, proxy, status, upstream};
use serde_json::json as value;

#[tokio::test]
async fn a_days_requests_are_used_up_and_the_next_goes_elsewhere() {
    let (up, paid) = (upstream().start().await, upstream().reply(chat("paid")).start().await);
    let proxy =
        proxy!().backend(backend("p1").primary(&up).set("rpd", 2)).backend(backend("f1").fallback(&paid)).start().await;
    for expected in ["hello", "hello", "paid", "paid"] {
        assert_eq!(proxy.chat().send().await.says(), expected);
    }
    assert_eq!((up.count(), paid.count()), (2, 2));
    let told = proxy.admin("/api/backends").send().await.json();
    assert_eq!(told["backends"][0]["requests_left"].as_u64().or(told[0]["requests_left"].as_u64()), Some(0), "{told}");
}

#[tokio::test]
async fn a_days_limit_outlives_a_restart() {
    let (up, paid) = (upstream().start().await, upstream().reply(chat("paid")).start().await);
    let one = backend("p1").primary(&up).set("rpd", 2).set("limits.m.rpd", 2);
    let mut proxy = proxy!().backend(one).backend(backend("f1").fallback(&paid)).start().await;
    assert_eq!(proxy.chat().send().await.says(), "hello");
    assert_eq!(proxy.chat().send().await.says(), "hello");
    proxy.sigterm();
    proxy.wait_exit().await;
    proxy.restart().await;
    assert_eq!(proxy.chat().send().await.says(), "paid");
    assert_eq!((up.count(), paid.count()), (2, 1));
}

#[tokio::test]
async fn a_models_limit_is_that_of_the_name_sent_and_leaves_the_others_alone() {
    let (up, paid) = (upstream().start().await, upstream().reply(chat("paid")).start().await);
    let one =
        backend("p1").primary(&up).model("small", "vendor/small").model("little", "vendor/small").model("big", "big");
    let one = one.set("limits.vendor/small.rpd", 1);
    let proxy = proxy!().backend(one).backend(backend("f1").fallback(&paid)).start().await;
    assert_eq!(proxy.chat_for("small").send().await.says(), "hello");
    assert_eq!(proxy.chat_for("little").send().await.says(), "paid");
    assert_eq!(proxy.chat_for("big").send().await.says(), "hello");
    assert_eq!((up.count(), paid.count()), (2, 1));
}

#[tokio::test]
async fn a_reset_that_stands_in_the_body_counts_like_one_in_the_headers() {
    let soon_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() + 600_000;
    let bodies = [
        value!({"error": {"message": "Rate limit exceeded: free-models-per-day", "code": 429, "metadata": {"headers":
            {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": soon_ms.to_string()}}}}),
        value!({"error": {"message": "Please try again in 10 minutes.", "type": "rate_limit_error"}}),
        value!({"error": {"message": "slow down", "retry_after": 600}}),
        value!([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota", "details": [
            {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}, {"retryDelay": "1s"}]}}]),
    ];
    for body in bodies {
        let up = upstream().reply(json(body.clone()).with_status(429)).start().await;
        let paid = upstream().reply(chat("paid")).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("f1").fallback(&paid)).start().await;
        assert_eq!(proxy.chat().send().await.says(), "paid");
        let rows = proxy.wait_rows(1, "SELECT outcome, retry_after_ms FROM attempts WHERE backend = 'p1'").await;
        assert_eq!(rows[0]["outcome"], "rate_limited", "{body}");
        // The day may end at this very moment on the Pacific coast, but hardly within the test.
        assert!(rows[0]["retry_after_ms"].as_u64().is_some_and(|ms| ms > 30_000), "{body}: {rows:?}");
        assert_eq!(proxy.chat().send().await.says(), "paid");
        assert_eq!(up.count(), 1, "{body}");
    }
}

#[tokio::test]
async fn a_wait_is_read_in_every_form_of_header() {
    for (name, told) in [
        ("retry-after", "600s"),
        ("retry-after", "10 minutes"),
        ("x-retry-after", "600"),
        ("ratelimit", "limit=10, remaining=0, reset=600"),
        ("ratelimit", "\"minute\";r=3;t=5, \"day\";r=0;t=600"),
    ] {
        let up =
            upstream().reply(json(value!({"error": {"message": "slow down"}})).with_status(429).header(name, told));
        let up = up.start().await;
        let paid = upstream().reply(chat("paid")).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("f1").fallback(&paid)).start().await;
        assert_eq!(proxy.chat().send().await.says(), "paid");
        let rows = proxy.wait_rows(1, "SELECT retry_after_ms FROM attempts WHERE backend = 'p1'").await;
        assert_eq!(rows[0]["retry_after_ms"], 600_000, "{name}: {told}");
    }
}

#[tokio::test]
async fn a_ceiling_is_learned_where_a_provider_refuses_more_at_a_time_and_nobody_is_refused() {
    let gate = Gate::new();
    let held = gate.clone();
    let up = upstream().handler(move |_, number| match number {
        // The third of three at a time is one too many.
        2 => {
            json(value!({"error": {"message": "Too many concurrent requests", "code": "rate_limit"}})).with_status(429)
        }
        _ => chat("hello").gated_head(&held),
    });
    let up = up.start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let ask = || async { proxy.chat().send().await.says() };
    let release = async {
        up.wait_seen(3).await;
        gate.open();
    };
    let (a, b, c, ()) = tokio::join!(ask(), ask(), ask(), release);
    assert_eq!([a, b, c], ["hello", "hello", "hello"]);
    assert_eq!((up.count(), up.peak()), (4, 3), "the refused one waited for a place, and no longer");
    let rows = proxy.wait_rows(4, "SELECT outcome FROM attempts ORDER BY outcome").await;
    assert_eq!(rows.iter().filter(|row| row["outcome"] == "rate_limited").count(), 1);
}

#[tokio::test]
async fn a_refusal_of_another_kind_teaches_no_ceiling() {
    let up = upstream().reply(status(429).header("retry-after-ms", 1)).then(chat("hello")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(proxy.chat().send().await.says(), "hello");
    let told = proxy.admin("/api/backends").send().await.text();
    assert!(!told.contains("\"most_in_flight\":1"), "{told}");
}
