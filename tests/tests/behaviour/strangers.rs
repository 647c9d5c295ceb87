//! Requests that web pages of other sites make a browser send: none reaches a provider where no client key is required.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use pointsman_tests::{Answer, Proxy, RawConnection, Upstream, backend, chat, proxy, soon, upstream};
use serde_json::{Value, json};

const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

async fn answering() -> Upstream {
    upstream().reply(chat("hello")).start().await
}

/// Sends a request with this target and these headers, byte for byte, and returns the whole answer.
async fn sent(proxy: &Proxy, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    let body = if method == "POST" { BODY } else { "" };
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request =
        format!("{method} {target} HTTP/1.1\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
    RawConnection::open(proxy.addr()).await.write(request.as_bytes()).await.answer().await
}

async fn status(proxy: &Proxy, method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
    let answer = sent(proxy, method, target, headers).await;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

/// The status of a chat over HTTP/2 to this authority with these headers.
async fn over_http2(proxy: &Proxy, authority: &str, headers: &[(&str, &str)]) -> StatusCode {
    let tcp = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
    let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::post(format!("http://{authority}/v1/chat/completions"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut sender = sender.ready().await.unwrap();
    let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(BODY.as_bytes()), true).unwrap();
    let status = soon("an answer over HTTP/2", answer).await.unwrap().status();
    connection.abort();
    status
}

fn error(answer: &Answer) -> Value {
    answer.json()["error"].clone()
}

#[tokio::test]
async fn a_page_of_another_site_spends_nothing() {
    let up = answering().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let own = proxy.addr().to_string();
    for page in [
        // A form or a fetch without CORS: simple requests, which a browser sends without asking first.
        &[("origin", "https://evil.example"), ("content-type", "text/plain")][..],
        &[("origin", "null"), ("content-type", "application/x-www-form-urlencoded")],
        &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
        &[("sec-fetch-site", "same-site"), ("origin", "http://localhost:3000")],
        &[("origin", "http://127.0.0.1:1")],
        &[("origin", "file://")],
        &[("referer", "https://evil.example/"), ("user-agent", "Mozilla/5.0")],
        &[("origin", "https://evil.example"), ("authorization", "Bearer anything")],
    ] {
        let headers = [&[("host", own.as_str())], page].concat();
        for (method, target) in [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/files")] {
            assert_eq!(status(&proxy, method, target, &headers).await, 403, "{method} {target} {page:?}");
        }
        assert_eq!(over_http2(&proxy, &own, page).await, 403, "{page:?}");
    }
    let socket = [
        ("host", own.as_str()),
        ("origin", "https://evil.example"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
    ];
    assert_eq!(status(&proxy, "GET", "/v1/realtime", &socket).await, 403);
    assert_eq!(up.count(), 0, "nothing reached the provider");
}

#[tokio::test]
async fn a_name_that_a_site_points_here_is_not_answered() {
    let up = answering().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let port = proxy.addr().port();
    let own = format!("127.0.0.1:{port}");
    for foreign in ["evil.example".to_owned(), format!("evil.example:{port}"), format!("127.0.0.1.nip.io:{port}")] {
        let origin = format!("http://{foreign}");
        for more in [&[][..], &[("sec-fetch-site", "same-origin")], &[("origin", origin.as_str())]] {
            let headers = [&[("host", foreign.as_str())], more].concat();
            for (method, target) in [("POST", "/v1/chat/completions"), ("GET", "/v1/models")] {
                assert_eq!(status(&proxy, method, target, &headers).await, 403, "{method} {headers:?}");
            }
            assert_eq!(over_http2(&proxy, &foreign, more).await, 403);
        }
        let absolute = format!("http://{foreign}/v1/models");
        assert_eq!(status(&proxy, "GET", &absolute, &[("host", &own)]).await, 403);
        let ours = format!("http://{own}/v1/models");
        assert_eq!(status(&proxy, "GET", &ours, &[("host", &foreign)]).await, 403);
        assert_eq!(over_http2(&proxy, &own, &[("host", &foreign)]).await, 403);
        assert_eq!(status(&proxy, "GET", "/v1/models", &[("host", &own), ("host", &foreign)]).await, 403);
    }
    assert_eq!(status(&proxy, "GET", "/v1/models", &[("host", &own), ("host", &own)]).await, 400, "one name is enough");
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn programs_and_the_operators_own_browser_are_served() {
    let up = answering().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let port = proxy.addr().port();
    let mut served = 0;
    let own = format!("127.0.0.1:{port}");
    for name in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "[::1]",
        "api.localhost",
        "host.docker.internal",
        "pointsman",
    ] {
        let host = format!("{name}:{port}");
        assert_eq!(status(&proxy, "POST", "/v1/chat/completions", &[("host", &host)]).await, 200, "{host}");
        assert_eq!(over_http2(&proxy, &host, &[]).await, 200, "{host}");
        served += 2;
    }
    for program in [
        // The fetch of Node, a program that names its site for attribution, and an address that was typed.
        &[("sec-fetch-mode", "cors"), ("user-agent", "node")][..],
        &[("referer", "https://app.example/"), ("http-referer", "https://app.example/")],
        &[("sec-fetch-site", "none"), ("user-agent", "Mozilla/5.0")],
        &[("sec-fetch-site", "none"), ("origin", "chrome-extension://abcdefgh")],
    ] {
        let headers = [&[("host", own.as_str())], program].concat();
        assert_eq!(status(&proxy, "POST", "/v1/chat/completions", &headers).await, 200, "{program:?}");
        served += 1;
    }
    let absolute = format!("http://{own}/v1/chat/completions");
    assert_eq!(status(&proxy, "POST", &absolute, &[("host", &own)]).await, 200);
    assert_eq!(up.count(), served + 1);
    let old = b"GET /v1/models HTTP/1.0\r\n\r\n";
    let answer = RawConnection::open(proxy.addr()).await.write(old).await.answer().await;
    assert!(answer.contains(" 200 "), "{answer}");
    assert_eq!(status(&proxy, "GET", "/health", &[("host", "lb.example")]).await, 200, "a probe learns nothing");
}

#[tokio::test]
async fn pages_of_allowed_origins_and_their_names_are_served() {
    let up = answering().await;
    let origins = toml::Value::from(vec!["https://app.example", "http://localhost:*"]);
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.allowed_origins", origins).start().await;
    for origin in ["https://app.example", "http://localhost:3000"] {
        let page = proxy.chat().header("origin", origin).header("sec-fetch-site", "cross-site").send().await;
        assert_eq!((page.status.as_u16(), page.header("access-control-allow-origin")), (200, origin));
        let asked = proxy.request(Method::OPTIONS, "/v1/chat/completions").header("origin", origin);
        let asked = asked.header("access-control-request-method", "POST").send().await;
        assert_eq!((asked.status.as_u16(), asked.header("access-control-allow-origin")), (204, origin));
        let listed =
            proxy.get("/v1/models").header("origin", origin).header("sec-fetch-site", "same-site").send().await;
        assert_eq!(listed.status, 200);
    }
    assert_eq!(status(&proxy, "POST", "/v1/chat/completions", &[("host", "app.example")]).await, 200, "behind a proxy");
    let foreign = proxy.chat().header("origin", "https://evil.example").send().await;
    assert_eq!((foreign.status.as_u16(), foreign.header("access-control-allow-origin")), (403, ""));
    let beside = [("host", "localhost"), ("origin", "https://app.example"), ("origin", "https://evil.example")];
    assert_eq!(status(&proxy, "POST", "/v1/chat/completions", &beside).await, 403);
    assert_eq!(up.seen().iter().filter(|seen| seen.target == "/v1/chat/completions").count(), 3);
}

#[tokio::test]
async fn an_open_listener_has_any_name_and_refuses_pages_all_the_same() {
    let up = answering().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.listen", "0.0.0.0:0");
    let proxy = proxy.set("server.allow_open", true).start().await;
    let chats = async |headers: &[(&str, &str)]| status(&proxy, "POST", "/v1/chat/completions", headers).await;
    for host in [
        "host.docker.internal:8080",
        "pointsman",
        "pointsman.default.svc.cluster.local",
        "llm.corp.example",
        "10.0.0.7",
    ] {
        assert_eq!(chats(&[("host", host)]).await, 200, "{host}");
        assert_eq!(chats(&[("host", host), ("origin", "https://evil.example")]).await, 403, "{host}");
        assert_eq!(chats(&[("host", host), ("sec-fetch-site", "cross-site")]).await, 403, "{host}");
    }
    assert_eq!(
        chats(&[("host", "app.example"), ("origin", "https://app.example")]).await,
        200,
        "its own page, over TLS"
    );
    assert_eq!(chats(&[("host", "evil.example:8080"), ("origin", "http://evil.example:8080")]).await, 403, "rebinding");
    assert_eq!(up.count(), 6);
    // A page on its own rebound name that has no Referer sent: over plain HTTP a browser tells nothing of it.
    let mozilla = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
    for host in ["evil.example:8080", "127.0.0.1.nip.io:8080", "pointsman.evil.example"] {
        for target in ["/v1/files", "/v1/models", "/v1/responses/resp_1"] {
            assert_eq!(status(&proxy, "GET", target, &[("host", host), mozilla]).await, 403, "{host} {target}");
        }
        assert_eq!(over_http2(&proxy, host, &[mozilla]).await, 403, "{host}");
    }
    assert_eq!(up.count(), 6, "nothing was read for it");
    for agent in
        ["OpenAI/Python 2.1.0", "curl/8.5.0", "claude-cli/2.0", "node", "python-requests/2.32", "Go-http-client/1.1"]
    {
        assert_eq!(chats(&[("host", "llm.corp.example"), ("user-agent", agent)]).await, 200, "{agent}");
    }
    for private in ["nas:8080", "nas.local:8080", "10.0.0.7:8080", "localhost:8080", "host.docker.internal"] {
        assert_eq!(chats(&[("host", private), mozilla]).await, 200, "{private}");
    }
    assert_eq!(chats(&[("host", "app.example"), mozilla, ("sec-fetch-site", "same-origin")]).await, 200, "behind TLS");
    assert_eq!(up.count(), 18);
}

#[tokio::test]
async fn a_client_key_is_what_lets_in_where_there_is_one() {
    let up = answering().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).client("one", "pm-secret").start().await;
    let known = proxy.chat().bearer("pm-secret").header("origin", "https://evil.example").header("host", "any.example");
    assert_eq!(known.send().await.status, 200);
    assert_eq!(proxy.chat().header("origin", "https://evil.example").send().await.status, 401);
    assert_eq!(up.count(), 1);
}

#[tokio::test]
async fn a_refusal_says_who_is_to_blame_and_which_setting_helps() {
    let up = answering().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    let page = proxy.chat().header("origin", "https://evil.example").send().await;
    let told = error(&page);
    assert_eq!((page.status.as_u16(), page.header("x-should-retry")), (403, "false"));
    assert_eq!((&told["type"], &told["code"]), (&json!("invalid_request_error"), &json!("forbidden")));
    let message = told["message"].as_str().unwrap();
    for words in ["A web page of \"https://evil.example\"", "[server] allowed_origins", "[[client]]"] {
        assert!(message.contains(words), "{message}");
    }
    let rebound = proxy.chat().header("host", "evil.example").send().await;
    let message = error(&rebound)["message"].as_str().unwrap().to_owned();
    for words in
        ["\"evil.example\"", "localhost or an IP address", "\"http://evil.example\" to [server] allowed_origins"]
    {
        assert!(message.contains(words), "{message}");
    }
    for (host, setting) in [
        ("LLM.Example.:8080", "add \"http://llm.example:8080\" to [server]"),
        ("me@evil.example", "add its origin to [server]"),
        ("*.example", "add its origin to [server]"),
    ] {
        let answer = sent(&proxy, "GET", "/v1/models", &[("host", host)]).await;
        assert!(answer.contains(" 403 ") && answer.replace("\\\"", "\"").contains(setting), "{host}: {answer}");
    }
    let claude = proxy.post("/v1/messages").header("origin", "null").header("anthropic-version", "2023-06-01");
    let claude = claude.json(&json!({"model": "m"})).send().await;
    assert_eq!((claude.status.as_u16(), &error(&claude)["type"]), (403, &json!("permission_error")));
    let rows = proxy.wait_rows(6, "SELECT denied FROM exchanges ORDER BY started, id").await;
    let reasons: Vec<&str> = rows.iter().filter_map(|row| row["denied"].as_str()).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == "foreign_page").count(), 2);
    assert_eq!(reasons.iter().filter(|reason| **reason == "foreign_host").count(), 4);
    assert_eq!(proxy.metric(r#"pointsman_denied_total{reason="foreign_page"} "#).await, 2.0);
    assert_eq!(up.count(), 0);
}
