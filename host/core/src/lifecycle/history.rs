//! The policies that were in force, their origin and their end; and the policy that a start comes up with.
//!
//! The rules, made so that nobody is surprised:
//! - The newest intention counts. A policy file whose *content* changed is a new intention; so is an upload, a rollback,
//!   and another file named in the configuration. A file that is only touched, or gone, is none.
//! - So an upload or a rollback stays in force, over restarts too, until the file's content changes.
//! - A revision that was given up for its faults is not taken from a file again; an upload or a rollback to it is the
//!   operator's own word, and counts.
//! - When what is wanted cannot be had at a start, what was in force before is used, and everybody is told.

use std::path::{Path, PathBuf};

use super::component::Hash;
use super::upload::UploadOptions;
use crate::time::Timestamp;

/// Revisions kept to go back to, the one in force among them.
pub const MAX_REVISIONS: usize = 8;

/// Size of their components together, in bytes; the one in force is kept whatever its size.
pub const MAX_BYTES: u64 = 256 << 20;

/// Origin of a revision: the binary, a file, or an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The component inside the binary.
    Embedded,
    /// The file that `policy.file` names.
    File(PathBuf),
    /// An upload by `PUT /api/policy`.
    Upload,
}

impl Origin {
    /// The source that a configuration names.
    pub fn of_source(file: Option<&Path>) -> Self {
        file.map_or(Origin::Embedded, |file| Origin::File(file.to_owned()))
    }

    /// The word for it; a file's is its path.
    pub fn shown(&self) -> String {
        match self {
            Origin::Embedded => "embedded".to_owned(),
            Origin::File(file) => file.display().to_string(),
            Origin::Upload => "upload".to_owned(),
        }
    }

    /// The name of its kind, in the store.
    pub fn kind(&self) -> &'static str {
        match self {
            Origin::Embedded => "embedded",
            Origin::File(_) => "file",
            Origin::Upload => "upload",
        }
    }
}

vocabulary! {
    /// The event that ends a revision's time in force.
    pub enum End {
        /// Another policy was wanted.
        Replaced = "replaced",
        /// The operator went back.
        RolledBack = "rolled_back",
        /// The fault breaker tripped.
        Faults = "faults",
    }
}

/// End of a revision's time in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Time at which it ended.
    pub at: Timestamp,
    /// The event that ended it.
    pub end: End,
    /// The same in a sentence.
    pub why: String,
}

/// A revision that is or was in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Hash of its component.
    pub hash: Hash,
    /// Size of its component, bytes.
    pub bytes: u64,
    /// Origin of the latest time that it came into force.
    pub origin: Origin,
    /// Options that came with it. The same component with other options is another revision to go back to.
    pub options: UploadOptions,
    /// Time of its last coming into force.
    pub taken: Timestamp,
    /// Its end; `None`: it is in force.
    pub ended: Option<Ended>,
    /// Decisions asked of it while it was in force; without those since it came into force last, until that is over.
    pub decisions: u64,
    /// Number of them that failed.
    pub faults: u64,
}

impl Entry {
    /// Returns true if it is the policy of a configuration that names this file.
    pub fn is_of(&self, file: Option<&Path>) -> bool {
        self.origin == Origin::of_source(file) && self.options == UploadOptions::default()
    }
}

/// The source's content that was last taken, or that stood beside what was taken instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The policy file; none: the component inside the binary.
    pub file: Option<PathBuf>,
    /// Hash of its content.
    pub hash: Hash,
}

/// A revision that comes into force.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// Hash of its component.
    pub hash: Hash,
    /// Size of its component, bytes.
    pub bytes: u64,
    /// Origin of the component.
    pub origin: Origin,
    /// Options that came with it.
    pub options: UploadOptions,
}

/// The last revisions, each once, in the order in which they came into force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    entries: Vec<Entry>,
    /// Contents of the configured source when it was last checked.
    pub source: Option<Source>,
}

/// Choice of the policy at a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preference {
    /// The policy that the configuration names.
    Source,
    /// The policy that was in force: the source is unchanged and something else was wanted after it.
    Kept,
    /// The policy that was in force, because the source must not be used, for this reason.
    Instead(String),
}

impl History {
    /// A history from the store.
    pub fn restore(entries: Vec<Entry>, source: Option<Source>) -> Self {
        Self { entries, source }
    }

