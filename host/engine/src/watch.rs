//! Watching files: any sign of a change means "look again", and nothing else is concluded from it.
//!
//! Editors rename over the file, Kubernetes swaps a symbolic link above it, removals end watches, and network file systems
//! send no events. So the *directory* is watched, with a slow look at the file itself beside it; whoever is told reads
//! the file once and compares its hash. Files that are watched together share a thread and the system's events: each of
//! them would take descriptors, of which a process, and an instance of the system's events, of which a user has few.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use notify::{RecursiveMode, Watcher as _};

use super::LOG_TARGET;
use super::clock::Stopwatch;

/// A file that has not changed for so long is taken to be whole.
const QUIET: Duration = Duration::from_millis(100);

/// However often the file changes, a change is told after this long.
const MAX_SETTLE: Duration = Duration::from_secs(10);

/// Interval of looking at the file itself.
const POLL: Duration = Duration::from_millis(2_000);

/// Calls back when one of its files may have changed; stops when it is dropped.
pub struct Watcher {
    signals: Sender<Signal>,
    thread: Option<JoinHandle<()>>,
}

enum Signal {
    /// Something happened in a directory watched.
    Event(Whose),
    Stop,
}

/// Relation of an event to the watched file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// Something else, a database perhaps; matters only when the file is another one afterwards (a link swapped).
    Neighbour,
    /// The file itself.
    Ours,
}

/// Cheap identity of a file's version; `None` while there is no file.
type Fingerprint = Option<(u64, Option<SystemTime>, u64)>;

impl Watcher {
    /// Watches `path`, which need not exist yet, and calls `on_change` on a thread of its own. It is not called for the
    /// file as it is now, and may be called when nothing changed. Fails only when the thread cannot be started.
    pub fn new(path: impl Into<PathBuf>, on_change: impl Fn() + Send + 'static) -> io::Result<Self> {
        Self::of_all(vec![path.into()], on_change)
    }

    /// The same for several files: it does not say which of them may have changed.
    pub fn of_all(paths: Vec<PathBuf>, on_change: impl Fn() + Send + 'static) -> io::Result<Self> {
        Self::with_poll(paths, POLL, on_change)
    }

