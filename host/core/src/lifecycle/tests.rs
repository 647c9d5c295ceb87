//! Intentions in any order, with compilations that end in any order.

use std::path::Path;

use proptest::prelude::*;

use super::history::{End, History, Incoming, Origin};
use super::promotion::{CannotPromote, PromotionStep};
use super::*;
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const FILE: &str = "/p/mine.wasm";

fn hash(n: u8) -> Hash {
    Hash::of(&[n])
}

fn incoming(n: u8, origin: Origin) -> Incoming {
    Incoming { hash: hash(n), bytes: 10, origin, options: UploadOptions::default() }
}

fn upload(n: u8) -> Incoming {
    incoming(n, Origin::Upload)
}

/// A process whose policy file holds component 0.
fn started() -> Lifecycle {
    let mut history = History::default();
    history.take(NOW, incoming(0, Origin::File(FILE.into())), End::Replaced, "the start");
    history.source = Some(history::Source { file: Some(FILE.into()), hash: hash(0) });
    Lifecycle::new(history)
}

fn put(lifecycle: &mut Lifecycle, change: &Change) -> Result<Option<PromotionStep>, Superseded> {
    let history = lifecycle.prepare(NOW, change, (1, 0))?;
    Ok(lifecycle.commit(NOW, change, history).map(|(step, _)| step))
}

fn uploaded(lifecycle: &mut Lifecycle, n: u8) -> Result<Option<PromotionStep>, Superseded> {
    let intent = lifecycle.upload(hash(n), &UploadOptions::default()).expect("it is not in force");
    put(lifecycle, &Change::to(intent, upload(n), "uploaded".to_owned()))
}

fn in_force(lifecycle: &Lifecycle) -> Hash {
    lifecycle.history().in_force().expect("something is in force").hash
}

#[test]
fn a_newer_upload_supersedes_an_older_one_that_is_still_compiled() {
    let mut lifecycle = started();
    let older = lifecycle.upload(hash(1), &UploadOptions::default()).unwrap();
    assert_eq!(uploaded(&mut lifecycle, 2), Ok(None));
    let late = put(&mut lifecycle, &Change::to(older, upload(1), String::new()));
    assert_eq!(late.unwrap_err().by, hash(2).revision());
    assert_eq!(in_force(&lifecycle), hash(2));
}

#[test]
fn an_upload_of_the_failing_policy_does_not_keep_it_in_force() {
    let mut lifecycle = started();
    uploaded(&mut lifecycle, 1).unwrap();
    let targets = lifecycle.fall_back("it failed");
    assert_eq!(lifecycle.upload(hash(1), &UploadOptions::default()), None, "it is in force");
    let change = lifecycle.fallback_change(&targets[0], "it failed".to_owned());
    put(&mut lifecycle, &change).unwrap();
    assert_eq!(in_force(&lifecycle), hash(0));
}

#[test]
fn what_was_uploaded_twice_is_put_in_force_once_and_stays_newer_than_older_ones() {
    let mut lifecycle = Lifecycle::new(History::default());
    let intents = [2, 1, 1, 3].map(|n| lifecycle.upload(hash(n), &UploadOptions::default()).unwrap());
    let [older, first, again, newer] = intents;
    assert!(!lifecycle.is_repeated(first, hash(1), &UploadOptions::default()));
    assert_eq!(put(&mut lifecycle, &Change::to(first, upload(1), String::new())), Ok(None));
    assert!(lifecycle.is_repeated(again, hash(1), &UploadOptions::default()));
    assert_eq!(lifecycle.confirmed(), again);
    assert!(put(&mut lifecycle, &Change::to(older, upload(2), String::new())).is_err());
    assert_eq!(put(&mut lifecycle, &Change::to(newer, upload(3), String::new())), Ok(None));
}

