//! Opening of the store's file: its version is looked at, and brought to the latest.

mod migrations;

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use migrations::{
    ATTEMPTS_BEFORE_SCOPES, ATTEMPTS_BEFORE_UPSTREAM_IDS, DENIALS_SINCE, EXCHANGES_BEFORE_DENIALS, JOURNAL_SINCE,
    MIGRATIONS, SCOPES_SINCE, UPSTREAM_IDS_SINCE,
};

use super::{BUSY_TIMEOUT_MS, LOG_TARGET, StoreError, StorePath};

/// "PTSM": marks the file as ours (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x5054_534d;

/// Opens the store for writing, makes it or brings it to the latest version.
pub(super) fn open(path: &StorePath) -> Result<Connection, StoreError> {
    let opened = match path {
        StorePath::File(file) => Connection::open(file),
        StorePath::Memory => Connection::open_in_memory(),
    };
    let blame = |error| blame(path, error);
    let mut connection = opened.map_err(blame)?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS)).map_err(blame)?;
    let found = version(&connection, path)?;
    if found == 0 {
        // Only an empty file takes it: freed pages can then be given back to the file system a few at a time.
        connection.pragma_update(None, "auto_vacuum", "incremental").map_err(blame)?;
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(blame)?;
    if mode != "wal" && matches!(path, StorePath::File(_)) {
        tracing::warn!(target: LOG_TARGET, store = %path, mode, "the store's file system has no shared memory: readers may hold up the writer");
    }
    connection.pragma_update(None, "synchronous", "normal").map_err(blame)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20).map_err(blame)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// The store of a Pointsman that may be running, to be read only. It is not brought to the latest version: what it has is read.
pub(super) fn open_to_read(file: &Path) -> Result<Connection, StoreError> {
    let path = StorePath::File(file.to_owned());
    let connection = open_reader(file)?;
    let found = version(&connection, &path)?;
    if found < JOURNAL_SINCE {
        return Err(StoreError::NoJournal { path: path.to_string(), found });
    }
    for (since, before, views) in [
        (0, DENIALS_SINCE, EXCHANGES_BEFORE_DENIALS),
        (0, UPSTREAM_IDS_SINCE, ATTEMPTS_BEFORE_UPSTREAM_IDS),
        (UPSTREAM_IDS_SINCE, SCOPES_SINCE, ATTEMPTS_BEFORE_SCOPES),
    ] {
        if (since..before).contains(&found) {
            connection.execute_batch(views).map_err(|error| blame(&path, error))?;
        }
    }
    Ok(connection)
}

/// The same, to take something out of its journal.
pub(super) fn open_to_write(file: &Path) -> Result<Connection, StoreError> {
    drop(open_to_read(file)?);
    let path = StorePath::File(file.to_owned());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(|e| blame(&path, e))?;
    connection.busy_timeout(Duration::from_millis(4 * BUSY_TIMEOUT_MS)).map_err(|e| blame(&path, e))?;
    Ok(connection)
}

/// A second connection to an open store, which cannot write.
pub(super) fn open_reader(file: &Path) -> Result<Connection, StoreError> {
    let path = StorePath::File(file.to_owned());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(|e| blame(&path, e))?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS)).map_err(|e| blame(&path, e))?;
    Ok(connection)
}

fn version(connection: &Connection, path: &StorePath) -> Result<i64, StoreError> {
    let blame = |error| blame(path, error);
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(blame);
    let (application, found) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(blame)?;
    let known = MIGRATIONS.len() as i64;
    if application != APPLICATION_ID && (application != 0 || found != 0 || tables != 0) {
        return Err(StoreError::Foreign { path: path.to_string() });
    }
    if found > known {
        return Err(StoreError::Newer { path: path.to_string(), found, known });
    }
    Ok(found)
}

/// The latest schema.
#[cfg(test)]
pub(super) const LATEST: usize = MIGRATIONS.len();

/// A new file as a Pointsman of this earlier schema made it.
#[cfg(test)]
pub(super) fn open_earlier(file: &Path, version: usize) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    for statements in &MIGRATIONS[..version] {
        connection.execute_batch(statements)?;
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", version as i64)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &StorePath) -> Result<(), StoreError> {
    let blame = |error| blame(path, error);
    let steps = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(blame)?;
    // Asked again under the lock: another process may just have done it.
    let found = version(&steps, path)?;
    for statements in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        steps.execute_batch(statements).map_err(blame)?;
    }
    if found < MIGRATIONS.len() as i64 {
        steps.pragma_update(None, "application_id", APPLICATION_ID).map_err(blame)?;
        steps.pragma_update(None, "user_version", MIGRATIONS.len() as i64).map_err(blame)?;
    }
    steps.commit().map_err(blame)
}

/// Classifies an error while opening: a damaged file, a lock of another program, or another failure.
fn blame(path: &StorePath, error: rusqlite::Error) -> StoreError {
    let path = path.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            StoreError::Damaged { path, detail: error.to_string() }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path },
        Some(_) | None => StoreError::Open { path, source: error },
    }
}
