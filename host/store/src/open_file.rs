//! The file behind the connections of a store, and whether it is still what was written.
//!
//! SQLite looks neither at a file's name nor at its content as long as it is alone with it: it writes on to a file that was
//! deleted, and mixes what it wrote ahead with whatever a copy has put in the place of the content (`cp backup.db store.db`
//! keeps the file and replaces its bytes). So the names are looked at, and a random mark inside the file, which is renewed
//! with the checkpoints: a content without it is another one, an earlier state of the same store included.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::StoreError;

/// Bytes of a mark.
const MARK_BYTES: usize = 16;

/// The beginning of a SQLite file, bytes (its format, section 1.3).
const HEADER_BYTES: usize = 100;

/// The head of a log and of each page in it, bytes.
const LOG_HEAD_BYTES: u64 = 32;
const FRAME_HEAD_BYTES: u64 = 24;

/// The largest page of a SQLite file, bytes.
const MAX_PAGE_BYTES: usize = 65_536;

type Mark = [u8; MARK_BYTES];

/// Device and number of a file.
type Identity = (u64, u64);

/// The file that the connections have open.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    opened: Mutex<Opened>,
}

/// State of an open file.
#[derive(Debug, Default)]
struct Opened {
    /// None: it is none of ours.
    identity: Option<Identity>,
    /// The files beside it, in which SQLite writes ahead; none: there are none, as on some file systems of a network.
    log: Option<OpenLog>,
    /// The file itself. Closed before the connections, it would take their locks along (fcntl(2), POSIX).
    file: Option<File>,
    /// The marks that the file may have: the latest, and the one before while the latest may not have reached it.
    marks: Vec<Mark>,
    /// Its size and times when it was looked into last.
    looked: Option<Stamp>,
    /// Count of other programs' changes through SQLite then.
    data_version: i64,
}

/// The files in which SQLite writes ahead.
#[derive(Debug)]
struct OpenLog {
    /// The log and its index.
    names: [(PathBuf, Identity); 2],
    /// The index, which is closed after the connections for the same reason.
    index: File,
}

/// Size and times of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u64, [i64; 4]);

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self(meta.len(), [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()])
    }
}

/// A change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// No name leads to it any more, or the name leads to another.
    Gone(&'static str),
    /// It is the same one, and what was in it is not there any more.
    Overwritten(&'static str),
    /// The write-ahead log beside it has no name any more.
    LogGone,
    /// The write-ahead log beside it is not there any more.
    LogCut,
}

impl Change {
    /// The change in words.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Change::Gone(what) | Change::Overwritten(what) => what,
            Change::LogGone => "robbed of its -wal or -shm file",
            Change::LogCut => "robbed of what stood in its -wal file",
        }
    }
}

impl OpenFile {
    /// The file that was just opened. Its path stays the same wherever the working directory is moved.
    pub(super) fn new(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let open = Self { path, opened: Mutex::default() };
        open.is_opened();
        open
    }

    /// From now on the file that has the name is the one that is open.
    pub(super) fn is_opened(&self) {
        let file = File::open(&self.path).ok();
        let identity = file.as_ref().and_then(|file| file.metadata().ok()).map(|meta| identity_of(&meta));
        *self.opened() = Opened { identity, log: self.open_log(), file, ..Opened::default() };
    }

    /// From now on none is open.
    pub(super) fn is_closed(&self) {
        *self.opened() = Opened::default();
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Size and times of the file behind the name.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        fs::metadata(&self.path).ok().map(|meta| Stamp::of(&meta))
    }