    fn with_poll(paths: Vec<PathBuf>, poll: Duration, on_change: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (signals, inbox) = mpsc::channel();
        let mut watch = Watch { seen: fingerprints(&paths), paths, poll, events: Events::new(signals.clone()) };
        // Before this returns, so that no change after it is missed.
        watch.follow_directories();
        let thread =
            thread::Builder::new().name("file-watch".to_owned()).spawn(move || watch.run(&inbox, on_change))?;
        Ok(Self { signals, thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The thread is gone only if `on_change` panicked, which was reported then.
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watch {
    paths: Vec<PathBuf>,
    poll: Duration,
    seen: Vec<Fingerprint>,
    events: Events,
}

impl Watch {
    fn run(&mut self, inbox: &Receiver<Signal>, on_change: impl Fn()) {
        loop {
            let mut nearest = match inbox.recv_timeout(self.poll) {
                Ok(Signal::Event(whose)) => whose,
                Err(RecvTimeoutError::Timeout) => {
                    // Directories may have come, gone, or been swapped under the watch.
                    self.follow_directories();
                    Whose::Neighbour
                }
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            };
            if nearest == Whose::Ours || fingerprints(&self.paths) != self.seen {
                match self.settle(inbox) {
                    Settled::Quiet(whose) => nearest = nearest.max(whose),
                    Settled::Stop => return,
                }
            }
            let before = std::mem::replace(&mut self.seen, fingerprints(&self.paths));
            if nearest == Whose::Ours || self.seen != before {
                self.follow_directories();
                on_change();
            }
        }
    }

    /// Waits until the file is quiet, at most [`MAX_SETTLE`]: who is writing it is not interrupted by a reader of half a
    /// file. What happens to its neighbours holds nothing up.
    fn settle(&self, inbox: &Receiver<Signal>) -> Settled {
        let mut nearest = Whose::Neighbour;
        let mut before = fingerprints(&self.paths);
        let begun = Stopwatch::start();
        while begun.elapsed() < MAX_SETTLE {
            let mut ours = false;
            let pause = Stopwatch::start();
            while let Some(left) = QUIET.checked_sub(pause.elapsed()) {
                match inbox.recv_timeout(left) {
                    Ok(Signal::Event(whose)) => ours |= whose == Whose::Ours,
                    Err(RecvTimeoutError::Timeout) => break,
                    Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return Settled::Stop,
                }
            }
            let now = fingerprints(&self.paths);
            if now == before && !ours {
                break;
            }
            nearest = if ours { Whose::Ours } else { nearest };
            before = now;
        }
        Settled::Quiet(nearest)
    }

    /// Watches the directories of the paths as written, and those of the files they lead to.
    fn follow_directories(&mut self) {
        let real: Vec<PathBuf> = self.paths.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
        self.events.follow(self.paths.iter().chain(&real).map(PathBuf::as_path));
    }
}

enum Settled {
    /// Nothing happens to the file any more; the nearest of the events meanwhile.
    Quiet(Whose),
    Stop,
}

/// The operating system's events, where it has any to give.
struct Events {
    signals: Sender<Signal>,
    watcher: Option<notify::RecommendedWatcher>,
    followed: Vec<Followed>,
}

/// A file name to look out for in a directory, and the directory's identity: one that was replaced is watched anew.
#[derive(Clone, PartialEq, Eq)]
struct Followed {
    directory: PathBuf,
    inode: u64,
    name: Option<OsString>,
}

impl Events {
    fn new(signals: Sender<Signal>) -> Self {
        Self { signals, watcher: None, followed: Vec::new() }
    }

    /// Watches for these paths instead of the former ones. Without events, or without a directory, polling remains.
    fn follow<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) {
        let follow = |path: &Path| {
            let directory = parent(path);
            let inode = inode(&fs::metadata(&directory).ok()?);
            Some(Followed { directory, inode, name: path.file_name().map(OsString::from) })
        };
        let wanted: Vec<Followed> = paths.filter_map(follow).collect();
        if wanted == self.followed {
            return;
        }
        self.watcher = self
            .watch(&wanted)
            .inspect_err(
                |error| tracing::warn!(target: LOG_TARGET, %error, "file events are not available; watched files are polled instead"),
            )
            .ok();
        self.followed = wanted;
    }

    fn watch(&self, wanted: &[Followed]) -> notify::Result<notify::RecommendedWatcher> {
        let signals = self.signals.clone();
        let names: HashSet<OsString> = wanted.iter().filter_map(|f| f.name.clone()).collect();
        let on_event = move |event: notify::Result<notify::Event>| {
            let whose = match event {
                // Reading the file is an event too; it must not count, or each look would cause the next.
                Ok(event) if event.kind.is_access() => return,
                Ok(event) => {
                    let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| names.contains(name));
                    if event.paths.iter().any(is_ours) { Whose::Ours } else { Whose::Neighbour }
                }
                // Events were lost: anything may have happened.
                Err(_) => Whose::Ours,
            };
            // Nobody listens any more only while the watcher is being dropped.
            let _ = signals.send(Signal::Event(whose));
        };
        let mut watcher = notify::recommended_watcher(on_event)?;
        let directories: HashSet<&Path> = wanted.iter().map(|followed| followed.directory.as_path()).collect();
        for directory in directories {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

fn fingerprints(paths: &[PathBuf]) -> Vec<Fingerprint> {
    paths.iter().map(|path| fingerprint(path)).collect()
}

fn fingerprint(path: &Path) -> Fingerprint {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok(), inode(&metadata)))
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_metadata: &fs::Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(30);

    /// A watched path; polling is so slow that only events can be noticed, unless a test says otherwise.
    struct Scene {
        directory: tempfile::TempDir,
        changes: Receiver<()>,
        _watcher: Watcher,
    }

    fn scene(poll: Duration, prepare: impl Fn(&Path)) -> Scene {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path());
        let (sender, changes) = mpsc::channel();
        let on_change = move || {
            // The receiver may go first at the end of a test.
            let _ = sender.send(());
        };
        let watcher = Watcher::with_poll(vec![directory.path().join("policy.wasm")], poll, on_change).unwrap();
        Scene { directory, changes, _watcher: watcher }
    }

    impl Scene {
        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn is_told(&self, what: &str) {
            self.changes.recv_timeout(GENEROUS).unwrap_or_else(|_| panic!("not told of: {what}"));
            // What belongs to the same change may be told once more.
            while self.changes.recv_timeout(5 * QUIET).is_ok() {}
        }
    }

    const BY_EVENTS: Duration = Duration::from_secs(3_600);
    const BY_POLLING: Duration = Duration::from_millis(20);

    #[test]
    fn every_way_to_change_a_file_is_told() {
        let scene = scene(BY_EVENTS, |_| {});
        let path = scene.path("policy.wasm");
        fs::write(&path, "one").unwrap();
        scene.is_told("a file that came to be");
        fs::write(&path, "two").unwrap();
        scene.is_told("a write in place");
        fs::write(scene.path("new"), "three").unwrap();
        fs::rename(scene.path("new"), &path).unwrap();
        scene.is_told("a rename over it");
        fs::remove_file(&path).unwrap();
        scene.is_told("its removal");
        fs::write(&path, "four").unwrap();
        scene.is_told("its return");
    }

    #[test]
    fn a_swapped_link_above_the_file_is_told() {
        // As Kubernetes mounts a ConfigMap: policy.wasm -> ..data/policy.wasm, ..data -> a directory.
        let version = |root: &Path, name: &str, text: &str| {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("policy.wasm"), text).unwrap();
        };
        let scene = scene(BY_EVENTS, |root| {
            version(root, "..v1", "one");
            symlink("..v1", root.join("..data")).unwrap();
            symlink("..data/policy.wasm", root.join("policy.wasm")).unwrap();
        });
        for (name, text) in [("..v2", "two"), ("..v3", "three")] {
            version(scene.directory.path(), name, text);
            symlink(name, scene.path("..tmp")).unwrap();
            fs::rename(scene.path("..tmp"), scene.path("..data")).unwrap();
            scene.is_told("a link swapped");
            assert_eq!(fs::read_to_string(scene.path("policy.wasm")).unwrap(), text);
        }
    }

    #[test]
    fn a_directory_that_comes_later_is_found_by_polling() {
        let root = tempfile::tempdir().unwrap();
        let (sender, changes) = mpsc::channel();
        let path = root.path().join("later/policy.wasm");
        let _watcher = Watcher::with_poll(vec![path.clone()], BY_POLLING, move || {
            let _ = sender.send(());
        })
        .unwrap();
        fs::create_dir(root.path().join("later")).unwrap();
        fs::write(&path, "one").unwrap();
        changes.recv_timeout(GENEROUS).unwrap();
    }

    #[test]
    fn a_file_that_is_being_written_is_told_when_it_is_whole() {
        for poll in [BY_EVENTS, BY_POLLING] {
            let scene = scene(poll, |root| fs::write(root.join("policy.wasm"), "").unwrap());
            let path = scene.path("policy.wasm");
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            for _ in 0..10 {
                std::io::Write::write_all(&mut file, b"piece").unwrap();
                assert!(scene.changes.recv_timeout(QUIET / 4).is_err(), "told of half a file");
            }
            scene.is_told("the whole");
        }
    }

    /// The process's instances of the system's file events.
    #[cfg(target_os = "linux")]
    fn instances() -> usize {
        let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("inotify")).count()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thousand_files_take_one_instance_of_events_and_each_is_told() {
        let root = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..1_000).map(|n| root.path().join(format!("{}/key-{n}", n % 10))).collect();
        (0..10).for_each(|n| fs::create_dir(root.path().join(n.to_string())).unwrap());
        paths.iter().for_each(|path| fs::write(path, "one").unwrap());
        let (sender, changes) = mpsc::channel();
        let before = instances();
        let _watcher = Watcher::with_poll(paths.clone(), BY_EVENTS, move || {
            let _ = sender.send(());
        })
        .unwrap();
        // Other tests' watchers come and go.
        assert!(instances() < before + 100, "{} after {before}", instances());
        for path in [&paths[0], &paths[555], &paths[999]] {
            fs::write(path, "two").unwrap();
            changes.recv_timeout(GENEROUS).unwrap_or_else(|_| panic!("not told of {}", path.display()));
            while changes.recv_timeout(5 * QUIET).is_ok() {}
        }
    }

