//! Headers of providers' answers: what is about the connection, the origin or the account stays here; request ids are ours,
//! and the provider's has a name of its own.

use pointsman_tests::{backend, chat, json, proxy, status, tokens, upstream};
use serde_json::json as value;

const ID: &str = "x-pointsman-upstream-request-id";

#[tokio::test]
async fn what_is_about_the_origin_or_the_account_stays_here() {
    let reply = chat("hi")
        .header("alt-svc", "h3=\":443\"")
        .header("strict-transport-security", "max-age=1")
        .header("access-control-allow-origin", "https://provider.example")
        .header("server", "provider")
        .header("cf-cache-status", "DYNAMIC")
        .header("openai-organization", "org-of-the-operator")
        .header("openai-project", "proj_of_the_operator")
        .header("anthropic-organization-id", "org")
        .header("x-ms-tenant-id", "tenant")
        .header("www-authenticate", "Bearer")
        .header("x-ratelimit-remaining-requests", 7)
        .header("x-ratelimit-remaining-project-tokens", 9)
        .header("openai-processing-ms", 12);
    let up = upstream().reply(reply).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let answer = proxy.chat().send().await;
    for gone in [
        "alt-svc",
        "strict-transport-security",
        "access-control-allow-origin",
        "server",
        "cf-cache-status",
        "openai-organization",
        "openai-project",
        "anthropic-organization-id",
        "x-ms-tenant-id",
        "www-authenticate",
    ] {
        assert_eq!(answer.header(gone), "", "{gone} was passed on");
    }
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "7");
    assert_eq!(answer.header("x-ratelimit-remaining-project-tokens"), "9");
    assert_eq!(answer.header("openai-processing-ms"), "12");
}

#[tokio::test]
async fn the_providers_request_id_is_recorded_and_passed_on_under_a_name_of_its_own() {
    let up = upstream()
        .reply(status(500).header("x-request-id", "req_of_the_failure"))
        .then(chat("hi").header("x-request-id", "req_of_the_answer").header("request-id", "another"));
    let up = up.start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("cooldown.base_ms", 1).start().await;
    let answer = proxy.chat().header("x-request-id", "mine-1").send().await;
    assert_eq!((answer.header("x-request-id"), answer.header("request-id")), ("mine-1", ""));
    assert_eq!(answer.header(ID), "req_of_the_answer");
    let rows = proxy.wait_rows(2, "SELECT upstream_id FROM attempts ORDER BY number").await;
    assert_eq!(
        (&rows[0]["upstream_id"], &rows[1]["upstream_id"]),
        (&"req_of_the_failure".into(), &"req_of_the_answer".into())
    );
    let told = proxy.admin("/api/exchanges/mine-1").send().await.json();
    assert_eq!(told["attempts"][1]["upstream_id"], "req_of_the_answer", "{told}");
}

#[tokio::test]
async fn an_anthropic_client_finds_our_id_where_its_sdk_looks() {
    let message =
        json(value!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": 1, "output_tokens": 1}}));
    let native = upstream().reply(message.header("request-id", "req_native")).start().await;
    let foreign = upstream().reply(chat("hi").header("x-request-id", "req_foreign")).start().await;
    let proxy = proxy!()
        .backend(backend("a1").primary(&native).set("dialect", "anthropic").model("claude", "claude"))
        .backend(backend("o1").primary(&foreign).model("gpt", "gpt"))
        .start()
        .await;
    let ask = |model: &str, stream: bool| {
        let body = value!({"model": model, "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "hi"}]});
        proxy.post("/v1/messages").header("anthropic-version", "2023-06-01").json(&body)
    };
    for (model, theirs) in [("claude", "req_native"), ("gpt", "req_foreign")] {
        let answer = ask(model, false).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.header("request-id").starts_with("req_") && answer.header("request-id") != theirs);
        assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
        assert_eq!(answer.header(ID), theirs);
    }
    let refused = ask("of-nobody", true).send().await;
    assert_eq!(refused.status, 404);
    assert_eq!(refused.header("request-id"), refused.json()["request_id"].as_str().unwrap());
    let listed = proxy.get("/v1/models").header("anthropic-version", "2023-06-01").send().await;
    assert!(!listed.header("request-id").is_empty());
    let other = proxy.get("/v1/messages/batches/../x").header("anthropic-version", "2023-06-01").send().await;
    assert!(!other.header("request-id").is_empty(), "{}", other.text());
}

#[tokio::test]
async fn no_null_usage_is_added_for_a_client_that_did_not_ask_for_the_usage() {
    let chunk = |delta, finish| {
        value!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "usage": null,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        .to_string()
    };
    let up = upstream().handler(move |seen, _| {
        assert_eq!(seen.json()["stream_options"]["include_usage"], true);
        let last =
            value!({"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).to_string();
        let done = chunk(value!({}), value!("stop"));
        pointsman_tests::sse([chunk(value!({"content": "hi"}), value!(null)), done, last, "[DONE]".to_owned()])
    });
    let up = up.start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let text = proxy.chat_stream().send().await.text();
    assert!(text.contains("\"content\":\"hi\"") && text.contains("[DONE]") && !text.contains("usage"), "{text}");
    let body = value!({"model": "m", "stream": true, "stream_options": {"include_usage": true}, "messages": []});
    let asked = proxy.post("/v1/chat/completions").json(&body).send().await.text();
    assert_eq!(asked.matches("\"usage\":null").count(), 2, "{asked}");
    assert!(asked.contains("\"prompt_tokens\":1"), "{asked}");
}

#[tokio::test]
async fn a_stream_has_our_id_and_the_providers() {
    let up = upstream().reply(tokens(2).header("x-request-id", "req_up")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    assert_eq!(stream.header(ID), "req_up");
    assert_ne!(stream.header("x-request-id"), "req_up");
    stream.rest().await;
    assert!(stream.ended_in_order());
}
