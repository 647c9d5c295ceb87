//! Settings given for a policy that is tried, and those that a recorded setup has for it.

use pointsman_config::{self as config, PolicySettings};
use pointsman_engine::SettingsOffer;
use serde_json::{Map, Value};

type Settings = Map<String, Value>;

/// Settings given on the command line.
#[derive(Clone, Debug, Default)]
pub struct GivenSettings {
    file: Option<Settings>,
    set: Settings,
}

impl GivenSettings {
    /// Single settings, `set`, over those of a `file`, where there is one.
    pub fn new(file: Option<Settings>, set: Settings) -> Self {
        Self { file, set }
    }

    /// Returns the given settings over those that the policy would have otherwise.
    pub fn over(&self, else_offered: SettingsOffer) -> SettingsOffer {
        self.file.clone().map_or(else_offered, SettingsOffer::own).and(&self.set)
    }

    /// The whole, where a file was given, and single settings, where there are any and no file.
    pub fn parts(&self) -> (Option<Settings>, Option<Settings>) {
        match &self.file {
            Some(file) => (Some(file.iter().chain(&self.set).map(|(k, v)| (k.clone(), v.clone())).collect()), None),
            None => (None, (!self.set.is_empty()).then(|| self.set.clone())),
        }
    }
}

/// Returns a recorded setup's settings for a policy with these names: the configuration's table of its name, if there
/// is one; else the recorded ones that it knows.
pub fn recorded(configured: &PolicySettings, names: &[&str], recorded: &str) -> SettingsOffer {
    configured.offer_with_table(names).unwrap_or_else(|| config::recorded_settings(recorded))
}
