//! Client keys and what each permits.

use std::sync::Arc;

use pointsman_core::exchange::ExhaustedStatus;
use pointsman_core::table::{Limits, Pattern};

use crate::secret::KeyDigest;

/// A client key with its permissions.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name in logs, metrics and records.
    pub name: Arc<str>,
    /// SHA-256 of the key.
    pub key: KeyDigest,
    /// Rates of 60 seconds and concurrency.
    pub limits: Limits,
    /// Spend allowed per day, UTC.
    pub budget_usd_per_day: Option<f64>,
    /// It may use free backends once its budget is spent.
    pub free_when_over_budget: bool,
    /// Status of its requests that the limits of all backends exhausted; none: that of the server.
    pub exhausted_status: Option<ExhaustedStatus>,
    /// The models it may ask for; none: all.
    pub models: Option<Vec<Pattern>>,
    /// Headers that count of its requests.
    pub privileges: Privileges,
}

impl Client {
    /// Returns true if it may ask for this model.
    pub fn may_ask(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|patterns| patterns.iter().any(|p| p.capture(model).is_some()))
    }
}

/// Headers of a client that count for the queue and the policy: priority and labels.
#[derive(Clone, Debug, Default)]
pub struct Privileges {
    /// Highest priority, -100 to 100.
    pub priority_max: i32,
    /// Names of labels that it may send; none: all.
    pub labels: Option<Arc<[Pattern]>>,
}

impl Privileges {
    /// Returns the priority of a request that asks for this one.
    pub fn priority(&self, asked: i32) -> i32 {
        asked.clamp(-100, 100).min(self.priority_max)
    }

    /// Returns true if the label of this name, in lower case, counts.
    pub fn allow_label(&self, name: &str) -> bool {
        self.labels.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.capture(name).is_some()))
    }
}
