//! A store's file that is deleted or replaced while it is open: noticed, told, and opened again.
//!
//! SQLite writes on to a file that no name leads to any more, as if nothing had happened. So the writer looks at the name
//! before each batch and once a second. What was in the file is gone with it; what the running process needs of it at its
//! next start (policies, cooldowns, homes) is taken along.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, InterruptHandle, TransactionBehavior};

use super::open_file::{Change, OpenFile};
use super::policies::KeptPolicies;
use super::{CooldownRow, HomeRow, LOG_TARGET, Shared, StoreError, StorePath, cooldowns, homes, schema};

/// The file behind the connections of an open store.
pub(super) struct StoreFile {
    open: Arc<OpenFile>,
    writing: Shared,
    reading: Vec<(Shared, InterruptHandle)>,
    /// Rows that go from the file before into the next.
    kept: Option<Kept>,
    /// True once it was told.
    is_told: bool,
}

/// Rows that are taken along.
#[derive(Default)]
struct Kept {
    policies: KeptPolicies,
    cooldowns: Vec<CooldownRow>,
    homes: Vec<HomeRow>,
}

impl StoreFile {
    /// The file of these connections, which were just opened.
    pub(super) fn new(path: &Path, writing: &Shared, reading: &[Shared]) -> Self {
        let with_handle = |reading: &Shared| {
            let handle = reading.lock().get_interrupt_handle();
            (reading.clone(), handle)
        };
        Self {
            open: Arc::new(OpenFile::new(path)),
            writing: writing.clone(),
            reading: reading.iter().map(with_handle).collect(),
            kept: None,
            is_told: false,
        }
    }

    /// The file that the connections have open.
    pub(super) fn open(&self) -> Arc<OpenFile> {
        Arc::clone(&self.open)
    }

    /// Opens the store anew where its file is another one, or none. True where it did.
    ///
    /// # Errors
    /// When there is no store to be written: what waits must wait on.
    pub(super) fn follow(&mut self, now_ms: u64) -> Result<bool, StoreError> {
        let Some(change) = self.open.change() else {
            // It may have come back under its name.
            self.is_told = false;
            return Ok(false);
        };
        let (what, path) = (change.as_str(), self.open.path().display());
        if !self.is_told {
            self.is_told = true;
            tracing::error!(target: LOG_TARGET, store = %path, "the store's file was {what} while Pointsman is running: the records in it are gone with it");
        }
        self.touch(change)?;
        self.let_go(change, now_ms)?;
        self.open_again()?;
        self.is_told = false;
        tracing::warn!(target: LOG_TARGET, store = %self.open.path().display(), "the store is open again, in the file that is there now");
        Ok(true)
    }

    /// Fails where there can be no file. Until there can be, the connections stay as they are.
    fn touch(&self, change: Change) -> Result<(), StoreError> {
        let path = self.open.path();
        match fs::metadata(path) {
            Ok(meta) if !meta.is_file() => {
                return Err(self.open.gone(change, "what is there now is no file".to_owned()));
            }
            Ok(_) | Err(_) => {}
        }
        if change == Change::Emptied {
            // Opened and closed once more, it would lose the locks of the connections to it (POSIX, fcntl).
            return Ok(());
        }
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        opened.map(drop).map_err(|error| self.open.gone(change, error.to_string()))
    }

    /// Takes what is needed out of the file before and closes every connection to it: none may hold on to what has its name
    /// beside the new file. Questions that are being answered from it are interrupted.
    fn let_go(&mut self, change: Change, now_ms: u64) -> Result<(), StoreError> {
        for (reading, running) in &self.reading {
            let instead = schema::open(&StorePath::Memory)?;
            let mut reading = loop {
                if let Some(reading) = reading.try_lock() {
                    break reading;
                }
                // Again and again: one that begins only now is not interrupted.
                running.interrupt();
                thread::yield_now();
            };
            *reading = instead;
        }
        let mut writing = self.writing.lock();
        if self.kept.is_none() {
            match change {
                // What is written ahead goes into the file that it belongs to, and not into the new one.
                Change::Gone(_) => drop(writing.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))),
                // It belongs to nothing any more.
                Change::Emptied => {
                    writing.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
                }
            }
            self.kept = Some(Kept::read(&writing, now_ms));
        }
        *writing = schema::open(&StorePath::Memory)?;
        if change == Change::Emptied {
            self.open.remove_log();
        }
        self.open.is_closed();
        Ok(())
    }

    fn open_again(&mut self) -> Result<(), StoreError> {
        let path = self.open.path();
        let mut opened = schema::open(&StorePath::File(path.to_owned()))?;
        if let Some(kept) = &self.kept {
            kept.write(&mut opened)?;
        }
        for (reading, running) in &mut self.reading {
            let opened = schema::open_reader(path)?;
            *running = opened.get_interrupt_handle();
            *reading.lock() = opened;
        }
        let mut writing = self.writing.lock();
        *writing = opened;
        self.kept = None;
        self.open.is_opened();
        Ok(())
    }
}

