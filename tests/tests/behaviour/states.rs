//! States of backends, told: cooldowns where they belong, and each change once, in the log and as an event.

use http::Method;
use pointsman_tests::{Proxy, Upstream, backend, chat, proxy, soon, status, upstream};
use serde_json::{Value as Json, json};

/// A provider that knows every model but those that begin with `unknown`, and answers 500 for `broken`.
async fn provider() -> Upstream {
    let answers = |seen: &pointsman_tests::Seen, _: usize| match seen.json()["model"].as_str() {
        Some(model) if model.starts_with("unknown") => {
            let error = json!({"error": {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}});
            pointsman_tests::json(error).with_status(404)
        }
        Some("broken") => status(429).retry_after(20),
        _ => chat("well"),
    };
    upstream().handler(answers).start().await
}

async fn cooldown_ms(proxy: &Proxy) -> u64 {
    backends(proxy).await[0]["cooldown_ms"].as_u64().unwrap()
}

async fn backends(proxy: &Proxy) -> Json {
    proxy.admin("/api/backends").send().await.json()["backends"].clone()
}

#[tokio::test]
async fn a_model_that_is_missing_says_nothing_of_other_models() {
    let up = provider().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("p2").primary(&up));
    let proxy = proxy.setting("primary_wait_ms", 20).setting("primary_wait_max_retries", 1);
    let proxy = proxy.setting("emergency_rpm_fraction", 0.0).start().await;
    assert_eq!(proxy.chat_for("unknown").send().await.status, 404);
    for b in backends(&proxy).await.as_array().unwrap() {
        assert_eq!(
            (&b["state"], &b["cooldown_ms"], &b["models_cooling"]),
            (&"ready".into(), &0.into(), &1.into()),
            "{b}"
        );
        let m = &b["model_cooldowns"][0];
        assert_eq!((&m["model"], &m["reason"]), (&"unknown".into(), &"model_missing".into()), "{b}");
        assert!(m["until"].as_str().is_some_and(|until| until.ends_with('Z')), "{b}");
    }
    let answer = proxy.chat_for("broken").send().await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("rate_limited") && !message.contains("model_missing"), "{message}");
    let retry_after: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=20).contains(&retry_after), "{retry_after}");
    assert_eq!(proxy.chat_for("fine").send().await.says(), "well");
}

#[tokio::test]
async fn a_model_that_every_backend_misses_is_a_404_and_not_come_again() {
    let up = provider().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).setting("primary_wait_ms", 20).start().await;
    assert_eq!(proxy.chat_for("unknown").send().await.status, 404, "in the provider's words");
    let again = proxy.chat_for("unknown").send().await;
    assert_eq!((again.status.as_u16(), again.header("retry-after")), (404, ""), "{}", again.text());
    let message = again.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("\"unknown\"") && message.contains("p1"), "{message}");
    assert_eq!(up.count(), 1);
}

#[tokio::test]
async fn names_that_are_sent_as_one_model_share_its_cooldown_and_the_name_sent_is_told() {
    let up = provider().await;
    let rescue = upstream().reply(chat("rescued")).start().await;
    let paid = backend("paid").primary(&up).model("big", "big").model("*", "unknown-small");
    let proxy = proxy!().backend(paid).backend(backend("rescue").fallback(&rescue));
    let proxy = proxy.setting("primary_wait_ms", 20).setting("primary_wait_max_retries", 1).start().await;
    for model in ["one", "another", "a-third"] {
        assert_eq!(proxy.chat_for(model).send().await.says(), "rescued", "{model}");
    }
    assert_eq!(up.count(), 1, "what is missing under one name is missing under all that are sent as it");
    assert_eq!(backends(&proxy).await[0]["model_cooldowns"][0]["model"], "unknown-small");
    assert_eq!(proxy.chat_for("big").send().await.says(), "well");
    let excluded = line_of(&proxy, "backend excluded for this model").await;
    assert_eq!((&excluded["level"], &excluded["model"]), (&"WARN".into(), &"unknown-small".into()), "{excluded}");
}

#[tokio::test]
async fn a_name_that_a_client_invents_is_no_warning_and_no_error_of_the_backend() {
    let up = provider().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).setting("primary_wait_ms", 20).start().await;
    for i in 0..5 {
        assert_eq!(proxy.chat_for(&format!("unknown-{i}")).send().await.status, 404);
    }
    let told = line_of(&proxy, "backend excluded for this model").await;
    assert_eq!((&told["level"], &told["model"]), (&"INFO".into(), &"unknown-0".into()), "{told}");
    assert_eq!(backends(&proxy).await[0]["error_permille"], 0);
}

/// The log's lines about a backend's state: level, message, and the fields as JSON.
async fn line_of(proxy: &Proxy, words: &str) -> Json {
    proxy.wait_log(words, |l| l["message"].as_str()?.contains(words).then(|| l.clone())).await
}

