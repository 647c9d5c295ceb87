//! The durable record of exchanges: SQLite, written by one thread in batches, read over a second connection.
//!
//! The hot path only appends to a bounded queue. A batch is committed at most [`BATCH_DELAY_MS`] after its first row, so
//! that a killed process loses less than a second; with `synchronous = NORMAL` only a power cut may lose more.
//! The file opens in any SQLite tool: words are words, times have readable columns beside them.

mod bodies;
mod columns;
mod cooldowns;
mod events;
mod exchanges;
mod homes;
mod insert;
mod journal;
mod open_file;
mod policies;
mod queries;
mod queue;
mod read;
mod reopen;
mod retention;
mod schema;
mod usage;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use pointsman_core::record::ExchangeRecord;
use pointsman_core::time::Timestamp;
use rusqlite::Connection;

pub use bodies::{Bodies, BodyRules, BodyText, BodyTexts, Redacted, redact};
pub use cooldowns::CooldownRow;
pub use events::{MAX_POLICY_EVENTS, PolicyEventRow};
pub use exchanges::{AttemptRow, ExchangePage, ExchangeRow, Filter, SentRow};
pub use homes::{HomeRow, MAX_HOMES};
pub use journal::{Explainable, JournalPart, Journaled, Skipped};
pub use policies::{PolicyRow, PolicyRows, PolicySourceRow, PolicyStore};
pub use queries::{QUERIES_WAITING_MAX, QUERY_THREADS, QUERY_TIMEOUT_MS, Queries};
pub use read::StoreReader;
pub use usage::{Group, UsagePage, UsageRow};

use queries::QueryThreads;
use queue::{Entry, Queue};
use reopen::StoreFile;
use writer::Writer;

/// The part of the program that log lines name; directives of `[log] level` go by it.
const LOG_TARGET: &str = "pointsman::store";

/// The longest a row waits for its batch, in ms.
pub const BATCH_DELAY_MS: u64 = 250;
/// A batch is written early when it has this many exchanges.
pub const BATCH_ROWS: usize = 1_024;
/// Time that a statement waits for another program's lock, ms.
const BUSY_TIMEOUT_MS: u64 = 500;

/// Location of the record.
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

/// The store's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Exchanges that may wait to be written; more are dropped and counted. At least 1.
    pub backlog: usize,
    /// Memory of those exchanges, in bytes.
    pub backlog_bytes: usize,
    /// Exchanges older than this many days are deleted; none keeps them for ever.
    pub retention_days: Option<u32>,
    /// The oldest exchanges are deleted when the content is larger than this; none is unlimited.
    pub max_bytes: Option<u64>,
    /// Limits of the journal.
    pub journal: JournalLimits,
}

/// The journal's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// Memory of the trails that wait to be written, in bytes; more are dropped and counted.
    pub backlog_bytes: usize,
    /// Trails older than this many days are deleted; none keeps them as long as their exchanges.
    pub retention_days: Option<u32>,
    /// The oldest trails are deleted when they take more bytes than this; none is unlimited.
    pub max_bytes: Option<u64>,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self { backlog_bytes: 64 << 20, retention_days: Some(7), max_bytes: Some(1 << 30) }
    }
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            backlog: 65_536,
            backlog_bytes: 64 << 20,
            retention_days: Some(30),
            max_bytes: Some(4 << 30),
            journal: JournalLimits::default(),
        }
    }
}

