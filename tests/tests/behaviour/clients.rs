//! Who may ask, and how often.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pointsman_tests::{backend, proxy, upstream};
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
    let rows = proxy.wait_rows(3, "SELECT client FROM exchanges WHERE status = 200 ORDER BY client").await;
    let names: Vec<_> = rows.iter().map(|r| r["client"].as_str().unwrap()).collect();
    assert_eq!(names, ["agent-1", "agent-1", "agent-2"]);
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