#[test]
fn a_rollback_needs_no_compilation_to_end_and_supersedes_those_under_way() {
    let mut lifecycle = started();
    uploaded(&mut lifecycle, 1).unwrap();
    let compiling = lifecycle.upload(hash(2), &UploadOptions::default()).unwrap();
    let target = lifecycle.roll_back(None).unwrap();
    assert_eq!((target.entry.hash, target.end), (hash(0), End::RolledBack));
    put(&mut lifecycle, &target.change(None)).unwrap();
    assert_eq!(in_force(&lifecycle), hash(0));
    assert!(put(&mut lifecycle, &Change::to(compiling, upload(2), String::new())).is_err());
}

#[test]
fn a_policy_that_fails_gives_way_at_once_and_an_upload_under_way_comes_after() {
    let mut lifecycle = started();
    uploaded(&mut lifecycle, 1).unwrap();
    let compiling = lifecycle.upload(hash(2), &UploadOptions::default()).unwrap();
    let targets = lifecycle.fall_back("it failed");
    put(&mut lifecycle, &targets[0].change(Some("rolled back".to_owned()))).unwrap();
    assert_eq!(in_force(&lifecycle), hash(0));
    assert_eq!(lifecycle.policy_refusal().unwrap().error, "rolled back");
    assert_eq!(put(&mut lifecycle, &Change::to(compiling, upload(2), String::new())), Ok(None));
    assert_eq!(lifecycle.policy_refusal(), None);
    let again = lifecycle.see_source(Some(Path::new(FILE)), hash(1), false);
    assert!(matches!(again, SourceSeen::Refused(why) if why.contains("it failed")), "only the operator takes it again");
}

#[test]
fn a_file_that_was_superseded_is_known_and_does_not_come_back() {
    let (mut lifecycle, file) = (started(), Path::new(FILE));
    let SourceSeen::Judge(compiling) = lifecycle.see_source(Some(file), hash(1), false) else { panic!("it is new") };
    uploaded(&mut lifecycle, 2).unwrap();
    let change = Change::to(compiling, incoming(1, Origin::File(file.into())), String::new());
    assert!(put(&mut lifecycle, &change).is_err());
    lifecycle.note_source(history::Source { file: Some(file.into()), hash: hash(1) });
    let looked = lifecycle.see_source(Some(file), hash(1), false);
    assert_eq!(looked, SourceSeen::Known { restored: false, is_noted: false });
    assert_eq!(in_force(&lifecycle), hash(2));
}

#[test]
fn refused_content_is_compiled_again_only_under_another_configuration() {
    let (mut lifecycle, file) = (started(), Path::new(FILE));
    assert!(matches!(lifecycle.see_source(Some(file), hash(1), false), SourceSeen::Judge(_)));
    lifecycle.refuse_content(hash(1), "bad");
    lifecycle.refuse_policy(NOW, Requested::Source, "the file", "bad".to_owned());
    assert_eq!(lifecycle.see_source(Some(file), hash(1), false), SourceSeen::Refused("bad".to_owned()));
    assert!(matches!(lifecycle.see_source(Some(file), hash(1), true), SourceSeen::Judge(_)));
    let back = lifecycle.see_source(Some(file), hash(0), false);
    assert_eq!(back, SourceSeen::Known { restored: true, is_noted: false });
    assert_eq!(lifecycle.policy_refusal(), None);
}

#[test]
fn one_promotion_runs_at_a_time_and_any_other_change_ends_it() {
    let mut lifecycle = started();
    let options = UploadOptions::default();
    let begin = |lifecycle: &mut Lifecycle, n| {
        let intent = lifecycle.promote(hash(n), &options)?;
        lifecycle.start_promotion(intent, upload(n), String::new(), Vec::new())
    };
    assert_eq!(begin(&mut lifecycle, 0), Err(CannotPromote::InForce(hash(0).revision())));
    begin(&mut lifecycle, 1).unwrap();
    assert_eq!(begin(&mut lifecycle, 2), Err(CannotPromote::UnderWay(hash(1).revision())));
    assert_eq!(uploaded(&mut lifecycle, 3), Ok(Some(PromotionStep::Overtaken)));
    assert!(!lifecycle.end_promotion(NOW, PromotionStep::Aborted, ""), "it is over");
    let compiling = lifecycle.promote(hash(4), &options).unwrap();
    uploaded(&mut lifecycle, 5).unwrap();
    let late = lifecycle.start_promotion(compiling, upload(4), String::new(), Vec::new());
    assert!(matches!(late, Err(CannotPromote::Superseded(_))));
}

