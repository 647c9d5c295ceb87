//! Counters in the shared state that start again from 0 every minute, hour or day.

use std::fmt::{self, Write};

use crate::host::state;

/// A named number per key and period; periods are aligned to UTC. All instances share it, and it survives a swap of the
/// policy. Counting allocates nothing.
///
/// ```
/// use pointsman_sdk::Counter;
/// use pointsman_sdk::host::scope;
/// use pointsman_sdk::testing::Memory;
///
/// const REQUESTS: Counter = Counter::per_minute("requests");
///
/// scope(Memory::at(59_000), || {
///     assert_eq!(REQUESTS.add(59_000, "agent-1", 1), 1);
///     assert_eq!(REQUESTS.add(59_900, "agent-1", 2), 3);
///     assert_eq!(REQUESTS.get(59_900, "agent-2"), 0);
///     assert_eq!(REQUESTS.get(60_000, "agent-1"), 0, "a new minute");
///     assert_eq!(REQUESTS.get_last(60_000, "agent-1"), 3);
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    name: &'static str,
    period_ms: u64,
}

impl Counter {
    /// One that starts again every minute. The name should be short and no other counter's.
    pub const fn per_minute(name: &'static str) -> Self {
        Self { name, period_ms: 60_000 }
    }

    /// One that starts again every hour.
    pub const fn per_hour(name: &'static str) -> Self {
        Self { name, period_ms: 3_600_000 }
    }

    /// One that starts again at midnight UTC.
    pub const fn per_day(name: &'static str) -> Self {
        Self { name, period_ms: 86_400_000 }
    }

    /// Adds to this period's number; answers the sum.
    pub fn add(&self, now_ms: u64, key: &str, delta: i64) -> i64 {
        let period = now_ms / self.period_ms;
        // Kept for one period more, for `get_last`.
        let ends_ms = (period + 2) * self.period_ms;
        state::add(self.key(period, key).as_str(), delta, ends_ms - now_ms)
    }

    /// This period's number.
    pub fn get(&self, now_ms: u64, key: &str) -> i64 {
        state::get(self.key(now_ms / self.period_ms, key).as_str()).unwrap_or(0)
    }

    /// The number of the period before this one.
    pub fn get_last(&self, now_ms: u64, key: &str) -> i64 {
        let last = (now_ms / self.period_ms).checked_sub(1);
        last.and_then(|period| state::get(self.key(period, key).as_str())).unwrap_or(0)
    }

    fn key(&self, period: u64, key: &str) -> Key {
        let mut text = Key::default();
        // A `Key` takes any text.
        let _ = write!(text, "{}/{}s/{period}/{key}", self.name, self.period_ms / 1_000);
        text.finish()
    }
}

/// A text of bounded length on the stack. Of a longer one the end is replaced by its hash, so that keys which begin
/// alike stay apart.
struct Key {
    bytes: [u8; Self::MAX_BYTES],
    len: usize,
    hash: u64,
    is_cut: bool,
}

impl Default for Key {
    fn default() -> Self {
        Self { bytes: [0; Self::MAX_BYTES], len: 0, hash: 0, is_cut: false }
    }
}

impl Key {
    const MAX_BYTES: usize = 128;

    /// A separator and 16 hexadecimal digits.
    const HASH_BYTES: usize = 17;

    fn finish(mut self) -> Self {
        if self.is_cut {
            self.len = self.as_str().floor_char_boundary(Self::MAX_BYTES - Self::HASH_BYTES);
            let hash = self.hash;
            let _ = write!(self, "#{hash:016x}");
        }
        self
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("only whole characters are put in")
    }
}

impl Write for Key {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.hash = text.bytes().fold(self.hash, |hash, byte| crate::dice::mix(hash ^ u64::from(byte)));
        let room = Self::MAX_BYTES - self.len;
        let fits = text.floor_char_boundary(room);
        self.is_cut |= fits < text.len();
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::scope;
    use crate::testing::Memory;

    #[test]
    fn long_keys_are_cut_and_stay_apart() {
        let counter = Counter::per_hour("n");
        let long = |end: &str| counter.key(7, &format!("{}{end}", "ä".repeat(200)));
        assert_eq!(counter.key(7, "short").as_str(), "n/3600s/7/short");
        for end in ["a", "b"] {
            assert!(long(end).as_str().len() <= Key::MAX_BYTES);
            assert!(long(end).as_str().starts_with("n/3600s/7/ää"));
        }
        assert_ne!(long("a").as_str(), long("b").as_str());
        assert_eq!(long("a").as_str(), long("a").as_str());
    }

    #[test]
    fn a_number_is_kept_until_the_end_of_the_period_after_its_own() {
        let counter = Counter::per_day("spent");
        const DAY_MS: u64 = 86_400_000;
        let (_, memory) = scope(Memory::at(DAY_MS - 1), || counter.add(DAY_MS - 1, "a", 5));
        let last_at = |now_ms| {
            let mut memory = memory.clone();
            memory.now_ms = now_ms;
            scope(memory, || counter.get_last(now_ms, "a")).0
        };
        assert_eq!(last_at(DAY_MS), 5);
        assert_eq!(last_at(2 * DAY_MS - 1), 5);
        assert_eq!(last_at(2 * DAY_MS), 0);
    }
}
