use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::Query;
use pointsman_core::contract::Operation;
use pointsman_core::fleet::SavedCooldown;
use pointsman_core::outcome::{Kind, Scope};
use pointsman_core::record::{AttemptRecord, End, ExchangeRecord, Usage};
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use pointsman_store::{Store, StoreLimits, StorePath};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::control::{Parts, assemble};
use crate::telemetry::logs::ExchangeLog;
use pointsman_config as config;
use pointsman_engine::clock::Clock as EngineClock;
use pointsman_engine::{Engine, EngineLimits};

/// 2026-01-15T10:30:00Z
const NOW_MS: u64 = 1_768_473_000_000;

/// Nothing listens there, and nothing is sent.
const CONFIG: &str = "[[backend]]\nid = \"p/1\"\nbase_url = \"http://127.0.0.1:9/v1\"\n";

async fn control(store: &Store) -> Control {
    let config = config::parse(CONFIG, "p.toml", &[]).expect("it is a configuration").config;
    let (clock, engine) = (EngineClock::start(), Engine::new(EngineLimits::default()).expect("there is an engine"));
    let parts = Parts {
        clock,
        engine,
        store,
        log: ExchangeLog::silent(),
        max_upstream_connections: 64,
        default_memory: 1 << 30,
    };
    assemble(Arc::new(config), None, parts).await.expect("the embedded policy is good")
}

/// A running listener; stops when dropped.
struct Admin {
    address: SocketAddr,
    control: Arc<Control>,
    store: Store,
    _stop: oneshot::Sender<()>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn error(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap().to_owned()
    }
}

async fn start(token: Option<&str>) -> Admin {
    let clock: Clock = Arc::new(|| Timestamp::from_millis(NOW_MS));
    let store = Store::open(StorePath::Memory, StoreLimits::default(), Arc::clone(&clock)).unwrap();
    let control = Arc::new(control(&store).await);
    let state = AdminState {
        control: control.clone(),
        metrics: control.proxy().metrics.clone(),
        queries: store.queries(),
        explain: |explainable| serde_json::json!({ "told": explainable.exchange().id }),
        store: store.handle(),
        token: {
            let token = token.map(AdminToken::new);
            Arc::new(move || token.clone())
        },
        events: Events::default(),
        stop: CancellationToken::new(),
        max_component_bytes: 1_000,
        clock,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let service = router(state).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async { drop(stopped.await) });
    tokio::spawn(async move { server.await });
    Admin { address, control, store, _stop: stop }
}

