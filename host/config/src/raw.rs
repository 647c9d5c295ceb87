//! `pointsman.toml` as it is written, nothing checked yet; also the source of its JSON schema.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pointsman_core::dialect::Dialect;
use pointsman_core::exchange::Budgets;
use pointsman_core::fleet::health::CooldownSettings;
use pointsman_core::lifecycle::fault_breaker::FaultLimits;
use pointsman_core::table::Timeouts;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::defaults::{self, millis};

/// The configuration of Pointsman. Durations are in milliseconds.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "pointsman.toml")]
pub(super) struct RawConfig {
    pub(super) server: RawServer,
    pub(super) admin: RawAdmin,
    pub(super) secrets: RawSecrets,
    pub(super) store: RawStore,
    pub(super) journal: RawJournal,
    pub(super) policy: RawPolicy,
    pub(super) stream: RawStream,
    pub(super) limits: RawLimits,
    pub(super) cooldown: RawCooldown,
    pub(super) budget: RawBudget,
    pub(super) log: RawLog,
    /// Backends that requests are sent to.
    pub(super) backend: Vec<RawBackend>,
    /// Client keys; without any, everyone who reaches the listener may send requests.
    pub(super) client: Vec<RawClient>,
}

/// The clients' listener and its limits.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Server")]
pub(super) struct RawServer {
    /// Address and port of the clients' listener.
    #[schemars(extend("default" = defaults::LISTEN))]
    pub(super) listen: Option<String>,
    /// Largest request body in bytes.
    #[schemars(extend("default" = defaults::MAX_BODY_BYTES))]
    pub(super) max_body_bytes: Option<u64>,
    /// Memory for requests that are received, wait or are answered, in MiB; each counts its body at least twice. A client gets at most as much
    /// as it leaves free; beyond it a request is refused with 503 and Retry-After. Default: half of the memory that the container, the
    /// machine and `ulimit` leave the process.
    pub(super) memory_budget_mb: Option<u32>,
    /// Largest request head in bytes.
    #[schemars(extend("default" = defaults::MAX_HEADER_BYTES))]
    pub(super) max_header_bytes: Option<u32>,
    /// Largest number of open connections; beyond it the one that has been idle longest gives way to a new one. Default: 10000, or what
    /// the limit of open files leaves when the admin listener and connections to backends have theirs.
    pub(super) max_connections: Option<u32>,
    /// Time that a shutdown waits for exchanges under way.
    #[schemars(extend("default" = defaults::DRAIN_TIMEOUT_MS))]
    pub(super) drain_timeout_ms: Option<u64>,
    /// Time for a client to send the request head.
    #[schemars(extend("default" = defaults::HEADER_READ_TIMEOUT_MS))]
    pub(super) header_read_timeout_ms: Option<u64>,
    /// Time after which a client that reads nothing of its answer is disconnected.
    #[schemars(extend("default" = defaults::UNREAD_TIMEOUT_MS))]
    pub(super) unread_timeout_ms: Option<u64>,
    /// Treatment of fields that a backend of another provider's API cannot take and that only tune the answer: "lenient" leaves
    /// them out and says so in the header `x-pointsman-left-out` and in the record, "strict" refuses them. What would change the
    /// meaning is refused by either.
    #[schemars(extend("default" = "lenient"))]
    pub(super) translation: Option<RawTranslation>,
    /// Status of a request that the limits of all backends exhausted: 503, as AllPoolsExhausted; common, the one that all
    /// backends have in common, 429 as a rate limit error.
    #[schemars(extend("default" = "503"))]
    pub(super) exhausted_status: Option<RawExhaustedStatus>,
    /// Time that a client's connection may be idle between two requests.
    #[schemars(extend("default" = defaults::KEEP_ALIVE_MS))]
    pub(super) keep_alive_ms: Option<u64>,
    /// Origins whose pages may send requests from a browser, such as "https://app.example"; one * each, or "*" for all.
    /// Where no client key is required, requests of other pages are refused, and on a loopback address those for the host of any
    /// other name.
    pub(super) allowed_origins: Vec<String>,
    /// Highest priority that a request may ask for with the header `x-pointsman-priority` where there is no [[client]], -100 to
    /// 100; a higher one counts as this.
    #[schemars(extend("default" = defaults::PRIORITY_MAX))]
    pub(super) priority_max: Option<i32>,
    /// Serve everyone who reaches an address that is not loopback, without client keys.
    #[schemars(extend("default" = false))]
    pub(super) allow_open: Option<bool>,
}

