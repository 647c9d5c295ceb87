//! Settings as they are offered to a component, and which of them it is told.
//!
//! Some of what is offered may be written for another policy. A component that takes all of it is told all of it. One that
//! refuses is tried without the keys that it does not know, and only without those: a key counts as unknown when the component
//! refuses it in the same words under a name that no policy has, and whatever its value is. So a wrong value of a key that it
//! knows stays a refusal, in whatever language the component is written.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

use super::check::LoadError;
use crate::clock::Stopwatch;

/// Times a component is configured to find out which keys it knows; beyond it the refusal stands.
const MAX_TRIALS: usize = 400;

/// So long it is tried at most: a component may take long to start.
const MAX_TRIAL_TIME: Duration = Duration::from_secs(10);

/// More keys that may be another policy's are not tried.
const MAX_FOREIGN: usize = 64;

/// Appended to a key, it makes a name that no policy knows. It is the first printable character after the space, so that the name
/// stays where it was in the order of the keys.
const UNKNOWN: char = '!';

/// Settings that are offered to a component, of which it takes those that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsOffer {
    /// The settings as a JSON object.
    json: String,
    /// Keys that may belong to another policy: left out where the component does not know them.
    foreign: BTreeSet<String>,
    /// The key that the host reads too.
    hosts: Option<&'static str>,
    /// Those of the default policy, which decides where the component fails; none: what it knows of `json`.
    fallback: Option<String>,
}

/// The settings that a component took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AcceptedSettings {
    /// The JSON for `configure`.
    pub(super) json: String,
    /// Keys that it was not told, as it does not know them.
    pub(super) left_out: Vec<String>,
}

impl From<&str> for SettingsOffer {
    fn from(json: &str) -> Self {
        Self { json: json.to_owned(), foreign: BTreeSet::new(), hosts: None, fallback: None }
    }
}

impl From<&String> for SettingsOffer {
    fn from(json: &String) -> Self {
        Self::from(json.as_str())
    }
}

impl From<&SettingsOffer> for SettingsOffer {
    fn from(offer: &SettingsOffer) -> Self {
        offer.clone()
    }
}

impl SettingsOffer {
    /// All of it is for this component: a key that it does not know is an error.
    pub fn own(settings: Map<String, Value>) -> Self {
        Self { json: Value::Object(settings).to_string(), foreign: BTreeSet::new(), hosts: None, fallback: None }
    }

    /// Any of it may be another policy's.
    pub fn shared(json: &str) -> Self {
        let foreign = keys(json).into_iter().map(|(key, _)| key).collect();
        Self { json: json.to_owned(), foreign, hosts: None, fallback: None }
    }

    /// The tables among it may be another policy's.
    pub fn with_foreign_tables(settings: Map<String, Value>) -> Self {
        let foreign = settings.iter().filter(|(_, value)| value.is_object()).map(|(key, _)| key.clone()).collect();
        Self { foreign, ..Self::own(settings) }
    }

    /// With these in the place of others of the same name; they are for this component.
    #[must_use]
    pub fn and(mut self, settings: &Map<String, Value>) -> Self {
        if !settings.is_empty() {
            let mut all: Map<String, Value> = serde_json::from_str(&self.json).unwrap_or_default();
            all.extend(settings.clone());
            self.json = Value::Object(all).to_string();
            self.foreign.retain(|key| !settings.contains_key(key));
        }
        self
    }

    /// With these for the default policy, where it decides instead.
    #[must_use]
    pub fn with_fallback(mut self, settings: Map<String, Value>) -> Self {
        self.fallback = Some(Value::Object(settings).to_string());
        self
    }

    /// This key is the host's: it is left out without a word where the component does not know it.
    #[must_use]
    pub fn without_blame_for(mut self, key: &'static str) -> Self {
        if keys(&self.json).iter().any(|(known, _)| known == key) {
            self.foreign.insert(key.to_owned());
            self.hosts = Some(key);
        }
        self
    }

    /// All that is offered, as JSON.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The default policy's, as JSON.
    pub(super) fn fallback(&self) -> &str {
        self.fallback.as_deref().unwrap_or(&self.json)
    }

    pub(super) fn whole(&self) -> AcceptedSettings {
        AcceptedSettings { json: self.json.clone(), left_out: Vec::new() }
    }

