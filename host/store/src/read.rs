//! The reader of a store. Every call of it blocks on SQLite; in a runtime use `spawn_blocking`.

use std::sync::MutexGuard;

use pointsman_core::time::Timestamp;
use rusqlite::Connection;

use super::Shared;

/// Asks the store; cheap to clone, its clones take turns.
#[derive(Clone, Debug)]
pub struct StoreReader {
    connection: Shared,
}

impl StoreReader {
    pub(super) fn new(connection: Shared) -> Self {
        Self { connection }
    }

    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock()
    }
}

/// Converts to microseconds since the epoch, as keys are.
pub(super) fn micros(time: Timestamp) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
