//! The origin of an attempt: which request it is for, of whom, and how large. Failures are compared by it, so that what one
//! request or one client brings about is not held against a backend.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use crate::contract::Operation;
use crate::random::mix;

/// The origin of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Number of the request: the same client, path and body give the same. 0: unknown, and like no other.
    pub request: u64,
    /// Number of the exchange; 0: unknown.
    pub exchange: u64,
    /// Number of the client key; 0: none is configured.
    pub client: u64,
    /// The part of the API that it uses.
    pub endpoint: Endpoint,
    /// Size of body, prompt and answer.
    pub size: Size,
}

/// The size of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of the body; 0: unknown.
    pub body_bytes: u32,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u32,
    /// The most tokens that the answer may have; 0: the client did not say.
    pub answer_tokens: u32,
}

/// A part of a provider's API that a key may be allowed to use or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An operation on a model.
    Of(Operation),
    /// Any other path: whether it reads, and the words of the path behind its version.
    Path(Arc<str>),
}

/// Words of a path that name an endpoint; what follows them are ids.
const MAX_PATH_WORDS: usize = 2;

/// The longest word of a path that is kept, in bytes.
const MAX_WORD_BYTES: usize = 32;

impl Endpoint {
    /// The endpoint of a request.
    pub fn new(operation: Operation, method: &Method, path: &str) -> Self {
        if asks_model(operation) { Endpoint::Of(operation) } else { Endpoint::Path(path_words(method, path).into()) }
    }

    /// Returns its name in logs and records.
    pub fn as_str(&self) -> &str {
        match self {
            Endpoint::Of(operation) => operation.as_str(),
            Endpoint::Path(words) => words,
        }
    }
}

/// Returns true if the operation asks a model for an answer; others manage what a provider keeps.
pub const fn asks_model(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Chat | Operation::Completion | Operation::Response | Operation::Message | Operation::Embedding
    )
}

/// `GET files` for `GET /v1/files/file-1/content`: permissions are given by the kind of object, to read or to write.
fn path_words(method: &Method, path: &str) -> String {
    let mut words = if matches!(*method, Method::GET | Method::HEAD) { "GET".to_owned() } else { "POST".to_owned() };
    let is_version = |word: &&str| word.starts_with('v') && word[1..].starts_with(|c: char| c.is_ascii_digit());
    let is_word = |word: &&str| {
        word.len() <= MAX_WORD_BYTES && word.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'.'))
    };
    let segments = || path.split('/').filter(|word| !word.is_empty());
    let behind_version = segments().position(|word| is_version(&word)).map_or(0, |at| at + 1);
    for word in segments().skip(behind_version).take_while(is_word).take(MAX_PATH_WORDS) {
        words.push(' ');
        words.push_str(word);
    }
    words
}

impl Origin {
    /// The origin of a request of which nothing else is known.
    pub fn unknown(operation: Operation) -> Self {
        Self { request: 0, exchange: 0, client: 0, endpoint: Endpoint::Of(operation), size: Size::default() }
    }
}

/// The number of a request; never 0. Its headers count as far as they say more than which attempt of which client it is.
/// `seed` differs between processes, so that nobody can find two bodies of one number.
pub fn request_number<'a>(
    seed: u64,
    client: u64,
    method: &Method,
    target: &str,
    headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    body: &[u8],
) -> u64 {
    let head = [method.as_str().as_bytes(), target.as_bytes()];
    let head = head.into_iter().fold(mix(seed ^ mix(client)), hash);
    // In any order: clients and proxies before us may change it.
    let of_header =
        |(name, value): (&HeaderName, &HeaderValue)| hash(hash(seed, name.as_str().as_bytes()), value.as_bytes());
    let headers = headers.filter(|(name, _)| is_peculiar(name)).map(of_header).fold(0, u64::wrapping_add);
    hash(head ^ mix(headers), body).max(1)
}

