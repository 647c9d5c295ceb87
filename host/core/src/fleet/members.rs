//! All backends at run time.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use super::failed_requests::FailedRequests;
use super::health::CooldownSettings;
use super::member::Member;
use super::observed::Observed;
use super::queue::Queue;
use super::state_change::StateChange;
use crate::random::{SplitMix64, mix};
use crate::table::Table;
use crate::time::Timestamp;
use crate::view::{Slot, View};

/// The fleet's settings, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The emergency lane's share of a backend's rpm, 0..=1.
    pub emergency_fraction: f64,
    /// Settings of cooldowns of failing backends.
    pub cooldown: CooldownSettings,
    /// Exchanges that may wait at a time.
    pub queue_length: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { emergency_fraction: 0.1, cooldown: CooldownSettings::default(), queue_length: 1_000 }
    }
}

/// All backends at run time.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Option<(Weak<Slot>, Member)>>,
    pub(super) queue: Queue,
    /// Capacity may have come free since the queue was served.
    pub(super) is_queue_stale: bool,
    /// The next time at which the passing of time alone may bring capacity.
    pub(super) next_check: Option<Timestamp>,
    pub(super) settings: Settings,
    pub(super) random: SplitMix64,
    /// Requests that failed lately, compared between backends.
    pub(super) failed_requests: FailedRequests,
    /// The last number given to a request.
    numbers: u64,
    /// Changes of state to report, oldest first.
    pub(super) changes: VecDeque<StateChange>,
    /// A recorded moment, shown instead of the present state; `None` in a server.
    pub(super) observed: Option<Box<Observed>>,
}

impl Fleet {
    /// Creates an empty fleet; `seed` is for the jitter of cooldowns and for ties.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let queue = Queue::new(settings.queue_length);
        Self {
            members: Vec::new(),
            queue,
            is_queue_stale: false,
            next_check: None,
            settings,
            random: SplitMix64(seed),
            failed_requests: FailedRequests::default(),
            numbers: 0,
            changes: VecDeque::new(),
            observed: None,
        }
    }

    /// Applies a configuration. Backends are identified by their id: one that stays keeps its health, its used limits
    /// and its attempts under way; a removed one is kept until the last exchange that may use it has ended.
    pub fn adopt(&mut self, table: Arc<Table>, settings: Settings) -> Arc<View> {
        self.settings = settings;
        self.is_queue_stale = true;
        self.queue.set_limit(settings.queue_length);
        for entry in &mut self.members {
            if entry.as_ref().is_some_and(|(slot, _)| slot.strong_count() == 0) {
                *entry = None;
            }
        }
        let slots = table
            .backends
            .iter()
            .map(|backend| {
                let known = self.members.iter_mut().flatten().find(|(_, m)| m.id == backend.id);
                match known.and_then(|(slot, member)| Some((slot.upgrade()?, member))) {
                    Some((slot, member)) => {
                        member.set_limits(backend, settings.emergency_fraction);
                        slot
                    }
                    None => self.add(Member::new(backend, settings.emergency_fraction)),
                }
            })
            .collect();
        Arc::new(View::new(table, slots))
    }

    fn add(&mut self, member: Member) -> Arc<Slot> {
        let free = self.members.iter().position(Option::is_none).unwrap_or(self.members.len());
        let slot = Arc::new(Slot(free));
        let entry = Some((Arc::downgrade(&slot), member));
        match self.members.get_mut(free) {
            Some(empty) => *empty = entry,
            None => self.members.push(entry),
        }
        slot
    }

    pub(super) fn member(&self, slot: usize) -> &Member {
        &self.members[slot].as_ref().expect("a slot is kept while a view or a permit refers to it").1
    }

    pub(super) fn member_mut(&mut self, slot: usize) -> &mut Member {
        &mut self.members[slot].as_mut().expect("a slot is kept while a view or a permit refers to it").1
    }

    /// Returns a number for a request that has none: like no other's.
    pub fn number_request(&mut self) -> u64 {
        self.numbers += 1;
        mix(self.numbers).max(1)
    }

    /// Returns a random number for a query.
    pub fn seed(&mut self) -> u64 {
        self.observed.as_ref().map_or_else(|| self.random.draw(), |observed| observed.seed)
    }

    /// The backends that are configured now.
    pub(super) fn configured(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten().filter(|(slot, _)| slot.strong_count() > 0).map(|(_, member)| member)
    }

    /// All backends, also removed ones that exchanges still use.
    pub(super) fn all(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten().map(|(_, member)| member)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().flatten().map(|(_, member)| member)
    }

    /// The backend in this slot; none: it is gone.
    pub(super) fn member_in(&mut self, slot: usize) -> Option<&mut Member> {
        self.members.get_mut(slot)?.as_mut().map(|(_, member)| member)
    }

    /// Changes the configured backend of this id and collects its changes of state; false when there is none.
    pub(super) fn update_member(&mut self, id: &str, update: impl FnOnce(&mut Member)) -> bool {
        self.is_queue_stale = true;
        let is_meant = |(slot, member): &(Weak<Slot>, Member)| &*member.id == id && slot.strong_count() > 0;
        let found = self.members.iter().position(|entry| entry.as_ref().is_some_and(is_meant));
        let Some(slot) = found else { return false };
        update(self.member_mut(slot));
        self.collect_changes(slot);
        true
    }
}
