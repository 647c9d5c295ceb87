//! Ends of streams: the connection and the dialect's end mark decide; no text is left out; errors of every form are seen, and
//! told as the dialect's own last event behind which the body ends in order.

use std::time::Duration;

use pointsman_tests::{Event, Proxy, Reply, Request, backend, bytes, proxy, sse, tokens, upstream};
use serde_json::{Value, json};

fn choice(index: usize, text: &str, finish: Value) -> String {
    json!({"id": "c", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}).to_string()
}

fn event(data: impl std::fmt::Display) -> String {
    format!("data: {data}\n\n")
}

fn texts(events: &[Event]) -> String {
    let text = |e: &Event| {
        let event = e.json();
        let text = [&event["choices"][0]["delta"]["content"], &event["delta"]["text"], &event["delta"]];
        text.into_iter().find_map(Value::as_str).unwrap_or_default().to_owned()
    };
    events.iter().map(text).collect()
}

async fn message_of(proxy: &Proxy) -> Value {
    proxy.wait_rows(1, "SELECT message FROM attempts ORDER BY number DESC LIMIT 1").await[0]["message"].clone()
}

#[tokio::test]
async fn a_choice_that_pauses_is_not_cut_by_one_that_ended() {
    let reply = sse([choice(0, "a", Value::Null), choice(0, "", json!("stop"))])
        .and_pause(Duration::from_secs(3))
        .and_bytes(event(choice(1, "b", json!("stop"))))
        .and_bytes("data: [DONE]\n\n");
    let up = upstream().reply(reply).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let body = json!({"model": "m", "n": 2, "stream": true, "messages": []});
    let mut stream = proxy.post("/v1/chat/completions").json(&body).stream().await;
    let events = stream.rest().await;
    assert_eq!((texts(&events), events.last().unwrap().data()), ("ab".to_owned(), "[DONE]"));
    assert!(stream.ended_in_order());
    assert_eq!(up.count(), 1);
}

#[tokio::test]
async fn a_finish_reason_in_an_early_chunk_cuts_nothing_and_late_usage_is_read() {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4}});
    for early in [json!("stop"), json!("null")] {
        let reply = sse([choice(0, "a", early)])
            .and_pause(Duration::from_secs(3))
            .and_bytes(event(choice(0, "b", json!("stop"))))
            .and_pause(Duration::from_secs(3))
            .and_bytes(event(&usage))
            .and_bytes("data: [DONE]\n\n");
        let up = upstream().reply(reply).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
        let mut stream = proxy.chat_stream().patience(Duration::from_secs(20)).stream().await;
        let events = stream.rest().await;
        assert_eq!((texts(&events), stream.ended_in_order()), ("ab".to_owned(), true));
        let rows = proxy.wait_rows(1, "SELECT end, input_tokens, output_tokens, estimated FROM exchanges").await;
        assert_eq!(rows[0], json!({"end": "delivered", "input_tokens": 5, "output_tokens": 4, "estimated": 0}));
        assert_eq!(up.count(), 1);
    }
}

#[tokio::test]
async fn a_reset_behind_the_end_mark_tears_nothing() {
    let reply = tokens(3).and_pause(Duration::from_millis(50)).and_cut();
    let up = upstream().reply(reply).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_eq!((texts(&events), stream.ended_in_order()), ("t0 t1 t2 ".to_owned(), true));
    assert_eq!(up.count(), 1);
}

