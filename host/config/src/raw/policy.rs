//! The policy, its rollback and its shadow.

use pointsman_core::lifecycle::fault_breaker::FaultLimits;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::defaults::{self, millis};

/// The policy component and its limits.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Policy")]
pub(crate) struct RawPolicy {
    /// A component file. Default: the embedded policy.
    pub(crate) file: Option<String>,
    /// Handed to the policy as JSON. Plain keys are for the policy that `file` names, or else the default policy; a table is for the
    /// policy of its name: "default", the name of a project that `policy build` built, or of a file without .wasm.
    pub(crate) settings: serde_json::Map<String, serde_json::Value>,
    /// Time limit of one decision, at most 90.
    #[schemars(extend("default" = defaults::DECISION_DEADLINE_MS))]
    pub(crate) deadline_ms: Option<u32>,
    /// Memory of one instance, in MiB.
    #[schemars(extend("default" = defaults::POLICY_MEMORY_MB))]
    pub(crate) memory_mb: Option<u32>,
    /// Memory to compile a component, in MiB, at least 192; half of the container's or the machine's, where that is less.
    #[schemars(extend("default" = defaults::COMPILE_MEMORY_MB))]
    pub(crate) compile_memory_mb: Option<u32>,
    /// Time for which a start waits for a new content of `file` to be compiled; the policy that was in force before, else the
    /// embedded one, decides from then until it is (the latter not where `on_fault` is "refuse").
    #[schemars(extend("default" = defaults::START_WAIT_MS))]
    pub(crate) start_wait_ms: Option<u64>,
    /// Fallback when the policy fails: "default", the built-in policy decides; "refuse", the client gets a 503.
    #[schemars(extend("default" = "default"))]
    pub(crate) on_fault: Option<RawOnFault>,
    /// Rollback of a policy that keeps failing to the last good one.
    pub(crate) rollback: RawRollback,
    /// Another policy that is asked the same questions and decides nothing.
    pub(crate) shadow: RawShadow,
}

/// Fallback when the policy fails.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "OnFault")]
pub(crate) enum RawOnFault {
    Default,
    Refuse,
}

/// Rollback of a policy that keeps failing to the last good one.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Rollback")]
pub(crate) struct RawRollback {
    /// Roll back a policy that keeps failing.
    #[schemars(extend("default" = true))]
    pub(crate) enabled: Option<bool>,
    /// Number of first decisions of a revision that are judged by the share that failed.
    #[schemars(extend("default" = FaultLimits::default().first_decisions))]
    pub(crate) first_decisions: Option<u32>,
    /// Share of them that may fail, in 1/1000.
    #[schemars(extend("default" = FaultLimits::default().fault_permille))]
    pub(crate) fault_permille: Option<u32>,
    /// Time in which window_faults are counted.
    #[schemars(extend("default" = millis(FaultLimits::default().window)))]
    pub(crate) window_ms: Option<u64>,
    /// Number of faults within the window that is too many, at any age of the revision; 1 to 10000.
    #[schemars(extend("default" = FaultLimits::default().window_faults))]
    pub(crate) window_faults: Option<u32>,
}

/// Another policy that is asked the same questions and decides nothing; /api/policy/shadow shows where it would have
/// differed.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Shadow")]
pub(crate) struct RawShadow {
    /// A component file. Default: no shadow.
    pub(crate) file: Option<String>,
    /// Settings handed to it as JSON. Default: those of policy.settings that are its own, or that it knows.
    pub(crate) settings: Option<serde_json::Map<String, serde_json::Value>>,
    /// Time limit of one of its decisions, at most 90.
    #[schemars(extend("default" = defaults::DECISION_DEADLINE_MS))]
    pub(crate) deadline_ms: Option<u32>,
    /// Share of one processor it may use, above 0 and at most 1; questions beyond it are dropped.
    #[schemars(extend("default" = defaults::SHADOW_CORE_SHARE))]
    pub(crate) core_share: Option<f64>,
}
