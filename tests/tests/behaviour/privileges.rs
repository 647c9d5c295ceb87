//! Priority and labels of clients count as far as the operator allows.

use pointsman_tests::{Gate, Proxy, backend, chat, proxy, upstream};
use serde_json::{Value, json};
use toml::Value as Toml;

/// Priority and labels in the record of a request with these headers.
async fn said(proxy: &Proxy, key: Option<&str>, priority: &str) -> (i64, Value) {
    let request = proxy.chat().header("x-pointsman-priority", priority);
    let request = request.header("x-pointsman-label-team", "blue").header("x-pointsman-label-Batch-Kind", "nightly");
    let answer = match key {
        Some(key) => request.bearer(key),
        None => request,
    };
    let answer = answer.send().await;
    assert_eq!(answer.status, 200, "no request is refused for it: {}", answer.text());
    let id = answer.header("x-request-id");
    proxy.wait_rows(1, &format!("SELECT id FROM exchanges WHERE id = '{id}'")).await;
    let request = proxy.admin(&format!("/api/exchanges/{id}")).send().await.json()["story"]["request"].clone();
    (request["priority"].as_i64().unwrap(), request["labels"].clone())
}

#[tokio::test]
async fn a_priority_above_0_and_labels_count_where_the_client_may_send_them() {
    let up = upstream().reply(chat("hello")).start().await;
    let [boss, team, mute, meek]: [&[(&str, Toml)]; 4] = [
        &[("priority_max", Toml::Integer(50))],
        &[("labels", Toml::Array(vec!["TEAM".into()]))],
        &[("labels", Toml::Array(Vec::new()))],
        &[("priority_max", Toml::Integer(-5)), ("labels", Toml::Array(vec!["batch-*".into()]))],
    ];
    let proxy = proxy!()
        .backend(backend("p1").primary(&up))
        .client("plain", "key-plain")
        .client_with("boss", "key-boss", boss)
        .client_with("team", "key-team", team)
        .client_with("mute", "key-mute", mute)
        .client_with("meek", "key-meek", meek)
        .start()
        .await;
    let both = json!({"batch-kind": "nightly", "team": "blue"});
    for (key, asked, priority, labels) in [
        ("key-plain", "100", 0, &both),
        ("key-plain", "1", 0, &both),
        ("key-plain", "-7", -7, &both),
        ("key-plain", "99999999999999999999", 0, &both),
        ("key-boss", "30", 30, &both),
        ("key-boss", "100", 50, &both),
        ("key-boss", "-1000", -100, &both),
        ("key-team", "5", 0, &json!({"team": "blue"})),
        ("key-mute", "5", 0, &json!({})),
        ("key-meek", "5", -5, &json!({"batch-kind": "nightly"})),
        ("key-meek", "-50", -50, &json!({"batch-kind": "nightly"})),
    ] {
        assert_eq!(said(&proxy, Some(key), asked).await, (priority, labels.clone()), "{key} {asked}");
    }
    assert!(up.seen().iter().all(|seen| seen.headers.iter().all(|(name, _)| !name.starts_with("x-pointsman-"))));
}

#[tokio::test]
async fn without_client_keys_the_server_says_how_high_a_priority_may_be() {
    let up = upstream().reply(chat("hello")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(said(&proxy, None, "100").await.0, 0);
    assert_eq!(said(&proxy, None, "-3").await.0, -3);
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.priority_max", 20).start().await;
    assert_eq!(said(&proxy, None, "100").await.0, 20);
}

#[tokio::test]
async fn nobody_goes_before_others_by_a_header_alone() {
    let gate = Gate::new();
    let up = upstream().reply(chat("hi").gated_head(&gate)).start().await;
    let proxy = proxy!()
        .backend(backend("p1").primary(&up).max_concurrency(1))
        .client("calm", "key-calm")
        .client("pushy", "key-pushy")
        .client_with("boss", "key-boss", &[("priority_max", 10)])
        .start()
        .await;
    let mut requests = Vec::new();
    for (queued, (number, key, priority)) in
        [(0, "key-calm", "0"), (1, "key-calm", "0"), (2, "key-pushy", "100"), (3, "key-boss", "10")].iter().enumerate()
    {
        let body = json!({"model": "m", "messages": [], "number": number});
        let request =
            proxy.post("/v1/chat/completions").json(&body).bearer(key).header("x-pointsman-priority", priority);
        requests.push(tokio::spawn(request.send()));
        match queued {
            0 => up.wait_seen(1).await,
            _ => proxy.wait_backends(&format!("\"queued\":{queued}")).await,
        }
    }
    gate.open();
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    let order: Vec<_> = up.seen().iter().map(|seen| seen.json()["number"].as_u64().unwrap()).collect();
    assert_eq!(order, [0, 3, 1, 2], "only the boss may");
}
