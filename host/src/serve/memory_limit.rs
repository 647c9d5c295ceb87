//! The memory for requests where the configuration says nothing of it.

use pointsman_engine::memory;

/// The limit where nothing tells one.
const UNKNOWN_LIMIT: u64 = 2 << 30;

/// The smallest budget that a limit leads to.
const MIN_BUDGET: u64 = 16 << 20;

/// Half of what the process may use, bytes. The other half is for policies, the store and the system's buffers.
pub(super) fn default_budget() -> u64 {
    (memory::limit_bytes().unwrap_or(UNKNOWN_LIMIT) / 2).max(MIN_BUDGET)
}
