//! Requests as the provider receives them, and responses as the client receives them.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use pointsman_tests::{
    RawConnection, Reply, Upstream, backend, bytes, chat, echo, embeddings, proxy, status, tls_upstream, upstream,
};
use serde_json::json;

async fn echoing() -> Upstream {
    upstream().handler(|seen, _| echo(seen)).start().await
}

#[tokio::test]
async fn a_chat_is_answered_and_tells_how() {
    let up = upstream().reply(chat("hello there")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.says(), "hello there");
    assert_eq!(answer.header("x-pointsman-lane"), "primary");
    assert_eq!(answer.header("x-pointsman-backend"), "p1");
    assert_eq!(answer.header("x-pointsman-attempts"), "1");
    assert_eq!(answer.header("x-pointsman-waited-ms"), "0");
    assert!(!answer.header("x-pointsman-policy").is_empty());
    assert!(!answer.header("x-request-id").is_empty());
    assert_eq!(up.only().target, "/v1/chat/completions");
}

#[tokio::test]
async fn the_answers_bytes_status_and_headers_come_through() {
    const BODY: &str = " {\"choices\":[{\"message\":{\"content\":\"hi\"}}], \"a\" : 1e0}\n";
    let reply = bytes("application/json; charset=utf-8", BODY)
        .with_status(201)
        .header("x-ratelimit-remaining-requests", 41)
        .header("openai-processing-ms", 12);
    let up = upstream().reply(reply).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.text(), BODY);
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "41");
    assert_eq!(answer.header("openai-processing-ms"), "12");
}

#[tokio::test]
async fn embeddings_are_answered() {
    let up = upstream().reply(embeddings()).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let answer = proxy.post("/v1/embeddings").json(&json!({"model": "e", "input": ["a", "b"]})).send().await;
    assert_eq!(answer.json()["data"][1]["embedding"][2], 0.6);
    assert_eq!(up.only().target, "/v1/embeddings");
}

#[tokio::test]
async fn models_lists_what_can_be_asked_for_without_asking_a_provider() {
    let up = upstream().start().await;
    let first = backend("p1").primary(&up).model("llama", "meta/llama").model("qwen", "qwen-3");
    let second = backend("p2").primary(&up).model("llama", "llama-3");
    let proxy = proxy!().backend(first).backend(second).start().await;
    let answer = proxy.get("/v1/models").send().await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["object"], "list");
    let ids: Vec<_> = body["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["llama", "qwen"]);
    assert_eq!(body["data"][0]["object"], "model");
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn the_clients_authorization_never_leaves_and_the_backends_key_goes_in() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    proxy.chat().bearer("the-clients-own").header("x-api-key", "the-clients-own").send().await;
    let seen = up.only();
    assert_eq!(seen.header("authorization"), Some("Bearer key-of-p1"));
    assert!(!format!("{:?}", seen.headers).contains("the-clients-own"));
}

#[tokio::test]
async fn an_anthropic_backend_gets_its_key_and_its_version_its_own_way() {
    let up = echoing().await;
    let proxy = proxy!().backend(backend("a1").primary(&up).set("dialect", "anthropic")).start().await;
    let body = json!({"model": "claude", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]});
    let request = proxy.post("/v1/messages").json(&body).bearer("the-clients-own");
    request.header("anthropic-version", "2023-06-01").header("anthropic-beta", "x,y").send().await;
    let seen = up.only();
    assert_eq!(seen.target, "/v1/messages");
    assert_eq!(seen.header("x-api-key"), Some("key-of-a1"));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(seen.header("anthropic-beta"), Some("x,y"));
}

