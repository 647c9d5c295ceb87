//! Usage is counted as it is billed: told numbers are checked, budgets cannot be overrun at once, nothing is free by mistake.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use http::Method;
use pointsman_tests::{
    Gate, Proxy, Reply, Upstream, backend, bytes, chat, forget_sums, json as reply, proxy, sse, tokens, upstream,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const LAST: &str = "SELECT input_tokens, output_tokens, cached_input_tokens, estimated, cost_usd FROM exchanges ORDER BY ended_us DESC";

fn hashed(key: &str) -> String {
    let hex: String = Sha256::digest(key).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

fn completion(usage: &Value) -> Reply {
    reply(json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello you"}, "finish_reason": "stop"}],
        "usage": usage,
    }))
}

fn stream(last: &[Value]) -> Reply {
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"content": "hello you"}, "finish_reason": null}]});
    let finish = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let events = [chunk, finish].into_iter().chain(last.iter().cloned()).map(|event| event.to_string());
    sse(events.chain(["[DONE]".to_owned()]))
}

/// The numbers recorded of one exchange with such an upstream.
async fn recorded(reply: Reply, streams: bool) -> (u64, u64, u64, bool) {
    let up = upstream().reply(reply).start().await;
    let proxy = proxy!().backend(backend("p").primary(&up)).start().await;
    if streams {
        proxy.chat_stream().stream().await.rest().await;
    } else {
        assert_eq!(proxy.chat().send().await.status, 200);
    }
    numbers(&proxy.wait_rows(1, LAST).await[0])
}

fn numbers(row: &Value) -> (u64, u64, u64, bool) {
    let n = |name: &str| row[name].as_u64().unwrap();
    (n("input_tokens"), n("output_tokens"), n("cached_input_tokens"), n("estimated") == 1)
}

#[tokio::test]
async fn numbers_that_cannot_be_are_estimated_and_marked() {
    for tokens in [json!(0), json!(18_446_744_073_709_551_615u64), json!(4_000_000_000_000u64), Value::Null] {
        let usage = json!({"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": tokens});
        let (input, output, _, estimated) = recorded(completion(&usage), false).await;
        assert!(estimated && (1..100).contains(&input) && output == 3, "{tokens}: {input} {output}");
        let (input, output, _, estimated) = recorded(stream(&[json!({"choices": [], "usage": usage})]), true).await;
        assert!(estimated && (1..100).contains(&input) && (1..10).contains(&output), "{tokens}: {input} {output}");
    }
    let (input, output, _, estimated) = recorded(completion(&Value::Null), false).await;
    assert!(estimated && input > 0 && output == 3, "a plain answer without usage: {input} {output}");
}

#[tokio::test]
async fn usage_is_read_from_every_place() {
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "cached_tokens": 2});
    let zeros = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
    let chunk = |usage: &Value| json!({"choices": [], "usage": usage});
    for last in [
        vec![json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}]})],
        vec![json!({"choices": [], "x_groq": {"id": "r", "usage": usage}})],
        vec![chunk(&zeros), chunk(&usage)],
        vec![chunk(&usage), chunk(&zeros)],
        vec![chunk(&usage), chunk(&Value::Null)],
    ] {
        assert_eq!(recorded(stream(&last), true).await, (9, 4, 2, false), "{last:?}");
    }
    let thoughts = json!({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 43, "completion_tokens_details": {"reasoning_tokens": 30}});
    assert_eq!(recorded(completion(&thoughts), false).await, (9, 34, 0, false), "thoughts beside the answer");
    let inside = json!({"prompt_tokens": 9, "completion_tokens": 34, "total_tokens": 43, "completion_tokens_details": {"reasoning_tokens": 30}});
    assert_eq!(recorded(completion(&inside), false).await, (9, 34, 0, false), "thoughts inside it");
}

