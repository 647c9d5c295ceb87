//! Secrets of a backend that an upstream repeats reach nobody: no client, log, store or page of the operator. What
//! cannot be a secret damages no text.

use pointsman_tests::{Backend, Proxy, Reply, Seen, Upstream, backend, bytes, chat, json, proxy, sse, upstream};
use serde_json::json as value;

const KEY: &str = "sk-9fK2/xQ7+Lm3";
const AZURE: &str = "az-7c1d0e9b5a3f";
const REFERRED: &str = "team-8d2f6a40";
const IN_QUERY: &str = "qk-51c9e3d7+a0";
const REFERRED_IN_QUERY: &str = "pass-6e8b24f1";

fn secretive(up: &Upstream) -> Backend {
    let one = backend("p1").primary(up).set("api_key", KEY).set("headers.api-key", AZURE);
    let one = one.set("headers.x-team", "env:TEAM").set("headers.x-region", "eu-central-1");
    let one = one.set("query.subscription-key", IN_QUERY).set("query.pass", "env:PASS");
    one.set("query.api-version", "2026-10-21-preview")
}

/// An answer that says everything that it was sent.
fn tells_all(seen: &Seen, status: u16) -> Reply {
    let told = format!("{:?} {}", seen.headers, seen.target);
    let body = match status {
        200 => value!({"object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": told}}]}),
        _ => value!({"error": {"message": told, "type": "invalid_request_error"}}),
    };
    let key = seen.header("authorization").unwrap_or_default();
    json(body).with_status(status).header("x-echo", format!("you sent {key}")).header("x-request-id", key)
}

async fn told_everywhere(proxy: &mut Proxy, answers: &str) -> String {
    let mut told = answers.to_owned();
    for path in ["/metrics", "/api/backends", "/api/usage", "/api/exchanges", "/api/config"] {
        told.push_str(&proxy.admin(path).send().await.text());
    }
    proxy.sigterm();
    proxy.wait_exit().await;
    told.push_str(&proxy.output().join("\n"));
    for file in ["pointsman.db", "pointsman.db-wal"] {
        told.push_str(&String::from_utf8_lossy(&std::fs::read(proxy.dir().join(file)).unwrap_or_default()));
    }
    told
}

fn assert_untold(told: &str) {
    let encoded = ["sk-9fK2\\/xQ7+Lm3", "sk-9fK2%2FxQ7%2BLm3", "qk-51c9e3d7%2Ba0"];
    for secret in [KEY, AZURE, REFERRED, IN_QUERY, REFERRED_IN_QUERY].into_iter().chain(encoded) {
        assert!(!told.contains(secret), "{secret} was told: {:?}", told.lines().find(|line| line.contains(secret)));
    }
}

#[tokio::test]
async fn a_secret_that_an_upstream_repeats_reaches_nobody_in_whatever_it_says() {
    for status in [200, 400, 401, 429, 500] {
        let up = upstream().handler(move |seen, _| tells_all(seen, status)).start().await;
        let mut proxy = proxy!()
            .backend(secretive(&up))
            .set("log.level", "trace")
            .set("journal.bodies", true)
            .set("limits.max_attempts", 1)
            .env("TEAM", REFERRED)
            .env("PASS", REFERRED_IN_QUERY)
            .start()
            .await;
        let answer = proxy.chat().send().await;
        let seen = up.only();
        assert_eq!((seen.header("api-key"), seen.header("x-team")), (Some(AZURE), Some(REFERRED)));
        if status == 200 {
            assert_eq!(answer.status, 200);
            assert!(answer.text().contains("2026-10-21-preview"), "no secret: {}", answer.text());
            assert!(answer.text().contains("***") && answer.text().contains("eu-central-1"), "{}", answer.text());
            assert_eq!((answer.header("x-echo"), answer.header("x-pointsman-upstream-request-id")), ("", ""));
        }
        let answers = format!("{:?} {}", answer.headers, answer.text());
        assert_untold(&told_everywhere(&mut proxy, &answers).await);
    }
}

#[tokio::test]
async fn a_secret_in_a_stream_is_masked_in_events_and_comments_however_it_is_cut() {
    let (first, second) = KEY.split_at(7);
    let delta = |text: &str| value!({"choices": [{"index": 0, "delta": {"content": text}}]}).to_string();
    let up = upstream().reply(
        sse([delta(&format!("the key {KEY} is"))])
            .and_bytes(format!(": {AZURE}\n\ndata: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{first}"))
            .and_bytes(format!("{second}\"}}}}]}}\n\n"))
            .and_bytes(
                "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
            ),
    );
    let up = up.start().await;
    let mut proxy = proxy!()
        .backend(secretive(&up))
        .env("TEAM", REFERRED)
        .env("PASS", REFERRED_IN_QUERY)
        .set("journal.bodies", true)
        .start()
        .await;
    let text = proxy.chat_stream().send().await.text();
    assert!(text.contains("the key ***") && text.contains("[DONE]"), "{text}");
    assert_untold(&told_everywhere(&mut proxy, &text).await);
}

