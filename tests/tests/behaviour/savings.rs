//! Savings by waiting are shown wherever money is.

use pointsman_tests::{Proxy, Upstream, backend, chat, proxy, run, status, upstream};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

/// One answer after a wait; 11 tokens in, 7 out.
async fn after_a_wait(fallback_price: Option<(f64, f64)>) -> (Proxy, String, [Upstream; 2]) {
    let free = upstream().reply(status(429).retry_after(1)).then(chat("hello")).start().await;
    let paid = upstream().reply(chat("dear")).start().await;
    let mut dear = backend("paid").fallback(&paid).model("m", "m-large");
    if let Some((input, output)) = fallback_price {
        dear = dear.price("m-large", input, output);
    }
    let proxy = proxy!().backend(backend("free").primary(&free).price("m", 1.0, 2.0)).backend(dear).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-pointsman-lane")), (200, "primary"));
    proxy.wait_rows(1, "SELECT id FROM exchanges WHERE waits > 0").await;
    (proxy, answer.header("x-request-id").to_owned(), [free, paid])
}

async fn explained(proxy: &Proxy, args: &[&str]) -> String {
    let ended = run(BINARY, proxy.dir(), &[&["explain"], args].concat(), &[]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

fn is_about(value: &Value, wanted: f64) -> bool {
    value.as_f64().is_some_and(|value| (value - wanted).abs() < 1e-12)
}

#[tokio::test]
async fn what_waiting_saved_is_told_by_record_usage_metrics_explain_and_at_the_end() {
    let (mut proxy, id, _providers) = after_a_wait(Some((10.0, 20.0))).await;
    // (11 x 10 + 7 x 20) less (11 x 1 + 7 x 2), for a million tokens.
    let saved = 225e-6;
    assert!(is_about(&proxy.rows("SELECT saved_usd FROM exchanges")[0]["saved_usd"], saved));
    for group in ["lane", "backend", "model", "hour"] {
        let usage = proxy.admin(&format!("/api/usage?group={group}")).send().await.json();
        assert!(is_about(&usage["total"]["saved_by_waiting_usd"], saved), "{usage}");
        assert_eq!(usage["total"]["saved_without_waiting_usd"], 0.0);
    }
    let lanes = proxy.admin("/api/usage?group=lane").send().await.json();
    let primary = lanes["rows"].as_array().unwrap().iter().find(|row| row["key"] == "primary").unwrap();
    assert!(is_about(&primary["saved_by_waiting_usd"], saved), "{lanes}");
    let metric = proxy.metric("pointsman_saved_by_waiting_usd_total{lane=\"primary\"} ").await;
    assert!((metric - saved).abs() < 1e-8, "{metric}");
    assert!(explained(&proxy, &[&id]).await.contains("saved    $0.000225 by waiting: the cheapest fallback"));
    let report: Value = serde_json::from_str(&explained(&proxy, &[&id, "--json"]).await).unwrap();
    assert!(is_about(&report["saved_usd"], saved), "{report}");

    // Without a wait it is a figure of its own.
    assert_eq!(proxy.chat().send().await.status, 200);
    proxy.wait_rows(2, "SELECT id FROM exchanges").await;
    let total = proxy.admin("/api/usage").send().await.json()["total"].clone();
    assert!(is_about(&total["saved_by_waiting_usd"], saved) && is_about(&total["saved_without_waiting_usd"], saved));

    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    let line = proxy
        .wait_log("the sum at the end", |l| {
            l["message"].as_str().is_some_and(|m| m.starts_with("since the start: 2 answers for $")).then(|| l.clone())
        })
        .await;
    assert!(line["message"].as_str().unwrap().ends_with("$0.0002 saved by waiting"), "{line}");
    assert!((line["saved_by_waiting_usd"].as_f64().unwrap() - saved).abs() < 1e-8, "{line}");
}

#[tokio::test]
async fn without_a_priced_fallback_it_is_unknown_and_not_nothing() {
    let (mut proxy, id, _providers) = after_a_wait(None).await;
    assert_eq!(proxy.rows("SELECT saved_usd FROM exchanges")[0]["saved_usd"], Value::Null);
    let usage = proxy.admin("/api/usage?group=lane").send().await.json();
    assert_eq!(usage["total"]["saved_by_waiting_usd"], Value::Null, "{usage}");
    assert!(!explained(&proxy, &[&id]).await.contains("saved "));
    proxy.sigterm();
    assert!(proxy.wait_exit().await.success());
    let unknown = |l: &Value| {
        l["message"].as_str().is_some_and(|m| m.ends_with("unknown, because no fallback has a price")).then_some(())
    };
    proxy.wait_log("the sum at the end", unknown).await;
}

#[tokio::test]
async fn the_waiting_line_is_told_once_for_each_lane() {
    let gate = pointsman_tests::Gate::new();
    let up = upstream().reply(chat("hi").gated_head(&gate)).start().await;
    let proxy = proxy!()
        .backend(backend("a").primary(&up).max_concurrency(1))
        .backend(backend("b").primary(&up).max_concurrency(1))
        .start()
        .await;
    let under_way: Vec<_> = (0..2).map(|_| tokio::spawn(proxy.chat().send())).collect();
    up.wait_seen(2).await;
    let mut waiting = Vec::new();
    for so_many in 1..=3 {
        waiting.push(tokio::spawn(proxy.chat().send()));
        proxy.wait_backends(&format!("\"waiting\":{so_many}")).await;
    }
    let shown = proxy.admin("/api/backends").send().await.json();
    let lane = |lane: &str, queued: u64| json!({"lane": lane, "queued": queued});
    assert_eq!(shown["lanes"], json!([lane("primary", 3), lane("fallback", 0), lane("emergency", 0)]));
    assert!(shown["backends"].as_array().unwrap().iter().all(|backend| backend.get("queued").is_none()));
    assert_eq!(proxy.metric("pointsman_queue_length{lane=\"primary\"} ").await, 3.0);
    gate.open();
    for request in under_way.into_iter().chain(waiting) {
        assert_eq!(request.await.unwrap().status, 200);
    }
    proxy.wait_rows(5, "SELECT ended_us FROM trail").await;
    let waited = proxy.rows("SELECT id FROM exchanges WHERE waits > 0 ORDER BY id");
    assert_eq!(waited.len(), 3);
    for (row, others) in waited.iter().zip(["", "1 other waits for a primary\n", "2 others wait for a primary\n"]) {
        let told = explained(&proxy, &[row["id"].as_str().unwrap()]).await;
        let first_question = told.split("decided").next().unwrap();
        assert_eq!(first_question.matches("for a primary\n").count(), usize::from(!others.is_empty()), "{told}");
        assert!(first_question.contains(others), "{others}: {told}");
        assert!(!told.contains("in flight, 2 wait"), "{told}");
    }
}