#[tokio::test]
async fn one_absurd_answer_uses_up_no_day_and_breaks_no_sum() {
    let absurd = json!({"prompt_tokens": u64::MAX, "completion_tokens": u64::MAX, "total_tokens": u64::MAX});
    let up = upstream().reply(completion(&absurd)).then(chat("fine")).start().await;
    let proxy = proxy!()
        .backend(backend("p").primary(&up).price("*", 1.0, 1.0))
        .client_with("a", &hashed("one"), &[("budget_usd_per_day", toml::Value::Float(1.0)), ("tpm", 10_000.into())])
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(proxy.chat().bearer("one").send().await.status, 200);
    }
    proxy.wait_rows(3, LAST).await;
    // A store that an older version has written such numbers to.
    let store = rusqlite::Connection::open(proxy.store_path()).unwrap();
    store.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    store
        .execute("UPDATE exchange SET input_tokens = 9223372036854775807, output_tokens = 9223372036854775807", [])
        .unwrap();
    forget_sums(&store);
    for group in ["client", "backend", "model", "lane", "hour", "day"] {
        let usage = proxy.admin(&format!("/api/usage?group={group}")).send().await;
        assert_eq!(usage.status, 200, "{group}: {}", usage.text());
        assert!(usage.json()["total"]["input_tokens"].as_u64().unwrap() >= 9_000_000_000_000_000_000);
    }
}

#[tokio::test]
async fn an_answer_compressed_unasked_passes_untouched_and_is_read_as_a_copy() {
    let gzip = |body: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let whole = json!({
        "id": "c", "object": "chat.completion", "model": "m", "usage": {"prompt_tokens": 9, "completion_tokens": 4},
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    });
    let events = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n";
    let (packed, packed_events) = (gzip(whole.to_string().as_bytes()), gzip(events.as_bytes()));
    let up = upstream()
        .reply(bytes("application/json", packed.clone()).header("content-encoding", "gzip"))
        .then(bytes("text/event-stream", packed_events.clone()).header("content-encoding", "gzip"))
        .then(
            bytes("application/json", gzip(br#"{"error":{"message":"no such thing","type":"invalid_request_error"}}"#))
                .header("content-encoding", "gzip")
                .with_status(400),
        )
        .start()
        .await;
    let proxy = proxy!().backend(backend("p").primary(&up)).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!((&answer.body[..], answer.header("content-encoding")), (&packed[..], "gzip"), "it passes untouched");
    // A stream is read by its events, so it goes out as they are.
    let answer = proxy.chat_stream().send().await;
    assert_eq!((answer.header("content-encoding"), answer.text().contains("\"content\":\"hi\"")), ("", true));
    let rows = proxy.wait_rows(2, LAST).await;
    assert_eq!((numbers(&rows[0]), numbers(&rows[1])), ((9, 4, 0, false), (9, 4, 0, false)));
    let refused = proxy.chat().send().await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["message"], "no such thing");
}

#[tokio::test]
async fn an_answer_that_its_client_wants_compressed_is_read_as_a_copy() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(br#"{"data":[],"usage":{"input_tokens":9,"output_tokens":4}}"#).unwrap();
    let packed = encoder.finish().unwrap();
    let up =
        upstream().reply(bytes("application/json", packed.clone()).header("content-encoding", "gzip")).start().await;
    let proxy = proxy!().backend(backend("p").primary(&up)).start().await;
    let request = proxy.post("/v1/images/generations").header("accept-encoding", "gzip");
    let answer = request.json(&json!({"model": "m", "prompt": "a cat"})).send().await;
    assert_eq!((&answer.body[..], answer.header("content-encoding")), (&packed[..], "gzip"));
    assert_eq!(numbers(&proxy.wait_rows(1, LAST).await[0]), (9, 4, 0, false));
}

/// A proxy before one backend with these prices, and a client with a budget.
async fn with_price(price: &[(&str, f64)], reply: Reply) -> (Proxy, Upstream) {
    let up = upstream().reply(reply).start().await;
    let target =
        price.iter().fold(backend("p").primary(&up), |target, (key, usd)| target.set(&format!("price.m.{key}"), *usd));
    (proxy!().backend(target).start().await, up)
}

#[tokio::test]
async fn cache_writes_and_long_prompts_have_prices_of_their_own() {
    let usage = json!({
        "input_tokens": 1000, "output_tokens": 100, "cache_read_input_tokens": 5000, "cache_creation_input_tokens": 7000,
        "cache_creation": {"ephemeral_5m_input_tokens": 3000, "ephemeral_1h_input_tokens": 4000},
    });
    let message = json!({"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hi"}], "usage": usage});
    let up = upstream().reply(reply(message)).start().await;
    let target = backend("p")
        .primary(&up)
        .set("dialect", "anthropic")
        .set("price.m.input_per_mtok", 3.0)
        .set("price.m.output_per_mtok", 15.0)
        .set("price.m.cached_input_per_mtok", 0.3)
        .set("price.m.cache_write_per_mtok", 3.75)
        .set("price.m.cache_write_1h_per_mtok", 6.0);
    let proxy = proxy!().backend(target).start().await;
    let body = json!({"model": "m", "max_tokens": 200, "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(proxy.post("/v1/messages").json(&body).send().await.status, 200);
    let row = &proxy.wait_rows(1, LAST).await[0];
    assert_eq!(numbers(row), (13_000, 100, 5_000, false));
    let expected = (1_000.0 * 3.0 + 5_000.0 * 0.3 + 3_000.0 * 3.75 + 4_000.0 * 6.0 + 100.0 * 15.0) / 1e6;
    assert!((row["cost_usd"].as_f64().unwrap() - expected).abs() < 1e-12, "{row}");

    let usage = json!({"prompt_tokens": 30_000, "completion_tokens": 100, "total_tokens": 30_100});
    let up = upstream().reply(completion(&usage)).start().await;
    let tier = toml::toml! { above_input_tokens = 20000
    input_per_mtok = 10.0
    output_per_mtok = 45.0 };
    let target = backend("p")
        .primary(&up)
        .price("m", 5.0, 30.0)
        .set("price.m.tiers", toml::Value::Array(vec![toml::Value::Table(tier)]));
    let proxy = proxy!().backend(target).start().await;
    proxy.chat().send().await;
    let cost = proxy.wait_rows(1, LAST).await[0]["cost_usd"].as_f64().unwrap();
    assert!((cost - (30_000.0 * 10.0 + 100.0 * 45.0) / 1e6).abs() < 1e-12, "{cost}");
}

#[tokio::test]
async fn twenty_requests_at_once_cannot_spend_twenty_budgets() {
    let gate = Gate::new();
    // Each costs 0.01 USD, and so much is the budget.
    let usage = json!({"prompt_tokens": 100, "completion_tokens": 900, "total_tokens": 1000});
    let up = upstream().reply(completion(&usage).gated_head(&gate)).start().await;
    let proxy = proxy!()
        .backend(backend("p").primary(&up).price("*", 10.0, 10.0))
        .client_with("a", &hashed("one"), &[("budget_usd_per_day", toml::Value::Float(0.01))])
        .start()
        .await;
    let all: Vec<_> = (0..20).map(|_| tokio::spawn(proxy.chat().bearer("one").send())).collect();
    up.wait_seen(1).await;
    proxy.wait_rows(19, "SELECT id FROM exchanges WHERE denied = 'client_budget'").await;
    gate.open();
    let answers: Vec<_> = join_all(all).await.into_iter().map(Result::unwrap).collect();
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((served, up.count()), (1, 1));
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("reserved") && refused.header("retry-after") == "1", "{message}");
    let spent = proxy.wait_rows(1, "SELECT total(cost_usd) AS usd FROM exchanges WHERE status = 200").await;
    assert!(spent[0]["usd"].as_f64().unwrap() <= 0.010_001, "{spent:?}");
}

