//! A file that is watched, and followed where the configuration names another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman_engine::watch::Watcher;
use tokio::sync::Notify;

/// Notifies when the file may have changed.
pub(super) struct WatchedFile {
    notify: Arc<Notify>,
    file: Option<PathBuf>,
    /// None where it cannot be watched.
    _watcher: Option<Watcher>,
}

impl WatchedFile {
    /// A watcher of no file yet, which wakes `notify`.
    pub(super) fn new(notify: &Arc<Notify>) -> Self {
        Self { notify: notify.clone(), file: None, _watcher: None }
    }

    /// Watches this file, or none; `what` names it in the log.
    pub(super) fn follow(&mut self, file: Option<&Path>, what: &str) {
        if self.file.as_deref() == file {
            return;
        }
        self.file = file.map(Path::to_owned);
        let Some(file) = file else {
            self._watcher = None;
            return;
        };
        let notify = self.notify.clone();
        self._watcher = Watcher::new(file, move || notify.notify_one())
            .inspect_err(|error| tracing::error!(file = %file.display(), %error, "{what} is not watched; send SIGHUP after a change"))
            .ok();
        // It may have changed between being read and being watched.
        self.notify.notify_one();
    }
}

/// Notifies when one of several files may have changed.
pub(super) struct WatchedFiles {
    notify: Arc<Notify>,
    files: Vec<PathBuf>,
    /// None where there is none, or they cannot be watched.
    _watcher: Option<Watcher>,
}

impl WatchedFiles {
    /// A watcher of no file yet, which wakes `notify`.
    pub(super) fn new(notify: &Arc<Notify>) -> Self {
        Self { notify: notify.clone(), files: Vec::new(), _watcher: None }
    }

    /// Watches these files and no others; `what` names them in the log.
    pub(super) fn follow(&mut self, files: &[PathBuf], what: &str) {
        if self.files == files {
            return;
        }
        self.files.clear();
        self.files.extend_from_slice(files);
        self._watcher = None;
        if files.is_empty() {
            return;
        }
        let notify = self.notify.clone();
        self._watcher = Watcher::of_all(files.to_vec(), move || notify.notify_one())
            .inspect_err(|error| tracing::error!(files = files.len(), %error, "{what} are not watched; send SIGHUP after a change"))
            .ok();
        // One may have changed between being read and being watched.
        self.notify.notify_one();
    }
}
