//! Clients' connections: how long they may be idle, and how a body that is too large is refused on them.

use http::Method;
use pointsman_tests::{PATIENCE, RawConnection, backend, chat, proxy, upstream};

const REQUEST: &[u8] = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn an_idle_connection_is_kept_for_a_time_of_its_own() {
    let up = upstream().start().await;
    let one = backend("p1").primary(&up).model("m", "m");
    let proxy = proxy!().backend(one).set("server.header_read_timeout_ms", 100).start().await;
    let mut idle = RawConnection::open(proxy.addr()).await;
    assert!(idle.write(REQUEST).await.answer().await.starts_with("HTTP/1.1 200"));
    // By the time that an unfinished head is given up, the other has been idle for as long.
    let mut unfinished = RawConnection::open(proxy.addr()).await;
    unfinished.write(b"GET /v1/models HTTP/1.1\r\nho").await.answer().await;
    assert!(idle.write(REQUEST).await.answer().await.starts_with("HTTP/1.1 200"), "it is still open");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_keep_alive_ms() {
    let up = upstream().start().await;
    let one = backend("p1").primary(&up).model("m", "m");
    let proxy = proxy!().backend(one).set("server.keep_alive_ms", 50).start().await;
    let mut idle = RawConnection::open(proxy.addr()).await;
    assert!(idle.write(REQUEST).await.answer().await.starts_with("HTTP/1.1 200"));
    assert_eq!(idle.answer().await, "", "closed without a word");
}

#[tokio::test]
async fn an_idle_http2_connection_that_answers_pings_is_let_go_too() {
    let up = upstream().reply(chat("hi")).start().await;
    let one = backend("p1").primary(&up);
    let proxy = proxy!().backend(one).set("server.keep_alive_ms", 200).set("server.header_read_timeout_ms", 200);
    let proxy = proxy.start().await;
    for has_asked in [true, false] {
        let tcp = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
        let (sender, mut connection) = h2::client::handshake(tcp).await.unwrap();
        let mut pings = connection.ping_pong().expect("the first to ask for it");
        let ended = tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        if has_asked {
            let request = http::Request::get("http://localhost/v1/models").body(()).unwrap();
            let (answer, _) = sender.send_request(request, true).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
        } else {
            pings.ping(h2::Ping::opaque()).await.expect("it is alive");
        }
        let began = std::time::Instant::now();
        let over = tokio::time::timeout(PATIENCE, ended).await.expect("it is let go").unwrap();
        assert!(over.is_ok(), "in order: {over:?}");
        assert!(began.elapsed() >= std::time::Duration::from_millis(100), "not at once");
        drop(sender);
    }
    assert_eq!(proxy.over_http2().chat().send().await.says(), "hi", "a new one is served");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_413_in_either_version_of_http() {
    let up = upstream().reply(chat("hi")).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&up)).set("server.max_body_bytes", 1_000).start().await;
    // More than a window of HTTP/2 and the buffers of a socket hold.
    let large = vec![b' '; 24 << 20];
    let path = "/v1/chat/completions";
    for request in [proxy.over_http2().request(Method::POST, path), proxy.post(path)] {
        let answer = request.body("application/json", large.clone()).send().await;
        assert_eq!((answer.status.as_u16(), answer.broken), (413, false), "{:?}", answer.version);
        assert!(answer.text().contains("server.max_body_bytes"), "{}", answer.text());
    }
    let pieces = futures_util::stream::iter((0..24).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 20])));
    let unannounced = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let unannounced =
        unannounced.post(format!("http://{}{path}", proxy.addr())).body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(unannounced.send().await.unwrap().status(), 413);
    assert_eq!(up.count(), 0);
    assert_eq!(proxy.over_http2().chat().send().await.status, 200);
}
