//! The waiting line: fair by arrival within priority, bounded in length.
//!
//! Who wants the same stands in the same file, and only the head of a file is ever looked at: when it cannot be served,
//! nobody behind it can be, so serving costs as much as there are files, however long they are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use crate::rank::Rank;
use crate::table::Lane;
use crate::view::{View, Want};

/// Names a place in the queue; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    rank: Rank,
    /// Tells the waits of one exchange apart.
    sequence: u64,
}

impl Ticket {
    /// The rank to join with again, so that a second wait begins where the first one ended.
    pub fn rank(self) -> Rank {
        self.rank
    }
}

/// Names a file; never used twice.
pub(crate) type FileId = u64;

/// Those who want the same: the tokens each needs, in order.
#[derive(Debug)]
struct File {
    view: Arc<View>,
    lane: Lane,
    want: Want,
    waiters: BTreeMap<Ticket, u32>,
}

impl File {
    fn is_for(&self, view: &View, want: &Want, lane: Lane) -> bool {
        let same_candidates =
            Arc::ptr_eq(&self.want.candidates, &want.candidates) || self.want.candidates == want.candidates;
        self.lane == lane && std::ptr::eq(&*self.view, view) && self.want.model == want.model && same_candidates
    }

    fn head(&self) -> Option<(Ticket, u32)> {
        self.waiters.first_key_value().map(|(ticket, tokens)| (*ticket, *tokens))
    }
}

/// Everyone who waits.
#[derive(Debug)]
pub(crate) struct Queue {
    files: BTreeMap<FileId, File>,
    len: usize,
    /// Numbers tickets and files.
    sequence: u64,
    limit: usize,
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        Self { files: BTreeMap::new(), len: 0, sequence: 0, limit }
    }

    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Joins the line; none when it is full.
    pub fn join(&mut self, view: &Arc<View>, want: &Want, lane: Lane) -> Option<Ticket> {
        if self.len >= self.limit {
            return None;
        }
        self.len += 1;
        self.sequence += 1;
        let ticket = Ticket { rank: want.rank.arrived(self.sequence), sequence: self.sequence };
        match self.files.values_mut().find(|f| f.is_for(view, want, lane)) {
            Some(file) => {
                file.waiters.insert(ticket, want.tokens);
            }
            None => {
                let waiters = BTreeMap::from([(ticket, want.tokens)]);
                let file = File { view: view.clone(), lane, want: want.clone(), waiters };
                self.files.insert(self.sequence, file);
            }
        }
        Some(ticket)
    }

    /// Leaves the line; false when it had been left before.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        let file = self.files.iter_mut().find_map(|(id, f)| f.waiters.remove(&ticket).map(|_| *id));
        file.is_some_and(|id| {
            self.left(id);
            true
        })
    }

    /// Leaves the line, whatever its place, for what it waits for: through which view it looks, in which lane, for what.
    pub fn serve(&mut self, ticket: Ticket) -> Option<(Arc<View>, Lane, Want)> {
        let (id, file) = self.files.iter_mut().find(|(_, file)| file.waiters.contains_key(&ticket))?;
        let tokens = file.waiters.remove(&ticket)?;
        let served = (file.view.clone(), file.lane, Want { tokens, rank: ticket.rank, ..file.want.clone() });
        let id = *id;
        self.left(id);
        Some(served)
    }

    /// The head of a file leaves; answers who is its head now.
    pub fn advance(&mut self, id: FileId) -> Option<Ticket> {
        self.files.get_mut(&id)?.waiters.pop_first()?;
        self.left(id);
        Some(self.files.get(&id)?.head()?.0)
    }

    fn left(&mut self, id: FileId) {
        self.len -= 1;
        if self.files.get(&id).is_some_and(|f| f.waiters.is_empty()) {
            self.files.remove(&id);
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Those who wait in a lane.
    pub fn len_in(&self, lane: Lane) -> usize {
        self.files.values().filter(|f| f.lane == lane).map(|f| f.waiters.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The heads of all files; the first in line is popped first.
    pub fn heads(&self) -> BinaryHeap<Reverse<(Ticket, FileId)>> {
        self.files.iter().filter_map(|(id, f)| Some(Reverse((f.head()?.0, *id)))).collect()
    }

    /// The head of a file: through which view it looks, in which lane it waits, for what.
    pub fn head(&self, id: FileId) -> Option<(Arc<View>, Lane, Want)> {
        let file = self.files.get(&id)?;
        let (ticket, tokens) = file.head()?;
        Some((file.view.clone(), file.lane, Want { tokens, rank: ticket.rank, ..file.want.clone() }))
    }

    /// Does somebody of a better rank wait for the same model on this backend?
    pub fn is_behind(&self, view: &View, want: &Want, lane: Lane, backend: u32) -> bool {
        self.files.values().any(|f| {
            f.lane == lane
                && std::ptr::eq(&*f.view, view)
                && f.head().is_some_and(|(head, _)| head.rank < want.rank)
                && f.want.model == want.model
                && f.want.candidates.contains(&backend)
        })
    }

    /// Those who wait in a lane before this rank. A newcomer counts them all, whatever their priority: that costs
    /// nothing, and few use priorities.
    pub fn ahead(&self, lane: Lane, rank: Rank) -> usize {
        let of_file = |f: &File| {
            if rank.is_newcomer() { f.waiters.len() } else { f.waiters.keys().take_while(|t| t.rank < rank).count() }
        };
        self.files.values().filter(|f| f.lane == lane).map(of_file).sum()
    }
}
