//! Things that are replaced while running, and reasons for going back to an earlier policy.

/// A thing that is replaced while running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The configuration.
    Config,
    /// The policy.
    Policy,
    /// The shadow policy.
    Shadow,
}

impl Reload {
    /// Every kind.
    pub const ALL: [Reload; 3] = [Reload::Config, Reload::Policy, Reload::Shadow];

    /// The name in metrics and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reload::Config => "config",
            Reload::Policy => "policy",
            Reload::Shadow => "shadow",
        }
    }
}

/// The cause of a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollback {
    /// The operator asked for it.
    Operator,
    /// The fault breaker tripped.
    Faults,
    /// The fault breaker tripped, and the policy stays because there is no earlier one.
    Stayed,
}

impl Rollback {
    /// Every cause.
    pub const ALL: [Rollback; 3] = [Rollback::Operator, Rollback::Faults, Rollback::Stayed];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Rollback::Operator => "operator",
            Rollback::Faults => "faults",
            Rollback::Stayed => "stayed",
        }
    }
}
