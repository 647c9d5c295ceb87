//! The memory budget behind a lock, and what is taken of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pointsman_core::memory_budget::{Holder, MemoryBudget, NoRoom};
use pointsman_core::time::Timestamp;
use pointsman_engine::clock::Clock;
use tokio::sync::Notify;

/// The budget of the process for requests that are received, wait or are answered.
#[derive(Debug)]
pub struct SharedMemory {
    clock: Clock,
    /// The budget where the configuration has none.
    default_total: u64,
    budget: Mutex<MemoryBudget>,
    /// Requests, uploads and answers for which there was no room.
    refused: AtomicU64,
    /// Memory was given back.
    freed: Notify,
}

/// Numbers of the budget at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryNumbers {
    /// Bytes that are held.
    pub held: u64,
    /// Bytes that may be held.
    pub total: u64,
    /// Requests, uploads and answers for which there was no room.
    pub refused: u64,
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
        let budget = Mutex::new(MemoryBudget::new(default_total));
        Arc::new(Self { clock, default_total, budget, refused: AtomicU64::new(0), freed: Notify::new() })
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

    /// The same, as soon as there is room.
    ///
    /// # Errors
    /// [`NoRoom::Ever`].
    pub async fn take_when_free(self: &Arc<Self>, holder: Holder, bytes: u64) -> Result<Grant, NoRoom> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // What is given back from now on is not missed.
            freed.as_mut().enable();
            let since = self.clock.now();
            let taken = self.budget().take(since, &holder, bytes);
            match taken {
                Ok(()) => return Ok(Grant { memory: self.clone(), holder, bytes, since }),
                Err(NoRoom::Now { .. }) => freed.await,
                Err(NoRoom::Ever) => return Err(NoRoom::Ever),
            }
        }
    }

    /// Returns the numbers of this moment.
    pub fn numbers(&self) -> MemoryNumbers {
        let budget = self.budget();
        MemoryNumbers { held: budget.held(), total: budget.total(), refused: self.refused.load(Ordering::Relaxed) }
    }

    /// Counts a request, an upload or an answer that ends for want of room.
    pub fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn budget(&self) -> MutexGuard<'_, MemoryBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    /// The holder of the memory.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Changes what is held.
    ///
    /// # Errors
    /// [`NoRoom`] for more: it holds what it held.
    pub fn resize(&mut self, bytes: u64) -> Result<(), NoRoom> {
        let now = self.memory.clock.now();
        self.memory.budget().resize(now, &self.holder, (self.bytes, bytes), self.since)?;
        if bytes < self.bytes {
            self.memory.freed.notify_waiters();
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let now = self.memory.clock.now();
        self.memory.budget().give_back(now, &self.holder, self.bytes, self.since);
        self.memory.freed.notify_waiters();
    }
}
