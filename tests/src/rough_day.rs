//! A day on which no provider is at its best, lived through by the real proxy over real sockets, so that its journal has
//! everything in it: waits, retries, rate limits, failures, resumed streams, clients that leave.

use futures_util::StreamExt;
use http::Method;
use serde_json::json;

use crate::client::Request;
use crate::proxy::{Backend, Proxy, ProxyBuilder, backend};
use crate::reply::{Reply, chat, status, tokens};
use crate::upstream::{Seen, Upstream, upstream};

/// Requests under way at a time.
const AT_A_TIME: usize = 24;

/// Events of a stream.
const TOKENS: usize = 5;

/// Result of such a day.
pub struct RoughDay {
    /// The proxy; it has ended, and its store is whole.
    pub proxy: Proxy,
    /// Every answer's status and how many there were.
    pub statuses: std::collections::BTreeMap<u16, usize>,
}

/// Sends so many requests through a proxy whose policy is the builder's.
pub async fn rough_day(proxy: ProxyBuilder, exchanges: usize) -> RoughDay {
    let limited = provider(|i| (i % 9 == 3).then(|| status(429).header("retry-after-ms", 20))).await;
    let failing = provider(|i| match i {
        i if i % 11 == 5 => Some(status(500)),
        i if i % 29 == 7 => Some(chat("").reset_before_head()),
        _ => None,
    })
    .await;
    let cutting = upstream().handler(|seen, i| if i % 8 == 1 { answer(seen).cut_after(2) } else { answer(seen) });
    let cutting = cutting.start().await;
    let paid = provider(|i| (i % 50 == 9).then(|| status(503))).await;
    let mut proxy = [("cooldown.base_ms", 20), ("cooldown.max_ms", 200), ("cooldown.retry_after_floor_ms", 10)]
        .into_iter()
        // A debug build on a busy machine is slower than what operators run.
        .chain([("policy.deadline_ms", 90)])
        .fold(proxy, |proxy, (path, value)| proxy.set(path, value))
        .set("log.exchanges", false)
        .backend(serves(backend("limited").primary(&limited), "eu").max_concurrency(6))
        .backend(serves(backend("failing").primary(&failing), "us").max_concurrency(6))
        .backend(serves(backend("cutting").primary(&cutting), "eu").rpm(60_000))
        .backend(serves(backend("paid").fallback(&paid), "us").price("*", 100.0, 100.0))
        .client_with("free", "key-of-free", &[("priority_max", 100)])
        .client_with("thrifty", "key-of-thrifty", &[("budget_usd_per_day", 1_000)])
        .start()
        .await;
    let requests = futures_util::stream::iter(0..exchanges).map(|i| send(&proxy, i));
    let statuses = requests.buffer_unordered(AT_A_TIME).fold(Default::default(), async |mut all, status| {
        *std::collections::BTreeMap::<u16, usize>::entry(&mut all, status).or_default() += 1;
        all
    });
    let statuses = statuses.await;
    proxy.sigterm();
    proxy.wait_exit().await;
    RoughDay { proxy, statuses }
}

async fn provider(trouble: impl Fn(usize) -> Option<Reply> + Send + Sync + 'static) -> Upstream {
    upstream().handler(move |seen, i| trouble(i).unwrap_or_else(|| answer(seen))).start().await
}

fn answer(seen: &Seen) -> Reply {
    if seen.json()["stream"] == true { tokens(TOKENS) } else { chat("hello") }
}

fn serves(backend: Backend, region: &str) -> Backend {
    backend.model("small", "maker/small").model("large", "maker/large").set("labels.region", region).set("weight", 2)
}

/// One request; its status.
async fn send(proxy: &Proxy, i: usize) -> u16 {
    let streaming = i.is_multiple_of(2);
    let prompt = "word ".repeat(if i.is_multiple_of(7) { 200 } else { 3 });
    let body = json!({
        "model": if i.is_multiple_of(3) { "large" } else { "small" },
        "stream": streaming,
        "messages": [{ "role": "user", "content": prompt }],
    });
    let mut request: Request = proxy
        .request(Method::POST, "/v1/chat/completions")
        .json(&body)
        .bearer(if i.is_multiple_of(4) { "key-of-thrifty" } else { "key-of-free" });
    if i % 5 < 3 {
        request = request.header("x-pointsman-session", &format!("session {}", i % 40));
    }
    if i % 6 < 2 {
        request = request.header("x-pointsman-label-region", if i % 12 < 6 { "eu" } else { "us" });
    }
    if i.is_multiple_of(10) {
        request = request.header("x-pointsman-priority", "10");
    }
    if !streaming {
        return request.send().await.status.as_u16();
    }
    let mut stream = request.stream().await;
    let status = stream.status.as_u16();
    // Some clients leave in the middle.
    if i.is_multiple_of(38) {
        stream.next().await;
    } else {
        stream.rest().await;
    }
    status
}
