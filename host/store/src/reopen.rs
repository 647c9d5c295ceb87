//! A store's file that is deleted or replaced while it is open: noticed, told, and opened again.
//!
//! SQLite writes on to a file that no name leads to any more, as if nothing had happened. So the writer looks at the name
//! before each batch and once a second. What was in the file is gone with it; what the running process needs of it at its
//! next start (policies, cooldowns, homes) is taken along.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use super::policies::KeptPolicies;
use super::{CooldownRow, HomeRow, LOG_TARGET, Shared, StoreError, StorePath, cooldowns, homes, schema};

/// The file behind the connections of an open store.
pub(super) struct StoreFile {
    path: PathBuf,
    /// Device and number of the file; none: it is none of ours.
    identity: Option<(u64, u64)>,
    writing: Shared,
    reading: Vec<Shared>,
    /// What goes from the file before into the next.
    kept: Option<Kept>,
    /// True once it was told.
    is_told: bool,
}

/// What is taken along.
struct Kept {
    policies: KeptPolicies,
    cooldowns: Vec<CooldownRow>,
    homes: Vec<HomeRow>,
}

impl StoreFile {
    /// The file of these connections, which were just opened.
    pub(super) fn new(path: &Path, writing: &Shared, reading: &[Shared]) -> Self {
        Self {
            path: path.to_owned(),
            identity: identity(path),
            writing: writing.clone(),
            reading: reading.to_vec(),
            kept: None,
            is_told: false,
        }
    }

    /// Opens the store anew where its file is another one, or none. True where it did.
    ///
    /// # Errors
    /// When there is no store to be written: what waits must wait on.
    pub(super) fn follow(&mut self, now_ms: u64) -> Result<bool, StoreError> {
        let found = identity(&self.path);
        if found.is_some() && found == self.identity {
            return Ok(false);
        }
        let what = if found.is_none() { "deleted or moved away" } else { "replaced" };
        if !self.is_told {
            self.is_told = true;
            tracing::error!(target: LOG_TARGET, store = %self.path.display(), "the store's file was {what} while Pointsman is running: the records in it are gone with it");
        }
        self.touch(what)?;
        self.let_go(now_ms)?;
        self.open_again()?;
        self.is_told = false;
        tracing::warn!(target: LOG_TARGET, store = %self.path.display(), "the store is open again, in the file that is there now");
        Ok(true)
    }

    /// Fails where there can be no file. Until there can be, the connections stay as they are.
    fn touch(&self, what: &'static str) -> Result<(), StoreError> {
        let gone = |why: String| StoreError::Gone { path: self.path.display().to_string(), what, why };
        match fs::metadata(&self.path) {
            Ok(meta) if !meta.is_file() => return Err(gone("what is there now is no file".to_owned())),
            Ok(_) | Err(_) => {}
        }
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path);
        opened.map(drop).map_err(|error| gone(error.to_string()))
    }

    /// Takes what is needed out of the file before and closes every connection to it: none may hold on to what has its name
    /// beside the new file.
    fn let_go(&mut self, now_ms: u64) -> Result<(), StoreError> {
        let mut writing = self.writing.lock();
        if self.kept.is_none() {
            // What is written ahead goes into the file that it belongs to, and not into the new one.
            let _ = writing.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            self.kept = Some(Kept {
                policies: KeptPolicies::read(&writing)?,
                cooldowns: cooldowns::load(&writing, now_ms)?,
                homes: homes::load(&writing, now_ms)?,
            });
        }
        for reading in &self.reading {
            *reading.lock() = schema::open(&StorePath::Memory)?;
        }
        *writing = schema::open(&StorePath::Memory)?;
        self.identity = None;
        Ok(())
    }

    fn open_again(&mut self) -> Result<(), StoreError> {
        let mut opened = schema::open(&StorePath::File(self.path.clone()))?;
        if let Some(kept) = &self.kept {
            kept.write(&mut opened)?;
        }
        for reading in &self.reading {
            *reading.lock() = schema::open_reader(&self.path)?;
        }
        *self.writing.lock() = opened;
        self.kept = None;
        self.identity = identity(&self.path);
        Ok(())
    }
}

