//! The name and the settings that come with an uploaded policy.

use serde_json::{Map, Value};

/// The longest settings, in bytes of JSON.
const MAX_SETTINGS_BYTES: usize = 48 << 10;

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Options that came with a component. They stay with that revision: a restart or a rollback brings them back with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UploadOptions {
    /// Name by which it gets `[policy.settings.NAME]`.
    pub name: Option<String>,
    /// Settings of its own; none: those of the configuration.
    pub settings: Option<Map<String, Value>>,
    /// Settings in the place of those that the configuration has for it. Once it is judged they are part of `settings`, and never
    /// kept apart.
    pub set: Map<String, Value>,
}

impl UploadOptions {
    /// Reads a name, and settings as a JSON object.
    ///
    /// # Errors
    /// In a sentence, which of the two is none and what to write.
    pub fn read(name: Option<&str>, settings: Option<&str>) -> Result<Self, String> {
        if let Some(name) = name.filter(|name| name.is_empty() || name.len() > MAX_NAME_BYTES) {
            return Err(format!("name: `{}` is no name; give 1 to {MAX_NAME_BYTES} bytes", short(name)));
        }
        let settings = settings.map(|text| object("settings", text)).transpose()?;
        Self { name: name.map(str::to_owned), settings, set: Map::new() }.bounded("settings")
    }

    /// The same with single settings, a JSON object, over the others.
    ///
    /// # Errors
    /// In a sentence, why it is none and what to write.
    pub fn with_set(mut self, set: Option<&str>) -> Result<Self, String> {
        let set = set.map(|text| object("set", text)).transpose()?.unwrap_or_default();
        match &mut self.settings {
            Some(settings) => settings.extend(set),
            None => self.set = set,
        }
        self.bounded("set")
    }

    /// The same, where single settings were given, with all that it was told, as JSON.
    ///
    /// # Errors
    /// In a sentence, when these are more than a start would read again.
    pub fn settled(mut self, told: &str) -> Result<Self, String> {
        if !self.set.is_empty() {
            self.settings = serde_json::from_str(told).ok();
            self.set = Map::new();
        }
        self.bounded("set")
    }

    /// Fails where the settings are longer than those that are read back from the store.
    fn bounded(self, name: &str) -> Result<Self, String> {
        match self.settings_json() {
            Some(json) if json.len() > MAX_SETTINGS_BYTES => Err(format!(
                "{name}: all its settings together have {} bytes, and a policy is kept with at most {MAX_SETTINGS_BYTES}; give fewer, or put \
                 them into the configuration",
                json.len()
            )),
            Some(_) | None => Ok(self),
        }
    }

    /// As the store keeps the settings.
    pub fn settings_json(&self) -> Option<String> {
        self.settings.as_ref().map(|settings| Value::Object(settings.clone()).to_string())
    }
}

fn object(name: &str, text: &str) -> Result<Map<String, Value>, String> {
    if text.len() > MAX_SETTINGS_BYTES {
        return Err(format!("{name}: more than {MAX_SETTINGS_BYTES} bytes"));
    }
    serde_json::from_str(text).map_err(|error| {
        format!(
            "{name}: `{}` is no JSON object ({error}); write {name}={{\"KEY\":VALUE}}, percent-encoded: ?{name}=%7B%22KEY%22%3A1%7D",
            short(text)
        )
    })
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(60)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_and_no_settings_is_refused_with_what_to_write() {
        let read = UploadOptions::read(Some("mine"), Some(r#"{"a":[1,{"b":2}]}"#)).unwrap();
        assert_eq!(
            (read.name.as_deref(), read.settings_json().as_deref()),
            (Some("mine"), Some(r#"{"a":[1,{"b":2}]}"#))
        );
        assert_eq!(UploadOptions::read(None, None), Ok(UploadOptions::default()));
        let set = UploadOptions::default().with_set(Some(r#"{"a":1}"#)).unwrap();
        assert_eq!((set.settings.is_none(), set.set["a"].as_i64()), (true, Some(1)));
        assert_eq!(set.settled(r#"{"a":1,"b":2}"#).unwrap().settings_json().as_deref(), Some(r#"{"a":1,"b":2}"#));
        let over = UploadOptions::read(None, Some(r#"{"a":0,"b":2}"#)).unwrap().with_set(Some(r#"{"a":1}"#)).unwrap();
        assert_eq!(over.settings_json().as_deref(), Some(r#"{"a":1,"b":2}"#), "over those that came with it");
        assert!(
            UploadOptions::default().with_set(Some("a=1")).unwrap_err().starts_with("set: `a=1` is no JSON object")
        );
        for (name, settings, words) in [
            (Some(""), None, "is no name"),
            (Some(&*"n".repeat(65)), None, "1 to 64 bytes"),
            (None, Some("[1]"), "is no JSON object"),
            (None, Some("a=1"), "?settings=%7B%22KEY%22%3A1%7D"),
            (None, Some(&*format!("{{\"a\":\"{}\"}}", "x".repeat(50_000))), "more than"),
        ] {
            let why = UploadOptions::read(name, settings).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn settings_that_a_start_would_not_read_again_are_refused() {
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_SETTINGS_BYTES - 20));
        let with = |set: &str| UploadOptions::default().with_set(Some(set));
        let told = format!(r#"{{"a":"{}","b":"{}"}}"#, "x".repeat(MAX_SETTINGS_BYTES - 20), "y".repeat(20));
        let why = with(r#"{"b":1}"#).unwrap().settled(&told).unwrap_err();
        assert!(why.starts_with("set: all its settings together have 49167 bytes"), "{why}");
        let merged = UploadOptions::read(None, Some(&large)).unwrap().with_set(Some(r#"{"b":"yyyyyyyyyyyyyyyy"}"#));
        assert!(merged.is_err(), "also over settings of its own");
        let kept = with(r#"{"b":1}"#).unwrap().settled(&large).unwrap();
        let read = UploadOptions::read(None, kept.settings_json().as_deref());
        assert_eq!(read, Ok(kept), "what is kept is read again");
        let numbers = format!("[{}]", vec!["1e15"; 9_000].join(","));
        let written_out = UploadOptions::read(None, Some(&format!(r#"{{"a":{numbers}}}"#)));
        assert!(written_out.is_err(), "numbers are kept written out");
    }
}
