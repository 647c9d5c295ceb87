//! Errors of the store.

use super::QUERY_TIMEOUT_MS;

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
        /// Error of SQLite, with its code.
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
        /// Message of SQLite about the damage.
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
        /// Version of the file's schema.
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
        /// Version of the file's schema.
        found: i64,
    },
    /// The trail of an exchange is damaged, or of a newer Pointsman.
    #[error("the journal's trail of {id} cannot be read: {why}")]
    Unreadable {
        /// Request id of the exchange.
        id: String,
        /// Fault of its bytes, or the format's version.
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
        /// The change in words: deleted, replaced or emptied.
        what: &'static str,
        /// The reason why no other file can be opened.
        why: String,
    },
    /// Records that waited were not written.
    #[error("{} not written and lost: {reason}", lost(*rows))]
    Unwritten {
        /// Number of records that are lost; 0: only states of backends.
        rows: usize,
        /// Message of SQLite, or another reason.
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
