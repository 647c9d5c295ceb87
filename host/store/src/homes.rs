//! Homes of stored things that outlive a restart: which backend made the response, file or batch of a key.

use rusqlite::{Connection, Transaction, params};

use super::StoreError;

/// Homes that are kept; of more, those that end last.
pub const MAX_HOMES: usize = 65_536;

/// The home of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeRow {
    /// Hash of the thing's id.
    pub key: u64,
    /// Id of the backend that holds it.
    pub backend: String,
    /// Time until which it is remembered, in ms since the epoch.
    pub until_ms: u64,
}

/// Writes new homes over old ones.
pub(super) fn insert(transaction: &Transaction<'_>, rows: &[HomeRow]) -> rusqlite::Result<()> {
    let mut insert =
        transaction.prepare_cached("INSERT OR REPLACE INTO home (key, backend, until_ms) VALUES (?1, ?2, ?3)")?;
    for row in rows {
        insert.execute(params![row.key.cast_signed(), row.backend, signed(row.until_ms)])?;
    }
    Ok(())
}

/// Those that end after `now_ms`, the one that ends last first.
pub(super) fn load(connection: &Connection, now_ms: u64) -> Result<Vec<HomeRow>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT key, backend, until_ms FROM home WHERE until_ms > ?1 ORDER BY until_ms DESC LIMIT ?2",
    )?;
    let rows = select.query_map([signed(now_ms), MAX_HOMES as i64], |row| {
        Ok(HomeRow {
            key: row.get::<_, i64>(0)?.cast_unsigned(),
            backend: row.get(1)?,
            until_ms: row.get::<_, i64>(2)?.unsigned_abs(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Deletes those that have ended, and those beyond [`MAX_HOMES`] that end first.
pub(super) fn tend(connection: &Connection, now_ms: u64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM home WHERE until_ms <= ?1")?.execute([signed(now_ms)])?;
    let count: i64 = connection.prepare_cached("SELECT count(*) FROM home")?.query_row([], |row| row.get(0))?;
    let surplus = count - MAX_HOMES as i64;
    if surplus > 0 {
        connection
            .prepare_cached("DELETE FROM home WHERE key IN (SELECT key FROM home ORDER BY until_ms LIMIT ?1)")?
            .execute([surplus])?;
    }
    Ok(())
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
