//! Every way in which an attempt can fail before the answer has begun: the next backend answers, the client never
//! learns of it, and the store says what happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use pointsman_tests::{
    Backend, Proxy, Reply, Upstream, backend, bytes, chat, json, proxy, raw, silence, sse, status, tokens, upstream,
};
use serde_json::json as value;

/// Two primaries; whichever is asked first gives `bad`, every later request is answered.
struct Pair {
    proxy: Proxy,
    ups: [Upstream; 2],
}

async fn pair(bad: Reply, good: fn() -> Reply) -> Pair {
    let fresh = Arc::new(AtomicBool::new(true));
    let script = move || {
        let (fresh, bad) = (fresh.clone(), bad.clone());
        move |_: &_, _| {
            if fresh.swap(false, Ordering::SeqCst) { bad.clone() } else { good() }
        }
    };
    let ups = [upstream().handler(script()).start().await, upstream().handler(script()).start().await];
    let quick =
        |b: Backend| b.timeout("first_byte_ms", 1_500).timeout("first_token_ms", 2_000).timeout("idle_ms", 2_500);
    // What may not be sent again has nobody else to go to: the total limit ends it.
    let quick = move |b: Backend| quick(b).timeout("total_ms", 5_000);
    let proxy = proxy!()
        .backend(quick(backend("p1").primary(&ups[0])))
        .backend(quick(backend("p2").primary(&ups[1])))
        .start()
        .await;
    Pair { proxy, ups }
}

impl Pair {
    /// Both were asked once, and the store tells the first attempt's outcome.
    async fn expect_outcome(&self, outcome: &str) {
        assert_eq!(self.ups.each_ref().map(Upstream::count), [1, 1]);
        let attempts = self.proxy.wait_rows(2, "SELECT outcome, cost_usd FROM attempts ORDER BY number").await;
        assert_eq!(attempts[0]["outcome"], outcome, "{attempts:?}");
        assert_eq!(attempts[0]["cost_usd"], 0.0);
        assert_eq!(attempts[1]["outcome"], "answered");
    }
}

async fn chat_is_retried(bad: Reply, outcome: &str) {
    let pair = pair(bad, || chat("well")).await;
    let answer = pair.proxy.chat().send().await;
    assert_eq!((answer.status.as_u16(), answer.says().as_str()), (200, "well"), "{}", answer.text());
    assert_eq!(answer.header("x-pointsman-attempts"), "2");
    pair.expect_outcome(outcome).await;
}

async fn stream_is_retried(bad: Reply, outcome: &str) {
    let pair = pair(bad, || tokens(3)).await;
    let mut stream = pair.proxy.chat_stream().stream().await;
    assert_eq!(stream.status, 200);
    let events = stream.rest().await;
    assert!(stream.ended_in_order());
    let text: String = events.iter().map(|e| e.content()).collect();
    assert_eq!(text, "t0 t1 t2 ", "{events:?}");
    assert_eq!(events.last().unwrap().data(), "[DONE]");
    pair.expect_outcome(outcome).await;
}

/// One test per line: name, what the first backend does, the outcome recorded.
macro_rules! retried {
    ($check:ident: $($name:ident: $bad:expr => $outcome:literal;)*) => {
        $(#[tokio::test]
        async fn $name() {
            $check($bad, $outcome).await;
        })*
    };
}

fn error(status_code: u16, kind: &str, code: &str, message: &str) -> Reply {
    json(value!({"error": {"message": message, "type": kind, "code": code, "param": null}})).with_status(status_code)
}

retried! { chat_is_retried:
    a_429_with_retry_after: status(429).retry_after(30) => "rate_limited";
    a_429_without_retry_after: status(429) => "rate_limited";
    a_500: status(500) => "server_error";
    a_502_with_a_page_instead_of_json: bytes("text/html", "<html>bad gateway</html>").with_status(502) => "server_error";
    a_503: status(503) => "overloaded";
    a_529: status(529) => "overloaded";
    a_401: status(401) => "unauthorised";
    a_402: status(402) => "out_of_credit";
    a_429_that_means_no_credit: error(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota") => "out_of_credit";
    a_404_for_the_model: error(404, "invalid_request_error", "model_not_found", "The model `m` does not exist") => "model_missing";
    a_reset_before_the_head: chat("").reset_before_head() => "reset";
    a_close_before_the_head: chat("").closed_before_head() => "reset";
    a_silent_provider: silence() => "timed_out";
    a_slow_head: chat("late").slow_head(Duration::from_secs(60)) => "timed_out";
    garbage_instead_of_http: raw("SSH-2.0-OpenSSH_9.9\r\n\r\n") => "malformed";
    an_answer_that_is_not_all_of_its_json: bytes("application/json", r#"{"choices":[{"message":{"content":"trunc"#) => "malformed";
    a_response_with_two_framings: raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n") => "malformed";
    a_response_with_two_lengths: raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}") => "malformed";
    a_length_that_is_no_number: raw("HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}") => "malformed";
    a_head_without_end: raw(format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(2 << 20))) => "malformed";
}

