//! Prices of models and of their long prompts.

use std::collections::BTreeMap;

use pointsman_core::record::ServiceTier;
use pointsman_core::table::{Price, PriceTier};

use super::Check;
use crate::raw::RawPrice;
use crate::tree::Path;

impl Check<'_, '_> {
    pub(super) fn prices(&mut self, at: &Path, raw: BTreeMap<String, RawPrice>) -> BTreeMap<String, Price> {
        raw.into_iter()
            .map(|(model, price)| {
                let at = at.key(&model);
                self.advise_on_half_price(&at, &model, &price);
                let price = self.price(&at, price);
                (model, price)
            })
            .collect()
    }

    pub(super) fn price(&mut self, at: &Path, raw: RawPrice) -> Price {
        let list = at.key("tiers");
        let ordinary = raw.rates();
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
            tiers.push(PriceTier { above_input_tokens, price: self.rates(&at, tier.rates()) });
        }
        tiers.sort_by_key(|tier| tier.above_input_tokens);
        let service_tiers = self.service_tiers(&at.key("service_tiers"), &raw.service_tiers);
        Price { tiers, service_tiers, ..self.rates(at, ordinary) }
    }

    fn service_tiers(&mut self, at: &Path, raw: &BTreeMap<String, f64>) -> BTreeMap<ServiceTier, f64> {
        let mut factors = BTreeMap::new();
        for (name, factor) in raw {
            let at = at.key(name);
            let Some(tier) = ServiceTier::parse(name).filter(|tier| *tier != ServiceTier::Standard) else {
                let problem = self.error(&at, format!("`{name}` is no service tier that has a price of its own"));
                problem.help("write flex, priority, batch or fast");
                continue;
            };
            if factor.is_finite() && *factor >= 0.0 {
                factors.insert(tier, *factor);
            } else {
                let problem = self.error(&at, format!("`{name}` must be a factor of 0 or more"));
                problem.help("0.5 for half the price, 2.0 for twice the price");
            }
        }
        factors
    }

    fn rates(&mut self, at: &Path, raw: [(&str, Option<f64>); 8]) -> Price {
        let [input, output, cached, written, written_1h, audio_input, image_input, audio_output] =
            raw.map(|(key, value)| self.money(&at.key(key), value));
        Price {
            input_per_mtok: input.unwrap_or(0.0),
            output_per_mtok: output.unwrap_or(0.0),
            cached_input_per_mtok: cached,
            cache_write_per_mtok: written,
            cache_write_1h_per_mtok: written_1h,
            audio_input_per_mtok: audio_input,
            image_input_per_mtok: image_input,
            audio_output_per_mtok: audio_output,
            service_tiers: BTreeMap::new(),
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
