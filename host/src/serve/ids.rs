//! Request ids: ours, or the client's where it sent a usable one.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;

/// A longer id of a client's is not taken over.
const MAX_ID_BYTES: usize = 128;

/// Makes ids that are unique for the life of the store: a random prefix for the process, then a counter.
pub(super) struct RequestIds {
    prefix: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids with a prefix of their own.
    pub(super) fn new() -> Self {
        Self { prefix: RandomState::new().build_hasher().finish(), next: AtomicU64::new(1) }
    }

    /// The id of a request.
    pub(super) fn of(&self, headers: &HeaderMap) -> String {
        let theirs = headers.get("x-request-id").and_then(|v| v.to_str().ok());
        match theirs {
            Some(id) if usable(id) => id.to_owned(),
            _ => format!("req_{:016x}{:08x}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

fn usable(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_BYTES && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_id(id: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", id.parse().expect("a header value"));
        headers
    }

    #[test]
    fn a_usable_id_of_the_client_is_kept_and_any_other_is_replaced() {
        let ids = RequestIds::new();
        assert_eq!(ids.of(&with_id("abc-1.2:3_4")), "abc-1.2:3_4");
        for unusable in ["with space", "semi;colon", &"x".repeat(129)] {
            assert!(ids.of(&with_id(unusable)).starts_with("req_"));
        }
        assert_ne!(ids.of(&HeaderMap::new()), ids.of(&HeaderMap::new()));
    }
}
