//! The file behind the connections of a store, and whether the store's name still leads to it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::StoreError;

/// The file that the connections have open.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    /// Device and number of the file; none: it is none of ours.
    identity: Mutex<Option<(u64, u64)>>,
}

/// A change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// No name leads to it any more, or the name leads to another.
    Gone(&'static str),
    /// It is the same one, and what was in it is not there any more.
    Emptied,
}

impl Change {
    /// The change in words.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Change::Gone(what) => what,
            Change::Emptied => "emptied",
        }
    }
}

impl OpenFile {
    /// The file that was just opened.
    pub(super) fn new(path: &Path) -> Self {
        let open = Self { path: path.to_owned(), identity: Mutex::default() };
        open.is_opened();
        open
    }

    /// From now on the file that has the name is the one that is open.
    pub(super) fn is_opened(&self) {
        self.set(fs::metadata(&self.path).ok().map(|meta| (meta.dev(), meta.ino())));
    }

    /// From now on none is open.
    pub(super) fn is_closed(&self) {
        self.set(None);
    }

    /// Path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn set(&self, identity: Option<(u64, u64)>) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Looks at the file behind the name. An error says nothing about the file that is open, unless there is none.
    pub(super) fn change(&self) -> Option<Change> {
        let open = *self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::metadata(&self.path) {
            Ok(meta) if open == Some((meta.dev(), meta.ino())) => (meta.len() == 0).then_some(Change::Emptied),
            Ok(_) => Some(Change::Gone("replaced")),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some(Change::Gone("deleted or moved away")),
                _ if open.is_some() => None,
                _ => Some(Change::Gone("replaced")),
            },
        }
    }

    /// Looks whether the file that is open has the name.
    ///
    /// # Errors
    /// [`StoreError::Gone`]: the file that is open is not the store's any more.
    pub(super) fn is_there(&self) -> Result<(), StoreError> {
        match self.change() {
            None => Ok(()),
            Some(change) => Err(self.gone(change, "it is being opened again; try again in a moment".to_owned())),
        }
    }

    /// The error of a store without its file.
    pub(super) fn gone(&self, change: Change, why: String) -> StoreError {
        StoreError::Gone { path: self.path.display().to_string(), what: change.as_str(), why }
    }

    /// Removes what SQLite wrote ahead beside the file, which belongs to what was in it before.
    pub(super) fn remove_log(&self) {
        for end in ["-wal", "-shm"] {
            let mut name = self.path.clone().into_os_string();
            name.push(end);
            // It may not be there.
            let _ = fs::remove_file(PathBuf::from(name));
        }
    }
}
