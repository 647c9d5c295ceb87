//! Cooldowns that outlive a restart.

use rusqlite::{Connection, Transaction, params};

use super::StoreError;

/// A cooldown in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CooldownRow {
    /// The backend's id.
    pub backend: String,
    /// The model it is for; none: the whole backend.
    pub model: Option<String>,
    /// Its end, in ms since the epoch.
    pub until_ms: u64,
    /// The outcome that set it, by its word; or `drained`: the operator took the backend out.
    pub reason: String,
    /// Failures in a row so far.
    pub failures: u32,
}

/// Replaces all.
pub(super) fn replace(transaction: &Transaction<'_>, rows: &[CooldownRow]) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM cooldown", [])?;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO cooldown (backend, model, until_ms, reason, failures) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for row in rows {
        let until_ms = i64::try_from(row.until_ms).unwrap_or(i64::MAX);
        insert.execute(params![row.backend, row.model, until_ms, row.reason, row.failures])?;
    }
    Ok(())
}

/// Those that end after `now_ms`.
pub(super) fn load(connection: &Connection, now_ms: u64) -> Result<Vec<CooldownRow>, StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT backend, model, until_ms, reason, failures FROM cooldowns WHERE until_ms > ?1 ORDER BY backend, model",
    )?;
    let rows = select.query_map([i64::try_from(now_ms).unwrap_or(i64::MAX)], |row| {
        Ok(CooldownRow {
            backend: row.get(0)?,
            model: row.get(1)?,
            until_ms: row.get::<_, i64>(2)?.unsigned_abs(),
            reason: row.get(3)?,
            failures: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
