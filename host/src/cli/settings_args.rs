//! Settings that a command is given for the policy it tries.

use std::path::{Path, PathBuf};

use pointsman_engine::plain_file;
use pointsman_lab::settings::GivenSettings;
use serde_json::{Map, Value};

/// A larger file of settings is none, in bytes.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;

/// Arguments that give a policy settings: `--set` and `--settings`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct SettingsArgs {
    /// A setting of the policy, in the place of the one that it would have; may be given several times. VALUE is JSON, or else a
    /// text.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The policy's settings, a file of TOML or JSON, in the place of those that it would have.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

impl SettingsArgs {
    /// Reads them.
    ///
    /// # Errors
    /// Returns the error for an argument without a value, with the form to write.
    pub(super) fn read(&self) -> Result<GivenSettings, String> {
        let file = self.settings.as_deref().map(of_file).transpose()?;
        let set = self.set.iter().map(|setting| {
            let no_value = || format!("--set {setting} names no value; write --set KEY=VALUE");
            let (key, value) = setting.split_once('=').ok_or_else(no_value)?;
            Ok((key.trim().to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
        });
        Ok(GivenSettings::new(file, set.collect::<Result<_, String>>()?))
    }

    /// Returns true if any are given.
    pub(super) fn is_any(&self) -> bool {
        !self.set.is_empty() || self.settings.is_some()
    }

    /// As a command line shows them; none: none is given.
    pub(super) fn words(&self) -> Option<String> {
        let file = self.settings.iter().map(|file| file.display().to_string());
        let all: Vec<String> = file.chain(self.set.iter().cloned()).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

fn of_file(file: &Path) -> Result<Map<String, Value>, String> {
    let shown = file.display();
    let text =
        plain_file::read_text(file, MAX_SETTINGS_BYTES).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let is_json = text.trim_start().starts_with(['{', '[']);
    let read = match is_json {
        true => serde_json::from_str(&text).map_err(|error| error.to_string()),
        false => toml::from_str(&text).map_err(|error| error.message().to_owned()),
    };
    let words = "write the keys as they would stand under [policy.settings], as TOML or as a JSON object";
    read.map_err(|error| format!("{shown} has no settings: {error}; {words}"))
}

#[cfg(test)]
mod tests {
    use pointsman_engine::SettingsOffer;

    use super::*;

    #[test]
    fn settings_are_read_from_both_kinds_of_file_and_from_the_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            Some(dir.path().join(name))
        };
        let toml =
            SettingsArgs { set: vec!["b=[1]".into(), "c=plain".into()], settings: file("a.toml", "a = 1\nb = 2\n") };
        let given = toml.read().unwrap();
        let offered = given.over(SettingsOffer::shared(r#"{"z":0}"#));
        assert_eq!(offered.json(), r#"{"a":1,"b":[1],"c":"plain"}"#);
        let json = SettingsArgs { set: Vec::new(), settings: file("a.json", r#"{"a": {"b": 1}}"#) };
        assert_eq!(json.read().unwrap().parts().0.unwrap()["a"]["b"], 1);
        let set = SettingsArgs { set: vec!["a=1".into()], settings: None }.read().unwrap();
        assert_eq!(set.over(SettingsOffer::shared(r#"{"z":0}"#)).json(), r#"{"a":1,"z":0}"#);
        assert_eq!(SettingsArgs::default().read().unwrap().parts(), (None, None));
        for (args, words) in [
            (SettingsArgs { set: vec!["a".into()], settings: None }, "--set KEY=VALUE"),
            (SettingsArgs { set: vec![], settings: file("b.json", "[1]") }, "a JSON object"),
            (SettingsArgs { set: vec![], settings: file("b.toml", "a = ") }, "as TOML"),
            (SettingsArgs { set: vec![], settings: Some(dir.path().join("none")) }, "cannot read"),
        ] {
            let why = args.read().unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
