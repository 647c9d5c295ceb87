//! A host in memory.

use std::collections::BTreeMap;

use crate::host::{Host, Level, Spending};

/// A host that remembers: notes, log lines and the shared state, with its expiry.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The time by which numbers expire, since 1970-01-01 UTC.
    pub now_ms: u64,
    /// Notes so far.
    pub notes: Vec<String>,
    /// Log lines so far.
    pub lines: Vec<(Level, String)>,
    /// `x-pointsman-session`.
    pub session: Option<String>,
    /// `x-pointsman-label-NAME`.
    pub labels: BTreeMap<String, String>,
    /// The client key's money.
    pub spending: Spending,
    numbers: BTreeMap<String, (i64, Option<u64>)>,
}

impl Memory {
    /// An empty one, at so many ms since 1970-01-01 UTC.
    pub fn at(now_ms: u64) -> Self {
        Self { now_ms, ..Self::default() }
    }
}

impl Host for Memory {
    fn log(&mut self, level: Level, message: &str) {
        self.lines.push((level, message.to_owned()));
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn session(&self) -> Option<String> {
        self.session.clone()
    }

    fn label(&self, name: &str) -> Option<String> {
        self.labels.get(name).cloned()
    }

    fn spending(&self) -> Spending {
        self.spending
    }

    fn state_get(&mut self, key: &str) -> Option<i64> {
        let (value, expires_ms) = *self.numbers.get(key)?;
        expires_ms.is_none_or(|at| self.now_ms < at).then_some(value)
    }

    fn state_set(&mut self, key: &str, value: i64, ttl_ms: u64) {
        let expires_ms = (ttl_ms > 0).then(|| self.now_ms.saturating_add(ttl_ms));
        self.numbers.insert(key.to_owned(), (value, expires_ms));
    }

    fn state_add(&mut self, key: &str, delta: i64, ttl_ms: u64) -> i64 {
        let Some(value) = self.state_get(key) else {
            self.state_set(key, delta, ttl_ms);
            return delta;
        };
        let sum = value.saturating_add(delta);
        self.numbers.entry(key.to_owned()).and_modify(|entry| entry.0 = sum);
        sum
    }
}
