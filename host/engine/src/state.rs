//! Small numbers that policies share and keep across swaps: the contract's `state`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use pointsman_core::journal::StateUse;

/// More keys than this push out others.
pub(super) const MAX_KEYS: usize = 10_000;

/// Longer keys are not kept.
pub(super) const MAX_KEY_BYTES: usize = 256;

/// Keys looked at for expired ones when room is needed.
const LOOK_AT_KEYS: usize = 8;

/// The shared numbers. Time is the query's, in ms.
#[derive(Default)]
pub(super) struct State(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    entries: IndexMap<String, Entry>,
    /// Position at which the next search for room starts.
    hand: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    value: i64,
    expires_ms: Option<u64>,
}

impl Entry {
    fn new(value: i64, now_ms: u64, ttl_ms: u64) -> Self {
        Self { value, expires_ms: (ttl_ms > 0).then(|| now_ms.saturating_add(ttl_ms)) }
    }

    fn is_over(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }
}

impl State {
    pub(super) fn get(&self, key: &str, now_ms: u64) -> Option<i64> {
        let inner = self.lock();
        inner.entries.get(key).filter(|entry| !entry.is_over(now_ms)).map(|entry| entry.value)
    }

    pub(super) fn set(&self, key: String, value: i64, ttl_ms: u64, now_ms: u64) {
        self.lock().put(key, Entry::new(value, now_ms, ttl_ms), now_ms);
    }

    pub(super) fn add(&self, key: String, delta: i64, ttl_ms: u64, now_ms: u64) -> i64 {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get_mut(&key).filter(|entry| !entry.is_over(now_ms)) {
            entry.value = entry.value.saturating_add(delta);
            return entry.value;
        }
        inner.put(key, Entry::new(delta, now_ms, ttl_ms), now_ms);
        delta
    }

    /// Brings a number to where a recorded use left it. What a use does not tell of an expiry stays as it is known.
    pub(super) fn learn(&self, used: &StateUse, now_ms: u64) {
        let mut inner = self.lock();
        match used {
            StateUse::Get { key, found: None } => drop(inner.entries.swap_remove(key)),
            StateUse::Get { key, found: Some(value) } => inner.bring(key, *value, 0, now_ms),
            StateUse::Set { key, value, ttl_ms } => inner.put(key.clone(), Entry::new(*value, now_ms, *ttl_ms), now_ms),
            StateUse::Add { key, ttl_ms, sum, delta: _ } => inner.bring(key, *sum, *ttl_ms, now_ms),
            StateUse::TooMany => {}
        }
    }

    /// The numbers are whole after every step, so a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Changes a number that is there, or makes it.
    fn bring(&mut self, key: &str, value: i64, ttl_ms: u64, now_ms: u64) {
        match self.entries.get_mut(key).filter(|entry| !entry.is_over(now_ms)) {
            Some(entry) => entry.value = value,
            None => self.put(key.to_owned(), Entry::new(value, now_ms, ttl_ms), now_ms),
        }
    }

    fn put(&mut self, key: String, entry: Entry, now_ms: u64) {
        if key.len() > MAX_KEY_BYTES {
            return;
        }
        if self.entries.len() >= MAX_KEYS && !self.entries.contains_key(&key) {
            self.make_room(now_ms);
        }
        self.entries.insert(key, entry);
    }

    /// Takes out an expired key among the next few, else the next one: constant time, whatever a policy does.
    fn make_room(&mut self, now_ms: u64) {
        let len = self.entries.len();
        let places = (0..LOOK_AT_KEYS.min(len)).map(|i| (self.hand + i) % len);
        let over = places.clone().find(|&i| self.entries[i].is_over(now_ms));
        let place = over.unwrap_or(self.hand % len);
        self.entries.swap_remove_index(place);
        self.hand = place + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_added_to_and_expire() {
        let state = State::default();
        assert_eq!(state.get("a", 0), None);
        state.set("a".into(), 5, 100, 1_000);
        assert_eq!(state.add("a".into(), 2, 999_999, 1_050), 7, "adding leaves the expiry alone");
        assert_eq!(state.get("a", 1_099), Some(7));
        assert_eq!(state.get("a", 1_100), None);
        assert_eq!(state.add("a".into(), 3, 0, 1_100), 3, "an expired number starts from 0");
        assert_eq!(state.get("a", u64::MAX), Some(3), "without a ttl it stays");
        assert_eq!(state.add("a".into(), i64::MAX, 0, 1_100), i64::MAX, "sums saturate");
    }

    #[test]
    fn a_flood_of_keys_is_bounded_and_pushes_out_expired_ones_first() {
        let state = State::default();
        for i in 0..MAX_KEYS {
            state.set(format!("k{i}"), 1, if i == 3 { 1 } else { 0 }, 0);
        }
        state.set("new".into(), 1, 0, 10);
        assert_eq!(state.lock().entries.len(), MAX_KEYS);
        assert!(!state.lock().entries.contains_key("k3"));
        for i in 0..2 * MAX_KEYS {
            state.set(format!("flood{i}"), 1, 0, 10);
        }
        assert_eq!(state.lock().entries.len(), MAX_KEYS);
        state.set("x".repeat(MAX_KEY_BYTES + 1), 1, 0, 10);
        assert_eq!(state.get(&"x".repeat(MAX_KEY_BYTES + 1), 10), None);
    }
}
