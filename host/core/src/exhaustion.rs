//! Requests that were just found exhausted: who repeats one at once is answered without another round of attempts.
//!
//! Most clients repeat a request on 429 and 5xx by themselves, several times and at once. Each repetition would begin the
//! attempts and waits of an exchange anew; with what is kept here they multiply nothing.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::time::Timestamp;

/// Clients and models looked after; beyond them all are begun anew.
const MAX_PAIRS: usize = 1_024;

/// Requests of one client for one model; beyond them the one that ends first is forgotten.
const MAX_REQUESTS: usize = 64;

/// Time for which a request is remembered once a backend can have recovered: a repetition within it is the same try.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A request as it is recognised.
#[derive(Clone, Copy, Debug)]
pub struct Repeated<'a> {
    /// Name of the client key; none: no keys are configured.
    pub client: Option<&'a str>,
    /// The model as asked.
    pub model: &'a str,
    /// The path with its query.
    pub target: &'a str,
    /// The body as it came.
    pub body: &'a [u8],
}

/// Requests that were just found exhausted, each with the time until which no backend can have recovered.
#[derive(Debug, Default)]
pub struct RecentlyExhausted {
    pairs: HashMap<u64, Vec<Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    request: u64,
    until: Timestamp,
}

impl RecentlyExhausted {
    /// Returns true if nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Returns the time until which no backend can have recovered, for a request that was found exhausted before; it may
    /// have passed. The body is hashed only for a client and model that something is remembered of.
    pub fn until(&self, now: Timestamp, request: Repeated<'_>) -> Option<Timestamp> {
        let entries = self.pairs.get(&request.pair())?;
        let number = request.number();
        let entry = entries.iter().find(|entry| entry.request == number)?;
        (now < entry.until + REMEMBERED).then_some(entry.until)
    }

    /// A request was found exhausted; nobody can have recovered before `until`.
    pub fn insert(&mut self, now: Timestamp, request: Repeated<'_>, until: Timestamp) {
        self.forget(now);
        let pair = request.pair();
        if self.pairs.len() >= MAX_PAIRS && !self.pairs.contains_key(&pair) {
            self.pairs.clear();
        }
        let entries = self.pairs.entry(pair).or_default();
        let number = request.number();
        entries.retain(|entry| entry.request != number && now < entry.until + REMEMBERED);
        if entries.len() >= MAX_REQUESTS
            && let Some((soonest, _)) = entries.iter().enumerate().min_by_key(|(_, entry)| entry.until)
        {
            entries.swap_remove(soonest);
        }
        entries.push(Entry { request: number, until });
    }

    /// A request was answered.
    pub fn remove(&mut self, now: Timestamp, request: Repeated<'_>) {
        let pair = request.pair();
        let Some(entries) = self.pairs.get_mut(&pair) else { return };
        let number = request.number();
        entries.retain(|entry| entry.request != number && now < entry.until + REMEMBERED);
        if entries.is_empty() {
            self.pairs.remove(&pair);
        }
    }

    /// Forgets what is remembered for long enough.
    pub fn forget(&mut self, now: Timestamp) {
        self.pairs.retain(|_, entries| {
            entries.retain(|entry| now < entry.until + REMEMBERED);
            !entries.is_empty()
        });
    }
}

impl Repeated<'_> {
    fn pair(self) -> u64 {
        hash(&(self.client, self.model))
    }

    fn number(self) -> u64 {
        hash(&(self.target, self.body))
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    fn request<'a>(client: Option<&'a str>, model: &'a str, body: &'a [u8]) -> Repeated<'a> {
        Repeated { client, model, target: "/v1/chat/completions", body }
    }

    #[test]
    fn only_the_same_request_of_the_same_client_for_the_same_model_is_a_repetition() {
        let mut recent = RecentlyExhausted::default();
        let asked = request(Some("a"), "m", b"{}");
        recent.insert(at(0), asked, at(5_000));
        assert_eq!(recent.until(at(1), asked), Some(at(5_000)));
        for other in [
            request(None, "m", b"{}"),
            request(Some("b"), "m", b"{}"),
            request(Some("a"), "n", b"{}"),
            request(Some("a"), "m", b"{ }"),
            Repeated { target: "/v1/messages", ..asked },
        ] {
            assert_eq!(recent.until(at(1), other), None, "{other:?}");
        }
    }

    #[test]
    fn it_is_remembered_for_a_while_after_the_recovery_and_until_it_is_answered() {
        let mut recent = RecentlyExhausted::default();
        let asked = request(None, "m", b"{}");
        recent.insert(at(0), asked, at(5_000));
        assert_eq!(recent.until(at(64_999), asked), Some(at(5_000)), "it has passed, and the try is the same");
        assert_eq!(recent.until(at(65_000), asked), None);
        recent.insert(at(1_000), asked, at(9_000));
        assert_eq!(recent.until(at(1_001), asked), Some(at(9_000)), "the last word counts");
        recent.remove(at(1_002), asked);
        assert_eq!(recent.until(at(1_003), asked), None);
        assert!(recent.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = RecentlyExhausted::default();
        for n in 0..10 * MAX_REQUESTS as u64 {
            recent.insert(at(n), request(None, "m", &n.to_be_bytes()), at(n + 50_000));
        }
        assert_eq!(recent.pairs.values().map(Vec::len).sum::<usize>(), MAX_REQUESTS);
        let last = 10 * MAX_REQUESTS as u64 - 1;
        assert!(recent.until(at(last), request(None, "m", &last.to_be_bytes())).is_some(), "the newest are kept");
        for n in 0..3 * MAX_PAIRS {
            recent.insert(at(0), request(None, &n.to_string(), b""), at(50_000));
        }
        assert!(recent.pairs.len() <= MAX_PAIRS);
        recent.forget(at(200_000));
        assert!(recent.is_empty());
    }
}