#[tokio::test]
async fn hop_by_hop_headers_and_our_own_stay_here() {
    let reply = chat("hi").header("connection", "x-up-hop").header("x-up-hop", 1).header("keep-alive", "timeout=5");
    let up = upstream().reply(reply.header("x-kept", "yes")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let body = r#"{"model":"m"}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: pointsman.localhost\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=9\r\nTE: trailers\r\nProxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\n\
         X-Pointsman-Session: s\r\nX-Pointsman-Label-Team: t\r\nX-Pointsman-Priority: 3\r\nX-Own: kept\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut raw = RawConnection::open(proxy.addr()).await;
    let answer = raw.write(request.as_bytes()).await.answer().await.to_ascii_lowercase();
    let seen = up.only();
    for gone in ["x-hop", "keep-alive", "te", "proxy-authorization", "proxy-connection"] {
        assert_eq!(seen.header(gone), None, "{gone} was forwarded");
    }
    assert!(seen.headers.iter().all(|(n, _)| !n.starts_with("x-pointsman-")), "{:?}", seen.headers);
    assert_eq!(seen.header("x-own"), Some("kept"));
    assert_eq!(seen.header("host"), Some(up.addr().to_string().as_str()));
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(answer.contains("x-kept: yes"), "{answer}");
    assert!(!answer.contains("x-up-hop"), "{answer}");
    assert!(!answer.contains("timeout=5"), "{answer}");
}

#[tokio::test]
async fn the_version_prefix_is_not_doubled_and_the_query_is_kept() {
    for (base, asked, sent) in [
        ("/v1", "/v1/chat/completions?a=1&b=%20", "/v1/chat/completions?a=1&b=%20"),
        ("/v1/", "/v1/files", "/v1/files"),
        ("", "/v1/files", "/v1/files"),
        ("/openai/v1", "/v1/files", "/openai/v1/files"),
        ("/v1", "/files", "/v1/files"),
        ("/api", "/v1/files", "/api/v1/files"),
        ("/v1", "/v10/files", "/v1/v10/files"),
        ("/v1beta/openai", "/v1/chat/completions?a=1", "/v1beta/openai/chat/completions?a=1"),
        ("/api/paas/v4/", "/v1/files", "/api/paas/v4/files"),
    ] {
        let up = echoing().await;
        let target = backend("p1").set("base_url", format!("http://{}{base}", up.addr()));
        let proxy = proxy!().backend(target).start().await;
        let answer = proxy.get(asked).send().await;
        assert_eq!(answer.json()["target"], sent, "{asked} under {base:?}");
    }
}

#[tokio::test]
async fn a_renamed_model_is_spliced_in_and_every_other_byte_stays() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).model("llama", "meta/llama-3.1")).start().await;
    let around = |name: &str| {
        format!(
            "{{\n\t\"tools\": {{\"model\":\"llama\"}}, \"model\" :  \"{name}\" ,\"t\":1.0e0,\"u\":\"\\u00e9\\ud83d\\ude00\", \"n\": 12345678901234567890 }}  "
        )
    };
    proxy.post("/v1/chat/completions").body("application/json", around("llama")).send().await;
    assert_eq!(String::from_utf8_lossy(&up.only().body), around("meta/llama-3.1"));
}

#[tokio::test]
async fn globs_and_aliases_choose_the_name_that_is_sent() {
    let up = upstream().start().await;
    let target = backend("p1").primary(&up).model("gpt-*", "openai/gpt-*").model("fast", "tiny-1");
    let proxy = proxy!().backend(target).start().await;
    for (asked, sent) in [("gpt-5", "openai/gpt-5"), ("fast", "tiny-1")] {
        assert_eq!(proxy.chat_for(asked).send().await.status, 200);
        assert_eq!(up.seen().last().unwrap().json()["model"], sent);
    }
}

#[tokio::test]
async fn a_model_goes_only_where_it_is_served() {
    let (llama, qwen) = (upstream().reply(chat("llama")).start().await, upstream().reply(chat("qwen")).start().await);
    let proxy = proxy!()
        .backend(backend("p1").primary(&llama).model("llama", "llama"))
        .backend(backend("p2").primary(&qwen).model("qwen", "qwen"));
    let proxy = proxy.start().await;
    for _ in 0..4 {
        assert_eq!(proxy.chat_for("llama").send().await.says(), "llama");
        assert_eq!(proxy.chat_for("qwen").send().await.says(), "qwen");
    }
}

#[tokio::test]
async fn bodies_that_are_not_json_pass_untouched() {
    let up = echoing().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let binary: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let multipart = b"--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--x--\r\n".to_vec();
    for (kind, body) in [("application/octet-stream", binary), ("multipart/form-data; boundary=x", multipart)] {
        proxy.post("/v1/audio/transcriptions").body(kind, body.clone()).send().await;
        let seen = up.seen().pop().unwrap();
        assert_eq!(seen.body, body);
        assert_eq!(seen.header("content-type"), Some(kind));
    }
}

#[tokio::test]
async fn json_that_is_broken_or_strange_is_the_providers_business() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    for body in ["{\"model\": ", "[]", "{\"model\": 5}", "null", "{}", "\"model\"", "{\"model\":\"\\ud800\"}"] {
        proxy.post("/v1/chat/completions").body("application/json", body).send().await;
        assert_eq!(up.seen().pop().unwrap().body, body);
    }
}

#[tokio::test]
async fn any_method_and_path_is_forwarded() {
    let up = echoing().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    for method in [Method::GET, Method::DELETE, Method::PUT, Method::PATCH] {
        let seen = proxy.request(method.clone(), "/v1/files/f-1").send().await.json();
        assert_eq!(seen["method"], method.as_str());
        assert_eq!(seen["body"], "");
    }
}

#[tokio::test]
async fn a_large_body_passes_both_ways() {
    let up = upstream().handler(|seen, _| bytes("application/json", seen.body.clone())).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).model("*", "*")).start().await;
    let body = json!({"messages": [{"role": "user", "content": "x".repeat(8 << 20)}], "model": "m"});
    let answer = proxy.post("/v1/chat/completions").json(&body).send().await;
    assert_eq!(answer.body, body.to_string());
}

