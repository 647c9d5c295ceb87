//! The running proxy as the admin listener sees it.

use std::collections::BTreeMap;

use axum::body::Bytes;
use pointsman_core::lifecycle::promotion::Plan;
use schemars::JsonSchema;
use serde::Serialize;

use pointsman_core::lifecycle::UploadOptions;

/// A backend with its live numbers. Never holds a key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct BackendView {
    /// Its id.
    pub id: String,
    /// `primary` or `fallback`.
    pub tier: &'static str,
    /// Its wire format.
    pub dialect: &'static str,
    /// Where it is, without user and password.
    pub base_url: String,
    /// What can be asked of it, as configured.
    pub models: Vec<String>,
    /// Its own state, whatever its models do: `ready`, `throttled`, `cooling`, `probing` or `drained`.
    pub state: &'static str,
    /// What is left of its own cooldown, in ms; 0: none.
    pub cooldown_ms: u64,
    /// The outcome that set its own cooldown.
    pub cooldown_reason: Option<String>,
    /// Models of it in cooldown.
    pub models_cooling: u64,
    /// Those of them that end last, at most 16, the latest first.
    pub model_cooldowns: Vec<ModelCooldownView>,
    /// Attempts under way.
    pub in_flight: u64,
    /// Requests that may go now, by its rpm and burst and by what the provider said is left; none: no limit is known.
    pub requests_left: Option<u64>,
    /// Tokens left before its tpm limit bites; none: unlimited.
    pub tokens_left: Option<u64>,
    /// Moving average of an answer's whole time, in ms; 0: unknown.
    pub latency_ms: u64,
    /// Moving average of the time to the first content, in ms; 0: unknown.
    pub first_token_ms: u64,
    /// Moving average of the share of failed attempts, in 1/1000.
    pub error_permille: u32,
    /// Failures of the whole backend since the last answer; those of a model stand with its cooldown.
    pub failures: u32,
    /// Attempts answered since the start.
    pub served: u64,
    /// Attempts since the start.
    pub attempts: u64,
}

/// The waiting line of a lane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct LaneView {
    /// `primary`, `fallback` or `emergency`.
    pub lane: &'static str,
    /// Exchanges waiting for capacity in this lane.
    pub queued: u64,
}

/// The cooldown of one model on a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ModelCooldownView {
    /// The model as asked for.
    pub model: String,
    /// What is left of it, in ms.
    pub cooldown_ms: u64,
    /// Its end (RFC 3339).
    pub until: String,
    /// The outcome that set it.
    pub reason: &'static str,
    /// Failures since the last answer.
    pub failures: u32,
}

/// A configuration or policy that was refused; what was in force before stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct RefusalView {
    /// When (RFC 3339).
    pub at: String,
    /// The file, or `upload`, or `rollback`.
    pub source: String,
    /// Why, and what to do.
    pub error: String,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ConfigView {
    /// Its revision.
    pub revision: String,
    /// The file it came from; none: the providers' environment variables.
    pub file: Option<String>,
    /// When it came into force (RFC 3339).
    pub loaded_at: String,
    /// Its backends.
    pub backends: u64,
    /// Its client keys.
    pub clients: u64,
    /// Why the file's present content is not in force; none: it is.
    pub refusal: Option<RefusalView>,
}

/// Whether traffic may be sent here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ReadyView {
    /// It may.
    pub ready: bool,
    /// Why it may not; none: it may.
    pub reason: Option<String>,
    /// What is not as it should be, although traffic can be served. Holds no names and no secrets, as anyone may read it.
    pub warnings: Vec<String>,
    /// The backends.
    pub backends: BackendCounts,
}

/// How many backends can serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BackendCounts {
    /// All of the configuration.
    pub configured: u64,
    /// Those that take requests, now or after a wait.
    pub serving: u64,
    /// Those that the operator took out.
    pub drained: u64,
    /// Those whose key is refused or whose credit is used up.
    pub excluded: u64,
}