/// A step of the operator, the traffic or a compiler.
#[derive(Clone, Debug)]
enum Step {
    Upload(u8),
    FileChange(u8),
    Promote(u8),
    /// The numbers are in: the candidate takes over, or goes.
    Verdict(bool),
    RollBack(Option<usize>),
    Trip,
    /// The compilation of one of those under way ends.
    Compiled {
        which: usize,
        is_good: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1u8..20).prop_map(Step::Upload),
        2 => (1u8..20).prop_map(Step::FileChange),
        1 => (1u8..20).prop_map(Step::Promote),
        1 => any::<bool>().prop_map(Step::Verdict),
        1 => prop::option::of(0usize..8).prop_map(Step::RollBack),
        1 => Just(Step::Trip),
        6 => (0usize..8, prop::bool::weighted(0.8)).prop_map(|(which, is_good)| Step::Compiled { which, is_good }),
    ]
}

enum Compiling {
    Policy(Change),
    Candidate(Intent, Incoming),
}

impl Compiling {
    fn intent(&self) -> Intent {
        match self {
            Compiling::Policy(change) => change.intent,
            Compiling::Candidate(intent, _) => *intent,
        }
    }

    fn hash(&self) -> Hash {
        match self {
            Compiling::Policy(change) => change.incoming.hash,
            Compiling::Candidate(_, incoming) => incoming.hash,
        }
    }

    fn is_the_files(&self) -> bool {
        matches!(self, Compiling::Policy(change) if change.incoming.origin != Origin::Upload)
    }
}

/// The driver in small, beside a record of the newest good intention.
struct Driver {
    lifecycle: Lifecycle,
    compiling: Vec<Compiling>,
    file: u8,
    newest_good: (Intent, Hash),
}

impl Driver {
    fn new() -> Self {
        let newest_good = (Intent::default(), hash(0));
        Self { lifecycle: started(), compiling: Vec::new(), file: 0, newest_good }
    }

    fn good(&mut self, intent: Intent, hash: Hash) {
        if intent >= self.newest_good.0 {
            self.newest_good = (intent, hash);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Upload(n) => match self.lifecycle.upload(hash(n), &UploadOptions::default()) {
                Some(intent) => self.compiling.push(Compiling::Policy(Change::to(intent, upload(n), String::new()))),
                None => self.newest_good.0 = self.lifecycle.confirmed(),
            },
            Step::FileChange(n) => {
                self.file = n;
                self.look();
            }
            Step::Promote(n) => {
                if let Ok(intent) = self.lifecycle.promote(hash(n), &UploadOptions::default()) {
                    self.compiling.push(Compiling::Candidate(intent, upload(n)));
                }
            }
            Step::Verdict(is_good) => self.verdict(is_good),
            Step::RollBack(which) => self.roll_back(which),
            Step::Trip => {
                if let Some(target) = self.lifecycle.fall_back("faults").into_iter().next() {
                    put(&mut self.lifecycle, &target.change(None)).expect("nothing came between");
                    self.newest_good.1 = target.entry.hash;
                }
            }
            Step::Compiled { which, is_good } => self.compiled(which, is_good),
        }
    }

    /// Cancels what could not be put in force any more.
    fn cancel_superseded(&mut self) {
        let lifecycle = &mut self.lifecycle;
        self.compiling.retain(|compiling| {
            let is_superseded = lifecycle.superseded(compiling.intent()).is_some();
            if is_superseded && compiling.is_the_files() {
                lifecycle.note_source(history::Source { file: Some(FILE.into()), hash: compiling.hash() });
            }
            !is_superseded
        });
    }

