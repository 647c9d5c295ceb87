//! All of a configuration that decides what becomes of a request.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::exchange::{Budgets, StreamDefaults};
use crate::fleet;
use crate::table::{Limits, Pattern, Table};

/// The part of a configuration that core, policy and lab need, without secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The backends, and the names that queries point to.
    pub table: Table,
    /// The table `[policy.settings]` as JSON.
    pub settings: String,
    /// Settings of the fleet: cooldowns, emergency share, queue.
    pub fleet: fleet::Settings,
    /// Budgets of an exchange.
    pub budgets: Budgets,
    /// Defaults for streams, where the policy does not decide.
    pub streams: StreamDefaults,
    /// The client keys, in the order of `table.clients`.
    pub clients: Vec<Terms>,
}

/// Permissions and limits of a client key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Name of the client key.
    #[serde(with = "crate::forms::text")]
    pub name: Arc<str>,
    /// Rates and concurrency of the client.
    pub limits: Limits,
    /// Spend allowed per day, UTC; none: no limit.
    pub budget_usd_per_day: Option<f64>,
    /// It may use free backends once its budget is spent. False in records of older versions.
    #[serde(default)]
    pub free_when_over_budget: bool,
    /// The models it may ask for; none: all.
    pub models: Option<Vec<Pattern>>,
}

impl Terms {
    /// Returns true if it may ask for this model.
    pub fn may_ask(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|patterns| patterns.iter().any(|p| p.capture(model).is_some()))
    }
}