/// The policy in force, and those before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct PolicyView {
    /// Its revision.
    pub revision: String,
    /// `embedded`, `upload`, or the file it came from.
    pub origin: String,
    /// When it came into force (RFC 3339).
    pub since: String,
    /// The name in its component, by which the configuration has settings for it.
    pub name: Option<String>,
    /// The settings that it was told.
    pub settings: serde_json::Value,
    /// Settings that it was offered and does not know: they belong to another policy.
    pub settings_left_out: Vec<String>,
    /// What the operator should know of it, in a sentence; none: nothing.
    pub warning: Option<String>,
    /// Decisions asked of this revision, every time it was in force.
    pub decisions: u64,
    /// How many of them failed.
    pub faults: u64,
    /// Why the latest try to replace it failed, or why the one before was rolled back; none: neither happened since it
    /// came into force.
    pub last_error: Option<String>,
    /// The refusal behind `last_error`: when, and of what; none: nothing was refused.
    pub refusal: Option<RefusalView>,
    /// Why a restart may not come up with it: the history could not be written; none: it is in the store.
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

/// A guarded promotion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct PromotionView {
    /// `running`, `promoted`, `rolled_back`, `aborted` or `overtaken`.
    pub state: &'static str,
    /// The candidate's revision.
    pub candidate: String,
    /// The revision it is compared with.
    pub control: String,
    /// What the operator should know of the candidate, in a sentence; none: nothing.
    pub warning: Option<String>,
    /// The candidate's share of the exchanges.
    pub share: String,
    /// When it began (RFC 3339).
    pub since: String,
    /// When its time is over (RFC 3339).
    pub until: String,
    /// Was too little known when its time was over first?
    pub extended: bool,
    /// Why it goes on for as long again; none: it does not.
    pub extended_because: Option<String>,
    /// When it ended (RFC 3339); none: it is under way.
    pub ended_at: Option<String>,
    /// Why it ended; none: it is under way.
    pub why: Option<String>,
    /// What came of both.
    pub sides: SidesView,
    /// The guards, and how each stands.
    pub guards: Vec<GuardView>,
}

/// Both sides of a promotion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct SidesView {
    /// The policy in force.
    pub control: SideView,
    /// The candidate.
    pub candidate: SideView,
}

/// One side of a promotion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct SideView {
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
pub struct GuardView {
    /// As it was given.
    pub guard: String,
    /// `unknown`, `within`, `beyond` (which may be chance) or `violated`.
    pub standing: &'static str,
    /// The same in a sentence with numbers.
    pub words: String,
}

/// A step of a promotion.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PolicyEventView {
    /// When (RFC 3339).
    pub at: String,
    /// `started`, `extended`, `promoted`, `rolled_back`, `aborted`, `overtaken` or `interrupted`.
    pub step: String,
    /// The candidate's revision.
    pub candidate: String,
    /// The revision it was compared with.
    pub control: String,
    /// Why, in a sentence.
    pub why: String,
    /// Both sides and the guards at that moment.
    pub numbers: serde_json::Value,
}

/// The shadow policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ShadowView {
    /// The file that is named.
    pub file: String,
    /// The revision that is asked; none: no shadow is.
    pub revision: Option<String>,
    /// Since when it is (RFC 3339).
    pub since: Option<String>,
    /// Why the file is not what is asked; none: it is.
    pub error: Option<String>,
    /// Its answers, by how they differ from what was done.
    pub decisions: BTreeMap<&'static str, u64>,
    /// How many of its answers were compared with what was done.
    pub compared: u64,
    /// How many of them would have been something else: all but `same` and `tie`.
    pub different: u64,
    /// The same as a share, 0..=1.
    pub different_share: f64,
    /// Questions it was not asked, by the reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// How long it ran, in ms.
    pub ran_ms: u64,
    /// The share of one processor it may use.
    pub core_share: f64,
}

/// The shadow policy, and where it would have decided otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ShadowReport {
    /// How it stands.
    #[serde(flatten)]
    pub shadow: ShadowView,
    /// The latest differences, the newest first.
    pub divergences: Vec<DivergenceView>,
    /// The latest choices of another backend that was as good, the newest first; no differences.
    pub ties: Vec<DivergenceView>,
}

