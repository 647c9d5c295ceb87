//! All pools of an engine: who gives up instances when there is no room for another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::pool::Pool;

/// The pools there are, the oldest first.
#[derive(Default)]
pub(super) struct Pools(Mutex<Vec<Weak<Pool>>>);

impl Pools {
    /// Another pool. It leaves by being dropped.
    pub(super) fn join(&self, pool: &Arc<Pool>) {
        let mut pools = self.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// Lets the oldest of the other pools that has idle instances give them up: revisions that were replaced keep theirs
    /// only as long as nobody needs the room. False: nobody has any.
    pub(super) fn make_room(&self, needy: &Pool) -> bool {
        let others: Vec<Arc<Pool>> = self.lock().iter().filter_map(Weak::upgrade).collect();
        others.iter().filter(|pool| !std::ptr::eq(&***pool, needy)).any(|pool| pool.give_up_idle().count() > 0)
    }

    /// The list is whole after every step, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Pool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
