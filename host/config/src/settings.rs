//! `[policy.settings]`: whose each of them is.
//!
//! Plain keys belong to the policy that the configuration names: `policy.file`, or the default policy. A table
//! `[policy.settings.NAME]` belongs to the policy NAME: `default`, the name in a component (the project's, as `policy build` writes
//! it), or the name of its file without `.wasm`. Another table may be a setting of the policy that the configuration names, or
//! belong to a policy that is still to come: it is offered, and left out where the policy does not know it.

use std::path::{Path, PathBuf};

use pointsman_engine::{EngineLimits, SettingsOffer, name_of, plain_file};
use serde_json::{Map, Value};

use super::checked::{Policy, Shadow};

/// The name of the policy inside the binary.
pub const DEFAULT_POLICY: &str = "default";

/// Stands among the settings of a policy, and is read by the host.
const EMERGENCY_FRACTION: &str = "emergency_rpm_fraction";

type Settings = Map<String, Value>;

/// `[policy.settings]`, and the policies that the configuration names.
#[derive(Clone, Debug, Default)]
pub struct PolicySettings {
    /// Settings as written in the file.
    pub settings: Settings,
    /// The policy's file; none: the embedded policy.
    pub file: Option<PathBuf>,
    /// The name in that file's component.
    pub own_name: Option<String>,
    /// Component file of the shadow policy.
    pub shadow_file: Option<PathBuf>,
}

impl PolicySettings {
    /// Returns the settings for a policy with one of these names, if a table of such a name exists.
    pub fn offer_with_table(&self, names: &[&str]) -> Option<SettingsOffer> {
        section(&self.settings, names)?;
        let Self { settings, file, own_name, shadow_file } = self;
        let of = (file.as_deref(), own_name.as_deref(), shadow_file.as_deref());
        Some(Owners { settings, file: of.0, own_name: of.1, shadow_file: of.2 }.offer_for_other(names))
    }
}

impl Policy {
    /// Returns the settings for the policy that the configuration names; `own` is the name in the component.
    pub fn offer(&self, own: Option<&str>) -> SettingsOffer {
        let owners = self.owners();
        let names = names(own.or(owners.own_name), owners.file, owners.file.is_none());
        let section = section(&self.settings, &names).cloned().unwrap_or_default();
        finished(SettingsOffer::with_foreign_tables(owners.plain(&names)).and(&section), &self.settings)
    }

    /// Returns the settings for another policy with one of these names: its own table, or else the plain keys that it
    /// knows. A policy with the configured policy's name is another version of it, and gets that one's settings as
    /// far as it knows them.
    pub fn offer_for_other(&self, names: &[&str]) -> SettingsOffer {
        self.owners().offer_for_other(names)
    }

    /// Returns the settings for a policy that came with its own.
    pub fn offer_of(&self, settings: &Settings) -> SettingsOffer {
        finished(SettingsOffer::own(settings.clone()), &self.settings)
    }

    /// The offer to the shadow policy; `own` is the name in its component. A new build of the configured policy is a version of it,
    /// and is offered the settings of that one.
    pub fn offer_to_shadow(&self, shadow: &Shadow, own: Option<&str>) -> SettingsOffer {
        match &shadow.own_settings {
            Some(settings) => self.offer_of(settings),
            None => self.offer_for_other(&names(own, Some(&shadow.file), false)),
        }
    }

    /// The share of a backend's rate that the emergency lane may use, where it is set: first as the policy is told it that the
    /// configuration names.
    pub fn emergency_fraction(&self) -> Option<f64> {
        let own = self.owners().configured();
        let sections = [own.as_slice(), &[DEFAULT_POLICY]].map(|names| section(&self.settings, names));
        let places = [sections[0], Some(&self.settings), sections[1]].into_iter().flatten();
        places.filter_map(|settings| settings.get(EMERGENCY_FRACTION)).find_map(Value::as_f64)
    }

    fn owners(&self) -> Owners<'_> {
        let shadow_file = self.shadow.as_ref().map(|shadow| &*shadow.file);
        let (file, own_name) = (self.file.as_deref(), self.own_name.as_deref());
        Owners { settings: &self.settings, file, own_name, shadow_file }
    }
}

/// The settings, and the names of those whose they may be.
struct Owners<'a> {
    settings: &'a Settings,
    file: Option<&'a Path>,
    own_name: Option<&'a str>,
    shadow_file: Option<&'a Path>,
}

