//! `state` for questions that are asked again: each use is answered as it was recorded, and what was not recorded as well
//! as the record allows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_core::journal::StateUse;

use super::state::State;

/// Source of a policy's `state`.
pub(super) enum Source {
    /// The shared numbers of a running proxy.
    Live(State),
    /// Recorded values.
    Recorded(Arc<Tape>),
}

impl Default for Source {
    fn default() -> Self {
        Source::Live(State::default())
    }
}

impl Source {
    #[inline]
    pub(super) fn get(&self, key: &str, now_ms: u64) -> Option<i64> {
        match self {
            Source::Live(state) => state.get(key, now_ms),
            Source::Recorded(tape) => tape.get(key, now_ms),
        }
    }

    /// Brings a running proxy's number to where a recorded use found it.
    pub(super) fn learn(&self, used: &StateUse, now_ms: u64) {
        match self {
            Source::Live(state) => state.learn(used, now_ms),
            Source::Recorded(_) => {}
        }
    }

    #[inline]
    pub(super) fn set(&self, key: String, value: i64, ttl_ms: u64, now_ms: u64) {
        match self {
            Source::Live(state) => state.set(key, value, ttl_ms, now_ms),
            Source::Recorded(tape) => tape.set(key, value, ttl_ms, now_ms),
        }
    }

    #[inline]
    pub(super) fn add(&self, key: String, delta: i64, ttl_ms: u64, now_ms: u64) -> i64 {
        match self {
            Source::Live(state) => state.add(key, delta, ttl_ms, now_ms),
            Source::Recorded(tape) => tape.add(key, delta, ttl_ms, now_ms),
        }
    }
}

/// The recorded uses of the question being asked, and the numbers as far as questions before it have shown them.
#[derive(Default)]
pub(super) struct Tape(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// None: no question is being asked.
    reel: Option<Recording>,
    /// For what is not recorded: what was last seen of a key in the record, or written to it since.
    seen: State,
}

struct Recording {
    recorded: Vec<StateUse>,
    next: usize,
    unrecorded: u32,
}

impl Tape {
    /// Before a question that once made these uses.
    pub(super) fn begin(&self, recorded: &[StateUse]) {
        self.lock().reel = Some(Recording { recorded: recorded.to_vec(), next: 0, unrecorded: 0 });
    }

    /// After it: how many of the answers were not recorded.
    pub(super) fn end(&self, now_ms: u64) -> u32 {
        let mut inner = self.lock();
        let Some(reel) = inner.reel.take() else { return 0 };
        reel.recorded.iter().for_each(|used| inner.seen.learn(used, now_ms));
        reel.unrecorded
    }

    /// A recorded question was not asked again; what it shows of the numbers counts nevertheless.
    pub(super) fn passed(&self, recorded: &[StateUse], now_ms: u64) {
        let inner = self.lock();
        recorded.iter().for_each(|used| inner.seen.learn(used, now_ms));
    }

    fn get(&self, key: &str, now_ms: u64) -> Option<i64> {
        let mut inner = self.lock();
        let is_it = |used: &StateUse| matches!(used, StateUse::Get { key: recorded, .. } if recorded == key);
        if let Some(StateUse::Get { found, .. }) = inner.recorded(is_it) {
            return found;
        }
        inner.seen.get(key, now_ms)
    }

    fn set(&self, key: String, value: i64, ttl_ms: u64, now_ms: u64) {
        let mut inner = self.lock();
        if let Some(reel) = &mut inner.reel {
            reel.skip_to(|used| matches!(used, StateUse::Set { key: recorded, .. } if *recorded == key));
        }
        inner.seen.set(key, value, ttl_ms, now_ms);
    }

