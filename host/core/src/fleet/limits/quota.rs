//! Quotas that a provider reports in its headers.

use std::time::Duration;

use crate::contract::NONE;
use crate::time::Timestamp;

/// Units left of a provider's limit by its own account, until its reset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quota {
    left: u32,
    until: Timestamp,
}

impl Quota {
    /// Sets the units left until the reset at `until`.
    pub fn set(&mut self, left: u32, until: Timestamp) {
        *self = Self { left, until };
    }

    /// Time until `units` fit; zero when they do now, or when the reset has passed.
    pub fn ready_in(&self, now: Timestamp, units: u32) -> Duration {
        if now >= self.until || self.left >= units { Duration::ZERO } else { self.until.since(now) }
    }

    /// Counts units sent against the quota.
    pub fn take(&mut self, units: u32) {
        self.left = self.left.saturating_sub(units);
    }

    /// Units left; [`NONE`] when unknown.
    pub fn left(&self, now: Timestamp) -> u32 {
        if now >= self.until { NONE } else { self.left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learned_quota_blocks_until_its_reset() {
        let at = |ms: u64| Timestamp::from_millis(1_700_000_000_000 + ms);
        let mut q = Quota::default();
        assert_eq!(q.ready_in(at(0), 1), Duration::ZERO);
        q.set(1, at(2_000));
        q.take(1);
        assert_eq!(q.ready_in(at(500), 1), Duration::from_millis(1_500));
        assert_eq!(q.ready_in(at(2_000), 1), Duration::ZERO);
    }
}