#[tokio::test]
async fn what_is_reserved_comes_back_on_every_way_out() {
    let gate = Gate::new();
    let up =
        upstream().reply(pointsman_tests::status(400)).then(tokens(3).gated(&gate)).then(chat("last")).start().await;
    let proxy = proxy!()
        .backend(backend("p").primary(&up).price("*", 10.0, 10.0))
        .client_with("a", &hashed("one"), &[("budget_usd_per_day", toml::Value::Float(0.01))])
        .start()
        .await;
    // Refused by the provider; left by its client.
    assert_eq!(proxy.chat().bearer("one").send().await.status, 400);
    let leaving = tokio::spawn(proxy.chat_stream().bearer("one").send());
    up.wait_seen(2).await;
    assert_eq!(proxy.chat().bearer("one").send().await.status, 429, "all is reserved");
    leaving.abort();
    up.wait_hung_up(1).await;
    proxy.wait_rows(1, "SELECT id FROM exchanges WHERE end = 'client_gone'").await;
    assert_eq!(proxy.chat().bearer("one").send().await.says(), "last");
}

#[tokio::test]
async fn a_client_with_a_budget_is_not_served_what_has_no_price() {
    let (priced, unpriced) = (upstream().start().await, upstream().start().await);
    let budget = [("budget_usd_per_day", toml::Value::Float(5.0))];
    let proxy = proxy!()
        .backend(backend("p").primary(&priced).model("m", "m").model("n", "n").price("m", 1.0, 1.0))
        .backend(backend("f").fallback(&unpriced).model("n", "n").model("o", "o"))
        .client_with("thrifty", &hashed("one"), &budget)
        .client("rich", &hashed("two"))
        .start()
        .await;
    assert_eq!(proxy.chat_for("m").bearer("one").send().await.status, 200);
    for model in ["n", "o"] {
        let refused = proxy.chat_for(model).bearer("one").send().await;
        assert_eq!(refused.status, 403, "{}", refused.text());
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains("has a price for it"));
        assert_eq!(proxy.chat_for(model).bearer("two").send().await.status, 200);
    }
    proxy.wait_rows(2, "SELECT id FROM exchanges WHERE denied = 'no_price'").await;
    assert_eq!(priced.count() + unpriced.count(), 3);
}

