//! The life cycle of the policy in force, as a pure state machine.
//!
//! Whoever wants another policy states an intention and gets a number for it: a larger number is a newer intention.
//! Components are compiled outside, several at a time and in any order, and each result comes back with its number. A good
//! one is put in force unless a newer intention has been put in force meanwhile; a bad one changes nothing. So in the end
//! the newest intention whose component was good is in force, and nothing waits for a compilation but its own intention.
//! A compilation whose result could no longer be put in force ([`Lifecycle::superseded`]) may be cancelled.
//!
//! To put a policy in force takes two steps, because the history is written to disk between them: [`Lifecycle::prepare`]
//! returns the next history, [`Lifecycle::commit`] makes it the present one.

use crate::time::Timestamp;

use super::change::{Change, Intent, Superseded};
use super::component::Hash;
use super::history::{End, Entry, History, Incoming, Source};
use super::promotion::{CannotPromote, PromotionRun, PromotionStep};
use super::refusals::Refusals;
use super::upload::UploadOptions;

/// A revision of the history that is to come back.
#[derive(Clone, Debug, PartialEq)]
pub struct RollbackTarget {
    /// The intention to go back.
    pub intent: Intent,
    /// The revision, as the history has it.
    pub entry: Entry,
    /// The end of the policy in force.
    pub end: End,
    /// The same in a sentence.
    pub why: String,
}

impl RollbackTarget {
    /// The change that brings it back, once it is found good.
    pub fn change(&self, warning: Option<String>) -> Change {
        let Entry { hash, bytes, origin, options, .. } = self.entry.clone();
        let incoming = Incoming { hash, bytes, origin, options };
        let (intent, end, why) = (self.intent, self.end, self.why.clone());
        Change { intent, incoming, end, why, is_kept: true, warning, verdict: None }
    }
}

/// A reason why the policy does not go back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotGoBack {
    /// No such revision is kept.
    #[error("revision {asked:?} is not kept; there is {kept}")]
    Unknown {
        /// The revision asked for, at most 64 characters of it.
        asked: String,
        /// The revisions that are kept.
        kept: String,
    },
    /// The revision is in force.
    #[error("revision {0} is in force already")]
    InForce(String),
    /// No earlier revision is kept.
    #[error("there is no earlier policy revision to go back to; with ?to=REVISION any that is kept is taken: {0}")]
    Nothing(String),
    /// The component no longer passes its checks.
    #[error("{0}")]
    Refused(String),
    /// A newer intention was put in force while the revision was instantiated.
    #[error("{0}")]
    Superseded(#[from] Superseded),
}

/// The policy in force, those before it, the promotion, and everything that was refused.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    history: History,
    latest: Intent,
    in_force: Intent,
    pub(super) promotion: Option<PromotionRun>,
    pub(super) refusals: Refusals,
}

impl Lifecycle {
    /// A process that started with this history; its last entry is in force.
    pub fn new(history: History) -> Self {
        Self { history, ..Self::default() }
    }

    /// Returns the revisions that are kept, the last one in force.
    pub fn history(&self) -> &History {
        &self.history
    }

    pub(super) fn intend(&mut self) -> Intent {
        self.latest.0 += 1;
        self.latest
    }

    /// An upload. None: this component with these options is in force already, and no intention is behind it.
    pub fn upload(&mut self, hash: Hash, options: &UploadOptions) -> Option<Intent> {
        if self.is_in_force(hash, options) {
            self.confirm();
            self.refusals.forget_requests();
            return None;
        }
        Some(self.intend())
    }

    /// Confirms the policy in force: it is newer than any that is still being compiled. A promotion under way goes
    /// on.
    pub(super) fn confirm(&mut self) {
        self.in_force = self.intend();
        if self.running().is_some() {
            let intent = self.intend();
            self.promotion.as_mut().into_iter().for_each(|run| run.intent = intent);
        }
    }

    /// A candidate for a guarded promotion; it is compiled before [`Lifecycle::start_promotion`].
    ///
    /// # Errors
    /// When it is in force, or another promotion is under way.
    pub fn promote(&mut self, hash: Hash, options: &UploadOptions) -> Result<Intent, CannotPromote> {
        self.check_candidate(hash, options)?;
        Ok(self.intend())
    }

    /// The operator goes back: to the revision of this name, or to the latest that gave way to a newer one.
    ///
    /// # Errors
    /// When there is none, or it is in force.
    pub fn roll_back(&mut self, to: Option<&str>) -> Result<RollbackTarget, CannotGoBack> {
        let entry = self.wanted(to)?.clone();
        // A return to what was left before is no verdict on what is left now.
        let (end, verb) = match entry.ended.as_ref().map(|ended| ended.end) {
            Some(End::Replaced) => (End::RolledBack, "went back to"),
            Some(End::RolledBack | End::Faults) | None => (End::Replaced, "took again"),
        };
        let why = format!("the operator {verb} {}", entry.hash.revision());
        Ok(RollbackTarget { intent: self.intend(), entry, end, why })
    }

