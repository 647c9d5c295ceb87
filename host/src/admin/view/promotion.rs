//! Promotions as JSON.

use pointsman_core::lifecycle::promotion::{GuardReport, SideStats};
use pointsman_core::time::Timestamp;
use pointsman_engine::left_out_words;
use pointsman_store::PolicyEventRow;
use schemars::JsonSchema;
use serde::Serialize;

use crate::control::PromotionStatus;
use crate::proxy::Progress;
use pointsman_core::rfc3339::Rfc3339;

/// A guarded promotion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct PromotionView {
    /// `running`, `promoted`, `rolled_back`, `aborted` or `overtaken`.
    pub state: &'static str,
    /// The candidate's revision.
    pub candidate: String,
    /// The revision it is compared with.
    pub control: String,
    /// A warning about the candidate; none: nothing to report.
    pub warning: Option<String>,
    /// The candidate's share of the exchanges.
    pub share: String,
    /// Time of the start (RFC 3339).
    pub since: String,
    /// Time of the planned end (RFC 3339).
    pub until: String,
    /// True after an extension because of too little data.
    pub extended: bool,
    /// The reason for the extension; none: it was not extended.
    pub extended_because: Option<String>,
    /// Time of the end (RFC 3339); none: it is under way.
    pub ended_at: Option<String>,
    /// The reason for the end; none: it is under way.
    pub why: Option<String>,
    /// Statistics of both sides.
    pub sides: SidesView,
    /// The guards, and how each stands.
    pub guards: Vec<GuardView>,
}

/// Both sides of a promotion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct SidesView {
    /// The policy in force.
    pub control: SideView,
    /// The candidate.
    pub candidate: SideView,
}

/// One side of a promotion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct SideView {
    /// Exchanges that arrived during the promotion and have ended.
    pub exchanges: u64,
    /// Those whose client got no whole answer.
    pub failed: u64,
    /// The time from arrival to the last byte that all but a twentieth took no longer than, in ms; none: no exchange.
    pub p95_ms: Option<u64>,
    /// The mean cost of an exchange, in USD.
    pub cost_usd: f64,
}

/// A guard of a promotion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct GuardView {
    /// As it was given.
    pub guard: String,
    /// `unknown`, `within`, `beyond` (which may be chance) or `violated`.
    pub standing: &'static str,
    /// The same in a sentence with numbers.
    pub words: String,
}

/// A step of a promotion.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct PolicyEventView {
    /// Time of the step (RFC 3339).
    pub at: String,
    /// `started`, `extended`, `promoted`, `rolled_back`, `aborted`, `overtaken` or `interrupted`.
    pub step: String,
    /// The candidate's revision.
    pub candidate: String,
    /// The revision it was compared with.
    pub control: String,
    /// The reason in a sentence.
    pub why: String,
    /// Both sides and the guards at that moment.
    pub numbers: serde_json::Value,
}

impl From<PromotionStatus> for PromotionView {
    fn from(PromotionStatus { run, progress }: PromotionStatus) -> Self {
        let Progress { plan, since, until, extended, control, candidate, findings } = progress;
        let over = run.over.as_ref();
        Self {
            state: over.map_or("running", |over| over.step.as_str()),
            candidate: run.candidate(),
            warning: left_out_words(&run.left_out),
            share: plan.share.to_string(),
            since: Rfc3339(since).to_string(),
            until: Rfc3339(until).to_string(),
            extended: extended.is_some(),
            extended_because: extended,
            ended_at: over.map(|over| Rfc3339(over.at).to_string()),
            why: over.map(|over| over.why.clone()),
            sides: SidesView { control: SideView::from(control), candidate: SideView::from(candidate) },
            guards: findings.into_iter().map(GuardView::from).collect(),
            control: run.control,
        }
    }
}

impl From<SideStats> for SideView {
    fn from(stats: SideStats) -> Self {
        Self {
            exchanges: stats.exchanges,
            failed: stats.failed,
            p95_ms: stats.p95.map(|p95| p95.as_millis() as u64),
            cost_usd: stats.cost_usd,
        }
    }
}

impl From<GuardReport> for GuardView {
    fn from(report: GuardReport) -> Self {
        Self { guard: report.guard.to_string(), standing: report.standing.as_str(), words: report.words }
    }
}

impl From<PolicyEventRow> for PolicyEventView {
    fn from(row: PolicyEventRow) -> Self {
        Self {
            at: Rfc3339(Timestamp::from_millis(row.at_ms)).to_string(),
            step: row.step,
            candidate: row.candidate,
            control: row.control,
            why: row.why,
            numbers: serde_json::from_str(&row.numbers).unwrap_or_default(),
        }
    }
}
