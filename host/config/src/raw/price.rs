//! Prices of models.

use schemars::JsonSchema;
use serde::Deserialize;

/// Prices in USD per million tokens.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Price")]
pub(crate) struct RawPrice {
    pub(crate) input_per_mtok: Option<f64>,
    pub(crate) output_per_mtok: Option<f64>,
    /// For prompt tokens the provider had cached. Default: the input price.
    pub(crate) cached_input_per_mtok: Option<f64>,
    /// For prompt tokens the provider wrote to a cache, for minutes. Default: the input price.
    pub(crate) cache_write_per_mtok: Option<f64>,
    /// The same for an hour. Default: the price for minutes.
    pub(crate) cache_write_1h_per_mtok: Option<f64>,
    /// For prompt tokens that are sound. Default: the input price.
    pub(crate) audio_input_per_mtok: Option<f64>,
    /// For prompt tokens that are pictures. Default: the input price.
    pub(crate) image_input_per_mtok: Option<f64>,
    /// For answer tokens that are sound. Default: the output price.
    pub(crate) audio_output_per_mtok: Option<f64>,
    /// Prices of all tokens of requests with longer prompts.
    pub(crate) tiers: Vec<RawPriceTier>,
}

/// Prices of requests whose prompt is longer, in place of the ordinary ones.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "PriceTier")]
pub(crate) struct RawPriceTier {
    /// For prompts of more tokens than this, cached ones included.
    #[schemars(required, with = "u64")]
    pub(crate) above_input_tokens: Option<u64>,
    pub(crate) input_per_mtok: Option<f64>,
    pub(crate) output_per_mtok: Option<f64>,
    /// Default: the input price.
    pub(crate) cached_input_per_mtok: Option<f64>,
    /// Default: the input price.
    pub(crate) cache_write_per_mtok: Option<f64>,
    /// Default: the price for minutes.
    pub(crate) cache_write_1h_per_mtok: Option<f64>,
    /// Default: the input price.
    pub(crate) audio_input_per_mtok: Option<f64>,
    /// Default: the input price.
    pub(crate) image_input_per_mtok: Option<f64>,
    /// Default: the output price.
    pub(crate) audio_output_per_mtok: Option<f64>,
}

/// Budgets of clients.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Budget")]
pub(crate) struct RawBudget {
    /// Price of every model that has none, at every backend. Without one, requests of a client with a budget go only where
    /// their cost can be counted: to models with a price, and to primaries without any price where others have prices.
    pub(crate) default_price: Option<RawPrice>,
}
