//! A provider in trouble, at the timings of real life: what the client got and how long it took, and what the providers
//! had to bear. One primary and one paid fallback, the configuration a newcomer has; no time limit is changed.

mod flapping;
mod streams;
mod tries;

use std::time::{Duration, Instant};

use pointsman_tests::{Proxy, Reply, Upstream, backend, chat, proxy, tokens, upstream};

/// A proxy before a primary and a fallback.
struct Pair {
    proxy: Proxy,
    primary: Upstream,
    fallback: Upstream,
}

/// The fallback answers everything: `fallback` to a chat, 60 tokens to a stream.
async fn primary_that_gives(handler: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Pair {
    pair(handler, |wants_stream, _| answer(wants_stream, "fallback")).await
}

async fn pair(
    primary: impl Fn(usize) -> Reply + Send + Sync + 'static,
    fallback: impl Fn(bool, usize) -> Reply + Send + Sync + 'static,
) -> Pair {
    let primary = upstream().handler(move |_, i| primary(i)).start().await;
    let fallback = upstream().handler(move |seen, i| fallback(seen.json()["stream"] == true, i)).start().await;
    let proxy = proxy!()
        .backend(backend("free").primary(&primary).price("*", 0.0, 0.0))
        .backend(backend("paid").fallback(&fallback).price("*", 1.0, 10.0))
        .start()
        .await;
    Pair { proxy, primary, fallback }
}

fn answer(wants_stream: bool, text: &str) -> Reply {
    if wants_stream { tokens(60) } else { chat(text) }
}

/// Returns the text of all 60 tokens.
fn whole_text() -> String {
    (0..60).map(|i| format!("t{i} ")).collect()
}

impl Pair {
    /// Tries, primary and fallback.
    fn tries(&self) -> (usize, usize) {
        (self.primary.count(), self.fallback.count())
    }

    /// The primary's tries in the first `window` after its first one.
    fn primary_tries_within(&self, window: Duration) -> usize {
        let seen = self.primary.seen();
        seen.iter().filter(|s| s.at - seen[0].at <= window).count()
    }
}

/// Runs `f` and tells how long it took.
async fn timed<T>(f: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let value = f.await;
    (value, begun.elapsed())
}
