//! Homes of things and sessions, by key: bounded, and each for a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Timestamp;

/// Things whose home is remembered.
const MAX_THINGS: usize = 65_536;

/// Sessions whose home is remembered.
const MAX_SESSIONS: usize = 65_536;

/// Time after the last request for which a session's home counts: the longest that providers keep a prompt cache.
const SESSION_TTL: Duration = Duration::from_secs(3_600);

/// The part of a lifetime after which a use is worth another record.
const RENEWED_AFTER: u32 = 10;

/// A thing that was made, or named by a request that its home answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Hash of the thing's id.
    pub key: u64,
    /// Time for which its home counts.
    pub ttl: Duration,
}

/// Homes of things and of sessions.
#[derive(Debug, Default)]
pub struct Affinity {
    things: Homes,
    sessions: Homes,
}

#[derive(Debug, Default)]
struct Homes(HashMap<u64, (Arc<str>, Timestamp)>);

impl Affinity {
    /// Returns true if the home of any thing is known, so that requests are searched for their ids.
    pub fn knows_things(&self) -> bool {
        !self.things.0.is_empty()
    }

    /// The backend that holds the first of these things whose home is known.
    pub fn of_things(&self, now: Timestamp, keys: &[u64]) -> Option<&Arc<str>> {
        keys.iter().find_map(|key| self.things.get(now, *key))
    }

    /// The backend that answered this session last.
    pub fn of_session(&self, now: Timestamp, key: u64) -> Option<&Arc<str>> {
        self.sessions.get(now, key)
    }

    /// Remembers where a thing lives; the end of that time, where it is worth recording.
    pub fn remember_thing(&mut self, now: Timestamp, thing: Learned, backend: &Arc<str>) -> Option<Timestamp> {
        self.things.put(now, thing, backend, MAX_THINGS)
    }

    /// Takes over a thing that was recorded.
    pub fn restore_thing(&mut self, now: Timestamp, key: u64, backend: &Arc<str>, until: Timestamp) {
        let ttl = until.since(now);
        if !ttl.is_zero() {
            self.things.put(now, Learned { key, ttl }, backend, MAX_THINGS);
        }
    }

    /// Remembers which backend answered a session.
    pub fn remember_session(&mut self, now: Timestamp, key: u64, backend: &Arc<str>) {
        self.sessions.put(now, Learned { key, ttl: SESSION_TTL }, backend, MAX_SESSIONS);
    }
}

impl Homes {
    fn get(&self, now: Timestamp, key: u64) -> Option<&Arc<str>> {
        let (backend, until) = self.0.get(&key)?;
        (*until > now).then_some(backend)
    }

    /// The new end, if it is another home or much later than the old end.
    fn put(&mut self, now: Timestamp, thing: Learned, backend: &Arc<str>, max: usize) -> Option<Timestamp> {
        let until = now + thing.ttl;
        if let Some((known, known_until)) = self.0.get_mut(&thing.key) {
            let is_new = **known != **backend || until.since(*known_until) > thing.ttl / RENEWED_AFTER;
            if is_new {
                *known = backend.clone();
                *known_until = until;
            }
            return is_new.then_some(until);
        }
        if self.0.len() >= max {
            self.make_room(now);
        }
        self.0.insert(thing.key, (backend.clone(), until));
        Some(until)
    }

    /// Forgets what is over, and if that is not enough the quarter that ends first.
    fn make_room(&mut self, now: Timestamp) {
        let before = self.0.len();
        self.0.retain(|_, (_, until)| *until > now);
        if self.0.len() > before - before / 4 {
            let mut ends: Vec<Timestamp> = self.0.values().map(|(_, until)| *until).collect();
            let quarter = ends.len() / 4;
            let (_, last, _) = ends.select_nth_unstable(quarter);
            let last = *last;
            let mut left = quarter;
            self.0.retain(|_, (_, until)| {
                let goes = left > 0 && *until <= last;
                left -= usize::from(goes);
                !goes
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    fn day() -> Duration {
        Duration::from_secs(86_400)
    }

    #[test]
    fn a_thing_lives_where_it_was_made_until_its_time_is_over() {
        let mut affinity = Affinity::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert!(!affinity.knows_things());
        let until = affinity.remember_thing(at(0), Learned { key: 7, ttl: day() }, &a);
        assert_eq!(until, Some(at(0) + day()));
        assert_eq!(affinity.of_things(at(0), &[1, 7]), Some(&a));
        assert_eq!(affinity.remember_thing(at(1), Learned { key: 7, ttl: day() }, &a), None, "nothing new");
        assert!(
            affinity.remember_thing(at(9_000_000), Learned { key: 7, ttl: day() }, &a).is_some(),
            "used again, later"
        );
        assert!(affinity.remember_thing(at(9_000_001), Learned { key: 7, ttl: day() }, &b).is_some());
        assert_eq!(affinity.of_things(at(9_000_001), &[7]), Some(&b));
        assert_eq!(affinity.of_things(at(9_000_001) + day(), &[7]), None);
    }

    #[test]
    fn sessions_and_things_of_the_same_key_are_two() {
        let mut affinity = Affinity::default();
        affinity.remember_session(at(0), 7, &"a".into());
        assert_eq!((affinity.of_session(at(0), 7).is_some(), affinity.of_things(at(0), &[7])), (true, None));
        assert_eq!(affinity.of_session(at(3_600_000), 7), None);
    }

    #[test]
    fn a_recorded_thing_is_taken_over_for_the_rest_of_its_time() {
        let mut affinity = Affinity::default();
        affinity.restore_thing(at(10), 7, &"a".into(), at(20));
        affinity.restore_thing(at(10), 8, &"a".into(), at(10));
        assert_eq!(affinity.of_things(at(19), &[7]).map(|id| &**id), Some("a"));
        assert_eq!((affinity.of_things(at(20), &[7]), affinity.of_things(at(10), &[8])), (None, None));
    }

    #[test]
    fn memory_is_bounded_and_those_that_end_first_go_first() {
        let mut homes = Homes::default();
        let a: Arc<str> = "a".into();
        for key in 0..1_000 {
            // Every tenth lives long.
            let ttl = if key % 10 == 0 { day() } else { Duration::from_secs(60) };
            homes.put(at(key), Learned { key, ttl }, &a, 100);
            assert!(homes.0.len() <= 100);
        }
        let long = (0..1_000).step_by(10).filter(|key| homes.0.contains_key(key)).count();
        assert!(long >= 75, "{long}");
        assert!(homes.0.contains_key(&999));
    }
}
