use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::file::QUIET;
use super::*;

const GENEROUS: Duration = Duration::from_secs(30);

/// A watched path; polling is so slow that only events can be noticed, unless a test says otherwise.
struct Scene {
    directory: tempfile::TempDir,
    changes: Receiver<()>,
    _watched: Watched,
}

fn scene(poll: Duration, prepare: impl Fn(&Path)) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let watcher = FileWatcher::with_poll(poll).unwrap();
    let (changes, watched) = watch(&watcher, directory.path().join("policy.wasm"));
    Scene { directory, changes, _watched: watched }
}

fn watch(watcher: &FileWatcher, path: PathBuf) -> (Receiver<()>, Watched) {
    let (sender, changes) = mpsc::channel();
    let on_change = move || {
        // The receiver may go first at the end of a test.
        let _ = sender.send(());
    };
    (changes, watcher.watch(path, on_change))
}

fn is_told(changes: &Receiver<()>, what: &str) {
    changes.recv_timeout(GENEROUS).unwrap_or_else(|_| panic!("not told of: {what}"));
    // What belongs to the same change may be told once more.
    while changes.recv_timeout(5 * QUIET).is_ok() {}
}

impl Scene {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn is_told(&self, what: &str) {
        is_told(&self.changes, what);
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
    fs::write(&path, "3++++").unwrap();
    scene.is_told("a write in place to what was renamed");
    fs::remove_file(&path).unwrap();
    scene.is_told("its removal");
    fs::write(&path, "four").unwrap();
    scene.is_told("its return");
    fs::write(&path, "4444").unwrap();
    scene.is_told("a write in place to what returned");
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
fn a_write_through_a_link_is_told() {
    let elsewhere = tempfile::tempdir().unwrap();
    let real = elsewhere.path().join("real.wasm");
    fs::write(&real, "one").unwrap();
    let scene = scene(BY_EVENTS, |root| symlink(&real, root.join("policy.wasm")).unwrap());
    fs::write(&real, "two").unwrap();
    scene.is_told("a write in place where the link leads");
    fs::write(elsewhere.path().join("new"), "three").unwrap();
    fs::rename(elsewhere.path().join("new"), &real).unwrap();
    scene.is_told("a rename where the link leads");
}

#[test]
fn a_directory_that_comes_later_is_found_by_polling() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("later/policy.wasm");
    let (changes, _watched) = watch(&FileWatcher::with_poll(BY_POLLING).unwrap(), path.clone());
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

#[test]
fn a_busy_neighbour_holds_nothing_up() {
    let scene = scene(BY_EVENTS, |root| fs::write(root.join("policy.wasm"), "one").unwrap());
    fs::write(scene.path("policy.wasm"), "two").unwrap();
    let told = (0..1_000).any(|n| {
        // Names that come and go are events, unlike what is written to them.
        fs::write(scene.path(&format!("neighbour-{n}")), n.to_string()).unwrap();
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
fn many_files_have_one_thread_and_each_is_told_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let watcher = FileWatcher::with_poll(BY_EVENTS).unwrap();
    let path = |n: usize| directory.path().join(format!("key-{n}"));
    let watched: Vec<_> = (0..200).map(|n| watch(&watcher, path(n))).collect();
    drop(watcher);
    for n in [0, 77, 199] {
        fs::write(path(n), "key").unwrap();
        is_told(&watched[n].0, "its own change");
    }
    let others = (0..200).filter(|n| ![0, 77, 199].contains(n));
    others.for_each(|n| assert!(watched[n].0.try_recv().is_err(), "{n}"));
    let mut watched = watched.into_iter();
    let (changes, gone) = watched.next().unwrap();
    drop(gone);
    assert_eq!(changes.recv(), Err(mpsc::RecvError), "the thread has let go of the callback");
    let (changes, _stays) = watched.next().unwrap();
    fs::write(path(1), "key").unwrap();
    is_told(&changes, "a change after another file was let go");
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
    let before = instances();
    let watcher = FileWatcher::with_poll(BY_EVENTS).unwrap();
    let watched: Vec<_> = paths.iter().map(|path| watch(&watcher, path.clone())).collect();
    // Other tests' watchers come and go.
    assert!(instances() < before + 100, "{} after {before}", instances());
    for n in [0, 555, 999] {
        fs::write(&paths[n], "two").unwrap();
        is_told(&watched[n].0, &paths[n].display().to_string());
    }
}

#[test]
fn reading_the_file_tells_nothing_and_dropping_stops() {
    let scene = scene(BY_EVENTS, |root| fs::write(root.join("policy.wasm"), "one").unwrap());
    fs::read(scene.path("policy.wasm")).unwrap();
    assert!(scene.changes.recv_timeout(5 * QUIET).is_err());
    let Scene { changes, _watched: watched, directory: _directory } = scene;
    drop(watched);
    assert_eq!(changes.recv(), Err(mpsc::RecvError), "the thread is gone and has let go of the callback");
}
