//! `pointsman.toml` as it is written, nothing checked yet; also the source of its JSON schema.

mod backend;
mod client;
mod listeners;
mod policy;
mod price;
mod records;

use pointsman_core::exchange::Budgets;
use pointsman_core::fleet::health::CooldownSettings;
use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use backend::{
    RawBackend, RawDialect, RawHealthCheck, RawModelLimits, RawModels, RawQuery, RawSent, RawTier, RawTimeouts,
};
pub(crate) use client::RawClient;
pub(crate) use listeners::{RawAdmin, RawExhaustedStatus, RawServer, RawTranslation};
pub(crate) use policy::{RawOnFault, RawPolicy, RawRollback, RawShadow};
pub(crate) use price::{RawBudget, RawPrice};
pub(crate) use records::{RawJournal, RawLog, RawLogFormat, RawStore};

use super::defaults::{self, millis};

/// The configuration of Pointsman. Durations are in milliseconds.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "pointsman.toml")]
pub(crate) struct RawConfig {
    pub(crate) server: RawServer,
    pub(crate) admin: RawAdmin,
    pub(crate) secrets: RawSecrets,
    pub(crate) store: RawStore,
    pub(crate) journal: RawJournal,
    pub(crate) policy: RawPolicy,
    pub(crate) stream: RawStream,
    pub(crate) limits: RawLimits,
    pub(crate) cooldown: RawCooldown,
    pub(crate) budget: RawBudget,
    pub(crate) log: RawLog,
    /// Backends that requests are sent to.
    pub(crate) backend: Vec<RawBackend>,
    /// Client keys; without any, everyone who reaches the listener may send requests.
    pub(crate) client: Vec<RawClient>,
}

/// Opening of secrets that are written sealed:...
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Secrets")]
pub(crate) struct RawSecrets {
    /// Source of the private key, env:NAME or file:PATH; read only when something is sealed.
    #[schemars(extend("default" = defaults::SEAL_KEY))]
    pub(crate) key: Option<String>,
}

/// Streamed answers.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Stream")]
pub(crate) struct RawStream {
    /// Commit gate: the point at which an answer is passed on to the client.
    #[schemars(extend("default" = "first-content"))]
    pub(crate) commit: Option<RawCommit>,
    /// Resume mode after a break of a committed stream.
    #[schemars(extend("default" = "splice"))]
    pub(crate) resume: Option<RawResume>,
    /// Interval of comments to a client that waits for its stream; 0: none.
    #[schemars(extend("default" = defaults::KEEPALIVE_MS))]
    pub(crate) keepalive_ms: Option<u64>,
}

/// Commit gate: the point at which an answer is passed on to the client.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Commit")]
pub(crate) enum RawCommit {
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
pub(crate) enum RawResume {
    None,
    Splice,
    Prefill,
}

/// Limits of one exchange.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Limits")]
pub(crate) struct RawLimits {
    /// Number of attempts, at least 1.
    #[schemars(extend("default" = Budgets::default().max_attempts))]
    pub(crate) max_attempts: Option<u32>,
    /// Number of waits.
    #[schemars(extend("default" = Budgets::default().max_waits))]
    pub(crate) max_waits: Option<u32>,
    /// Total time in the queue.
    #[schemars(extend("default" = millis(Budgets::default().max_wait)))]
    pub(crate) max_wait_ms: Option<u64>,
    /// Time from arrival to the last byte.
    #[schemars(extend("default" = millis(Budgets::default().max_total)))]
    pub(crate) max_exchange_ms: Option<u64>,
    /// Exchanges that may wait at a time.
    #[schemars(extend("default" = defaults::QUEUE_LENGTH))]
    pub(crate) queue_length: Option<u32>,
}

/// Lengths of cooldowns of failing backends.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Cooldown")]
pub(crate) struct RawCooldown {
    /// First cooldown without a Retry-After; it doubles with every failure.
    #[schemars(extend("default" = millis(CooldownSettings::default().base)))]
    pub(crate) base_ms: Option<u64>,
    /// Longest cooldown without a Retry-After.
    #[schemars(extend("default" = millis(CooldownSettings::default().max)))]
    pub(crate) max_ms: Option<u64>,
    /// Largest share of a cooldown that is added at random, 0 to 1.
    #[schemars(extend("default" = CooldownSettings::default().jitter))]
    pub(crate) jitter: Option<f64>,
    /// Minimum for a provider's Retry-After; a shorter one is raised to it.
    #[schemars(extend("default" = millis(CooldownSettings::default().retry_after_floor)))]
    pub(crate) retry_after_floor_ms: Option<u64>,
    /// Maximum for a provider's Retry-After; a longer one is cut to it.
    #[schemars(extend("default" = millis(CooldownSettings::default().retry_after_cap)))]
    pub(crate) retry_after_cap_ms: Option<u64>,
}