/// Tells the time; the one clock in the server, a fixed value in tests.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The reason why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or made.
    #[error(
        "the store {path} cannot be opened: {source}; check that its folder exists and may be written, or set [store] path"
    )]
    Open {
        /// The store.
        path: String,
        /// Error of SQLite.
        source: rusqlite::Error,
    },
    /// Another program holds the file's lock.
    #[error("the store {path} is locked by another program; stop it, or set [store] path to another file")]
    Locked {
        /// The store.
        path: String,
    },
    /// The file is not SQLite, or broken.
    #[error(
        "the store {path} is damaged or not a SQLite file ({detail}); nothing was changed: \
         move it away to begin with an empty one, or repair it with `sqlite3 FILE .recover`"
    )]
    Damaged {
        /// The store.
        path: String,
        /// Message of SQLite.
        detail: String,
    },
    /// The file is a database of some other program.
    #[error("{path} is a SQLite database, but not one of Pointsman's; set [store] path to another file")]
    Foreign {
        /// The store.
        path: String,
    },
    /// A later Pointsman made the file.
    #[error(
        "the store {path} has schema {found}, made by a newer Pointsman; this one knows schemas up to {known}: \
         use the newer version, or set [store] path to another file"
    )]
    Newer {
        /// The store.
        path: String,
        /// The file's schema.
        found: i64,
        /// The latest schema known here.
        known: i64,
    },
    /// An earlier Pointsman made the file.
    #[error(
        "the store {path} has schema {found}, of a Pointsman without a journal: there is nothing in it to explain or replay; \
         `pointsman serve` brings it up to date, and keeps a journal from then on"
    )]
    NoJournal {
        /// The store.
        path: String,
        /// The file's schema.
        found: i64,
    },
    /// The trail of an exchange is damaged, or of a newer Pointsman.
    #[error("the journal's trail of {id} cannot be read: {why}")]
    Unreadable {
        /// The request id.
        id: String,
        /// Fault of the file.
        why: String,
    },
    /// A statement failed while running.
    #[error("the store failed: {0}")]
    Sql(#[from] rusqlite::Error),
    /// The thread that writes could not be started.
    #[error("the store's writer thread could not be started: {0}")]
    Thread(std::io::Error),
    /// The store was closed before.
    #[error("the store is closed")]
    Closed,
    /// As many questions as may wait are waiting.
    #[error("too many questions wait for the store; ask again in a moment")]
    Busy,
    /// A question took longer than [`QUERY_TIMEOUT_MS`].
    #[error("reading the store took longer than {} s; ask for a shorter time (`since`) or for fewer rows", QUERY_TIMEOUT_MS / 1_000)]
    TooLong,
    /// The file was deleted or replaced while it was open, and there is none to go on with.
    #[error("the store {path} was {what} while Pointsman is running, and cannot be opened again: {why}")]
    Gone {
        /// The store.
        path: String,
        /// The change.
        what: &'static str,
        /// The reason.
        why: String,
    },
    /// Records that waited were not written.
    #[error("{} not written and lost: {reason}", lost(*rows))]
    Unwritten {
        /// Number of records.
        rows: usize,
        /// Message of SQLite.
        reason: String,
    },
}

/// "500 exchanges are".
fn lost(rows: usize) -> String {
    match rows {
        0 => "the states of backends are".to_owned(),
        1 => "1 exchange is".to_owned(),
        rows => format!("{rows} exchanges are"),
    }
}

/// Counts since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Exchanges that wait to be written.
    pub backlog: u64,
    /// Exchanges written.
    pub written: u64,
    /// Exchanges lost: the backlog was full, or they could not be written.
    pub dropped: u64,
    /// Trails written.
    pub trails_written: u64,
    /// Trails lost: the journal's backlog was full, or their exchange was lost.
    pub trails_dropped: u64,
    /// Batches that failed, retries included.
    pub failed_batches: u64,
}

/// A connection that threads take in turns.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Connection>>);

impl Shared {
    fn new(connection: Connection) -> Self {
        Self(Arc::new(Mutex::new(connection)))
    }

    /// The connection, where nobody has it.
    fn try_lock(&self) -> Option<MutexGuard<'_, Connection>> {
        match self.0.try_lock() {
            Ok(connection) => Some(connection),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic between two statements leaves no half-done work: the transaction rolled back when it was dropped.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    /// The policies kept.
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

/// Puts rows into the store's queue; cheap to clone and to call.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    queue: Arc<Queue>,
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

/// Returns the time in which a batch is gathered.
const fn batch_delay() -> Duration {
    Duration::from_millis(BATCH_DELAY_MS)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_journal;
