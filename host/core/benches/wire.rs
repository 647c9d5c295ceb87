//! Cost of reading and writing bodies: per request of 1 KB, per answer, per event. Run with `cargo bench -p
//! pointsman-core`.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue};
use pointsman_core::contract::Operation;
use pointsman_core::dialect::ApiPath;
use pointsman_core::dialect::classify::{classify, classify_event};
use pointsman_core::dialect::facts::BodyFacts;
use pointsman_core::dialect::headers;
use pointsman_core::dialect::resume::Transcript;
use pointsman_core::dialect::splice::{Change, splice};
use pointsman_core::dialect::usage::{BodyTap, StreamTap};
use pointsman_core::http::framing::Framing;
use pointsman_core::http::headers::downstream;
use pointsman_core::http::retry_after::{RateHints, RetryAfter};
use pointsman_core::http::sse::{self, Reader};
use pointsman_core::http::url::{BaseUrl, ClientRoot};
use pointsman_core::table::Dialect;
use pointsman_core::time::Timestamp;

/// A chat request of this many bytes of prompt.
fn request(prompt_bytes: usize) -> Bytes {
    let prompt = "The quick brown fox jumps over the lazy dog. ".repeat(prompt_bytes / 45);
    format!(
        r#"{{"model":"llama-70b","messages":[{{"role":"system","content":"You are terse."}},{{"role":"user","content":"{prompt}"}}],"temperature":0.7,"stream":true,"max_tokens":256}}"#
    )
    .into()
}

/// An answer of about 1 KB.
fn answer() -> Bytes {
    let text = "Lorem ipsum dolor sit amet. ".repeat(22);
    format!(
        r#"{{"id":"chatcmpl-A1b2C3d4","object":"chat.completion","created":1738324800,"model":"meta/llama-3.1-70b-instruct","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":240,"completion_tokens":150,"total_tokens":390,"prompt_tokens_details":{{"cached_tokens":0}}}}}}"#
    )
    .into()
}

const CHUNK_EVENT: &str = "data: {\"id\":\"chatcmpl-A1b2C3d4E5f6\",\"object\":\"chat.completion.chunk\",\"created\":1738324800,\"model\":\"meta/llama-3.1-70b-instruct\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n";
const DELTA_EVENT: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" token\"}}\n\n";

fn header_map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    for (name, body) in [("facts_1kb", request(900)), ("facts_64kb", request(64 * 1024))] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| b.iter(|| BodyFacts::read(black_box(&body), Some("application/json"))));
    }
    let body = request(900);
    let facts = BodyFacts::read(&body, None).expect("not ambiguous");
    let change = Change { model: Some("meta/llama-3.1-70b-instruct"), include_usage: true };
    group.bench_function("splice_1kb", |b| b.iter(|| splice(black_box(&body), &facts, change)));
    let client = header_map(&[
        ("host", "127.0.0.1:8080"),
        ("authorization", "Bearer client"),
        ("content-type", "application/json"),
        ("content-length", "1024"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate"),
        ("user-agent", "OpenAI/Python 1.60.0"),
        ("connection", "keep-alive"),
        ("x-stainless-lang", "python"),
        ("x-stainless-retry-count", "0"),
    ]);
    let key = HeaderValue::from_static("Bearer ours");
    group.bench_function("headers_upstream", |b| {
        b.iter(|| headers::upstream(black_box(&client), Dialect::OPENAI, Operation::Chat, Some(&key)))
    });
    let base = BaseUrl::parse("https://integrate.example.com/v1").expect("a base");
    let path = "/v1/chat/completions";
    group.bench_function("url_join", |b| {
        b.iter(|| {
            let read = ApiPath::read(black_box(path), &client);
            base.join(path, None, ClientRoot::Operation(read.root))
        })
    });
    group.finish();
}