    #[test]
    fn a_busy_neighbour_holds_nothing_up() {
        let scene = scene(BY_EVENTS, |root| fs::write(root.join("policy.wasm"), "one").unwrap());
        fs::write(scene.path("policy.wasm"), "two").unwrap();
        let told = (0..1_000).any(|n| {
            fs::write(scene.path("pointsman.db-wal"), n.to_string()).unwrap();
            scene.changes.recv_timeout(QUIET / 20).is_ok()
        });
        assert!(told, "not told while the neighbour was busy");
    }

    #[test]
    fn a_busy_neighbour_is_not_taken_for_a_change() {
        let scene = scene(BY_EVENTS, |root| fs::write(root.join("policy.wasm"), "one").unwrap());
        fs::write(scene.path("pointsman.db-wal"), "row").unwrap();
        assert!(scene.changes.recv_timeout(5 * QUIET).is_err());
    }

    #[test]
    fn reading_the_file_tells_nothing_and_dropping_stops() {
        let scene = scene(BY_EVENTS, |root| fs::write(root.join("policy.wasm"), "one").unwrap());
        fs::read(scene.path("policy.wasm")).unwrap();
        assert!(scene.changes.recv_timeout(5 * QUIET).is_err());
        let Scene { changes, _watcher: watcher, directory: _directory } = scene;
        drop(watcher);
        assert_eq!(changes.recv(), Err(mpsc::RecvError), "the thread is gone and has let go of the callback");
    }
}
