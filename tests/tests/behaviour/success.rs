//! Success must be shown: what does not have the shape of an answer is a failed attempt, plain and as a stream, and so is an
//! answer with nothing in it.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use pointsman_tests::{
    Backend, Event, Proxy, Reply, Upstream, backend, bytes, chat, embeddings, json as reply, proxy, sse, tokens,
    upstream,
};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};

/// A proxy whose primary gives one answer and whose fallback gives another.
struct Served {
    proxy: Proxy,
    bad: Upstream,
    well: Upstream,
}

async fn served(bad: Reply, good: Reply) -> Served {
    served_by(bad, good, |target| target).await
}

async fn served_by(bad: Reply, good: Reply, change: impl FnOnce(Backend) -> Backend) -> Served {
    let (bad, well) = (upstream().reply(bad).start().await, upstream().reply(good).start().await);
    let proxy = proxy!()
        .backend(change(backend("p1").primary(&bad)))
        .backend(backend("f1").fallback(&well))
        .setting("primary_wait_ms", 0)
        .start()
        .await;
    Served { proxy, bad, well }
}

fn message(content: Value, finish: &str, tokens: Option<u32>) -> Value {
    let mut answer = json!({"id": "c", "object": "chat.completion", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}]});
    if let Some(tokens) = tokens {
        answer["usage"] = json!({"prompt_tokens": 3, "completion_tokens": tokens});
    }
    answer
}

#[tokio::test]
async fn a_body_that_is_no_answer_is_a_failed_attempt() {
    for bad in [
        json!({"choices": []}),
        json!({"choices": null}),
        json!({"code": 20012, "message": "boom", "data": null}),
        json!({}),
        json!({"detail": "boom"}),
        json!({"choices": [{"error": {"message": "boom", "code": 502}}]}),
        message(json!("half"), "error", Some(3)),
        message(json!(""), "stop", Some(0)),
        message(Value::Null, "stop", None),
        message(json!([{"type": "text", "text": ""}]), "stop", None),
        json!({"choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": null,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "", "arguments": ""}}]}}]}),
        json!({"choices": null, "base_resp": {"status_code": 1013, "status_msg": "boom"}}),
        json!({"internalServerException": {"message": "boom"}}),
    ] {
        for streaming in [false, true] {
            let Served { proxy, bad: up, well } =
                served(reply(bad.clone()), if streaming { tokens(2) } else { chat("well") }).await;
            if streaming {
                let events = proxy.chat_stream().stream().await.rest().await;
                assert_eq!(events.iter().map(Event::content).collect::<String>(), "t0 t1 ", "{bad}");
            } else {
                let answer = proxy.chat().send().await;
                assert_eq!((answer.status.as_u16(), answer.says()), (200, "well".to_owned()), "{bad}");
                assert_eq!(answer.header("x-pointsman-backend"), "f1", "{bad}");
            }
            assert_eq!((up.count(), well.count()), (1, 1), "{bad}");
        }
    }
}

#[tokio::test]
async fn a_way_to_somebody_else_and_an_empty_success_are_asked_of_the_next() {
    for code in [204, 301, 302, 307, 308] {
        let away = || bytes("text/html", "").with_status(code).header("location", "https://login.example.com/");
        let Served { proxy, bad: up, well } = served(away(), chat("well")).await;
        assert_eq!(proxy.chat().send().await.says(), "well", "{code}");
        assert_eq!((up.count(), well.count()), (1, 1), "{code}");
    }
}

#[tokio::test]
async fn an_error_longer_than_what_is_held_is_a_failed_attempt_and_a_long_answer_is_none() {
    let long = "x".repeat(1_500_000);
    for bad in [
        json!({"error": {"message": "boom", "code": 500}, "trace": long}).to_string(),
        json!({"choices": [{"error": {"message": "boom", "code": 502}}], "trace": long}).to_string(),
        format!("<html><body>{long}</body></html>"),
    ] {
        let Served { proxy, bad: up, well } = served(bytes("application/json", bad), chat("well")).await;
        assert_eq!(proxy.chat().send().await.says(), "well");
        assert!(up.count() > 0 && well.count() == 1);
    }
    let Served { proxy, well, bad: _up } = served(chat(&long), chat("well")).await;
    assert_eq!(proxy.chat().send().await.says().len(), long.len());
    let numbers = vec![0.25; 400_000];
    let data = json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": numbers}]});
    let Served { proxy, bad: _up, .. } = served(reply(data), chat("well")).await;
    let answer = proxy.post("/v1/embeddings").json(&json!({"model": "e", "input": "x"})).send().await;
    assert_eq!(answer.json()["data"][0]["embedding"].as_array().map(Vec::len), Some(400_000));
    assert_eq!(well.count(), 0);
}