impl Kept {
    fn write(&self, connection: &mut Connection) -> Result<(), StoreError> {
        self.policies.write(connection)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        cooldowns::replace(&transaction, &self.cooldowns)?;
        homes::insert(&transaction, &self.homes)?;
        Ok(transaction.commit()?)
    }
}

/// Device and number of the file behind this name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{T0_MS, exchange, fixed, policies, unlimited};
    use crate::{PolicyRows, Store};

    fn exchanges(file: &Path) -> i64 {
        let store = schema::open_reader(file).unwrap();
        store.query_row("SELECT count(*) FROM exchange", [], |row| row.get(0)).unwrap()
    }

    fn scene() -> (tempfile::TempDir, PathBuf, Store) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.db");
        let store = Store::open(StorePath::File(file.clone()), unlimited(), fixed(T0_MS)).unwrap();
        store.handle().record(exchange("r1", T0_MS), None);
        store.handle().flush_blocking().unwrap();
        (folder, file, store)
    }

    #[test]
    fn a_file_that_is_deleted_is_begun_anew_with_what_the_next_start_needs() {
        for leave_the_log in [false, true] {
            let (folder, file, store) = scene();
            let policies = policies(&["aa"]);
            store.policies().save(&policies, &[("aa".to_owned(), b"code")]).unwrap();
            fs::remove_file(&file).unwrap();
            if !leave_the_log {
                let _ = fs::remove_file(folder.path().join("s.db-wal"));
                let _ = fs::remove_file(folder.path().join("s.db-shm"));
            }
            store.handle().record(exchange("r2", T0_MS), None);
            store.handle().flush_blocking().unwrap();
            assert_eq!(exchanges(&file), 1, "the record after it, and none from before");
            assert_eq!(store.policies().load().unwrap(), policies);
            assert_eq!(store.policies().component("aa").unwrap().as_deref(), Some(&b"code"[..]));
            let read: i64 = {
                let reader = store.reader();
                let connection = reader.connection();
                connection.query_row("SELECT count(*) FROM exchange", [], |row| row.get(0)).unwrap()
            };
            assert_eq!(read, 1, "it is read from there too");
            store.close().unwrap();
            assert_eq!(exchanges(&file), 1);
        }
    }

    #[test]
    fn a_file_that_is_replaced_by_another_store_is_written_on() {
        let (folder, file, store) = scene();
        let other = folder.path().join("other.db");
        let before = Store::open(StorePath::File(other.clone()), unlimited(), fixed(T0_MS)).unwrap();
        for n in 10..15 {
            before.handle().record(exchange(&format!("r{n}"), T0_MS), None);
        }
        before.close().unwrap();
        fs::rename(&other, &file).unwrap();
        store.handle().record(exchange("r2", T0_MS), None);
        store.handle().flush_blocking().unwrap();
        assert_eq!(exchanges(&file), 6);
        store.close().unwrap();
        let whole: String =
            schema::open_reader(&file).unwrap().pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
        assert_eq!((whole.as_str(), exchanges(&file)), ("ok", 6));
    }

    #[test]
    fn what_is_no_store_is_left_alone_and_nothing_is_lost_meanwhile() {
        let (_folder, file, store) = scene();
        fs::remove_file(&file).unwrap();
        fs::write(&file, "this is a diary, and no store of anybody".repeat(200)).unwrap();
        store.handle().record(exchange("r2", T0_MS), None);
        assert!(store.handle().flush_blocking().is_err());
        assert!(store.handle().trouble().is_some_and(|why| why.contains("not a SQLite file")));
        assert!(fs::read_to_string(&file).unwrap().starts_with("this is a diary"));
        fs::remove_file(&file).unwrap();
        store.handle().flush_blocking().unwrap();
        assert_eq!((exchanges(&file), store.handle().trouble()), (1, None));
        assert_eq!(store.policies().load().unwrap(), PolicyRows::default());
    }
}
