//! The settings an operator may give in `[policy.settings]`.

use serde_json::{Map, Value};

/// Checked settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The longest single wait, in ms.
    pub primary_wait_ms: u32,
    /// Waits an exchange may have, all lanes together.
    pub primary_wait_max_retries: u32,
    /// Further attempts in a pool after its first.
    pub max_pool_retries: u32,
    /// The longest expected wait, in ms, that a request joins the line for while the primaries are overloaded and a fallback
    /// is ready.
    pub overload_wait_ms: u32,
    /// Share of a backend's rpm that the emergency lane may use; enforced by the host.
    pub emergency_rpm_fraction: f64,
}

impl std::default::Default for Settings {
    fn default() -> Self {
        Self {
            primary_wait_ms: 5_000,
            primary_wait_max_retries: 6,
            max_pool_retries: 3,
            overload_wait_ms: 2_000,
            emergency_rpm_fraction: 0.1,
        }
    }
}

impl Settings {
    /// Reads a JSON object; empty text is an empty object. The error names the key and what to write.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        for (key, value) in &object(json)? {
            settings.set(key, value)?;
        }
        Ok(settings)
    }

    /// Reads what it understands of settings that were written for another policy, and leaves the rest at the default.
    pub fn parse_known(json: &str) -> Self {
        let mut settings = Self::default();
        for (key, value) in &object(json).unwrap_or_default() {
            // An error means that the setting is not ours, or not meant like ours.
            let _ = settings.set(key, value);
        }
        settings
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        match key {
            "primary_wait_ms" => self.primary_wait_ms = whole(key, value, 600_000)?,
            "primary_wait_max_retries" => self.primary_wait_max_retries = whole(key, value, 1_000)?,
            "max_pool_retries" => self.max_pool_retries = whole(key, value, 100)?,
            "overload_wait_ms" => self.overload_wait_ms = whole(key, value, 600_000)?,
            "emergency_rpm_fraction" => self.emergency_rpm_fraction = fraction(key, value)?,
            _ => {
                return Err(format!(
                    "`{key}` is no setting of the default policy; it knows primary_wait_ms, primary_wait_max_retries, \
                     max_pool_retries, overload_wait_ms and emergency_rpm_fraction"
                ));
            }
        }
        Ok(())
    }

    /// Attempts a pool may have.
    pub(crate) fn attempts_per_pool(&self) -> u32 {
        1 + self.max_pool_retries
    }
}

fn object(json: &str) -> Result<Map<String, Value>, String> {
    if json.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(json).map_err(|e| format!("the policy's settings must be a JSON object: {e}"))
}

fn whole(key: &str, value: &Value, most: u32) -> Result<u32, String> {
    match value.as_u64().and_then(|n| u32::try_from(n).ok()) {
        Some(n) if n <= most => Ok(n),
        Some(_) | None => Err(format!("`{key}` must be a whole number from 0 to {most}, not {value}")),
    }
}

fn fraction(key: &str, value: &Value) -> Result<f64, String> {
    match value.as_f64() {
        Some(n) if (0.0..=1.0).contains(&n) => Ok(n),
        Some(_) | None => Err(format!("`{key}` must be a number from 0 to 1, not {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(Settings::parse(""), Ok(Settings::default()));
        assert_eq!(Settings::parse("{}"), Ok(Settings::default()));
    }

    #[test]
    fn every_setting_is_read() {
        let text = r#"{"primary_wait_ms": 100, "primary_wait_max_retries": 2, "max_pool_retries": 0,
            "overload_wait_ms": 300, "emergency_rpm_fraction": 1}"#;
        let expected = Settings {
            primary_wait_ms: 100,
            primary_wait_max_retries: 2,
            max_pool_retries: 0,
            overload_wait_ms: 300,
            emergency_rpm_fraction: 1.0,
        };
        assert_eq!(Settings::parse(text), Ok(expected));
    }

    #[test]
    fn of_foreign_settings_the_known_ones_are_taken() {
        let text = r#"{"primary_wait_ms": 100, "exploration": 0.2, "max_pool_retries": "many"}"#;
        assert_eq!(Settings::parse_known(text), Settings { primary_wait_ms: 100, ..Settings::default() });
        assert_eq!(Settings::parse_known("nonsense"), Settings::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            (r#"{"primary_wait": 1}"#, "`primary_wait`"),
            (r#"{"primary_wait_ms": -1}"#, "`primary_wait_ms`"),
            (r#"{"primary_wait_ms": 600001}"#, "600000"),
            (r#"{"max_pool_retries": "3"}"#, "`max_pool_retries`"),
            (r#"{"primary_wait_max_retries": 1.5}"#, "`primary_wait_max_retries`"),
            (r#"{"emergency_rpm_fraction": 1.01}"#, "`emergency_rpm_fraction`"),
            ("[]", "JSON object"),
            ("{", "JSON object"),
        ] {
            let error = Settings::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
