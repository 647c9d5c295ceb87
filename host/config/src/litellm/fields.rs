//! A YAML map that remembers which keys were read, so that the others can be reported.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Rest;
use crate::overlay::Env;

/// Sections with the names they are reported by, and what became of each key.
pub(super) struct Fields<'y> {
    sections: Vec<(&'static str, &'y Rest)>,
    env: &'y dyn Env,
    /// By the whole name: nothing where the value was taken over, else why it was not.
    seen: BTreeMap<String, Option<String>>,
}

impl<'y> Fields<'y> {
    pub(super) fn new(sections: Vec<(&'static str, &'y Rest)>, env: &'y dyn Env) -> Self {
        Self { sections, env, seen: BTreeMap::new() }
    }

    /// A value; none where it is missing or null. Whoever uses it says so: [`Self::took`].
    pub(super) fn get(&self, section: &str, key: &str) -> Option<&'y Value> {
        let (_, map) = self.sections.iter().find(|(name, _)| *name == section)?;
        map.get(key).filter(|value| !value.is_null())
    }

    /// This key was carried over, or has lines of its own.
    pub(super) fn took(&mut self, section: &str, key: &str) {
        self.seen.insert(format!("{section}{key}"), None);
    }

    /// This key was not carried over, and why.
    pub(super) fn refused(&mut self, section: &str, key: &str, why: impl Into<String>) {
        self.seen.insert(format!("{section}{key}"), Some(why.into()));
    }

    /// Takes a text value.
    pub(super) fn text(&mut self, section: &str, key: &str) -> Option<String> {
        let value = self.get(section, key)?;
        match value.as_str() {
            Some(text) => {
                self.took(section, key);
                Some(text.to_owned())
            }
            None => {
                self.refused(section, key, "it is no text");
                None
            }
        }
    }

    /// A number from the first of these places that has one of the kind that is wanted. It may be written as text, or be in the
    /// environment.
    pub(super) fn number(
        &mut self,
        places: &[(&str, &str)],
        wanted: &str,
        is_wanted: impl Fn(f64) -> bool,
    ) -> Option<f64> {
        let mut found: Option<(f64, String)> = None;
        for (section, key) in places {
            let Some(value) = self.get(section, key) else { continue };
            let said = self.resolved(value).map(|number| number.filter(|number| is_wanted(*number)));
            match (said, &found) {
                (Err(why), _) => self.refused(section, key, why),
                (Ok(None), _) => self.refused(section, key, format!("it is not {wanted}")),
                (Ok(Some(number)), Some((first, at))) if *first != number => {
                    let why = format!("{at} comes before it");
                    self.refused(section, key, why);
                }
                (Ok(Some(number)), _) => {
                    found.get_or_insert_with(|| (number, format!("{section}{key}")));
                    self.took(section, key);
                }
            }
        }
        found.map(|(number, _)| number)
    }

    fn resolved(&self, value: &Value) -> Result<Option<f64>, String> {
        let text = value.as_str().map(str::trim);
        let Some(name) = text.and_then(|text| text.strip_prefix("os.environ/")) else { return Ok(plain(value)) };
        match self.env.var(name) {
            Some(text) => Ok(text.trim().parse().ok().filter(|number: &f64| number.is_finite())),
            None => Err(format!("it is in {name}, which is not set here")),
        }
    }

    /// Everything that was not carried over, and why where that is known.
    pub(super) fn left(&self) -> Vec<(String, Option<String>)> {
        let mut left = Vec::new();
        for (section, map) in &self.sections {
            for key in map.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key) {
                let name = format!("{section}{key}");
                match self.seen.get(&name) {
                    Some(None) => {}
                    Some(Some(why)) => left.push((name, Some(why.clone()))),
                    None => left.push((name, None)),
                }
            }
        }
        // A part of a value, such as one header of several.
        let parts = self.seen.iter().filter_map(|(name, why)| Some((name.clone(), why.clone()?)));
        let more: Vec<_> = parts.filter(|(name, _)| left.iter().all(|(has, _)| has != name)).collect();
        left.extend(more.into_iter().map(|(name, why)| (name, Some(why))));
        left
    }
}

/// A number, also when it is written as text.
fn plain(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number| number.is_finite())
}

/// A number that stands there itself.
pub(super) fn number(map: &Rest, key: &str) -> Option<f64> {
    plain(map.get(key)?)
}
