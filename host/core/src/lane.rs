//! Lanes of attempts and tiers of backends.

use serde::{Deserialize, Serialize};

/// Cost class of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Preferred over fallbacks.
    Primary,
    /// Used when no primary is available, or the policy chooses it.
    Fallback,
}

impl Tier {
    /// Name in configuration, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Tier::Primary => "primary",
            Tier::Fallback => "fallback",
        }
    }
}

/// The kind of backends that an attempt may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Only primary backends.
    Primary,
    /// Only fallback backends.
    Fallback,
    /// Any backend, under the emergency rate.
    Emergency,
}

impl Lane {
    /// Every lane, in the order of declaration.
    pub const ALL: [Lane; 3] = [Lane::Primary, Lane::Fallback, Lane::Emergency];

    /// Name in logs, metrics and the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Lane::Primary => "primary",
            Lane::Fallback => "fallback",
            Lane::Emergency => "emergency",
        }
    }

    /// Returns true if a backend of this tier may be used in this lane.
    pub const fn admits(self, tier: Tier) -> bool {
        match (self, tier) {
            (Lane::Primary, Tier::Primary) | (Lane::Fallback, Tier::Fallback) | (Lane::Emergency, _) => true,
            (Lane::Primary, Tier::Fallback) | (Lane::Fallback, Tier::Primary) => false,
        }
    }
}
