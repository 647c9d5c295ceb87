//! Request bodies in every wrapping: their model is read and renamed, and what cannot be read goes nowhere by luck.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use pointsman_tests::{Answer, Proxy, Request, Upstream, backend, chat, json as json_reply, proxy, upstream};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::json;

const BODY: &str = r#"{"model":"b","messages":[{"role":"user","content":"hi"}]}"#;

/// Two backends that serve different models under names of their own.
async fn two() -> (Proxy, Upstream, Upstream) {
    let (a, b) = (upstream().reply(chat("from a")).start().await, upstream().reply(chat("from b")).start().await);
    let proxy = proxy!()
        .backend(backend("a").primary(&a).model("a", "x/a"))
        .backend(backend("b").primary(&b).model("b", "x/b"))
        .start()
        .await;
    (proxy, a, b)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// An uncompressed block of brotli (RFC 7932 section 9.2) and its end.
fn brotli(body: &[u8]) -> Vec<u8> {
    let header = (body.len() as u32 - 1) << 4 | 1 << 20;
    [&header.to_le_bytes()[..3], body, &[0b11]].concat()
}

fn chat_with(proxy: &Proxy, content_type: &str, body: impl Into<bytes::Bytes>) -> Request {
    proxy.post("/v1/chat/completions").body(content_type, body)
}

/// Backend b got this request once, renamed and as plain JSON; the record has the model's own name.
async fn is_bs(proxy: &Proxy, a: &Upstream, b: &Upstream, answer: Answer, what: &str) {
    assert_eq!((answer.status.as_u16(), &*answer.says()), (200, "from b"), "{what}: {}", answer.text());
    assert_eq!(a.count(), 0, "{what}");
    let seen = b.seen().pop().unwrap();
    assert_eq!(seen.json(), json!({"model": "x/b", "messages": [{"role": "user", "content": "hi"}]}), "{what}");
    assert_eq!(seen.header("content-encoding"), None, "{what}");
    assert_eq!(seen.header("content-type"), Some("application/json"), "{what}");
    let rows = proxy.wait_rows(b.count(), "SELECT model FROM exchanges ORDER BY ended_us DESC").await;
    assert_eq!(rows[0]["model"], "b", "{what}");
}

#[tokio::test]
async fn compressed_requests_are_read_and_renamed() {
    let (proxy, a, b) = two().await;
    let plain = BODY.as_bytes();
    for (encoding, body) in [
        ("gzip", gzip(plain)),
        ("x-gzip", gzip(plain)),
        ("deflate", zlib(plain)),
        ("zstd", compress_to_vec(plain, CompressionLevel::Fastest)),
        ("br", brotli(plain)),
        ("zstd, gzip", gzip(&compress_to_vec(plain, CompressionLevel::Fastest))),
        ("identity", plain.to_vec()),
    ] {
        let request = chat_with(&proxy, "application/json", body).header("content-encoding", encoding);
        is_bs(&proxy, &a, &b, request.send().await, encoding).await;
    }
    is_bs(&proxy, &a, &b, chat_with(&proxy, "application/json", gzip(plain)).send().await, "not said").await;
}

#[tokio::test]
async fn json_under_another_label_or_with_a_mark_is_read() {
    let (proxy, a, b) = two().await;
    for content_type in ["text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"] {
        is_bs(&proxy, &a, &b, chat_with(&proxy, content_type, BODY).send().await, content_type).await;
    }
    let marked = format!("\u{feff}{BODY}");
    is_bs(&proxy, &a, &b, chat_with(&proxy, "application/json", marked.clone()).send().await, "a mark").await;
    let wide: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
    is_bs(&proxy, &a, &b, chat_with(&proxy, "application/json", wide).send().await, "UTF-16").await;
    let packed = chat_with(&proxy, "text/plain", gzip(marked.as_bytes())).header("content-encoding", "gzip");
    is_bs(&proxy, &a, &b, packed.send().await, "all at once").await;
}

#[tokio::test]
async fn a_forms_model_is_read_and_renamed_and_its_file_stays() {
    let (a, b) = (upstream().start().await, upstream().reply(json_reply(json!({"text": "hi"}))).start().await);
    let proxy = proxy!()
        .backend(backend("a").primary(&a).model("a", "x/a"))
        .backend(backend("b").primary(&b).model("whisper", "x/whisper"))
        .start()
        .await;
    let form = |model: &str| {
        let mut body = b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav\r\n\r\n".to_vec();
        body.extend_from_slice(b"\0\xff\r\n--Bx\r\n\"model\"");
        body.extend_from_slice(b"\r\n--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n");
        body.extend_from_slice(model.as_bytes());
        body.extend_from_slice(b"\r\n--B--\r\n");
        body
    };
    let send =
        |body: Vec<u8>| proxy.post("/v1/audio/transcriptions").body("multipart/form-data; boundary=B", body).send();
    let answer = send(form("whisper")).await;
    assert_eq!((answer.status.as_u16(), a.count()), (200, 0), "{}", answer.text());
    let seen = b.only();
    assert_eq!(seen.body, form("x/whisper"));
    assert_eq!(seen.header("content-type"), Some("multipart/form-data; boundary=B"));
    let rows = proxy.wait_rows(1, "SELECT model FROM exchanges").await;
    assert_eq!(rows[0]["model"], "whisper");
    let unknown = send(form("nobody-has-it")).await;
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    let twice = [&form("whisper")[..form("whisper").len() - 7], &form("a")[..]].concat();
    assert_eq!(send(twice).await.status, 400);
    assert_eq!(send(form("whisper")[..60].to_vec()).await.status, 400, "half a form");
    assert_eq!((a.count(), b.count()), (0, 1));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_name_where_models_differ() {
    let (proxy, a, b) = two().await;
    for (body, encoding, status, words) in [
        (&b"{\"model\":\"b\""[..], None, 400, "neither a JSON object nor a form"),
        (b"model=b&prompt=hi", None, 400, "neither a JSON object nor a form"),
        (b"\0\x01\x02", None, 400, "neither a JSON object nor a form"),
        (br#"{"messages":[]}"#, None, 400, "names no model"),
        (br#"{"model":7,"messages":[]}"#, None, 400, "names no model"),
        (BODY.as_bytes(), Some("aws-chunked"), 415, "content-encoding \"aws-chunked\""),
        (b"\x1f\x8b\x08nonsense", Some("gzip"), 400, "not valid gzip"),
    ] {
        let request = chat_with(&proxy, "application/json", body);
        let request = match encoding {
            Some(encoding) => request.header("content-encoding", encoding),
            None => request,
        };
        let refused = request.send().await;
        assert_eq!(refused.status.as_u16(), status, "{}", refused.text());
        let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{message}");
    }
    assert_eq!((a.count(), b.count()), (0, 0));
}

#[tokio::test]
async fn a_model_that_only_the_path_or_a_session_names_is_read_and_renamed() {
    let (proxy, a, b) = two().await;
    let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
    for (path, body) in [
        ("/openai/deployments/b/chat/completions?api-version=1", format!("{{{messages}}}")),
        ("/openai/deployments/b/chat/completions?api-version=1", format!("{{\"model\":null,{messages}}}")),
        ("/v1/engines/b/chat/completions", format!("{{{messages}}}")),
    ] {
        let answer = proxy.post(path).body("application/json", body).send().await;
        is_bs(&proxy, &a, &b, answer, path).await;
    }
    for (path, sent) in [("/v1beta/models/b:generateContent", "x%2Fb"), ("/v1/projects/p/models/b:predict", "x%2Fb")] {
        let answer = proxy.post(path).json(&json!({"contents": []})).send().await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let seen = b.seen().pop().unwrap();
        assert!(seen.target.contains(&format!("/models/{sent}:")), "{}", seen.target);
        assert_eq!(seen.body, r#"{"contents":[]}"#, "another API's body stays as it is");
    }
    let session =
        proxy.post("/v1/realtime/client_secrets").json(&json!({"session": {"type": "realtime", "model": "b"}}));
    assert_eq!(session.send().await.status, 200);
    assert_eq!(b.seen().pop().unwrap().body, r#"{"session":{"model":"x/b","type":"realtime"}}"#);
    assert_eq!(a.count(), 0);
    let form = "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--X--\r\n";
    proxy.post("/openai/deployments/b/audio/transcriptions").body("multipart/form-data; boundary=X", form).send().await;
    let seen = b.seen().pop().unwrap();
    let text = String::from_utf8_lossy(&seen.body);
    assert!(text.contains("name=\"model\"\r\n\r\nx/b\r\n"), "{text}");
}

#[tokio::test]
async fn a_question_without_a_body_goes_nowhere_by_luck() {
    let (proxy, a, b) = two().await;
    let refused = proxy.post("/v1/chat/completions").body("application/json", "").send().await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("names no model"), "{}", refused.text());
    assert_eq!((a.count(), b.count()), (0, 0));
}

#[tokio::test]
async fn what_cannot_be_read_goes_to_a_backend_that_serves_every_model() {
    let (named, open) = (upstream().start().await, upstream().reply(chat("open")).start().await);
    let proxy = proxy!()
        .backend(backend("named").primary(&named).model("a", "x/a"))
        .backend(backend("open").fallback(&open).model("*", "*"))
        .start()
        .await;
    for _ in 0..10 {
        assert_eq!(chat_with(&proxy, "application/json", "{\"model\":").send().await.says(), "open");
    }
    let body = compress_to_vec(BODY.as_bytes(), CompressionLevel::Fastest);
    let kept = chat_with(&proxy, "application/json", body.clone()).header("content-encoding", "compress").send().await;
    assert_eq!(kept.says(), "open");
    let seen = open.seen().pop().unwrap();
    assert_eq!((&seen.body[..], seen.header("content-encoding")), (&body[..], Some("compress")), "as it came");
    assert_eq!((named.count(), open.count()), (0, 11));
}

#[tokio::test]
async fn one_backend_explains_itself_what_is_wrong_with_a_body() {
    let up = upstream().reply(pointsman_tests::status(400)).start().await;
    let proxy = proxy!().backend(backend("only").primary(&up)).start().await;
    let answer = chat_with(&proxy, "application/json", "{\"model\":").send().await;
    assert_eq!((answer.status.as_u16(), &up.only().body[..]), (400, &b"{\"model\":"[..]));
}

#[tokio::test]
async fn a_bomb_is_refused_and_costs_no_memory() {
    let (proxy, a, b) = two().await;
    let before = proxy.resident_kib();
    for body in [gzip(&vec![b' '; 60 << 20]), gzip(&vec![b' '; 300 << 20])] {
        let request = chat_with(&proxy, "application/json", body).header("content-encoding", "gzip");
        let refused = request.send().await;
        assert_eq!(refused.status, 413, "{}", refused.text());
    }
    assert!(proxy.resident_kib() < before + (128 << 10), "{before} -> {} KiB", proxy.resident_kib());
    assert_eq!((a.count(), b.count()), (0, 0));
    assert_eq!(proxy.chat_for("b").send().await.says(), "from b");
}

#[tokio::test]
async fn what_asks_no_model_passes_though_it_cannot_be_decoded() {
    let up = upstream().reply(json_reply(json!({"id": "file-1", "object": "file"}))).start().await;
    let plain = upstream().reply(json_reply(json!({"ok": true}))).start().await;
    // Each alone: a plain backend takes what the other takes too.
    let of_files = proxy!().backend(backend("p").primary(&up)).start().await;
    let of_things = proxy!().backend(backend("any").primary(&plain).set("dialect", "plain")).start().await;
    let cut = &gzip(BODY.as_bytes())[..20];
    let bomb = gzip(&vec![b' '; 60 << 20]);
    let twice = br#"{"model":"a","model":"b"}"#;
    for (path, body, proxy, to) in [
        ("/v1/files", cut, &of_files, &up),
        ("/v1/files", &bomb[..], &of_files, &up),
        ("/api/things", cut, &of_things, &plain),
        ("/api/things", &bomb[..], &of_things, &plain),
        ("/api/things", &gzip(BODY.as_bytes())[..], &of_things, &plain),
        ("/api/things", &twice[..], &of_things, &plain),
    ] {
        let request = proxy.post(path).body("text/plain", body.to_vec()).header("content-encoding", "gzip");
        let answer = request.send().await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let seen = to.seen().pop().unwrap();
        assert_eq!((&seen.body[..], seen.header("content-type")), (body, Some("text/plain")), "{path}");
        assert_eq!(seen.header("content-encoding"), Some("gzip"), "{path}");
    }
}

#[tokio::test]
async fn pictures_and_sound_of_no_model_do_not_go_by_luck() {
    let judgement = || {
        json_reply(
            json!({"id": "m", "model": "m", "results": [{"flagged": false, "categories": {}, "category_scores": {}}]}),
        )
    };
    let (a, b) = (upstream().reply(judgement()).start().await, upstream().reply(judgement()).start().await);
    let proxy = proxy!()
        .backend(backend("a").primary(&a).model("a", "x/a"))
        .backend(backend("b").primary(&b).model("b", "x/b"))
        .start()
        .await;
    for (path, body) in [
        ("/v1/images/generations", json!({"prompt": "a cat"})),
        ("/v1/audio/speech", json!({"input": "hi", "voice": "v"})),
        ("/v1/rerank", json!({"query": "q", "documents": ["a"]})),
    ] {
        let refused = proxy.post(path).json(&body).send().await;
        assert_eq!(refused.status, 400, "{path}: {}", refused.text());
        assert!(refused.text().contains("names no model"), "{path}: {}", refused.text());
    }
    assert_eq!((a.count(), b.count()), (0, 0));
    let judged = proxy.post("/v1/moderations").json(&json!({"input": "hi"})).send().await;
    assert_eq!((judged.status.as_u16(), a.count() + b.count()), (200, 1), "the provider has a model of its own");
}