    /// The revisions in the order in which they came into force.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the revision in force; none: before the first.
    pub fn in_force(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.ended.is_none())
    }

    /// Returns the revisions, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev()
    }

    /// The revision of this name: the newest that is not in force, as the same component may be kept with other settings; else the
    /// one in force.
    pub fn find(&self, revision: &str) -> Option<&Entry> {
        let is_it = |entry: &&Entry| entry.hash.revision() == revision;
        self.newest_first().filter(is_it).find(|entry| entry.ended.is_some()).or_else(|| self.in_force().filter(is_it))
    }

    /// The revisions to go back to, the latest first: those that gave way to a newer one and not to an older one.
    pub fn good(&self) -> impl Iterator<Item = &Entry> {
        self.newest_first().filter(|entry| entry.ended.as_ref().is_some_and(|ended| ended.end == End::Replaced))
    }

    /// Returns the reason why this component must not be used from a file; `None`: it may be.
    pub fn rolled_back_for_faults(&self, hash: &Hash) -> Option<String> {
        let of_this = self.entries.iter().filter(|entry| entry.hash == *hash);
        let ended = of_this.filter_map(|entry| entry.ended.as_ref()).find(|ended| ended.end == End::Faults)?;
        let revision = hash.revision();
        Some(format!(
            "revision {revision} was rolled back ({}); change it, or POST /api/policy/rollback?to={revision} to use it again",
            ended.why
        ))
    }

    /// Another revision comes into force; the one before ended for `end` and `why`.
    pub fn take(&mut self, now: Timestamp, incoming: Incoming, end: End, why: &str) {
        let Incoming { hash, bytes, origin, options } = incoming;
        for entry in &mut self.entries {
            entry.ended.get_or_insert_with(|| Ended { at: now, end, why: why.to_owned() });
        }
        let is_known = |entry: &Entry| entry.hash == hash && entry.options == options;
        let known = self.entries.iter().position(is_known).map(|at| self.entries.remove(at));
        let (decisions, faults) = known.map_or((0, 0), |entry| (entry.decisions, entry.faults));
        self.entries.push(Entry { hash, bytes, origin, options, taken: now, ended: None, decisions, faults });
        self.forget_the_oldest();
    }

    /// Adds to the counts of the revision in force.
    pub fn count(&mut self, decisions: u64, faults: u64) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.ended.is_none()) {
            entry.decisions += decisions;
            entry.faults += faults;
        }
    }

    fn forget_the_oldest(&mut self) {
        let bytes = |entries: &[Entry]| entries.iter().map(|entry| entry.bytes).sum::<u64>();
        while self.entries.len() > 1 && (self.entries.len() > MAX_REVISIONS || bytes(&self.entries) > MAX_BYTES) {
            self.entries.remove(0);
        }
    }

    /// Chooses the policy at a start, when the source `file` holds `offered` now, or cannot be read for this reason.
    pub fn preference(&self, file: Option<&Path>, offered: Result<Hash, String>) -> Preference {
        let Some(in_force) = self.in_force() else { return Preference::Source };
        let offered = match offered {
            Ok(offered) => offered,
            Err(why) => return Preference::Instead(why),
        };
        // With settings of its own it is not what the source would be.
        if offered == in_force.hash && in_force.options == UploadOptions::default() {
            return Preference::Source;
        }
        let known = self.source.as_ref().filter(|source| source.file.as_deref() == file);
        match known {
            Some(source) if source.hash == offered => Preference::Kept,
            // A newer Pointsman brings another embedded policy: nobody's word against an upload.
            Some(_) if file.is_none() && in_force.origin != Origin::Embedded => Preference::Kept,
            Some(_) | None => self.rolled_back_for_faults(&offered).map_or(Preference::Source, Preference::Instead),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + s * 1_000)
    }

    fn hash(n: u64) -> Hash {
        Hash::of(&n.to_le_bytes())
    }

    fn of(hash: Hash, bytes: u64, origin: Origin) -> Incoming {
        Incoming { hash, bytes, origin, options: UploadOptions::default() }
    }

    fn with(settings: &str) -> UploadOptions {
        UploadOptions::read(None, Some(settings)).unwrap()
    }

    fn file() -> Origin {
        Origin::File("mine.wasm".into())
    }

    /// A file whose first and second content were in force, then an upload.
    fn history() -> History {
        let mut history = History::default();
        history.take(at(0), of(hash(1), 10, file()), End::Replaced, "");
        history.take(at(1), of(hash(2), 10, file()), End::Replaced, "the file changed");
        history.take(at(2), of(hash(3), 10, Origin::Upload), End::Replaced, "an upload");
        history.source = Some(Source { file: Some("mine.wasm".into()), hash: hash(2) });
        history
    }

    fn good(history: &History) -> Vec<Hash> {
        history.good().map(|entry| entry.hash).collect()
    }

    #[test]
    fn each_revision_is_kept_once_and_the_latest_last() {
        let mut history = history();
        history.count(7, 2);
        history.take(at(3), of(hash(1), 10, Origin::Upload), End::Replaced, "again");
        let order: Vec<_> = history.newest_first().map(|entry| entry.hash).collect();
        assert_eq!(order, [hash(1), hash(3), hash(2)]);
        let upload = history.find(&hash(3).revision()).unwrap();
        assert_eq!((upload.decisions, upload.faults), (7, 2));
        assert_eq!(upload.ended, Some(Ended { at: at(3), end: End::Replaced, why: "again".into() }));
        assert_eq!(history.in_force().unwrap().taken, at(3));
    }

    #[test]
    fn going_back_twice_goes_further_back() {
        let mut history = history();
        assert_eq!(good(&history), [hash(2), hash(1)]);
        history.take(at(3), of(hash(2), 10, file()), End::RolledBack, "");
        assert_eq!(good(&history), [hash(1)], "what was left is not what is gone back to");
        history.take(at(4), of(hash(1), 10, file()), End::RolledBack, "");
        assert_eq!(good(&history), []);
    }

    #[test]
    fn the_same_component_with_other_settings_is_another_revision() {
        let mut history = history();
        let tuned = |settings| Incoming { options: with(settings), ..of(hash(3), 10, Origin::Upload) };
        history.take(at(3), tuned(r#"{"a":1}"#), End::Replaced, "tuned");
        history.take(at(4), tuned(r#"{"a":2}"#), End::Replaced, "tuned again");
        let good: Vec<_> = history.good().map(|entry| (entry.hash, entry.options.settings_json())).collect();
        assert_eq!(good[..2], [(hash(3), Some(r#"{"a":1}"#.to_owned())), (hash(3), None)]);
        let found = history.find(&hash(3).revision()).and_then(|entry| entry.options.settings_json());
        assert_eq!(found.as_deref(), Some(r#"{"a":1}"#), "the newest that is not in force");
        let mine = Some(Path::new("mine.wasm"));
        assert_eq!(history.preference(mine, Ok(hash(2))), Preference::Kept);
        history.source = Some(Source { file: Some("mine.wasm".into()), hash: hash(3) });
        assert_eq!(history.preference(mine, Ok(hash(3))), Preference::Kept, "the file has not the settings");
    }

    #[test]
    fn it_is_bounded_by_number_and_size_and_keeps_the_one_in_force() {
        let mut history = History::default();
        for n in 0..30 {
            history.take(at(n), of(hash(n), 10, Origin::Upload), End::Replaced, "");
        }
        assert_eq!(history.newest_first().count(), MAX_REVISIONS);
        history.take(at(40), of(hash(40), MAX_BYTES - 15, Origin::Upload), End::Replaced, "");
        assert_eq!(history.newest_first().count(), 2);
        history.take(at(41), of(hash(41), MAX_BYTES * 2, Origin::Upload), End::Replaced, "");
        assert_eq!(history.newest_first().map(|e| e.hash).collect::<Vec<_>>(), [hash(41)]);
    }

    #[test]
    fn a_start_comes_up_with_the_newest_intention() {
        use Preference::{Instead, Kept, Source as FromSource};
        let mine = Some(Path::new("mine.wasm"));
        let empty = History::default();
        assert_eq!(empty.preference(mine, Ok(hash(1))), FromSource);
        assert_eq!(empty.preference(mine, Err("gone".into())), FromSource, "and so the start fails with the reason");

        let uploaded = history();
        assert_eq!(uploaded.preference(mine, Ok(hash(2))), Kept, "the file is as it was at the upload");
        assert_eq!(uploaded.preference(mine, Ok(hash(9))), FromSource, "the file changed meanwhile");
        assert_eq!(uploaded.preference(mine, Ok(hash(3))), FromSource, "the same bytes");
        assert_eq!(uploaded.preference(mine, Err("gone".into())), Instead("gone".into()));
        assert_eq!(
            uploaded.preference(Some(Path::new("other.wasm")), Ok(hash(2))),
            FromSource,
            "another file is named"
        );
        assert_eq!(uploaded.preference(None, Ok(hash(2))), FromSource, "the file is no longer named");

        let mut failed = history();
        failed.take(at(3), of(hash(2), 10, file()), End::Faults, "it failed");
        assert!(matches!(failed.preference(mine, Ok(hash(3))), Instead(why) if why.contains("it failed")));

        let mut embedded = History::default();
        embedded.take(at(0), of(hash(1), 10, Origin::Embedded), End::Replaced, "");
        embedded.source = Some(Source { file: None, hash: hash(1) });
        assert_eq!(embedded.preference(None, Ok(hash(2))), FromSource, "a newer Pointsman has a newer default");
        embedded.take(at(1), of(hash(5), 10, Origin::Upload), End::Replaced, "");
        assert_eq!(embedded.preference(None, Ok(hash(2))), Kept, "which is no word against an upload");
    }
}
