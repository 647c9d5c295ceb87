//! Lanes of attempts and tiers of backends.

vocabulary! {
    /// Cost class of a backend.
    pub enum Tier: serde {
        /// Preferred over fallbacks, which cost money.
        Primary = "primary",
        /// Used when no primary is available, or the policy chooses it.
        Fallback = "fallback",
    }
}

vocabulary! {
    /// The kind of backends that an attempt may go to.
    pub enum Lane: serde {
        /// To primary backends only.
        Primary = "primary",
        /// To fallback backends only.
        Fallback = "fallback",
        /// Any backend, under the emergency rate.
        Emergency = "emergency",
    }
}

impl Lane {
    /// Returns true if a backend of this tier may be used in this lane.
    pub const fn admits(self, tier: Tier) -> bool {
        match (self, tier) {
            (Lane::Primary, Tier::Primary) | (Lane::Fallback, Tier::Fallback) | (Lane::Emergency, _) => true,
            (Lane::Primary, Tier::Fallback) | (Lane::Fallback, Tier::Primary) => false,
        }
    }
}