#[tokio::test]
async fn without_any_price_a_budget_lets_nothing_through_and_a_default_price_counts() {
    let up = upstream().reply(chat("hi")).start().await;
    let budget = [("budget_usd_per_day", toml::Value::Float(5.0))];
    let bare = || proxy!().backend(backend("p").primary(&up)).client_with("a", &hashed("one"), &budget);
    let proxy = bare().start().await;
    assert_eq!(proxy.chat().bearer("one").send().await.status, 403);
    assert_eq!(up.count(), 0);
    let price = toml::toml! { input_per_mtok = 10.0
    output_per_mtok = 20.0 };
    let proxy = bare().set("budget.default_price", toml::Value::Table(price)).start().await;
    assert_eq!(proxy.chat().bearer("one").send().await.status, 200);
    let cost = proxy.wait_rows(1, LAST).await[0]["cost_usd"].as_f64().unwrap();
    assert!((cost - (11.0 * 10.0 + 7.0 * 20.0) / 1e6).abs() < 1e-12, "{cost}");
}

#[tokio::test]
async fn a_price_of_a_told_answer_is_as_before() {
    let (proxy, _up) = with_price(&[("input_per_mtok", 1.0), ("output_per_mtok", 10.0)], chat("hi")).await;
    proxy.chat().send().await;
    let cost = proxy.wait_rows(1, LAST).await[0]["cost_usd"].as_f64().unwrap();
    assert!((cost - (11.0 + 70.0) / 1e6).abs() < 1e-12, "{cost}");
}

#[tokio::test]
async fn what_asks_no_model_needs_no_price_and_no_permission() {
    let up = upstream().reply(reply(json!({"id": "x", "object": "thing", "status": "completed", "model": "m", "results": [{"flagged": false, "categories": {}, "category_scores": {}}]}))).start().await;
    let more = [("budget_usd_per_day", toml::Value::Float(0.001))];
    let proxy = proxy!()
        .backend(backend("p").primary(&up).price("gpt-4o", 10.0, 10.0))
        .client_with("thrifty", &hashed("one"), &more)
        .client_with("bound", &hashed("two"), &[("models", toml::Value::Array(vec!["gpt-*".into()]))])
        .start()
        .await;
    for key in ["one", "two"] {
        for (method, path, body) in [
            (Method::GET, "/v1/files", None),
            (Method::GET, "/v1/batches", None),
            (Method::GET, "/v1/chat/completions", None),
            (Method::GET, "/v1/responses/resp_1", None),
            (Method::DELETE, "/v1/responses/resp_1", None),
            (Method::POST, "/v1/responses/resp_1/cancel", Some(json!({}))),
            (Method::POST, "/v1/files", Some(json!({"purpose": "batch"}))),
            (Method::POST, "/v1/batches", Some(json!({"input_file_id": "file-1"}))),
            (Method::POST, "/v1/vector_stores", Some(json!({"name": "v"}))),
            (Method::POST, "/v1/moderations", Some(json!({"input": "hi"}))),
        ] {
            let request = proxy.request(method.clone(), path).bearer(key);
            let request = match &body {
                Some(body) => request.json(body),
                None => request,
            };
            let answer = request.send().await;
            assert_eq!(answer.status, 200, "{key} {method} {path}: {}", answer.text());
        }
        let asked = proxy.chat_for("other").bearer(key).send().await;
        assert!(asked.status.is_client_error(), "{key}: where a model is asked, the rule holds: {}", asked.text());
        let nameless = proxy.post("/v1/images/generations").bearer(key).json(&json!({"prompt": "a cat"})).send().await;
        assert!(nameless.status.is_client_error(), "{key}: nor is not to name it a way around: {}", nameless.text());
    }
    assert_eq!(up.count(), 20);
}

