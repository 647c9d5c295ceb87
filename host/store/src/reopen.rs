//! A store's file that is deleted, replaced or overwritten while it is open: noticed, told, and opened again.
//!
//! SQLite writes on to a file that no name leads to any more, as if nothing had happened. So the writer looks at the file
//! before each batch and once a second (`open_file`). What was in the file is gone with it; what the running process needs of
//! it at its next start (policies, cooldowns, homes) is taken along into an empty one. Where only what was written ahead beside
//! it lost its name, it goes into the file first, and nothing is lost.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, InterruptHandle, TransactionBehavior};

use super::open_file::{Change, OpenFile};
use super::policies::KeptPolicies;
use super::{CooldownRow, HomeRow, LOG_TARGET, Shared, StoreError, StorePath, cooldowns, homes, schema};

/// Pause between two looks at a file that is being written, and the most of them in a row.
const SETTLE: (Duration, u32) = (Duration::from_millis(100), 10);

/// The file behind the connections of an open store.
pub(super) struct StoreFile {
    open: Arc<OpenFile>,
    writing: Shared,
    reading: Vec<(Shared, InterruptHandle)>,
    /// State to carry from the file before into the next; none: its connections are open.
    kept: Option<Kept>,
    /// True once it was told.
    is_told: bool,
    /// True where something was written since the mark was renewed.
    is_written: bool,
}

/// State that is carried into the next file.
enum Kept {
    /// State that the process needs at its next start, because the next file has nothing of it.
    Rows { policies: KeptPolicies, cooldowns: Vec<CooldownRow>, homes: Vec<HomeRow> },
    /// Nothing: what is in the file counts.
    Nothing,
}

impl StoreFile {
    /// The file of these connections, which were just opened.
    pub(super) fn new(path: &Path, writing: &Shared, reading: &[Shared]) -> Self {
        let with_handle = |reading: &Shared| {
            let handle = reading.lock().get_interrupt_handle();
            (reading.clone(), handle)
        };
        let file = Self {
            open: Arc::new(OpenFile::new(path)),
            writing: writing.clone(),
            reading: reading.iter().map(with_handle).collect(),
            kept: None,
            is_told: false,
            is_written: false,
        };
        file.mark();
        file
    }

    /// The file that the connections have open.
    pub(super) fn open(&self) -> Arc<OpenFile> {
        Arc::clone(&self.open)
    }

    /// Something is written to the file.
    pub(super) fn is_written(&mut self) {
        self.is_written = true;
    }

    /// Renews the mark of what was written since the last time, from time to time.
    pub(super) fn tend(&mut self) {
        if std::mem::take(&mut self.is_written) {
            self.mark();
        }
    }

    /// Without a mark the file is as good, but for a copy over it that is not noticed.
    fn mark(&self) {
        if let Err(error) = self.open.renew_mark(&self.writing.lock()) {
            tracing::debug!(target: LOG_TARGET, %error, "the store's mark was not renewed");
        }
    }

    /// Opens the store anew where its file is another one, or none. True where it did.
    ///
    /// # Errors
    /// When there is no store to be written: what waits must wait on.
    pub(super) fn follow(&mut self, now_ms: u64) -> Result<bool, StoreError> {
        let Some(change) = self.settled_change()? else {
            // It may have come back under its name.
            self.is_told = false;
            return Ok(false);
        };
        let (what, path) = (change.as_str(), self.open.path().display());
        if !self.is_told {
            self.is_told = true;
            match change {
                Change::LogGone => {
                    tracing::error!(target: LOG_TARGET, store = %path, "the store's file was {what} while Pointsman is running: what is not in the file yet is written to it");
                }
                Change::LogCut => {
                    tracing::error!(target: LOG_TARGET, store = %path, "the store's file was {what} while Pointsman is running: the records that were written last are lost");
                }
                Change::Gone(_) | Change::Overwritten(_) => {
                    tracing::error!(target: LOG_TARGET, store = %path, "the store's file was {what} while Pointsman is running: the records in it are gone with it");
                }
            }
        }
        self.touch(change)?;
        self.let_go(change, now_ms)?;
        self.open_again()?;
        self.is_told = false;
        tracing::warn!(target: LOG_TARGET, store = %self.open.path().display(), "the store is open again, in the file that is there now");
        Ok(true)
    }

