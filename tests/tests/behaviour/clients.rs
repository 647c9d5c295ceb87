//! Client keys: access and limits.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use pointsman_tests::{backend, chat, proxy, upstream};
use sha2::{Digest, Sha256};

fn hashed(key: &str) -> String {
    let hex: String = Sha256::digest(key).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

#[tokio::test]
async fn only_configured_keys_are_served() {
    let up = upstream().start().await;
    let proxy = proxy!()
        .backend(backend("p1").primary(&up))
        .client("agent-1", &hashed("right"))
        .client("agent-2", "env:SECOND_KEY")
        .env("SECOND_KEY", "right-too")
        .start()
        .await;
    for request in [proxy.chat(), proxy.chat().bearer("wrong"), proxy.chat().header("authorization", "Basic right")] {
        let refused = request.send().await;
        assert_eq!(refused.status, 401);
        assert!(refused.json()["error"]["message"].is_string());
        assert_eq!(refused.header("content-type"), "application/json");
    }
    assert_eq!(up.count(), 0);
    assert_eq!(proxy.chat().bearer("right").send().await.status, 200);
    assert_eq!(proxy.chat().bearer("right-too").send().await.status, 200);
    assert_eq!(proxy.chat().header("x-api-key", "right").send().await.status, 200);
    assert_eq!(proxy.chat().header("x-goog-api-key", "right").send().await.status, 200);
    let both = proxy.chat().bearer("of-another-service").header("x-api-key", "right").send().await;
    assert_eq!(both.status, 200, "a key of another service beside ours");
    let rows = proxy.wait_rows(5, "SELECT client FROM exchanges WHERE status = 200 ORDER BY client").await;
    let names: Vec<_> = rows.iter().map(|r| r["client"].as_str().unwrap()).collect();
    assert_eq!(names, ["agent-1", "agent-1", "agent-1", "agent-1", "agent-2"]);
}

#[tokio::test]
async fn the_model_list_is_for_clients_only() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).client("a", &hashed("right")).start().await;
    assert_eq!(proxy.get("/v1/models").send().await.status, 401);
    assert_eq!(proxy.get("/v1/models").bearer("right").send().await.status, 200);
}

#[tokio::test]
async fn a_clients_rate_is_its_own() {
    let up = upstream().start().await;
    let proxy = proxy!()
        .backend(backend("p1").primary(&up))
        .client_with("busy", &hashed("one"), &[("rpm", 5)])
        .client("other", &hashed("two"))
        .start()
        .await;
    let before = Instant::now();
    let answers = join_all((0..6).map(|_| proxy.chat().bearer("one").send())).await;
    let (passed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
    assert_eq!((passed.len(), up.count()), (5, 5), "all five at once, and no more");
    let refused = &refused[0];
    assert_eq!(refused.status, 429);
    // The minute ends for the first of them: no later than a minute from now, and no earlier than it says.
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!(after <= 60 && Duration::from_secs(after) + before.elapsed() >= Duration::from_secs(60), "{after}");
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("busy"), "{}", refused.text());
    assert_eq!(proxy.chat().bearer("two").send().await.status, 200);
    assert_eq!(up.count(), 6);
}

#[tokio::test]
async fn over_its_budget_a_client_goes_on_with_what_costs_nothing() {
    let (up, paid) = (upstream().reply(chat("free")).start().await, upstream().reply(chat("paid")).start().await);
    let budget = ("budget_usd_per_day", toml::Value::Float(0.000_01));
    let proxy = proxy!()
        .backend(backend("p1").primary(&up).model("free", "free").model("both", "both"))
        .backend(backend("f1").fallback(&paid).model("paid", "paid").model("both", "both").price("*", 10.0, 10.0))
        .client_with("saver", &hashed("one"), std::slice::from_ref(&budget))
        .client_with("strict", &hashed("two"), &[budget, ("free_when_over_budget", false.into())])
        .start()
        .await;
    let ask = |key, model| proxy.chat_for(model).bearer(key).send();
    for key in ["one", "two"] {
        assert_eq!(ask(key, "paid").await.says(), "paid", "nothing is spent yet");
    }
    proxy.wait_rows(2, "SELECT id FROM exchanges WHERE cost_usd > 0.00001").await;
    for key in ["one", "two"] {
        let refused = ask(key, "paid").await;
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains("budget_usd_per_day"));
    }
    assert_eq!(ask("one", "free").await.says(), "free");
    assert_eq!(ask("two", "free").await.status, 429);
    // What costs money is left out also where it is all that is ready.
    assert_eq!(proxy.admin_request(Method::POST, "/api/backends/p1/drain").send().await.status, 200);
    let refused = ask("one", "both").await;
    assert_eq!(refused.status, 503);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("p1 is drained") && message.contains("budget of the day is spent"), "{message}");
    assert_eq!((paid.count(), up.count()), (2, 1));
    let rows = proxy.wait_rows(1, "SELECT notes FROM exchanges WHERE model = 'free' AND status = 200").await;
    assert!(rows[0]["notes"].to_string().contains("only backends that cost nothing"), "{rows:?}");
}
