//! The thread that writes.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pointsman_core::time::Timestamp;
use rusqlite::{ErrorCode, TransactionBehavior};

use super::insert::Inserter;
use super::journal::TrailInserter;
use super::queue::{Batch, Entry, FlushReply, Queue};
use super::reopen::StoreFile;
use super::rollups::Rollups;
use super::{Clock, LOG_TARGET, Shared, StoreError, StoreLimits, cooldowns, homes, retention};

/// The first pause before a failed batch is tried again, in ms; it doubles up to [`RETRY_MAX_MS`].
const RETRY_MIN_MS: u64 = 250;
/// Longest pause between two tries to write a batch, ms.
const RETRY_MAX_MS: u64 = 5_000;
/// Interval of checking the limits of age and size, ms.
const RETENTION_EVERY_MS: u64 = 60_000;
/// Interval of looking whether the file is still there, ms.
const LOOK_EVERY_MS: u64 = 1_000;
/// Tries more than one, together, for the batches that are written at the end; each may wait for a lock.
const LAST_TRIES: u32 = 2;
/// The pause between two pieces of deletion, in ms.
const RETENTION_PAUSE_MS: u64 = 20;

/// After so many rows, about a tenth of a millisecond, the processor is offered to those who serve. A batch takes milliseconds, and
/// the kernel lets even a thread that is only recording go on for one or more of them before others get their turn.
const ROWS_AT_A_TIME: usize = 16;

/// Owns the writing side of the store.
pub(super) struct Writer {
    connection: Shared,
    /// None: the store is in memory.
    file: Option<StoreFile>,
    queue: Arc<Queue>,
    limits: StoreLimits,
    clock: Clock,
    /// Time of the last check of the limits; `None`: never, or there is more to delete.
    tended: Option<Timestamp>,
    /// Tries left for batches that fail after the end was requested.
    last_tries: u32,
}

