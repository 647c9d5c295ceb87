//! Parts of a backend that cool by themselves: its models, its operations, and the ways of single requests to it.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use crate::fleet::health::{Health, HealthState, Probe};
use crate::origin::{Endpoint, Origin};
use crate::time::Timestamp;

/// The parts that a request uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartsUsed<'a> {
    pub model: &'a str,
    pub endpoint: &'a Endpoint,
    /// Number of the request; 0: unknown.
    pub request: u64,
    /// Number of the exchange; 0: unknown.
    pub exchange: u64,
}

impl<'a> PartsUsed<'a> {
    pub(crate) fn of(origin: &'a Origin, model: &'a str) -> Self {
        Self { model, endpoint: &origin.endpoint, request: origin.request, exchange: origin.exchange }
    }
}

/// The health of parts of one sort, for those that have failed. Bounded: clients can invent names.
#[derive(Debug)]
pub(super) struct Parts<K> {
    map: HashMap<K, Part>,
    most: usize,
}

/// A part that has failed, and the attempts under way that it counts.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) health: Health,
    pub(super) in_flight: u32,
}

/// The count of an attempt at one part, to be undone when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartCharge {
    counted: bool,
    pub(super) probe: Option<Probe>,
}

impl<K: Hash + Eq> Parts<K> {
    /// Holds the health of so many parts; beyond it the one whose cooldown ends first is dropped.
    pub(super) fn new(most: usize) -> Self {
        Self { map: HashMap::new(), most }
    }

    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&Part>
    where
        K: Borrow<Q>,
    {
        if self.map.is_empty() { None } else { self.map.get(key) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Counts nothing of what is under way any more.
    pub(super) fn forget_under_way(&mut self) {
        self.map.values_mut().for_each(|part| part.in_flight = 0);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &Part)> {
        self.map.iter()
    }

    pub(super) fn healths_mut(&mut self) -> impl Iterator<Item = &mut Health> {
        self.map.values_mut().map(|part| &mut part.health)
    }

    pub(super) fn clear(&mut self) {
        self.map.clear();
    }

    /// Counts an attempt that is sent.
    pub(super) fn record_sent<Q: Hash + Eq + ?Sized>(&mut self, now: Timestamp, key: &Q) -> PartCharge
    where
        K: Borrow<Q>,
    {
        let Some(part) = self.get_mut(key) else { return PartCharge::default() };
        part.in_flight += 1;
        PartCharge { counted: true, probe: part.health.record_sent(now) }
    }

    /// Undoes the count of an attempt that ended.
    pub(super) fn release<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, charge: PartCharge)
    where
        K: Borrow<Q>,
    {
        if charge.counted
            && let Some(part) = self.get_mut(key)
        {
            part.in_flight = part.in_flight.saturating_sub(1);
        }
    }

    /// Takes back a probe that neither succeeded nor failed.
    pub(super) fn return_probe<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, charge: PartCharge)
    where
        K: Borrow<Q>,
    {
        if charge.probe.is_some()
            && let Some(part) = self.get_mut(key)
        {
            part.health.return_probe(charge.probe);
        }
    }

    /// The part of an attempt that was counted for it.
    pub(super) fn counted<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, charge: PartCharge) -> Option<&mut Part>
    where
        K: Borrow<Q>,
    {
        if charge.counted { self.get_mut(key) } else { None }
    }

    pub(super) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut Part>
    where
        K: Borrow<Q>,
    {
        if self.map.is_empty() { None } else { self.map.get_mut(key) }
    }

    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if !self.map.is_empty() {
            self.map.remove(key);
        }
    }

    /// Drops the idle parts with such a health.
    pub(super) fn drop_idle(&mut self, which: impl Fn(&Health) -> bool) {
        if !self.map.is_empty() {
            self.map.retain(|_, part| part.in_flight > 0 || !which(&part.health));
        }
    }

    /// Drops a part that is healthy and idle.
    pub(super) fn drop_healthy<Q: Hash + Eq + ?Sized>(&mut self, now: Timestamp, key: &Q)
    where
        K: Borrow<Q>,
    {
        let is_done = |part: &Part| part.health.state(now) == HealthState::Healthy && part.in_flight == 0;
        if self.get(key).is_some_and(is_done) {
            self.map.remove(key);
        }
    }
}

impl<K: Hash + Eq + Clone> Parts<K> {
    /// The health of a part; `None` when there is no room for another.
    pub(super) fn health(&mut self, now: Timestamp, key: &K) -> Option<&mut Health> {
        if self.map.len() >= self.most && !self.map.contains_key(key) {
            self.map.retain(|_, part| part.in_flight > 0 || part.health.until > now);
            if self.map.len() >= self.most {
                let idle = self.map.iter().filter(|(_, part)| part.in_flight == 0);
                let soonest = idle.min_by_key(|(_, part)| part.health.until).map(|(key, _)| key.clone())?;
                self.map.remove(&soonest);
            }
        }
        Some(&mut self.map.entry(key.clone()).or_default().health)
    }
}
