//! Things that are replaced while running, and reasons for going back to an earlier policy.

vocabulary! {
    /// A thing that is replaced while running.
    pub enum Reload {
        /// The configuration of the proxy.
        Config = "config",
        /// The policy in force.
        Policy = "policy",
        /// The shadow policy.
        Shadow = "shadow",
    }
}

vocabulary! {
    /// The cause of a rollback.
    pub enum Rollback {
        /// The operator asked for it.
        Operator = "operator",
        /// The fault breaker tripped.
        Faults = "faults",
        /// The fault breaker tripped, and the policy stays because there is no earlier one.
        Stayed = "stayed",
    }
}