#[tokio::test]
async fn a_text_that_is_not_strict_json_is_mended_and_counted() {
    let raw = |text: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n");
    let infinite = raw("x").replace("}}]", "},\"logprobs\":{\"content\":[{\"token\":\"x\",\"logprob\":-Infinity}]}}]");
    for (odd, text) in [
        (raw("one\ntwo") + "\n", "one\ntwo"),
        (raw("bell\u{7}") + "\n", "bell\u{7}"),
        (infinite + "\n", "x"),
        (raw("one") + &raw("two") + "\n", "onetwo"),
    ] {
        let up = upstream().reply(tokens(2).with_bytes_after(1, odd)).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
        let mut stream = proxy.chat_stream().stream().await;
        let events = stream.rest().await;
        assert_eq!(texts(&events), format!("t0 {text}t1 "), "{events:?}");
        assert!(stream.ended_in_order());
        assert_eq!(up.count(), 1);
        assert_eq!(message_of(&proxy).await, "1 event of the stream mended");
        assert_eq!(proxy.metric("pointsman_stream_repairs_total{what=\"mended\"}").await, 1.0);
    }
}

#[tokio::test]
async fn a_body_that_is_not_strict_json_is_mended_and_counted() {
    let body = |text: &str, more: &str| {
        let choice = format!(
            "{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\"{more}}}"
        );
        format!(
            "{{\"object\":\"chat.completion\",\"choices\":[{choice}],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":2}}}}"
        )
    };
    for (given, meant) in [
        (body("one\ntwo\u{1}", ""), "one\ntwo\u{1}"),
        (body("well", ",\"logprobs\":{\"content\":[{\"logprob\":-Infinity},{\"logprob\":NaN}]}"), "well"),
        (format!("\u{feff}{}", body("marked", "")), "marked"),
    ] {
        let up = upstream().reply(bytes("application/json", given.clone())).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
        let answer = proxy.chat().send().await;
        assert_eq!((answer.says(), up.count()), (meant.to_owned(), 1), "{given}");
        assert_eq!(answer.json()["usage"]["prompt_tokens"], 3);
        assert_eq!(message_of(&proxy).await, "the answer's JSON mended");
    }
}