retried! { chat_is_retried:
    a_200_with_nothing: raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n") => "malformed";
    a_200_with_a_page_instead_of_json: bytes("text/html", "<html>maintenance</html>") => "malformed";
    an_error_inside_a_200: json(value!({"error": {"message": "boom", "type": "server_error"}})) => "server_error";
    a_body_cut_short: chat("never whole").end_after(0) => "cut";
    a_body_shorter_than_its_length: raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"id\":") => "cut";
    a_body_whose_chunks_are_none: raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}") => "malformed";
}

retried! { stream_is_retried:
    a_stream_refused_with_429: status(429) => "rate_limited";
    an_error_in_the_first_event: sse([r#"{"error":{"message":"something broke","type":"server_error"}}"#]) => "server_error";
    a_stream_cut_before_its_first_content: tokens(3).cut_after(0) => "cut";
    a_stream_that_ends_before_its_first_content: sse(["[DONE]"; 0]) => "cut";
    a_stream_silent_before_its_first_content: tokens(3).stall_after(0) => "timed_out";
    an_event_that_is_not_json: sse(["{\"id\": ", "[DONE]"]) => "malformed";
    a_page_instead_of_a_stream: bytes("text/html", "<html>maintenance</html>") => "malformed";
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_one_failed_attempt() {
    // Taken and not listened at: nobody else gets the port, and connections are refused.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/v1", taken.local_addr().unwrap());
    let well = upstream().reply(chat("well")).start().await;
    let proxy = proxy!()
        .set("cooldown.base_ms", 600_000)
        .set("cooldown.max_ms", 600_000)
        .setting("primary_wait_max_retries", 0)
        .backend(backend("p1").set("base_url", url))
        .backend(backend("f1").fallback(&well))
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(proxy.chat().send().await.says(), "well");
    }
    assert_eq!(well.count(), 2);
    let failed = proxy.wait_rows(1, "SELECT backend FROM attempts WHERE outcome = 'connect_failed'").await;
    assert_eq!(failed.len(), 1, "a backend that cooled was asked again at once");
}

#[tokio::test]
async fn retries_end_where_the_setting_says() {
    let up = upstream().reply(status(500)).start().await;
    let mut proxy = proxy!().set("cooldown.base_ms", 1).set("cooldown.max_ms", 1);
    for id in ["p1", "p2", "p3", "p4", "p5", "p6"] {
        proxy = proxy.backend(backend(id).primary(&up));
    }
    let proxy = proxy.setting("max_pool_retries", 2).setting("primary_wait_max_retries", 0).start().await;
    let answer = proxy.chat().send().await;
    assert_eq!(answer.status, 500, "what several backends say alike of one request is told as it is");
    let primary = "SELECT count(*) AS n FROM attempts WHERE lane = 'primary'";
    proxy.wait_rows(1, "SELECT id FROM exchanges").await;
    assert_eq!(proxy.rows(primary)[0]["n"], 3, "one attempt and two retries");
}

/// A request that may change something there is sent as often as the upstream certainly did not act on it.
#[tokio::test]
async fn what_acts_at_the_provider_is_not_done_twice() {
    for (failure, told) in [
        (chat("").reset_before_head(), (502, "upstream_failed")),
        (silence(), (502, "upstream_failed")),
        (error(500, "server_error", "theirs", "boom"), (500, "theirs")),
    ] {
        let pair = pair(failure, || chat("made")).await;
        let answer = pair.proxy.request(Method::POST, "/v1/vector_stores").json(&value!({"name": "s"})).send().await;
        assert_eq!((answer.status.as_u16(), answer.json()["error"]["code"].as_str()), (told.0, Some(told.1)));
        assert_eq!(answer.header("x-pointsman-attempts"), "1");
        assert_eq!(pair.ups.iter().map(Upstream::count).sum::<usize>(), 1, "{}", answer.text());
    }
}

#[tokio::test]
async fn what_was_not_acted_on_or_may_be_done_twice_is_sent_again() {
    for (failure, method, path) in [
        (status(429), Method::POST, "/v1/vector_stores"),
        (status(503), Method::POST, "/v1/vector_stores"),
        (chat("").reset_before_head(), Method::DELETE, "/v1/files/f"),
        (chat("").reset_before_head(), Method::POST, "/v1/moderations"),
    ] {
        let pair = pair(failure, || json(value!({"results": [{"flagged": false}]}))).await;
        let answer = pair.proxy.request(method, path).json(&value!({"name": "s"})).send().await;
        assert_eq!((answer.status.as_u16(), answer.header("x-pointsman-attempts")), (200, "2"), "{path}");
    }
}