#[tokio::test]
async fn what_is_read_again_is_charged_once() {
    let response = json!({"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": [],
        "usage": {"input_tokens": 900, "output_tokens": 40, "total_tokens": 940}});
    let up = upstream().reply(reply(response)).start().await;
    let proxy = proxy!()
        .backend(backend("p").primary(&up).price("*", 1.0, 1.0))
        .client_with("a", &hashed("one"), &[("budget_usd_per_day", toml::Value::Float(1.0))])
        .start()
        .await;
    for path in ["/v1/responses/resp_1", "/v1/threads/t/runs/r", "/v1/chat/completions/c1", "/v1/evals/e/runs/r"] {
        for _ in 0..3 {
            assert_eq!(proxy.get(path).bearer("one").send().await.status, 200, "{path}");
        }
    }
    assert_eq!(proxy.post("/v1/responses/resp_1/cancel").bearer("one").json(&json!({})).send().await.status, 200);
    for row in proxy.wait_rows(13, LAST).await {
        assert_eq!((numbers(&row), row["cost_usd"].as_f64()), ((0, 0, 0, false), Some(0.0)), "{row}");
    }
}

#[tokio::test]
async fn an_answer_whose_operation_tells_no_usage_is_estimated() {
    let text = "a word, ".repeat(500);
    let form = b"--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n\0\xff\r\n--B--\r\n";
    let sound = || bytes("audio/mpeg", vec![0xff; 5_000]);
    let pictures = || reply(json!({"created": 1, "data": [{"b64_json": "AAAA"}, {"b64_json": "AAAA"}]}));
    let json = |body: Value| ("application/json", body.to_string().into_bytes());
    for (path, (label, body), answer, expected) in [
        ("/v1/audio/speech", json(json!({"model": "m", "input": text, "voice": "v"})), sound(), 2_001..=2_002),
        (
            "/v1/audio/transcriptions",
            ("multipart/form-data; boundary=B", form.to_vec()),
            reply(json!({"text": "hello you"})),
            1_003..=1_003,
        ),
        ("/v1/images/generations", json(json!({"model": "m", "prompt": "a cat", "n": 2})), pictures(), 2_002..=2_002),
        (
            "/v1/rerank",
            json(json!({"model": "m", "query": "q", "documents": [text]})),
            reply(json!({"results": []})),
            1_001..=1_003,
        ),
    ] {
        let (proxy, _up) = with_price(&[("input_per_mtok", 1.0), ("output_per_mtok", 1.0)], answer).await;
        assert_eq!(proxy.post(path).body(label, body).send().await.status, 200);
        let row = &proxy.wait_rows(1, LAST).await[0];
        let (input, output, _, estimated) = numbers(row);
        assert!(expected.contains(&(input + output)) && estimated, "{path}: {row}");
        assert!((row["cost_usd"].as_f64().unwrap() - (input + output) as f64 / 1e6).abs() < 1e-12, "{path}: {row}");
    }
    let (proxy, _up) =
        with_price(&[("input_per_mtok", 1.0), ("output_per_mtok", 1.0)], reply(json!({"input_tokens": 9}))).await;
    let counted = json!({"model": "m", "messages": [{"role": "user", "content": text}]});
    assert_eq!(proxy.post("/v1/messages/count_tokens").json(&counted).send().await.status, 200);
    assert_eq!(numbers(&proxy.wait_rows(1, LAST).await[0]), (0, 0, 0, false), "a count is free");
}

#[tokio::test]
async fn a_total_alone_is_what_the_prompt_used() {
    for (path, body) in [
        ("/v1/rerank", json!({"model": "m", "query": "q", "documents": ["a", "b"]})),
        ("/v1/embeddings", json!({"model": "m", "input": "hi"})),
    ] {
        let answer = json!({"object": "list", "data": [{"index": 0, "embedding": [0.1]}], "results": [{"index": 0}],
            "model": "m", "usage": {"total_tokens": 70}});
        let (proxy, _up) = with_price(&[("input_per_mtok", 1.0), ("output_per_mtok", 1.0)], reply(answer)).await;
        assert_eq!(proxy.post(path).json(&body).send().await.status, 200, "{path}");
        assert_eq!(numbers(&proxy.wait_rows(1, LAST).await[0]), (70, 0, 0, false), "{path}");
    }
}

