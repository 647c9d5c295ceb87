//! Entries become backends: those with one key at one address are one.

use std::collections::BTreeMap;

use super::entry::{Placed, Read, Target};
use super::report::{ImportReport, Origin};

/// The timeout's name in the report.
const TIMEOUT: &str = "timeout in ms";

/// A backend with its models and their prices.
pub(super) struct Made {
    pub(super) id: String,
    pub(super) target: Target,
    pub(super) limits: BTreeMap<&'static str, u64>,
    pub(super) total_ms: Option<u64>,
    pub(super) models: BTreeMap<String, String>,
    pub(super) prices: BTreeMap<String, (f64, f64)>,
    /// Entries that it was made from.
    origins: Vec<Origin>,
    /// Entry that each limit and the timeout come from.
    limit_origins: BTreeMap<&'static str, Origin>,
}

/// Backends made of the entries so far, in their order.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) backends: Vec<Made>,
}

impl Merged {
    /// Adds what an entry serves as `asked`: to a backend with the same key and address that does not serve it yet, else as a
    /// new one.
    pub(super) fn add(&mut self, entry: &Placed, asked: &str, sent: &str, report: &mut ImportReport) {
        let Read { target, price, .. } = &entry.read;
        let has_room = |made: &Made| made.target == *target && made.models.get(asked).is_none_or(|has| has == sent);
        let index = match self.backends.iter().position(has_room) {
            Some(index) => {
                self.backends[index].take(entry, report);
                index
            }
            None => {
                self.tell_of_shared_key(entry, report);
                self.backends.push(Made::new(self.free_id(target), entry));
                self.backends.len() - 1
            }
        };
        let made = &mut self.backends[index];
        made.models.insert(asked.to_owned(), sent.to_owned());
        made.prices.extend(price.map(|price| (sent.to_owned(), price)));
        let (id, tier) = (&made.id, target.tier);
        report.of(&entry.origin, format!("{asked:?} is sent to {id} ({tier}) as {sent:?}"));
    }

    fn free_id(&self, target: &Target) -> String {
        let suffix = if target.tier == "fallback" { "-fallback" } else { "" };
        let stem = format!("{}{suffix}", target.provider.replace('_', "-"));
        let mut numbers = (1..).map(|number| format!("{stem}-{number}"));
        numbers.find(|id| self.backends.iter().all(|made| made.id != *id)).unwrap_or(stem)
    }

    /// A key that is in another tier, or serves the same name as another model, cannot be one backend.
    fn tell_of_shared_key(&self, entry: &Placed, report: &mut ImportReport) {
        let target = &entry.read.target;
        let shares = |made: &&Made| {
            !target.api_key.is_empty()
                && made.target.api_key == target.api_key
                && made.target.base_url == target.base_url
        };
        if let Some(other) = self.backends.iter().find(shares) {
            let has_limits = !entry.read.limits.is_empty() || !other.limits.is_empty();
            let count = if has_limits {
                ": their limits are counted apart, lower them if the provider counts them together"
            } else {
                ""
            };
            let why = if other.target.tier != target.tier {
                format!("it is a {}", target.tier)
            } else if other.target.headers != target.headers {
                "it has other headers".to_owned()
            } else {
                "it serves the same name as another model".to_owned()
            };
            let what = format!("it has the key of {}, and is a backend of its own, because {why}{count}", other.id);
            report.of(&entry.origin, what);
        }
    }
}

impl Made {
    fn new(id: String, entry: &Placed) -> Self {
        let Read { target, limits, total_ms, .. } = &entry.read;
        let names = limits.keys().copied().chain(total_ms.map(|_| TIMEOUT));
        Self {
            id,
            limit_origins: names.map(|name| (name, entry.origin.clone())).collect(),
            target: target.clone(),
            limits: limits.clone(),
            total_ms: *total_ms,
            models: BTreeMap::new(),
            prices: BTreeMap::new(),
            origins: vec![entry.origin.clone()],
        }
    }

    /// One key has one limit: of two that differ the smaller is kept, and of two timeouts the longer. Where one entry of two has
    /// none, the other's holds for both, and that is told.
    fn take(&mut self, entry: &Placed, report: &mut ImportReport) {
        // Again, under another name.
        if self.origins.iter().any(|origin| origin.index == entry.origin.index) {
            return;
        }
        let Some(first) = self.origins.first() else { return };
        let before = if self.origins.len() > 1 { format!("{first} and those after it") } else { first.to_string() };
        let (id, origins) = (&self.id, &mut self.limit_origins);
        let mut settle = |name: &'static str, ours: Option<u64>, theirs: Option<u64>, kept: fn(u64, u64) -> u64| {
            let (value, what) = match (ours.zip(origins.get(name)), theirs) {
                (Some((ours, of)), Some(theirs)) if ours != theirs => {
                    (kept(ours, theirs), format!("{name} is {theirs} here and {ours} in {of}"))
                }
                (Some((ours, of)), None) => (ours, format!("{name} is {ours} in {of}, and there is none here")),
                (None, Some(theirs)) => (theirs, format!("{name} is {theirs} here, and there is none in {before}")),
                (Some(_), Some(_)) | (None, None) => return ours,
            };
            report.of(&entry.origin, format!("{what}; they have one key, and {id} has {value}"));
            if ours != Some(value) {
                origins.insert(name, entry.origin.clone());
            }
            Some(value)
        };
        for name in ["rpm", "tpm", "max_concurrency", "weight"] {
            let kept = if name == "weight" { u64::max } else { u64::min };
            let settled = settle(name, self.limits.get(name).copied(), entry.read.limits.get(name).copied(), kept);
            self.limits.extend(settled.map(|value| (name, value)));
        }
        self.total_ms = settle(TIMEOUT, self.total_ms, entry.read.total_ms, u64::max);
        self.origins.push(entry.origin.clone());
    }
}
