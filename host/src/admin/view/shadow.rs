//! The shadow policy as JSON.

use std::collections::BTreeMap;

use pointsman_core::lifecycle::shadow::{ShadowDrop, ShadowResult};
use schemars::JsonSchema;
use serde::Serialize;

use crate::control::ShadowStatus;
use crate::proxy::{Divergent, ShadowStats};
use pointsman_core::rfc3339::Rfc3339;

/// The shadow policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ShadowView {
    /// The file that is named.
    pub file: String,
    /// The revision that is asked; none: no shadow is.
    pub revision: Option<String>,
    /// Since when it is (RFC 3339).
    pub since: Option<String>,
    /// The reason why the file is not loaded; none: it is.
    pub error: Option<String>,
    /// Its answers, by how they differ from what was done.
    pub decisions: BTreeMap<&'static str, u64>,
    /// Number of its answers that were compared with the decisions carried out.
    pub compared: u64,
    /// Number of them that differed: all but `same` and `tie`.
    pub different: u64,
    /// The same as a share, 0..=1.
    pub different_share: f64,
    /// Questions it was not asked, by the reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Time that it ran, in ms.
    pub ran_ms: u64,
    /// The share of one processor it may use.
    pub core_share: f64,
}

/// The shadow policy, and where it would have decided otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ShadowReport {
    /// State of the shadow.
    #[serde(flatten)]
    pub shadow: ShadowView,
    /// The latest differences, the newest first.
    pub divergences: Vec<DivergenceView>,
    /// The latest choices of another backend that was as good, the newest first; no differences.
    pub ties: Vec<DivergenceView>,
}

/// A shadow that would have decided otherwise, or failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct DivergenceView {
    /// Time of the question (RFC 3339).
    pub at: String,
    /// The exchange.
    pub request_id: String,
    /// The model as the client wrote it.
    pub model: String,
    /// `terms`, `backend`, `lane`, `wait`, `reject` or `fault`; `tie` among the ties.
    pub kind: &'static str,
    /// The decision that was carried out.
    pub live: String,
    /// The shadow's decision, or its fault.
    pub shadow: String,
    /// Notes of the shadow.
    pub notes: Vec<String>,
}

impl From<&ShadowStatus> for ShadowView {
    fn from(status: &ShadowStatus) -> Self {
        let stats = status.installed.as_ref().map(|(_, _, stats)| &**stats);
        let count = |of: &dyn Fn(&ShadowStats) -> u64| stats.map_or(0, of);
        let (compared, different) = (count(&ShadowStats::compared), count(&ShadowStats::different));
        Self {
            file: status.file.display().to_string(),
            revision: status.installed.as_ref().map(|(revision, _, _)| revision.clone()),
            since: status.installed.as_ref().map(|(_, since, _)| Rfc3339(*since).to_string()),
            error: status.error.clone(),
            decisions: ShadowResult::ALL.map(|result| (result.as_str(), count(&|stats| stats.results(result)))).into(),
            compared,
            different,
            different_share: different as f64 / compared.max(1) as f64,
            dropped: ShadowDrop::ALL.map(|why| (why.as_str(), count(&|stats| stats.drops(why)))).into(),
            ran_ms: count(&|stats| stats.ran().as_millis() as u64),
            core_share: status.core_share,
        }
    }
}

impl From<&ShadowStatus> for ShadowReport {
    fn from(status: &ShadowStatus) -> Self {
        let listed = |list: fn(&ShadowStats) -> Vec<Divergent>| {
            let stats = status.installed.as_ref().map(|(_, _, stats)| stats);
            stats.map_or_else(Vec::new, |stats| list(stats).into_iter().map(DivergenceView::from).collect())
        };
        Self {
            shadow: ShadowView::from(status),
            divergences: listed(ShadowStats::latest),
            ties: listed(ShadowStats::ties),
        }
    }
}

impl From<Divergent> for DivergenceView {
    fn from(divergent: Divergent) -> Self {
        let Divergent { at, request_id, model, result, live, shadow, notes } = divergent;
        Self { at: Rfc3339(at).to_string(), request_id, model, kind: result.as_str(), live, shadow, notes }
    }
}
