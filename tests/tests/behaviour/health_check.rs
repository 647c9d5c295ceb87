//! Health checks: off unless configured, and only for a backend that has to prove itself.

use pointsman_tests::{Backend, Seen, backend, chat, proxy, silence, status, upstream};

/// A primary that refuses its first request for 50 ms; `checked` says how it is configured.
async fn scene(checked: impl FnOnce(Backend) -> Backend) -> (pointsman_tests::Proxy, pointsman_tests::Upstream) {
    let script = |_: &Seen, i| if i == 0 { status(429).header("retry-after-ms", 50) } else { chat("well") };
    let up = upstream().handler(script).start().await;
    let paid = upstream().reply(chat("paid")).start().await;
    let proxy = proxy!()
        .backend(checked(backend("p1").primary(&up)))
        .backend(backend("f1").fallback(&paid).price("*", 5.0, 5.0))
        .setting("primary_wait_max_retries", 0)
        .start()
        .await;
    assert_eq!(proxy.chat().send().await.says(), "paid");
    (proxy, up)
}

#[tokio::test]
async fn a_backend_after_its_cooldown_is_asked_for_one_token_and_then_left_alone() {
    let (proxy, up) =
        scene(|b| b.set("health_check.model", "m").set("health_check.interval_ms", 1_000).price("*", 0.0, 1.0)).await;
    up.wait_seen(2).await;
    let check = &up.seen()[1];
    assert_eq!((check.json()["max_tokens"].as_u64(), check.json()["model"].as_str()), (Some(1), Some("m")));
    assert_eq!(check.header("authorization"), Some("Bearer key-of-p1"));
    let rows =
        proxy.wait_rows(2, "SELECT id, client, status, cost_usd, saved_usd FROM exchanges ORDER BY started").await;
    assert_eq!((&rows[1]["client"], &rows[1]["status"]), (&"(health check)".into(), &200.into()));
    assert!(rows[1]["cost_usd"].as_f64().unwrap() > 0.0, "checks are paid and say so: {rows:?}");
    assert!(rows[1]["saved_usd"].is_null(), "a check saves nothing: {rows:?}");
    // It has proved itself: the client's next request is no probe, and nothing else is sent.
    assert_eq!(proxy.chat().send().await.says(), "well");
    assert_eq!(up.count(), 3);
}

#[tokio::test]
async fn without_one_the_next_request_is_the_probe() {
    let (proxy, up) = scene(|b| b).await;
    proxy.wait_backends("\"ready\"").await;
    assert_eq!(up.count(), 1, "something was sent unasked");
    assert_eq!(proxy.chat().send().await.says(), "well");
    assert_eq!(up.count(), 2);
}

#[tokio::test]
async fn a_check_without_an_answer_is_a_failure_of_the_backend() {
    let script = |_: &Seen, i| if i == 0 { status(429).header("retry-after-ms", 50) } else { silence() };
    let up = upstream().handler(script).start().await;
    let paid = upstream().reply(chat("paid")).start().await;
    let checked = backend("p1").primary(&up).set("health_check.model", "m").set("health_check.timeout_ms", 200);
    let proxy = proxy!()
        .backend(checked)
        .backend(backend("f1").fallback(&paid))
        .setting("primary_wait_max_retries", 0)
        .start()
        .await;
    assert_eq!(proxy.chat().send().await.says(), "paid");
    up.wait_hung_up(1).await;
    proxy.wait_rows(1, "SELECT number FROM attempts WHERE backend = 'p1' AND outcome = 'timed_out'").await;
    proxy.wait_backends("timed_out").await;
}
