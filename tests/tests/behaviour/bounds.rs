//! Bounds in sum: connections and file descriptors. Nobody's connections end the service of others, and what the proxy
//! itself is short of is never a backend's fault.

use std::net::SocketAddr;

use http::Method;
use pointsman_tests::{
    Gate, Narrow, NarrowStream, Proxy, RawConnection, Upstream, backend, chat, eventually, flooding_http2_upstream,
    proxy, raw, upstream,
};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::json;

const HALF_HEAD: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-half: ";
const HALF_BODY: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
    content-length: 1000\r\n\r\n{\"model\"";
const HALF_UPLOAD: &[u8] = b"PUT /api/policy HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n\0asm";
/// The preface and empty settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const WHOLE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Lets this process open as many connections as it may.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
}

/// Opens so many connections, writes this on each, and holds them.
async fn hold(addr: SocketAddr, count: usize, bytes: &[u8]) -> Vec<RawConnection> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = RawConnection::open(addr).await;
        connection.write(bytes).await;
        held.push(connection);
    }
    held
}

async fn served(max_descriptors: u32) -> (Proxy, Upstream) {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).max_descriptors(max_descriptors);
    (proxy.start().await, up)
}

/// Traffic and health go on, over new connections.
async fn goes_on(proxy: &Proxy, up: &Upstream, while_what: &str) {
    let before = up.count();
    let mut health = RawConnection::open(proxy.admin_addr()).await;
    let health = health.write(WHOLE).await.answer().await;
    assert!(health.starts_with("HTTP/1.1 200"), "{while_what}: {health}");
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = RawConnection::open(proxy.addr()).await;
    let answer = client.write(request.as_bytes()).await.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{while_what}: {answer}");
    assert_eq!(up.count(), before + 1, "{while_what}");
}

#[tokio::test]
async fn half_heads_at_either_port_end_neither_traffic_nor_health() {
    raise_own_limit();
    let (proxy, up) = served(1_024).await;
    let at_admin = hold(proxy.admin_addr(), 1_100, HALF_HEAD).await;
    goes_on(&proxy, &up, "1,100 half heads at the admin port").await;
    let at_both = hold(proxy.addr(), 1_100, HALF_HEAD).await;
    goes_on(&proxy, &up, "1,100 half heads at each port").await;
    drop((at_admin, at_both));
    goes_on(&proxy, &up, "after them").await;
}

/// Opens so many HTTP/2 connections that let no byte of an answer's body be sent and answer pings, and asks for this path on
/// each.
async fn hold_untaken(addr: SocketAddr, count: usize, path: &str) -> Vec<(Narrow, NarrowStream)> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut narrow = Narrow::open(addr, 0).await;
        let (_, answer) = narrow.get(path).await;
        held.push((narrow, answer));
    }
    held
}

#[tokio::test]
async fn answers_that_nobody_takes_hold_no_place() {
    raise_own_limit();
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).max_descriptors(1_024).client("one", "pm-secret");
    // Nothing else lets them go while the test lasts.
    let proxy = proxy.set("server.unread_timeout_ms", 600_000).start().await;
    // 416 places for clients and 128 at the admin port; an answer without a key is a 401.
    let mut held = hold_untaken(proxy.admin_addr(), 128, "/healthz").await;
    held.extend(hold_untaken(proxy.addr(), 208, "/health").await);
    held.extend(hold_untaken(proxy.addr(), 208, "/v1/models").await);
    let health = RawConnection::open(proxy.admin_addr()).await.write(WHOLE).await.answer().await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert_eq!(proxy.chat().bearer("pm-secret").send().await.status, 200);
    assert_eq!(up.count(), 1);
    drop(held);
}

#[tokio::test]
async fn connections_that_ask_for_nothing_give_way_to_those_that_do() {
    raise_own_limit();
    let (proxy, up) = served(1_024).await;
    let mut held = Vec::new();
    for (what, bytes) in [("silence", &b""[..]), ("idle HTTP/2", HTTP2), ("idle after a request", WHOLE)] {
        held.extend(hold(proxy.admin_addr(), 500, bytes).await);
        held.extend(hold(proxy.addr(), 500, bytes).await);
        goes_on(&proxy, &up, what).await;
    }
}

