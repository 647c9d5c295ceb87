//! Requests that were just found exhausted: who repeats one at once is answered without another round of attempts.
//!
//! Most clients repeat a request on 429 and 5xx by themselves, several times and at once. Each repetition would begin the
//! attempts and waits of an exchange anew; with what is kept here they multiply nothing: what a client asks in a row is one
//! run, and its tries are counted against what the client would have sent by itself.

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

/// Time after the last try from which a repetition may try in any case: nobody repeats so slowly by himself.
const LONG_AFTER: Duration = Duration::from_secs(10);

/// A repetition of a request that was found exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repetition {
    /// Nobody can have recovered before; it may have passed.
    pub until: Timestamp,
    /// One more try at a backend that has failed is no more than the client itself would have sent.
    pub may_try: bool,
}

/// A request as it is recognised.
#[derive(Clone, Copy, Debug)]
pub struct Repeated<'a> {
    /// Name of the client key; none: no keys are configured.
    pub client: Option<&'a str>,
    /// The model as the client asks for it.
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
    /// Times that it was asked, the first included.
    asked: u32,
    /// Tries at backends.
    tries: u32,
    /// Those of them that repetitions made.
    repeated: u32,
    tried_at: Timestamp,
}

impl Entry {
    fn is_remembered(&self, now: Timestamp) -> bool {
        now < self.until + REMEMBERED
    }

    /// One try more is at most a fifth more than the client has sent, or the first of two repetitions. So no success is lost that
    /// the client would have had by itself: the first exchange has tried as often and for as long.
    fn may_try(&self, now: Timestamp) -> bool {
        let (asked, tries, repeated) = (u64::from(self.asked), u64::from(self.tries), u64::from(self.repeated));
        (tries + 1) * 10 <= asked * 12 || (repeated + 1) * 2 < asked || now >= self.tried_at + LONG_AFTER
    }
}

impl RecentlyExhausted {
    /// Returns true if nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Counts a request that comes again, and says what it may do; `None` where it was not found exhausted before. The body is
    /// hashed only for a client and model that something is remembered of.
    pub fn asked(&mut self, now: Timestamp, request: Repeated<'_>) -> Option<Repetition> {
        let entries = self.pairs.get_mut(&request.pair())?;
        let number = request.number();
        let entry = entries.iter_mut().find(|entry| entry.request == number && entry.is_remembered(now))?;
        entry.asked = entry.asked.saturating_add(1);
        Some(Repetition { until: entry.until, may_try: entry.may_try(now) })
    }