    fn wanted(&self, to: Option<&str>) -> Result<&Entry, CannotGoBack> {
        let kept = || self.history.newest_first().map(|entry| entry.hash.revision()).collect::<Vec<_>>().join(", ");
        let Some(to) = to else {
            return self.history.good().next().ok_or_else(|| CannotGoBack::Nothing(kept()));
        };
        match self.history.find(to) {
            None => Err(CannotGoBack::Unknown { asked: to.chars().take(64).collect(), kept: kept() }),
            Some(entry) if entry.ended.is_none() => Err(CannotGoBack::InForce(to.to_owned())),
            Some(entry) => Ok(entry),
        }
    }

    /// The fault breaker of the policy in force tripped: the revisions to fall back to, the best first. This is no intention
    /// of its own, so an upload that is still compiled comes into force afterwards.
    pub fn fall_back(&self, why: &str) -> Vec<RollbackTarget> {
        let target = |entry: &Entry| RollbackTarget {
            intent: self.in_force,
            entry: entry.clone(),
            end: End::Faults,
            why: why.to_owned(),
        };
        self.history.good().map(target).collect()
    }

    /// The change that falls back to this revision, once it is found good. It replaces the policy in force also where that was
    /// confirmed meanwhile: an upload of the same policy has not mended it.
    pub fn fallback_change(&self, target: &RollbackTarget, warning: String) -> Change {
        Change { intent: self.in_force, ..target.change(Some(warning)) }
    }

    /// True where an upload that was compiled is in force already, by another one that was sent meanwhile. Where this one is
    /// newer, it confirms that.
    pub fn is_repeated(&mut self, intent: Intent, hash: Hash, options: &UploadOptions) -> bool {
        let is_repeated = self.is_in_force(hash, options);
        if is_repeated {
            self.in_force = self.in_force.max(intent);
            let in_force = self.in_force;
            self.promotion.as_mut().into_iter().for_each(|run| run.intent = run.intent.max(in_force));
        }
        is_repeated
    }

    /// True where the policy is back at this revision already.
    pub fn is_back(&self, target: &RollbackTarget) -> bool {
        self.is_in_force(target.entry.hash, &target.entry.options)
    }

    /// True where this component with these options is in force.
    pub(super) fn is_in_force(&self, hash: Hash, options: &UploadOptions) -> bool {
        self.history.in_force().is_some_and(|entry| entry.hash == hash && entry.options == *options)
    }

    /// The reason why a policy of this intention would not be put in force: a newer one has been. Its compilation is of no use
    /// any more.
    pub fn superseded(&self, intent: Intent) -> Option<Superseded> {
        self.check_newest(intent).err()
    }

    /// Fails where a newer intention has been put in force.
    pub(super) fn check_newest(&self, intent: Intent) -> Result<(), Superseded> {
        if intent >= self.in_force {
            return Ok(());
        }
        Err(Superseded { by: self.history.in_force().map_or_else(String::new, |entry| entry.hash.revision()) })
    }

    /// The history with a good policy in force, to be written before [`Lifecycle::commit`]; `decisions` and `faults` are those of
    /// the policy that ends, since it came into force.
    ///
    /// # Errors
    /// When a newer intention has been put in force.
    pub fn prepare(
        &self,
        now: Timestamp,
        change: &Change,
        (decisions, faults): (u64, u64),
    ) -> Result<History, Superseded> {
        self.check_newest(change.intent)?;
        let mut history = self.history.clone();
        history.count(decisions, faults);
        if let Some(source) = change.source() {
            history.source = Some(source);
        }
        history.take(now, change.incoming.clone(), change.end, &change.why);
        Ok(history)
    }

    /// Puts the prepared policy in force. Returns the step that it means for a promotion that was under way.
    pub fn commit(&mut self, now: Timestamp, change: &Change, history: History) -> Option<(PromotionStep, String)> {
        self.history = history;
        self.in_force = change.intent;
        self.refusals.settle(now, change.warning.clone());
        let (step, why) = match &change.verdict {
            Some(verdict) => (PromotionStep::Promoted, verdict.clone()),
            None => {
                let revision = change.incoming.hash.revision();
                (PromotionStep::Overtaken, format!("revision {revision} came into force: {}", change.why))
            }
        };
        self.end_promotion(now, step, &why).then_some((step, why))
    }

    /// Records the content of the configured source, which is not put in force: it is in force already, or a newer intention is.
    pub fn note_source(&mut self, source: Source) {
        self.history.source = Some(source);
    }
}

#[cfg(test)]
impl Lifecycle {
    /// The intention in force.
    pub(super) fn confirmed(&self) -> Intent {
        self.in_force
    }
}
