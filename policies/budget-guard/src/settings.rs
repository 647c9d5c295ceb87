//! Settings of the policy; see `README.md`.

use std::collections::BTreeMap;

use pointsman_sdk::settings::{self, within};
use pointsman_sdk::{Patience, Table};
use serde::Deserialize;

/// Checked settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    caps_usd: BTreeMap<String, f64>,
    default_cap_usd: Option<f64>,
    pub careful_at: f64,
    pub save_at: f64,
    careful_wait_ms: u32,
    cheaper_models: BTreeMap<String, String>,
    pub refuse_status: u16,
    primary_wait_ms: u32,
    primary_wait_max_retries: u32,
    pub max_pool_retries: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            caps_usd: BTreeMap::new(),
            default_cap_usd: None,
            careful_at: 0.5,
            save_at: 0.8,
            careful_wait_ms: 30_000,
            cheaper_models: BTreeMap::new(),
            refuse_status: 429,
            primary_wait_ms: 5_000,
            primary_wait_max_retries: 6,
            max_pool_retries: 3,
        }
    }
}

impl Settings {
    /// Reads and checks them; the error names the key.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let settings: Self = settings::parse(json)?;
        for (client, &cap) in &settings.caps_usd {
            within(&format!("caps_usd.{client}"), cap, 0.0..=MAX_CAP_USD)?;
        }
        within("default_cap_usd", settings.default_cap_usd.unwrap_or(0.0), 0.0..=MAX_CAP_USD)?;
        within("save_at", settings.save_at, 0.0..=1.0)?;
        within("careful_at", settings.careful_at, 0.0..=settings.save_at)?;
        within("careful_wait_ms", settings.careful_wait_ms, 0..=600_000)?;
        within("primary_wait_ms", settings.primary_wait_ms, 0..=600_000)?;
        within("primary_wait_max_retries", settings.primary_wait_max_retries, 0..=1_000)?;
        within("max_pool_retries", settings.max_pool_retries, 0..=100)?;
        match settings.refuse_status {
            402 | 429 => Ok(settings),
            other => Err(format!("setting `refuse_status`: {other} is neither 402 nor 429")),
        }
    }

    /// Returns the daily cap of each client of the table, in millionths of a USD; `None`: as the configuration says.
    pub(crate) fn caps_microusd(&self, table: &Table) -> Result<Vec<Option<u64>>, String> {
        if let Some(stranger) = self.caps_usd.keys().find(|name| !table.clients.contains(name)) {
            return Err(format!("setting `caps_usd`: there is no [[client]] named {stranger:?}"));
        }
        let cap = |client: &String| self.caps_usd.get(client).copied().or(self.default_cap_usd);
        Ok(table.clients.iter().map(|client| cap(client).map(|usd| (usd * 1e6) as u64)).collect())
    }

    /// The index of the model to ask for instead, by that of each model of the table.
    pub(crate) fn cheaper_models(&self, table: &Table) -> Result<Vec<Option<usize>>, String> {
        let place = |name: &String| {
            let known = table.models.iter().position(|model| model == name);
            known.ok_or_else(|| format!("setting `cheaper_models`: no backend lists the model {name:?}"))
        };
        let mut instead = vec![None; table.models.len()];
        for (model, cheaper) in &self.cheaper_models {
            instead[place(model)?] = Some(place(cheaper)?);
        }
        Ok(instead)
    }

    /// With money left.
    pub(crate) fn patience(&self) -> Patience {
        Patience { longest_ms: self.primary_wait_ms, waits: self.primary_wait_max_retries }
    }

    /// From the first threshold on.
    pub(crate) fn careful_patience(&self) -> Patience {
        Patience { longest_ms: self.careful_wait_ms, ..self.patience() }
    }
}

const MAX_CAP_USD: f64 = 1e9;
