//! Paths and operations: where a request goes by its path, what is answered here, and links that lead back.

use http::Method;
use pointsman_tests::{
    Backend, Proxy, RawConnection, Upstream, backend, bytes, chat, echo, json, proxy, status, upstream,
};
use serde_json::json as value;

async fn echoing() -> Upstream {
    upstream().handler(|seen, _| echo(seen)).start().await
}

fn under(up: &Upstream, base: &str) -> Backend {
    backend("p1").set("base_url", format!("http://{}{base}", up.addr()))
}

fn body() -> serde_json::Value {
    value!({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
}

#[tokio::test]
async fn the_base_url_is_the_root_of_the_api_in_every_spelling() {
    let spellings = ["/v1/chat/completions", "//v1/chat/completions", "/v1/v1/chat/completions", "/chat/completions"];
    for (base, root) in [
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("", "/v1"),
        ("/api/paas/v4", "/api/paas/v4"),
        ("/api/v3", "/api/v3"),
        ("/v1beta/openai/", "/v1beta/openai"),
        ("/openai/deployments/gpt-4o", "/openai/deployments/gpt-4o"),
    ] {
        let up = upstream().start().await;
        let proxy = proxy!().backend(under(&up, base)).start().await;
        for asked in spellings.into_iter().chain(["/v1/chat/completions/", "/v1//chat/completions"]) {
            let answer = proxy.post(asked).json(&body()).send().await;
            assert_eq!((answer.status.as_u16(), answer.says().as_str()), (200, "hello"), "{asked} under {base:?}");
            assert_eq!(up.seen().pop().unwrap().target, format!("{root}/chat/completions"), "{asked} under {base:?}");
        }
    }
}

#[tokio::test]
async fn a_client_may_be_told_the_root_of_any_provider_and_a_blank_behind_it() {
    for (base, root) in [("/v1", "/v1"), ("/v1beta/openai", "/v1beta/openai"), ("/api/paas/v4", "/api/paas/v4")] {
        let up = upstream().start().await;
        let proxy = proxy!().backend(under(&up, base)).start().await;
        for asked in ["/v1beta/openai", "/openai/v1", "/v1/openai", "/openai", "/v1%20", "/v1%0A"] {
            let answer = proxy.post(&format!("{asked}/chat/completions")).json(&body()).send().await;
            assert_eq!(answer.status, 200, "{asked} under {base:?}");
            assert_eq!(up.seen().pop().unwrap().target, format!("{root}/chat/completions"), "{asked} under {base:?}");
        }
    }
}

#[tokio::test]
async fn a_backend_has_a_query_and_a_template_of_its_paths() {
    let up = upstream().start().await;
    let query = toml::Table::from_iter([("api-version".to_owned(), "2024-10-21".into())]);
    let azure = under(&up, "/openai").set("path_template", "/deployments/{model}/{path}").set("query", query.clone());
    let proxy = proxy!().backend(azure.model("gpt", "my-gpt 4")).start().await;
    let request = proxy.post("/v1/chat/completions?api-version=1&x=2").json(&value!({"model": "gpt", "messages": []}));
    assert_eq!(request.send().await.status, 200);
    let seen = up.seen().pop().unwrap();
    assert_eq!(seen.target, "/openai/deployments/my-gpt%204/chat/completions?x=2&api-version=2024-10-21");
    assert_eq!((seen.header("api-key"), seen.header("authorization")), (Some("key-of-p1"), Some("Bearer key-of-p1")));
    proxy.get("/v1/files?limit=2").send().await;
    assert_eq!(up.seen().pop().unwrap().target, "/openai/files?limit=2&api-version=2024-10-21");

    let deployment = under(&up, "/openai/deployments/gpt-4o").set("query", "api-version=2024-10-21");
    let proxy = proxy!().backend(deployment).start().await;
    proxy.chat().send().await;
    assert_eq!(up.seen().pop().unwrap().target, "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21");
}

#[tokio::test]
async fn a_clients_key_in_the_query_does_not_leave() {
    let up = echoing().await;
    let proxy = proxy!().backend(under(&up, "/v1")).client("one", "pm-secret").start().await;
    for (asked, sent) in [
        ("/v1/files?key=pm-secret", "/v1/files"),
        ("/v1/files?limit=2&api_key=pm-secret&after=f", "/v1/files?limit=2&after=f"),
        ("/v1/files?whatever=pm-secret", "/v1/files"),
        ("/v1/something-new?access_token=other&page_token=3", "/v1/something-new?page_token=3"),
    ] {
        let answer = proxy.get(asked).bearer("pm-secret").send().await;
        assert_eq!(answer.json()["target"], sent, "{asked}");
    }
}

#[tokio::test]
async fn an_operation_goes_to_a_backend_of_the_dialect_that_has_it() {
    let (claude, gpt) = (echoing().await, echoing().await);
    let proxy = proxy!()
        .backend(backend("claude").primary(&claude).set("dialect", "anthropic"))
        .backend(backend("gpt").primary(&gpt).rpm(1_000));
    let proxy = proxy.start().await;
    for path in [
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/files",
        "/v1/moderations",
        "/v1/batches",
        "/v1/fine_tuning/jobs",
        "/v1/threads/t/messages",
        "/v1/rerank",
        "/v1/something-new",
    ] {
        for _ in 0..4 {
            let answer = proxy.post(path).json(&value!({"input": "x"})).send().await;
            assert_eq!(answer.header("x-pointsman-backend"), "gpt", "{path}: {}", answer.text());
        }
    }
    for path in ["/v1/messages/count_tokens", "/v1/messages/batches", "/v1/files", "/v1/something-new"] {
        for _ in 0..4 {
            let request = proxy.post(path).json(&value!({"x": 1})).header("anthropic-version", "2023-06-01");
            let answer = request.send().await;
            assert_eq!(answer.header("x-pointsman-backend"), "claude", "{path}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn an_operation_that_nobody_has_is_refused_here_by_name() {
    let claude = upstream().start().await;
    let proxy = proxy!().backend(backend("claude").primary(&claude).set("dialect", "anthropic")).start().await;
    let answer = proxy.post("/v1/images/generations").json(&value!({"prompt": "x"})).send().await;
    assert_eq!(answer.status, 404);
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("No backend takes image requests: claude has the anthropic dialect"), "{message}");
    assert_eq!(claude.count(), 0);
    // What no dialect knows may be an addition of this provider.
    assert_eq!(proxy.post("/v1/something-new").json(&value!({"x": 1})).send().await.status, 200);
    assert_eq!(claude.only().target, "/v1/something-new");
}

#[tokio::test]
async fn tokens_are_counted_by_a_backend_that_can_and_else_estimated() {
    let text = "a question of about twelve tokens, as it is";
    let body = value!({"model": "m", "messages": [{"role": "user", "content": text}]});
    let count = async |proxy: &Proxy| proxy.post("/v1/messages/count_tokens").json(&body).send().await;

    let (claude, gpt) = (upstream().reply(json(value!({"input_tokens": 17}))).start().await, upstream().start().await);
    let both = [backend("gpt").primary(&gpt), backend("claude").primary(&claude).set("dialect", "anthropic")];
    let proxy = both.into_iter().fold(proxy!(), |proxy, backend| proxy.backend(backend)).start().await;
    let counted = count(&proxy).await;
    assert_eq!((counted.json(), counted.header("x-pointsman-estimated")), (value!({"input_tokens": 17}), ""));
    assert_eq!((gpt.count(), claude.only().target.as_str()), (0, "/v1/messages/count_tokens"));

    let proxy = proxy!().backend(backend("gpt").primary(&gpt)).start().await;
    let estimated = count(&proxy).await;
    assert_eq!((estimated.status.as_u16(), estimated.header("x-pointsman-estimated")), (200, "true"));
    let tokens = estimated.json()["input_tokens"].as_u64().unwrap();
    assert!((5..60).contains(&tokens), "{tokens}");
    assert_eq!(gpt.count(), 0);
    let rows = proxy.wait_rows(1, "SELECT end, status, notes FROM exchanges").await;
    assert_eq!((&rows[0]["end"], &rows[0]["status"]), (&"delivered".into(), &200.into()), "{rows:?}");
    assert!(rows[0]["notes"].to_string().contains("estimate"), "{rows:?}");

    for missing in [404, 405, 501] {
        let without = upstream().reply(status(missing)).start().await;
        let proxy = proxy!().backend(backend("c").primary(&without).set("dialect", "anthropic"));
        let proxy = proxy.setting("primary_wait_ms", 0).start().await;
        let estimated = count(&proxy).await;
        assert_eq!((estimated.status.as_u16(), estimated.header("x-pointsman-estimated")), (200, "true"), "{missing}");
    }
    let wrong = upstream().reply(status(400)).start().await;
    let proxy = proxy!().backend(backend("c").primary(&wrong).set("dialect", "anthropic")).start().await;
    assert_eq!(count(&proxy).await.status, 400, "a request that is wrong is told so");

    let claude_only = proxy!().backend(backend("c").primary(&claude).set("dialect", "anthropic")).start().await;
    let answer =
        claude_only.post("/v1/responses/input_tokens").json(&value!({"model": "m", "input": text})).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-pointsman-estimated")), (200, "true"));
    assert_eq!(answer.json()["object"], "response.input_tokens");
}

#[tokio::test]
async fn what_is_no_api_call_is_answered_here_and_spends_no_limit() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).client("one", "pm-secret").start().await;
    for path in ["/", "/health", "/healthz", "/v1", "/v1/", "/ping", "/v1/health", "/v1/ping"] {
        for method in [Method::GET, Method::HEAD] {
            let answer = proxy.request(method, path).send().await;
            assert_eq!(answer.status, 200, "{path}");
        }
        assert!(proxy.get(path).send().await.text().contains("Pointsman"));
    }
    let scanned = ["/v1/wp-login.php", "/v1/favicon.ico", "/v1/swagger.json", "/v2/_catalog", "/v1/actuator/health"];
    let pages = ["/favicon.ico", "/robots.txt", "/.env", "/v1/.env", "/wp-login.php", "/api/v1/pods", "/admin"];
    for path in pages.into_iter().chain(scanned) {
        let answer = proxy.get(path).bearer("pm-secret").send().await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["error"]["code"], "not_found", "{path}");
        assert_eq!(proxy.get(path).send().await.status, 401, "without a key nothing more is said");
    }
    let posted = proxy.post("/").bearer("pm-secret").json(&body()).send().await;
    assert_eq!((posted.status.as_u16(), posted.header("x-should-retry")), (404, "false"));
    let told = proxy.get("/x").bearer("pm-secret").header("anthropic-version", "2023-06-01").send().await;
    assert_eq!(told.json()["type"], "error", "in the client's dialect");
    assert_eq!(up.count(), 0);
    let rows = proxy.wait_rows(8, "SELECT denied FROM exchanges WHERE denied = 'no_such_path'").await;
    assert!(rows.len() >= 8);
}

#[tokio::test]
async fn a_plain_backend_has_every_path_that_is_no_operation() {
    let (plain, gpt) = (echoing().await, echoing().await);
    let proxy = proxy!()
        .backend(backend("gpt").primary(&gpt))
        .backend(backend("plain").set("base_url", format!("http://{}", plain.addr())).set("dialect", "plain"));
    let proxy = proxy.start().await;
    for path in ["/", "/health", "/favicon.ico", "/any//path/?key=name", "/api/v1/pods"] {
        let answer = proxy.get(path).send().await;
        assert_eq!((answer.header("x-pointsman-backend"), &answer.json()["target"]), ("plain", &path.into()), "{path}");
    }
    assert_eq!(gpt.count(), 0);
}

#[tokio::test]
async fn options_are_answered_here_and_pages_of_allowed_origins_may_read() {
    let up = upstream().reply(chat("hi").header("access-control-allow-origin", "*")).start().await;
    let origins = toml::Value::from(vec!["https://app.example", "http://localhost:*"]);
    let proxy = proxy!().backend(backend("p1").primary(&up)).client("one", "pm-secret");
    let proxy = proxy.set("server.allowed_origins", origins).start().await;
    let ask = |origin: &str| {
        let request = proxy.request(Method::OPTIONS, "/v1/chat/completions").header("origin", origin);
        request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization")
    };
    let allowed = ask("http://localhost:3000").send().await;
    assert_eq!(
        (allowed.status.as_u16(), allowed.header("access-control-allow-origin")),
        (204, "http://localhost:3000")
    );
    assert_eq!(allowed.header("access-control-allow-headers"), "authorization");
    assert!(allowed.header("access-control-allow-methods").contains("POST"));
    let foreign = ask("https://evil.example").send().await;
    assert_eq!((foreign.status.as_u16(), foreign.header("access-control-allow-origin")), (204, ""));

    let chat = |origin: &str| proxy.chat().bearer("pm-secret").header("origin", origin);
    let answer = chat("https://app.example").send().await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (200, "https://app.example"));
    assert_eq!(chat("https://evil.example").send().await.header("access-control-allow-origin"), "");
    let refused = proxy.chat().header("origin", "https://app.example").send().await;
    assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (401, "https://app.example"));

    let closed = proxy!().backend(backend("p1").primary(&up)).start().await;
    let answer = closed.request(Method::OPTIONS, "/v1/models").header("origin", "https://app.example").send().await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (204, ""));
    assert!(answer.header("allow").contains("POST"));
    let answer = closed.chat().send().await;
    assert_eq!(answer.header("access-control-allow-origin"), "", "the provider's word on it stays here");
    let answer = closed.chat().header("origin", "https://app.example").send().await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (403, ""));
    assert_eq!(up.count(), 3);
}