    /// Finds the settings that the component accepts after it refused all of them for this reason; `configure` is tried
    /// with some of them.
    ///
    /// # Errors
    /// The component's refusal, where it is not about a key of another policy.
    pub(super) fn fit(
        &self,
        refusal: LoadError,
        configure: impl Fn(&str) -> Result<(), LoadError>,
    ) -> Result<AcceptedSettings, LoadError> {
        if self.foreign.is_empty() || self.foreign.len() > MAX_FOREIGN || message(&refusal).is_none() {
            return Err(refusal);
        }
        let mut fitting = Fitting { configure, trials: 0, watch: Stopwatch::start() };
        let (mut told, mut refusal) = (keys(&self.json), refusal);
        while let Some(unknown) = fitting.unknown_key(&told, &self.foreign, &refusal) {
            told.remove(unknown);
            match fitting.configure(&told) {
                Ok(()) => return Ok(self.without(told)),
                Err(next) => refusal = next,
            }
        }
        // A component that says the same of everything shows which keys it knows only one by one.
        told.retain(|key| !fitting.is_unknown_alone(key, &self.foreign, &keys(&self.json)));
        fitting.configure(&told).map(|()| self.without(told)).map_err(|_| refusal)
    }

    fn without(&self, told: Keys) -> AcceptedSettings {
        let is_left_out =
            |key: &&String| self.hosts != Some(key.as_str()) && !told.iter().any(|(known, _)| known == *key);
        AcceptedSettings { left_out: self.foreign.iter().filter(is_left_out).cloned().collect(), json: object(&told) }
    }
}

/// A sentence about keys that a policy was offered and does not know; none: there are none.
pub fn left_out_words(keys: &[String]) -> Option<String> {
    let list = keys.join(", ");
    match keys.len() {
        0 => None,
        1 => {
            Some(format!("the setting {list} belongs to another policy: this one does not know it and is not told it"))
        }
        _ => Some(format!(
            "the settings {list} belong to another policy: this one does not know them and is not told them"
        )),
    }
}

