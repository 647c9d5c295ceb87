//! The waiting line: fair by arrival within priority, bounded in length.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::table::Lane;
use crate::view::{View, Want};

/// Names a place in the queue; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    /// Larger priorities first.
    priority: Reverse<i32>,
    /// Then by arrival.
    arrival: u64,
}

/// One exchange waiting for capacity.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub view: Arc<View>,
    pub want: Want,
    pub lane: Lane,
}

/// Everyone who waits, in the order in which capacity is handed out.
#[derive(Debug)]
pub(crate) struct Queue {
    waiters: BTreeMap<Ticket, Waiter>,
    arrivals: u64,
    limit: usize,
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        Self { waiters: BTreeMap::new(), arrivals: 0, limit }
    }

    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Joins the line; none when it is full.
    pub fn join(&mut self, waiter: Waiter, priority: i32) -> Option<Ticket> {
        if self.waiters.len() >= self.limit {
            return None;
        }
        self.arrivals += 1;
        let ticket = Ticket { priority: Reverse(priority), arrival: self.arrivals };
        self.waiters.insert(ticket, waiter);
        Some(ticket)
    }

    /// Leaves the line; false when it had been left before.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        self.waiters.remove(&ticket).is_some()
    }

    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// In the order in which they are served.
    pub fn tickets(&self) -> Vec<Ticket> {
        self.waiters.keys().copied().collect()
    }

    pub fn get(&self, ticket: Ticket) -> Option<&Waiter> {
        self.waiters.get(&ticket)
    }
}