/// A shadow that would have decided otherwise, or failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct DivergenceView {
    /// When it was asked (RFC 3339).
    pub at: String,
    /// The exchange.
    pub request_id: String,
    /// The model as the client wrote it.
    pub model: String,
    /// `terms`, `backend`, `lane`, `wait`, `reject` or `fault`; `tie` among the ties.
    pub kind: &'static str,
    /// What was done.
    pub live: String,
    /// What the shadow would have done, or how it failed.
    pub shadow: String,
    /// What the shadow noted.
    pub notes: Vec<String>,
}

/// A revision that is or was in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct RevisionView {
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
    /// When it came into force last (RFC 3339).
    pub taken_at: String,
    /// When it ceased to be (RFC 3339); none: it is in force.
    pub in_force_until: Option<String>,
    /// `replaced`, `rolled_back` or `faults`; none: it is in force.
    pub end: Option<&'static str>,
    /// The same in a sentence.
    pub why: Option<String>,
    /// Decisions asked of it.
    pub decisions: u64,
    /// How many of them failed.
    pub faults: u64,
}

/// What going back came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct RollbackView {
    /// The revision left.
    pub from: String,
    /// The revision in force.
    pub to: String,
    /// How the policy stands.
    #[serde(flatten)]
    pub policy: PolicyView,
}

/// Why an operator's wish is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such thing (404).
    #[error("{0}")]
    NotFound(String),
    /// What was sent is not acceptable (422).
    #[error("{0}")]
    Refused(String),
    /// It cannot be done in the state the proxy is in (409).
    #[error("{0}")]
    Conflict(String),
    /// This version cannot do it (501).
    #[error("{0}")]
    Unsupported(String),
}

/// What the admin listener can ask of the proxy. Calls must not block for long, except the two that replace the policy.
pub trait Controls: Send + Sync + 'static {
    /// Every backend, in the table's order.
    fn backends(&self) -> Vec<BackendView>;

    /// The waiting line of every lane.
    fn lanes(&self) -> Vec<LaneView>;

    /// The policy in force.
    fn policy(&self) -> PolicyView;

    /// May traffic be sent here? In a few words without names and secrets: anyone may read them.
    fn ready(&self) -> ReadyView;

    /// The configuration in force.
    fn config(&self) -> ConfigView;

    /// Takes a backend out: nothing new is sent to it.
    ///
    /// # Errors
    /// When there is no such backend.
    fn drain(&self, id: &str) -> Result<(), ControlError>;

    /// Puts a drained backend back.
    ///
    /// # Errors
    /// When there is no such backend.
    fn resume(&self, id: &str) -> Result<(), ControlError>;

    /// Ends a backend's cooldowns, those of its models too.
    ///
    /// # Errors
    /// When there is no such backend.
    fn clear_cooldown(&self, id: &str) -> Result<(), ControlError>;

    /// Puts this component in force; blocks while it is compiled and checked.
    ///
    /// # Errors
    /// When it is not accepted; the policy in force stays.
    fn put_policy(&self, component: Bytes, options: UploadOptions) -> Result<PolicyView, ControlError>;

    /// Puts an earlier policy in force: this revision, or the one before.
    ///
    /// # Errors
    /// When there is none.
    fn rollback(&self, to: Option<&str>) -> Result<RollbackView, ControlError>;

    /// Gives this component a share of the exchanges, and promotes it or rolls it back by what comes of them; blocks while
    /// it is compiled and checked.
    ///
    /// # Errors
    /// When it is not accepted, or another promotion is under way; the policy in force stays.
    fn promote(&self, component: Bytes, options: UploadOptions, plan: Plan) -> Result<PolicyView, ControlError>;

    /// Ends the promotion under way.
    ///
    /// # Errors
    /// When there is none.
    fn abort_promotion(&self) -> Result<PolicyView, ControlError>;

    /// Steps of promotions, the newest first; blocks on the store.
    ///
    /// # Errors
    /// What the store says.
    fn policy_events(&self) -> Result<Vec<PolicyEventView>, String>;

    /// The shadow policy and its latest differences; none: the configuration names none.
    fn shadow(&self) -> Option<ShadowReport>;
}