#[tokio::test]
async fn an_upgrade_is_refused_by_name_and_an_offer_that_may_be_ignored_is_ignored() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let head = "GET /v1/responses HTTP/1.1\r\nHost: pm\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let mut raw = RawConnection::open(proxy.addr()).await;
    let answer = raw.write(head.as_bytes()).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    assert!(answer.contains("websocket") && answer.contains("x-should-retry: false"), "{answer}");
    assert_eq!(up.count(), 0);

    let body = body().to_string();
    let offer = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: pm\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut raw = RawConnection::open(proxy.addr()).await;
    let answer = raw.write(offer.as_bytes()).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(up.only().header("upgrade"), None);
}

#[tokio::test]
async fn a_link_in_a_compressed_answer_leads_back_too() {
    use std::io::Write as _;
    let up = upstream().handler(|seen, _| {
        let link = format!("http://{}/v1/messages/batches/b/results", seen.header("host").unwrap());
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(value!({"id": "b", "results_url": link}).to_string().as_bytes()).unwrap();
        bytes("application/json", packed.finish().unwrap()).header("content-encoding", "gzip")
    });
    let up = up.start().await;
    let claude = backend("claude").set("base_url", format!("http://{}", up.addr())).set("dialect", "anthropic");
    let proxy = proxy!().backend(claude).start().await;
    let batch = proxy.get("/v1/messages/batches/b").header("accept-encoding", "gzip, deflate").send().await;
    assert_eq!(batch.json()["results_url"], format!("http://{}/v1/messages/batches/b/results", proxy.addr()));
}