impl Kept {
    /// Reads what can be read. What cannot must not keep the new file from being written.
    fn read(connection: &Connection, now_ms: u64) -> Self {
        Self {
            policies: or_none("policies", KeptPolicies::read(connection)),
            cooldowns: or_none("cooldowns", cooldowns::load(connection, now_ms)),
            homes: or_none("homes of sessions", homes::load(connection, now_ms)),
        }
    }

    fn write(&self, connection: &mut Connection) -> Result<(), StoreError> {
        self.policies.write(connection)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        cooldowns::replace(&transaction, &self.cooldowns)?;
        homes::insert(&transaction, &self.homes)?;
        Ok(transaction.commit()?)
    }
}

fn or_none<T: Default>(what: &'static str, read: Result<T, StoreError>) -> T {
    read.unwrap_or_else(|error| {
        tracing::error!(target: LOG_TARGET, %error, "the {what} cannot be read from the file that was the store, and are not in the new one");
        T::default()
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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

    #[test]
    fn policies_are_not_taken_into_no_file() {
        let (_folder, file, store) = scene();
        let kept = policies(&["aa"]);
        store.policies().save(&kept, &[("aa".to_owned(), b"code")]).unwrap();
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        for _ in 0..2 {
            let refused = store.policies().save(&policies(&["bb"]), &[("bb".to_owned(), b"code")]);
            assert!(matches!(refused, Err(StoreError::Gone { .. })), "{refused:?}");
            assert!(store.handle().flush_blocking().is_err());
        }
        fs::remove_dir(&file).unwrap();
        fs::write(&file, "no store of anybody".repeat(200)).unwrap();
        assert!(store.handle().flush_blocking().is_err());
        let refused = store.policies().save(&policies(&["cc"]), &[("cc".to_owned(), b"code")]);
        assert!(refused.is_err_and(|error| error.to_string().contains("replaced while Pointsman is running")));
        fs::remove_file(&file).unwrap();
        store.handle().flush_blocking().unwrap();
        assert_eq!(store.policies().load().unwrap(), kept);
        store.policies().save(&policies(&["dd"]), &[("dd".to_owned(), b"code")]).unwrap();
        store.close().unwrap();
        let again = Store::open(StorePath::File(file), unlimited(), fixed(T0_MS)).unwrap();
        assert_eq!(again.policies().load().unwrap(), policies(&["dd"]));
    }

    #[test]
    fn what_cannot_be_read_from_the_old_file_does_not_keep_the_new_one_from_being_written() {
        let (_folder, file, store) = scene();
        store.policies().connection().unwrap().execute_batch("DROP TABLE policy_revision").unwrap();
        fs::remove_file(&file).unwrap();
        store.handle().record(exchange("r2", T0_MS), None);
        store.handle().flush_blocking().unwrap();
        assert_eq!(exchanges(&file), 1);
        assert_eq!(store.policies().load().unwrap(), PolicyRows::default());
    }

    #[test]
    fn a_file_that_is_emptied_is_begun_anew() {
        let (_folder, file, store) = scene();
        fs::write(&file, "").unwrap();
        store.handle().record(exchange("r2", T0_MS), None);
        store.handle().flush_blocking().unwrap();
        assert_eq!(exchanges(&file), 1, "the record after it, and none from before");
        store.close().unwrap();
        let whole: String =
            schema::open_reader(&file).unwrap().pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
        assert_eq!((whole.as_str(), exchanges(&file)), ("ok", 1));
    }

    #[test]
    fn a_file_that_comes_back_is_the_same_one_and_its_next_end_is_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("s.db");
        let writing = Shared::new(schema::open(&StorePath::File(path.clone())).unwrap());
        let mut file = StoreFile::new(&path, &writing, &[]);
        for _ in 0..2 {
            fs::rename(&inner, folder.path().join("away")).unwrap();
            assert!(matches!(file.follow(T0_MS), Err(StoreError::Gone { .. })));
            assert!(file.is_told);
            fs::rename(folder.path().join("away"), &inner).unwrap();
            assert!(!file.follow(T0_MS).unwrap(), "nothing is opened anew");
            assert!(!file.is_told);
        }
    }

    #[test]
    fn a_question_without_an_end_does_not_hold_up_the_writer() {
        const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let (_folder, file, store) = scene();
        let (began, has_begun) = std::sync::mpsc::channel();
        let reader = store.reader();
        let asking = thread::spawn(move || {
            let connection = reader.connection();
            began.send(()).unwrap();
            connection.query_row(ENDLESS, [], |row| row.get::<_, i64>(0))
        });
        has_begun.recv().unwrap();
        fs::remove_file(&file).unwrap();
        store.handle().record(exchange("r2", T0_MS), None);
        store.handle().flush_blocking().unwrap();
        assert_eq!(exchanges(&file), 1);
        assert!(asking.join().unwrap().is_err(), "it was interrupted");
    }
}
