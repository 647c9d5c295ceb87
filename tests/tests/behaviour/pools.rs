//! Primary, wait, fallback, emergency, and the end of the line.

use std::time::Duration;

use pointsman_tests::{ProxyBuilder, Upstream, backend, chat, proxy, sends_to, status, upstream};

/// A primary and a fallback.
fn two_tiers(primary: &Upstream, fallback: &Upstream) -> ProxyBuilder {
    proxy!().backend(backend("p1").primary(primary)).backend(backend("f1").fallback(fallback))
}

#[tokio::test]
async fn all_primaries_cooling_waits_for_them_rather_than_pay() {
    let busy = upstream().reply(status(429).retry_after(1)).then(chat("worth the wait")).start().await;
    let paid = upstream().reply(chat("paid")).start().await;
    let proxy = two_tiers(&busy, &paid).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(answer.says(), "worth the wait");
    assert_eq!(answer.header("x-pointsman-lane"), "primary");
    assert_eq!(answer.header("x-pointsman-attempts"), "2");
    let waited: u64 = answer.header("x-pointsman-waited-ms").parse().unwrap();
    assert!((900..3_000).contains(&waited), "waited {waited} ms for a Retry-After of 1 s");
    assert_eq!(paid.count(), 0);
    let seen = busy.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(990), "asked again before Retry-After");
}

#[tokio::test]
async fn a_policy_that_names_a_cooling_backend_waits_for_it_while_another_is_ready() {
    let busy = upstream().reply(status(429).header("retry-after-ms", 700)).then(chat("the one named")).start().await;
    let other = upstream().reply(chat("another")).start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("always-p1.wasm");
    std::fs::write(&file, sends_to(0).build()).expect("a component can be written");
    let proxy = proxy!().policy_file(&file).backend(backend("p1").primary(&busy));
    let proxy = proxy.backend(backend("p2").primary(&other)).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!((answer.says(), other.count()), ("the one named".to_owned(), 0));
    assert_eq!(answer.header("x-pointsman-attempts"), "2");
    let seen = busy.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(695), "asked again before its Retry-After");
    let asked = proxy.wait_rows(1, "SELECT waits FROM exchanges").await;
    assert_eq!(asked[0]["waits"], 1, "one wait, not a circle of them");
}

#[tokio::test]
async fn a_named_backend_that_cools_for_longer_than_may_be_waited_ends_the_exchange_at_once() {
    let busy = upstream().reply(status(429).retry_after(50)).start().await;
    let other = upstream().reply(chat("another")).start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("always-p1.wasm");
    std::fs::write(&file, sends_to(0).build()).expect("a component can be written");
    let proxy = proxy!().policy_file(&file).set("limits.max_wait_ms", 40_000).backend(backend("p1").primary(&busy));
    let proxy = proxy.backend(backend("p2").primary(&other)).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!((answer.status.as_u16(), busy.count(), other.count()), (503, 1, 0));
    let message = answer.json()["error"]["message"].to_string();
    assert!(message.contains("p2 is ready, but the policy did not choose it"), "{message}");
}

#[tokio::test]
async fn retry_after_in_milliseconds_is_obeyed_too() {
    let busy = upstream().reply(status(429).header("retry-after-ms", 400)).then(chat("soon")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&busy)).start().await;
    assert_eq!(proxy.chat().send().await.says(), "soon");
    let seen = busy.seen();
    let gap = seen[1].at - seen[0].at;
    assert!(gap >= Duration::from_millis(395) && gap < Duration::from_secs(2), "asked again after {gap:?}");
}

#[tokio::test]
async fn beyond_the_wait_budget_the_fallback_answers() {
    let busy = upstream().reply(status(429).retry_after(60)).start().await;
    let paid = upstream().reply(chat("paid")).start().await;
    let proxy = two_tiers(&busy, &paid).setting("primary_wait_ms", 100).setting("primary_wait_max_retries", 2);
    let proxy = proxy.start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(answer.says(), "paid");
    assert_eq!(answer.header("x-pointsman-lane"), "fallback");
    assert_eq!(answer.header("x-pointsman-backend"), "f1");
    assert_eq!(busy.count(), 1, "a cooling primary was asked");
    let again = proxy.chat().send().await;
    assert_eq!(again.header("x-pointsman-lane"), "fallback");
    assert_eq!(busy.count(), 1, "a cooling primary was asked");
}