#[tokio::test]
async fn a_hundred_prompts_in_one_request_are_believed_and_reserved() {
    let choices: Vec<Value> =
        (0..100).map(|index| json!({"index": index, "text": "word", "finish_reason": "length"})).collect();
    let answer = json!({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": choices,
        "usage": {"prompt_tokens": 100, "completion_tokens": 10_000, "total_tokens": 10_100}});
    let gate = Gate::new();
    let up = upstream().reply(reply(answer).gated_head(&gate)).start().await;
    let proxy = proxy!()
        .backend(backend("p").primary(&up).price("*", 1.0, 1.0))
        .client_with("a", &hashed("one"), &[("budget_usd_per_day", toml::Value::Float(0.009))])
        .start()
        .await;
    let body = json!({"model": "m", "max_tokens": 100, "prompt": vec!["p"; 100]});
    let many = tokio::spawn(proxy.post("/v1/completions").bearer("one").json(&body).send());
    up.wait_seen(1).await;
    assert_eq!(proxy.chat().bearer("one").send().await.status, 429, "100 answers of 100 tokens are reserved");
    gate.open();
    assert_eq!(many.await.unwrap().status, 200);
    let rows = proxy
        .wait_rows(
            1,
            "SELECT input_tokens, output_tokens, cached_input_tokens, estimated FROM exchanges WHERE status = 200",
        )
        .await;
    assert_eq!(numbers(&rows[0]), (100, 10_000, 0, false));
}

#[tokio::test]
async fn who_hangs_up_before_the_answer_pays_for_what_was_begun() {
    for streams in [false, true] {
        let gate = Gate::new();
        let answer = if streams { tokens(3).gated(&gate) } else { chat("late").gated_head(&gate) };
        let up = upstream().reply(answer).start().await;
        let proxy = proxy!().backend(backend("p").primary(&up).price("*", 1.0, 1.0)).start().await;
        let asked =
            json!({"model": "m", "stream": streams, "messages": [{"role": "user", "content": "word ".repeat(800)}]});
        let leaving = tokio::spawn(proxy.post("/v1/chat/completions").json(&asked).send());
        up.wait_seen(1).await;
        leaving.abort();
        up.wait_hung_up(1).await;
        let row = &proxy.wait_rows(1, LAST).await[0];
        let (input, output, _, estimated) = numbers(row);
        assert!((1_000..1_020).contains(&input) && output == 0 && estimated, "{row}");
        assert!((row["cost_usd"].as_f64().unwrap() - input as f64 / 1e6).abs() < 1e-12, "{row}");
        let ends = proxy.wait_rows(1, "SELECT id FROM exchanges WHERE end = 'client_gone'").await;
        assert_eq!(ends.len(), 1);
    }
}

