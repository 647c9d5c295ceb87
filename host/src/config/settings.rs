//! `[policy.settings]`: whose each of them is.
//!
//! Plain keys belong to the policy that the configuration names: `policy.file`, or the default policy. A table
//! `[policy.settings.NAME]` belongs to the policy NAME: `default`, the name in a component (the project's, as `policy build` writes
//! it), or the name of its file without `.wasm`. Another table may be a setting of the policy that the configuration names, or
//! belong to a policy that is still to come: it is offered, and left out where the policy does not know it.

use std::path::Path;

use serde_json::{Map, Value};

use super::checked::{Policy, Shadow};
use crate::policy::SettingsOffer;

/// The name of the policy inside the binary.
pub const DEFAULT_POLICY: &str = "default";

/// Stands among the settings of a policy, and is read by the host.
const EMERGENCY_FRACTION: &str = "emergency_rpm_fraction";

type Settings = Map<String, Value>;

impl Policy {
    /// What the policy is offered that the configuration names; `own` is the name in the component.
    pub fn offer(&self, own: Option<&str>) -> SettingsOffer {
        let names = names(own, self.file.as_deref(), self.file.is_none());
        let plain = self.plain(&names);
        let section = section(&self.settings, &names).cloned().unwrap_or_default();
        self.finished(SettingsOffer::with_foreign_tables(plain).and(&section))
    }

    /// What another policy is offered that has these names: its own table, or else what it knows of the plain keys. One of the
    /// configured policy's name is another version of that: it is offered what is that one's, as far as it knows it.
    pub fn offer_for_other(&self, names: &[&str]) -> SettingsOffer {
        let configured = config_name(self.file.as_deref());
        let own = section(&self.settings, names);
        self.finished(if configured.is_some_and(|name| names.contains(&name)) {
            let plain = SettingsOffer::shared(&Value::Object(self.plain(names)).to_string());
            plain.and(&own.cloned().unwrap_or_default())
        } else {
            own.map_or_else(|| SettingsOffer::shared(&keys_only(&self.settings)), |own| SettingsOffer::own(own.clone()))
        })
    }

    /// What a policy is offered that came with settings.
    pub fn offer_of(&self, settings: &Settings) -> SettingsOffer {
        self.finished(SettingsOffer::own(settings.clone()))
    }

    /// The share of a backend's rate that the emergency lane may use, where it is set.
    pub fn emergency_fraction(&self) -> Option<f64> {
        let own = names(None, self.file.as_deref(), self.file.is_none());
        let sections = [own.as_slice(), &[DEFAULT_POLICY]].map(|names| section(&self.settings, names));
        let places = [Some(&self.settings)].into_iter().chain(sections).flatten();
        places.filter_map(|settings| settings.get(EMERGENCY_FRACTION)).find_map(Value::as_f64)
    }

    /// The keys that are no table of a policy that is known.
    fn plain(&self, names: &[&str]) -> Settings {
        let configured = self.file.as_deref().and_then(stem);
        let shadow = self.shadow.as_ref().and_then(|shadow| stem(&shadow.file));
        let known: Vec<&str> =
            [Some(DEFAULT_POLICY), configured, shadow].into_iter().flatten().chain(names.iter().copied()).collect();
        plain(&self.settings, &known)
    }

    fn finished(&self, offer: SettingsOffer) -> SettingsOffer {
        offer.without_blame_for(EMERGENCY_FRACTION).with_fallback(default_settings(&self.settings))
    }
}

impl Shadow {
    /// What it is offered; `own` is the name in the component.
    pub fn offer(&self, own: Option<&str>) -> SettingsOffer {
        let names = names(own, Some(&self.file), false);
        let offer = match (&self.own_settings, section(&self.settings, &names)) {
            (Some(settings), _) | (None, Some(settings)) => SettingsOffer::own(settings.clone()),
            (None, None) => SettingsOffer::shared(&keys_only(&self.settings)),
        };
        offer.without_blame_for(EMERGENCY_FRACTION).with_fallback(default_settings(&self.settings))
    }
}

/// The names a policy goes by: the one in its component before that of its file.
pub fn names<'a>(own: Option<&'a str>, file: Option<&'a Path>, is_default: bool) -> Vec<&'a str> {
    let default = is_default.then_some(DEFAULT_POLICY);
    own.into_iter().chain(file.and_then(stem)).chain(default).collect()
}

/// The table of a policy that goes by one of these names.
pub fn section<'s>(settings: &'s Settings, names: &[&str]) -> Option<&'s Settings> {
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

/// The name of the policy that a configuration names.
fn config_name(file: Option<&Path>) -> Option<&str> {
    file.map_or(Some(DEFAULT_POLICY), stem)
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
    use crate::config::{Config, parse};

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
        let policy = config(&format!("[policy]\nfile = \"policy.wasm\"\n{SHARED}")).policy;
        assert_eq!(policy.offer_for_other(&["mine"]).json(), r#"{"own":3}"#);
        assert_eq!(policy.offer_for_other(&["default"]).json(), r#"{"primary_wait_ms":2}"#);
        assert_eq!(policy.offer_for_other(&["other"]).json(), r#"{"plain":1}"#, "and no table");
        let version = policy.offer_for_other(&["policy"]).json().to_owned();
        assert_eq!(
            version, r#"{"mine":{"own":3},"plain":1,"weights":{"a":4}}"#,
            "another version of the configured one"
        );
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
        ] {
            assert_eq!(config(text).policy.emergency_fraction(), fraction, "{text}");
        }
    }
}
