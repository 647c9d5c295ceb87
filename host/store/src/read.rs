//! The reader of a store. Every call of it blocks on SQLite; in a runtime use `spawn_blocking`.

use std::sync::MutexGuard;

use pointsman_core::time::Timestamp;
use rusqlite::Connection;
use serde::Serialize;

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

/// Bytes of a row in an answer, with the comma behind it.
pub(super) fn json_bytes(row: &impl Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(1);
    // It fails for nothing that a row has.
    drop(serde_json::to_writer(&mut count, row));
    count.0
}