    fn look(&mut self) {
        let file = Path::new(FILE);
        let now = hash(self.file);
        // What the file no longer holds is given up.
        self.compiling.retain(|c| !c.is_the_files() || c.hash() == now);
        if self.compiling.iter().any(Compiling::is_the_files) {
            return;
        }
        match self.lifecycle.see_source(Some(file), hash(self.file), false) {
            SourceSeen::Judge(intent) => {
                let change = Change::to(intent, incoming(self.file, Origin::File(file.into())), String::new());
                self.compiling.push(Compiling::Policy(change));
            }
            SourceSeen::Known { is_noted: true, .. } => self.newest_good.0 = self.lifecycle.confirmed(),
            SourceSeen::Known { .. } | SourceSeen::Refused(_) => {}
        }
    }

    fn verdict(&mut self, is_good: bool) {
        let Some(run) = self.lifecycle.running().cloned() else { return };
        if !is_good {
            assert!(self.lifecycle.end_promotion(NOW, PromotionStep::RolledBack, ""));
            return;
        }
        let change = self.lifecycle.candidate_change("it is no worse").expect("it is under way");
        let promoted = put(&mut self.lifecycle, &change);
        assert_eq!(promoted, Ok(Some(PromotionStep::Promoted)), "while it runs nothing newer is in force");
        self.good(run.intent, run.incoming.hash);
    }

    fn roll_back(&mut self, which: Option<usize>) {
        let names: Vec<_> = self.lifecycle.history().newest_first().map(|entry| entry.hash.revision()).collect();
        let to = which.map(|which| names[which % names.len()].as_str());
        if let Ok(target) = self.lifecycle.roll_back(to) {
            put(&mut self.lifecycle, &target.change(None)).expect("it is the newest and waits for nothing");
            self.good(target.intent, target.entry.hash);
        }
    }

    fn compiled(&mut self, which: usize, is_good: bool) {
        if self.compiling.is_empty() {
            return;
        }
        let done = self.compiling.remove(which % self.compiling.len());
        let before = in_force(&self.lifecycle);
        match done {
            Compiling::Policy(change) => {
                let is_the_files = change.incoming.origin != Origin::Upload;
                if is_good {
                    let superseded = put(&mut self.lifecycle, &change).is_err();
                    self.good(change.intent, change.incoming.hash);
                    if superseded && is_the_files {
                        self.lifecycle
                            .note_source(history::Source { file: Some(FILE.into()), hash: change.incoming.hash });
                    }
                } else if is_the_files {
                    self.lifecycle.refuse_content(change.incoming.hash, "bad");
                }
                if is_the_files {
                    self.look();
                }
            }
            Compiling::Candidate(intent, incoming) if is_good => {
                let _ = self.lifecycle.start_promotion(intent, incoming, String::new(), Vec::new());
            }
            Compiling::Candidate(..) => {}
        }
        assert!(is_good || in_force(&self.lifecycle) == before, "a bad one changes nothing");
    }
}

proptest! {
    #[test]
    fn the_newest_intention_whose_component_was_good_is_in_force_and_older_ones_are_cancelled(steps in prop::collection::vec(step(), 0..60)) {
        let mut driver = Driver::new();
        for step in steps {
            driver.step(step);
            driver.cancel_superseded();
            let newest = driver.lifecycle.confirmed();
            prop_assert!(driver.compiling.iter().all(|c| c.intent() >= newest), "nothing is compiled in vain");
            let open = driver.lifecycle.history().newest_first().filter(|entry| entry.ended.is_none()).count();
            prop_assert_eq!(open, 1, "exactly one is in force");
            prop_assert_eq!(in_force(&driver.lifecycle), driver.newest_good.1);
            let before = in_force(&driver.lifecycle);
            driver.look();
            prop_assert_eq!(in_force(&driver.lifecycle), before, "to look at a file again changes nothing");
        }
    }
}
