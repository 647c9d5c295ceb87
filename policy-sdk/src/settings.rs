//! Reading `[policy.settings]`.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Stands among the policy's settings, but the host reads it: the emergency lane's share of a backend's rate.
const HOSTS_OWN: &str = "emergency_rpm_fraction";

/// Reads the settings into a type; empty text is no settings. The error names the key that is wrong. The host's own
/// `emergency_rpm_fraction` is left out.
///
/// ```
/// use pointsman_sdk::settings;
///
/// #[derive(Debug, PartialEq, serde::Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct Settings {
///     /// Longest wait, in ms.
///     wait_ms: u32,
/// }
///
/// impl Default for Settings {
///     fn default() -> Self {
///         Self { wait_ms: 2_000 }
///     }
/// }
///
/// assert_eq!(settings::parse(""), Ok(Settings::default()));
/// assert_eq!(settings::parse(r#"{"wait_ms": 5}"#), Ok(Settings { wait_ms: 5 }));
/// let wrong = settings::parse::<Settings>(r#"{"wait_ms": "long"}"#).unwrap_err();
/// assert_eq!(wrong, "setting `wait_ms`: invalid type: string \"long\", expected u32");
/// ```
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    let text = if json.trim().is_empty() { "{}" } else { json };
    let mut object: Map<String, Value> =
        serde_json::from_str(text).map_err(|e| format!("the policy's settings must be a JSON object: {e}"))?;
    object.remove(HOSTS_OWN);
    let settings = Value::Object(object);
    T::deserialize(&settings).map_err(|error| match guilty::<T>(&settings) {
        Some((key, error)) => format!("setting `{key}`: {error}"),
        None => format!("the policy's settings: {error}"),
    })
}

/// The first key that is wrong also when it stands alone, and why; serde's errors do not say which key they are about.
fn guilty<T: DeserializeOwned>(settings: &Value) -> Option<(&str, serde_json::Error)> {
    settings.as_object()?.iter().find_map(|(key, value)| {
        let alone = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
        let error = T::deserialize(&alone).err()?;
        // That the others are missing is not its fault.
        (!error.to_string().starts_with("missing field")).then_some((key.as_str(), error))
    })
}

/// Checks a number against its range; the error names the key and the range.
///
/// ```
/// use pointsman_sdk::settings::within;
///
/// assert!(within("share", 0.5, 0.0..=1.0).is_ok());
/// assert_eq!(within("waits", 2_000, 0..=1_000).unwrap_err(), "setting `waits`: 2000 is not within 0 to 1000");
/// ```
pub fn within<T: PartialOrd + Display>(key: &str, value: T, range: RangeInclusive<T>) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!("setting `{key}`: {value} is not within {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        count: u32,
        share: Option<f64>,
    }

    #[test]
    fn the_guilty_key_is_named_beside_innocent_ones() {
        for (text, word) in [
            (r#"{"count": 1, "share": "half"}"#, "setting `share`: invalid type"),
            (r#"{"count": -1, "share": 0.5}"#, "setting `count`: invalid value"),
            (r#"{"count": 1, "shares": 0.5}"#, "setting `shares`: unknown field `shares`, expected `count` or `share`"),
            (r#"{"share": 0.5}"#, "the policy's settings: missing field `count`"),
            ("[1]", "must be a JSON object"),
            ("{", "must be a JSON object"),
        ] {
            let error = parse::<Strict>(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn what_the_host_reads_there_is_no_policys_mistake() {
        let text = r#"{"count": 1, "emergency_rpm_fraction": 0.2}"#;
        assert_eq!(parse(text), Ok(Strict { count: 1, share: None }));
    }
}