#[tokio::test]
async fn emergency_uses_whatever_still_answers() {
    let up = upstream().reply(chat("").reset_before_head()).then(chat("after all")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).rpm(40)).set("cooldown.base_ms", 20_000);
    let proxy = proxy.setting("primary_wait_ms", 2_000).setting("primary_wait_max_retries", 0).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(answer.says(), "after all");
    assert_eq!(answer.header("x-pointsman-lane"), "emergency");
}

#[tokio::test]
async fn when_all_is_exhausted_the_client_is_told_honestly() {
    let busy = upstream().reply(status(429).retry_after(45)).start().await;
    let paid = upstream().reply(status(429).retry_after(45)).start().await;
    let proxy = two_tiers(&busy, &paid).setting("primary_wait_ms", 50).setting("primary_wait_max_retries", 1);
    let proxy = proxy.start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(answer.status, 503);
    let error = &answer.json()["error"];
    assert_eq!(error["type"], "AllPoolsExhausted");
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()));
    assert!(error.get("param").is_some() && error.get("code").is_some(), "{error}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-should-retry"), "", "Retry-After says when to come again");
    let retry_after: u64 = answer.header("retry-after").parse().expect("retry-after is whole seconds");
    assert!((1..=46).contains(&retry_after), "retry-after {retry_after}");
    assert!(busy.count() + paid.count() <= 8, "{} attempts", busy.count() + paid.count());
    let rows = proxy.wait_rows(1, "SELECT end, cost_usd FROM exchanges").await;
    assert_eq!((&rows[0]["end"], &rows[0]["cost_usd"]), (&"rejected".into(), &0.0.into()));
}

#[tokio::test]
async fn an_anthropic_client_is_told_in_its_own_words() {
    let busy = upstream().reply(status(429).retry_after(45)).start().await;
    let proxy = proxy!().backend(backend("a1").primary(&busy).set("dialect", "anthropic"));
    let proxy = proxy.setting("primary_wait_ms", 50).setting("primary_wait_max_retries", 1).start().await;
    let body = serde_json::json!({"model": "c", "max_tokens": 1, "messages": []});
    let answer = proxy.post("/v1/messages").json(&body).send().await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["type"], "error");
    assert_eq!(answer.json()["error"]["type"], "overloaded_error");
    assert!(answer.header("x-should-retry").is_empty() && !answer.header("retry-after").is_empty());
}

#[tokio::test]
async fn a_model_nobody_serves_is_refused_at_once() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).model("llama", "llama")).start().await;
    let answer = proxy.chat_for("no-such-model").send().await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("no-such-model"));
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn an_expired_cooldown_is_probed_by_one_request_first() {
    let gate = pointsman_tests::Gate::new();
    let held = gate.clone();
    let busy = upstream().handler(move |_, i| {
        if i == 0 { status(429).header("retry-after-ms", 300) } else { chat("well").gated_head(&held) }
    });
    let busy = busy.start().await;
    let proxy = proxy!().backend(backend("p1").primary(&busy)).start().await;
    let mut requests = vec![tokio::spawn(proxy.chat().send())];
    busy.wait_seen(1).await;
    proxy.wait_backends("\"models_cooling\":1").await;
    requests.extend((0..4).map(|_| tokio::spawn(proxy.chat().send())));
    busy.wait_seen(2).await;
    proxy.wait_backends("\"queued\":4").await;
    assert_eq!((busy.count(), busy.open()), (2, 1), "more than one probe");
    gate.open();
    for request in requests {
        assert_eq!(request.await.unwrap().says(), "well");
    }
}
