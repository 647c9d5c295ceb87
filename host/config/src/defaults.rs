//! Defaults of the settings: the schema shows them, and the checked configuration has them where a key is not set.
//!
//! Defaults that core's own types have (time limits of attempts, cooldowns, limits of an exchange, the fault breaker)
//! are taken from there.

use std::time::Duration;

use pointsman_engine::EngineLimits;

pub(super) const LISTEN: &str = "127.0.0.1:8080";
pub(super) const ADMIN_LISTEN: &str = "127.0.0.1:9901";
pub(super) const MAX_BODY_BYTES: u64 = 64 << 20;
/// Disk for large requests that wait for memory, MiB.
pub(super) const SPILL_MB: u32 = 1_024;
pub(super) const MAX_HEADER_BYTES: u32 = 64 << 10;
/// Connections of the operator's listener.
pub const ADMIN_MAX_CONNECTIONS: u32 = 128;
pub(super) const DRAIN_TIMEOUT_MS: u64 = 30_000;
pub(super) const HEADER_READ_TIMEOUT_MS: u64 = 30_000;
pub(super) const UNREAD_TIMEOUT_MS: u64 = 120_000;
/// Longer than the clients' and balancers' usual minute, so that they close first.
pub(super) const KEEP_ALIVE_MS: u64 = 75_000;
/// Nobody goes before others unless the operator says so.
pub(super) const PRIORITY_MAX: i32 = 0;
pub(super) const SEAL_KEY: &str = "env:POINTSMAN_SEAL_KEY";
pub(super) const STORE_PATH: &str = "pointsman.db";
pub(super) const STORE_RETENTION_DAYS: u32 = 30;
/// Room for exchanges beside the journal's records, MiB.
const STORE_EXCHANGES_MB: u32 = 3_072;
const STORE_EXCHANGES_MB_IN_MEMORY: u32 = 64;
pub(super) const STORE_MAX_MB: u32 = store_max_mb(JOURNAL_MAX_MB, false);
pub(super) const STORE_BACKLOG: u32 = 10_000;
pub(super) const STORE_BACKLOG_MB: u32 = 64;
pub(super) const JOURNAL_SAMPLE: f64 = 1.0;
pub(super) const JOURNAL_RETENTION_DAYS: u32 = 7;
pub(super) const JOURNAL_MAX_MB: u32 = 1_024;
/// For a store in memory.
pub(super) const JOURNAL_MAX_MB_IN_MEMORY: u32 = 64;
pub(super) const JOURNAL_BACKLOG_MB: u32 = 64;
pub(super) const JOURNAL_BODY_KB: u32 = 64;
pub(super) const DECISION_DEADLINE_MS: u32 = 5;
pub(super) const POLICY_MEMORY_MB: u32 = 64;
pub(super) const START_WAIT_MS: u64 = 5_000;
pub(super) const COMPILE_MEMORY_MB: u32 = (EngineLimits::COMPILE_MEMORY_BYTES >> 20) as u32;
pub(super) const COMPILE_MEMORY_MIN_MB: u32 = (EngineLimits::COMPILE_MEMORY_MIN_BYTES >> 20) as u32;
pub(super) const SHADOW_CORE_SHARE: f64 = 0.1;
pub(super) const KEEPALIVE_MS: u64 = 10_000;
pub(super) const QUEUE_LENGTH: u32 = 1_000;
pub(super) const LOG_LEVEL: &str = "info";
pub(super) const EMPTY_ANSWERS: bool = false;
pub(super) const HEALTH_CHECK_INTERVAL_MS: u64 = 10_000;
pub(super) const HEALTH_CHECK_TIMEOUT_MS: u64 = 60_000;

/// Largest size of a store in which the journal has so many MiB.
pub(super) const fn store_max_mb(journal_max_mb: u32, in_memory: bool) -> u32 {
    let exchanges = if in_memory { STORE_EXCHANGES_MB_IN_MEMORY } else { STORE_EXCHANGES_MB };
    journal_max_mb.saturating_add(exchanges)
}

/// Whole milliseconds of a duration, as settings have them.
pub(super) const fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