#[tokio::test]
async fn streams_of_sound_and_pictures_tell_their_usage_in_their_last_event() {
    let usage = json!({"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59});
    for (path, body, kind) in [
        ("/v1/audio/transcriptions", json!({"model": "m", "stream": true}), "transcript.text.done"),
        ("/v1/audio/speech", json!({"model": "m", "input": "hi", "stream_format": "sse"}), "speech.audio.done"),
        (
            "/v1/images/generations",
            json!({"model": "m", "prompt": "a cat", "stream": true}),
            "image_generation.completed",
        ),
    ] {
        let delta = json!({"type": "a.delta", "delta": "hello"});
        let events = [delta, json!({"type": kind, "text": "hello", "usage": usage})].map(|event| event.to_string());
        let (proxy, _up) = with_price(&[("input_per_mtok", 1.0), ("output_per_mtok", 1.0)], sse(events.clone())).await;
        let answer = proxy.post(path).json(&body).send().await;
        assert!(events.iter().all(|event| answer.text().contains(event)), "{path}: {}", answer.text());
        assert_eq!(numbers(&proxy.wait_rows(1, LAST).await[0]), (14, 45, 0, false), "{path}");
    }
}

#[tokio::test]
async fn a_translated_stream_is_charged_as_its_provider_told_it() {
    let thoughts = json!({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 43, "cached_tokens": 2,
        "completion_tokens_details": {"reasoning_tokens": 30}});
    for last in [
        json!({"choices": [], "usage": thoughts}),
        json!({"choices": [], "x_groq": {"id": "r", "usage": thoughts}}),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": thoughts}]}),
    ] {
        let up = upstream().reply(stream(std::slice::from_ref(&last))).start().await;
        let proxy = proxy!().backend(backend("p").primary(&up).model("m", "m")).start().await;
        let body =
            json!({"model": "m", "max_tokens": 200, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
        let answer = proxy.post("/v1/messages").json(&body).send().await;
        assert!(answer.text().contains("message_stop"), "{}", answer.text());
        assert_eq!(numbers(&proxy.wait_rows(1, LAST).await[0]), (9, 34, 2, false), "{last}");
    }
    let usage = json!({
        "input_tokens": 1000, "output_tokens": 1, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 4000,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 4000},
    });
    let events = [
        json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello you"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 100}}),
        json!({"type": "message_stop"}),
    ];
    let up = upstream().reply(sse(events.map(|event| event.to_string()))).start().await;
    let target = backend("p").primary(&up).set("dialect", "anthropic").model("m", "m");
    let target = target.set("price.m.input_per_mtok", 3.0).set("price.m.output_per_mtok", 15.0);
    let proxy = proxy!().backend(target.set("price.m.cache_write_1h_per_mtok", 6.0)).start().await;
    let cached = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi ".repeat(1_000)}]});
    assert_eq!(proxy.post("/v1/chat/completions").json(&cached).send().await.status, 200);
    let row = &proxy.wait_rows(1, LAST).await[0];
    assert_eq!(numbers(row), (5_000, 100, 0, false));
    let expected = (1_000.0 * 3.0 + 4_000.0 * 6.0 + 100.0 * 15.0) / 1e6;
    assert!((row["cost_usd"].as_f64().unwrap() - expected).abs() < 1e-12, "{row}");
}

/// Cost of an exchange, in millionths of a USD.
fn microusd(row: &Value) -> i64 {
    (row["cost_usd"].as_f64().unwrap() * 1e6).round() as i64
}

#[tokio::test]
async fn a_service_tier_has_a_price_of_its_own_as_it_was_served_or_asked_for() {
    let usage = json!({"prompt_tokens": 70, "completion_tokens": 6, "total_tokens": 76});
    let up = upstream().handler(move |seen, _| {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        let served = asked["served"].clone();
        let mut answer = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": usage,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello you"}, "finish_reason": "stop"}]});
        if asked["stream"] == true {
            let chunk = |choices: Value, usage: &Value| {
                let mut chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                    "choices": choices, "usage": usage});
                if !served.is_null() {
                    chunk["service_tier"] = served.clone();
                }
                chunk.to_string()
            };
            let text = json!([{"index": 0, "delta": {"content": "hello you"}, "finish_reason": "stop"}]);
            return sse([chunk(text, &Value::Null), chunk(json!([]), &usage), "[DONE]".to_owned()]);
        }
        if !served.is_null() {
            answer["service_tier"] = served;
        }
        reply(answer)
    });
    let up = up.start().await;
    let factors = toml::Table::from_iter([("flex".to_owned(), 0.5.into()), ("priority".to_owned(), 2.0.into())]);
    let one = backend("p").primary(&up).price("*", 1.0, 10.0);
    let proxy = proxy!().backend(one.set("price.*.service_tiers", factors)).start().await;
    // 70 + 60 millionths at the ordinary price.
    let cases = [
        (None, None, 130),
        (Some("flex"), Some("flex"), 65),
        (Some("priority"), None, 260),
        (Some("priority"), Some("default"), 130),
        (None, Some("priority"), 260),
        (Some("auto"), Some("unheard-of"), 130),
    ];
    let mut total = 0;
    for stream in [false, true] {
        for (asked, served, expected) in cases {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream});
            body["service_tier"] = json!(asked);
            body["served"] = json!(served);
            assert_eq!(proxy.post("/v1/chat/completions").json(&body).send().await.status, 200);
            total += 1;
            let row = proxy.wait_rows(total, LAST).await.remove(0);
            assert_eq!(microusd(&row), expected, "{asked:?} {served:?} {stream}");
        }
    }
}