/// The key of `settings` that a refusal is about, and the key that may have been meant: the nearest of the names in the message.
pub fn refused_key<'s>(message: &str, settings: &'s Map<String, Value>) -> Option<(&'s str, Option<String>)> {
    let words: Vec<&str> = message.split(|c: char| !is_of_name(c)).filter(|word| !word.is_empty()).collect();
    // Behind it may stand all keys that are known.
    let refused = words.iter().find_map(|word| settings.keys().find(|key| key == word))?;
    let others: BTreeSet<&str> =
        words.into_iter().filter(|word| word.len() > 2 && !settings.contains_key(*word)).collect();
    let distance = |word: &&str| strsim::damerau_levenshtein(refused, word);
    let nearest = others.into_iter().min_by_key(distance);
    let is_near = |word: &&str| {
        distance(word) <= 1 + refused.chars().count() / 4 || (refused.len() > 3 && word.starts_with(refused.as_str()))
    };
    Some((refused, nearest.filter(is_near).map(str::to_owned)))
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Finds keys that a component does not know.
struct Fitting<F> {
    configure: F,
    trials: usize,
    watch: Stopwatch,
}

type Keys = Vec<(String, Value)>;

impl<F: Fn(&str) -> Result<(), LoadError>> Fitting<F> {
    fn configure(&mut self, keys: &Keys) -> Result<(), LoadError> {
        self.trials += 1;
        (self.configure)(&object(keys))
    }

    fn is_over(&self) -> bool {
        self.trials >= MAX_TRIALS || self.watch.elapsed() > MAX_TRIAL_TIME
    }

    /// The refusal's words for these settings; none: they are taken, or it failed otherwise, or there were too many trials.
    fn refusal(&mut self, keys: &Keys) -> Option<String> {
        if self.is_over() {
            return None;
        }
        self.configure(keys).err().as_ref().and_then(message).map(str::to_owned)
    }

    /// The place of a key that this refusal is about, and that the component does not know.
    fn unknown_key(&mut self, told: &Keys, foreign: &BTreeSet<String>, refusal: &LoadError) -> Option<usize> {
        let words = message(refusal)?;
        let is_named = |key: &str| words.contains(key);
        let mut places: Vec<usize> = (0..told.len()).filter(|place| foreign.contains(&told[*place].0)).collect();
        // Mostly the refusal names the key.
        places.sort_by_key(|place| !is_named(&told[*place].0));
        places.into_iter().find(|place| self.is_unknown(told, *place, words))
    }

    /// Returns true if this key is refused beside the keys that belong to no other policy, only because it is unknown.
    fn is_unknown_alone(&mut self, key: &(String, Value), foreign: &BTreeSet<String>, all: &Keys) -> bool {
        if !foreign.contains(&key.0) {
            return false;
        }
        let mut beside: Keys = all.iter().filter(|(known, _)| !foreign.contains(known)).cloned().collect();
        beside.push(key.clone());
        let Some(words) = self.refusal(&beside) else { return false };
        self.is_unknown(&beside, beside.len() - 1, &words)
    }

    /// Returns true if the settings are refused because of this key, whatever its value, as any unknown key would be.
    fn is_unknown(&mut self, told: &Keys, place: usize, words: &str) -> bool {
        let key = told[place].0.clone();
        let mut without = told.clone();
        without.remove(place);
        if self.refusal(&without).as_deref() == Some(words) || self.is_over() {
            return false;
        }
        let mut renamed = told.clone();
        renamed[place].0.push(UNKNOWN);
        let name = renamed[place].0.clone();
        if !self.refusal(&renamed).is_some_and(|other| same(&other.replace(&name, &key), words, &told[place].1)) {
            return false;
        }
        let values = [true.into(), 1.into(), 0.5.into(), "a".into(), Value::Array(Vec::new())];
        values.into_iter().chain([Value::Object(Map::new())]).all(|value| {
            let mut other = told.clone();
            other[place].1 = value.clone();
            // A value that is quoted in the words is none of the words.
            self.refusal(&other).is_some_and(|other| {
                let quoted = told[place].1.to_string();
                same(&other, words, &value) || other.replace(&value.to_string(), &quoted) == words
            })
        })
    }
}

/// The same words, but for a value that may be quoted in either.
fn same(one: &str, other: &str, value: &Value) -> bool {
    one == other || one.replace(&value.to_string(), "") == other.replace(&value.to_string(), "")
}

/// Returns the component's message against its settings.
fn message(error: &LoadError) -> Option<&str> {
    match error {
        LoadError::Refused(words) => Some(words),
        LoadError::Configure(fault) => Some(&fault.message),
        _ => None,
    }
}

/// The keys of a JSON object in their order; none, where it is not one.
fn keys(json: &str) -> Keys {
    serde_json::from_str::<Map<String, Value>>(json).unwrap_or_default().into_iter().collect()
}

fn object(keys: &Keys) -> String {
    let entry = |(key, value): &(String, Value)| format!("{}:{value}", Value::from(key.as_str()));
    format!("{{{}}}", keys.iter().map(entry).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: impl Into<String>) -> LoadError {
        LoadError::Refused(words.into())
    }

    /// Offers all of it as if it were another policy's.
    fn fit(json: &str, policy: impl Fn(&Map<String, Value>) -> Result<(), String>) -> Result<AcceptedSettings, String> {
        let configure = |json: &str| {
            let settings = serde_json::from_str(json).expect("an object is offered");
            policy(&settings).map_err(refused)
        };
        match configure(json) {
            Ok(()) => Ok(SettingsOffer::shared(json).whole()),
            Err(refusal) => {
                SettingsOffer::shared(json).fit(refusal, configure).map_err(|e| message(&e).unwrap().to_owned())
            }
        }
    }

    fn told(json: &str, left_out: &[&str]) -> Result<AcceptedSettings, String> {
        Ok(AcceptedSettings { json: json.to_owned(), left_out: left_out.iter().map(|key| (*key).to_owned()).collect() })
    }

    /// The usual policy: it goes through the keys, and says what is wrong with the first.
    fn careful(settings: &Map<String, Value>) -> Result<(), String> {
        for (key, value) in settings {
            match key.as_str() {
                "wait_ms" if value.as_u64().is_some_and(|ms| ms <= 600) => {}
                "wait_ms" => return Err(format!("`wait_ms` must be a whole number from 0 to 600, not {value}")),
                "mode" if value == "fast" || value == "slow" => {}
                "mode" => return Err("`mode` is \"fast\" or \"slow\"".to_owned()),
                _ => return Err(format!("unknown field `{key}` ({value}), expected `wait_ms` or `mode`")),
            }
        }
        Ok(())
    }

    /// Says the same whatever is wrong.
    fn terse(settings: &Map<String, Value>) -> Result<(), String> {
        careful(settings).map_err(|_| "bad settings".to_owned())
    }

    #[test]
    fn what_another_policy_does_not_know_is_left_out_and_named() {
        for policy in [careful, terse] {
            assert_eq!(fit(r#"{"wait_ms":5}"#, policy), told(r#"{"wait_ms":5}"#, &[]));
            let mixed = r#"{"max_retries":3,"mode":"slow","retries":{"a":1},"wait_ms":5}"#;
            assert_eq!(fit(mixed, policy), told(r#"{"mode":"slow","wait_ms":5}"#, &["max_retries", "retries"]));
            assert_eq!(fit(r#"{"max_retries":3,"wait_ms":5}"#, policy), told(r#"{"wait_ms":5}"#, &["max_retries"]));
        }
    }

    #[test]
    fn a_wrong_value_of_a_key_it_knows_stays_a_refusal() {
        assert_eq!(
            fit(r#"{"max_retries":3,"wait_ms":601}"#, careful).unwrap_err(),
            "`wait_ms` must be a whole number from 0 to 600, not 601"
        );
        assert_eq!(fit(r#"{"max_retries":3,"mode":"quick"}"#, careful).unwrap_err(), "`mode` is \"fast\" or \"slow\"");
        for wrong in [r#"{"wait_ms":601}"#, r#"{"max_retries":3,"other":1,"wait_ms":601}"#] {
            assert_eq!(fit(wrong, terse).unwrap_err(), "bad settings");
        }
    }

    #[test]
    fn what_is_missing_is_no_keys_fault() {
        let demanding = |settings: &Map<String, Value>| match settings.get("must") {
            Some(_) => Ok(()),
            None => Err("missing field `must`".to_owned()),
        };
        assert_eq!(fit(r#"{"max_retries":3}"#, demanding).unwrap_err(), "missing field `must`");
        let strict = |settings: &Map<String, Value>| {
            let unknown = settings.keys().find(|key| *key != "must");
            unknown.map_or_else(|| demanding(settings), |key| Err(format!("unknown field `{key}`")))
        };
        assert_eq!(fit(r#"{"max_retries":3,"must":1}"#, strict), told(r#"{"must":1}"#, &["max_retries"]));
    }

    #[test]
    fn what_is_set_for_it_is_never_left_out() {
        let offer = SettingsOffer::shared(r#"{"max_retries":3}"#).and(&Map::from_iter([("mine".to_owned(), 1.into())]));
        let configure = |json: &str| careful(&serde_json::from_str(json).unwrap()).map_err(refused);
        let refusal = configure(offer.json()).unwrap_err();
        let error = offer.fit(refusal, configure).unwrap_err();
        assert!(error.to_string().contains("unknown field `mine`"), "{error}");
    }

    #[test]
    fn a_hostile_component_ends_the_trials() {
        let count = std::cell::Cell::new(0);
        let configure = |_: &str| {
            count.set(count.get() + 1);
            Err(refused(format!("no {}", count.get())))
        };
        let many: Map<String, Value> = (0..60).map(|n| (format!("key_{n}"), n.into())).collect();
        let offer = SettingsOffer::shared(&Value::Object(many).to_string());
        assert!(offer.fit(refused("no"), configure).is_err());
        assert!(count.get() <= MAX_TRIALS + 1, "{}", count.get());
    }

    #[test]
    fn the_refused_key_and_what_was_meant_are_found_in_the_words() {
        let settings: Map<String, Value> =
            ["primary_wait", "other", "max_pool_retries"].map(|key| (key.to_owned(), 1.into())).into_iter().collect();
        let words = "`primary_wait` is no setting of the default policy; it knows primary_wait_ms, max_pool_retries";
        assert_eq!(refused_key(words, &settings), Some(("primary_wait", Some("primary_wait_ms".to_owned()))));
        assert_eq!(refused_key("setting `other`: too large", &settings), Some(("other", None)));
        assert_eq!(refused_key("I do not like it", &settings), None);
    }
}