impl Admin {
    /// Sends this head (after the request line) and body; `Host` only if it is among the headers.
    async fn raw(&self, line: &str, headers: &[&str], body: &str) -> Answer {
        let mut request = format!("{line} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for header in headers {
            request += header;
            request += "\r\n";
        }
        request += "\r\n";
        request += body;
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// The state of its backend.
    async fn state(&self) -> String {
        self.get("/api/backends").await.json()["backends"][0]["state"].as_str().unwrap().to_owned()
    }

    async fn get(&self, path: &str) -> Answer {
        self.raw(&format!("GET {path}"), &["host: localhost"], "").await
    }

    fn record(&self, id: &str, status: u16, backend: &str) {
        let usage = Usage { input_tokens: 100, output_tokens: 10, ..Usage::default() };
        self.store.handle().record(
            Box::new(ExchangeRecord {
                id: id.to_owned(),
                started: Timestamp::from_millis(NOW_MS - 3_600_000),
                elapsed: Duration::from_millis(20),
                client: None,
                session: None,
                operation: Operation::Chat,
                path: "/v1/chat/completions".to_owned(),
                model: "llama".to_owned(),
                streaming: false,
                status,
                end: if status == 200 { End::Delivered } else { End::Refused },
                lane: Some(Lane::Primary),
                backend: Some(backend.into()),
                waits: 0,
                waited: Duration::ZERO,
                first_byte: None,
                policy: "abc".into(),
                policy_faults: 0,
                attempts: vec![AttemptRecord {
                    backend: backend.into(),
                    lane: Lane::Primary,
                    model_sent: "llama".to_owned(),
                    started: Timestamp::from_millis(NOW_MS - 3_600_000),
                    elapsed: Duration::from_millis(20),
                    first_byte: None,
                    first_token: None,
                    scope: Scope::Nothing,
                    outcome: Kind::Answered,
                    status,
                    retry_after: None,
                    message: String::new(),
                    upstream_id: None,
                    usage,
                    cost_usd: 0.5,
                }],
                notes: Vec::new(),
                error: None,
                denied: None,
                saved_usd: None,
            }),
            None,
        );
    }
}

#[tokio::test]
async fn health_is_told_to_anyone_and_readiness_with_its_reason() {
    let admin = start(Some("secret")).await;
    assert_eq!(admin.get("/readyz").await.status, 200);
    admin.control.proxy().close();
    assert_eq!(admin.get("/healthz").await.status, 200);
    let ready = admin.get("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json()["ready"], &ready.json()["reason"]),
        (503, &false.into(), &"shutting down".into())
    );
}

#[tokio::test]
async fn with_a_token_only_its_bearer_comes_in() {
    let admin = start(Some("secret")).await;
    for wrong in [
        "x: y",
        "authorization: Bearer secre",
        "authorization: Basic secret",
        "authorization: Bearer",
        "authorization: secret",
    ] {
        for path in ["/metrics", "/api/backends", "/api/usage", "/api/nothing"] {
            let answer = admin.raw(&format!("GET {path}"), &["host: localhost", wrong], "").await;
            assert_eq!(answer.status, 401, "{path} {wrong}");
            assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
        }
    }
    let right = ["host: any.name.example", "authorization: bearer secret"];
    assert_eq!(admin.raw("GET /api/backends", &right, "").await.status, 200);
    assert_eq!(admin.get("/").await.status, 200, "the console asks for the token itself");
}

#[tokio::test]
async fn without_a_token_a_name_that_dns_could_point_here_is_refused() {
    let admin = start(None).await;
    for host in [
        "host: evil.example",
        "host: evil.example:9901",
        "host: localhost.evil.example",
        "host: 127.0.0.1.evil.example",
        "x: y",
    ] {
        let answer = admin.raw("GET /api/backends", &[host], "").await;
        assert!(matches!(answer.status, 400 | 403), "{host}: {}", answer.status);
    }
    for host in ["host: localhost:9901", "host: 127.0.0.1:9901", "host: [::1]:9901", "host: LOCALHOST"] {
        assert_eq!(admin.raw("GET /api/backends", &[host], "").await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn without_a_token_only_loopback_peers_are_answered() {
    let admin = start(None).await;
    let state = AdminState {
        control: admin.control.clone(),
        metrics: admin.control.proxy().metrics.clone(),
        queries: admin.store.queries(),
        explain: |_| Value::Null,
        store: admin.store.handle(),
        token: Arc::new(|| None),
        events: Events::default(),
        stop: CancellationToken::new(),
        max_component_bytes: 0,
        clock: Arc::new(Timestamp::default),
    };
    let request = |peer: &str| {
        let peer: SocketAddr = peer.parse().unwrap();
        let mut request = axum::extract::Request::get("/api/backends")
            .header("host", "10.0.0.1")
            .body(axum::body::Body::empty())
            .unwrap();
        request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
        request
    };
    let status = |peer| guard::refusal(&state, &request(peer)).map(|refusal| refusal.status());
    assert_eq!(status("10.0.0.7:5555"), Some(StatusCode::FORBIDDEN));
    assert_eq!(status("[2001:db8::1]:5555"), Some(StatusCode::FORBIDDEN));
    assert_eq!(status("127.0.0.9:5555"), None);
    assert_eq!(status("[::1]:5555"), None);
    assert_eq!(status("[::ffff:127.0.0.1]:5555"), None, "IPv4 on a socket that takes both");
}

#[tokio::test]
async fn a_page_of_another_site_asks_and_changes_nothing() {
    let admin = start(None).await;
    let post = "POST /api/backends/p%2F1/drain";
    for origin in
        ["origin: https://evil.example", "origin: null", "origin: http://localhost:1", "origin: file://localhost"]
    {
        assert_eq!(admin.raw(post, &["host: localhost", origin], "").await.status, 403, "{origin}");
    }
    assert_eq!(admin.state().await, "ready");
    for path in ["/", "/healthz", "/metrics", "/api/usage?since=3650d&group=model", "/api/events"] {
        let asked = admin.raw(&format!("GET {path}"), &["host: localhost", "sec-fetch-site: cross-site"], "").await;
        assert_eq!(asked.status, 403, "a picture or script of another site: {path}");
    }
    let link = ["host: localhost", "sec-fetch-site: cross-site", "sec-fetch-mode: navigate"];
    assert_eq!(admin.raw("GET /", &link, "").await.status, 200, "a link leads to the console");
    assert_eq!(admin.raw("GET /api/usage", &link, "").await.status, 403);
    assert_eq!(admin.raw(post, &["host: localhost:9901", "origin: http://localhost:9901"], "").await.status, 200);
    assert_eq!(admin.state().await, "drained");
}

#[tokio::test]
async fn backends_are_shown_and_controlled() {
    let admin = start(None).await;
    admin.control.proxy().fleet.with(|fleet, now| {
        let until = now + Duration::from_secs(3_600);
        let cooldown =
            SavedCooldown { backend: "p/1".into(), model: None, until, reason: Kind::ServerError, failures: 2 };
        fleet.restore(now, &[cooldown]);
    });
    let shown = admin.get("/api/backends").await.json();
    let backend = &shown["backends"][0];
    assert_eq!(
        (&backend["state"], &backend["cooldown_reason"]),
        (&"cooling".into(), &Kind::ServerError.as_str().into())
    );
    assert!(backend["cooldown_ms"].as_u64().is_some_and(|ms| (1..=3_600_000).contains(&ms)), "{backend}");
    assert_eq!((&shown["waiting"], &backend["failures"]), (&0.into(), &2.into()));
    assert_eq!(shown["lanes"][0], serde_json::json!({ "lane": "primary", "queued": 0 }));
    assert_eq!(backend["queued"], Value::Null, "one line serves all backends of a lane");
    assert_eq!(backend["requests_left"], Value::Null);
    let host = ["host: localhost"];
    for (action, state) in [("drain", "drained"), ("resume", "cooling"), ("clear-cooldown", "ready")] {
        let answer = admin.raw(&format!("POST /api/backends/p%2F1/{action}"), &host, "").await;
        assert_eq!((answer.status, &answer.json()["id"]), (200, &"p/1".into()));
        assert_eq!((&answer.json()["state"], admin.state().await.as_str()), (&state.into(), state));
    }
    let missing = admin.raw("POST /api/backends/p2/drain", &host, "").await;
    let words = "there is no backend \"p2\"; GET /api/backends lists them";
    assert_eq!((missing.status, missing.error().as_str()), (404, words));
    let unknown = admin.raw("POST /api/backends/p%2F1/explode", &host, "").await;
    assert!(unknown.status == 404 && unknown.error().contains("use drain"), "{}", unknown.body);
}

#[tokio::test]
async fn the_policy_is_shown_and_its_replacement_is_the_proxys_affair() {
    let admin = start(None).await;
    let shown = admin.get("/api/policy").await.json();
    assert_eq!((&shown["revision"], &shown["origin"]), (&Engine::embedded_id().into(), &"embedded".into()));
    let host = ["host: localhost"];
    let put = admin.raw("PUT /api/policy", &host, "12345").await;
    assert!(put.status == 422 && put.error().starts_with("the uploaded policy is refused: "), "{}", put.body);
    assert_eq!(admin.raw("POST /api/policy/rollback", &host, "").await.status, 409);
    assert_eq!(admin.raw("POST /api/policy/rollback?to=abc", &host, "").await.status, 404);
    for (line, body, words) in [
        ("POST /api/policy/rollback", "{\"to\":\"abc\"}", "name the revision in the address, as rollback?to=REVISION"),
        ("POST /api/policy/rollback?revision=abc", "", "`revision` is not a parameter of POST /api/policy/rollback"),
    ] {
        let answer = admin.raw(line, &host, body).await;
        assert_eq!(answer.status, 400, "{line} {body}");
        assert!(answer.error().starts_with(words), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_promotion_is_read_from_the_address() {
    let admin = start(None).await;
    let host = ["host: localhost"];
    let post = |query: &str| format!("POST /api/policy/promote?{query}");
    let guards = "guard=error_rate%3C=%2B1%25&guard=p95%3C=+20%25";
    let read = |query: &str| {
        let asked = Query::<Vec<(String, String)>>::try_from_uri(&format!("/?{query}").parse().unwrap()).unwrap().0;
        let plan = promote::plan(&asked).unwrap();
        let guards: Vec<String> = plan.guards.iter().map(ToString::to_string).collect();
        format!("{} {:?} {}", plan.share, plan.lasts, guards.join(" "))
    };
    assert_eq!(read(&format!("canary=2.5%25&for=90s&{guards}")), "2.5% 90s error_rate<=+1% p95<=+20%");
    assert_eq!(read(""), "5% 600s error_rate<=+0.5% p95<=+10% spend<=+5%");
    let bad = admin.raw(&post(guards), &host, "12345").await;
    assert!(bad.status == 422 && bad.error().starts_with("the candidate is refused: "), "{}", bad.body);
    for (query, words) in [
        ("canary=0%25", "canary=\"0%\" is not a share"),
        ("canary=100%25", "canary=\"100%\" is not a share"),
        ("canary=5%25&canary=6%25", "canary is given twice"),
        ("for=soon", "for=\"soon\" is not a time"),
        ("guard=latency%3C=5%25", "is no guard; write error_rate<=+0.5%"),
        ("share=5%25", "`share` is not a parameter of POST /api/policy/promote"),
    ] {
        let refused = admin.raw(&post(query), &host, "12345").await;
        assert_eq!(refused.status, 400, "{query}");
        assert!(refused.error().contains(words), "{query}: {}", refused.body);
    }
    let empty = admin.raw(&post("canary=5%25"), &host, "").await;
    assert_eq!((empty.status, empty.error().as_str()), (400, "send the candidate's component as the body"));
    let none = admin.raw("DELETE /api/policy/promote", &host, "").await;
    assert_eq!((none.status, none.error().as_str()), (409, "no promotion is under way"));
    assert_eq!(admin.get("/api/policy/events").await.json(), serde_json::json!({ "events": [] }));
    let shadow = admin.get("/api/policy/shadow").await;
    assert!(shadow.status == 404 && shadow.error().contains("[policy.shadow]"), "{}", shadow.body);
}

#[tokio::test]
async fn usage_is_summed_since_a_time_and_by_a_group() {
    let admin = start(None).await;
    admin.record("a", 200, "p1");
    admin.record("b", 500, "f1");
    admin.store.handle().flush().await.unwrap();
    let usage = admin.get("/api/usage?since=24h&group=backend").await.json();
    assert_eq!((&usage["since"], &usage["group"]), (&"2026-01-14T10:30:00.000Z".into(), &"backend".into()));
    assert_eq!((&usage["total"]["requests"], &usage["total"]["cost_usd"]), (&2.into(), &1.0.into()));
    assert_eq!((&usage["rows"][0]["key"], &usage["rows"][0]["failures"]), (&"f1".into(), &1.into()));
    let later = admin.get("/api/usage?since=2026-01-15T10:00:00Z").await.json();
    assert_eq!((&later["total"]["requests"], &later["rows"]), (&0.into(), &Value::Array(Vec::new())));
}

#[tokio::test]
async fn exchanges_are_listed_and_told() {
    let admin = start(None).await;
    admin.record("a", 200, "p1");
    admin.record("b/1", 429, "f1");
    admin.store.handle().flush().await.unwrap();
    let ids = |answer: Answer| -> Vec<String> {
        let listed = answer.json();
        listed["exchanges"].as_array().unwrap().iter().map(|x| x["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(admin.get("/api/exchanges").await), ["b/1", "a"]);
    assert_eq!(ids(admin.get("/api/exchanges?limit=1&status=&client=").await), ["b/1"]);
    assert_eq!(ids(admin.get("/api/exchanges?status=4xx").await), ["b/1"]);
    assert_eq!(ids(admin.get("/api/exchanges?backend=p1").await), ["a"]);
    assert_eq!(ids(admin.get("/api/exchanges?client=nobody").await), Vec::<String>::new());
    assert_eq!(admin.get("/api/exchanges/b%2F1").await.json()["attempts"][0]["backend"], "f1");
    let missing = admin.get("/api/exchanges/c").await;
    assert!(missing.status == 404 && missing.error().contains("no exchange `c`"), "{}", missing.body);
}

#[tokio::test]
async fn what_cannot_be_read_is_a_400_that_says_what_to_write() {
    let admin = start(None).await;
    for (path, word) in [
        ("/api/usage?since=yesterday", "30m, 24h, 7d"),
        ("/api/usage?since=2026-02-30", "since"),
        ("/api/usage?group=colour", "client, backend, model"),
        ("/api/usage?from=1", "from"),
        ("/api/exchanges?limit=0", "1 to 1000"),
        ("/api/exchanges?limit=1001", "1 to 1000"),
        ("/api/exchanges?status=fine", "429"),
    ] {
        let answer = admin.get(path).await;
        assert!(answer.status == 400 && answer.error().contains(word), "{path}: {} {}", answer.status, answer.body);
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_json() {
    let admin = start(None).await;
    for path in ["/nothing", "/api", "/api/", "/api/backends/p1", "/api/policy/forward"] {
        let answer = admin.get(path).await;
        assert!(matches!(answer.status, 404 | 405) && !answer.error().is_empty(), "{path}: {}", answer.status);
    }
    let wrong = admin.raw("DELETE /api/backends", &["host: localhost"], "").await;
    assert!(wrong.status == 405 && wrong.error().contains("method"), "{}", wrong.body);
}

#[tokio::test]
async fn the_metrics_and_the_console_are_served() {
    let admin = start(None).await;
    let metrics = admin.get("/metrics").await;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", metrics.head);
    assert!(metrics.body.contains("pointsman_backend_cooldown_seconds{backend=\"p/1\"} 0.0\n"), "{}", metrics.body);
    assert!(metrics.body.contains("pointsman_queue_length{lane=\"primary\"} 0\n") && !metrics.body.contains("# EOF"));
    assert!(metrics.body.contains("# TYPE pointsman_policy_decisions_total counter\n"), "{}", metrics.body);
    let accept = ["host: localhost", "accept: text/plain;q=0.5", "accept: application/openmetrics-text; version=1.0.0"];
    let metrics = admin.raw("GET /metrics", &accept, "").await;
    assert!(metrics.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", metrics.head);
    assert!(metrics.body.contains("# TYPE pointsman_policy_decisions counter\n"), "{}", metrics.body);
    assert!(metrics.body.contains("pointsman_policy_decisions_total{decision=\"wait\"} 0\n"), "{}", metrics.body);
    assert!(metrics.body.ends_with("# EOF\n"));
    let console = admin.get("/").await;
    assert!(console.head.contains("content-security-policy: default-src 'none'"), "{}", console.head);
    assert!(console.body.starts_with("<!doctype html>"));
    assert!(!console.body.contains("http://") && !console.body.contains("https://"), "nothing comes from elsewhere");
}
