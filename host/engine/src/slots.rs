//! Instances kept warm between questions.

use std::sync::{Mutex, MutexGuard, TryLockError};

use super::instance::Instance;

/// Instances kept; more threads than this do not decide at the same time.
const MAX_KEPT: usize = 32;

/// A place for an instance, locked while the instance is asked.
type Slot = Mutex<Option<Instance>>;

/// The instances of one pool. The first free one is taken: it was used last, so its memory is still in the processor's cache.
pub(crate) struct Slots([Slot; MAX_KEPT]);

/// An instance in use, or an empty place for one.
pub(crate) enum Taken<'a> {
    /// In its place, where it stays for the next question.
    Kept(MutexGuard<'a, Option<Instance>>),
    /// Fresh, with a place kept for it or without one.
    Fresh(Instance),
}

impl Taken<'_> {
    /// Returns the instance, for one question.
    #[inline]
    pub(crate) fn instance(&mut self) -> &mut Instance {
        match self {
            Taken::Kept(place) => place.as_mut().expect("a place is taken only with its instance"),
            Taken::Fresh(instance) => instance,
        }
    }

    /// Drops the instance instead of keeping it for the next question.
    pub(crate) fn discard(self) {
        if let Taken::Kept(mut place) = self {
            *place = None;
        }
    }
}

/// The result of looking for an instance.
pub(crate) enum Found<'a> {
    Instance(Taken<'a>),
    /// No instance is free; a place for one is, or none.
    None(Option<EmptySlot<'a>>),
}

/// A place without an instance, reserved.
pub(crate) struct EmptySlot<'a>(MutexGuard<'a, Option<Instance>>);

impl<'a> EmptySlot<'a> {
    /// Puts an instance in, to be used at once.
    pub(crate) fn fill(mut self, instance: Instance) -> Taken<'a> {
        *self.0 = Some(instance);
        Taken::Kept(self.0)
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Slot::default()))
    }
}

impl Slots {
    /// Takes an idle instance, or a place for a new one.
    #[inline]
    pub(crate) fn take(&self) -> Found<'_> {
        match self.0.first().and_then(lock) {
            Some(place) if place.is_some() => Found::Instance(Taken::Kept(place)),
            _ => self.take_any(),
        }
    }

    fn take_any(&self) -> Found<'_> {
        let mut empty = None;
        for slot in &self.0 {
            let Some(place) = lock(slot) else { continue };
            if place.is_some() {
                return Found::Instance(Taken::Kept(place));
            }
            empty = empty.or(Some(EmptySlot(place)));
        }
        Found::None(empty)
    }

    /// Keeps an instance where there is room for it; else it is dropped.
    pub(crate) fn keep(&self, instance: Instance) {
        let empty = self.0.iter().filter_map(lock).find(|place| place.is_none());
        if let Some(mut place) = empty {
            *place = Some(instance);
        }
    }

    /// Takes out all instances that are not in use; dropping them frees their memory.
    pub(crate) fn drain_idle(&self) -> impl Iterator<Item = Instance> {
        self.0.iter().filter_map(lock).filter_map(|mut place| place.take())
    }

    /// The linear memory of the largest instance that is not in use, in bytes.
    pub(crate) fn largest_bytes(&self) -> usize {
        let of = |slot: &Slot| lock(slot).and_then(|place| place.as_ref().map(Instance::memory_bytes));
        self.0.iter().filter_map(of).max().unwrap_or(0)
    }
}

/// Locks a slot that is free. An instance that a panic left in one is dropped.
#[inline]
fn lock(slot: &Slot) -> Option<MutexGuard<'_, Option<Instance>>> {
    match slot.try_lock() {
        Ok(place) => Some(place),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Poisoned(poisoned)) => {
            slot.clear_poison();
            let mut place = poisoned.into_inner();
            *place = None;
            Some(place)
        }
    }
}
