//! Requests that are wrong: answered clearly, never forwarded, never fatal.

use pointsman_tests::{Proxy, ProxyBuilder, RawConnection, Upstream, backend, proxy, upstream};

async fn served(builder: ProxyBuilder) -> (Proxy, Upstream) {
    let up = upstream().start().await;
    let proxy = builder.backend(backend("p1").primary(&up)).start().await;
    (proxy, up)
}

async fn raw(proxy: &Proxy, bytes: &[u8]) -> String {
    RawConnection::open(proxy.addr()).await.write(bytes).await.answer().await
}

/// The answer has this status, nothing reached the provider, and the proxy still serves.
async fn is_refused(bytes: &[u8], status: &str) {
    let (proxy, up) = served(proxy!()).await;
    let answer = raw(&proxy, bytes).await;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown}\n-> {answer}");
    assert_eq!(up.count(), 0, "forwarded: {shown}");
    assert_eq!(proxy.chat().send().await.status, 200);
}

#[tokio::test]
async fn malformed_http_is_a_400() {
    for bytes in [
        &b"complete nonsense\r\n\r\n"[..],
        b"GET /v1/models HTTP/9.9\r\nhost: x\r\n\r\n",
        b"GET  /v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nbad header: y\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: ten\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
    ] {
        is_refused(bytes, "400").await;
    }
}

#[tokio::test]
async fn ambiguous_framing_is_refused_and_never_forwarded() {
    for bytes in [
        &b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 5, 5\r\n\r\nhello",
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\nhello",
        b"POST /v1/files HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /v1/files HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        is_refused(bytes, "400").await;
    }
}

#[tokio::test]
async fn smuggled_requests_are_not_served() {
    let (proxy, up) = served(proxy!()).await;
    let smuggled = b"POST /v1/a HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
        0\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    RawConnection::open(proxy.addr()).await.write(smuggled).await.read_to_end().await;
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn a_chunk_that_is_no_chunk_never_reaches_the_provider_whole() {
    let (proxy, up) = served(proxy!()).await;
    let bytes = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
        transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n";
    let answer = raw(&proxy, bytes).await;
    assert!(answer.starts_with("HTTP/1.1 400") || answer.is_empty(), "{answer}");
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn headers_too_large_are_a_431() {
    let (proxy, up) = served(proxy!().set("server.max_header_bytes", 16_384)).await;
    let request = format!("GET /v1/files HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(32_768));
    let answer = raw(&proxy, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = (0..1_000).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
    let answer = raw(&proxy, format!("GET /v1/files HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_413_with_the_error_envelope() {
    let (proxy, up) = served(proxy!().set("server.max_body_bytes", 10_000)).await;
    let answer = proxy.post("/v1/chat/completions").body("application/json", vec![b' '; 10_001]).send().await;
    assert_eq!(answer.status, 413);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("10000"), "{}", answer.text());
    assert_eq!(up.count(), 0);
    let fits = proxy.post("/v1/chat/completions").body("application/json", vec![b' '; 10_000]).send().await;
    assert_eq!(fits.status, 200);
}

#[tokio::test]
async fn a_body_that_grows_too_large_in_chunks_is_a_413_too() {
    let (proxy, up) = served(proxy!().set("server.max_body_bytes", 10_000)).await;
    let mut request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..6 {
        request.extend_from_slice(b"7d0\r\n");
        request.extend_from_slice(&[b' '; 2_000]);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let answer = raw(&proxy, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("\"error\""), "{answer}");
    assert_eq!(up.count(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_inside_its_body_is_forgotten() {
    let (proxy, up) = served(proxy!()).await;
    for _ in 0..10 {
        let mut raw = RawConnection::open(proxy.addr()).await;
        raw.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{\"model\"").await;
    }
    assert_eq!(proxy.chat().send().await.status, 200);
    assert_eq!(up.count(), 1);
}

#[tokio::test]
async fn errors_of_the_requests_head_carry_the_envelope_where_http_still_works() {
    let (proxy, _up) = served(proxy!()).await;
    let answer =
        raw(&proxy, b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello").await;
    assert!(answer.contains("\"error\"") && answer.contains("\"message\""), "{answer}");
}
