//! The database, the record of decisions in it, and log lines.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::defaults;

/// The database of records.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Store")]
pub(crate) struct RawStore {
    /// SQLite file, or ":memory:".
    #[schemars(extend("default" = defaults::STORE_PATH))]
    pub(crate) path: Option<String>,
    /// Days after which records are deleted.
    #[schemars(extend("default" = defaults::STORE_RETENTION_DAYS))]
    pub(crate) retention_days: Option<u32>,
    /// Largest size of the file in MiB, the journal's records among it; beyond it the oldest records are deleted. Without it 3072
    /// more than `journal.max_mb`, or 64 more where the store is in memory.
    #[schemars(extend("default" = defaults::STORE_MAX_MB))]
    pub(crate) max_mb: Option<u32>,
    /// Records waiting to be written; beyond it new ones are dropped and counted.
    #[schemars(extend("default" = defaults::STORE_BACKLOG))]
    pub(crate) backlog: Option<u32>,
    /// Memory for these records, in MiB; beyond it new ones are dropped and counted.
    #[schemars(extend("default" = defaults::STORE_BACKLOG_MB))]
    pub(crate) backlog_mb: Option<u32>,
}

/// The record of decisions for `explain`, `replay` and `backtest`: every question to the policy and its answer.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Journal")]
pub(crate) struct RawJournal {
    /// Share of exchanges that are recorded, 0 to 1. Unusual ones are recorded beside it; 0: none at all.
    #[schemars(extend("default" = defaults::JOURNAL_SAMPLE))]
    pub(crate) sample: Option<f64>,
    /// Days after which records are deleted.
    #[schemars(extend("default" = defaults::JOURNAL_RETENTION_DAYS))]
    pub(crate) retention_days: Option<u32>,
    /// Largest size of the records in MiB; beyond it the oldest are deleted. 64 where the store is in memory.
    #[schemars(extend("default" = defaults::JOURNAL_MAX_MB))]
    pub(crate) max_mb: Option<u32>,
    /// Memory for records waiting to be written, in MiB; beyond it new ones are dropped and counted.
    #[schemars(extend("default" = defaults::JOURNAL_BACKLOG_MB))]
    pub(crate) backlog_mb: Option<u32>,
    /// Record prompts and answers too.
    #[schemars(extend("default" = false))]
    pub(crate) bodies: Option<bool>,
    /// Largest part of one body that is recorded, in KiB.
    #[schemars(extend("default" = defaults::JOURNAL_BODY_KB))]
    pub(crate) max_body_kb: Option<u32>,
    /// Regular expressions: text that they match in a body is replaced by "[redacted]" before anything is written.
    pub(crate) redact: Vec<String>,
}

/// Lines on standard error.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Log")]
pub(crate) struct RawLog {
    /// A level, or directives such as "info,pointsman=debug".
    #[schemars(extend("default" = defaults::LOG_LEVEL))]
    pub(crate) level: Option<String>,
    /// Format of the lines; auto: pretty on a terminal, JSON otherwise.
    #[schemars(extend("default" = "auto"))]
    pub(crate) format: Option<RawLogFormat>,
    /// Write one line per exchange.
    #[schemars(extend("default" = true))]
    pub(crate) exchanges: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "LogFormat")]
pub(crate) enum RawLogFormat {
    Auto,
    Pretty,
    Json,
}