#[tokio::test]
async fn a_stream_that_is_no_answer_is_a_failed_attempt() {
    let stop = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let used = json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 0}});
    for bad in [
        vec![json!({"choices": []}).to_string(), "[DONE]".to_owned()],
        vec!["{}".to_owned(), "[DONE]".to_owned()],
        vec![json!({"detail": "boom"}).to_string()],
        vec![json!({"code": 1, "message": "boom", "data": null}).to_string(), "[DONE]".to_owned()],
        vec![
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}).to_string(),
            "[DONE]".to_owned(),
        ],
        vec![stop.to_string(), "[DONE]".to_owned()],
        vec![stop.to_string(), used.to_string(), "[DONE]".to_owned()],
    ] {
        let Served { proxy, bad: up, well } = served(sse(bad.clone()), tokens(2)).await;
        let mut stream = proxy.chat_stream().stream().await;
        let events = stream.rest().await;
        assert_eq!(events.iter().map(Event::content).collect::<String>(), "t0 t1 ", "{bad:?}");
        assert!(stream.ended_in_order());
        assert_eq!((up.count(), well.count()), (1, 1), "{bad:?}");
    }
}

#[tokio::test]
async fn half_a_text_and_a_finish_reason_of_failure_is_resumed() {
    let half = json!({"id": "c", "choices": [{"index": 0, "delta": {"content": "t0 "}}]});
    let failed = json!({"id": "c", "choices": [{"index": 0, "delta": {"content": "boom"}, "finish_reason": "error"}]});
    let bad = sse([half.to_string(), failed.to_string(), "[DONE]".to_owned()]);
    let Served { proxy, bad: up, well } = served(bad, tokens(2)).await;
    let mut stream = proxy.chat_stream().stream().await;
    let events = stream.rest().await;
    assert_eq!(events.iter().map(Event::content).collect::<String>(), "t0 t1 ", "{events:?}");
    assert!(stream.ended_in_order());
    assert_eq!((up.count(), well.count()), (1, 1));
}

