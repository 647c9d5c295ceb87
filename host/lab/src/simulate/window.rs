//! A provider's own rate limit, counted over the minute before.

use std::collections::VecDeque;
use std::time::Duration;

use pointsman_core::time::Timestamp;

const MINUTE: Duration = Duration::from_secs(60);

/// The requests that a provider has taken within the last minute, at most its limit.
pub(super) struct Window {
    rpm: usize,
    taken: VecDeque<Timestamp>,
}

impl Window {
    /// An unused limit of so many requests a minute, at least 1.
    pub(super) fn new(rpm: usize) -> Self {
        Self { rpm: rpm.max(1), taken: VecDeque::new() }
    }

    /// Takes a request, or says after how long it would.
    pub(super) fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        while self.taken.front().is_some_and(|at| now.since(*at) >= MINUTE) {
            self.taken.pop_front();
        }
        if let Some(first) = self.taken.front().filter(|_| self.taken.len() >= self.rpm) {
            return Err(MINUTE - now.since(*first));
        }
        self.taken.push_back(now);
        Ok(())
    }
}
