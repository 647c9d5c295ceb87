//! Policy revisions that outlive a restart, with the components themselves.

use std::sync::{Arc, MutexGuard};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::columns::{columns, insert, signed};
use super::open_file::OpenFile;
use super::{LOG_TARGET, Shared, StoreError, StoreReader};

/// Bytes of components that are taken from a file that is gone into the next one; each of them may have this size.
const MAX_TAKEN_BYTES: u64 = 64 << 20;

/// A policy revision that is or was in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRow {
    /// SHA-256 of the component, in hexadecimal.
    pub sha256: String,
    /// Size of the component, bytes.
    pub bytes: u64,
    /// Word for its origin: embedded, file or upload.
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
    /// Questions that it was asked while it was in force.
    pub decisions: u64,
    /// Number of them that failed.
    pub faults: u64,
}

columns!(PolicyRow { sha256, bytes, origin, file, name, settings, taken_ms, ended_ms, end, why, decisions, faults });

insert! {
    POLICY_REVISION = INTO "policy_revision";
    fn insert_revision(number: i64, row: &PolicyRow) {
        number: number,
        sha256: row.sha256,
        bytes: signed(row.bytes),
        origin: row.origin,
        file: row.file,
        taken_ms: signed(row.taken_ms),
        ended_ms: row.ended_ms.map(signed),
        end: row.end,
        why: row.why,
        decisions: signed(row.decisions),
        faults: signed(row.faults),
        name: row.name,
        settings: row.settings,
    }
}

/// Contents of the configured policy source when it was last checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySourceRow {
    /// The file; none: the component inside the binary.
    pub file: Option<String>,
    /// SHA-256 of the content, 64 hexadecimal digits.
    pub sha256: String,
}

columns!(PolicySourceRow { file, sha256 });

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
pub struct PolicyStore {
    connection: Shared,
    /// None: the store is in memory.
    file: Option<Arc<OpenFile>>,
}

impl PolicyStore {
    pub(super) fn new(connection: Shared, file: Option<Arc<OpenFile>>) -> Self {
        Self { connection, file }
    }

    /// The connection to the file that has the store's name.
    ///
    /// # Errors
    /// [`StoreError::Gone`] where there is none: what is written now would be lost without a word.
    pub(super) fn connection(&self) -> Result<MutexGuard<'_, Connection>, StoreError> {
        let connection = self.connection.lock();
        if let Some(file) = &self.file {
            file.is_there(&connection)?;
        }
        Ok(connection)
    }

    /// Replaces what is kept. `components` are those of rows that may be new; components without a row are forgotten.
    /// When this returns, it is on disk.
    ///
    /// # Errors
    /// When SQLite fails, or the file is gone; what was kept stays.
    pub fn save<B: AsRef<[u8]>>(&self, rows: &PolicyRows, components: &[(String, B)]) -> Result<(), StoreError> {
        let mut connection = self.connection()?;
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
        load(&*self.connection()?)
    }

    /// The component of this hash.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn component(&self, sha256: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let connection = self.connection()?;
        let mut select = connection.prepare_cached("SELECT component FROM policy_component WHERE sha256 = ?1")?;
        Ok(select.query_row([sha256], |row| row.get(0)).optional()?)
    }
}

/// Policies and their components, on the way from one file to another: at most [`MAX_TAKEN_BYTES`] of components.
#[derive(Default)]
pub(super) struct KeptPolicies {
    rows: PolicyRows,
    components: Vec<(String, Vec<u8>)>,
}

