//! Policy revisions that outlive a restart, with the components themselves.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Shared, StoreError, StoreReader};

/// A policy revision that is or was in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRow {
    /// SHA-256 of the component, in hexadecimal.
    pub sha256: String,
    /// Size of the component.
    pub bytes: u64,
    /// Name of its origin.
    pub origin: String,
    /// The file it came from.
    pub file: Option<String>,
    /// Name given with it, if any.
    pub name: Option<String>,
    /// The settings that came with it, as JSON.
    pub settings: Option<String>,
    /// Time of its last start, in ms since the epoch.
    pub taken_ms: u64,
    /// Time of its end, in ms since the epoch; `None`: it is in force.
    pub ended_ms: Option<u64>,
    /// Name of the reason of its end.
    pub end: Option<String>,
    /// The same in a sentence.
    pub why: Option<String>,
    /// Decisions asked of it.
    pub decisions: u64,
    /// Number of them that failed.
    pub faults: u64,
}

/// Contents of the configured policy source when it was last checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySourceRow {
    /// The file; none: the component inside the binary.
    pub file: Option<String>,
    /// SHA-256 of the content.
    pub sha256: String,
}

/// Everything that is kept of policies but the components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRows {
    /// In the order in which they came into force.
    pub revisions: Vec<PolicyRow>,
    /// Source that was checked last.
    pub source: Option<PolicySourceRow>,
}

/// Keeps policies; cheap to clone. Every call blocks on SQLite.
#[derive(Clone, Debug)]
pub struct PolicyStore(pub(super) Shared);

impl PolicyStore {
    pub(super) fn new(connection: Shared) -> Self {
        Self(connection)
    }

    /// Replaces what is kept. `components` are those of rows that may be new; components without a row are forgotten.
    /// When this returns, it is on disk.
    ///
    /// # Errors
    /// When SQLite fails; what was kept stays.
    pub fn save<B: AsRef<[u8]>>(&self, rows: &PolicyRows, components: &[(String, B)]) -> Result<(), StoreError> {
        let mut connection = self.0.lock();
        // Exchanges may lose their last moments in a power cut, a policy that an operator was told is taken may not.
        connection.pragma_update(None, "synchronous", "full")?;
        let saved = save(&mut connection, rows, components);
        connection.pragma_update(None, "synchronous", "normal")?;
        Ok(saved?)
    }

    /// Loads all rows.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn load(&self) -> Result<PolicyRows, StoreError> {
        let connection = self.0.lock();
        let source = connection
            .query_row("SELECT file, sha256 FROM policy_source", [], |row| {
                Ok(PolicySourceRow { file: row.get(0)?, sha256: row.get(1)? })
            })
            .optional()?;
        Ok(PolicyRows { revisions: revisions(&connection)?, source })
    }

    /// The component of this hash.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn component(&self, sha256: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let connection = self.0.lock();
        let mut select = connection.prepare_cached("SELECT component FROM policy_component WHERE sha256 = ?1")?;
        Ok(select.query_row([sha256], |row| row.get(0)).optional()?)
    }
}

impl StoreReader {
    /// The component of a revision, which is named by the beginning of its hash.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn policy_component(&self, revision: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let connection = self.connection();
        let mut select = connection
            .prepare_cached("SELECT component FROM policy_component WHERE substr(sha256, 1, length(?1)) = ?1")?;
        Ok(select.query_row([revision], |row| row.get(0)).optional()?)
    }
}

fn save<B: AsRef<[u8]>>(
    connection: &mut Connection,
    rows: &PolicyRows,
    components: &[(String, B)],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.prepare_cached("DELETE FROM policy_revision")?.execute([])?;
    {
        let mut insert = transaction.prepare_cached(
            "INSERT INTO policy_revision VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?;
        for (number, row) in (1i64..).zip(&rows.revisions) {
            insert.execute(params![
                number,
                row.sha256,
                signed(row.bytes),
                row.origin,
                row.file,
                signed(row.taken_ms),
                row.ended_ms.map(signed),
                row.end,
                row.why,
                signed(row.decisions),
                signed(row.faults),
                row.name,
                row.settings,
            ])?;
        }
    }
    transaction.prepare_cached("DELETE FROM policy_source")?.execute([])?;
    if let Some(source) = &rows.source {
        transaction
            .prepare_cached("INSERT INTO policy_source VALUES (?1, ?2)")?
            .execute(params![source.file, source.sha256])?;
    }
    for (sha256, bytes) in components {
        // Asked first: handed over, it would be copied.
        if !transaction.prepare_cached("SELECT 1 FROM policy_component WHERE sha256 = ?1")?.exists([sha256])? {
            transaction
                .prepare_cached("INSERT INTO policy_component VALUES (?1, ?2)")?
                .execute(params![sha256, bytes.as_ref()])?;
        }
    }
    transaction
        .prepare_cached("DELETE FROM policy_component WHERE sha256 NOT IN (SELECT sha256 FROM policy_revision)")?
        .execute([])?;
    transaction.commit()
}

fn revisions(connection: &Connection) -> rusqlite::Result<Vec<PolicyRow>> {
    let mut select = connection.prepare_cached(
        "SELECT sha256, bytes, origin, file, taken_ms, ended_ms, end, why, decisions, faults, name, settings
        FROM policy_revision ORDER BY number",
    )?;
    let rows = select.query_map([], |row| {
        Ok(PolicyRow {
            sha256: row.get(0)?,
            bytes: row.get::<_, i64>(1)?.unsigned_abs(),
            origin: row.get(2)?,
            file: row.get(3)?,
            taken_ms: row.get::<_, i64>(4)?.unsigned_abs(),
            ended_ms: row.get::<_, Option<i64>>(5)?.map(i64::unsigned_abs),
            end: row.get(6)?,
            why: row.get(7)?,
            decisions: row.get::<_, i64>(8)?.unsigned_abs(),
            faults: row.get::<_, i64>(9)?.unsigned_abs(),
            name: row.get(10)?,
            settings: row.get(11)?,
        })
    })?;
    rows.collect()
}

/// SQLite's integers are signed.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