#[tokio::test]
async fn an_empty_answer_is_delivered_where_the_operator_says_so_or_tokens_were_counted() {
    let empty = message(json!(""), "stop", None);
    let Served { proxy, bad: up, well } =
        served_by(reply(empty), chat("well"), |target| target.set("empty_answers", true)).await;
    let answer = proxy.chat().send().await;
    assert_eq!(
        (answer.says(), answer.header("x-pointsman-backend"), up.count(), well.count()),
        (String::new(), "p1", 1, 0)
    );
    let thought = message(json!(""), "length", Some(9));
    let Served { proxy, bad: up, well } = served(reply(thought), chat("well")).await;
    assert_eq!(proxy.chat().send().await.header("x-pointsman-backend"), "p1");
    assert_eq!((up.count(), well.count()), (1, 0));
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_compressed_answer_is_judged_like_any_other() {
    let whole = |text: &str| message(json!(text), "stop", Some(3)).to_string();
    let error = json!({"error": {"message": "boom", "code": 500}}).to_string();
    let cut = gzip(&whole(&"long ".repeat(2_000)));
    for (encoding, label, body) in [
        ("gzip", "application/json", gzip(&error)),
        ("x-gzip", "application/json", gzip("{}")),
        ("deflate", "application/json", zlib(&error)),
        ("gzip", "application/json", gzip(&message(json!(""), "stop", Some(0)).to_string())),
        ("gzip", "text/html", gzip("<html>bad gateway</html>")),
        ("gzip", "application/json", cut[..cut.len() - 40].to_vec()),
        ("gzip", "application/json", b"no gzip".to_vec()),
        ("zstd", "application/json", compress_to_vec(error.as_bytes(), CompressionLevel::Fastest)),
    ] {
        let Served { proxy, bad: up, well } =
            served(bytes(label, body.clone()).header("content-encoding", encoding), chat("well")).await;
        let answer = proxy.chat().header("accept-encoding", "gzip, deflate, zstd").send().await;
        assert_eq!((answer.status.as_u16(), answer.says()), (200, "well".to_owned()), "{encoding} {label} {body:?}");
        assert_eq!((up.count(), well.count()), (1, 1), "{encoding} {label}");
    }
}

#[tokio::test]
async fn a_compressed_stream_is_judged_and_resumed_like_any_other() {
    let piece = |text: &str| {
        let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": null});
        format!("data: {}\n\n", json!({"id": "c", "choices": [choice]}))
    };
    for begun in [
        "data: {\"error\":{\"message\":\"boom\"}}\n\n".to_owned(),
        "data: [DONE]\n\n".to_owned(),
        piece("t0 "),
        piece("t0 ") + "data: {\"error\":{\"message\":\"boom\"}}\n\n",
    ] {
        for label in ["text/event-stream", "application/json"] {
            let packed = bytes(label, gzip(&begun)).header("content-encoding", "gzip");
            let Served { proxy, bad: up, well } = served(packed, tokens(2)).await;
            let mut stream = proxy.chat_stream().header("accept-encoding", "gzip").stream().await;
            let events = stream.rest().await;
            assert_eq!(events.iter().map(Event::content).collect::<String>(), "t0 t1 ", "{label} {begun}");
            assert!(events.iter().all(|event| !event.text.contains("boom")), "{label}: {events:?}");
            assert_eq!((up.count(), well.count(), stream.ended_in_order()), (1, 1, true), "{label} {begun}");
        }
    }
    // A client that asked for JSON gets that.
    let events = piece("he") + &piece("llo") + "data: [DONE]\n\n";
    let packed = bytes("text/event-stream", gzip(&events)).header("content-encoding", "gzip");
    let Served { proxy, bad: up, well } = served(packed, chat("well")).await;
    assert_eq!(proxy.chat().header("accept-encoding", "gzip").send().await.says(), "hello");
    assert_eq!((up.count(), well.count()), (1, 0));
}

#[tokio::test]
async fn a_response_with_nothing_in_its_items_is_a_failed_attempt() {
    let response = |output: Value| json!({"id": "r", "object": "response", "status": "completed", "output": output});
    let said = |text: &str| json!([{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]);
    for nothing in [
        said(""),
        json!([{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": []}]),
        json!([{"type": "reasoning", "id": "rs", "summary": []}]),
        json!([{"type": "function_call", "id": "f", "call_id": "c", "name": "", "arguments": ""}]),
    ] {
        let Served { proxy, bad: up, well } =
            served(reply(response(nothing.clone())), reply(response(said("well")))).await;
        let answer = proxy.post("/v1/responses").json(&json!({"model": "m", "input": "x"})).send().await;
        assert!(answer.text().contains("well"), "{nothing}: {}", answer.text());
        assert_eq!((up.count(), well.count()), (1, 1), "{nothing}");
    }
}

#[tokio::test]
async fn other_operations_show_their_success_too() {
    let file = json!({"prompt": "p", "input": "i", "model": "m"});
    for (path, good) in [
        ("/v1/embeddings", embeddings()),
        ("/v1/moderations", reply(json!({"id": "m", "results": [{"flagged": false}]}))),
        ("/v1/images/generations", reply(json!({"created": 1, "data": [{"url": "http://u"}]}))),
        ("/v1/completions", reply(json!({"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]}))),
        (
            "/v1/responses",
            reply(
                json!({"id": "r", "status": "completed", "output": [{"type": "message", "content": [{"text": "x"}]}]}),
            ),
        ),
    ] {
        for bad in [
            json!({}),
            json!({"detail": "boom"}),
            json!({"error": {"message": "boom"}}),
            json!({"data": null, "results": []}),
        ] {
            let Served { proxy, bad: up, well } = served(reply(bad.clone()), good.clone()).await;
            let answer = proxy.post(path).json(&file).send().await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("x-pointsman-backend")),
                (200, "f1"),
                "{path} {bad}: {}",
                answer.text()
            );
            assert_eq!((up.count(), well.count()), (1, 1), "{path} {bad}");
        }
    }
}

#[tokio::test]
async fn a_redirection_is_no_answer_of_a_model() {
    let moved = reply(json!({})).with_status(307).header("location", "https://elsewhere.example/v1/chat/completions");
    let (up, other) = (upstream().reply(moved).start().await, upstream().reply(chat("here")).start().await);
    let proxy = proxy!().backend(backend("p1").primary(&up)).backend(backend("f1").fallback(&other));
    let proxy = proxy.setting("primary_wait_ms", 0).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!((answer.status.as_u16(), answer.says().as_str(), answer.header("location")), (200, "here", ""));
    let rows = proxy.wait_rows(1, "SELECT outcome, message FROM attempts WHERE backend = 'p1'").await;
    assert_eq!(rows[0]["outcome"], "malformed");
    let message = rows[0]["message"].as_str().unwrap();
    assert!(message.contains("redirects to https://elsewhere.example"), "{message}");
}