    fn add(&self, key: String, delta: i64, ttl_ms: u64, now_ms: u64) -> i64 {
        let mut inner = self.lock();
        let is_it = |used: &StateUse| matches!(used, StateUse::Add { key: recorded, .. } if *recorded == key);
        let Some(StateUse::Add { delta: recorded, sum, .. }) = inner.recorded(is_it) else {
            return inner.seen.add(key, delta, ttl_ms, now_ms);
        };
        // What was there before, and what this one adds; the record itself where nothing is different, as sums saturate.
        let sum = if delta == recorded { sum } else { sum.saturating_sub(recorded).saturating_add(delta) };
        inner.seen.learn(&StateUse::Add { key, delta, ttl_ms, sum }, now_ms);
        sum
    }

    /// The numbers are whole after every step, so a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The recorded use that is meant; without one the answer counts as not recorded.
    fn recorded(&mut self, is_it: impl Fn(&StateUse) -> bool) -> Option<StateUse> {
        // Outside of questions nothing is recorded.
        let reel = self.reel.as_mut()?;
        let found = reel.skip_to(is_it);
        reel.unrecorded += u32::from(found.is_none());
        found
    }
}

impl Recording {
    /// The next recorded use like this, whatever is passed over; the tape stays where it is when there is none.
    fn skip_to(&mut self, is_it: impl Fn(&StateUse) -> bool) -> Option<StateUse> {
        let place = self.next + self.recorded[self.next..].iter().position(is_it)?;
        self.next = place + 1;
        Some(self.recorded[place].clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(key: &str, found: Option<i64>) -> StateUse {
        StateUse::Get { key: key.to_owned(), found }
    }

    fn add(key: &str, delta: i64, sum: i64) -> StateUse {
        StateUse::Add { key: key.to_owned(), delta, ttl_ms: 0, sum }
    }

    #[test]
    fn what_was_recorded_is_answered_in_its_order() {
        let tape = Tape::default();
        tape.begin(&[get("a", Some(1)), add("n", 2, i64::MAX), get("a", Some(7)), get("b", None)]);
        assert_eq!(tape.get("a", 0), Some(1));
        assert_eq!(tape.add("n".into(), 2, 0, 0), i64::MAX, "a sum that saturated is told as it was");
        assert_eq!(tape.get("a", 0), Some(7));
        assert_eq!(tape.get("b", 0), None);
        assert_eq!(tape.end(0), 0);
    }

    #[test]
    fn what_was_not_recorded_is_what_was_last_seen_or_written() {
        let tape = Tape::default();
        tape.begin(&[get("a", Some(1)), StateUse::Set { key: "w".to_owned(), value: 5, ttl_ms: 100 }]);
        assert_eq!(tape.get("other", 0), None);
        assert_eq!(tape.get("a", 0), Some(1), "what came before it does not hide what was recorded");
        assert_eq!(tape.end(0), 1);
        tape.begin(&[]);
        assert_eq!((tape.get("a", 50), tape.get("w", 50)), (Some(1), Some(5)), "of the question before");
        assert_eq!((tape.get("w", 100), tape.add("own".into(), 3, 0, 100)), (None, 3));
        assert_eq!(tape.end(100), 4);
        tape.begin(&[]);
        assert_eq!(tape.add("own".into(), 3, 0, 100), 6, "its own writes stay");
        tape.set("own".into(), 1, 0, 100);
        assert_eq!(tape.get("own", 100), Some(1));
        assert_eq!(tape.end(100), 2, "a write has no answer to be missed");
    }

    #[test]
    fn another_step_from_a_recorded_sum_starts_where_it_started() {
        let tape = Tape::default();
        tape.begin(&[add("n", 1, 41)]);
        assert_eq!(tape.add("n".into(), 10, 0, 0), 50);
        assert_eq!(tape.end(0), 0);
    }

    #[test]
    fn what_is_not_asked_again_is_seen_too() {
        let tape = Tape::default();
        tape.passed(&[get("a", Some(4)), get("gone", Some(4)), get("gone", None), StateUse::TooMany], 0);
        assert_eq!((tape.get("a", 0), tape.get("gone", 0)), (Some(4), None), "outside of questions nothing is counted");
    }
}
