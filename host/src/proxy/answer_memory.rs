//! Memory of what is held of an answer: until its commit, until an event is whole, and to continue it elsewhere. It counts for
//! whoever asked, in the budget of all requests.

use std::sync::Arc;

use pointsman_core::memory_budget::{Holder, NoRoom};

use super::memory::{Grant, SharedMemory};

/// Bytes that are held without being counted: they are part of what every exchange takes.
const FREE_BYTES: usize = 16 << 10;

/// The least that is added at a time, bytes.
const MIN_GROWTH_BYTES: usize = 64 << 10;

/// Copies of what is held: as it came, and as it is read or given away.
const COPIES: u64 = 2;

/// Memory taken for an answer; dropped, it is given back.
#[derive(Default)]
pub(super) struct AnswerMemory {
    grant: Option<Grant>,
    /// Bytes that may be held with it.
    covered: usize,
}

impl AnswerMemory {
    /// Returns true if so many bytes may be held without taking more.
    pub(super) fn covers(&self, held: usize) -> bool {
        held <= self.covered.max(FREE_BYTES)
    }

    /// Takes memory for so many bytes and as many again, or at least for a few more.
    ///
    /// # Errors
    /// [`NoRoom`]: what was taken stays.
    pub(super) fn cover(&mut self, held: usize, memory: &Arc<SharedMemory>, holder: &Holder) -> Result<(), NoRoom> {
        let ample = held.saturating_mul(2).max(MIN_GROWTH_BYTES);
        self.take(ample, memory, holder).or_else(|_| self.take(held.saturating_add(MIN_GROWTH_BYTES), memory, holder))
    }

    fn take(&mut self, covered: usize, memory: &Arc<SharedMemory>, holder: &Holder) -> Result<(), NoRoom> {
        let bytes = COPIES.saturating_mul(covered as u64);
        match &mut self.grant {
            Some(grant) => grant.resize(bytes)?,
            None => self.grant = Some(memory.take(holder.clone(), bytes)?),
        }
        self.covered = covered;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pointsman_engine::clock::Clock;

    use super::*;

    #[test]
    fn memory_grows_with_what_is_held_and_is_given_back() {
        let memory = SharedMemory::new(Clock::start(), 16 << 20);
        let mut answer = AnswerMemory::default();
        assert!(answer.covers(FREE_BYTES) && !answer.covers(FREE_BYTES + 1));
        for held in [20_000, 100_000, 1_000_000] {
            assert!(!answer.covers(held));
            answer.cover(held, &memory, &Holder::Operator).unwrap();
            assert!(answer.covers(held) && memory.numbers().held >= 2 * held as u64, "{held}");
        }
        let taken = memory.numbers().held;
        assert!(answer.cover(30 << 20, &memory, &Holder::Operator).is_err());
        assert_eq!(memory.numbers().held, taken, "what was taken stays");
        drop(answer);
        assert_eq!(memory.numbers().held, 0);
    }
}
