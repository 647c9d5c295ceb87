//! The durable record of exchanges: SQLite, written by one thread in batches, read over a second connection.
//!
//! The hot path only appends to a bounded queue. A batch is committed at most [`BATCH_DELAY_MS`] after its first row, so
//! that a killed process loses less than a second; with `synchronous = NORMAL` only a power cut may lose more.
//! The file opens in any SQLite tool: words are words, times have readable columns beside them.

mod bodies;
mod columns;
mod cooldowns;
mod error;
mod events;
mod exchanges;
mod handle;
mod homes;
mod insert;
mod journal;
mod limits;
mod open_file;
mod policies;
mod queries;
mod queue;
mod read;
mod reopen;
mod retention;
mod rollups;
mod schema;
mod shared;
mod usage;
mod usage_parts;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pointsman_core::time::Timestamp;

pub use bodies::{Bodies, BodyRules, BodyText, BodyTexts, Redacted, redact};
pub use cooldowns::CooldownRow;
pub use error::StoreError;
pub use events::{MAX_POLICY_EVENTS, PolicyEventRow};
pub use exchanges::{AttemptRow, ExchangePage, ExchangeRow, Filter, SentRow};
pub use handle::StoreHandle;
pub use homes::{HomeRow, MAX_HOMES};
pub use journal::{Explainable, JournalPart, Journaled, Skipped};
pub use limits::{JournalLimits, QUERY_TIMEOUT_MS, StoreLimits};
pub use policies::{PolicyRow, PolicyRows, PolicySourceRow, PolicyStore};
pub use queries::{QUERIES_WAITING_MAX, QUERY_THREADS, Queries};
pub use read::StoreReader;
pub use usage::{Group, UsagePage, UsageRow};

use queries::QueryThreads;
use queue::Queue;
use reopen::StoreFile;
use shared::Shared;
use writer::Writer;

/// The part of the program that log lines name; directives of `[log] level` go by it.
const LOG_TARGET: &str = "pointsman::store";

/// The longest a row waits for its batch, in ms.
pub const BATCH_DELAY_MS: u64 = 250;
/// A batch is written early when it has this many exchanges.
pub const BATCH_ROWS: usize = 1_024;
/// Time that a statement waits for another program's lock, ms.
const BUSY_TIMEOUT_MS: u64 = 500;

/// Location of the store: a file, or memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePath {
    /// A file; made when it is not there, its folder is not.
    File(PathBuf),
    /// Nowhere: it ends with the process.
    Memory,
}

impl StorePath {
    /// Reads the configuration's `[store] path`; `:memory:` is [`StorePath::Memory`].
    pub fn parse(text: &str) -> Self {
        if text == ":memory:" { StorePath::Memory } else { StorePath::File(PathBuf::from(text)) }
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorePath::File(path) => write!(f, "{}", path.display()),
            StorePath::Memory => f.write_str(":memory:"),
        }
    }
}

/// Tells the time; the one clock in the server, a fixed value in tests.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Counts since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Exchanges that wait to be written.
    pub backlog: u64,
    /// Exchanges written since the store was opened.
    pub written: u64,
    /// Exchanges lost: the backlog was full, or they could not be written.
    pub dropped: u64,
    /// Trails written since the store was opened.
    pub trails_written: u64,
    /// Trails lost: the journal's backlog was full, or their exchange was lost.
    pub trails_dropped: u64,
    /// Batches that failed, retries included.
    pub failed_batches: u64,
}

/// The open store: owns the thread that writes.
#[derive(Debug)]
pub struct Store {
    handle: StoreHandle,
    reader: StoreReader,
    policies: PolicyStore,
    queries: Option<QueryThreads>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens or makes the store and starts its writer; blocks for the time of a few file operations.
    ///
    /// # Errors
    /// When the file cannot be used; it is never deleted or overwritten.
    pub fn open(path: StorePath, limits: StoreLimits, clock: Clock) -> Result<Self, StoreError> {
        let writing = schema::open(&path)?;
        let writing = Shared::new(writing);
        let mut reading = Vec::new();
        if let StorePath::File(file) = &path {
            for _ in 0..=QUERY_THREADS {
                reading.push(Shared::new(schema::open_reader(file)?));
            }
        }
        let file = match &path {
            StorePath::File(file) => Some(StoreFile::new(file, &writing, &reading)),
            StorePath::Memory => None,
        };
        let own = reading.pop().unwrap_or_else(|| writing.clone());
        let asked = if reading.is_empty() { vec![writing.clone()] } else { reading };
        let queue = Arc::new(Queue::new(limits.backlog.max(1), limits.backlog_bytes, limits.journal.backlog_bytes));
        let policies = PolicyStore::new(writing.clone(), file.as_ref().map(StoreFile::open));
        let queries = Some(QueryThreads::start(&path, asked, Arc::clone(&clock))?);
        let writer = Writer::new(writing, file, Arc::clone(&queue), limits, clock);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run())
            .map_err(StoreError::Thread)?;
        Ok(Self {
            handle: StoreHandle { queue },
            reader: StoreReader::new(own),
            policies,
            queries,
            thread: Some(thread),
        })
    }

    /// The side that the hot path writes to.
    pub fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    /// The side that is asked while the server runs.
    ///
    /// # Panics
    /// After the store was closed.
    pub fn queries(&self) -> Queries {
        self.queries.as_ref().expect("it lives as long as the store is open").queries()
    }

    /// The side that is asked on the caller's own thread.
    pub fn reader(&self) -> StoreReader {
        self.reader.clone()
    }

    /// The policy revisions and components that are kept.
    pub fn policies(&self) -> PolicyStore {
        self.policies.clone()
    }

    /// The cooldowns of the last run that are still in force at `now_ms` (ms since the epoch).
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn load_cooldowns(&self, now_ms: u64) -> Result<Vec<CooldownRow>, StoreError> {
        cooldowns::load(&self.reader.connection(), now_ms)
    }

    /// The homes of stored things that are remembered at `now_ms` (ms since the epoch), the one that ends last first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn load_homes(&self, now_ms: u64) -> Result<Vec<HomeRow>, StoreError> {
        homes::load(&self.reader.connection(), now_ms)
    }

    /// Writes what waits and joins the thread; blocks for the time of one batch per [`BATCH_ROWS`] that wait.
    ///
    /// # Errors
    /// When rows could not be written; they are lost and counted.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), StoreError> {
        drop(self.queries.take());
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.handle.queue.close();
        if thread.join().is_err() {
            return Err(StoreError::Unwritten {
                rows: self.handle.queue.len(),
                reason: "the writer thread panicked".to_owned(),
            });
        }
        match self.handle.queue.loss() {
            Some((rows, reason)) => Err(StoreError::Unwritten { rows, reason }),
            None => Ok(()),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(target: LOG_TARGET, "{error}");
        }
    }
}

/// Returns the time in which a batch is gathered.
const fn batch_delay() -> Duration {
    Duration::from_millis(BATCH_DELAY_MS)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_journal;
#[cfg(test)]
mod tests_usage;
