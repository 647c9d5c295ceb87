//! The kernel's events (inotify(7)): of a directory what comes, goes and is renamed; of a file that it is written.
//!
//! A directory's mask leaves writes out, so that a busy neighbour, the store's log for one, wakes nobody.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::file::{File, Nearness, parent};
use super::{Id, LOG_TARGET};

/// Bytes read at a time; an event has at most 272.
const READ_BYTES: usize = 4_096;

/// Events of a directory in which names are looked out for.
const DIRECTORY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Events of a file. Reading it is none, or each look would cause the next.
const FILE: WatchFlags =
    WatchFlags::MODIFY.union(WatchFlags::ATTRIB).union(WatchFlags::DELETE_SELF).union(WatchFlags::MOVE_SELF);

/// Names a file or a directory to the kernel.
type Descriptor = i32;

/// The kernel's events of the watched files; none where the kernel has no room for them.
pub(super) struct Events {
    queue: Option<OwnedFd>,
    watches: HashMap<Descriptor, Vec<Interest>>,
    is_short_told: bool,
}

/// A watched file that an event may concern.
#[derive(PartialEq, Eq)]
struct Interest {
    id: Id,
    /// Its name in the directory; none: what is watched is the file.
    name: Option<OsString>,
}

impl Events {
    pub(super) fn open() -> Self {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).inspect_err(
            |error| tracing::warn!(target: LOG_TARGET, %error, "file events are not available; files are looked at every 2 s instead"),
        );
        Self { queue: queue.ok(), watches: HashMap::new(), is_short_told: false }
    }

    /// Readable when there are events.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.queue.as_ref().map(OwnedFd::as_fd)
    }

    /// Watches the file, the directory of its path as written, and that of the file it leads to, in place of what was watched
    /// for it before. A directory that was replaced by another of its name is watched anew.
    pub(super) fn follow(&mut self, id: Id, file: &File) {
        let real = fs::canonicalize(file.path()).ok();
        let mut wanted = Vec::with_capacity(3);
        for path in std::iter::once(file.path()).chain(real.as_deref()) {
            let watch = self.watch(parent(path), DIRECTORY);
            wanted.extend(watch.map(|watch| (watch, path.file_name().map(OsStr::to_owned))));
        }
        if real.is_some_and(|real| real.is_file()) {
            wanted.extend(self.watch(file.path(), FILE).map(|watch| (watch, None)));
        }
        let is_wanted = |watch: Descriptor, interest: &Interest| {
            interest.id != id || wanted.iter().any(|(wanted, name)| *wanted == watch && *name == interest.name)
        };
        self.retain(is_wanted);
        for (watch, name) in wanted {
            let interests = self.watches.entry(watch).or_default();
            let interest = Interest { id, name };
            if !interests.contains(&interest) {
                interests.push(interest);
            }
        }
    }

    /// Ends what was watched for a file.
    pub(super) fn forget(&mut self, id: Id) {
        self.retain(|_, interest| interest.id != id);
    }

    /// Reads what has come, and says whom it concerns.
    pub(super) fn read(&mut self, mut hear: impl FnMut(Id, Nearness)) {
        let Some(queue) = &self.queue else { return };
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let mut reader = Reader::new(queue, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                // None is left; or none can be read, and looking remains.
                Err(_) => return,
            };
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                // Events were lost: anything may have happened.
                let all = self.watches.values().flatten();
                all.for_each(|interest| hear(interest.id, Nearness::Itself));
                continue;
            }
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            for interest in self.watches.get(&event.wd()).into_iter().flatten() {
                let is_itself = match &interest.name {
                    Some(own) => name == Some(own.as_os_str()),
                    None => true,
                };
                hear(interest.id, if is_itself { Nearness::Itself } else { Nearness::Neighbour });
            }
            if flags.contains(ReadFlags::IGNORED) {
                self.watches.remove(&event.wd());
            }
        }
    }

    /// Watches what is there; nothing may be.
    fn watch(&mut self, path: &Path, flags: WatchFlags) -> Option<Descriptor> {
        match inotify::add_watch(self.queue.as_ref()?, path, flags) {
            Ok(watch) => Some(watch),
            Err(error @ (Errno::NOSPC | Errno::NOMEM)) => {
                if !std::mem::replace(&mut self.is_short_told, true) {
                    tracing::warn!(
                        target: LOG_TARGET, %error,
                        "the kernel watches no more files for this user (fs.inotify.max_user_watches); they are looked at every 2 s instead"
                    );
                }
                None
            }
            Err(_) => None,
        }
    }

    /// Keeps the interests that are wanted, and the watches that serve one.
    fn retain(&mut self, is_wanted: impl Fn(Descriptor, &Interest) -> bool) {
        let Some(queue) = &self.queue else { return };
        self.watches.retain(|&watch, interests| {
            interests.retain(|interest| is_wanted(watch, interest));
            if interests.is_empty() {
                // It may have ended with what it watched.
                let _ = inotify::remove_watch(queue, watch);
            }
            !interests.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(events: &mut Events) -> Vec<(Id, Nearness)> {
        let mut heard = Vec::new();
        events.read(|id, nearness| heard.push((id, nearness)));
        heard
    }

    #[test]
    fn writes_to_neighbours_are_no_events_and_writes_to_the_file_are() {
        let directory = tempfile::tempdir().unwrap();
        let [path, log] = ["pointsman.toml", "pointsman.db-wal"].map(|name| directory.path().join(name));
        fs::write(&path, "one").unwrap();
        fs::write(&log, "row").unwrap();
        let mut events = Events::open();
        events.follow(7, &File::new(path.clone()));
        for n in 0..10_000 {
            fs::write(&log, format!("row {n}")).unwrap();
        }
        fs::File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
        fs::read(&path).unwrap();
        fs::read_dir(directory.path()).unwrap().for_each(drop);
        assert_eq!(heard(&mut events), [], "0 wakes for 10,000 writes");
        fs::write(&path, "two").unwrap();
        assert!(heard(&mut events).iter().all(|heard| *heard == (7, Nearness::Itself)), "its own");
        fs::rename(&log, directory.path().join("other")).unwrap();
        assert!(heard(&mut events).contains(&(7, Nearness::Neighbour)), "a name");
    }

    #[test]
    fn files_of_one_directory_share_its_watch() {
        let directory = tempfile::tempdir().unwrap();
        let mut events = Events::open();
        for id in 0..100 {
            let path = directory.path().join(format!("key-{id}"));
            fs::write(&path, "key").unwrap();
            events.follow(id, &File::new(path.clone()));
            events.follow(id, &File::new(path));
        }
        assert_eq!(events.watches.len(), 101);
        heard(&mut events);
        fs::write(directory.path().join("key-42"), "other").unwrap();
        assert!(heard(&mut events).iter().all(|heard| *heard == (42, Nearness::Itself)));
        for id in 1..100 {
            events.forget(id);
        }
        assert_eq!(events.watches.len(), 2);
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
            heard(&mut events);
            fs::write(&path, "one").unwrap();
            assert!(heard(&mut events).contains(&(1, Nearness::Itself)));
            fs::remove_dir_all(&directory).unwrap();
            assert!(heard(&mut events).contains(&(1, Nearness::Itself)));
        }
    }
}
