//! The memory budget behind a lock, and what is taken of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_core::memory_budget::{Holder, MemoryBudget, NoRoom};
use pointsman_core::time::Timestamp;
use pointsman_engine::clock::Clock;

/// The budget of the process for requests that are received, wait or are answered.
#[derive(Debug)]
pub struct SharedMemory {
    clock: Clock,
    /// The budget where the configuration has none.
    default_total: u64,
    budget: Mutex<MemoryBudget>,
}

/// Memory that a request holds; dropped, it is given back.
#[derive(Debug)]
pub struct Grant {
    memory: Arc<SharedMemory>,
    holder: Holder,
    bytes: u64,
    since: Timestamp,
}

impl SharedMemory {
    /// A budget of `default_total` bytes, all free.
    pub fn new(clock: Clock, default_total: u64) -> Arc<Self> {
        Arc::new(Self { clock, default_total, budget: Mutex::new(MemoryBudget::new(default_total)) })
    }

    /// Sets the budget that a configuration asks for, bytes.
    pub fn set_total(&self, total: Option<u64>) {
        self.budget().set_total(total.unwrap_or(self.default_total));
    }

    /// Takes memory for a request.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn take(self: &Arc<Self>, holder: Holder, bytes: u64) -> Result<Grant, NoRoom> {
        let since = self.clock.now();
        self.budget().take(since, &holder, bytes)?;
        Ok(Grant { memory: self.clone(), holder, bytes, since })
    }

    fn budget(&self) -> MutexGuard<'_, MemoryBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    /// Changes what is held.
    ///
    /// # Errors
    /// [`NoRoom`] for more: it holds what it held.
    pub fn resize(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let now = self.memory.clock.now();
        self.memory.budget().resize(now, &self.holder, (self.bytes, bytes), self.since)?;
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let now = self.memory.clock.now();
        self.memory.budget().give_back(now, &self.holder, self.bytes, self.since);
    }
}
