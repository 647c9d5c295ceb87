//! Client keys.

use schemars::JsonSchema;
use serde::Deserialize;

use super::listeners::RawExhaustedStatus;
use crate::defaults;

/// A client key with its limits.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Client")]
pub(crate) struct RawClient {
    /// Name of the client in logs, metrics and records, unique.
    #[schemars(required, with = "String")]
    pub(crate) name: Option<String>,
    /// sha256:HEX, env:NAME, file:PATH, sealed:..., or the key itself.
    #[schemars(required, with = "String")]
    pub(crate) key: Option<String>,
    /// Requests in any 60 seconds; all that are left may come at once.
    pub(crate) rpm: Option<u32>,
    /// Tokens in any 60 seconds, counted when a request has ended: those beyond the limit are paid off before the next
    /// one.
    pub(crate) tpm: Option<u32>,
    /// Requests under way at a time.
    pub(crate) max_concurrency: Option<u32>,
    /// Budget per day in USD, until midnight UTC.
    pub(crate) budget_usd_per_day: Option<f64>,
    /// Once the budget is spent, go on with free backends: those with a price of 0, and primaries without a price.
    /// Without such a backend for the request, or with false, it is refused until midnight UTC.
    #[schemars(extend("default" = true))]
    pub(crate) free_when_over_budget: Option<bool>,
    /// Status of its requests that the limits of all backends exhausted, 503 or common. Default: that of [server].
    pub(crate) exhausted_status: Option<RawExhaustedStatus>,
    /// Models that it may ask for, one * each. Without any: all.
    pub(crate) models: Option<Vec<String>>,
    /// Highest priority that it may ask for with the header `x-pointsman-priority`, -100 to 100; a higher one counts as this.
    #[schemars(extend("default" = defaults::PRIORITY_MAX))]
    pub(crate) priority_max: Option<i32>,
    /// Names of labels that it may send in headers `x-pointsman-label-NAME`, one * each; others are left out. Without it: all.
    pub(crate) labels: Option<Vec<String>>,
}
