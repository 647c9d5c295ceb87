//! A chain of backends may cross dialects: chat completions are answered by Anthropic's API, and messages by OpenAI's,
//! and the client sees only its own.

use pointsman_tests::{Reply, Request, backend, chat, json, proxy, sse, status, tokens, upstream};
use serde_json::{Value, json as value};

/// A message that says `text`, with 11 prompt tokens, 4 of them cached, and 7 answer tokens.
fn message(text: &str) -> Reply {
    json(value!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn",
        "stop_sequence": null, "content": [{"type": "text", "text": text}],
        "usage": {"input_tokens": 7, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 0, "output_tokens": 7},
    }))
}

/// The events of a message of `n` pieces `t0 `, `t1 `, ..., with 11 and n tokens.
fn message_events(n: usize) -> Vec<String> {
    let message =
        value!({"id": "msg_1", "model": "claude-x", "content": [], "usage": {"input_tokens": 11, "output_tokens": 1}});
    let mut events = vec![
        value!({"type": "message_start", "message": message}),
        value!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ];
    let piece = |i| value!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": format!("t{i} ")}});
    events.extend((0..n).map(piece));
    events.push(value!({"type": "content_block_stop", "index": 0}));
    events.push(value!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": n}}));
    events.push(value!({"type": "message_stop"}));
    events.iter().map(Value::to_string).collect()
}

fn said(n: usize) -> String {
    (0..n).map(|i| format!("t{i} ")).collect()
}

fn ask_message(request: Request, more: &[(&str, Value)]) -> Request {
    let mut body = value!({"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in more {
        body[*name] = value.clone();
    }
    request.header("anthropic-version", "2023-06-01").header("anthropic-beta", "x").json(&body)
}

#[tokio::test]
async fn a_chat_falls_back_to_a_backend_that_speaks_messages() {
    let (up, claude) = (upstream().reply(status(500)).start().await, upstream().reply(message("well")).start().await);
    let foreign = backend("f1").fallback(&claude).set("dialect", "anthropic").model("m", "claude-x");
    let foreign = foreign.price("claude-x", 1.0, 10.0);
    let proxy = proxy!().backend(backend("p1").primary(&up).model("m", "gpt-x")).backend(foreign).start().await;
    let answer = proxy.chat().header("openai-organization", "org").send().await;
    assert_eq!((answer.status.as_u16(), answer.says().as_str()), (200, "well"), "{}", answer.text());
    assert_eq!((answer.header("x-pointsman-backend"), answer.header("x-pointsman-lane")), ("f1", "fallback"));
    let body = answer.json();
    assert_eq!((&body["object"], &body["model"]), (&value!("chat.completion"), &value!("claude-x")));
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    assert!(body["created"].as_u64().unwrap() > 1_700_000_000);

    let seen = claude.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1/messages"));
    assert_eq!(seen.header("x-api-key"), Some("key-of-f1"));
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!((seen.header("authorization"), seen.header("openai-organization")), (None, None));
    let expected = value!({"model": "claude-x", "max_tokens": 8192, "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(seen.json(), expected);

    let rows = proxy.wait_rows(1, "SELECT input_tokens, output_tokens, cost_usd FROM exchanges").await;
    assert_eq!((&rows[0]["input_tokens"], &rows[0]["output_tokens"]), (&11.into(), &7.into()));
    assert!((rows[0]["cost_usd"].as_f64().unwrap() - 81e-6).abs() < 1e-9, "{rows:?}");
}

#[tokio::test]
async fn a_chat_stream_comes_from_a_backend_that_speaks_messages() {
    for asks_usage in [false, true] {
        let claude = upstream().reply(sse(message_events(5))).start().await;
        let foreign = backend("p1").primary(&claude).set("dialect", "anthropic").model("m", "claude-x");
        let proxy = proxy!().backend(foreign).start().await;
        let mut body = value!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
        if asks_usage {
            body["stream_options"] = value!({"include_usage": true});
        }
        let mut stream = proxy.post("/v1/chat/completions").json(&body).stream().await;
        let events = stream.rest().await;
        assert!(stream.ended_in_order());
        assert_eq!(events.iter().map(|e| e.content()).collect::<String>(), said(5));
        assert_eq!(events.last().unwrap().data(), "[DONE]");
        let told: Vec<Value> = events.iter().map(|e| e.json()["usage"].clone()).filter(|u| u.is_object()).collect();
        assert_eq!(told.len(), usize::from(asks_usage));
        assert!(claude.only().json()["stream"] == true);
        let rows = proxy.wait_rows(1, "SELECT input_tokens, output_tokens FROM exchanges").await;
        assert_eq!((&rows[0]["input_tokens"], &rows[0]["output_tokens"]), (&11.into(), &5.into()));
    }
}

#[tokio::test]
async fn a_message_is_answered_by_a_backend_that_speaks_chat() {
    let gpt = upstream().reply(chat("well")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&gpt).model("m", "gpt-x")).start().await;
    let answer = ask_message(proxy.post("/v1/messages"), &[("system", value!("be brief"))]).send().await;
    let body = answer.json();
    assert_eq!((answer.status.as_u16(), &body["type"]), (200, &value!("message")));
    assert_eq!(body["content"], value!([{"type": "text", "text": "well"}]));
    assert_eq!((&body["stop_reason"], &body["usage"]["input_tokens"]), (&value!("end_turn"), &value!(11)));
    let seen = gpt.only();
    assert_eq!(seen.target, "/v1/chat/completions");
    assert_eq!(seen.header("authorization"), Some("Bearer key-of-p1"));
    assert!(!seen.headers.iter().any(|(name, _)| name.starts_with("anthropic-") || name == "x-api-key"));
    let messages = value!([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]);
    assert_eq!(seen.json(), value!({"model": "gpt-x", "max_tokens": 50, "messages": messages}));
}

#[tokio::test]
async fn a_message_stream_comes_from_a_backend_that_speaks_chat() {
    let gpt = upstream().reply(tokens(4)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&gpt).model("m", "gpt-x")).start().await;
    let mut stream = ask_message(proxy.post("/v1/messages"), &[("stream", value!(true))]).stream().await;
    let events: Vec<Value> = stream.rest().await.iter().map(|e| e.json()).collect();
    let kinds: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    assert_eq!(kinds.first(), Some(&"message_start"));
    assert_eq!(kinds[kinds.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(events.iter().filter_map(|e| e["delta"]["text"].as_str()).collect::<String>(), said(4));
    let delta = &events[events.len() - 2];
    assert_eq!((&delta["usage"]["input_tokens"], &delta["usage"]["output_tokens"]), (&value!(11), &value!(4)));
    assert!(stream.ended_in_order());
}

#[tokio::test]
async fn a_broken_foreign_stream_is_resumed_by_a_native_backend() {
    let claude = upstream().reply(sse(message_events(20)).cut_after(8)).start().await;
    let gpt = upstream().reply(tokens(20)).start().await;
    let foreign = backend("p1").primary(&claude).set("dialect", "anthropic").model("m", "claude-x");
    let proxy = proxy!().backend(foreign).backend(backend("f1").fallback(&gpt).model("m", "gpt-x"));
    let proxy = proxy.set("stream.resume", "splice").setting("max_pool_retries", 0).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_eq!(events.iter().map(|e| e.content()).collect::<String>(), said(20));
    assert_eq!((events.last().unwrap().data(), stream.ended_in_order()), ("[DONE]", true));
}

#[tokio::test]
async fn what_cannot_be_translated_never_reaches_a_foreign_backend() {
    let (gpt, claude) = (upstream().reply(chat("native")).start().await, upstream().reply(message("x")).start().await);
    let foreign = backend("p1").primary(&claude).set("dialect", "anthropic").model("m", "claude-x").model("only", "c");
    let proxy = proxy!().backend(foreign).backend(backend("f1").fallback(&gpt).model("m", "gpt-x")).start().await;
    let ask = |model: &str| {
        let body = value!({"model": model, "n": 2, "messages": [{"role": "user", "content": "hi"}]});
        proxy.post("/v1/chat/completions").json(&body)
    };
    assert_eq!(ask("m").send().await.says(), "native");
    let answer = ask("only").send().await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status.as_u16(), &error["type"]), (400, &value!("invalid_request_error")));
    assert!(
        error["message"].as_str().unwrap().contains("`n` has no counterpart in Anthropic's messages API"),
        "{error}"
    );
    assert_eq!(claude.count(), 0);
}

#[tokio::test]
async fn a_message_that_cannot_be_translated_is_refused_in_its_own_dialect() {
    let gpt = upstream().reply(chat("x")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&gpt).model("m", "gpt-x")).start().await;
    let answer = ask_message(proxy.post("/v1/messages"), &[("container", value!("c1"))]).send().await;
    let body = answer.json();
    assert_eq!((answer.status.as_u16(), &body["error"]["type"]), (400, &value!("invalid_request_error")));
    assert!(body["error"]["message"].as_str().unwrap().contains("`container`"), "{body}");
    assert_eq!(gpt.count(), 0);
}

#[tokio::test]
async fn a_foreign_refusal_is_told_in_the_clients_words() {
    let words = value!({"type": "error", "error": {"type": "invalid_request_error", "message": "no such thing"}});
    let claude = upstream().reply(json(words).with_status(400)).start().await;
    let foreign = backend("p1").primary(&claude).set("dialect", "anthropic").model("m", "claude-x");
    let proxy = proxy!().backend(foreign).start().await;
    let answer = proxy.chat().send().await;
    let expected =
        value!({"error": {"message": "no such thing", "type": "invalid_request_error", "param": null, "code": null}});
    assert_eq!((answer.status.as_u16(), answer.json()), (400, expected));
}

#[tokio::test]
async fn an_answer_that_cannot_be_translated_is_a_failed_attempt() {
    let odd = json(value!({
        "id": "msg_1", "model": "c", "stop_reason": "end_turn", "content": [{"type": "server_tool_use", "id": "x"}],
    }));
    let (claude, gpt) = (upstream().reply(odd).start().await, upstream().reply(chat("native")).start().await);
    let foreign = backend("p1").primary(&claude).set("dialect", "anthropic").model("m", "claude-x");
    let proxy = proxy!().backend(foreign).backend(backend("f1").fallback(&gpt).model("m", "gpt-x")).start().await;
    assert_eq!(proxy.chat().send().await.says(), "native");
    assert!(claude.count() > 0);
}

#[tokio::test]
async fn native_backends_come_first_and_a_star_does_not_cross() {
    let (gpt, claude) = (upstream().reply(chat("native")).start().await, upstream().reply(message("x")).start().await);
    let foreign = backend("p1").primary(&claude).set("dialect", "anthropic").model("m", "claude-x").model("*", "*");
    let proxy = proxy!().backend(foreign).backend(backend("p2").primary(&gpt).model("m", "gpt-x")).start().await;
    for _ in 0..5 {
        assert_eq!(proxy.chat().send().await.says(), "native");
    }
    assert_eq!(proxy.chat_for("other").send().await.status, 404);
    assert_eq!(claude.count(), 0);
}

#[tokio::test]
async fn a_foreign_stream_that_forgets_its_end_is_whole_once_the_model_has_finished() {
    let mut events = message_events(3);
    events.pop();
    let claude = upstream().reply(sse(events)).start().await;
    let chunks = [
        value!({"id": "c", "model": "gpt-x", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "t0 "}}]}),
        value!({"id": "c", "model": "gpt-x", "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}),
    ];
    let gpt = upstream().reply(sse(chunks.iter().map(Value::to_string)).stall_after(2)).start().await;
    let foreign = backend("p1").primary(&claude).set("dialect", "anthropic").model("m", "claude-x");
    let chat = proxy!().backend(foreign).start().await;
    let mut stream = chat.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_eq!(events.iter().map(|e| e.content()).collect::<String>(), said(3));
    assert_eq!((events.last().unwrap().data(), stream.ended_in_order()), ("[DONE]", true));

    let messages = proxy!().backend(backend("p1").primary(&gpt).model("m", "gpt-x")).start().await;
    let mut stream = ask_message(messages.post("/v1/messages"), &[("stream", value!(true))]).stream().await;
    let events: Vec<Value> = stream.rest().await.iter().map(|e| e.json()).collect();
    assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "max_tokens");
    assert_eq!((&events[events.len() - 1]["type"], stream.ended_in_order()), (&value!("message_stop"), true));
}

