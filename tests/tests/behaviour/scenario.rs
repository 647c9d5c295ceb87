//! Predictions of `pointsman policy test` agree with the server's behaviour.

use pointsman_tests::{backend, chat, proxy, run, status, tokens, upstream};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

/// Two backends that fail in several ways, four requests, one after the other.
const SCENARIO: &str = r#"
title = "the same as the live one below"
[[backend]]
id = "p1"
script = [
  { answer = 429, retry_after = "1s", after = "5ms" },
  { answer = 500, after = "5ms" },
  { answer = 200, after = "5ms" },
  { answer = "cut", tokens = 0, after = "5ms" },
  { answer = 200, after = "5ms" },
  { answer = 401, after = "5ms" },
]
[[backend]]
id = "f1"
tier = "fallback"
script = [{ answer = 503, after = "5ms" }, { answer = 200, after = "5ms" }]
[[request]]
model = "m"
end = "delivered by p1"
not_before = "1.5s"
[[request]]
at = "30s"
model = "m"
stream = true
end = "delivered by p1"
[[request]]
at = "60s"
model = "m"
end = "delivered by f1"
[[request]]
at = "90s"
model = "m"
end = "delivered by f1"
"#;

type Step = (String, String, String);

fn step(attempt: &Value) -> Step {
    let text = |key: &str| attempt[key].as_str().unwrap_or_default().to_owned();
    (text("lane"), text("backend"), text("outcome"))
}

async fn predicted() -> Vec<Step> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("same.toml"), SCENARIO).unwrap();
    let ended = run(BINARY, folder.path(), &["policy", "test", "default", "same.toml", "--json"], &[]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let exchanges = report["scenarios"][0]["exchanges"].as_array().unwrap();
    exchanges.iter().flat_map(|e| e["attempts"].as_array().unwrap()).map(step).collect()
}

#[tokio::test]
async fn the_world_predicts_what_the_server_does() {
    let (one, two) = (chat("one"), chat("three"));
    let p1 = upstream().reply(status(429).retry_after(1)).then(status(500)).then(one);
    let p1 = p1.then(tokens(3).cut_after(0)).then(tokens(3)).then(status(401)).start().await;
    let f1 = upstream().reply(status(503)).then(two).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&p1)).backend(backend("f1").fallback(&f1)).start().await;
    for streams in [false, true, false] {
        let request = if streams { proxy.chat_stream() } else { proxy.chat() };
        assert_eq!(request.send().await.status, 200);
    }
    // Requests of a scenario are all different; the same one again would not be sent to who refused it.
    let another = json!({"model": "m", "messages": [{"role": "user", "content": "another"}]});
    assert_eq!(proxy.post("/v1/chat/completions").json(&another).send().await.status, 200);
    let rows = proxy.wait_rows(10, "SELECT lane, backend, outcome FROM attempts ORDER BY ended_us, number").await;
    let happened: Vec<Step> = rows.iter().map(step).collect();
    assert_eq!(happened, predicted().await);
    let outcomes: Vec<&str> = happened.iter().map(|(_, _, outcome)| outcome.as_str()).collect();
    let expected = ["rate_limited", "server_error", "answered", "cut", "answered", "unauthorised"];
    assert_eq!(outcomes[..6], expected, "the script was followed");
}

#[tokio::test]
async fn exit_codes_are_0_1_and_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, end: &str| {
        let text = format!("title = \"t\"\n[[backend]]\nid = \"a\"\n[[request]]\nend = \"{end}\"\n");
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    file("good.toml", "delivered by a");
    file("bad.toml", "rejected 503");
    let test = async |files: &[&str]| {
        let args = [&["policy", "test", "default"], files].concat();
        run(BINARY, folder.path(), &args, &[]).await
    };
    let good = test(&["good.toml"]).await;
    assert_eq!((good.code, good.stdout.lines().last()), (Some(0), Some("1 passed, 0 failed")), "{}", good.stderr);
    let bad = test(&["good.toml", "bad.toml"]).await;
    assert_eq!((bad.code, bad.stdout.lines().last()), (Some(1), Some("1 passed, 1 failed")));
    let none = test(&["none.toml"]).await;
    assert!(none.code == Some(2) && none.stderr.contains("there is no none.toml"), "{}", none.stderr);
}
