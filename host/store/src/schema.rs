//! The schema and its versions.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{BUSY_TIMEOUT_MS, LOG_TARGET, StoreError, StorePath};

/// "PTSM": marks the file as ours (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x5054_534d;

/// Statements that lead from one version (`PRAGMA user_version`) to the next. Published ones are never edited.
const MIGRATIONS: [&str; 9] =
    [V1, V2, V3, V_POLICY_EVENTS, V_POLICY_SETTINGS, V_DENIALS, V_UPSTREAM_IDS, V_HOMES, V_SCOPES];

/// The tables `exchange`, `earlier_attempt` and `cooldown` are made to be written cheaply; the views `exchanges`, `attempts`
/// and `cooldowns` are made to be read, and are what everything outside `insert.rs` and `retention.rs` asks.
///
/// - `ended_us` is the key: rows arrive in the order of their end, so that the newest, a time range and the oldest are all
///   at hand without an index, which every insert would pay for (one over the id more than doubled the cost). Two
///   exchanges of one microsecond are told apart by moving the later one on.
/// - The last attempt, mostly the only one, lives in the exchange's row; a `last_*` column that is NULL has the value that
///   the exchange has.
const V1: &str = "
CREATE TABLE exchange (
    ended_us                 INTEGER PRIMARY KEY,
    id                       TEXT    NOT NULL,
    started_ms               INTEGER NOT NULL,
    elapsed_ms               INTEGER NOT NULL,
    client                   TEXT,
    session                  TEXT,
    operation                TEXT    NOT NULL,
    path                     TEXT    NOT NULL,
    model                    TEXT    NOT NULL,
    streaming                INTEGER NOT NULL,
    status                   INTEGER NOT NULL,
    end                      TEXT    NOT NULL,
    lane                     TEXT,
    backend                  TEXT,
    attempts                 INTEGER NOT NULL,
    waits                    INTEGER NOT NULL,
    waited_ms                INTEGER NOT NULL,
    first_byte_ms            INTEGER,
    policy                   TEXT    NOT NULL,
    policy_faults            INTEGER NOT NULL,
    input_tokens             INTEGER NOT NULL,
    output_tokens            INTEGER NOT NULL,
    cached_input_tokens      INTEGER NOT NULL,
    estimated                INTEGER NOT NULL,
    cost_usd                 REAL    NOT NULL,
    notes                    TEXT,
    error                    TEXT,
    last_started_ms          INTEGER,
    last_elapsed_ms          INTEGER,
    last_first_byte_ms       INTEGER,
    last_first_token_ms      INTEGER,
    last_outcome             TEXT,
    last_retry_after_ms      INTEGER,
    last_message             TEXT,
    last_backend             TEXT,
    last_lane                TEXT,
    last_model_sent          TEXT,
    last_status              INTEGER,
    last_input_tokens        INTEGER,
    last_output_tokens       INTEGER,
    last_cached_input_tokens INTEGER,
    last_estimated           INTEGER,
    last_cost_usd            REAL
) STRICT;

