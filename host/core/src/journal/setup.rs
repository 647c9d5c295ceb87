//! All of a configuration that decides what becomes of a request.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::exchange::{Budgets, StreamDefaults};
use crate::fleet;
use crate::table::{Limits, Pattern, Table};

/// What core, policy and lab need of a configuration. There is no secret in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The backends, and the names that queries point to.
    pub table: Table,
    /// `[policy.settings]` as JSON.
    pub settings: String,
    /// What the fleet is told.
    pub fleet: fleet::Settings,
    /// What one exchange may use up.
    pub budgets: Budgets,
    /// How streams are handled where the policy does not say.
    pub streams: StreamDefaults,
    /// The client keys, in the order of `table.clients`.
    pub clients: Vec<Terms>,
}

/// What a client key may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Its name.
    #[serde(with = "super::forms::text")]
    pub name: Arc<str>,
    /// Its limits.
    pub limits: Limits,
    /// Spend allowed per day, UTC; none: no limit.
    pub budget_usd_per_day: Option<f64>,
    /// May it use backends that cost nothing when that is spent? Records of older versions say nothing: it might not.
    #[serde(default)]
    pub free_when_over_budget: bool,
    /// The models it may ask for; none: all.
    pub models: Option<Vec<Pattern>>,
}

impl Terms {
    /// May it ask for this model?
    pub fn may_ask(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|patterns| patterns.iter().any(|p| p.capture(model).is_some()))
    }
}