#[tokio::test]
async fn links_that_lead_to_the_provider_lead_back_through_the_proxy() {
    let up = upstream().handler(|seen, _| {
        let here = format!("http://{}", seen.header("host").unwrap());
        match seen.target.as_str() {
            "/v1/messages/batches/b" => json(value!({
                "id": "b", "results_url": format!("{here}/v1/messages/batches/b/results"), "text": format!("see {here}/v1"),
            })),
            "/v1/messages/batches/b/results" => bytes("application/json", format!("{{\"u\":\"{here}/v1/x\"}}\n")),
            "/v1/messages/batches/canonical" => {
                json(value!({"results_url": "https://api.anthropic.com/v1/messages/batches/canonical/results"}))
            }
            _ => json(value!({"next": format!("{here}/v1/files?page=2"), "image": "https://cdn.example/i.png"}))
                .with_status(201)
                .header("location", format!("{here}/v1/files/f"))
                .header("link", format!("<{here}/v1/files?page=2>; rel=\"next\"")),
        }
    });
    let up = up.start().await;
    let base = format!("http://{}", up.addr());
    let claude = backend("claude").set("base_url", base.clone()).set("dialect", "anthropic");
    let proxy = proxy!().backend(claude).start().await;
    let batch = proxy.get("/v1/messages/batches/b").send().await.json();
    let here = format!("http://{}", proxy.addr());
    assert_eq!(batch["results_url"], format!("{here}/v1/messages/batches/b/results"));
    assert_eq!(batch["text"], format!("see {base}/v1"), "text is no link");
    let results = proxy.get("/v1/messages/batches/b/results").send().await;
    assert_eq!(results.json()["u"], format!("{base}/v1/x"), "content is the client's own");
    let canonical = proxy.get("/v1/messages/batches/canonical").send().await.json();
    assert_eq!(canonical["results_url"], format!("{here}/v1/messages/batches/canonical/results"));

    let proxy = proxy!().backend(backend("gpt").primary(&up)).start().await;
    let here = format!("http://{}", proxy.addr());
    let listed = proxy.get("/v1/files").send().await;
    assert_eq!((listed.status.as_u16(), listed.header("location")), (201, format!("{here}/v1/files/f").as_str()));
    assert_eq!(listed.header("link"), format!("<{here}/v1/files?page=2>; rel=\"next\""));
    assert_eq!(
        listed.json(),
        value!({"next": format!("{here}/v1/files?page=2"), "image": "https://cdn.example/i.png"})
    );
}