    /// A request was found exhausted after so many tries; nobody can have recovered before `until`.
    pub fn insert(&mut self, now: Timestamp, request: Repeated<'_>, until: Timestamp, tries: u32) {
        self.forget(now);
        let pair = request.pair();
        if self.pairs.len() >= MAX_PAIRS && !self.pairs.contains_key(&pair) {
            self.pairs.clear();
        }
        let entries = self.pairs.entry(pair).or_default();
        let number = request.number();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.request == number) {
            entry.until = until;
            entry.tries = entry.tries.saturating_add(tries);
            entry.repeated = entry.repeated.saturating_add(tries);
            entry.tried_at = if tries > 0 { now } else { entry.tried_at };
            return;
        }
        if entries.len() >= MAX_REQUESTS
            && let Some((soonest, _)) = entries.iter().enumerate().min_by_key(|(_, entry)| entry.until)
        {
            entries.swap_remove(soonest);
        }
        entries.push(Entry { request: number, until, asked: 1, tries, repeated: 0, tried_at: now });
    }

    /// Forgets that a request was exhausted, because it was answered.
    pub fn remove(&mut self, now: Timestamp, request: Repeated<'_>) {
        let pair = request.pair();
        let Some(entries) = self.pairs.get_mut(&pair) else { return };
        let number = request.number();
        entries.retain(|entry| entry.request != number && entry.is_remembered(now));
        if entries.is_empty() {
            self.pairs.remove(&pair);
        }
    }

    /// Forgets what is remembered for long enough.
    pub fn forget(&mut self, now: Timestamp) {
        self.pairs.retain(|_, entries| {
            entries.retain(|entry| entry.is_remembered(now));
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
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    fn request<'a>(client: Option<&'a str>, model: &'a str, body: &'a [u8]) -> Repeated<'a> {
        Repeated { client, model, target: "/v1/chat/completions", body }
    }

    fn until(recent: &mut RecentlyExhausted, now: Timestamp, request: Repeated<'_>) -> Option<Timestamp> {
        recent.asked(now, request).map(|repetition| repetition.until)
    }

    #[test]
    fn only_the_same_request_of_the_same_client_for_the_same_model_is_a_repetition() {
        let mut recent = RecentlyExhausted::default();
        let asked = request(Some("a"), "m", b"{}");
        recent.insert(at(0), asked, at(5_000), 1);
        assert_eq!(until(&mut recent, at(1), asked), Some(at(5_000)));
        for other in [
            request(None, "m", b"{}"),
            request(Some("b"), "m", b"{}"),
            request(Some("a"), "n", b"{}"),
            request(Some("a"), "m", b"{ }"),
            Repeated { target: "/v1/messages", ..asked },
        ] {
            assert_eq!(until(&mut recent, at(1), other), None, "{other:?}");
        }
    }

    #[test]
    fn it_is_remembered_for_a_while_after_the_recovery_and_until_it_is_answered() {
        let mut recent = RecentlyExhausted::default();
        let asked = request(None, "m", b"{}");
        recent.insert(at(0), asked, at(5_000), 1);
        assert_eq!(until(&mut recent, at(64_999), asked), Some(at(5_000)), "it has passed, and the try is the same");
        assert_eq!(until(&mut recent, at(65_000), asked), None);
        recent.insert(at(1_000), asked, at(9_000), 0);
        assert_eq!(until(&mut recent, at(1_001), asked), Some(at(9_000)), "the last word counts");
        recent.remove(at(1_002), asked);
        assert_eq!(until(&mut recent, at(1_003), asked), None);
        assert!(recent.is_empty());
    }

    /// The tries of the repetitions of a request whose first exchange tried so often, where each that may try does.
    fn tries_of_repetitions(first: u32, pause_ms: u64, repetitions: u64) -> Vec<bool> {
        let mut recent = RecentlyExhausted::default();
        let asked = request(None, "m", b"{}");
        recent.insert(at(0), asked, at(0), first);
        let one = |n: u64| {
            let now = at(n * pause_ms);
            let may_try = recent.asked(now, asked).expect("it is remembered").may_try;
            recent.insert(now, asked, now, u32::from(may_try));
            may_try
        };
        (1..=repetitions).map(one).collect()
    }

    #[test]
    fn a_client_that_asks_three_times_has_three_tries_or_one_more_than_its_first_exchange() {
        assert_eq!(tries_of_repetitions(1, 1_000, 2), [true, true], "as it would by itself");
        assert_eq!(tries_of_repetitions(2, 1_000, 2), [false, true]);
        assert_eq!(tries_of_repetitions(3, 1_000, 2), [false, true]);
        assert_eq!(tries_of_repetitions(9, 1_000, 2), [false, true], "who has recovered is found");
        assert_eq!(tries_of_repetitions(3, 20_000, 3), [true, true, true], "who is patient may always try");
    }

    proptest! {
        #[test]
        fn tries_stay_within_a_fifth_more_than_was_asked_or_half_of_the_repetitions(
            first in 1u32..6,
            pause_ms in 0u64..9_000,
            repetitions in 2u64..60,
        ) {
            let tried = tries_of_repetitions(first, pause_ms.min(50_000 / repetitions), repetitions);
            let again = tried.iter().filter(|tried| **tried).count() as u64;
            let (asked, most) = (1 + repetitions, u64::from(first) + again);
            let is_patient = pause_ms.min(50_000 / repetitions) * 2 >= 10_000;
            prop_assert!(most * 10 <= asked * 12 || again * 2 < asked || is_patient, "{most} tries, {asked} asked");
            // Of two repetitions in a row one at least may find that somebody has recovered.
            prop_assert!(tried.windows(2).filter(|pair| !pair[0] && !pair[1]).count() <= tried.len() / 2, "{tried:?}");
            prop_assert!(again * 2 + 1 >= repetitions / 2, "{tried:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = RecentlyExhausted::default();
        for n in 0..10 * MAX_REQUESTS as u64 {
            recent.insert(at(n), request(None, "m", &n.to_be_bytes()), at(n + 50_000), 1);
        }
        assert_eq!(recent.pairs.values().map(Vec::len).sum::<usize>(), MAX_REQUESTS);
        let last = 10 * MAX_REQUESTS as u64 - 1;
        assert!(until(&mut recent, at(last), request(None, "m", &last.to_be_bytes())).is_some(), "the newest are kept");
        for n in 0..3 * MAX_PAIRS {
            recent.insert(at(0), request(None, &n.to_string(), b""), at(50_000), 1);
        }
        assert!(recent.pairs.len() <= MAX_PAIRS);
        recent.forget(at(200_000));
        assert!(recent.is_empty());
    }
}