/// Treatment of fields that cannot be translated.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Translation")]
pub(super) enum RawTranslation {
    /// They are left out, and it is said.
    Lenient,
    /// They are refused.
    Strict,
}

/// Status of a request that the limits of all backends exhausted.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[schemars(rename = "ExhaustedStatus")]
pub(super) enum RawExhaustedStatus {
    #[serde(rename = "503")]
    Unavailable,
    #[serde(rename = "common")]
    Common,
}

/// The operator's listener.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Admin")]
pub(super) struct RawAdmin {
    /// Address and port of the operator's listener.
    #[schemars(extend("default" = defaults::ADMIN_LISTEN))]
    pub(super) listen: Option<String>,
    /// Bearer token: env:NAME, file:PATH, sealed:... or the token itself. Without one only a loopback address is allowed.
    pub(super) token: Option<String>,
    /// Largest number of open connections; beyond it the one that has been idle longest gives way to a new one.
    #[schemars(extend("default" = defaults::ADMIN_MAX_CONNECTIONS))]
    pub(super) max_connections: Option<u32>,
}

/// Opening of secrets that are written sealed:...
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Secrets")]
pub(super) struct RawSecrets {
    /// Source of the private key, env:NAME or file:PATH; read only when something is sealed.
    #[schemars(extend("default" = defaults::SEAL_KEY))]
    pub(super) key: Option<String>,
}

/// The database of records.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Store")]
pub(super) struct RawStore {
    /// SQLite file, or ":memory:".
    #[schemars(extend("default" = defaults::STORE_PATH))]
    pub(super) path: Option<String>,
    /// Days after which records are deleted.
    #[schemars(extend("default" = defaults::STORE_RETENTION_DAYS))]
    pub(super) retention_days: Option<u32>,
    /// Largest size of the file in MiB, the journal's records among it; beyond it the oldest records are deleted. Without it 3072
    /// more than `journal.max_mb`, or 64 more where the store is in memory.
    #[schemars(extend("default" = defaults::STORE_MAX_MB))]
    pub(super) max_mb: Option<u32>,
    /// Records waiting to be written; beyond it new ones are dropped and counted.
    #[schemars(extend("default" = defaults::STORE_BACKLOG))]
    pub(super) backlog: Option<u32>,
    /// Memory for these records, in MiB; beyond it new ones are dropped and counted.
    #[schemars(extend("default" = defaults::STORE_BACKLOG_MB))]
    pub(super) backlog_mb: Option<u32>,
}

/// The record of decisions for `explain`, `replay` and `backtest`: every question to the policy and its answer.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Journal")]
pub(super) struct RawJournal {
    /// Share of exchanges that are recorded, 0 to 1. Unusual ones are recorded beside it; 0: none at all.
    #[schemars(extend("default" = defaults::JOURNAL_SAMPLE))]
    pub(super) sample: Option<f64>,
    /// Days after which records are deleted.
    #[schemars(extend("default" = defaults::JOURNAL_RETENTION_DAYS))]
    pub(super) retention_days: Option<u32>,
    /// Largest size of the records in MiB; beyond it the oldest are deleted. 64 where the store is in memory.
    #[schemars(extend("default" = defaults::JOURNAL_MAX_MB))]
    pub(super) max_mb: Option<u32>,
    /// Memory for records waiting to be written, in MiB; beyond it new ones are dropped and counted.
    #[schemars(extend("default" = defaults::JOURNAL_BACKLOG_MB))]
    pub(super) backlog_mb: Option<u32>,
    /// Record prompts and answers too.
    #[schemars(extend("default" = false))]
    pub(super) bodies: Option<bool>,
    /// Largest part of one body that is recorded, in KiB.
    #[schemars(extend("default" = defaults::JOURNAL_BODY_KB))]
    pub(super) max_body_kb: Option<u32>,
    /// Regular expressions: text that they match in a body is replaced by "[redacted]" before anything is written.
    pub(super) redact: Vec<String>,
}