    /// Looks at the file behind the name, and into it. An error says nothing about the file that is open, unless there is none.
    pub(super) fn change(&self, connection: &Connection) -> Option<Change> {
        let mut opened = self.opened();
        let meta = match fs::metadata(&self.path) {
            Ok(meta) if opened.identity == Some(identity_of(&meta)) => meta,
            Ok(_) => return Some(Change::Gone("replaced")),
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                        Some(Change::Gone("deleted or moved away"))
                    }
                    _ if opened.identity.is_some() => None,
                    _ => Some(Change::Gone("replaced")),
                };
            }
        };
        if meta.len() == 0 {
            return Some(Change::Overwritten("emptied"));
        }
        opened.content_change(&meta, connection).or_else(|| opened.log_change())
    }

    /// Looks whether the file that is open has the name.
    ///
    /// # Errors
    /// [`StoreError::Gone`]: the file that is open is not the store's any more.
    pub(super) fn is_there(&self, connection: &Connection) -> Result<(), StoreError> {
        match self.change(connection) {
            None => Ok(()),
            Some(change) => Err(self.gone(change, "it is being opened again; try again in a moment".to_owned())),
        }
    }

    /// The error of a store without its file.
    pub(super) fn gone(&self, change: Change, why: String) -> StoreError {
        StoreError::Gone { path: self.path.display().to_string(), what: change.as_str(), why }
    }

    /// Writes a new mark and what was written ahead into the file, as far as no reader needs what is there.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(super) fn renew_mark(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut opened = self.opened();
        let is_first = opened.marks.is_empty();
        if opened.marks.len() < 2 {
            let mark = connection
                .prepare_cached("UPDATE generation SET mark = randomblob(16) RETURNING mark")?
                .query_row([], |row| row.get::<_, Mark>(0))?;
            opened.marks.push(mark);
        }
        let is_whole = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            let (busy, written, copied) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?);
            Ok(busy == 0 && written == copied)
        })?;
        if is_whole {
            let older = opened.marks.len().saturating_sub(1);
            opened.marks.drain(..older);
        } else if is_first {
            // There is none yet that the file has for certain.
            opened.marks.clear();
        }
        opened.data_version = data_version(connection)?;
        // One that is written meanwhile is looked into once more.
        opened.looked = None;
        Ok(())
    }

    /// Removes what SQLite wrote ahead beside the file, which belongs to what was in it before.
    pub(super) fn remove_log(&self) {
        for path in self.log_paths() {
            // It may not be there.
            let _ = fs::remove_file(path);
        }
    }

    fn open_log(&self) -> Option<OpenLog> {
        let index = File::open(&self.log_paths()[1]).ok()?;
        let names = self.log_paths().map(|path| fs::metadata(&path).ok().map(|meta| (path, identity_of(&meta))));
        match names {
            [Some(log), Some(index_name)] => Some(OpenLog { names: [log, index_name], index }),
            _ => None,
        }
    }

    /// SQLite writes ahead beside the file that a link leads to.
    fn log_paths(&self) -> [PathBuf; 2] {
        let real = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        ["-wal", "-shm"].map(|end| {
            let mut name = real.clone().into_os_string();
            name.push(end);
            PathBuf::from(name)
        })
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// Looks into the file where its size or times are others than at the last look.
    fn content_change(&mut self, meta: &Metadata, connection: &Connection) -> Option<Change> {
        let stamp = Stamp::of(meta);
        if self.looked == Some(stamp) || self.marks.is_empty() {
            return None;
        }
        let change = self.read_change(meta.len(), connection).unwrap_or(None);
        // Who writes through SQLite is nobody's harm; its content has a mark of its own only if it was copied into this one.
        if matches!(change, Some(Change::Overwritten(_)))
            && data_version(connection).is_ok_and(|version| version != self.data_version)
        {
            self.marks.clear();
            return None;
        }
        if change.is_none() {
            self.looked = Some(stamp);
        }
        change
    }

    fn read_change(&self, length: u64, connection: &Connection) -> io::Result<Option<Change>> {
        let Some(file) = &self.file else { return Ok(None) };
        let overwritten = Ok(Some(Change::Overwritten("overwritten")));
        let mut header = [0; HEADER_BYTES];
        if read(file, &mut header, 0)? < HEADER_BYTES || !header.starts_with(b"SQLite format 3\0") {
            return overwritten;
        }
        let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
            1 => MAX_PAGE_BYTES,
            bytes => usize::from(bytes),
        };
        let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
        if u64::from(pages).saturating_mul(page_bytes as u64) > length {
            return Ok(Some(Change::Overwritten("cut short")));
        }
        let Some(root) = root_of_marks(connection) else { return Ok(None) };
        let mut page = vec![0; page_bytes];
        let filled = read(file, &mut page, root.saturating_sub(1).saturating_mul(page_bytes as u64))?;
        let is_known = |mark: &Mark| page[..filled].windows(MARK_BYTES).any(|bytes| bytes == mark);
        if self.marks.iter().any(is_known) { Ok(None) } else { overwritten }
    }

    fn log_change(&self) -> Option<Change> {
        let OpenLog { names, index } = self.log.as_ref()?;
        let needed = index_needs(index);
        let mut lengths = [0; 2];
        for ((path, was), length) in names.iter().zip(&mut lengths) {
            match fs::metadata(path) {
                Ok(meta) if identity_of(&meta) == *was => *length = meta.len(),
                Ok(_) => return Some(Change::LogGone),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(Change::LogGone),
                // It says nothing.
                Err(_) => return None,
            }
        }
        (lengths[0] < needed).then_some(Change::LogCut)
    }
}

/// The length that the log has at least by its index, bytes (WAL-mode file format, section 2).
fn index_needs(index: &File) -> u64 {
    let mut header = [0; 100];
    if !read(index, &mut header, 0).is_ok_and(|filled| filled == header.len()) {
        return 0;
    }
    let page_bytes = match u16::from_ne_bytes([header[14], header[15]]) {
        1 => MAX_PAGE_BYTES as u64,
        bytes => u64::from(bytes),
    };
    let number = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (frames, copied) = (number(16), number(96));
    match frames {
        // All of them are in the file too.
        frames if frames <= copied => 0,
        frames => LOG_HEAD_BYTES + u64::from(frames) * (FRAME_HEAD_BYTES + page_bytes),
    }
}

/// The page of the table of marks.
fn root_of_marks(connection: &Connection) -> Option<u64> {
    let select = connection.prepare_cached("SELECT rootpage FROM sqlite_schema WHERE name = 'generation'");
    select.ok()?.query_row([], |row| row.get(0)).ok()
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// Reads until there is no more; returns how much there was.
fn read(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match file.read_at(&mut out[filled..], offset + filled as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

fn identity_of(meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino())
}