#[tokio::test]
async fn bodies_that_never_come_give_way_too() {
    raise_own_limit();
    let (proxy, up) = served(1_024).await;
    let uploads = hold(proxy.admin_addr(), 500, HALF_UPLOAD).await;
    goes_on(&proxy, &up, "500 half uploads at the admin port").await;
    let bodies = hold(proxy.addr(), 600, HALF_BODY).await;
    goes_on(&proxy, &up, "600 half bodies").await;
    drop((uploads, bodies));
}

#[tokio::test]
async fn events_that_are_watched_leave_room_for_health_and_further_requests_are_told_so() {
    let up = upstream().start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("admin.max_connections", 8).start().await;
    let watch = b"GET /api/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut watchers = hold(proxy.admin_addr(), 6, watch).await;
    for watcher in &mut watchers {
        assert!(watcher.read_at_least(15).await.starts_with(b"HTTP/1.1 200"));
    }
    let refused = proxy.admin("/api/backends").send().await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
    goes_on(&proxy, &up, "as many watch as may").await;
    drop(watchers);
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(10));
    while proxy.admin("/api/backends").send().await.status != 200 {
        ticks.tick().await;
    }
}

#[tokio::test]
async fn beyond_the_connections_to_backends_a_request_waits_and_is_then_our_own_fault() {
    // 256 descriptors: 80 for connections to backends.
    const SLOTS: usize = 80;
    let gate = Gate::new();
    let up = upstream().reply(chat("well").gated_head(&gate)).start().await;
    let one = backend("p1").primary(&up).timeout("connect_ms", 300);
    let proxy = proxy!().backend(one).max_descriptors(256).start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let ask = |n: usize| {
        let url = format!("http://{}/v1/chat/completions", proxy.addr());
        let body = json!({"model": "m", "messages": [{"role": "user", "content": format!("number {n}")}]});
        let request = client.post(url).header("content-type", "application/json").body(body.to_string());
        tokio::spawn(async move { request.send().await.expect("the proxy answers") })
    };
    let held: Vec<_> = (0..SLOTS).map(ask).collect();
    up.wait_seen(SLOTS).await;
    for n in 0..10 {
        let refused = ask(SLOTS + n).await.unwrap();
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "1");
        assert_eq!(refused.headers()["x-should-retry"], "true");
        assert_eq!(refused.headers()["x-pointsman-attempts"], "0");
        let body: serde_json::Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
        assert_eq!(body["error"]["code"], "proxy_overloaded", "{body}");
    }
    assert_eq!(up.count(), SLOTS, "no more were sent");
    is_blameless(&proxy, SLOTS as u64).await;
    // One that is over makes room for one that waits.
    let waiting = ask(1_000);
    gate.pass(1);
    up.wait_seen(SLOTS + 1).await;
    gate.open();
    assert_eq!(waiting.await.unwrap().status(), 200);
    for answer in held {
        assert_eq!(answer.await.unwrap().status(), 200);
    }
}

/// The backend is ready, and no attempt at it has failed.
async fn is_blameless(proxy: &Proxy, in_flight: u64) {
    let row = proxy.admin("/api/backends").send().await.json()["backends"][0].clone();
    assert_eq!((&row["state"], &row["in_flight"]), (&json!("ready"), &json!(in_flight)), "{row}");
    let failed = "SELECT count(*) AS n FROM attempts WHERE outcome != 'answered'";
    assert_eq!(proxy.rows(failed)[0]["n"], 0);
}

