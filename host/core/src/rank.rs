//! Who goes before whom in the waiting line.

use std::cmp::Reverse;

/// Where an exchange stands among all: by priority, then by when it first joined the line. Smaller goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rank {
    /// Larger priorities first.
    priority: Reverse<i32>,
    /// Then by arrival.
    arrival: u64,
}

impl Rank {
    /// Of an exchange that has not waited yet: behind all who wait with at least its priority.
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
