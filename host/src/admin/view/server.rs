//! The configuration in force and the readiness as JSON.

use schemars::JsonSchema;
use serde::Serialize;

use super::RefusalView;
use crate::control::Control;
use pointsman_core::rfc3339::Rfc3339;

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ConfigView {
    /// Its revision.
    pub revision: String,
    /// The file it came from; none: the providers' environment variables.
    pub file: Option<String>,
    /// Time of coming into force (RFC 3339).
    pub loaded_at: String,
    /// Its backends.
    pub backends: u64,
    /// Its client keys.
    pub clients: u64,
    /// The reason why the file's present content is not in force; none: it is.
    pub refusal: Option<RefusalView>,
}

/// Readiness for traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ReadyView {
    /// It may.
    pub ready: bool,
    /// The reason why it is not ready; none: it is.
    pub reason: Option<String>,
    /// Problems despite which traffic can be served. Without names and secrets, because anyone may read it.
    pub warnings: Vec<String>,
    /// The backends.
    pub backends: BackendCounts,
}

/// Numbers of backends by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct BackendCounts {
    /// All of the configuration.
    pub configured: u64,
    /// Those that take requests, now or after a wait.
    pub serving: u64,
    /// Those that the operator took out.
    pub drained: u64,
    /// Those whose key is refused or whose credit is used up.
    pub excluded: u64,
}

impl ConfigView {
    pub(in crate::admin) fn new(control: &Control) -> Self {
        let status = control.status();
        let config = control.proxy().snapshot().config.clone();
        Self {
            revision: config.revision.to_string(),
            file: control.config_file().map(|file| file.display().to_string()),
            loaded_at: Rfc3339(status.config_loaded).to_string(),
            backends: config.backends.len() as u64,
            clients: config.clients.len() as u64,
            refusal: status.lifecycle.config_refusal().map(RefusalView::from),
        }
    }
}

impl ReadyView {
    pub(in crate::admin) fn new(control: &Control) -> Self {
        let proxy = control.proxy();
        let snapshot = proxy.snapshot();
        let counts = proxy.fleet.with(|fleet, now| fleet.serving_counts(now, &snapshot.view));
        let reason = if proxy.is_closing() {
            Some("shutting down")
        } else if counts.configured == 0 {
            Some("no backend is configured")
        } else if counts.serving() == 0 {
            Some(
                "no backend can serve: each is drained, or its key is refused or its credit used up; GET /api/backends says which",
            )
        } else {
            None
        };
        let lifecycle = control.status().lifecycle;
        let policy =
            lifecycle.policy_refusal().map(|_| "the policy last offered is not in force; GET /api/policy says why");
        let config = lifecycle
            .config_refusal()
            .map(|_| "the configuration last offered is not in force; GET /api/config says why");
        let store = proxy.store.trouble().map(|_| {
            "the store cannot be written; records wait in memory, and beyond [store] backlog are lost; the log says why"
        });
        Self {
            ready: reason.is_none(),
            reason: reason.map(str::to_owned),
            warnings: config.into_iter().chain(policy).chain(store).map(str::to_owned).collect(),
            backends: BackendCounts {
                configured: counts.configured as u64,
                serving: counts.serving() as u64,
                drained: counts.drained as u64,
                excluded: counts.excluded as u64,
            },
        }
    }
}