#[tokio::test]
async fn our_own_lack_of_descriptors_is_waited_for_and_told_as_ours() {
    let gate = Gate::new();
    let up = upstream().reply(chat("kept")).then(chat("slow").gated_head(&gate)).then(chat("well")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up).timeout("connect_ms", 300)).start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let ask = |text: &str| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string();
        let url = format!("http://{}/v1/chat/completions", proxy.addr());
        let request = client.post(url).header("content-type", "application/json").body(body);
        tokio::spawn(async move { request.send().await.expect("the proxy answers") })
    };
    assert_eq!(ask("first").await.unwrap().status(), 200);
    let slow = ask("second, which takes the kept connection");
    up.wait_seen(2).await;
    let pid = Pid::from_raw(proxy.pid().cast_signed()).unwrap();
    let maximum = getrlimit(Resource::Nofile).maximum;
    let before = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(3), maximum });
    let before = before.expect("the limit of one's own child can be set");
    let refused = ask("third, for which there is no descriptor").await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(refused.text().await.unwrap().contains("proxy_overloaded"));
    // A connection that cannot be accepted now is accepted later.
    let mut health = RawConnection::open(proxy.admin_addr()).await;
    health.write(WHOLE).await;
    proxy
        .wait_log("not accepted", |line| {
            line["message"].as_str()?.starts_with("a connection could not be accepted").then_some(())
        })
        .await;
    prlimit(Some(pid), Resource::Nofile, before).expect("the limit can be set back");
    assert!(health.answer().await.starts_with("HTTP/1.1 200"));
    assert_eq!(ask("fourth").await.unwrap().status(), 200);
    gate.open();
    assert_eq!(slow.await.unwrap().status(), 200);
    let exchanges = proxy.wait_rows(4, "SELECT id FROM exchanges").await;
    assert_eq!(exchanges.len(), 4);
    is_blameless(&proxy, 0).await;
    assert_eq!(proxy.admin_request(Method::GET, "/healthz").send().await.status, 200);
    eventually("no attempt is left", || (up.open() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_flood_of_informational_responses_ends_and_the_next_backend_answers() {
    const FLOOD_BYTES: usize = 32 << 20;
    for flood in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", "\r\n"] {
        let flooding = upstream().reply(raw(flood.repeat(FLOOD_BYTES / flood.len()))).start().await;
        let well = upstream().reply(chat("well")).start().await;
        let first = backend("flooding").primary(&flooding);
        let proxy = proxy!().backend(first).backend(backend("well").fallback(&well)).start().await;
        let answer = proxy.chat().send().await;
        assert_eq!((answer.status.as_u16(), answer.says()), (200, "well".to_owned()), "{flood:?}");
        flooding.wait_hung_up(flooding.count()).await;
        assert_eq!(well.count(), 1);
        let attempts = proxy.wait_rows(1, "SELECT outcome FROM attempts WHERE backend = 'flooding'").await;
        assert!(attempts.iter().all(|attempt| attempt["outcome"] == "malformed"), "{flood:?}: {attempts:?}");
    }
    // A few of them are ordinary.
    let hints = "HTTP/1.1 100 Continue\r\n\r\n".repeat(9) + "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let body = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"hinted"},"finish_reason":"stop"}]}"#;
    let whole =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let up = upstream().reply(raw(hints + &whole)).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).start().await;
    assert_eq!(proxy.chat().send().await.says(), "hinted");
}

#[tokio::test]
async fn a_large_body_is_translated_beside_the_workers() {
    const MIB: usize = 24;
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "translated"}], "usage": {"input_tokens": 1, "output_tokens": 1}});
    let claude = upstream().reply(pointsman_tests::json(message)).start().await;
    let up = upstream().reply(chat("beside")).start().await;
    let foreign = backend("claude").primary(&claude).set("dialect", "anthropic").model("c", "c");
    let proxy = proxy!().backend(foreign).backend(backend("p1").primary(&up).model("m", "m"));
    let proxy = proxy.env("POINTSMAN_WORKERS", "1").start().await;
    let text = "A".repeat(MIB << 20);
    let body = json!({"model": "c", "messages": [{"role": "user", "content": text}]}).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut large = RawConnection::open(proxy.addr()).await;
    large.write(head.as_bytes()).await.write(body.as_bytes()).await;
    let mut beside = 0;
    while claude.count() == 0 {
        assert_eq!(proxy.chat().send().await.says(), "beside");
        beside += 1;
    }
    assert!(beside >= 10, "{beside} were answered while one was translated");
    let answer = large.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("translated"), "{answer}");
    assert_eq!(claude.only().json()["messages"][0]["content"].to_string().len() / (1 << 20), MIB);
}

