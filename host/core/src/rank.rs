//! Order of exchanges in the queue.

use std::cmp::Reverse;

/// Rank of an exchange: by priority, then by when it first joined the queue. Smaller goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rank {
    /// Larger priorities go first.
    priority: Reverse<i32>,
    /// Position of the first join; `u64::MAX` before it.
    arrival: u64,
}

impl Rank {
    /// Rank of an exchange that has not waited yet: behind all waiting ones of at least its priority.
    pub fn newcomer(priority: i32) -> Self {
        Self { priority: Reverse(priority), arrival: u64::MAX }
    }

    pub(crate) fn is_newcomer(self) -> bool {
        self.arrival == u64::MAX
    }

    /// Joins the line now, unless it has stood there before: its first place counts.
    pub(crate) fn arrived(self, arrival: u64) -> Self {
        if self.is_newcomer() { Self { arrival, ..self } } else { self }
    }
}
