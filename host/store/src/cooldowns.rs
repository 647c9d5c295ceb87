//! Cooldowns that outlive a restart.

use rusqlite::{Connection, Transaction};

use super::StoreError;
use super::columns::{columns, insert, signed};

/// A cooldown in force, as it is kept for the next start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CooldownRow {
    /// Id of the backend, from the configuration.
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

columns!(CooldownRow { backend, model, until_ms, reason, failures });

insert! {
    COOLDOWN = INTO "cooldown";
    fn insert(row: &CooldownRow) {
        backend: row.backend,
        model: row.model,
        until_ms: signed(row.until_ms),
        reason: row.reason,
        failures: row.failures,
    }
}

/// Replaces the kept cooldowns by these.
pub(super) fn replace(transaction: &Transaction<'_>, rows: &[CooldownRow]) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM cooldown", [])?;
    let mut statement = transaction.prepare_cached(COOLDOWN)?;
    for row in rows {
        insert(&mut statement, row)?;
    }
    Ok(())
}

/// Those that end after `now_ms`.
pub(super) fn load(connection: &Connection, now_ms: u64) -> Result<Vec<CooldownRow>, StoreError> {
    let sql = format!("SELECT {} FROM cooldowns WHERE until_ms > ?1 ORDER BY backend, model", CooldownRow::COLUMNS);
    let mut select = connection.prepare_cached(&sql)?;
    let rows = select.query_map([signed(now_ms)], CooldownRow::read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}