/// The policy component and its limits.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Policy")]
pub(super) struct RawPolicy {
    /// A component file. Default: the embedded policy.
    pub(super) file: Option<String>,
    /// Handed to the policy as JSON. Plain keys are for the policy that `file` names, or else the default policy; a table is for the
    /// policy of its name: "default", the name of a project that `policy build` built, or of a file without .wasm.
    pub(super) settings: serde_json::Map<String, serde_json::Value>,
    /// Time limit of one decision, at most 90.
    #[schemars(extend("default" = defaults::DECISION_DEADLINE_MS))]
    pub(super) deadline_ms: Option<u32>,
    /// Memory of one instance, in MiB.
    #[schemars(extend("default" = defaults::POLICY_MEMORY_MB))]
    pub(super) memory_mb: Option<u32>,
    /// Memory to compile a component, in MiB, at least 192; half of the container's or the machine's, where that is less.
    #[schemars(extend("default" = defaults::COMPILE_MEMORY_MB))]
    pub(super) compile_memory_mb: Option<u32>,
    /// Time for which a start waits for a new content of `file` to be compiled; the policy that was in force before, else the
    /// embedded one, decides from then until it is (the latter not where `on_fault` is "refuse").
    #[schemars(extend("default" = defaults::START_WAIT_MS))]
    pub(super) start_wait_ms: Option<u64>,
    /// Fallback when the policy fails: "default", the built-in policy decides; "refuse", the client gets a 503.
    #[schemars(extend("default" = "default"))]
    pub(super) on_fault: Option<RawOnFault>,
    /// Rollback of a policy that keeps failing to the last good one.
    pub(super) rollback: RawRollback,
    /// Another policy that is asked the same questions and decides nothing.
    pub(super) shadow: RawShadow,
}

/// Fallback when the policy fails.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "OnFault")]
pub(super) enum RawOnFault {
    Default,
    Refuse,
}

/// Another policy that is asked the same questions and decides nothing; /api/policy/shadow shows where it would have
/// differed.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Shadow")]
pub(super) struct RawShadow {
    /// A component file. Default: no shadow.
    pub(super) file: Option<String>,
    /// Settings handed to it as JSON. Default: those of policy.settings that are its own, or that it knows.
    pub(super) settings: Option<serde_json::Map<String, serde_json::Value>>,
    /// Time limit of one of its decisions, at most 90.
    #[schemars(extend("default" = defaults::DECISION_DEADLINE_MS))]
    pub(super) deadline_ms: Option<u32>,
    /// Share of one processor it may use, above 0 and at most 1; questions beyond it are dropped.
    #[schemars(extend("default" = defaults::SHADOW_CORE_SHARE))]
    pub(super) core_share: Option<f64>,
}

/// Rollback of a policy that keeps failing to the last good one.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Rollback")]
pub(super) struct RawRollback {
    /// Roll back a policy that keeps failing.
    #[schemars(extend("default" = true))]
    pub(super) enabled: Option<bool>,
    /// Number of first decisions of a revision that are judged by the share that failed.
    #[schemars(extend("default" = FaultLimits::default().first_decisions))]
    pub(super) first_decisions: Option<u32>,
    /// Share of them that may fail, in 1/1000.
    #[schemars(extend("default" = FaultLimits::default().fault_permille))]
    pub(super) fault_permille: Option<u32>,
    /// Time in which window_faults are counted.
    #[schemars(extend("default" = millis(FaultLimits::default().window)))]
    pub(super) window_ms: Option<u64>,
    /// Number of faults within the window that is too many, at any age of the revision; 1 to 10000.
    #[schemars(extend("default" = FaultLimits::default().window_faults))]
    pub(super) window_faults: Option<u32>,
}

