//! Prices of models.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Defines a table of rates, in USD per million tokens, with these further keys.
macro_rules! rates {
    ($(#[$meta:meta])* struct $name:ident { $($further:tt)* }) => {
        #[derive(Default, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        $(#[$meta])*
        pub(crate) struct $name {
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
            $($further)*
        }

        impl $name {
            /// Rates by their keys, in the order of declaration.
            pub(crate) const fn rates(&self) -> [(&'static str, Option<f64>); 8] {
                [
                    ("input_per_mtok", self.input_per_mtok),
                    ("output_per_mtok", self.output_per_mtok),
                    ("cached_input_per_mtok", self.cached_input_per_mtok),
                    ("cache_write_per_mtok", self.cache_write_per_mtok),
                    ("cache_write_1h_per_mtok", self.cache_write_1h_per_mtok),
                    ("audio_input_per_mtok", self.audio_input_per_mtok),
                    ("image_input_per_mtok", self.image_input_per_mtok),
                    ("audio_output_per_mtok", self.audio_output_per_mtok),
                ]
            }
        }
    };
}

rates! {
    /// Prices in USD per million tokens.
    #[schemars(rename = "Price")]
    struct RawPrice {
        /// Factors of all these prices for requests that the provider serves in another way: flex, priority, batch or fast.
        /// Default: 1.
        pub(crate) service_tiers: BTreeMap<String, f64>,
        /// Prices of all tokens of requests with longer prompts.
        pub(crate) tiers: Vec<RawPriceTier>,
    }
}

rates! {
    /// Prices of requests whose prompt is longer, in place of the ordinary ones.
    #[schemars(rename = "PriceTier")]
    struct RawPriceTier {
        /// For prompts of more tokens than this, cached ones included.
        #[schemars(required, with = "u64")]
        pub(crate) above_input_tokens: Option<u64>,
    }
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