impl<'a> Owners<'a> {
    fn offer_for_other(&self, names: &[&str]) -> SettingsOffer {
        let offer = if self.is_configured(names) {
            let all: Vec<&str> = names.iter().copied().chain(self.configured()).collect();
            let plain = SettingsOffer::shared(&Value::Object(self.plain(&all)).to_string());
            plain.and(&section(self.settings, &all).cloned().unwrap_or_default())
        } else {
            let own = section(self.settings, names);
            own.map_or_else(|| SettingsOffer::shared(&keys_only(self.settings)), |own| SettingsOffer::own(own.clone()))
        };
        finished(offer, self.settings)
    }

    /// The names of the policy that the configuration names.
    fn configured(&self) -> Vec<&'a str> {
        names(self.own_name, self.file, self.file.is_none())
    }

    /// Returns true if a policy with these names has one of the configured policy's. A component's own name counts
    /// before the name of its file, which is often just policy.wasm.
    fn is_configured(&self, names: &[&str]) -> bool {
        let known = self.configured();
        match self.own_name {
            Some(own) => names.contains(&own) || names.first().is_some_and(|name| known.contains(name)),
            None => names.iter().any(|name| known.contains(name)),
        }
    }

    /// The keys that are no table of a policy that is known.
    fn plain(&self, names: &[&str]) -> Settings {
        let shadow = self.shadow_file.and_then(stem);
        let others = [Some(DEFAULT_POLICY), shadow].into_iter().flatten();
        let known: Vec<&str> = others.chain(self.configured()).chain(names.iter().copied()).collect();
        plain(self.settings, &known)
    }
}

/// Reads settings as they were recorded; some of them may be meant for another policy than the one asked now.
pub fn recorded_settings(json: &str) -> SettingsOffer {
    SettingsOffer::shared(json).without_blame_for(EMERGENCY_FRACTION)
}

/// The name in a component's file; none: it has none, or cannot be read.
pub(crate) fn own_name(file: &Path) -> Option<String> {
    let bytes = plain_file::read(file, EngineLimits::MAX_COMPONENT_BYTES as u64).ok()?;
    name_of(&bytes)
}

fn finished(offer: SettingsOffer, settings: &Settings) -> SettingsOffer {
    offer.without_blame_for(EMERGENCY_FRACTION).with_fallback(default_settings(settings))
}

/// The names a policy goes by: the one in its component before that of its file.
pub fn names<'a>(own: Option<&'a str>, file: Option<&'a Path>, is_default: bool) -> Vec<&'a str> {
    let default = is_default.then_some(DEFAULT_POLICY);
    own.into_iter().chain(file.and_then(stem)).chain(default).collect()
}

/// The table of a policy that goes by one of these names.
pub(crate) fn section<'s>(settings: &'s Settings, names: &[&str]) -> Option<&'s Settings> {
    names.iter().find_map(|name| settings.get(*name)?.as_object())
}

/// The default policy's where it decides instead of another: those that it knows of the plain keys, and its own.
fn default_settings(settings: &Settings) -> Settings {
    let mut all = plain(settings, &[DEFAULT_POLICY]);
    all.extend(section(settings, &[DEFAULT_POLICY]).cloned().unwrap_or_default());
    all
}

