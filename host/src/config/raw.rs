//! `pointsman.toml` as it is written: the names of INTERFACE.md, nothing checked yet. Also the source of its JSON schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

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
    pub(super) log: RawLog,
    /// Where requests are sent.
    pub(super) backend: Vec<RawBackend>,
    /// Who may send requests; without any, everyone who reaches the listener.
    pub(super) client: Vec<RawClient>,
}

/// Where clients connect, and how much of it is taken.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Server")]
pub(super) struct RawServer {
    /// Address and port. Default 127.0.0.1:8080.
    pub(super) listen: Option<String>,
    /// Largest request body in bytes. Default 67108864.
    pub(super) max_body_bytes: Option<u64>,
    /// Largest request head in bytes. Default 65536.
    pub(super) max_header_bytes: Option<u32>,
    /// Connections at a time. Default 10000.
    pub(super) max_connections: Option<u32>,
    /// How long a shutdown waits for exchanges under way. Default 30000.
    pub(super) drain_timeout_ms: Option<u64>,
    /// How long a client may take to send the request head. Default 30000.
    pub(super) header_read_timeout_ms: Option<u64>,
    /// A client that takes nothing of its answer for so long is taken to be gone. Default 120000.
    pub(super) unread_timeout_ms: Option<u64>,
    /// Serve everyone who reaches an address that is not loopback, without client keys. Default false.
    pub(super) allow_open: Option<bool>,
}

/// The operator's own listener.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Admin")]
pub(super) struct RawAdmin {
    /// Address and port. Default 127.0.0.1:9901.
    pub(super) listen: Option<String>,
    /// Bearer token: env:NAME, file:PATH, sealed:... or the token itself. Without one only a loopback address is allowed.
    pub(super) token: Option<String>,
}

/// How secrets that are written sealed:... are opened.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Secrets")]
pub(super) struct RawSecrets {
    /// Where the private key is, env:NAME or file:PATH; looked for only when something is sealed. Default
    /// env:POINTSMAN_SEAL_KEY.
    pub(super) key: Option<String>,
}

/// The record of what happened.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Store")]
pub(super) struct RawStore {
    /// SQLite file, or ":memory:". Default pointsman.db.
    pub(super) path: Option<String>,
    /// Records older than this are dropped. Default 30.
    pub(super) retention_days: Option<u32>,
    /// The oldest records are dropped when the file is larger. Default: no limit.
    pub(super) max_mb: Option<u32>,
    /// Records waiting to be written; above it new ones are dropped and counted. Default 10000.
    pub(super) backlog: Option<u32>,
}

/// What the record keeps of an exchange for `explain`, `replay` and `backtest`: every question to the policy and its answer.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Journal")]
pub(super) struct RawJournal {
    /// The share of exchanges, 0 to 1. Those that did not go as one would wish are kept beside it; 0: none at all. Default 1.
    pub(super) sample: Option<f64>,
    /// Older ones are dropped. Default 7.
    pub(super) retention_days: Option<u32>,
    /// The oldest ones are dropped when they take more, in MiB. Default 1024; 64 where the store is in memory.
    pub(super) max_mb: Option<u32>,
    /// Those waiting to be written take at most so much memory, in MiB; above it new ones are dropped and counted. Default 64.
    pub(super) backlog_mb: Option<u32>,
    /// Keep prompts and answers too? Default false.
    pub(super) bodies: Option<bool>,
    /// The most of one body that is kept, in KiB. Default 64.
    pub(super) max_body_kb: Option<u32>,
    /// Regular expressions: what they match in a body is replaced by "[redacted]" before anything is written.
    pub(super) redact: Vec<String>,
}

/// The component that decides.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Policy")]
pub(super) struct RawPolicy {
    /// A component file. Default: the embedded policy.
    pub(super) file: Option<String>,
    /// Handed to the policy as JSON. Plain keys are for the policy that `file` names, or else the default policy; a table is for the
    /// policy of its name: "default", the name of a project that `policy build` built, or of a file without .wasm.
    pub(super) settings: serde_json::Map<String, serde_json::Value>,
    /// Longest decision, at most 90. Default 5.
    pub(super) deadline_ms: Option<u32>,
    /// Memory of one instance, in MiB. Default 64.
    pub(super) memory_mb: Option<u32>,
    /// What happens when the policy fails: "default", the built-in policy decides; "refuse", the client gets a 503. Default
    /// "default".
    pub(super) on_fault: Option<RawOnFault>,
    /// When a policy that keeps failing gives way to the last good one.
    pub(super) rollback: RawRollback,
    /// Another policy that is asked the same and decides nothing.
    pub(super) shadow: RawShadow,
}