impl KeptPolicies {
    /// Reads the revision in force and as many others, the newest first, as there is room for.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(super) fn read(connection: &Connection) -> Result<Self, StoreError> {
        Self::read_at_most(MAX_TAKEN_BYTES, connection)
    }

    fn read_at_most(max_bytes: u64, connection: &Connection) -> Result<Self, StoreError> {
        let mut rows = load(connection)?;
        let mut select = connection.prepare("SELECT component FROM policy_component WHERE sha256 = ?1")?;
        let mut size = connection.prepare("SELECT length(component) FROM policy_component WHERE sha256 = ?1")?;
        let mut components: Vec<(String, Vec<u8>)> = Vec::new();
        let mut left = max_bytes;
        let mut left_behind: Vec<String> = Vec::new();
        let (in_force, ended): (Vec<&PolicyRow>, Vec<&PolicyRow>) =
            rows.revisions.iter().rev().partition(|row| row.ended_ms.is_none());
        for PolicyRow { sha256, .. } in in_force.into_iter().chain(ended) {
            if components.iter().any(|(taken, _)| taken == sha256) || left_behind.contains(sha256) {
                continue;
            }
            let Some(bytes) = size.query_row([sha256], |row| row.get::<_, u64>(0)).optional()? else { continue };
            if bytes > left {
                left_behind.push(sha256.clone());
                continue;
            }
            left -= bytes;
            components.push((sha256.clone(), select.query_row([sha256], |row| row.get(0))?));
        }
        if !left_behind.is_empty() {
            let revisions = left_behind.len();
            tracing::warn!(target: LOG_TARGET, revisions, max_bytes, "earlier policies are too large to be taken along into the store's new file");
            rows.revisions.retain(|row| !left_behind.contains(&row.sha256));
        }
        Ok(Self { rows, components })
    }

    /// Writes them over those that are there.
    pub(super) fn write(&self, connection: &mut Connection) -> Result<(), StoreError> {
        Ok(save(connection, &self.rows, &self.components)?)
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
        let mut statement = transaction.prepare_cached(POLICY_REVISION)?;
        for (number, row) in (1i64..).zip(&rows.revisions) {
            insert_revision(&mut statement, number, row)?;
        }
    }
    transaction.prepare_cached("DELETE FROM policy_source")?.execute([])?;
    if let Some(source) = &rows.source {
        transaction
            .prepare_cached("INSERT INTO policy_source (file, sha256) VALUES (?1, ?2)")?
            .execute(params![source.file, source.sha256])?;
    }
    for (sha256, bytes) in components {
        // Asked first: handed over, it would be copied.
        if !transaction.prepare_cached("SELECT 1 FROM policy_component WHERE sha256 = ?1")?.exists([sha256])? {
            transaction
                .prepare_cached("INSERT INTO policy_component (sha256, component) VALUES (?1, ?2)")?
                .execute(params![sha256, bytes.as_ref()])?;
        }
    }
    transaction
        .prepare_cached("DELETE FROM policy_component WHERE sha256 NOT IN (SELECT sha256 FROM policy_revision)")?
        .execute([])?;
    transaction.commit()
}

fn load(connection: &Connection) -> Result<PolicyRows, StoreError> {
    let source = connection
        .query_row(&format!("SELECT {} FROM policy_source", PolicySourceRow::COLUMNS), [], PolicySourceRow::read)
        .optional()?;
    Ok(PolicyRows { revisions: revisions(connection)?, source })
}

fn revisions(connection: &Connection) -> rusqlite::Result<Vec<PolicyRow>> {
    let sql = format!("SELECT {} FROM policy_revision ORDER BY number", PolicyRow::COLUMNS);
    let mut select = connection.prepare_cached(&sql)?;
    let rows = select.query_map([], PolicyRow::read)?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::policies;
    use crate::{StorePath, schema};

    #[test]
    fn what_is_taken_along_is_bounded_in_sum_and_the_one_in_force_goes_first() {
        let mut from = schema::open(&StorePath::Memory).unwrap();
        let mut rows = policies(&["aa", "bb", "cc", "dd"]);
        let end = |row: &mut PolicyRow, ended: Option<u64>| row.ended_ms = ended;
        rows.revisions.iter_mut().for_each(|row| end(row, Some(7)));
        end(&mut rows.revisions[1], None);
        let of = |name: &str| (name.to_owned(), vec![7_u8; 1_000]);
        save(&mut from, &rows, &["aa", "bb", "cc", "dd"].map(of)).unwrap();
        for (max_bytes, taken) in
            [(4_000, &["bb", "dd", "cc", "aa"][..]), (3_999, &["bb", "dd", "cc"]), (1_000, &["bb"]), (999, &[])]
        {
            let kept = KeptPolicies::read_at_most(max_bytes, &from).unwrap();
            let names: Vec<&str> = kept.components.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, taken);
            let mut to = schema::open(&StorePath::Memory).unwrap();
            kept.write(&mut to).unwrap();
            let mut written: Vec<String> = load(&to).unwrap().revisions.into_iter().map(|row| row.sha256).collect();
            written.sort();
            let mut taken = taken.to_vec();
            taken.sort_unstable();
            assert_eq!(written, taken, "no revision without its component");
        }
    }
}
