//! Choice of a component's settings: its own where it came with some, else those of the configuration.

use std::path::Path;

use pointsman_config::{self as config, Config, ProcessEnv};
use pointsman_core::lifecycle::UploadOptions;
use pointsman_core::lifecycle::history::{Entry, History, Incoming, Origin};
use pointsman_engine::{Engine, LoadError, Revision, SettingsOffer, left_out_words, refused_key};

use super::Control;
use super::component::{Component, source_of};

/// A component's relation to the configuration.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Provenance {
    /// True for the policy that the configuration names now.
    is_source: bool,
    origin: Origin,
    options: UploadOptions,
}

impl Provenance {
    /// The relation of the policy that the configuration names.
    pub(super) fn source(config: &Config) -> Self {
        let origin = Origin::of_source(source_of(config).as_deref());
        Self { is_source: true, origin, options: UploadOptions::default() }
    }

    /// The relation of the embedded policy where the configuration names another.
    pub(super) fn embedded() -> Self {
        Self { is_source: false, origin: Origin::Embedded, options: UploadOptions::default() }
    }

    /// The relation of an uploaded policy.
    pub(super) fn upload(options: UploadOptions) -> Self {
        Self { is_source: false, origin: Origin::Upload, options }
    }

    /// A revision that is kept. An earlier content of the policy file is another policy than what the file holds now.
    pub(super) fn kept(entry: &Entry, history: &History, config: &Config) -> Self {
        let holds = history.source.as_ref().is_some_and(|source| source.hash == entry.hash);
        let is_source = holds && entry.origin == Origin::of_source(source_of(config).as_deref());
        Self { is_source, origin: entry.origin.clone(), options: entry.options.clone() }
    }

    /// The options, for the history.
    pub(super) fn incoming(&self, component: &Component) -> Incoming {
        let (hash, bytes) = (component.hash, component.bytes.len() as u64);
        Incoming { hash, bytes, origin: self.origin.clone(), options: self.options.clone() }
    }

    /// The names it goes by; `own` is the one in the component.
    fn names<'a>(&'a self, config: &'a Config, own: Option<&'a str>, id: &str) -> Vec<&'a str> {
        let file = match &self.origin {
            Origin::File(file) => Some(file.as_path()),
            Origin::Embedded | Origin::Upload => None,
        };
        let file = if self.is_source { config.policy.file.as_deref() } else { file };
        let is_default = self.origin == Origin::Embedded || id == Engine::embedded_id();
        let given = self.options.name.as_deref();
        given.into_iter().chain(config::policy_names(own, file, is_default)).collect()
    }

    pub(super) fn offer(&self, config: &Config, own: Option<&str>, id: &str) -> SettingsOffer {
        match &self.options.settings {
            Some(settings) => config.policy.offer_of(settings),
            None if self.is_source => config.policy.offer(own),
            None => config.policy.offer_for_other(&self.names(config, own, id)).and(&self.options.set),
        }
    }

    /// The same once it was told its settings: with all of them, where single ones were given.
    ///
    /// # Errors
    /// When these are more than the history keeps.
    pub(super) fn settled(self, revision: &Revision) -> anyhow::Result<Self> {
        let options = self.options.settled(revision.settings()).map_err(anyhow::Error::msg)?;
        Ok(Self { options, ..self })
    }

    /// Returns true if this setting came with it.
    fn came_with_it(&self, key: &str) -> bool {
        self.options.settings.is_some() || self.options.set.contains_key(key)
    }

    /// An error, with the line of the configuration that it is about and the key that may have been meant.
    pub(super) fn explain(
        &self,
        error: LoadError,
        (config, file): (&Config, Option<&Path>),
        own: Option<&str>,
        id: &str,
    ) -> anyhow::Error {
        let words = match &error {
            LoadError::Refused(words) => words.clone(),
            LoadError::Configure(fault) => fault.message.clone(),
            _ => return error.into(),
        };
        let offer = self.offer(config, own, id);
        let offered = serde_json::from_str(offer.json()).unwrap_or_default();
        let hint = refused_key(&words, &offered).map(|(key, nearest)| {
            let names = self.names(config, own, id);
            let place = match (self.came_with_it(key), file) {
                (true, _) => Some("it came with the upload".to_owned()),
                (false, Some(file)) => {
                    config::settings_place(file, &ProcessEnv, &names, key).map(|place| place.to_string())
                }
                (false, None) => None,
            };
            let nearest = nearest.map(|key| format!("did you mean `{key}`?"));
            place.into_iter().chain(nearest).collect::<Vec<_>>().join("; ")
        });
        let hint = hint.filter(|hint| !hint.is_empty()).map(|hint| format!(" ({hint})")).unwrap_or_default();
        let advice = if self.is_source || self.options.settings.is_some() {
            ""
        } else {
            "; settings of its own come with it (?settings=), or stand in a table [policy.settings.NAME] of its name (?name=)"
        };
        anyhow::anyhow!("{error}{hint}{advice}")
    }
}

impl Control {
    /// Returns the relation of the policy in force.
    pub(super) fn standing_in_force(&self, config: &Config) -> Provenance {
        let state = self.state();
        let history = state.lifecycle.history();
        history.in_force().map_or_else(|| Provenance::source(config), |entry| Provenance::kept(entry, history, config))
    }
}

/// Tells of settings that are for other policies.
pub(super) fn tell_left_out(policy: &str, standing: &Provenance, left_out: &[String]) {
    let Some(words) = left_out_words(left_out) else { return };
    match standing.is_source {
        // Tables of policies that are still to come are nothing to worry about.
        true => tracing::info!(policy, left_out = left_out.join(", "), "{words}"),
        false => tracing::warn!(policy, left_out = left_out.join(", "), "{words}"),
    }
}