CREATE TABLE earlier_attempt (
    ended_us                 INTEGER NOT NULL,
    number                   INTEGER NOT NULL,
    backend                  TEXT    NOT NULL,
    lane                     TEXT    NOT NULL,
    model_sent               TEXT    NOT NULL,
    started_ms               INTEGER NOT NULL,
    elapsed_ms               INTEGER NOT NULL,
    first_byte_ms            INTEGER,
    first_token_ms           INTEGER,
    outcome                  TEXT    NOT NULL,
    status                   INTEGER NOT NULL,
    retry_after_ms           INTEGER,
    message                  TEXT,
    input_tokens             INTEGER NOT NULL,
    output_tokens            INTEGER NOT NULL,
    cached_input_tokens      INTEGER NOT NULL,
    estimated                INTEGER NOT NULL,
    cost_usd                 REAL    NOT NULL,
    PRIMARY KEY (ended_us, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE cooldown (
    backend                  TEXT    NOT NULL,
    model                    TEXT,
    until_ms                 INTEGER NOT NULL,
    reason                   TEXT    NOT NULL,
    failures                 INTEGER NOT NULL
) STRICT;

CREATE VIEW exchanges AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started, id, client, session, operation, path,
    model, streaming, status, end, lane, backend, attempts, waits, waited_ms, first_byte_ms, elapsed_ms, policy,
    policy_faults, input_tokens, output_tokens, cached_input_tokens, estimated, cost_usd, notes, error, ended_us
FROM exchange;

CREATE VIEW attempts AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started, number, backend, lane, model_sent,
    outcome, status, first_byte_ms, first_token_ms, elapsed_ms, retry_after_ms, message, input_tokens, output_tokens,
    cached_input_tokens, estimated, cost_usd, ended_us
FROM earlier_attempt
UNION ALL
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', last_started_ms / 1000.0, 'unixepoch'), attempts, coalesce(last_backend, backend),
    coalesce(last_lane, lane), coalesce(last_model_sent, model), last_outcome, coalesce(last_status, status),
    last_first_byte_ms, last_first_token_ms, last_elapsed_ms, last_retry_after_ms, last_message,
    coalesce(last_input_tokens, input_tokens), coalesce(last_output_tokens, output_tokens),
    coalesce(last_cached_input_tokens, cached_input_tokens), coalesce(last_estimated, estimated),
    coalesce(last_cost_usd, cost_usd), ended_us
FROM exchange WHERE attempts > 0;

CREATE VIEW cooldowns AS
SELECT backend, model, strftime('%Y-%m-%dT%H:%M:%fZ', until_ms / 1000.0, 'unixepoch') AS until, reason, failures, until_ms
FROM cooldown;
";

/// Policy revisions, few and small, and their components, few and large. Every revision has its component.
const V2: &str = "
CREATE TABLE policy_revision (
    number                   INTEGER PRIMARY KEY,
    sha256                   TEXT    NOT NULL UNIQUE,
    bytes                    INTEGER NOT NULL,
    origin                   TEXT    NOT NULL,
    file                     TEXT,
    taken_ms                 INTEGER NOT NULL,
    ended_ms                 INTEGER,
    end                      TEXT,
    why                      TEXT,
    decisions                INTEGER NOT NULL,
    faults                   INTEGER NOT NULL
) STRICT;

CREATE TABLE policy_component (
    sha256                   TEXT    PRIMARY KEY,
    component                BLOB    NOT NULL
) STRICT;

CREATE TABLE policy_source (
    file                     TEXT,
    sha256                   TEXT    NOT NULL
) STRICT;

CREATE VIEW policies AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', taken_ms / 1000.0, 'unixepoch') AS taken, substr(sha256, 1, 12) AS revision, origin,
    file, bytes, strftime('%Y-%m-%dT%H:%M:%fZ', ended_ms / 1000.0, 'unixepoch') AS ended, end, why, decisions, faults, sha256
FROM policy_revision;
";

/// The journal: a trail belongs to the exchange of the same key, and to the setup it ran under. `sampled` ones are a sample by
/// chance; the others are kept because of how they went. A body is there only where bodies are asked for; a NULL is no text.
const V3: &str = "
CREATE TABLE setup (
    id                       INTEGER PRIMARY KEY,
    setup                    TEXT    NOT NULL UNIQUE,
    last_ended_us            INTEGER NOT NULL
) STRICT;

CREATE TABLE trail (
    ended_us                 INTEGER PRIMARY KEY,
    setup                    INTEGER NOT NULL,
    sampled                  INTEGER NOT NULL,
    trail                    BLOB    NOT NULL
) STRICT;

CREATE TABLE body (
    ended_us                 INTEGER PRIMARY KEY,
    request                  TEXT,
    request_bytes            INTEGER NOT NULL,
    answer                   TEXT,
    answer_bytes             INTEGER NOT NULL
) STRICT;

CREATE TABLE trail_total (
    bytes                    INTEGER NOT NULL
) STRICT;
INSERT INTO trail_total VALUES (0);

CREATE VIEW trails AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', ended_us / 1000000.0, 'unixepoch') AS ended, setup, sampled, length(trail) AS bytes, ended_us
FROM trail;
";

/// Steps of guarded promotions, few and small.
const V_POLICY_EVENTS: &str = "
CREATE TABLE policy_event (
    number                   INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms                    INTEGER NOT NULL,
    step                     TEXT    NOT NULL,
    candidate                TEXT    NOT NULL,
    control                  TEXT    NOT NULL,
    why                      TEXT    NOT NULL,
    numbers                  TEXT    NOT NULL
) STRICT;

CREATE VIEW policy_events AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', at_ms / 1000.0, 'unixepoch') AS at, step, candidate, control, why, numbers
FROM policy_event;
";

/// A component may be there several times, each with settings of its own.
const V_POLICY_SETTINGS: &str = "
DROP VIEW policies;
ALTER TABLE policy_revision RENAME TO policy_revision_before;

CREATE TABLE policy_revision (
    number                   INTEGER PRIMARY KEY,
    sha256                   TEXT    NOT NULL,
    bytes                    INTEGER NOT NULL,
    origin                   TEXT    NOT NULL,
    file                     TEXT,
    taken_ms                 INTEGER NOT NULL,
    ended_ms                 INTEGER,
    end                      TEXT,
    why                      TEXT,
    decisions                INTEGER NOT NULL,
    faults                   INTEGER NOT NULL,
    name                     TEXT,
    settings                 TEXT
) STRICT;
INSERT INTO policy_revision
SELECT number, sha256, bytes, origin, file, taken_ms, ended_ms, end, why, decisions, faults, NULL, NULL
FROM policy_revision_before;
DROP TABLE policy_revision_before;

CREATE VIEW policies AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', taken_ms / 1000.0, 'unixepoch') AS taken, substr(sha256, 1, 12) AS revision, origin,
    file, bytes, strftime('%Y-%m-%dT%H:%M:%fZ', ended_ms / 1000.0, 'unixepoch') AS ended, end, why, decisions, faults, sha256,
    name, settings
FROM policy_revision;
";

/// Requests refused at the door, by their reason's word, and what answers saved. The index holds refusals only, and costs other
/// exchanges nothing: `retention.rs` bounds the refusals of strangers by it.
const V_DENIALS: &str = "
ALTER TABLE exchange ADD COLUMN denied TEXT;
ALTER TABLE exchange ADD COLUMN saved_usd REAL;
CREATE INDEX exchange_denied ON exchange (client IS NULL) WHERE denied IS NOT NULL;

DROP VIEW exchanges;
CREATE VIEW exchanges AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started, id, client, session, operation, path,
    model, streaming, status, end, lane, backend, attempts, waits, waited_ms, first_byte_ms, elapsed_ms, policy,
    policy_faults, input_tokens, output_tokens, cached_input_tokens, estimated, cost_usd, notes, error, denied, saved_usd,
    ended_us
FROM exchange;
";

/// The providers' own ids of requests.
const V_UPSTREAM_IDS: &str = "
ALTER TABLE exchange ADD COLUMN last_upstream_id TEXT;
ALTER TABLE earlier_attempt ADD COLUMN upstream_id TEXT;

DROP VIEW attempts;
CREATE VIEW attempts AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started, number, backend, lane, model_sent,
    outcome, status, first_byte_ms, first_token_ms, elapsed_ms, retry_after_ms, message, input_tokens, output_tokens,
    cached_input_tokens, estimated, cost_usd, upstream_id, ended_us
FROM earlier_attempt
UNION ALL
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', last_started_ms / 1000.0, 'unixepoch'), attempts, coalesce(last_backend, backend),
    coalesce(last_lane, lane), coalesce(last_model_sent, model), last_outcome, coalesce(last_status, status),
    last_first_byte_ms, last_first_token_ms, last_elapsed_ms, last_retry_after_ms, last_message,
    coalesce(last_input_tokens, input_tokens), coalesce(last_output_tokens, output_tokens),
    coalesce(last_cached_input_tokens, cached_input_tokens), coalesce(last_estimated, estimated),
    coalesce(last_cost_usd, cost_usd), last_upstream_id, ended_us
FROM exchange WHERE attempts > 0;
";

/// The backend that holds a stored thing. The key is a hash of the thing's id, which nobody needs to read.
const V_HOMES: &str = "
CREATE TABLE home (
    key                      INTEGER PRIMARY KEY,
    backend                  TEXT    NOT NULL,
    until_ms                 INTEGER NOT NULL
) STRICT;

CREATE VIEW homes AS
SELECT key, backend, strftime('%Y-%m-%dT%H:%M:%fZ', until_ms / 1000.0, 'unixepoch') AS until FROM home;
";

/// The parts that failed attempts are held against.
const V_SCOPES: &str = "
ALTER TABLE exchange ADD COLUMN last_scope TEXT;
ALTER TABLE earlier_attempt ADD COLUMN scope TEXT;

DROP VIEW attempts;
CREATE VIEW attempts AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', started_ms / 1000.0, 'unixepoch') AS started, number, backend, lane, model_sent,
    outcome, status, first_byte_ms, first_token_ms, elapsed_ms, retry_after_ms, message, input_tokens, output_tokens,
    cached_input_tokens, estimated, cost_usd, upstream_id, scope, ended_us
FROM earlier_attempt
UNION ALL
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', last_started_ms / 1000.0, 'unixepoch'), attempts, coalesce(last_backend, backend),
    coalesce(last_lane, lane), coalesce(last_model_sent, model), last_outcome, coalesce(last_status, status),
    last_first_byte_ms, last_first_token_ms, last_elapsed_ms, last_retry_after_ms, last_message,
    coalesce(last_input_tokens, input_tokens), coalesce(last_output_tokens, output_tokens),
    coalesce(last_cached_input_tokens, cached_input_tokens), coalesce(last_estimated, estimated),
    coalesce(last_cost_usd, cost_usd), last_upstream_id, last_scope, ended_us
FROM exchange WHERE attempts > 0;
";

/// The first schema with [`V_DENIALS`].
const DENIALS_SINCE: i64 = 6;

/// The view of a store that is only read and older than [`DENIALS_SINCE`], with the columns it does not have; it hides the
/// store's own view from this connection.
const EXCHANGES_BEFORE_DENIALS: &str =
    "CREATE TEMP VIEW exchanges AS SELECT *, NULL AS denied, NULL AS saved_usd FROM main.exchanges";

/// The first schema with [`V_UPSTREAM_IDS`].
const UPSTREAM_IDS_SINCE: i64 = 7;

/// The same for a store older than [`UPSTREAM_IDS_SINCE`].
const ATTEMPTS_BEFORE_UPSTREAM_IDS: &str =
    "CREATE TEMP VIEW attempts AS SELECT *, NULL AS upstream_id, NULL AS scope FROM main.attempts";

/// The first schema with [`V_SCOPES`].
const SCOPES_SINCE: i64 = 9;

/// The same for a store older than [`SCOPES_SINCE`].
const ATTEMPTS_BEFORE_SCOPES: &str = "CREATE TEMP VIEW attempts AS SELECT *, NULL AS scope FROM main.attempts";

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

/// The first schema with a journal.
const JOURNAL_SINCE: i64 = 3;

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