/// Returns false for headers that most clients send, and for those that differ between two attempts of one request.
pub fn is_peculiar(name: &HeaderName) -> bool {
    let name = name.as_str();
    let begins = |start: &&str| name.starts_with(start);
    let has = |word: &&str| name.contains(word);
    name.contains('-')
        && !["accept-", "content-", "sec-", "x-stainless-", "x-b3-"].iter().any(begins)
        && !["request-id", "trace", "span", "idempotency", "correlation", "retry", "timestamp", "-date"].iter().any(has)
        && !matches!(name, "user-agent" | "anthropic-version" | "cache-control" | "x-app")
}

/// A hash of bytes by folded multiplication (as wyhash does); a fraction of a nanosecond a byte.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const FACTORS: [u64; 2] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db];
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        (product >> 64) as u64 ^ product as u64
    };
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let mut state = seed ^ FACTORS[0];
    let mut pairs = bytes.chunks_exact(16);
    for pair in &mut pairs {
        state = fold(word(&pair[..8]) ^ FACTORS[1], word(&pair[8..]) ^ state);
    }
    let (low, high) = pairs.remainder().split_at(pairs.remainder().len().min(8));
    mix(fold(word(low) ^ FACTORS[1], word(high) ^ state) ^ bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_endpoint_is_an_operation_or_the_words_of_a_path() {
        let named = |method: Method, path: &str| Endpoint::new(Operation::Other, &method, path).as_str().to_owned();
        for (method, path, name) in [
            (Method::GET, "/v1/files", "GET files"),
            (Method::HEAD, "/v1/files/", "GET files"),
            (Method::GET, "/v1/files/file-abc123/content", "GET files"),
            (Method::POST, "/v1/files", "POST files"),
            (Method::DELETE, "/v1/files/file-abc123", "POST files"),
            (Method::POST, "/v1/audio/speech", "POST audio speech"),
            (Method::GET, "/v1/fine_tuning/jobs/ftjob-1/events", "GET fine_tuning jobs"),
            (Method::GET, "/", "GET"),
            (Method::GET, "/vector_stores/vs_1", "GET vector_stores"),
            (Method::GET, "/openai/v1/files", "GET files"),
        ] {
            assert_eq!(named(method, path), name, "{path}");
        }
        let chat = Endpoint::new(Operation::Chat, &Method::POST, "/v1/chat/completions");
        assert_eq!((chat.as_str(), &chat), ("chat", &Endpoint::Of(Operation::Chat)));
    }

    proptest! {
        #[test]
        fn one_number_for_one_request(a in prop::collection::vec(any::<u8>(), 0..80), b in prop::collection::vec(any::<u8>(), 0..80), seed in any::<u64>()) {
            let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
                pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
            };
            let numbered = |headers: &HeaderMap, body: &[u8], client| {
                request_number(seed, client, &Method::POST, "/v1/x", headers.iter(), body)
            };
            let number = |body: &[u8], client| numbered(&HeaderMap::new(), body, client);
            let retried = headers(&[("x-stainless-retry-count", "1"), ("x-request-id", "r"), ("user-agent", "u")]);
            prop_assert_eq!(number(&a, 1), numbered(&retried, &a, 1));
            prop_assert_ne!(number(&a, 1), numbered(&headers(&[("openai-beta", "b")]), &a, 1));
            prop_assert_eq!(number(&a, 1), number(&a, 1));
            prop_assert_eq!(number(&a, 1) == number(&b, 1), a == b);
            prop_assert_ne!(number(&a, 1), number(&a, 2));
            let mut zeros = a.clone();
            zeros.push(0);
            prop_assert_ne!(number(&a, 1), number(&zeros, 1));
        }

        #[test]
        fn endpoints_are_few_and_short(path in "(/[a-z0-9_-]{0,40}){0,6}") {
            let endpoint = Endpoint::new(Operation::Other, &Method::GET, &path);
            prop_assert!(endpoint.as_str().len() <= 4 + MAX_PATH_WORDS * (MAX_WORD_BYTES + 1));
        }
    }
}
