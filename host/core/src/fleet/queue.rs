//! The queue of waiting exchanges: by arrival within priority, bounded in length.
//!
//! Exchanges that want the same form a class, and only the front of a class is ever looked at: when it cannot be served,
//! none behind it can be. So serving the queue costs as much as there are classes, however long they are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use crate::origin::Origin;
use crate::rank::Rank;
use crate::table::Lane;
use crate::view::{View, Want};

/// A place in the queue; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    rank: Rank,
    /// Distinguishes the waits of one exchange.
    sequence: u64,
}

impl Ticket {
    /// The rank to join with again, so that a second wait keeps the place of the first.
    pub fn rank(self) -> Rank {
        self.rank
    }
}

/// Identifies a class; never used twice.
pub(crate) type ClassId = u64;

/// Exchanges that want the same, in the order of their tickets.
#[derive(Debug)]
struct WaitClass {
    view: Arc<View>,
    lane: Lane,
    want: Want,
    /// The backends that its one exchange pauses or has a cooldown of its own at: it keeps no place free there.
    held_back_at: Vec<u32>,
    waiters: BTreeMap<Ticket, Waiter>,
}

/// The part of a want that differs within a class.
#[derive(Clone, Debug)]
struct Waiter {
    tokens: u32,
    origin: Origin,
}

impl WaitClass {
    fn is_for(&self, view: &View, want: &Want, lane: Lane, held_back_at: &[u32]) -> bool {
        let same_candidates =
            Arc::ptr_eq(&self.want.candidates, &want.candidates) || self.want.candidates == want.candidates;
        let own = &self.want.origin;
        self.lane == lane
            && std::ptr::eq(&*self.view, view)
            && self.want.model == want.model
            && same_candidates
            && own.endpoint == want.origin.endpoint
            && self.held_back_at == held_back_at
            && (held_back_at.is_empty() || (own.request, own.exchange) == (want.origin.request, want.origin.exchange))
    }

    fn front(&self) -> Option<Ticket> {
        self.waiters.first_key_value().map(|(ticket, _)| *ticket)
    }

    fn want_of(&self, ticket: Ticket, waiter: Waiter) -> Want {
        let Waiter { tokens, origin } = waiter;
        Want { tokens, origin, rank: ticket.rank, ..self.want.clone() }
    }
}

/// All waiting exchanges, by class.
#[derive(Debug)]
pub(crate) struct Queue {
    classes: BTreeMap<ClassId, WaitClass>,
    len: usize,
    /// The last number given to a ticket or a class.
    sequence: u64,
    limit: usize,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self { classes: BTreeMap::new(), len: 0, sequence: 0, limit }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Joins the queue; `None` when it is full.
    ///
    /// `held_back_at`: its candidates that the exchange pauses at, or its request has a cooldown of its own at.
    pub(super) fn join(&mut self, view: &Arc<View>, want: &Want, lane: Lane, held_back_at: Vec<u32>) -> Option<Ticket> {
        if self.len >= self.limit {
            return None;
        }
        self.len += 1;
        self.sequence += 1;
        let ticket = Ticket { rank: want.rank.arrived(self.sequence), sequence: self.sequence };
        let waiter = Waiter { tokens: want.tokens, origin: want.origin.clone() };
        match self.classes.values_mut().find(|class| class.is_for(view, want, lane, &held_back_at)) {
            Some(class) => {
                class.waiters.insert(ticket, waiter);
            }
            None => {
                let waiters = BTreeMap::from([(ticket, waiter)]);
                let class = WaitClass { view: view.clone(), lane, want: want.clone(), held_back_at, waiters };
                self.classes.insert(self.sequence, class);
            }
        }
        Some(ticket)
    }

    /// Leaves the queue; false when the ticket had left before.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let class = self.classes.iter_mut().find_map(|(id, class)| class.waiters.remove(&ticket).map(|_| *id));
        class.is_some_and(|id| {
            self.note_removal(id);
            true
        })
    }

    /// Removes a ticket from any place in the queue; returns its view, its lane and what it wants.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<(Arc<View>, Lane, Want)> {
        let (id, class) = self.classes.iter_mut().find(|(_, class)| class.waiters.contains_key(&ticket))?;
        let waiter = class.waiters.remove(&ticket)?;
        let taken = (class.view.clone(), class.lane, class.want_of(ticket, waiter));
        let id = *id;
        self.note_removal(id);
        Some(taken)
    }

    /// Removes the front of a class; returns its next front.
    pub(super) fn pop_front(&mut self, id: ClassId) -> Option<Ticket> {
        self.classes.get_mut(&id)?.waiters.pop_first()?;
        self.note_removal(id);
        self.classes.get(&id)?.front()
    }

    fn note_removal(&mut self, id: ClassId) {
        self.len -= 1;
        if self.classes.get(&id).is_some_and(|class| class.waiters.is_empty()) {
            self.classes.remove(&id);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Number of exchanges that wait for a lane.
    pub(super) fn len_in(&self, lane: Lane) -> usize {
        self.classes.values().filter(|class| class.lane == lane).map(|class| class.waiters.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The front of each class; the first in the queue is popped first.
    pub(super) fn front_of_each(&self) -> BinaryHeap<Reverse<(Ticket, ClassId)>> {
        self.classes.iter().filter_map(|(id, class)| Some(Reverse((class.front()?, *id)))).collect()
    }

    /// The front of a class: its view, its lane and what it wants.
    pub(super) fn front(&self, id: ClassId) -> Option<(Arc<View>, Lane, Want)> {
        let class = self.classes.get(&id)?;
        let (ticket, waiter) = class.waiters.first_key_value()?;
        Some((class.view.clone(), class.lane, class.want_of(*ticket, waiter.clone())))
    }

    /// Returns true if an exchange of a better rank waits for the same model on this backend.
    pub(super) fn is_behind(&self, view: &View, want: &Want, lane: Lane, backend: u32) -> bool {
        self.classes.values().any(|class| {
            class.lane == lane
                && !class.held_back_at.contains(&backend)
                && std::ptr::eq(&*class.view, view)
                && class.front().is_some_and(|front| front.rank < want.rank)
                && class.want.model == want.model
                && class.want.candidates.contains(&backend)
        })
    }

    /// Number of exchanges that wait for a lane before this rank. A newcomer counts all of them, whatever their priority:
    /// that is cheap, and priorities are rare.
    pub(super) fn ahead(&self, lane: Lane, rank: Rank) -> usize {
        let count = |class: &WaitClass| {
            if rank.is_newcomer() {
                class.waiters.len()
            } else {
                class.waiters.keys().take_while(|t| t.rank < rank).count()
            }
        };
        self.classes.values().filter(|class| class.lane == lane).map(count).sum()
    }
}