#[tokio::test]
async fn a_body_that_is_not_read_keeps_its_length_and_tells_no_secret() {
    let (first, second) = KEY.split_at(5);
    let up = upstream().reply(bytes("audio/mpeg", format!("noise {first}")).and_bytes(format!("{second} noise s")));
    let up = up.start().await;
    let proxy = proxy!().backend(secretive(&up)).env("TEAM", REFERRED).env("PASS", REFERRED_IN_QUERY).start().await;
    let answer = proxy.post("/v1/audio/speech").json(&value!({"model": "m", "input": "x"})).send().await;
    assert_eq!(answer.text(), format!("noise {} noise s", "*".repeat(KEY.len())));
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
}

#[tokio::test]
async fn what_cannot_be_a_secret_damages_no_text() {
    for key in ["x", "none", "EMPTY", "ollama", "not-needed"] {
        let text = format!("the word {key} stays, x and none too");
        let up = upstream().reply(chat(&text)).start().await;
        let proxy = proxy!().backend(backend("p1").primary(&up).set("api_key", key)).start().await;
        assert_eq!(proxy.chat().send().await.says(), text, "{key}");
        assert_eq!(up.only().header("authorization"), Some(&*format!("Bearer {key}")));
    }
}

#[tokio::test]
async fn a_refusal_is_judged_by_its_own_words_whatever_the_key_is() {
    let says = value!({"error": {"message": "quota-exceeded1 reached", "code": "insufficient_quota"}});
    let up = upstream().reply(json(says).with_status(429)).start().await;
    let proxy = proxy!()
        .backend(backend("p1").primary(&up).set("api_key", "insufficient_quota"))
        .set("limits.max_attempts", 1)
        .start()
        .await;
    proxy.chat().send().await;
    let rows = proxy.wait_rows(1, "SELECT outcome FROM attempts").await;
    assert_eq!(rows[0]["outcome"], "out_of_credit");
}

fn compressed(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, text.as_ref()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_compressed_answer_that_tells_a_secret_goes_out_without_it_or_ends_before_it() {
    let body = |text: &str| {
        value!({"object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": text}}]})
        .to_string()
    };
    let event =
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{AZURE}\"}}}}]}}\n\ndata: [DONE]\n\n");
    // What is read goes out plain, and without the secret.
    for (kind, told) in [("application/json", body(AZURE)), ("text/event-stream", event)] {
        let reply = bytes(kind, compressed(&told)).header("content-encoding", "gzip");
        let up = upstream().reply(reply).start().await;
        let proxy = proxy!().backend(secretive(&up)).env("TEAM", REFERRED).env("PASS", REFERRED_IN_QUERY).start().await;
        let request = if kind == "text/event-stream" { proxy.chat_stream() } else { proxy.chat() };
        let answer = request.header("accept-encoding", "gzip").send().await;
        assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, ""), "{kind}");
        assert!(!answer.text().contains(AZURE) && answer.text().contains("***"), "{kind}: {}", answer.text());
    }
    // What passes unread ends before it.
    let judgement = value!({"results": [{"categories": {(AZURE): true}}]}).to_string();
    for (encoding, path, sent) in [
        ("gzip, gzip", "/v1/chat/completions", compressed(compressed(body(AZURE)))),
        ("gzip", "/v1/moderations", compressed(judgement)),
    ] {
        let reply = bytes("application/json", sent.clone()).header("content-encoding", encoding);
        let up = upstream().reply(reply).start().await;
        let proxy = proxy!().backend(secretive(&up)).env("TEAM", REFERRED).env("PASS", REFERRED_IN_QUERY).start().await;
        let mut client = pointsman_tests::RawConnection::open(proxy.addr()).await;
        let question = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept-encoding: gzip\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{question}",
            question.len()
        );
        let answer = client.write(request.as_bytes()).await.read_to_end().await;
        assert!(!answer.windows(12).any(|window| sent.windows(12).skip(12).any(|part| part == window)), "{path}");
        let attempt = proxy.wait_rows(1, "SELECT outcome, message FROM attempts").await.remove(0);
        assert!(attempt["message"].as_str().unwrap().contains("repeats a secret"), "{path}: {attempt}");
    }
    // What tells none passes as it came.
    let up = upstream().reply(bytes("application/json", compressed(body("fine"))).header("content-encoding", "gzip"));
    let up = up.start().await;
    let proxy = proxy!().backend(secretive(&up)).env("TEAM", REFERRED).env("PASS", REFERRED_IN_QUERY).start().await;
    let answer = proxy.chat().header("accept-encoding", "gzip").send().await;
    assert_eq!((answer.header("content-encoding"), &answer.body[..]), ("gzip", &compressed(body("fine"))[..]));
}
