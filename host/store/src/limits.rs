//! Bounds of the store: memory, age, size and time.

/// The longest a question may take, ms.
pub const QUERY_TIMEOUT_MS: u64 = 10_000;

/// Bounds of the store: records that wait, their age and their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Exchanges that may wait to be written; more are dropped and counted. At least 1.
    pub backlog: usize,
    /// Memory of those exchanges, in bytes.
    pub backlog_bytes: usize,
    /// Exchanges older than this many days are deleted; none keeps them for ever.
    pub retention_days: Option<u32>,
    /// The oldest exchanges are deleted when the content is larger than this; none is unlimited.
    pub max_bytes: Option<u64>,
    /// Bounds of the trails among them.
    pub journal: JournalLimits,
}

/// Bounds of the journal: trails that wait, their age and their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// Memory of the trails that wait to be written, in bytes; more are dropped and counted.
    pub backlog_bytes: usize,
    /// Trails older than this many days are deleted; none keeps them as long as their exchanges.
    pub retention_days: Option<u32>,
    /// The oldest trails are deleted when they take more bytes than this; none is unlimited.
    pub max_bytes: Option<u64>,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self { backlog_bytes: 64 << 20, retention_days: Some(7), max_bytes: Some(1 << 30) }
    }
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            backlog: 65_536,
            backlog_bytes: 64 << 20,
            retention_days: Some(30),
            max_bytes: Some(4 << 30),
            journal: JournalLimits::default(),
        }
    }
}