/// Who decides when the policy fails.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "OnFault")]
pub(super) enum RawOnFault {
    Default,
    Refuse,
}

/// Another policy that is asked the same and decides nothing: /api/policy/shadow tells where it would have differed.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Shadow")]
pub(super) struct RawShadow {
    /// A component file. Default: no shadow.
    pub(super) file: Option<String>,
    /// Handed to it as JSON. Default: those of policy.settings that are its own, or that it knows.
    pub(super) settings: Option<serde_json::Map<String, serde_json::Value>>,
    /// Its longest decision, at most 90. Default 5.
    pub(super) deadline_ms: Option<u32>,
    /// The share of one processor it may use, above 0 and at most 1; what is beyond is dropped. Default 0.1.
    pub(super) core_share: Option<f64>,
}

/// When a policy that keeps failing gives way to the last good one.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Rollback")]
pub(super) struct RawRollback {
    /// Whether it ever does. Default true.
    pub(super) enabled: Option<bool>,
    /// The first decisions of a revision, judged by the share that failed. Default 200.
    pub(super) first_decisions: Option<u32>,
    /// The share of them that may fail, in 1/1000; more is too much. Default 100.
    pub(super) fault_permille: Option<u32>,
    /// The time that window_faults is about. Default 60000.
    pub(super) window_ms: Option<u64>,
    /// So many faults within the window are too many, at any age; 1 to 10000. Default 20.
    pub(super) window_faults: Option<u32>,
}

/// How answers are streamed.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Stream")]
pub(super) struct RawStream {
    /// When a stream counts as begun. Default first-content.
    pub(super) commit: Option<RawCommit>,
    /// What happens when it breaks after that. Default splice.
    pub(super) resume: Option<RawResume>,
    /// Comments sent to a client that waits for its stream, this far apart; 0: none. Default 10000.
    pub(super) keepalive_ms: Option<u64>,
}

/// When a stream counts as begun.
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

/// What happens when a committed stream breaks.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Resume")]
pub(super) enum RawResume {
    None,
    Splice,
    Prefill,
}

/// Bounds of one exchange.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Limits")]
pub(super) struct RawLimits {
    /// Attempts. Default 16.
    pub(super) max_attempts: Option<u32>,
    /// Waits. Default 32.
    pub(super) max_waits: Option<u32>,
    /// All waits together. Default 120000.
    pub(super) max_wait_ms: Option<u64>,
    /// From arrival to the last byte. Default 600000.
    pub(super) max_exchange_ms: Option<u64>,
    /// Exchanges waiting at a time. Default 1000.
    pub(super) queue_length: Option<u32>,
}

/// How long a failing backend is excluded.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Cooldown")]
pub(super) struct RawCooldown {
    /// The first cooldown where the provider names none; it doubles with every failure. Default 1000.
    pub(super) base_ms: Option<u64>,
    /// The longest of those. Default 60000.
    pub(super) max_ms: Option<u64>,
    /// Up to this share of a cooldown is added by chance, 0 to 1. Default 0.2.
    pub(super) jitter: Option<f64>,
    /// A provider's Retry-After below this counts as this. Default 100.
    pub(super) retry_after_floor_ms: Option<u64>,
    /// A provider's Retry-After above this counts as this. Default 3600000.
    pub(super) retry_after_cap_ms: Option<u64>,
}

