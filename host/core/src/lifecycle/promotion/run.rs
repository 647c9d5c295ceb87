//! The promotion under way, or the last one: its names, its intention and its end.

use crate::lifecycle::history::Incoming;
use crate::lifecycle::{Change, Hash, Intent, Lifecycle, Superseded, UploadOptions};
use crate::time::Timestamp;

use super::PromotionStep;

/// A promotion under way, or the last one.
#[derive(Clone, Debug, PartialEq)]
pub struct PromotionRun {
    /// The intention to promote the candidate.
    pub intent: Intent,
    /// The candidate.
    pub incoming: Incoming,
    /// The revision it is compared with.
    pub control: String,
    /// Settings that were offered to the candidate and that it does not know.
    pub left_out: Vec<String>,
    /// The end; none while it is under way.
    pub over: Option<PromotionEnd>,
}

/// The end of a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionEnd {
    /// The last step.
    pub step: PromotionStep,
    /// The time.
    pub at: Timestamp,
    /// The reason, in a sentence.
    pub why: String,
}

/// A reason why a promotion does not begin or end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotPromote {
    /// Another one is under way.
    #[error("the promotion of revision {0} is under way; DELETE /api/policy/promote ends it")]
    UnderWay(String),
    /// The candidate is in force.
    #[error("revision {0} is in force already")]
    InForce(String),
    /// The candidate does not pass its checks under this configuration.
    #[error("{0}")]
    Refused(String),
    /// A newer intention was put in force while the candidate was compiled.
    #[error("{0}")]
    Superseded(#[from] Superseded),
    /// There is none to end.
    #[error("no promotion is under way")]
    None,
}

impl PromotionRun {
    /// The candidate's revision.
    pub fn candidate(&self) -> String {
        self.incoming.hash.revision()
    }
}

impl Lifecycle {
    /// The promotion under way, or the last one since the start.
    pub fn promotion(&self) -> Option<&PromotionRun> {
        self.promotion.as_ref()
    }

    /// The promotion under way.
    pub fn running(&self) -> Option<&PromotionRun> {
        self.promotion.as_ref().filter(|run| run.over.is_none())
    }

    pub(in crate::lifecycle) fn check_candidate(
        &self,
        hash: Hash,
        options: &UploadOptions,
    ) -> Result<(), CannotPromote> {
        if let Some(running) = self.running() {
            return Err(CannotPromote::UnderWay(running.candidate()));
        }
        if self.is_in_force(hash, options) {
            return Err(CannotPromote::InForce(hash.revision()));
        }
        Ok(())
    }

    /// The candidate was compiled and found good: it gets its share of the exchanges.
    ///
    /// # Errors
    /// When it came into force, or another promotion began, or a newer intention was put in force meanwhile.
    pub fn start_promotion(
        &mut self,
        intent: Intent,
        incoming: Incoming,
        control: String,
        left_out: Vec<String>,
    ) -> Result<(), CannotPromote> {
        self.check_candidate(incoming.hash, &incoming.options)?;
        self.check_newest(intent)?;
        self.promotion = Some(PromotionRun { intent, incoming, control, left_out, over: None });
        Ok(())
    }

    /// The change that puts the candidate in force, by this verdict; none without a promotion under way.
    pub fn candidate_change(&self, verdict: &str) -> Option<Change> {
        let run = self.running()?;
        let why = format!("revision {} was promoted: {verdict}", run.candidate());
        let verdict = Some(verdict.to_owned());
        Some(Change { verdict, ..Change::to(run.intent, run.incoming.clone(), why) })
    }

    /// The promotion under way ends with this step. False where there is none.
    pub fn end_promotion(&mut self, now: Timestamp, step: PromotionStep, why: &str) -> bool {
        let Some(run) = self.promotion.as_mut().filter(|run| run.over.is_none()) else { return false };
        run.over = Some(PromotionEnd { step, at: now, why: why.to_owned() });
        true
    }
}
