//! The policy in force, and those before it, as JSON.

use pointsman_core::lifecycle::Refusal;
use pointsman_core::lifecycle::history::Entry;
use pointsman_engine::left_out_words;
use schemars::JsonSchema;
use serde::Serialize;

use super::{PromotionView, ShadowView};
use crate::control::{Control, WentBack};
use pointsman_core::rfc3339::Rfc3339;

/// A configuration or policy that was refused; what was in force before stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RefusalView {
    /// Time of the refusal (RFC 3339).
    pub at: String,
    /// The file, or `upload`, or `rollback`.
    pub source: String,
    /// The reason, with advice.
    pub error: String,
}

/// The policy in force, and those before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct PolicyView {
    /// Its revision.
    pub revision: String,
    /// `embedded`, `upload`, or the file it came from.
    pub origin: String,
    /// Time of coming into force (RFC 3339).
    pub since: String,
    /// The name in its component, by which the configuration has settings for it.
    pub name: Option<String>,
    /// The settings that it was told.
    pub settings: serde_json::Value,
    /// Settings that it was offered and does not know: they belong to another policy.
    pub settings_left_out: Vec<String>,
    /// A warning about the policy; none: nothing to report.
    pub warning: Option<String>,
    /// Decisions asked of this revision, every time it was in force.
    pub decisions: u64,
    /// Number of them that failed.
    pub faults: u64,
    /// The reason why the latest attempt to replace it failed, or why its predecessor was rolled back; none: neither
    /// happened since it came into force.
    pub last_error: Option<String>,
    /// The refusal behind `last_error`: when, and of what; none: nothing was refused.
    pub refusal: Option<RefusalView>,
    /// The reason why a restart may start another policy: the history could not be written; none: it is in the store.
    pub history_error: Option<String>,
    /// Revisions in force or still used by exchanges that began with them.
    pub live_revisions: u64,
    /// Instances of all of them.
    pub instances: u64,
    /// The guarded promotion under way, or the last one since the start.
    pub promotion: Option<PromotionView>,
    /// The policy that is asked beside it; none: the configuration names none.
    pub shadow: Option<ShadowView>,
    /// The revisions kept, the newest first.
    pub history: Vec<RevisionView>,
}

/// A revision that is or was in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RevisionView {
    /// Its name.
    pub revision: String,
    /// `embedded`, `upload`, or the file it came from.
    pub origin: String,
    /// The name that came with it.
    pub name: Option<String>,
    /// The settings that came with it; none: it has those of the configuration.
    pub settings: Option<serde_json::Value>,
    /// Size of its component.
    pub bytes: u64,
    /// Time of its last coming into force (RFC 3339).
    pub taken_at: String,
    /// Time of its end (RFC 3339); none: it is in force.
    pub in_force_until: Option<String>,
    /// `replaced`, `rolled_back` or `faults`; none: it is in force.
    pub end: Option<&'static str>,
    /// The same in a sentence.
    pub why: Option<String>,
    /// Decisions asked of it.
    pub decisions: u64,
    /// Number of them that failed.
    pub faults: u64,
}

/// Result of a rollback.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct RollbackView {
    /// The revision left.
    pub from: String,
    /// The revision in force.
    pub to: String,
    /// State of the policy.
    #[serde(flatten)]
    pub policy: PolicyView,
}

impl PolicyView {
    pub(in crate::admin) fn new(control: &Control) -> Self {
        let snapshot = control.proxy().snapshot();
        let status = control.status();
        let lifecycle = &status.lifecycle;
        let counts = (snapshot.fault_stats.decisions(), snapshot.fault_stats.faults());
        let history: Vec<_> =
            lifecycle.history().newest_first().map(|entry| RevisionView::new(entry, counts)).collect();
        let in_force = history.iter().find(|entry| entry.end.is_none()).cloned().unwrap_or_default();
        Self {
            revision: in_force.revision,
            origin: in_force.origin,
            since: in_force.taken_at,
            name: snapshot.policy.name().map(str::to_owned),
            settings: serde_json::from_str(snapshot.policy.settings()).unwrap_or_default(),
            settings_left_out: snapshot.policy.left_out().to_vec(),
            warning: left_out_words(snapshot.policy.left_out()),
            decisions: in_force.decisions,
            faults: in_force.faults,
            last_error: lifecycle.policy_refusal().map(|refusal| refusal.error.clone()),
            refusal: lifecycle.policy_refusal().map(RefusalView::from),
            history_error: status.not_kept,
            live_revisions: status.live_revisions,
            instances: status.instances,
            promotion: control.promotion().map(PromotionView::from),
            shadow: control.shadow_loader().status().as_ref().map(ShadowView::from),
            history,
        }
    }
}

impl RollbackView {
    pub(in crate::admin) fn new(WentBack { from, to }: WentBack, control: &Control) -> Self {
        Self { from, to, policy: PolicyView::new(control) }
    }
}

impl RevisionView {
    /// `decisions` and `faults` are those of the policy in force since it came into force.
    fn new(entry: &Entry, (decisions, faults): (u64, u64)) -> Self {
        let ended = entry.ended.as_ref();
        let (decisions, faults) = if ended.is_none() { (decisions, faults) } else { (0, 0) };
        Self {
            revision: entry.hash.revision(),
            origin: entry.origin.shown(),
            name: entry.options.name.clone(),
            settings: entry.options.settings.clone().map(Into::into),
            bytes: entry.bytes,
            taken_at: Rfc3339(entry.taken).to_string(),
            in_force_until: ended.map(|ended| Rfc3339(ended.at).to_string()),
            end: ended.map(|ended| ended.end.as_str()),
            why: ended.map(|ended| ended.why.clone()),
            decisions: entry.decisions + decisions,
            faults: entry.faults + faults,
        }
    }
}

impl From<&Refusal> for RefusalView {
    fn from(refusal: &Refusal) -> Self {
        let Refusal { at, source, error } = refusal.clone();
        Self { at: Rfc3339(at).to_string(), source, error }
    }
}
