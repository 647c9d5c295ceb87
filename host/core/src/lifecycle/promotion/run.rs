//! The promotion under way, or the last one: its names, its intention and its end.

use crate::lifecycle::change::{Intent, Superseded};
use crate::lifecycle::history::Incoming;
use crate::time::Timestamp;

use super::PromotionStep;

/// A promotion under way, or the last one.
#[derive(Clone, Debug, PartialEq)]
pub struct PromotionRun {
    /// The intention to promote the candidate.
    pub intent: Intent,
    /// Component, origin and settings of the candidate.
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
    /// Last step of the promotion.
    pub step: PromotionStep,
    /// Time of the step.
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
    /// Returns the name of the candidate's revision.
    pub fn candidate(&self) -> String {
        self.incoming.hash.revision()
    }
}