/// Streamed answers.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Stream")]
pub(super) struct RawStream {
    /// Commit gate: the point at which an answer is passed on to the client.
    #[schemars(extend("default" = "first-content"))]
    pub(super) commit: Option<RawCommit>,
    /// Resume mode after a break of a committed stream.
    #[schemars(extend("default" = "splice"))]
    pub(super) resume: Option<RawResume>,
    /// Interval of comments to a client that waits for its stream; 0: none.
    #[schemars(extend("default" = defaults::KEEPALIVE_MS))]
    pub(super) keepalive_ms: Option<u64>,
}

/// Commit gate: the point at which an answer is passed on to the client.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Commit")]
pub(super) enum RawCommit {
    Headers,
    FirstContent,
    Complete,
    /// After this many content events.
    Tokens(u32),
}

/// Resume mode after a break of a committed stream.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Resume")]
pub(super) enum RawResume {
    None,
    Splice,
    Prefill,
}

/// Limits of one exchange.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Limits")]
pub(super) struct RawLimits {
    /// Number of attempts, at least 1.
    #[schemars(extend("default" = Budgets::default().max_attempts))]
    pub(super) max_attempts: Option<u32>,
    /// Number of waits.
    #[schemars(extend("default" = Budgets::default().max_waits))]
    pub(super) max_waits: Option<u32>,
    /// Total time in the queue.
    #[schemars(extend("default" = millis(Budgets::default().max_wait)))]
    pub(super) max_wait_ms: Option<u64>,
    /// Time from arrival to the last byte.
    #[schemars(extend("default" = millis(Budgets::default().max_total)))]
    pub(super) max_exchange_ms: Option<u64>,
    /// Exchanges that may wait at a time.
    #[schemars(extend("default" = defaults::QUEUE_LENGTH))]
    pub(super) queue_length: Option<u32>,
}

/// Lengths of cooldowns of failing backends.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Cooldown")]
pub(super) struct RawCooldown {
    /// First cooldown without a Retry-After; it doubles with every failure.
    #[schemars(extend("default" = millis(CooldownSettings::default().base)))]
    pub(super) base_ms: Option<u64>,
    /// Longest cooldown without a Retry-After.
    #[schemars(extend("default" = millis(CooldownSettings::default().max)))]
    pub(super) max_ms: Option<u64>,
    /// Largest share of a cooldown that is added at random, 0 to 1.
    #[schemars(extend("default" = CooldownSettings::default().jitter))]
    pub(super) jitter: Option<f64>,
    /// Minimum for a provider's Retry-After; a shorter one is raised to it.
    #[schemars(extend("default" = millis(CooldownSettings::default().retry_after_floor)))]
    pub(super) retry_after_floor_ms: Option<u64>,
    /// Maximum for a provider's Retry-After; a longer one is cut to it.
    #[schemars(extend("default" = millis(CooldownSettings::default().retry_after_cap)))]
    pub(super) retry_after_cap_ms: Option<u64>,
}

/// Lines on standard error.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Log")]
pub(super) struct RawLog {
    /// A level, or directives such as "info,pointsman=debug".
    #[schemars(extend("default" = defaults::LOG_LEVEL))]
    pub(super) level: Option<String>,
    /// Format of the lines; auto: pretty on a terminal, JSON otherwise.
    #[schemars(extend("default" = "auto"))]
    pub(super) format: Option<RawLogFormat>,
    /// Write one line per exchange.
    #[schemars(extend("default" = true))]
    pub(super) exchanges: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "LogFormat")]
