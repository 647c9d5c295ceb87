//! Entries become backends: those with one key at one address are one.

use std::collections::BTreeMap;

use super::entry::{Placed, Read, Target};
use super::report::{Origin, Report};

/// A backend with its models and their prices.
pub(super) struct Made {
    pub(super) id: String,
    pub(super) target: Target,
    pub(super) limits: BTreeMap<&'static str, u64>,
    pub(super) total_ms: Option<u64>,
    pub(super) models: BTreeMap<String, String>,
    pub(super) prices: BTreeMap<String, (f64, f64)>,
    /// The first entry of it.
    origin: Origin,
}

/// The backends so far.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) backends: Vec<Made>,
}

impl Merged {
    /// Adds what an entry serves as `asked`: to a backend with the same key and address that does not serve it yet, else as a
    /// new one.
    pub(super) fn add(&mut self, entry: &Placed, asked: &str, sent: &str, report: &mut Report) {
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
    fn tell_of_shared_key(&self, entry: &Placed, report: &mut Report) {
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
            report.of(&entry.origin, format!("it has the key of {}, and is a backend of its own{count}", other.id));
        }
    }
}

impl Made {
    fn new(id: String, entry: &Placed) -> Self {
        let Read { target, limits, total_ms, .. } = &entry.read;
        Self {
            id,
            target: target.clone(),
            limits: limits.clone(),
            total_ms: *total_ms,
            models: BTreeMap::new(),
            prices: BTreeMap::new(),
            origin: entry.origin.clone(),
        }
    }

    /// One key has one limit: of two that differ the smaller is kept, and of two timeouts the longer.
    fn take(&mut self, entry: &Placed, report: &mut Report) {
        let differs = |name: &str, ours: u64, theirs: u64, kept: u64| {
            format!(
                "{name} is {theirs} here and {ours} in {}, which has the same key: {} has {kept}",
                self.origin, self.id
            )
        };
        let mut told = Vec::new();
        for (name, theirs) in &entry.read.limits {
            match self.limits.get(name).copied() {
                Some(ours) if ours != *theirs => {
                    let kept = if *name == "weight" { ours.max(*theirs) } else { ours.min(*theirs) };
                    told.push((Some(*name), differs(name, ours, *theirs, kept), kept));
                }
                Some(_) => {}
                None => told.push((Some(*name), String::new(), *theirs)),
            }
        }
        match (self.total_ms, entry.read.total_ms) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                let kept = ours.max(theirs);
                told.push((None, differs("timeout in ms", ours, theirs, kept), kept));
            }
            (None, Some(theirs)) => told.push((None, String::new(), theirs)),
            (Some(_) | None, _) => {}
        }
        for (name, what, kept) in told {
            match name {
                Some(name) => {
                    self.limits.insert(name, kept);
                }
                None => self.total_ms = Some(kept),
            }
            if !what.is_empty() {
                report.of(&entry.origin, what);
            }
        }
    }
}