#[tokio::test]
async fn a_flood_of_informational_responses_over_http2_ends_too() {
    let flooding = flooding_http2_upstream(32 << 20).await;
    let well = upstream().reply(chat("well")).start().await;
    let first = backend("flooding")
        .set("base_url", flooding.url())
        .set("ca_file", flooding.certificate().display().to_string());
    let proxy = proxy!().backend(first).backend(backend("well").fallback(&well)).start().await;
    let before = proxy.resident_kib();
    let answer = proxy.chat().send().await;
    assert_eq!((answer.status.as_u16(), answer.says()), (200, "well".to_owned()));
    assert_eq!(well.count(), 1);
    let attempts = proxy.wait_rows(1, "SELECT outcome, message FROM attempts WHERE backend = 'flooding'").await;
    for attempt in attempts {
        assert!(attempt["message"].as_str().unwrap().contains("1048576 bytes and no answer among them"), "{attempt}");
    }
    let grown_kib = proxy.peak_resident_kib().saturating_sub(before);
    assert!(grown_kib < 128 << 10, "{grown_kib} KiB for at most 3 attempts of 1 MiB, in frames of 14 bytes");
}

#[tokio::test]
async fn less_room_for_the_operators_connections_than_asked_for_is_told() {
    let up = upstream().start().await;
    let of = |asked: i64| {
        proxy!().backend(backend("p1").primary(&up)).set("admin.max_connections", asked).max_descriptors(256)
    };
    let told = |proxy: &Proxy| {
        proxy.output().iter().filter(|line| line.contains("admin.max_connections is more than")).count()
    };
    assert_eq!(told(&of(200).start().await), 1, "an eighth of 256");
    assert_eq!(told(&of(30).start().await), 0);
    assert_eq!(
        told(&proxy!().backend(backend("p1").primary(&up)).max_descriptors(256).start().await),
        0,
        "nobody asked"
    );
}

#[tokio::test]
async fn three_hundred_secret_files_take_a_few_descriptors_and_each_change_is_followed() {
    let ups: Vec<_> = futures_util::future::join_all((0..300).map(|_| upstream().start())).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |n: usize| folder.path().join(format!("{}/key-{n}", n % 7));
    (0..7).for_each(|n| std::fs::create_dir(folder.path().join(n.to_string())).unwrap());
    let mut builder = proxy!().max_descriptors(512);
    for (n, up) in ups.iter().enumerate() {
        std::fs::write(file(n), format!("first-key-of-{n}")).unwrap();
        let one = backend(&format!("b{n}")).primary(up).model(&format!("m{n}"), "m");
        builder = builder.backend(one.set("api_key", format!("file:{}", file(n).display())));
    }
    let proxy = builder.start().await;
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count();
    assert!(descriptors < 100, "{descriptors} are open");
    for n in [0, 150, 299] {
        assert_eq!(proxy.chat_for(&format!("m{n}")).send().await.status, 200);
        assert_eq!(ups[n].only().header("authorization"), Some(&*format!("Bearer first-key-of-{n}")));
        std::fs::write(file(n), format!("second-key-of-{n}")).unwrap();
        let is_followed = async {
            loop {
                assert_eq!(proxy.chat_for(&format!("m{n}")).send().await.status, 200);
                let seen = ups[n].seen();
                if seen.last().unwrap().header("authorization") == Some(&*format!("Bearer second-key-of-{n}")) {
                    return;
                }
            }
        };
        pointsman_tests::soon("the new key", is_followed).await;
    }
}