pub(super) enum RawLogFormat {
    Auto,
    Pretty,
    Json,
}

/// A backend: one place to send requests to.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Backend")]
pub(super) struct RawBackend {
    /// Name of the backend, unique.
    #[schemars(required, with = "String")]
    pub(super) id: Option<String>,
    /// Cost class: primaries are preferred, fallbacks cost money.
    #[schemars(extend("default" = "primary"))]
    pub(super) tier: Option<RawTier>,
    /// http:// or https://, with the provider's path prefix.
    #[schemars(required, with = "String")]
    pub(super) base_url: Option<String>,
    /// Paths behind base_url, with {model} for the name sent and {path} for the path of the operation behind its version:
    /// "/deployments/{model}/{path}". A request without a model goes to the path alone. Default: the paths of the dialect.
    pub(super) path_template: Option<String>,
    /// Query parameters of every request, such as api-version; values may be env:NAME, file:PATH or sealed:...
    pub(super) query: Option<RawQuery>,
    /// Wire format of the provider's API.
    #[schemars(extend("default" = Dialect::default().as_str()))]
    pub(super) dialect: Option<RawDialect>,
    /// env:NAME, env:NAME#2 (the second of a comma-separated list), file:PATH, file:PATH#2 (its second line), sealed:...
    /// (what `pointsman config seal` prints), or the key itself.
    pub(super) api_key: Option<String>,
    /// Headers sent with every request; values may be env:NAME, file:PATH or sealed:...
    pub(super) headers: BTreeMap<String, String>,
    /// Requests in any 60 seconds; all that are left may be sent at once.
    pub(super) rpm: Option<u32>,
    /// For a provider that smooths its limit: requests that may be sent at once, the rest spaced evenly. Default: all
    /// that rpm leaves.
    pub(super) burst: Option<u32>,
    /// Tokens in any 60 seconds.
    pub(super) tpm: Option<u32>,
    /// Requests in any 24 hours.
    pub(super) rpd: Option<u32>,
    /// Tokens in any 24 hours.
    pub(super) tpd: Option<u32>,
    /// Requests under way at a time. Without it a ceiling is learned where the provider refuses more.
    pub(super) max_concurrency: Option<u32>,
    /// Limits of single models beside the backend's own, by the model name sent, one * each; a * counts each model by itself.
    pub(super) limits: BTreeMap<String, RawModelLimits>,
    /// Forward proxy: http://[USER:PASSWORD@]HOST:PORT, https://..., socks5://..., env:NAME; or "none". Default: HTTPS_PROXY,
    /// HTTP_PROXY (only where no key is sent), ALL_PROXY and NO_PROXY of the environment.
    pub(super) proxy: Option<String>,
    /// PEM file of the certificate authorities that its certificate may be of, in place of the machine's.
    pub(super) ca_file: Option<String>,
    /// PEM file of the certificate, with its chain, that is shown to it.
    pub(super) client_cert: Option<String>,
    /// PEM file of that certificate's private key, or env:NAME.
    pub(super) client_key: Option<String>,
    /// Share of traffic among its tier.
    #[schemars(extend("default" = 1))]
    pub(super) weight: Option<u32>,
    /// Labels that the policy can read.
    pub(super) labels: BTreeMap<String, String>,
    /// Optional capabilities: prefill. embeddings = false: `*` of models does not stand for embedding models.
    pub(super) capabilities: BTreeMap<String, bool>,
    /// Ask for the usage at the end of streams (stream_options), where the client does not. Without it: asked for, and left
    /// out for a model whose requests are refused with it.
    pub(super) stream_options: Option<bool>,
    /// An answer with nothing in it (no content, no tool call, no tokens) is delivered. By default it is a failed attempt.
    #[schemars(extend("default" = defaults::EMPTY_ANSWERS))]
    pub(super) empty_answers: Option<bool>,
    /// Names asked = names sent, one * each; or a list of names. true: sent as asked; false: not served, where a shorter
    /// pattern would take it. Without any: every request.
    pub(super) models: Option<RawModels>,
    pub(super) timeouts: RawTimeouts,
    /// Off by default, because it costs tokens: once a cooldown is over, ask for one token instead of trying with a
    /// client's request.
    pub(super) health_check: Option<RawHealthCheck>,
    /// By the model name sent; "*" is the price of all others.
    pub(super) price: BTreeMap<String, RawPrice>,
}

