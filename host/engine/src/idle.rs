//! The idle instances of all revisions: who gives some up when there is no room for another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::slots::Slots;

/// The slots of all pools, the oldest first.
#[derive(Default)]
pub(crate) struct IdleInstances(Mutex<Vec<Weak<Slots>>>);

impl IdleInstances {
    /// Registers the slots of another pool until they are dropped.
    pub(crate) fn register(&self, slots: &Arc<Slots>) {
        let mut all = self.lock();
        all.retain(|slots| slots.strong_count() > 0);
        all.push(Arc::downgrade(slots));
    }

    /// Drops the idle instances of the oldest of the other pools that has any: a replaced revision keeps its own only as
    /// long as nobody needs the room. False: none of them has any.
    pub(crate) fn evict_for(&self, needy: &Arc<Slots>) -> bool {
        let others: Vec<Arc<Slots>> = self.lock().iter().filter_map(Weak::upgrade).collect();
        others.iter().filter(|slots| !Arc::ptr_eq(slots, needy)).any(|slots| slots.drain_idle().count() > 0)
    }

    /// The list is whole after every step, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Slots>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