#[tokio::test]
async fn a_request_id_comes_back_as_it_was_sent() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let answer = proxy.chat().header("x-request-id", "mine-17").send().await;
    assert_eq!(answer.header("x-request-id"), "mine-17");
    let (a, b) = (proxy.chat().send().await, proxy.chat().send().await);
    assert_ne!(a.header("x-request-id"), b.header("x-request-id"));
}

#[tokio::test]
async fn a_compressed_answer_passes_untouched() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(br#"{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}]}"#).unwrap();
    let packed = encoder.finish().unwrap();
    let up =
        upstream().reply(bytes("application/json", packed.clone()).header("content-encoding", "gzip")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    assert_eq!(answer.body, packed);
}

#[tokio::test]
async fn connections_to_a_provider_are_kept() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    for _ in 0..20 {
        assert_eq!(proxy.chat().send().await.status, 200);
    }
    assert_eq!(up.connections(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_the_provider_closed_is_not_a_failure() {
    let closing = |_: &_, _| -> Reply { chat("hi").header("connection", "close") };
    let up = upstream().handler(closing).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    for _ in 0..5 {
        let answer = proxy.chat().send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-pointsman-attempts")), (200, "1"));
    }
}

#[tokio::test]
async fn a_client_may_speak_http_2() {
    let up = upstream().reply(chat("over h2")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let answer = proxy.over_http2().chat().send().await;
    assert_eq!(answer.version, http::Version::HTTP_2);
    assert_eq!(answer.says(), "over h2");
    assert_eq!(up.only().header("host"), Some(up.addr().to_string().as_str()));
}

#[tokio::test]
async fn a_provider_behind_tls_is_spoken_to_in_the_version_it_offers() {
    for (alpn, version) in [(&["h2", "http/1.1"][..], http::Version::HTTP_2), (&["http/1.1"], http::Version::HTTP_11)] {
        let up = tls_upstream(alpn).await;
        let proxy = proxy!().backend(backend("p1").set("base_url", up.url()));
        let proxy = proxy.env("SSL_CERT_FILE", &up.certificate().display().to_string()).start().await;
        assert_eq!(proxy.chat().send().await.says(), "over TLS");
        assert_eq!(up.versions(), [version]);
    }
}

#[tokio::test]
async fn a_provider_with_an_unknown_certificate_is_not_spoken_to() {
    let (odd, well) = (tls_upstream(&["http/1.1"]).await, upstream().reply(chat("well")).start().await);
    let proxy = proxy!().backend(backend("p1").set("base_url", odd.url())).backend(backend("f1").fallback(&well));
    let proxy = proxy.setting("primary_wait_ms", 0).start().await;
    assert_eq!(proxy.chat().send().await.says(), "well");
    assert!(odd.versions().is_empty());
}

#[tokio::test]
async fn an_answer_with_an_announced_length_is_delivered_and_its_connection_kept() {
    let file = vec![b'x'; 300_000];
    let sent = file.clone();
    let up = upstream().handler(move |_, _| bytes("application/octet-stream", sent.clone())).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    for _ in 0..3 {
        let answer = proxy.get("/v1/files/1/content").send().await;
        assert_eq!((answer.header("content-length"), answer.body.len()), ("300000", file.len()));
    }
    let rows = proxy.wait_rows(3, "SELECT end, status FROM exchanges").await;
    assert!(rows.iter().all(|r| r["end"] == "delivered" && r["status"] == 200), "{rows:?}");
    assert_eq!(up.connections(), 1);
}

#[tokio::test]
async fn head_and_an_answer_without_content_are_delivered() {
    let up = upstream().handler(|seen, _| match seen.method.as_str() {
        "DELETE" => status(204),
        _ => bytes("application/json", "{}"),
    });
    let up = up.start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(proxy.request(Method::DELETE, "/v1/files/1").send().await.status, 204);
    assert_eq!(proxy.request(Method::HEAD, "/v1/files/1").send().await.status, 200);
    let listed = proxy.over_http2().request(Method::HEAD, "/v1/models").send().await;
    assert_eq!(listed.status, 200);
    let rows = proxy.wait_rows(2, "SELECT end FROM exchanges").await;
    assert!(rows.iter().all(|r| r["end"] == "delivered"), "{rows:?}");
}

#[tokio::test]
async fn trace_would_show_the_backends_key_and_is_refused() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(proxy.request(Method::TRACE, "/v1/files").send().await.status, 405);
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn a_key_that_the_upstream_repeats_stays_here() {
    let refusal =
        bytes("text/plain", "your key sk-very-secret is odd").with_status(400).header("x-debug", "sent sk-very-secret");
    let up = upstream().reply(refusal).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).set("api_key", "sk-very-secret")).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(answer.status, 400);
    assert!(!format!("{:?}{}", answer.headers, answer.text()).contains("sk-very-secret"), "{}", answer.text());
}