#[tokio::test]
async fn a_foreign_stream_that_breaks_ends_as_an_error_in_the_clients_words() {
    let odd =
        value!({"type": "content_block_start", "index": 1, "content_block": {"type": "server_tool_use", "id": "x"}});
    let mut strange = message_events(3);
    strange.insert(4, odd.to_string());
    for reply in [sse(strange), sse(message_events(9)).cut_after(5)] {
        let claude = upstream().reply(reply).start().await;
        let foreign = backend("p1").primary(&claude).set("dialect", "anthropic").model("m", "claude-x");
        let proxy = proxy!().backend(foreign).set("stream.resume", "none").start().await;
        let mut stream = proxy.chat_stream().stream().await;
        let events = stream.rest().await;
        assert!(events.iter().any(|e| e.content() == "t0 "));
        assert_eq!(events.last().unwrap().json()["error"]["code"], "stream_broken", "{events:?}");
        assert!(stream.ended_in_order() && !events.iter().any(|e| e.data() == "[DONE]"));
    }
}

#[tokio::test]
async fn json_where_a_stream_was_asked_is_told_as_a_stream_across_dialects() {
    let claude = upstream().reply(message("well")).start().await;
    let foreign = backend("p1").primary(&claude).set("dialect", "anthropic").model("m", "claude-x");
    let proxy = proxy!().backend(foreign).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_eq!(events.iter().map(|e| e.content()).collect::<String>(), "well");
    assert_eq!(events.last().unwrap().data(), "[DONE]");
}
