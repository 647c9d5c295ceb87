//! The first start: no file, only keys in the environment.

use http::Method;
use pointsman_tests::{ProxyBuilder, Upstream, chat, proxy, run, status, upstream};
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_proxy-under-test");

/// The model of the README's first example.
const LLAMA: &str = "meta/llama-3.1-70b-instruct";

/// Two free keys and a paid one, at these providers.
fn keys(free: &Upstream, paid: &Upstream) -> ProxyBuilder {
    // As SDKs take it, without a path.
    let base_url = |up: &Upstream| format!("http://{}", up.addr());
    let proxy = proxy!().env("NVIDIA_API_KEY", "nv-1, nv-2").env("NVIDIA_BASE_URL", &base_url(free));
    proxy.env("OPENAI_API_KEY", "sk-1").env("OPENAI_BASE_URL", &base_url(paid))
}

#[tokio::test]
async fn in_a_storm_on_the_free_keys_the_paid_provider_answers_with_the_model_that_was_said() {
    let free = upstream().reply(status(429).retry_after(600)).start().await;
    let paid = upstream().reply(chat("well")).start().await;
    let proxy = keys(&free, &paid).start_without_a_file().await;
    let told = |l: &serde_json::Value| (l["backend"] == "openai-1").then(|| l["models"].to_string());
    let models = proxy.wait_log("the model that stands in", told).await;
    assert!(models.contains("any other as gpt-4.1-mini ($0.40 in, $1.60 out per million tokens)"), "{models}");

    let answers = futures_util::future::join_all((0..12).map(|_| proxy.chat_for(LLAMA).send())).await;
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), answer.header("x-pointsman-lane")), (200, "fallback"), "{}", answer.text());
    }
    assert_eq!(paid.count(), 12);
    for seen in paid.seen() {
        assert_eq!((seen.target.as_str(), &seen.json()["model"]), ("/v1/chat/completions", &json!("gpt-4.1-mini")));
        assert_eq!(seen.header("authorization"), Some("Bearer sk-1"));
    }
    let mut used: Vec<String> =
        free.seen().iter().map(|seen| seen.header("authorization").unwrap().to_owned()).collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used, ["Bearer nv-1", "Bearer nv-2"], "each key goes out alone");
    let rows = proxy.wait_rows(12, "SELECT cost_usd FROM exchanges").await;
    let spent: f64 = rows.iter().map(|row| row["cost_usd"].as_f64().unwrap()).sum();
    let expected = 12.0 * (11.0 * 0.40 + 7.0 * 1.60) / 1e6;
    assert!((spent - expected).abs() < 1e-9, "{spent} and not {expected}");
}

#[tokio::test]
async fn a_503_says_which_backends_there_are_and_why_they_cannot_serve_the_model() {
    let free = upstream().reply(status(429).retry_after(600)).start().await;
    let paid = upstream().start().await;
    let proxy = keys(&free, &paid).env("OPENAI_FALLBACK_MODEL", "none").start_without_a_file().await;
    let answer = proxy.chat_for(LLAMA).send().await;
    let why = "no other backend serves \"meta/llama-3.1-70b-instruct\": openai-1 serves only chatgpt-*, codex-*, dall-e-*, ft:*, gpt-*, ";
    assert_eq!(answer.status, 503);
    assert!(answer.text().replace("\\\"", "\"").contains(why), "{}", answer.text());
    assert!(answer.text().contains("nvidia-1 is cooling down"), "{}", answer.text());
    assert_eq!(paid.count(), 0);
    let own = proxy.chat_for("gpt-5").send().await;
    assert_eq!((own.status.as_u16(), paid.only().json()["model"].clone()), (200, json!("gpt-5")));

    proxy.wait_rows(2, "SELECT 1 AS kept FROM trail").await;
    let id = answer.header("x-request-id");
    let told = run(BINARY, proxy.dir(), &["explain", id], &[]).await;
    assert!(told.stdout.contains("unsuited openai-1 serves only chatgpt-*"), "{}{}", told.stdout, told.stderr);
}

#[tokio::test]
async fn another_models_embeddings_do_not_stand_in() {
    let free = upstream().reply(status(429).retry_after(600)).start().await;
    let paid = upstream().start().await;
    let proxy = keys(&free, &paid).start_without_a_file().await;
    let body = json!({"model": "nvidia/nv-embed-v1", "input": "hi"});
    let answer = proxy.request(Method::POST, "/v1/embeddings").json(&body).send().await;
    assert_eq!((answer.status.as_u16(), paid.count()), (503, 0), "{}", answer.text());
    assert!(answer.text().contains("takes embedding requests only for models that it names"), "{}", answer.text());
}

#[tokio::test]
async fn a_providers_base_url_is_where_it_is_reached_however_its_variable_is_called() {
    for (variable, quote) in [("GROQ_BASE_URL", ""), ("GROQ_API_BASE", ""), ("GROQ_BASE_URL", "\"")] {
        let up = upstream().start().await;
        let url = format!("{quote}http://{}/{quote}", up.addr());
        let proxy = proxy!().env("GROQ_API_KEY", " gsk-1\n").env(variable, &url).start_without_a_file().await;
        assert_eq!(proxy.chat().send().await.says(), "hello");
        let seen = up.only();
        assert_eq!(seen.target, "/openai/v1/chat/completions", "{variable}");
        assert_eq!(seen.header("authorization"), Some("Bearer gsk-1"));
    }
}
