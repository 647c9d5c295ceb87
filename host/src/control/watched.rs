//! A file that is watched, and followed where the configuration names another.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman_engine::watch::{FileWatcher, Watched};
use tokio::sync::Notify;

/// Starts the one watcher of all files; none where it cannot be started, which is logged.
pub(super) fn start_watcher() -> Option<FileWatcher> {
    FileWatcher::start()
        .inspect_err(|error| tracing::error!(%error, "files are not watched; send SIGHUP after a change"))
        .ok()
}

/// Notifies when the file may have changed.
pub(super) struct WatchedFile {
    watcher: Option<FileWatcher>,
    notify: Arc<Notify>,
    file: Option<PathBuf>,
    _watched: Option<Watched>,
}

impl WatchedFile {
    /// A watcher of no file yet, which wakes `notify`.
    pub(super) fn new(watcher: Option<&FileWatcher>, notify: &Arc<Notify>) -> Self {
        Self { watcher: watcher.cloned(), notify: notify.clone(), file: None, _watched: None }
    }

    /// Watches this file, or none.
    pub(super) fn follow(&mut self, file: Option<&Path>) {
        if self.file.as_deref() == file {
            return;
        }
        self.file = file.map(Path::to_owned);
        self._watched = None;
        let (Some(watcher), Some(file)) = (&self.watcher, file) else { return };
        let notify = self.notify.clone();
        self._watched = Some(watcher.watch(file, move || notify.notify_one()));
        // It may have changed between being read and being watched.
        self.notify.notify_one();
    }
}

/// Notifies when one of several files may have changed.
pub(super) struct WatchedFiles {
    watcher: Option<FileWatcher>,
    notify: Arc<Notify>,
    files: HashMap<PathBuf, WatchedFile>,
}

impl WatchedFiles {
    /// A watcher of no file yet, which wakes `notify`.
    pub(super) fn new(watcher: Option<&FileWatcher>, notify: &Arc<Notify>) -> Self {
        Self { watcher: watcher.cloned(), notify: notify.clone(), files: HashMap::new() }
    }

    /// Watches these files and no others.
    pub(super) fn follow(&mut self, files: &[PathBuf]) {
        let wanted: HashSet<&PathBuf> = files.iter().collect();
        self.files.retain(|file, _| wanted.contains(file));
        for file in files {
            if !self.files.contains_key(file) {
                let mut watched = WatchedFile::new(self.watcher.as_ref(), &self.notify);
                watched.follow(Some(file));
                self.files.insert(file.clone(), watched);
            }
        }
    }
}
