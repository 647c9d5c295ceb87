//! One watched file: when it has changed, and when it is whole again.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A file that has not changed for so long is taken to be whole.
pub(super) const QUIET: Duration = Duration::from_millis(100);

/// However often the file changes, a change is told after this long.
const MAX_SETTLE: Duration = Duration::from_secs(10);

/// Relation of an event to the watched file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    /// Another name of its directory; matters only when the file is another one afterwards (a link swapped).
    Neighbour,
    /// The file itself, or its name.
    Itself,
}

/// Cheap identity of a file's version; `None` while there is no file.
type Fingerprint = Option<(u64, Option<SystemTime>, u64, u64)>;

/// A watched file. Times count from any one moment.
pub(super) struct File {
    path: PathBuf,
    seen: Fingerprint,
    settling: Option<Settling>,
}

/// A change that is told once the file has been quiet for [`QUIET`].
struct Settling {
    since: Duration,
    until: Duration,
    before: Fingerprint,
    /// The file itself was touched: told even if it looks the same.
    is_touched: bool,
    /// It was touched again in this pause.
    is_disturbed: bool,
}

impl File {
    /// The file as it is now.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { seen: fingerprint(&path), path, settling: None }
    }

    /// Its path, as written.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Something happened to it or near it, or it is to be looked at. What happens to its neighbours holds nothing up.
    pub(super) fn touched(&mut self, nearness: Nearness, now: Duration) {
        let is_touched = nearness == Nearness::Itself;
        match &mut self.settling {
            Some(settling) => settling.is_disturbed |= is_touched,
            None => {
                let before = fingerprint(&self.path);
                if is_touched || before != self.seen {
                    let until = now + QUIET;
                    self.settling = Some(Settling { since: now, until, before, is_touched, is_disturbed: false });
                }
            }
        }
    }

    /// The time of the next [`Self::settle`]; none while nothing has happened.
    pub(super) fn due(&self) -> Option<Duration> {
        self.settling.as_ref().map(|settling| settling.until)
    }

    /// Returns true if the change is to be told: the file has been quiet, or it has been busy for [`MAX_SETTLE`], so that
    /// whoever writes it is not interrupted by a reader of half a file.
    pub(super) fn settle(&mut self, now: Duration) -> bool {
        let Some(settling) = &mut self.settling else { return false };
        let print = fingerprint(&self.path);
        let is_quiet = print == settling.before && !settling.is_disturbed;
        settling.is_touched |= std::mem::take(&mut settling.is_disturbed);
        if !is_quiet && now.saturating_sub(settling.since) < MAX_SETTLE {
            (settling.before, settling.until) = (print, now + QUIET);
            return false;
        }
        let is_touched = settling.is_touched;
        self.settling = None;
        let before = std::mem::replace(&mut self.seen, print);
        is_touched || before != print
    }
}

/// Returns the directory that a path leads through last; the working directory for a bare name.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn fingerprint(path: &Path) -> Fingerprint {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok(), metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_never_quiet_is_told_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.wasm");
        fs::write(&path, "one").unwrap();
        let mut file = File::new(path);
        let mut now = Duration::ZERO;
        file.touched(Nearness::Itself, now);
        let mut told = None;
        while told.is_none() {
            now += QUIET / 2;
            file.touched(Nearness::Itself, now);
            if file.due().is_some_and(|due| due <= now) && file.settle(now) {
                told = Some(now);
            }
        }
        assert!(told.is_some_and(|at| (MAX_SETTLE..=MAX_SETTLE + QUIET).contains(&at)), "{told:?}");
        assert_eq!(file.due(), None);
    }

    #[test]
    fn a_neighbour_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.wasm");
        fs::write(&path, "one").unwrap();
        let mut file = File::new(path.clone());
        file.touched(Nearness::Neighbour, Duration::ZERO);
        assert_eq!(file.due(), None);
        fs::write(&path, "other").unwrap();
        file.touched(Nearness::Neighbour, Duration::ZERO);
        assert_eq!(file.due(), Some(QUIET), "the file is another one");
        assert!(file.settle(QUIET));
    }
}
