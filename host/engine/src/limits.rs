//! Bounds of every policy.

/// Bounds of every policy: instances, memory, sizes and compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Time for one decision, in ms, at most [`EngineLimits::MAX_DECIDE_MS`].
    pub decide_ms: u32,
    /// Time to start and configure an instance, in ms.
    pub configure_ms: u32,
    /// Memory of one instance, in bytes.
    pub memory_bytes: usize,
    /// Instances at a time, of all revisions together.
    pub max_instances: u32,
    /// Size of a policy file, in bytes.
    pub max_component_bytes: usize,
    /// Time to compile a component, in ms.
    pub compile_ms: u32,
    /// Memory to compile a component, in bytes; half of what the container or the machine has, where that is less.
    pub compile_memory_bytes: u64,
}

impl EngineLimits {
    /// The deadline thread may sleep when no call came for 100 ms, so no decision may take longer.
    pub const MAX_DECIDE_MS: u32 = 90;

    /// The largest policy file taken, in bytes, wherever it comes from.
    pub const MAX_COMPONENT_BYTES: usize = 64 << 20;

    /// Memory to compile a component, in bytes, unless it is set.
    pub const COMPILE_MEMORY_BYTES: u64 = 2 << 30;

    /// No compilation gets less memory, in bytes: an ordinary component takes some tens of MiB.
    pub const COMPILE_MEMORY_MIN_BYTES: u64 = 192 << 20;
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            decide_ms: 5,
            configure_ms: 1_000,
            memory_bytes: 64 << 20,
            max_instances: 128,
            max_component_bytes: Self::MAX_COMPONENT_BYTES,
            compile_ms: 300_000,
            compile_memory_bytes: Self::COMPILE_MEMORY_BYTES,
        }
    }
}