fn answers(c: &mut Criterion) {
    let mut group = c.benchmark_group("answer");
    let body = answer();
    let head = header_map(&[
        ("content-type", "application/json"),
        ("date", "Fri, 31 Jan 2025 12:00:00 GMT"),
        ("content-length", "1024"),
        ("server", "u"),
        ("x-request-id", "req_1"),
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "59"),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-limit-tokens", "150000"),
        ("x-ratelimit-remaining-tokens", "149000"),
        ("x-ratelimit-reset-tokens", "6m0s"),
    ]);
    group.bench_function("classify_200_1kb", |b| {
        b.iter(|| classify(Dialect::OPENAI, 200, &head, black_box(&body), Timestamp::default()))
    });
    let refused = br#"{"error":{"message":"Rate limit reached. Please try again in 20ms.","type":"tokens","code":"rate_limit_exceeded"}}"#;
    group.bench_function("classify_429", |b| {
        b.iter(|| classify(Dialect::OPENAI, 429, &head, black_box(refused), Timestamp::default()))
    });
    group.bench_function("retry_after", |b| {
        b.iter(|| RetryAfter::parse(429, black_box(&head), None, Timestamp::default()))
    });
    group.bench_function("rate_hints", |b| b.iter(|| RateHints::parse(black_box(&head), Timestamp::default())));
    group.bench_function("usage_1kb", |b| {
        b.iter(|| {
            let mut tap = BodyTap::new(Dialect::OPENAI);
            tap.push(black_box(&body));
            tap.counts()
        })
    });
    group.bench_function("headers_downstream", |b| {
        b.iter_batched(|| head.clone(), |mut h| downstream(&mut h), criterion::BatchSize::SmallInput)
    });
    group.finish();
}

/// All figures here are per chunk of the transport, of one event or of sixteen.
fn events(c: &mut Criterion) {
    let mut group = c.benchmark_group("event");
    for (name, text, dialect, operation) in [
        ("chat", CHUNK_EVENT, Dialect::OPENAI, Operation::Chat),
        ("message", DELTA_EVENT, Dialect::ANTHROPIC, Operation::Message),
    ] {
        for per_chunk in [1usize, 16] {
            let chunk = Bytes::from(text.repeat(per_chunk));
            let mut reader = Reader::default();
            group.throughput(Throughput::Elements(per_chunk as u64));
            group.bench_function(format!("sse_{name}_{per_chunk}"), |b| {
                b.iter(|| {
                    reader.push(black_box(&chunk).clone());
                    while let Ok(Some(event)) = reader.next_event() {
                        black_box(event.data);
                    }
                    reader.take()
                })
            });
            let mut tap = StreamTap::new(dialect, operation);
            group.bench_function(format!("sse_usage_{name}_{per_chunk}"), |b| {
                b.iter(|| {
                    reader.push(black_box(&chunk).clone());
                    while let Ok(Some(event)) = reader.next_event() {
                        black_box(tap.see(&event));
                    }
                    reader.take()
                })
            });
        }
        let mut reader = Reader::default();
        reader.push(text.into());
        let event = reader.next_event().expect("short").expect("whole");
        let mut tap = StreamTap::new(dialect, operation);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("usage_{name}"), |b| b.iter(|| tap.see(black_box(&event))));
        group.bench_function(format!("classify_{name}"), |b| b.iter(|| classify_event(dialect, black_box(&event))));
        let begun = || {
            let mut told = Transcript::new(dialect, operation);
            told.see(&event);
            told
        };
        let mut told = begun();
        group.bench_function(format!("transcript_{name}"), |b| {
            b.iter(|| {
                if told.text_bytes() > 100_000 {
                    told = begun();
                }
                told.see(black_box(&event));
            })
        });
        group.bench_function(format!("is_json_{name}"), |b| b.iter(|| sse::is_nonsense(black_box(&event))));
    }
    group.finish();
}

/// Cost of checking the framing of a request: its head; a body costs the same whatever its length.
fn framing(c: &mut Criterion) {
    let mut group = c.benchmark_group("framing");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:8080\r\nauthorization: Bearer sk-client-0123456789\r\n\
        content-type: application/json\r\naccept: application/json\r\naccept-encoding: gzip, deflate\r\n\
        user-agent: OpenAI/Python 1.60.0\r\nconnection: keep-alive\r\nx-stainless-lang: python\r\n";
    for (name, body) in [("head_300b", 0), ("body_64kb", 65_536)] {
        let request = format!("{head}content-length: {body}\r\n\r\n{}", "x".repeat(body));
        let mut framing = Framing::new(65_536);
        group.bench_function(name, |b| b.iter(|| framing.push(black_box(request.as_bytes()))));
    }
    group.finish();
}

criterion_group!(benches, requests, answers, events, framing);
criterion_main!(benches);