/// Limits of one model of a backend.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ModelLimits")]
pub(super) struct RawModelLimits {
    /// Requests in any 60 seconds.
    pub(super) rpm: Option<u32>,
    /// Requests that may be sent at once, the rest spaced evenly.
    pub(super) burst: Option<u32>,
    /// Tokens in any 60 seconds.
    pub(super) tpm: Option<u32>,
    /// Requests in any 24 hours.
    pub(super) rpd: Option<u32>,
    /// Tokens in any 24 hours.
    pub(super) tpd: Option<u32>,
    /// Requests under way at a time.
    pub(super) max_concurrency: Option<u32>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Tier")]
pub(super) enum RawTier {
    Primary,
    Fallback,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(super) struct RawDialect(pub(super) Dialect);

impl JsonSchema for RawDialect {
    fn schema_name() -> Cow<'static, str> {
        "Dialect".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Dialect::NAMES})
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "invalid type: expected a table of parameters, or a query such as \"api-version=1\"")]
#[schemars(rename = "Query")]
pub(super) enum RawQuery {
    Named(BTreeMap<String, String>),
    Text(String),
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "invalid type: expected a table of names asked = names sent, or a list of names")]
#[schemars(rename = "Models")]
pub(super) enum RawModels {
    Named(BTreeMap<String, RawSent>),
    Plain(Vec<String>),
}

/// The name sent for a model.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Sent")]
pub(super) enum RawSent {
    As(String),
    /// As asked, or not at all.
    Served(bool),
}

/// Time limits of one attempt. first_byte_ms, first_token_ms and idle_ms end it only where another backend is ready.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Timeouts")]
pub(super) struct RawTimeouts {
    /// To have a connection, TLS included.
    #[schemars(extend("default" = millis(Timeouts::default().connect)))]
    pub(super) connect_ms: Option<u64>,
    /// From sending to the response head.
    #[schemars(extend("default" = millis(Timeouts::default().first_byte)))]
    pub(super) first_byte_ms: Option<u64>,
    /// Longest silence before the first content of a stream; whatever comes, comments too, is no silence.
    #[schemars(extend("default" = millis(Timeouts::default().first_token)))]
    pub(super) first_token_ms: Option<u64>,
    /// Between two pieces of a body.
    #[schemars(extend("default" = millis(Timeouts::default().idle)))]
    pub(super) idle_ms: Option<u64>,
    /// From sending to the end of the attempt. A stream that flows has no such limit unless this is written.
    #[schemars(extend("default" = millis(Timeouts::default().total)))]
    pub(super) total_ms: Option<u64>,
}

/// A request of Pointsman's own for one token, sent only to a backend whose cooldown is over.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "HealthCheck")]
pub(super) struct RawHealthCheck {
    /// Time between two checks, at least 1000.
    #[schemars(extend("default" = defaults::HEALTH_CHECK_INTERVAL_MS))]
    pub(super) interval_ms: Option<u64>,
    /// Time limit of a check, beside the backend's total_ms.
    #[schemars(extend("default" = defaults::HEALTH_CHECK_TIMEOUT_MS))]
    pub(super) timeout_ms: Option<u64>,
    /// The model to ask for, as a client would.
    #[schemars(required, with = "String")]
    pub(super) model: Option<String>,
}