    /// Returns the change of the file, when who has overwritten it is done.
    ///
    /// # Errors
    /// While it is being written.
    fn settled_change(&self) -> Result<Option<Change>, StoreError> {
        let look = || self.open.change(&self.writing.lock());
        let mut change = look();
        for _ in 0..SETTLE.1 {
            let Some(Change::Overwritten(_) | Change::LogCut) = change else { return Ok(change) };
            let before = self.open.stamp();
            thread::sleep(SETTLE.0);
            let now = look();
            if now == change && self.open.stamp() == before {
                return Ok(change);
            }
            change = now;
        }
        match change {
            Some(change) => Err(self.open.gone(change, "it is still being written".to_owned())),
            None => Ok(None),
        }
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
        match change {
            Change::Gone(_) => {
                let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
                opened.map(drop).map_err(|error| self.open.gone(change, error.to_string()))
            }
            // Opened and closed once more, it would lose the locks of the connections to it (POSIX, fcntl).
            Change::Overwritten(_) | Change::LogGone | Change::LogCut => Ok(()),
        }
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
        let mut is_log_lost = false;
        if self.kept.is_none() {
            self.kept = Some(match change {
                Change::Gone(_) | Change::Overwritten("emptied") => Kept::rows(&writing, now_ms),
                Change::Overwritten(_) | Change::LogGone | Change::LogCut => Kept::Nothing,
            });
            // What is written ahead goes into the file that it belongs to, and not into the new one.
            let is_whole = || writing.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
            is_log_lost = match change {
                Change::Gone(_) => {
                    let _ = is_whole();
                    false
                }
                Change::LogGone => !is_whole().is_ok_and(|busy| busy == 0),
                // It belongs to nothing any more.
                Change::Overwritten(_) | Change::LogCut => true,
            };
            if is_log_lost {
                writing.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            }
        }
        *writing = schema::open(&StorePath::Memory)?;
        if is_log_lost {
            self.open.remove_log();
            if change == Change::LogGone {
                tracing::error!(target: LOG_TARGET, "what was written to the store last could not be read any more: these records are lost");
            }
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
        drop(writing);
        self.mark();
        Ok(())
    }
}

impl Kept {
    /// Reads what can be read. What cannot must not keep the new file from being written.
    fn rows(connection: &Connection, now_ms: u64) -> Self {
        Self::Rows {
            policies: or_none("policies", KeptPolicies::read(connection)),
            cooldowns: or_none("cooldowns", cooldowns::load(connection, now_ms)),
            homes: or_none("homes of sessions", homes::load(connection, now_ms)),
        }
    }