#[tokio::test]
async fn a_response_of_the_background_is_charged_once_when_it_tells_what_it_used() {
    let response = |status: &str, usage: Value| {
        reply(json!({"id": "resp_1", "object": "response", "status": status, "model": "m", "background": true,
            "output": [], "usage": usage}))
    };
    let usage = json!({"input_tokens": 300_000, "output_tokens": 6, "total_tokens": 300_006});
    let up = upstream().handler(move |seen, number| match (seen.method.as_str(), number) {
        ("POST", _) => response("queued", Value::Null),
        (_, 0..=2) => response("in_progress", Value::Null),
        (_, _) if seen.target.contains("stream=true") => {
            let done = json!({"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "usage": usage}});
            sse([done.to_string()])
        }
        _ => response("completed", usage.clone()),
    });
    let up = up.start().await;
    let one = backend("p").primary(&up).model("asked", "sent").price("sent", 1.0, 10.0);
    let proxy = proxy!()
        .backend(one)
        .client_with("c", &hashed("key"), &[("budget_usd_per_day", toml::Value::Float(5.0))])
        .start()
        .await;
    let body = json!({"model": "asked", "input": "search all of it", "background": true});
    assert_eq!(proxy.post("/v1/responses").bearer("key").json(&body).send().await.status, 200);
    for path in ["", "", "?stream=true", "", ""] {
        proxy.get(&format!("/v1/responses/resp_1{path}")).bearer("key").send().await;
    }
    let rows =
        proxy.wait_rows(6, "SELECT input_tokens, output_tokens, cost_usd FROM exchanges ORDER BY ended_us").await;
    let sum = |name: &str| rows.iter().map(|row| row[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("input_tokens"), sum("output_tokens")), (300_000, 6), "{rows:?}");
    assert_eq!(rows.iter().map(microusd).sum::<i64>(), 300_060, "at the price of the model that was asked: {rows:?}");
    assert!(rows[3]["output_tokens"] == 6 && rows[4]["output_tokens"] == 0, "once: {rows:?}");
}

#[tokio::test]
async fn a_transcription_as_text_is_charged_for_its_text_and_seconds_count() {
    let form = "--X\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--X--\r\n";
    let text = "hello you ".repeat(40);
    let seconds = json!({"text": text, "usage": {"type": "duration", "seconds": 12}});
    for (answer, input, output) in [
        (bytes("text/plain; charset=utf-8", text.clone()), 1_000, 100),
        (bytes("application/x-subrip", text.clone()), 1_000, 0),
        (reply(seconds), 120, 100),
    ] {
        let up = upstream().reply(answer).start().await;
        let proxy = proxy!().backend(backend("p").primary(&up)).start().await;
        let request = proxy.post("/v1/audio/transcriptions").body("multipart/form-data; boundary=X", form);
        assert_eq!(request.send().await.status, 200);
        let (told_input, told_output, _, estimated) = numbers(&proxy.wait_rows(1, LAST).await[0]);
        assert_eq!((told_input, estimated), (input, true));
        if output > 0 {
            assert_eq!(told_output, output);
        }
    }
}

#[tokio::test]
async fn numbers_as_texts_and_summaries_on_the_way_are_counted() {
    let texts = json!({"prompt_tokens": "70", "completion_tokens": "6", "total_tokens": "76"});
    assert_eq!(recorded(completion(&texts), false).await, (70, 6, 0, false));
    let message = reply(
        json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "stop_sequence": null, "content": [{"type": "text", "text": "hello you"}], "usage": {"input_tokens": 70, "output_tokens": 6,
        "iterations": [{"type": "compaction", "input_tokens": 500, "output_tokens": 40}, {"type": "message", "input_tokens": 70, "output_tokens": 6}]}}),
    );
    let up = upstream().reply(message).start().await;
    let proxy = proxy!().backend(backend("a").primary(&up).set("dialect", "anthropic")).start().await;
    let body = json!({"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]});
    proxy.post("/v1/messages").header("anthropic-version", "2023-06-01").json(&body).send().await;
    let (input, output, _, estimated) = numbers(&proxy.wait_rows(1, LAST).await[0]);
    assert_eq!((input, output, estimated), (570, 46, false));
}