/// Prices in USD per million tokens.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Price")]
pub(super) struct RawPrice {
    pub(super) input_per_mtok: Option<f64>,
    pub(super) output_per_mtok: Option<f64>,
    /// For prompt tokens the provider had cached. Default: the input price.
    pub(super) cached_input_per_mtok: Option<f64>,
    /// For prompt tokens the provider wrote to a cache, for minutes. Default: the input price.
    pub(super) cache_write_per_mtok: Option<f64>,
    /// The same for an hour. Default: the price for minutes.
    pub(super) cache_write_1h_per_mtok: Option<f64>,
    /// For prompt tokens that are sound. Default: the input price.
    pub(super) audio_input_per_mtok: Option<f64>,
    /// For prompt tokens that are pictures. Default: the input price.
    pub(super) image_input_per_mtok: Option<f64>,
    /// For answer tokens that are sound. Default: the output price.
    pub(super) audio_output_per_mtok: Option<f64>,
    /// Prices of all tokens of requests with longer prompts.
    pub(super) tiers: Vec<RawPriceTier>,
}

/// Prices of requests whose prompt is longer, in place of the ordinary ones.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "PriceTier")]
pub(super) struct RawPriceTier {
    /// For prompts of more tokens than this, cached ones included.
    #[schemars(required, with = "u64")]
    pub(super) above_input_tokens: Option<u64>,
    pub(super) input_per_mtok: Option<f64>,
    pub(super) output_per_mtok: Option<f64>,
    /// Default: the input price.
    pub(super) cached_input_per_mtok: Option<f64>,
    /// Default: the input price.
    pub(super) cache_write_per_mtok: Option<f64>,
    /// Default: the price for minutes.
    pub(super) cache_write_1h_per_mtok: Option<f64>,
    /// Default: the input price.
    pub(super) audio_input_per_mtok: Option<f64>,
    /// Default: the input price.
    pub(super) image_input_per_mtok: Option<f64>,
    /// Default: the output price.
    pub(super) audio_output_per_mtok: Option<f64>,
}

/// Budgets of clients.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Budget")]
pub(super) struct RawBudget {
    /// Price of every model that has none, at every backend. Without one, requests of a client with a budget go only where
    /// their cost can be counted: to models with a price, and to primaries without any price where others have prices.
    pub(super) default_price: Option<RawPrice>,
}

/// A client key with its limits.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Client")]
pub(super) struct RawClient {
    /// Name of the client in logs, metrics and records, unique.
    #[schemars(required, with = "String")]
    pub(super) name: Option<String>,
    /// sha256:HEX, env:NAME, file:PATH, sealed:..., or the key itself.
    #[schemars(required, with = "String")]
    pub(super) key: Option<String>,
    /// Requests in any 60 seconds; all that are left may come at once.
    pub(super) rpm: Option<u32>,
    /// Tokens in any 60 seconds, counted when a request has ended: those beyond the limit are paid off before the next
    /// one.
    pub(super) tpm: Option<u32>,
    /// Requests under way at a time.
    pub(super) max_concurrency: Option<u32>,
    /// Budget per day in USD, until midnight UTC.
    pub(super) budget_usd_per_day: Option<f64>,
    /// Once the budget is spent, go on with free backends: those with a price of 0, and primaries without a price.
    /// Without such a backend for the request, or with false, it is refused until midnight UTC.
    #[schemars(extend("default" = true))]
    pub(super) free_when_over_budget: Option<bool>,
    /// Status of its requests that the limits of all backends exhausted, 503 or common. Default: that of [server].
    pub(super) exhausted_status: Option<RawExhaustedStatus>,
    /// Models that it may ask for, one * each. Without any: all.
    pub(super) models: Option<Vec<String>>,
    /// Highest priority that it may ask for with the header `x-pointsman-priority`, -100 to 100; a higher one counts as this.
    #[schemars(extend("default" = defaults::PRIORITY_MAX))]
    pub(super) priority_max: Option<i32>,
    /// Names of labels that it may send in headers `x-pointsman-label-NAME`, one * each; others are left out. Without it: all.
    pub(super) labels: Option<Vec<String>>,
}