    fn write(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let Self::Rows { policies, cooldowns, homes } = self else { return Ok(()) };
        policies.write(connection)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        cooldowns::replace(&transaction, cooldowns)?;
        homes::insert(&transaction, homes)?;
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

    /// The file of another store with five exchanges, closed.
    fn other_store(folder: &tempfile::TempDir) -> PathBuf {
        let other = folder.path().join("other.db");
        let store = Store::open(StorePath::File(other.clone()), unlimited(), fixed(T0_MS)).unwrap();
        for n in 10..15 {
            store.handle().record(exchange(&format!("r{n}"), T0_MS), None);
        }
        store.close().unwrap();
        other
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
        let other = other_store(&folder);
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

    /// Fails unless the store is whole and has so many exchanges.
    fn is_whole(file: &Path, expected: i64) {
        let whole: String =
            schema::open_reader(file).unwrap().pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
        assert_eq!((whole.as_str(), exchanges(file)), ("ok", expected));
    }

    #[test]
    fn a_file_that_is_closed_is_whole_by_itself() {
        let (folder, file, store) = scene();
        store.close().unwrap();
        let copy = folder.path().join("copy.db");
        fs::copy(&file, &copy).unwrap();
        is_whole(&copy, 1);
    }

    #[test]
    fn a_copy_over_the_file_is_noticed_and_gone_on_with() {
        let (folder, file, store) = scene();
        let other = other_store(&folder);
        // Into the same file.
        fs::copy(&other, &file).unwrap();
        store.handle().record(exchange("r2", T0_MS), None);
        store.handle().flush_blocking().unwrap();
        assert_eq!(exchanges(&file), 6, "those of the copy, and the one after it");
        store.close().unwrap();
        is_whole(&file, 6);
    }

    #[test]
    fn an_earlier_state_of_the_same_store_is_noticed_too() {
        let (folder, file, store) = scene();
        store.close().unwrap();
        let backup = folder.path().join("backup.db");
        fs::copy(&file, &backup).unwrap();
        let store = Store::open(StorePath::File(file.clone()), unlimited(), fixed(T0_MS)).unwrap();
        for n in 10..15 {
            store.handle().record(exchange(&format!("r{n}"), T0_MS), None);
        }
        store.handle().flush_blocking().unwrap();
        fs::copy(&backup, &file).unwrap();
        store.handle().record(exchange("r2", T0_MS), None);
        store.handle().flush_blocking().unwrap();
        store.close().unwrap();
        is_whole(&file, 2);
    }

    #[test]
    fn a_file_that_is_cut_short_or_scribbled_over_is_not_written_to() {
        for (what, spoil) in [
            ("cut", (|file| fs::File::options().write(true).open(file).unwrap().set_len(8_192).unwrap()) as fn(&Path)),
            ("scribbled", |file| {
                use std::os::unix::fs::FileExt;
                fs::File::options().write(true).open(file).unwrap().write_all_at(&[7; 4_096], 0).unwrap();
            }),
        ] {
            let (_folder, file, store) = scene();
            spoil(&file);
            let spoilt = fs::read(&file).unwrap();
            store.handle().record(exchange("r2", T0_MS), None);
            assert!(store.handle().flush_blocking().is_err(), "{what}");
            assert!(store.handle().trouble().is_some(), "{what}");
            assert_eq!(fs::read(&file).unwrap(), spoilt, "{what}: left to who can repair it");
            fs::remove_file(&file).unwrap();
            store.handle().flush_blocking().unwrap();
            assert_eq!((exchanges(&file), store.handle().trouble()), (1, None), "{what}");
        }
    }

    #[test]
    fn what_was_written_ahead_and_lost_its_name_is_not_lost() {
        for end in ["-wal", "-shm"] {
            let (folder, file, store) = scene();
            fs::remove_file(folder.path().join(format!("s.db{end}"))).unwrap();
            store.handle().record(exchange("r2", T0_MS), None);
            store.handle().flush_blocking().unwrap();
            assert_eq!(exchanges(&file), 2, "{end}");
            store.close().unwrap();
            is_whole(&file, 2);
        }
    }

    #[test]
    fn what_was_written_ahead_and_is_cut_is_lost_and_nothing_after_it() {
        let (folder, file, store) = scene();
        // What is in the file already is not lost.
        let log = folder.path().join("s.db-wal");
        fs::write(&log, "").unwrap();
        store.handle().record(exchange("lost", T0_MS), None);
        store.handle().flush_blocking().unwrap();
        assert_eq!(exchanges(&file), 2);
        fs::write(&log, "").unwrap();
        store.handle().record(exchange("r2", T0_MS), None);
        store.handle().flush_blocking().unwrap();
        assert_eq!(exchanges(&file), 2, "the first, and the one after it");
        store.close().unwrap();
        is_whole(&file, 2);
    }

    #[test]
    fn who_writes_through_sqlite_is_no_trouble() {
        let (_folder, file, store) = scene();
        for statements in
            ["DELETE FROM exchange; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)", "UPDATE generation SET mark = x'00'"]
        {
            let other = Connection::open(&file).unwrap();
            other.execute_batch(statements).unwrap();
            other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            drop(other);
            store.handle().record(exchange("r2", T0_MS), None);
            store.handle().flush_blocking().unwrap();
            assert_eq!(store.handle().trouble(), None);
        }
        assert_eq!(exchanges(&file), 2);
        store.close().unwrap();
        is_whole(&file, 2);
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
