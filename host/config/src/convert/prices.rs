//! Prices of models and of their long prompts.

use std::collections::BTreeMap;

use pointsman_core::table::{Price, PriceTier};

use super::Check;
use crate::raw::{RawPrice, RawPriceTier};
use crate::tree::Path;

impl Check<'_, '_> {
    pub(super) fn prices(&mut self, at: &Path, raw: BTreeMap<String, RawPrice>) -> BTreeMap<String, Price> {
        raw.into_iter()
            .map(|(model, price)| {
                let price = self.price(&at.key(&model), price);
                (model, price)
            })
            .collect()
    }

    pub(super) fn price(&mut self, at: &Path, raw: RawPrice) -> Price {
        let list = at.key("tiers");
        let mut tiers = Vec::new();
        for (index, tier) in raw.tiers.into_iter().enumerate() {
            let at = list.index(index);
            let Some(above_input_tokens) = tier.above_input_tokens else {
                let help = "write above_input_tokens = 200000, or the like";
                self.missing(
                    &at,
                    "above_input_tokens",
                    "an entry of `tiers` does not say where it begins".to_owned(),
                    help,
                );
                continue;
            };
            tiers.push(PriceTier { above_input_tokens, price: self.rates(&at, &tier.into()) });
        }
        tiers.sort_by_key(|tier| tier.above_input_tokens);
        Price { tiers, ..self.rates(at, &RawPrice { tiers: Vec::new(), ..raw }) }
    }

    fn rates(&mut self, at: &Path, raw: &RawPrice) -> Price {
        let mut amount = |key: &str, value: Option<f64>| self.money(&at.key(key), value);
        Price {
            input_per_mtok: amount("input_per_mtok", raw.input_per_mtok).unwrap_or(0.0),
            output_per_mtok: amount("output_per_mtok", raw.output_per_mtok).unwrap_or(0.0),
            cached_input_per_mtok: amount("cached_input_per_mtok", raw.cached_input_per_mtok),
            cache_write_per_mtok: amount("cache_write_per_mtok", raw.cache_write_per_mtok),
            cache_write_1h_per_mtok: amount("cache_write_1h_per_mtok", raw.cache_write_1h_per_mtok),
            audio_input_per_mtok: amount("audio_input_per_mtok", raw.audio_input_per_mtok),
            image_input_per_mtok: amount("image_input_per_mtok", raw.image_input_per_mtok),
            audio_output_per_mtok: amount("audio_output_per_mtok", raw.audio_output_per_mtok),
            tiers: Vec::new(),
        }
    }

    pub(super) fn money(&mut self, at: &Path, value: Option<f64>) -> Option<f64> {
        if value.is_some_and(|usd| !usd.is_finite() || usd < 0.0) {
            self.error(at, format!("`{}` is in USD and must be 0 or more", at.name()));
        }
        value
    }
}

impl From<RawPriceTier> for RawPrice {
    fn from(tier: RawPriceTier) -> Self {
        Self {
            input_per_mtok: tier.input_per_mtok,
            output_per_mtok: tier.output_per_mtok,
            cached_input_per_mtok: tier.cached_input_per_mtok,
            cache_write_per_mtok: tier.cache_write_per_mtok,
            cache_write_1h_per_mtok: tier.cache_write_1h_per_mtok,
            audio_input_per_mtok: tier.audio_input_per_mtok,
            image_input_per_mtok: tier.image_input_per_mtok,
            audio_output_per_mtok: tier.audio_output_per_mtok,
            tiers: Vec::new(),
        }
    }
}
