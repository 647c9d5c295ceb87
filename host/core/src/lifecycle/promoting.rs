//! Beginning and end of the promotion of a candidate.

use super::change::{Change, Intent};
use super::component::Hash;
use super::history::Incoming;
use super::machine::Lifecycle;
use super::promotion::{CannotPromote, PromotionEnd, PromotionRun, PromotionStep};
use super::upload::UploadOptions;
use crate::time::Timestamp;

impl Lifecycle {
    /// The promotion under way, or the last one since the start.
    pub fn promotion(&self) -> Option<&PromotionRun> {
        self.promotion.as_ref()
    }

    /// Returns the promotion under way; none: there is none.
    pub fn running(&self) -> Option<&PromotionRun> {
        self.promotion.as_ref().filter(|run| run.over.is_none())
    }

    pub(super) fn check_candidate(&self, hash: Hash, options: &UploadOptions) -> Result<(), CannotPromote> {
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
