//! Additions to a request are taken back where they are refused; made-up ids are the same in every form.

use pointsman_tests::{Event, Proxy, Reply, Seen, backend, json as reply, proxy, sse, tokens, upstream};
use serde_json::{Value, json};

fn asks_usage(seen: &Seen) -> bool {
    seen.json().get("stream_options").is_some()
}

fn strict(status: u16) -> impl Fn(&Seen, usize) -> Reply + Send + Sync {
    move |seen, _| {
        if !asks_usage(seen) {
            return tokens(3);
        }
        let detail = json!([{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]);
        reply(json!({"detail": detail})).with_status(status)
    }
}

async fn streams(proxy: &Proxy, model: &str) {
    let body = json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let mut stream = proxy.post("/v1/chat/completions").json(&body).stream().await;
    let events = stream.rest().await;
    assert_eq!(events.iter().map(Event::content).collect::<String>(), "t0 t1 t2 ", "{events:?}");
    assert_eq!(stream.header("x-pointsman-attempts"), "1");
}

#[tokio::test]
async fn a_refused_stream_option_is_left_out_and_remembered_by_its_model() {
    for status in [422, 400] {
        let up = upstream().handler(strict(status)).start().await;
        let mut proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
        for model in ["a", "a", "b", "a"] {
            streams(&proxy, model).await;
        }
        let asked: Vec<bool> = up.seen().iter().map(asks_usage).collect();
        assert_eq!(asked, [true, false, false, true, false, false], "once for each model");
        let rows = proxy.wait_rows(4, "SELECT outcome FROM attempts").await;
        assert!(rows.iter().all(|row| row["outcome"] == "answered"), "nobody is to blame: {rows:?}");
        // Another configuration of the same place has learned it too.
        proxy.reconfigure("stream.keepalive_ms", 9_000);
        proxy.wait_log("a reload", |line| (line["message"].as_str()?.contains("reloaded")).then_some(())).await;
        streams(&proxy, "a").await;
        assert_eq!(up.seen().iter().filter(|seen| asks_usage(seen)).count(), 2);
    }
}

#[tokio::test]
async fn the_operator_can_say_so() {
    let up = upstream().handler(strict(422)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).set("stream_options", false)).start().await;
    streams(&proxy, "a").await;
    assert!(!asks_usage(&up.only()));
    let proxy = proxy!().backend(backend("p1").primary(&up).set("stream_options", true)).start().await;
    let answer = proxy.chat_stream().send().await;
    assert_eq!(answer.status, 422, "it is not taken back");
    assert_eq!(up.count(), 2);
}

#[tokio::test]
async fn a_client_that_asks_itself_gets_the_refusal() {
    let up = upstream().handler(strict(422)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let body = json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}, "messages": []});
    let answer = proxy.post("/v1/chat/completions").json(&body).send().await;
    assert_eq!((answer.status.as_u16(), up.count()), (422, 1));
}

#[tokio::test]
async fn a_translated_stream_loses_the_option_too() {
    let up = upstream().handler(strict(422)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).model("claude", "m")).start().await;
    let body =
        json!({"model": "claude", "stream": true, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    for _ in 0..2 {
        let mut stream = proxy.post("/v1/messages").json(&body).stream().await;
        let events = stream.rest().await;
        assert_eq!(events.last().unwrap().json()["type"], "message_stop", "{events:?}");
    }
    assert_eq!(up.seen().iter().map(asks_usage).collect::<Vec<_>>(), [true, false, false]);
}

#[tokio::test]
async fn a_limit_that_we_chose_is_lowered_to_the_one_that_the_model_takes() {
    let small = |seen: &Seen, _: usize| {
        if seen.json()["max_tokens"].as_u64() > Some(4_096) {
            let told = "max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens for claude-3-x";
            let error = json!({"type": "invalid_request_error", "message": told});
            return reply(json!({"type": "error", "error": error})).with_status(400);
        }
        let content = json!([{"type": "text", "text": "well"}]);
        reply(
            json!({"id": "msg", "type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn", "usage": {"output_tokens": 1}}),
        )
    };
    let up = upstream().handler(small).start().await;
    let proxy = proxy!().backend(backend("a1").primary(&up).set("dialect", "anthropic").model("m", "x")).start().await;
    for _ in 0..2 {
        assert_eq!(proxy.chat().send().await.says(), "well");
    }
    let asked: Vec<Value> = up.seen().iter().map(|seen| seen.json()["max_tokens"].clone()).collect();
    assert_eq!(asked, [8_192, 4_096, 4_096]);
}

/// Two calls without ids, whole or as a stream.
fn calls(seen: &Seen, _: usize) -> Reply {
    let call = |index: u64, name: &str| json!({"index": index, "type": "function", "function": {"name": name, "arguments": "{}"}});
    let both = [call(0, "look"), call(1, "listen")];
    if seen.json()["stream"] == true {
        let delta = |call: &Value| json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}).to_string();
        let stop = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}).to_string();
        return sse([delta(&both[0]), delta(&both[1]), stop, "[DONE]".to_owned()]);
    }
    let message = json!({"role": "assistant", "content": null, "tool_calls": both});
    reply(json!({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}))
}

#[tokio::test]
async fn made_up_ids_are_unique_in_a_conversation_and_the_same_in_every_form() {
    let up = upstream().handler(calls).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).model("claude", "m")).start().await;
    let ask = async |stream: bool, turns: usize| -> Vec<String> {
        let messages: Vec<Value> =
            (0..turns).map(|turn| json!({"role": "user", "content": turn.to_string()})).collect();
        let body = json!({"model": "claude", "stream": stream, "max_tokens": 9, "messages": messages,
            "tools": [{"name": "look", "input_schema": {"type": "object"}}, {"name": "listen", "input_schema": {"type": "object"}}]});
        let request = proxy.post("/v1/messages").json(&body);
        let id = |value: &Value| value["id"].as_str().map(str::to_owned);
        if stream {
            let events = request.stream().await.rest().await;
            let found = |e: &Event| id(&e.json()["message"]).or_else(|| id(&e.json()["content_block"]));
            return events.iter().filter_map(found).collect();
        }
        let answer = request.send().await.json();
        let blocks = answer["content"].as_array().cloned().unwrap_or_default();
        id(&answer).into_iter().chain(blocks.iter().filter_map(id)).collect()
    };
    let (plain, streamed, later) = (ask(false, 1).await, ask(true, 1).await, ask(false, 2).await);
    assert_eq!(plain.len(), 3, "{plain:?}");
    assert_eq!(plain, streamed);
    let mut all = [plain, later].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 6, "{all:?}");
    assert!(all.iter().all(|id| !id.is_empty()));
}
