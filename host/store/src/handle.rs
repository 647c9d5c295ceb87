//! The side of the store that the hot path writes to.

use std::sync::Arc;

use pointsman_core::record::ExchangeRecord;

use super::queue::{Entry, Queue};
use super::{CooldownRow, HomeRow, JournalPart, StoreError, StoreStats};

/// Puts rows into the store's queue; cheap to clone and to call.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    pub(super) queue: Arc<Queue>,
}

impl StoreHandle {
    /// Hands an ended exchange over, and what the journal keeps of it; never blocks. What the backlog has no room for is
    /// dropped, counted and told.
    pub fn record(&self, exchange: Box<ExchangeRecord>, journal: Option<Box<JournalPart>>) {
        self.queue.push(Entry { exchange, journal });
    }

    /// Replaces the kept cooldowns by these with the next batch.
    pub fn save_cooldowns(&self, rows: Vec<CooldownRow>) {
        self.queue.set_cooldowns(rows);
    }

    /// Writes where stored things live with the next batch; what is beyond [`MAX_HOMES`] by then is not written.
    pub fn save_homes(&self, rows: impl IntoIterator<Item = HomeRow>) {
        self.queue.add_homes(rows);
    }

    /// Waits until everything handed over before is on disk.
    ///
    /// # Errors
    /// When it could not be written now (it is tried again later), or the store is closed.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.queue.flush().await.unwrap_or(Err(StoreError::Closed))
    }

    /// As [`StoreHandle::flush`], for callers outside a runtime.
    ///
    /// # Errors
    /// The same.
    pub fn flush_blocking(&self) -> Result<(), StoreError> {
        self.queue.flush().blocking_recv().unwrap_or(Err(StoreError::Closed))
    }

    /// The reason why the store cannot be written at present; none: it can.
    pub fn trouble(&self) -> Option<String> {
        self.queue.trouble()
    }

    /// Exchanges that wait to be written, or were lost since the store was last written.
    pub fn unwritten(&self) -> usize {
        self.queue.len() + self.queue.loss().map_or(0, |(rows, _)| rows)
    }

    /// Returns the counts so far.
    pub fn stats(&self) -> StoreStats {
        self.queue.stats()
    }
}