#[tokio::test]
async fn a_refused_key_is_a_warning_once_and_its_recovery_is_told() {
    let up = upstream().reply(status(401)).then(chat("well")).start().await;
    let paid = upstream().reply(chat("paid")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("f1").fallback(&paid));
    // A refused key is left alone for 900 times the base, so that this test need not wait for a quarter of an hour.
    let proxy = proxy.set("cooldown.base_ms", 1).setting("primary_wait_ms", 0).start().await;
    let mut watched = proxy.admin("/api/events").stream().await;
    assert_eq!(proxy.chat().send().await.says(), "paid");
    soon("the next probe's time", async { while cooldown_ms(&proxy).await > 0 {} }).await;
    // Less than a millisecond of it may be left.
    soon("an answer of p1", async { while proxy.chat().send().await.says() != "well" {} }).await;
    let excluded = line_of(&proxy, "backend excluded").await;
    assert_eq!((&excluded["level"], &excluded["backend"]), (&"WARN".into(), &"p1".into()), "{excluded}");
    assert_eq!(excluded["reason"], "unauthorised");
    assert!(excluded["until"].is_string() && excluded.get("model").is_none(), "{excluded}");
    let back = line_of(&proxy, "back in service").await;
    assert_eq!((&back["level"], &back["backend"]), (&"INFO".into(), &"p1".into()), "{back}");
    assert_eq!((proxy.told("backend excluded"), proxy.told("back in service")), (1, 1));
    let mut states = Vec::new();
    while states.len() < 2 {
        let event = watched.next().await.unwrap();
        if event.text.starts_with("event: backend\n") {
            states.push((
                event.json()["backend"].clone(),
                event.json()["state"].clone(),
                event.json()["reason"].clone(),
            ));
        }
    }
    let p1 = Json::from("p1");
    assert_eq!(states, [(p1.clone(), "excluded".into(), "unauthorised".into()), (p1, "back".into(), Json::Null)]);
    assert!(!proxy.output().join("\n").contains("key-of-p1"));
}

#[tokio::test]
async fn a_long_cooldown_names_its_model_and_a_short_one_is_silent() {
    let long = upstream().reply(status(429).retry_after(30)).start().await;
    let short = upstream().reply(status(429).header("retry-after-ms", 200)).then(chat("well")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&long)).backend(backend("p2").primary(&short)).start().await;
    assert_eq!(proxy.chat().send().await.says(), "well");
    let cooling = line_of(&proxy, "backend is cooling down").await;
    assert_eq!(
        (&cooling["level"], &cooling["backend"], &cooling["model"]),
        (&"WARN".into(), &"p1".into(), &"m".into())
    );
    assert_eq!(cooling["reason"], "rate_limited");
    // In order: what p2 did came before this.
    proxy.admin_request(Method::POST, "/api/backends/p2/drain").send().await;
    line_of(&proxy, "backend drained").await;
    assert_eq!(proxy.told("backend is cooling down"), 1, "200 ms are no news");
}

#[tokio::test]
async fn drains_and_ended_cooldowns_are_told() {
    let up = upstream().reply(status(429).retry_after(30)).start().await;
    let paid = upstream().reply(chat("paid")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("f1").fallback(&paid));
    let proxy = proxy.setting("primary_wait_ms", 0).start().await;
    assert_eq!(proxy.chat().send().await.says(), "paid");
    for (action, words) in [
        ("clear-cooldown", "cooldowns of the backend were ended"),
        ("drain", "backend drained"),
        ("resume", "backend resumed"),
    ] {
        let done = proxy.admin_request(Method::POST, &format!("/api/backends/p1/{action}")).send().await;
        assert_eq!(done.status, 200);
        let line = line_of(&proxy, words).await;
        assert_eq!((&line["level"], &line["backend"]), (&"INFO".into(), &"p1".into()), "{line}");
    }
}

#[tokio::test]
async fn a_start_without_a_terminal_says_what_is_served_from_where() {
    let up = upstream().start().await;
    let p1 = backend("p1").primary(&up).rpm(40).model("llama", "meta/llama").model("gpt-*", "gpt-*");
    let proxy = proxy!().backend(p1).backend(backend("f1").fallback(&up)).client("agent", "secret").start().await;
    let listed = proxy
        .wait_log("p1", |l| (l["message"] == "backend configured" && l["backend"] == "p1").then(|| l.clone()))
        .await;
    let host = up.url().split("//").nth(1).unwrap().split('/').next().unwrap().to_owned();
    assert_eq!(
        (&listed["tier"], &listed["rpm"], &listed["host"]),
        (&"primary".into(), &40.into(), &host.into()),
        "{listed}"
    );
    assert_eq!(listed["models"], "gpt-*, llama");
    let f1 = proxy.wait_log("f1", |l| (l["backend"] == "f1").then(|| l.clone())).await;
    assert_eq!((&f1["tier"], &f1["models"]), (&"fallback".into(), &"any model".into()), "{f1}");
    let started = proxy.wait_log("started", |l| (l["message"] == "started").then(|| l.clone())).await;
    assert_eq!(started["store"], proxy.store_path().canonicalize().unwrap().display().to_string());
    assert_eq!((&started["backends"], &started["clients"]), (&2.into(), &1.into()));
    assert_eq!(started["admin_addr"], proxy.admin_addr().to_string());
    assert_eq!(started["config_file"], "pointsman.toml");
}