impl Writer {
    pub(super) fn new(
        connection: Shared,
        file: Option<StoreFile>,
        queue: Arc<Queue>,
        limits: StoreLimits,
        clock: Clock,
    ) -> Self {
        Self { connection, file, queue, limits, clock, tended: None, last_tries: LAST_TRIES }
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            let patience = match self.tended {
                Some(_) => Duration::from_millis(LOOK_EVERY_MS),
                None => Duration::from_millis(RETENTION_PAUSE_MS),
            };
            if let Some(batch) = self.queue.take(patience) {
                let last = batch.last;
                let replies = self.write_or_lose(batch);
                if last {
                    self.finish();
                    return reply_all(replies);
                }
                // Before the flush is answered, so that who waits for it sees the limits kept as well.
                self.tend();
                reply_all(replies);
            } else {
                self.look();
                self.tend();
            }
        }
    }

    /// Writes all into the file itself, so that a copy of it alone is whole. What hinders it leaves it beside the file.
    fn finish(&mut self) {
        if self.file.is_some() {
            let connection = self.connection.lock();
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }

    /// Looks whether the file is still there, and follows it.
    fn look(&mut self) {
        let had_trouble = self.queue.trouble().is_some();
        match self.follow() {
            Ok(is_new) if is_new || had_trouble => self.queue.set_trouble(None),
            Ok(_) => {}
            Err(error) => self.queue.set_trouble(Some(error.to_string())),
        }
    }

    fn follow(&mut self) -> Result<bool, StoreError> {
        let now_ms = (self.clock)().as_millis();
        self.file.as_mut().map_or(Ok(false), |file| file.follow(now_ms))
    }

    /// Writes the batch, however often it takes; gives up when the error will not pass or the store is closed.
    fn write_or_lose(&mut self, mut batch: Batch) -> Replies {
        let rows = batch.exchanges.len();
        let trails = batch.exchanges.iter().filter(|entry| entry.journal.is_some()).count();
        let mut pause_ms = RETRY_MIN_MS;
        let mut first = true;
        loop {
            let error = match self.write(&batch) {
                Ok(()) => {
                    self.queue.settle_written(rows, trails);
                    free(batch.exchanges);
                    if !first {
                        tracing::info!(target: LOG_TARGET, rows, "the store can be written again");
                    }
                    return Replies { waiting: batch.flushes, lost: None };
                }
                Err(error) => error,
            };
            let reason = error.to_string();
            self.queue.count_failed_batch(&reason);
            let is_closing = batch.last || self.queue.is_closed();
            if is_closing && passes(&error) && self.last_tries > 0 {
                // A lock of half a second ago may be gone.
                self.last_tries -= 1;
                continue;
            }
            if !passes(&error) || is_closing {
                self.queue.settle_lost(rows, trails, reason.clone());
                batch.flushes.extend(self.queue.take_flushes());
                return Replies { waiting: batch.flushes, lost: Some((rows, reason)) };
            }
            if first {
                tracing::warn!(
                    target: LOG_TARGET, rows,
                    reason,
                    "the store cannot be written; requests are served, and their records wait in memory"
                );
                first = false;
            }
            batch.flushes.extend(self.queue.take_flushes());
            reply_all(Replies { waiting: std::mem::take(&mut batch.flushes), lost: Some((rows, reason)) });
            self.queue.pause(Duration::from_millis(pause_ms));
            pause_ms = (pause_ms * 2).min(RETRY_MAX_MS);
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.follow()?;
        if batch.exchanges.is_empty() && batch.cooldowns.is_none() && batch.homes.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut inserter = Inserter::new(&transaction)?;
            let mut trails = TrailInserter::new(&transaction)?;
            let mut rollups = Rollups::begin(&transaction)?;
            for entries in batch.exchanges.chunks(ROWS_AT_A_TIME) {
                for Entry { exchange, journal } in entries {
                    let key = inserter.insert(exchange)?;
                    rollups.add(key, exchange);
                    if let Some(part) = journal {
                        trails.insert(key, part)?;
                    }
                }
                thread::yield_now();
            }
            trails.finish()?;
            rollups.finish(&transaction)?;
        }
        if let Some(rows) = &batch.cooldowns {
            cooldowns::replace(&transaction, rows)?;
        }
        homes::insert(&transaction, &batch.homes)?;
        transaction.commit()?;
        drop(connection);
        if let Some(file) = &mut self.file {
            file.is_written();
        }
        Ok(())
    }

    /// Keeps the limits of age and size, one piece at a time.
    fn tend(&mut self) {
        let now = (self.clock)();
        if self.tended.is_some_and(|last| now.since(last) < Duration::from_millis(RETENTION_EVERY_MS)) {
            return;
        }
        if let Some(file) = &mut self.file {
            file.tend();
        }
        let more = retention::step(&mut self.connection.lock(), &self.limits, now);
        match more {
            Ok(true) => self.tended = None,
            Ok(false) => self.tended = Some(now),
            Err(error) => {
                tracing::warn!(target: LOG_TARGET, %error, "old exchanges could not be deleted from the store; tried again in a minute");
                self.tended = Some(now);
            }
        }
    }
}

/// A trail is many small pieces of memory.
fn free(mut entries: Vec<Entry>) {
    while !entries.is_empty() {
        entries.truncate(entries.len().saturating_sub(ROWS_AT_A_TIME));
        thread::yield_now();
    }
}

/// Callers that wait for a batch, and its result.
struct Replies {
    waiting: Vec<FlushReply>,
    lost: Option<(usize, String)>,
}

fn reply_all(replies: Replies) {
    for waiting in replies.waiting {
        let answer = match &replies.lost {
            None => Ok(()),
            Some((rows, reason)) => Err(StoreError::Unwritten { rows: *rows, reason: reason.clone() }),
        };
        // Nobody listens any more: fine.
        drop(waiting.send(answer));
    }
}

/// Returns true if the same batch may succeed later.
fn passes(error: &StoreError) -> bool {
    // The file may be put back, or made.
    let StoreError::Sql(error) = error else { return true };
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
        )
    )
}