fn plain(settings: &Settings, names: &[&str]) -> Settings {
    let is_section = |key: &str, value: &Value| value.is_object() && names.contains(&key);
    settings.iter().filter(|(key, value)| !is_section(key, value)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The keys that are no tables, as JSON: a table is for the configured policy, or for the policy of its name.
fn keys_only(settings: &Settings) -> String {
    let keys = settings.iter().filter(|(_, value)| !value.is_object()).map(|(k, v)| (k.clone(), v.clone()));
    Value::Object(keys.collect()).to_string()
}

fn stem(file: &Path) -> Option<&str> {
    file.file_stem()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, parse};

    fn config(policy: &str) -> Config {
        let backend = "[[backend]]\nid = \"a\"\nbase_url = \"http://127.0.0.1:9/v1\"\n";
        parse(&format!("{policy}\n{backend}"), "p.toml", &[]).expect("it is a configuration").config
    }

    const SHARED: &str = "[policy.settings]\nplain = 1\n[policy.settings.default]\nprimary_wait_ms = 2\n[policy.settings.mine]\nown = 3\n\
        [policy.settings.weights]\na = 4\n";

    #[test]
    fn the_configured_policy_has_the_plain_keys_and_its_own_table() {
        let default = config(SHARED).policy;
        assert_eq!(default.offer(None).json(), r#"{"mine":{"own":3},"plain":1,"primary_wait_ms":2,"weights":{"a":4}}"#);
        let mine = config(&format!("[policy]\nfile = \"x/mine.wasm\"\n{SHARED}")).policy;
        assert_eq!(mine.offer(None).json(), r#"{"own":3,"plain":1,"weights":{"a":4}}"#);
        let by_its_component = config(&format!("[policy]\nfile = \"policy.wasm\"\n{SHARED}")).policy;
        assert_eq!(by_its_component.offer(Some("mine")).json(), r#"{"own":3,"plain":1,"weights":{"a":4}}"#);
    }

    #[test]
    fn another_policy_has_its_table_or_what_it_knows_of_the_plain_keys() {
        let mut policy = config(&format!("[policy]\nfile = \"policy.wasm\"\n{SHARED}")).policy;
        assert_eq!(policy.offer_for_other(&["mine"]).json(), r#"{"own":3}"#);
        assert_eq!(policy.offer_for_other(&["default"]).json(), r#"{"primary_wait_ms":2}"#);
        assert_eq!(policy.offer_for_other(&["other"]).json(), r#"{"plain":1}"#, "and no table");
        let version = policy.offer_for_other(&["policy"]).json().to_owned();
        assert_eq!(
            version, r#"{"mine":{"own":3},"plain":1,"weights":{"a":4}}"#,
            "another version of a configured one without a name of its own"
        );
        policy.own_name = Some("mine".to_owned());
        for version in [&["mine"][..], &["mine", "policy"], &["policy"], &["new", "mine"]] {
            let offered = policy.offer_for_other(version).json().to_owned();
            assert_eq!(offered, r#"{"own":3,"plain":1,"weights":{"a":4}}"#, "another version of it: {version:?}");
        }
        let other = policy.offer_for_other(&["other", "policy"]).json().to_owned();
        assert_eq!(other, r#"{"plain":1}"#, "another project's file of the same name");
    }

    #[test]
    fn a_shadow_that_is_a_new_build_of_the_configured_policy_has_its_settings() {
        let shadow = "[policy.shadow]\nfile = \"build/candidate.wasm\"\n";
        let mut policy = config(&format!("[policy]\nfile = \"policy.wasm\"\n{SHARED}{shadow}")).policy;
        policy.own_name = Some("mine".to_owned());
        let offered = |own: &str| policy.offer_to_shadow(policy.shadow.as_ref().unwrap(), Some(own)).json().to_owned();
        assert_eq!(offered("mine"), policy.offer(Some("mine")).json(), "as the policy in force");
        assert_eq!(offered("mine"), r#"{"own":3,"plain":1,"weights":{"a":4}}"#);
        assert_eq!(offered("other"), r#"{"plain":1}"#, "what it knows of the plain keys");
    }

    #[test]
    fn the_default_policy_that_steps_in_has_its_own_over_the_plain_ones() {
        let policy = config(&format!(
            "[policy]\nfile = \"mine.wasm\"\n{}",
            SHARED.replace("plain = 1", "plain = 1\nprimary_wait_ms = 9")
        ))
        .policy;
        let stepping_in = default_settings(&policy.settings);
        assert_eq!((&stepping_in["plain"], &stepping_in["primary_wait_ms"]), (&1.into(), &2.into()));
    }

    #[test]
    fn the_hosts_own_key_is_found_wherever_it_is_meant() {
        for (text, fraction) in [
            ("[policy.settings]\nemergency_rpm_fraction = 0.3\n", Some(0.3)),
            ("[policy.settings.default]\nemergency_rpm_fraction = 0.4\n", Some(0.4)),
            ("[policy]\nfile = \"mine.wasm\"\n[policy.settings.mine]\nemergency_rpm_fraction = 0.5\n", Some(0.5)),
            ("[policy.settings.other]\nemergency_rpm_fraction = 0.6\n", None),
            (
                "[policy.settings]\nemergency_rpm_fraction = 0.3\n[policy.settings.default]\nemergency_rpm_fraction = 0.4\n",
                Some(0.4),
            ),
            (
                "[policy]\nfile = \"mine.wasm\"\n[policy.settings]\nemergency_rpm_fraction = 0.3\n[policy.settings.mine]\nemergency_rpm_fraction = 0.5\n\
                 [policy.settings.default]\nemergency_rpm_fraction = 0.4\n",
                Some(0.5),
            ),
            (
                "[policy]\nfile = \"mine.wasm\"\n[policy.settings]\nemergency_rpm_fraction = 0.3\n\
                 [policy.settings.default]\nemergency_rpm_fraction = 0.4\n",
                Some(0.3),
            ),
        ] {
            assert_eq!(config(text).policy.emergency_fraction(), fraction, "{text}");
        }
        let table = "[policy]\nfile = \"policy.wasm\"\n[policy.settings]\nemergency_rpm_fraction = 0.3\n\
                     [policy.settings.mine]\nemergency_rpm_fraction = 0.5\n";
        let mut by_its_component = config(table).policy;
        by_its_component.own_name = Some("mine".to_owned());
        assert_eq!(by_its_component.emergency_fraction(), Some(0.5));
    }
}