/// What is written to standard error.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Log")]
pub(super) struct RawLog {
    /// A level, or directives such as "info,pointsman=debug". Default info.
    pub(super) level: Option<String>,
    /// auto: pretty on a terminal, JSON otherwise. Default auto.
    pub(super) format: Option<RawLogFormat>,
    /// One line per exchange. Default true.
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

/// One routable target.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Backend")]
pub(super) struct RawBackend {
    /// Its name, unique.
    #[schemars(required, with = "String")]
    pub(super) id: Option<String>,
    /// Default primary.
    pub(super) tier: Option<RawTier>,
    /// http:// or https://, with the provider's path prefix.
    #[schemars(required, with = "String")]
    pub(super) base_url: Option<String>,
    /// Default openai.
    pub(super) dialect: Option<RawDialect>,
    /// env:NAME, env:NAME#2 (the second of a comma-separated list), file:PATH, file:PATH#2 (its second line), sealed:...
    /// (what `pointsman config seal` prints), or the key itself.
    pub(super) api_key: Option<String>,
    /// Headers sent with every request; values may be env:NAME, file:PATH or sealed:...
    pub(super) headers: BTreeMap<String, String>,
    /// Requests in any 60 seconds; all that is left may go at once.
    pub(super) rpm: Option<u32>,
    /// For a provider that smooths its limit: at most so many requests at once, the rest spaced at the pace of rpm. Default:
    /// all that rpm leaves.
    pub(super) burst: Option<u32>,
    /// Tokens in any 60 seconds.
    pub(super) tpm: Option<u32>,
    /// Requests at a time.
    pub(super) max_concurrency: Option<u32>,
    /// Share of traffic among its tier. Default 1.
    pub(super) weight: Option<u32>,
    /// Words for the policy.
    pub(super) labels: BTreeMap<String, String>,
    /// What it can do: prefill. embeddings = false: `*` of models does not stand for embedding models.
    pub(super) capabilities: BTreeMap<String, bool>,
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

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Tier")]
pub(super) enum RawTier {
    Primary,
    Fallback,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Dialect")]
pub(super) enum RawDialect {
    Openai,
    Anthropic,
    Plain,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "invalid type: expected a table of names asked = names sent, or a list of names")]
#[schemars(rename = "Models")]
pub(super) enum RawModels {
    Named(BTreeMap<String, RawSent>),
    Plain(Vec<String>),
}

/// What a model name is sent as.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Sent")]
pub(super) enum RawSent {
    As(String),
    /// As asked, or not at all.
    Served(bool),
}

/// Time limits of one attempt.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Timeouts")]
pub(super) struct RawTimeouts {
    /// To have a connection, TLS included. Default 3000.
    pub(super) connect_ms: Option<u64>,
    /// From sending to the response head. Default 30000.
    pub(super) first_byte_ms: Option<u64>,
    /// From sending to the first content of a stream. Default 12000.
    pub(super) first_token_ms: Option<u64>,
    /// Between two pieces of a body. Default 15000.
    pub(super) idle_ms: Option<u64>,
    /// The whole attempt. Default 600000.
    pub(super) total_ms: Option<u64>,
}

/// A request of Pointsman's own for one token, sent only to a backend whose cooldown is over.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "HealthCheck")]
pub(super) struct RawHealthCheck {
    /// Between two of them, at least 1000. Default 10000.
    pub(super) interval_ms: Option<u64>,
    /// The longest one may take before it counts as failed. Default 60000, or the backend's total_ms where that is less.
    pub(super) timeout_ms: Option<u64>,
    /// The model to ask for, as a client would.
    #[schemars(required, with = "String")]
    pub(super) model: Option<String>,
}

/// USD per million tokens.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Price")]
pub(super) struct RawPrice {
    pub(super) input_per_mtok: Option<f64>,
    pub(super) output_per_mtok: Option<f64>,
    /// For prompt tokens the provider had cached. Default: the input price.
    pub(super) cached_input_per_mtok: Option<f64>,
}

/// One client key.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Client")]
pub(super) struct RawClient {
    /// Its name in logs, metrics and records, unique.
    #[schemars(required, with = "String")]
    pub(super) name: Option<String>,
    /// sha256:HEX, env:NAME, file:PATH, sealed:..., or the key itself.
    #[schemars(required, with = "String")]
    pub(super) key: Option<String>,
    /// Requests in any 60 seconds; all that is left may come at once.
    pub(super) rpm: Option<u32>,
    /// Tokens in any 60 seconds, counted when a request has ended: what goes beyond is paid off before the next one.
    pub(super) tpm: Option<u32>,
    /// Requests at a time.
    pub(super) max_concurrency: Option<u32>,
    /// Spend allowed per day, UTC.
    pub(super) budget_usd_per_day: Option<f64>,
    /// When that is spent, go on with the backends that cost nothing: those with a price of 0, and primaries without a
    /// price. Without such a backend for the request, or with false, it is refused until midnight UTC. Default true.
    pub(super) free_when_over_budget: Option<bool>,
    /// The models it may ask for, one * each. Without any: all.
    pub(super) models: Option<Vec<String>>,
}
