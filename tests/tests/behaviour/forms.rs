//! The form of an answer is the one that was asked for, whatever label and form it comes in.

use pointsman_tests::{Event, backend, chat, json as reply, proxy, sse, tokens, upstream};
use serde_json::{Value, json};

fn text(events: &[Event]) -> String {
    events.iter().map(Event::content).collect()
}

#[tokio::test]
async fn a_stream_under_a_wrong_label_is_a_stream() {
    for label in [Some("text/plain"), Some("application/json"), Some("application/octet-stream"), None] {
        let up = upstream().reply(tokens(3).labelled(label)).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
        let mut stream = proxy.chat_stream().stream().await;
        assert!(stream.header("content-type").starts_with("text/event-stream"), "{label:?}");
        let events = stream.rest().await;
        assert_eq!((text(&events), events.last().unwrap().data()), ("t0 t1 t2 ".to_owned(), "[DONE]"), "{label:?}");
        assert!(stream.ended_in_order());
        assert_eq!(up.count(), 1, "one generation was paid");
        let rows = proxy.wait_rows(1, "SELECT end, output_tokens, estimated FROM exchanges").await;
        assert_eq!(rows[0], json!({"end": "delivered", "output_tokens": 3, "estimated": 0}), "{label:?}");
    }
}

#[tokio::test]
async fn a_stream_under_a_wrong_label_is_resumed_like_any() {
    let cut = upstream().reply(tokens(5).labelled(Some("text/plain")).end_after(2)).start().await;
    let well = upstream().reply(tokens(5).labelled(None)).start().await;
    let proxy = proxy!()
        .backend(backend("p1").primary(&cut))
        .backend(backend("f1").fallback(&well))
        .setting("primary_wait_ms", 0)
        .start()
        .await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_eq!((text(&events), stream.ended_in_order()), ("t0 t1 t2 t3 t4 ".to_owned(), true), "{events:?}");
}

#[tokio::test]
async fn json_labelled_as_a_stream_is_told_as_one() {
    let up = upstream().reply(chat("hello").labelled(Some("text/event-stream"))).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_eq!((text(&events), events.last().unwrap().data()), ("hello".to_owned(), "[DONE]"));
    assert_eq!(up.count(), 1);
}

fn named(events: &[Value]) -> pointsman_tests::Reply {
    let write = |e: &Value| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap());
    events.iter().fold(sse(["x"; 0]), |reply, event| reply.and_bytes(write(event)))
}

#[tokio::test]
async fn a_client_that_asked_for_json_gets_json() {
    for label in [Some("text/event-stream"), Some("application/json"), None] {
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}).to_string();
        let stream = tokens(2).with_bytes_after(3, format!("data: {usage}\n\n"));
        let up = upstream().reply(stream.labelled(label)).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
        let answer = proxy.chat().send().await;
        assert_eq!(
            (answer.says().as_str(), answer.header("content-type")),
            ("t0 t1 ", "application/json"),
            "{label:?}"
        );
        let body = answer.json();
        assert_eq!((&body["object"], &body["id"]), (&json!("chat.completion"), &json!("chatcmpl-1")));
        assert_eq!(
            (&body["choices"][0]["finish_reason"], &body["usage"]["completion_tokens"]),
            (&json!("stop"), &json!(2))
        );
        assert_eq!(up.count(), 1);
        let rows = proxy.wait_rows(1, "SELECT output_tokens, estimated FROM exchanges").await;
        assert_eq!(rows[0], json!({"output_tokens": 2, "estimated": 0}));
    }
}

#[tokio::test]
async fn messages_and_responses_are_put_together_too() {
    let message = named(&[
        json!({"type": "message_start", "message": {"id": "msg", "type": "message", "role": "assistant", "model": "x", "content": [], "stop_reason": null, "usage": {"input_tokens": 3, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
        json!({"type": "message_stop"}),
    ]);
    let up = upstream().reply(message).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).set("dialect", "anthropic").model("*", "x")).start().await;
    let ask = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let answer = proxy.post("/v1/messages").json(&ask).send().await.json();
    assert_eq!(
        (&answer["content"], &answer["stop_reason"]),
        (&json!([{"type": "text", "text": "hello"}]), &json!("end_turn"))
    );
    // And in another dialect.
    assert_eq!(proxy.chat().send().await.says(), "hello");
    let whole = json!({"id": "r", "status": "completed", "output": [{"type": "message", "content": []}], "usage": {"output_tokens": 1}});
    let response = named(&[
        json!({"type": "response.created", "response": {"id": "r"}}),
        json!({"type": "response.completed", "response": whole}),
    ]);
    let up = upstream().reply(response).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let answer = proxy.post("/v1/responses").json(&json!({"model": "m", "input": "hi"})).send().await;
    assert_eq!(answer.json(), whole);
}

#[tokio::test]
async fn a_stream_for_a_client_of_json_that_breaks_is_a_failed_attempt() {
    let boom = sse([json!({"error": {"message": "boom"}}).to_string()]);
    for bad in [tokens(9).end_after(3), tokens(9).only_content(3), boom, reply(json!({"choices": []}))] {
        let (up, well) = (upstream().reply(bad).start().await, upstream().reply(chat("well")).start().await);
        let proxy = proxy!()
            .backend(backend("p1").primary(&up))
            .backend(backend("f1").fallback(&well))
            .setting("primary_wait_ms", 0)
            .start()
            .await;
        let answer = proxy.chat().send().await;
        assert_eq!((answer.says().as_str(), answer.header("x-pointsman-backend")), ("well", "f1"));
    }
}