#[tokio::test]
async fn a_name_without_data_at_the_end_is_completed_or_left_out() {
    let message: String = [
        json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": [],
            "model": "c", "usage": {"input_tokens": 3, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
    ]
    .iter()
    .map(|data| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default()))
    .collect();
    let events = |last: &str| sse::<String>([]).and_bytes(format!("{message}{last}"));
    for last in ["event: message_stop\n\n", "event: message_stop\n", "event: message_stop", "event: done\n\n"] {
        let up = upstream().reply(events(last)).start().await;
        let proxy = proxy!().backend(backend("a1").primary(&up).set("dialect", "anthropic")).start().await;
        let body =
            json!({"model": "c", "max_tokens": 9, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
        let told = proxy.post("/v1/messages").json(&body).stream().await.rest().await;
        let end = told.last().expect("an event");
        assert!(end.text.contains("event: message_stop"), "{last:?}: {end:?}");
        assert_eq!(end.json()["type"], "message_stop", "{last:?}");
        assert!(told.iter().all(|event| !event.data().is_empty()), "{last:?}: {told:?}");
        assert_eq!(up.count(), 1, "{last:?}");
    }
}

#[tokio::test]
async fn a_text_that_cannot_be_read_is_fetched_elsewhere() {
    let torn = "data: {\"choices\": [{\"delta\": {\"content\": \"t1 \n\n";
    let odd =
        tokens(3).then_bytes(1, torn).and_bytes(event(choice(0, "t2 ", json!("stop")))).and_bytes("data: [DONE]\n\n");
    let (up, well) = (upstream().reply(odd).start().await, upstream().reply(tokens(3)).start().await);
    let proxy = proxy!()
        .backend(backend("p1").primary(&up))
        .backend(backend("f1").fallback(&well))
        .setting("primary_wait_ms", 0)
        .start()
        .await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_eq!((texts(&events), stream.ended_in_order()), ("t0 t1 t2 ".to_owned(), true), "{events:?}");
    assert_eq!((up.count(), well.count()), (1, 1));
}

const RESPONSE: &str = "{\"model\":\"m\",\"stream\":true,\"input\":\"hi\"}";

fn ask(proxy: &Proxy, path: &str) -> Request {
    let messages =
        json!({"model": "m", "stream": true, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let body = if path == "/v1/responses" { serde_json::from_str(RESPONSE).unwrap() } else { messages };
    proxy.post(path).json(&body)
}

/// The beginning of a stream of this operation, whose text is `half`.
fn begun(path: &str) -> Reply {
    let events = match path {
        "/v1/responses" => vec![
            json!({"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "object": "response", "created_at": 9, "model": "n", "status": "in_progress", "output": []}}),
            json!({"type": "response.output_text.delta", "sequence_number": 1, "output_index": 0, "content_index": 0, "item_id": "i", "delta": "half"}),
        ],
        "/v1/messages" => vec![
            json!({"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": {"input_tokens": 1}}}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half"}}),
        ],
        _ => vec![json!({"id": "c", "choices": [{"index": 0, "delta": {"content": "half"}}]})],
    };
    sse(events.iter().map(Value::to_string))
}

/// The dialect's own last event of a stream that failed.
fn assert_failed(path: &str, last: &Event) {
    let event = last.json();
    match path {
        "/v1/responses" => {
            assert!(last.text.starts_with("event: response.failed\n"), "{last:?}");
            assert_eq!((&event["type"], &event["sequence_number"]), (&json!("response.failed"), &json!(2)));
            let response = &event["response"];
            assert_eq!(
                (&response["id"], &response["model"], &response["created_at"]),
                (&json!("resp_1"), &json!("n"), &json!(9))
            );
            assert_eq!((&response["status"], &response["object"]), (&json!("failed"), &json!("response")));
            assert!(response["error"]["message"].is_string() && response["error"]["code"].is_string(), "{last:?}");
        }
        "/v1/messages" => {
            assert!(last.text.starts_with("event: error\n"), "{last:?}");
            assert_eq!(event["type"], "error");
            assert!(event["error"]["message"].is_string() && event["error"]["type"].is_string(), "{last:?}");
        }
        _ => assert!(event["error"]["message"].is_string() && event["error"]["type"].is_string(), "{last:?}"),
    }
}

#[tokio::test]
async fn an_error_of_every_form_is_told_in_every_dialect_and_nothing_of_it_relayed() {
    for error in [
        "data: {\"error\":{\"message\":\"boom\"}}\n\n",
        "data: {\"error\":\"boom\"}\n\n",
        "event: error\ndata: boom\n\n",
        "data: {\"detail\":\"boom\"}\n\n",
        "data: {\"code\":500,\"message\":\"boom\",\"data\":null}\n\n",
        "{\"error\":{\"message\":\"boom\"}}\n\n",
        "<html>\n<body>boom</body>\n\n",
        "data: {\"internalServerException\":{\"message\":\"boom\"}}\n\n",
        "event: exception\ndata: {\"message\":\"boom\"}\n\n",
        "data: {\"base_resp\":{\"status_code\":1013,\"status_msg\":\"boom\"}}\n\n",
    ] {
        for path in ["/v1/responses", "/v1/messages", "/v1/chat/completions"] {
            let up = upstream().reply(begun(path).and_bytes(error)).start().await;
            let dialect = if path == "/v1/messages" { "anthropic" } else { "openai" };
            let target = backend("p1").primary(&up).set("dialect", dialect);
            let proxy = proxy!().backend(target).set("stream.resume", "none").start().await;
            let mut stream = ask(&proxy, path).stream().await;
            let events = stream.rest().await;
            let (last, before) = events.split_last().unwrap();
            assert_eq!(texts(before), "half", "{path} {error}: {events:?}");
            assert!(before.iter().all(|e| !e.text.contains("boom")), "{path} {error}: {events:?}");
            assert_failed(path, last);
            assert!(stream.ended_in_order(), "{path} {error}");
        }
    }
}

#[tokio::test]
async fn an_error_in_the_place_of_a_delta_is_no_part_of_the_answer() {
    for (path, error) in [
        ("/v1/chat/completions", json!({"choices": [{"index": 0, "delta": {"error": {"message": "boom"}}}]})),
        (
            "/v1/messages",
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "error", "error": {"message": "boom"}}}),
        ),
        ("/v1/messages", json!({"type": "message_stop", "error": {"message": "boom"}})),
        (
            "/v1/responses",
            json!({"type": "response.incomplete", "sequence_number": 2,
                "response": {"id": "resp_1", "status": "incomplete", "incomplete_details": {"reason": "error"}}}),
        ),
        ("/v1/responses", json!("[DONE]")),
    ] {
        let data = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
        let up = upstream().reply(begun(path).and_bytes(event(data))).start().await;
        let dialect = if path == "/v1/messages" { "anthropic" } else { "openai" };
        let target = backend("p1").primary(&up).set("dialect", dialect);
        let proxy = proxy!().backend(target).set("stream.resume", "none").start().await;
        let mut stream = ask(&proxy, path).stream().await;
        let events = stream.rest().await;
        let (last, before) = events.split_last().unwrap();
        assert_eq!(texts(before), "half", "{path} {error}: {events:?}");
        assert!(before.iter().all(|e| !e.text.contains("boom") && !e.text.contains("DONE")), "{path}: {events:?}");
        assert_failed(path, last);
        assert!(stream.ended_in_order(), "{path} {error}");
    }
}

#[tokio::test]
async fn what_makes_a_stream_resume_is_not_relayed() {
    let whole = || {
        let completed = json!({"type": "response.completed", "sequence_number": 2, "response": {"id": "resp_2", "status": "completed", "output": [], "usage": {"output_tokens": 1}}});
        begun("/v1/responses").and_bytes(format!("event: response.completed\ndata: {completed}\n\n"))
    };
    let half = begun("/v1/responses").and_bytes("data: {\"error\":{\"message\":\"boom\"}}\n\n");
    let (up, well) = (upstream().reply(half).start().await, upstream().reply(whole()).start().await);
    let proxy = proxy!()
        .backend(backend("p1").primary(&up))
        .backend(backend("f1").fallback(&well))
        .setting("primary_wait_ms", 0)
        .start()
        .await;
    let mut stream = ask(&proxy, "/v1/responses").stream().await;
    let events = stream.rest().await;
    assert_eq!(texts(&events), "half", "{events:?}");
    assert!(events.iter().all(|e| !e.text.contains("boom")), "{events:?}");
    let last = events.last().unwrap().json();
    assert_eq!((&last["type"], &last["sequence_number"]), (&json!("response.completed"), &json!(2)));
    assert_eq!((up.count(), well.count(), stream.ended_in_order()), (1, 1, true));
}

#[tokio::test]
async fn a_failure_before_any_event_is_a_whole_last_event_too() {
    for path in ["/v1/responses", "/v1/messages", "/v1/chat/completions"] {
        let up = upstream().reply(pointsman_tests::status(500).slow_head(Duration::from_millis(200))).start().await;
        let target =
            backend("p1").primary(&up).set("dialect", if path == "/v1/messages" { "anthropic" } else { "openai" });
        let proxy = proxy!().backend(target).set("stream.keepalive_ms", 50).set("limits.max_attempts", 1).start().await;
        let mut stream = ask(&proxy, path).stream().await;
        let events = stream.rest().await;
        let last = events.last().unwrap();
        assert!(stream.ended_in_order(), "{path}");
        if path == "/v1/responses" {
            let event = last.json();
            assert_eq!((&event["type"], &event["sequence_number"]), (&json!("response.failed"), &json!(0)));
            assert!(event["response"]["id"].as_str().is_some_and(|id| id.starts_with("resp_")), "{last:?}");
        } else {
            assert_failed(path, last);
        }
    }
}
