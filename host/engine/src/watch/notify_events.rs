//! Events of systems other than Linux, by the `notify` crate: each directory is watched, and what its events concern is told by
//! their paths.
//!
//! These systems tell writes to neighbours, too. They wake the thread, and nothing is looked at for them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};

use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::file::{File, Nearness, parent};
use super::{Id, LOG_TARGET};

/// The system's events of the watched files; none where it has none to give.
pub(super) struct Events {
    watcher: Option<RecommendedWatcher>,
    inbox: Receiver<notify::Result<notify::Event>>,
    /// Readable when something is in the inbox.
    woken: UnixStream,
    /// Watched directories, as the system names them, and the names that are looked out for in each.
    directories: HashMap<PathBuf, Vec<(Id, OsString)>>,
}

impl Events {
    pub(super) fn open() -> Self {
        let (sender, inbox) = mpsc::channel();
        let (woken, waker) = UnixStream::pair().expect("two descriptors, of which the caller has just had as many");
        for end in [&woken, &waker] {
            end.set_nonblocking(true).expect("a socket may be told not to block");
        }
        let tell = move |event| {
            // The receiver goes last; a full buffer wakes it as well.
            let _ = sender.send(event);
            let _ = (&waker).write(&[1]);
        };
        let watcher = notify::recommended_watcher(tell).inspect_err(
            |error| tracing::warn!(target: LOG_TARGET, %error, "file events are not available; files are looked at every 2 s instead"),
        );
        Self { watcher: watcher.ok(), inbox, woken, directories: HashMap::new() }
    }

    /// Readable when there are events.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.woken.as_fd())
    }

    /// Watches the directory of the file's path as written and that of the file it leads to, in place of what was watched for it
    /// before.
    pub(super) fn follow(&mut self, id: Id, file: &File) {
        let mut wanted: Vec<(PathBuf, OsString)> = Vec::with_capacity(2);
        let real = fs::canonicalize(file.path()).ok();
        for path in std::iter::once(file.path()).chain(real.as_deref()) {
            // The system tells directories by their real names.
            let directory = fs::canonicalize(parent(path)).ok();
            if let (Some(directory), Some(name)) = (directory, path.file_name()) {
                wanted.push((directory, name.to_owned()));
            }
        }
        for (directory, name) in &wanted {
            let is_new = !self.directories.contains_key(directory);
            if is_new && !self.watch(directory) {
                continue;
            }
            let names = self.directories.entry(directory.clone()).or_default();
            if !names.iter().any(|(other, own)| *other == id && own == name) {
                names.push((id, name.clone()));
            }
        }
        self.retain(|directory, (other, own)| {
            *other != id || wanted.iter().any(|(wanted, name)| wanted == directory && name == own)
        });
    }

    /// Ends what was watched for a file.
    pub(super) fn forget(&mut self, id: Id) {
        self.retain(|_, (other, _)| *other != id);
    }

    /// Reads what has come, and says whom it concerns.
    pub(super) fn read(&mut self, mut hear: impl FnMut(Id, Nearness)) {
        let mut bytes = [0; 64];
        while matches!((&self.woken).read(&mut bytes), Ok(1..)) {}
        let mut gone = Vec::new();
        for event in self.inbox.try_iter() {
            let Some(event) = event.ok().filter(|event| !event.need_rescan()) else {
                // Events were lost: anything may have happened.
                self.directories.values().flatten().for_each(|(id, _)| hear(*id, Nearness::Itself));
                continue;
            };
            if matches!(event.kind, EventKind::Access(_)) {
                continue;
            }
            let is_write = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)));
            for path in &event.paths {
                if self.directories.contains_key(path) && !is_write {
                    gone.push(path.clone());
                }
                let directory = if self.directories.contains_key(path) { Some(path.as_path()) } else { path.parent() };
                let names = directory.and_then(|directory| self.directories.get(directory));
                for (id, name) in names.into_iter().flatten() {
                    let is_itself = path.file_name() == Some(name);
                    if is_itself || !is_write {
                        hear(*id, if is_itself { Nearness::Itself } else { Nearness::Neighbour });
                    }
                }
            }
        }
        // A directory that goes or is renamed takes its watch along; the next look follows whoever took its place.
        for directory in gone {
            self.unwatch(&directory);
            for (id, _) in self.directories.remove(&directory).into_iter().flatten() {
                hear(id, Nearness::Itself);
            }
        }
    }

    fn watch(&mut self, directory: &Path) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        // It may just have gone; looking remains.
        watcher.watch(directory, RecursiveMode::NonRecursive).is_ok()
    }

    fn unwatch(&mut self, directory: &Path) {
        if let Some(watcher) = &mut self.watcher {
            // It may have ended with what it watched.
            let _ = watcher.unwatch(directory);
        }
    }

    /// Keeps the names that are wanted, and the watches that serve one.
    fn retain(&mut self, is_wanted: impl Fn(&Path, &(Id, OsString)) -> bool) {
        let mut unused = Vec::new();
        for (directory, names) in &mut self.directories {
            names.retain(|name| is_wanted(directory, name));
            if names.is_empty() {
                unused.push(directory.clone());
            }
        }
        for directory in unused {
            self.directories.remove(&directory);
            self.unwatch(&directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// Waits for events until one is of this kind.
    fn hears(events: &mut Events, wanted: (Id, Nearness)) {
        let mut is_heard = false;
        while !is_heard {
            let fd = events.fd().expect("there is always one");
            poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None).unwrap();
            events.read(|id, nearness| is_heard |= (id, nearness) == wanted);
        }
    }

    #[test]
    fn a_file_is_told_by_its_name_and_a_write_to_its_neighbour_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let [path, log] = ["pointsman.toml", "pointsman.db-wal"].map(|name| directory.path().join(name));
        fs::write(&path, "one").unwrap();
        fs::write(&log, "row").unwrap();
        let mut events = Events::open();
        events.follow(7, &File::new(path.clone()));
        let mut log = fs::File::options().write(true).open(log).unwrap();
        for _ in 0..100 {
            log.write_all(b"row").unwrap();
        }
        fs::write(&path, "two").unwrap();
        let mut first = None;
        while first.is_none() {
            events.read(|id, nearness| first = first.or(Some((id, nearness))));
        }
        assert_eq!(first, Some((7, Nearness::Itself)), "100 writes to its neighbour came before");
        fs::write(directory.path().join("other"), "x").unwrap();
        hears(&mut events, (7, Nearness::Neighbour));
        events.forget(7);
        assert!(events.directories.is_empty());
    }

    #[test]
    fn a_directory_that_is_replaced_is_watched_anew() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc");
        let path = directory.join("policy.wasm");
        let mut events = Events::open();
        for _ in 0..3 {
            fs::create_dir(&directory).unwrap();
            events.follow(1, &File::new(path.clone()));
            fs::write(&path, "one").unwrap();
            hears(&mut events, (1, Nearness::Itself));
            fs::remove_dir_all(&directory).unwrap();
            while events.directories.contains_key(&fs::canonicalize(root.path()).unwrap().join("etc")) {
                hears(&mut events, (1, Nearness::Itself));
            }
        }
    }
}
