//! All backends at run time.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::health::{Bounds, Health, is_exclusion};
use super::member::{Asker, Charge, Member, Past, Settled, Stats};
use super::observed::Observed;
use super::queue::{Queue, Ticket};
use super::state_change::StateChange;
use crate::contract::{Column, RowState, STRIDE};
use crate::outcome::{Kind, Outcome};
use crate::table::{Lane, Table, Tier};
use crate::time::Timestamp;
use crate::view::{Slot, View, Want};

/// What the fleet is told by the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The emergency lane's share of a backend's rpm, 0..=1.
    pub emergency_fraction: f64,
    /// How long cooldowns are.
    pub cooldown: Bounds,
    /// Most exchanges that may wait at a time.
    pub queue_length: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { emergency_fraction: 0.1, cooldown: Bounds::default(), queue_length: 1_000 }
    }
}

/// A held slot of a backend. It must come back by [`Fleet::settle`] or [`Fleet::refund`].
#[derive(Debug)]
#[must_use = "a permit must be settled or refunded"]
pub struct Permit {
    /// Index into the table of the view it was taken through.
    pub backend: u32,
    /// The lane it was taken in.
    pub lane: Lane,
    /// When it was taken.
    pub taken_at: Timestamp,
    slot: Arc<Slot>,
    model: Arc<str>,
    charge: Charge,
}

impl Permit {
    /// Is this attempt the one that finds out whether the backend is well again?
    pub fn is_probe(&self) -> bool {
        self.charge.is_probe()
    }
}

/// Why no permit was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What the backend (or the best of the lane) was doing.
    pub state: RowState,
}

/// What an attempt that ended tells the fleet.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// What it came to.
    pub outcome: &'a Outcome,
    /// Time to the first content.
    pub first_token: Option<Duration>,
    /// Tokens it used, where known.
    pub tokens_used: Option<u32>,
}

/// A backend as an operator sees it.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Its id.
    pub id: Arc<str>,
    /// Its own state, whatever its models do.
    pub state: RowState,
    /// Its own cooldown.
    pub cooldown: Option<(Timestamp, Kind)>,
    /// Models of it in cooldown.
    pub models_cooling: usize,
    /// Of these the [`MAX_MODEL_COOLDOWNS`] that end last, the latest first.
    pub model_cooldowns: Vec<ModelCooldown>,
    /// Attempts under way.
    pub in_flight: u32,
    /// Requests that may go now; none: no limit is known.
    pub requests_left: Option<u32>,
    /// Tokens that may go now; none: no limit is known.
    pub tokens_left: Option<u32>,
    /// Failures of the whole backend since the last answer.
    pub failures: u32,
    /// How it has been doing.
    pub stats: Stats,
}

/// How many backends of a view take requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServingCounts {
    /// All of them.
    pub configured: usize,
    /// Those that the operator took out.
    pub drained: usize,
    /// Those that are excluded as a whole: the key is refused, or the credit used up.
    pub excluded: usize,
}

impl ServingCounts {
    /// Those that take requests, now or after a wait: who cools after a rate limit or an error comes back by itself.
    pub fn serving(self) -> usize {
        self.configured - self.drained - self.excluded
    }
}

/// Models of a backend whose cooldowns an [`Overview`] lists.
pub const MAX_MODEL_COOLDOWNS: usize = 16;

/// Changes of state kept until they are taken; the oldest make room.
const MAX_CHANGES: usize = 256;

/// The cooldown of one model on a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCooldown {
    /// The model as asked for.
    pub model: Arc<str>,
    /// Its end.
    pub until: Timestamp,
    /// Its cause.
    pub reason: Kind,
    /// Failures since the last answer.
    pub failures: u32,
}

/// A cooldown to be kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCooldown {
    /// The backend's id.
    pub backend: String,
    /// The model; none: the whole backend.
    pub model: Option<String>,
    /// Its end.
    pub until: Timestamp,
    /// Its cause.
    pub reason: Kind,
    /// Failures since the last answer.
    pub failures: u32,
}

/// All backends at run time.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Option<(Weak<Slot>, Member)>>,
    queue: Queue,
    /// Something happened since the line was served that may let somebody out of it.
    unserved: bool,
    /// When time alone may.
    look_again: Option<Timestamp>,
    settings: Settings,
    random: Random,
    /// Changes of state to report, oldest first.
    changes: VecDeque<StateChange>,
    /// A recorded moment that stands for what is known here; none in a server.
    observed: Option<Box<Observed>>,
}

impl Fleet {
    /// An empty fleet; `seed` spreads cooldowns and ties.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let queue = Queue::new(settings.queue_length);
        Self {
            members: Vec::new(),
            queue,
            unserved: false,
            look_again: None,
            settings,
            random: Random(seed),
            changes: VecDeque::new(),
            observed: None,
        }
    }

    /// Takes a configuration. Backends are known by their id: one that stays keeps its health, limits in use and
    /// attempts under way. One that is gone lives on until the last exchange that may use it has ended.
    pub fn adopt(&mut self, table: Arc<Table>, settings: Settings) -> Arc<View> {
        self.settings = settings;
        self.unserved = true;
        self.queue.set_limit(settings.queue_length);
        for place in &mut self.members {
            if place.as_ref().is_some_and(|(slot, _)| slot.strong_count() == 0) {
                *place = None;
            }
        }
        let slots = table
            .backends
            .iter()
            .map(|backend| {
                let known = self.members.iter_mut().flatten().find(|(_, m)| m.id == backend.id);
                match known.and_then(|(slot, member)| Some((slot.upgrade()?, member))) {
                    Some((slot, member)) => {
                        member.set_limits(backend.limits, settings.emergency_fraction);
                        slot
                    }
                    None => self.add(Member::new(backend.id.clone(), backend.limits, settings.emergency_fraction)),
                }
            })
            .collect();
        Arc::new(View::new(table, slots))
    }

    fn add(&mut self, member: Member) -> Arc<Slot> {
        let free = self.members.iter().position(Option::is_none).unwrap_or(self.members.len());
        let slot = Arc::new(Slot(free));
        let place = Some((Arc::downgrade(&slot), member));
        match self.members.get_mut(free) {
            Some(empty) => *empty = place,
            None => self.members.push(place),
        }
        slot
    }

    fn member(&self, slot: usize) -> &Member {
        &self.members[slot].as_ref().expect("a slot is kept while a view or a permit refers to it").1
    }

    fn member_mut(&mut self, slot: usize) -> &mut Member {
        &mut self.members[slot].as_mut().expect("a slot is kept while a view or a permit refers to it").1
    }

    /// The numbers of every backend for a query. `held` is the permit the asking exchange was handed while it waited.
    pub fn rows(&self, now: Timestamp, view: &View, want: &Want, held: Option<&Permit>) -> Vec<u32> {
        if let Some(observed) = &self.observed {
            return observed.rows.clone();
        }
        let mut rows = vec![0; view.slots.len() * STRIDE];
        for row in rows.chunks_exact_mut(STRIDE) {
            row[Column::State as usize] = RowState::Unsuited as u32;
        }
        let queued = [Lane::Primary, Lane::Fallback].map(|lane| self.ahead(want, lane));
        for &i in want.candidates.iter() {
            let slot = view.slots[i as usize].0;
            let (lane, queued) = match view.backend(i).tier {
                Tier::Primary => (Lane::Primary, queued[0]),
                Tier::Fallback => (Lane::Fallback, queued[1]),
            };
            let asker = Asker {
                holds: held.filter(|p| p.slot.0 == slot).map(|p| p.lane),
                is_behind: queued > 0 && self.queue.is_behind(view, want, lane, i),
                queued,
            };
            let row = &mut rows[i as usize * STRIDE..][..STRIDE];
            self.member(slot).write_row(now, &want.model, want.tokens, asker, row);
        }
        self.put_foreign_last(view, want, held, &mut rows);
        rows
    }

    /// A backend that needs a translation is not on offer while one of its tier that needs none is ready.
    fn put_foreign_last(&self, view: &View, want: &Want, held: Option<&Permit>, rows: &mut [u32]) {
        for &i in want.foreign.iter() {
            let is_held = held.is_some_and(|p| p.slot.0 == view.slots[i as usize].0);
            let is_better = |j: &&u32| {
                let is_ready = rows[**j as usize * STRIDE + Column::State as usize] == RowState::Ready as u32;
                is_ready && want.foreign.binary_search(j).is_err() && view.backend(**j).tier == view.backend(i).tier
            };
            if !is_held && want.candidates.iter().any(|j| is_better(&j)) {
                rows[i as usize * STRIDE + Column::State as usize] = RowState::Unsuited as u32;
            }
        }
    }

    fn ahead(&self, want: &Want, lane: Lane) -> u32 {
        if self.queue.is_empty() {
            return 0;
        }
        u32::try_from(self.queue.ahead(lane, want.rank)).unwrap_or(u32::MAX)
    }

    /// Is a permit that was handed out still worth using? Not when its backend has begun to cool since.
    pub fn holds_good(&self, now: Timestamp, permit: &Permit) -> bool {
        if let Some(observed) = &self.observed {
            return observed.admits == Some(permit.backend);
        }
        let (state, _) = self.member(permit.slot.0).readiness(now, &permit.model, 0);
        match state {
            RowState::Cooling => permit.lane == Lane::Emergency,
            RowState::Drained | RowState::Unsuited => false,
            RowState::Ready | RowState::Throttled | RowState::Probing => true,
        }
    }

    /// Takes a permit in a lane: of the backend named, or of the best that is ready. What somebody of a better rank
    /// waits for is not to be had, even if it would do for less: else small requests would starve large ones.
    pub fn acquire(
        &mut self,
        now: Timestamp,
        view: &View,
        want: &Want,
        lane: Lane,
        choice: Option<u32>,
    ) -> Result<Permit, Denied> {
        if let Some(observed) = &self.observed {
            let admitted = observed.admitted(choice).ok_or(Denied { state: RowState::Throttled })?;
            return Ok(self.take(now, view, want, lane, admitted));
        }
        let backend = match choice {
            Some(index) => self.admits(now, view, want, lane, index).map(|()| index)?,
            None => self.best(now, view, want, lane)?,
        };
        Ok(self.take(now, view, want, lane, backend))
    }

    fn take(&mut self, now: Timestamp, view: &View, want: &Want, lane: Lane, backend: u32) -> Permit {
        let slot = view.slots[backend as usize].clone();
        let charge = self.member_mut(slot.0).charge(now, &want.model, want.tokens, lane == Lane::Emergency);
        Permit { backend, lane, taken_at: now, slot, model: want.model.clone(), charge }
    }

    fn admits(&self, now: Timestamp, view: &View, want: &Want, lane: Lane, index: u32) -> Result<(), Denied> {
        let known = want.candidates.binary_search(&index).is_ok();
        if !known || !lane.admits(view.backend(index).tier) {
            return Err(Denied { state: RowState::Unsuited });
        }
        let member = self.member(view.slots[index as usize].0);
        let (state, _) = member.readiness(now, &want.model, want.tokens);
        let open = match lane {
            Lane::Primary | Lane::Fallback => state == RowState::Ready,
            Lane::Emergency => member.emergency_in(now, &want.model, want.tokens) == Some(Duration::ZERO),
        };
        match open {
            true if self.queue.is_behind(view, want, lane, index) => Err(Denied { state: RowState::Throttled }),
            true => Ok(()),
            false => Err(Denied { state }),
        }
    }

    /// The best backend of the lane that is ready; one that needs a translation only where no other is.
    fn best(&mut self, now: Timestamp, view: &View, want: &Want, lane: Lane) -> Result<u32, Denied> {
        let native = self.best_of(now, view, want, lane, |index| want.foreign.binary_search(&index).is_err());
        match native {
            Err(_) if !want.foreign.is_empty() => self.best_of(now, view, want, lane, |_| true),
            native => native,
        }
    }

    /// The least loaded of these that is ready; among equals one by weight.
    fn best_of(
        &mut self,
        now: Timestamp,
        view: &View,
        want: &Want,
        lane: Lane,
        is_meant: impl Fn(u32) -> bool,
    ) -> Result<u32, Denied> {
        let mut denied = Denied { state: RowState::Unsuited };
        let mut best: Option<(f32, u32)> = None;
        let mut equals_weigh = 0;
        for index in want.candidates.iter().copied().filter(|index| is_meant(*index)) {
            match self.admits(now, view, want, lane, index) {
                Ok(()) => {
                    let score = self.member(view.slots[index as usize].0).score();
                    let weight = u64::from(view.backend(index).weight);
                    if best.is_none_or(|(lowest, _)| score < lowest) {
                        best = Some((score, index));
                        equals_weigh = weight;
                    } else if best.is_some_and(|(lowest, _)| score == lowest) {
                        // Each is kept with its share of the weights seen so far, so that each wins by its weight.
                        equals_weigh += weight;
                        if self.random.next() % equals_weigh.max(1) < weight {
                            best = Some((score, index));
                        }
                    }
                }
                Err(why) if why.state != RowState::Unsuited => denied = why,
                Err(_) => {}
            }
        }
        best.map(|(_, index)| index).ok_or(denied)
    }

    /// An attempt ended.
    pub fn settle(&mut self, now: Timestamp, permit: Permit, report: Report<'_>) {
        self.unserved = true;
        let chance = self.random.unit();
        let bounds = self.settings.cooldown;
        let settled = Settled {
            now,
            sent_at: permit.taken_at,
            model: &permit.model,
            outcome: report.outcome,
            first_token: report.first_token,
            tokens_used: report.tokens_used,
            bounds: &bounds,
            chance,
        };
        self.member_mut(permit.slot.0).settle(settled, permit.charge);
        self.keep_changes(permit.slot.0);
    }

    /// A permit was not used after all.
    pub fn refund(&mut self, permit: Permit) {
        self.unserved = true;
        self.member_mut(permit.slot.0).refund(permit.taken_at, &permit.model, permit.charge);
    }

    /// What the provider's headers said is left of its limits; each with the time of its reset, which counts for no
    /// longer than a Retry-After would.
    pub fn learn(&mut self, permit: &Permit, requests: Option<(u32, Timestamp)>, tokens: Option<(u32, Timestamp)>) {
        self.unserved = true;
        let latest = permit.taken_at + self.settings.cooldown.retry_after_cap;
        let capped = |(left, until): (u32, Timestamp)| (left, until.min(latest));
        self.member_mut(permit.slot.0).learn(requests.map(capped), tokens.map(capped));
    }

    /// Joins the waiting line by the rank of its want; none when it is full.
    pub fn join(&mut self, view: &Arc<View>, want: &Want, lane: Lane) -> Option<Ticket> {
        self.unserved = true;
        if self.observed.as_ref().is_some_and(|observed| !observed.can_wait) {
            return None;
        }
        self.queue.join(view, want, lane)
    }

    /// Leaves the line; false when it had already been served.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        self.queue.leave(ticket)
    }

    /// Exchanges that wait for a lane.
    pub fn waiting_in(&self, lane: Lane) -> usize {
        self.queue.len_in(lane)
    }

    /// Exchanges that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Hands free capacity to the line, in order. Whoever gets a permit has left the line.
    ///
    /// Also answers when to look again: the next time at which capacity may come by itself (a cooldown ends, a limit
    /// has room); none when only a returning permit can bring it.
    pub fn serve_line(&mut self, now: Timestamp) -> (Vec<(Ticket, Permit)>, Option<Timestamp>) {
        if self.queue.is_empty() || self.observed.is_some() {
            (self.unserved, self.look_again) = (self.observed.is_some(), None);
            return (Vec::new(), None);
        }
        if !self.unserved && self.look_again.is_none_or(|at| now < at) {
            return (Vec::new(), self.look_again);
        }
        let mut served = Vec::new();
        let mut look_again: Option<Timestamp> = None;
        let mut heads = self.queue.heads();
        while let Some(Reverse((ticket, file))) = heads.pop() {
            let Some((view, lane, want)) = self.queue.head(file) else { continue };
            match self.best(now, &view, &want, lane) {
                Ok(backend) => {
                    heads.extend(self.queue.advance(file).map(|next| Reverse((next, file))));
                    served.push((ticket, self.take(now, &view, &want, lane, backend)));
                }
                Err(_) => {
                    // What is ready now and yet not to be had is kept for somebody before, whose own time counts.
                    let later = self.ready_times(now, &view, &want, lane).filter(|d| !d.is_zero()).min();
                    let later = later.map(|d| now + d.max(Duration::from_millis(1)));
                    look_again = [look_again, later].into_iter().flatten().min();
                }
            }
        }
        (self.unserved, self.look_again) = (false, look_again);
        (served, look_again)
    }

    /// May this backend take an attempt in the lane within this time, as far as anybody can tell? Not one that the lane
    /// does not admit, that is drained, that has lost its key or credit in an emergency, or that is known to need longer:
    /// as long as attempts are under way, a limit may have room earlier than it says, because any of them may give back what
    /// it took.
    pub fn may_be_ready_within(
        &self,
        now: Timestamp,
        view: &View,
        want: &Want,
        lane: Lane,
        index: u32,
        within: Duration,
    ) -> bool {
        if let Some(observed) = &self.observed {
            return observed.can_wait;
        }
        let member = self.member(view.slots[index as usize].0);
        let is_hopeless = lane == Lane::Emergency && member.is_hopeless(now, &want.model);
        let needs = match (lane, member.in_flight) {
            (_, 0) => ready_in(member, now, want, lane),
            (Lane::Primary | Lane::Fallback, _) => Some(member.cools_for(now, &want.model)),
            (Lane::Emergency, _) => None,
        };
        let is_known_to_need_longer = needs.is_some_and(|needs| needs > within);
        lane.admits(view.backend(index).tier) && !member.is_drained() && !is_hopeless && !is_known_to_need_longer
    }

    /// How long until a backend of the lane may be ready; none when nobody can tell.
    pub fn soonest(&self, now: Timestamp, view: &View, want: &Want, lane: Lane) -> Option<Duration> {
        self.ready_times(now, view, want, lane).min()
    }

    fn ready_times(&self, now: Timestamp, view: &View, want: &Want, lane: Lane) -> impl Iterator<Item = Duration> {
        want.candidates.iter().filter_map(move |&index| {
            let member = self.member(view.slots[index as usize].0);
            lane.admits(view.backend(index).tier).then(|| ready_in(member, now, want, lane)).flatten()
        })
    }

    /// A random number for a query.
    pub fn seed(&mut self) -> u64 {
        self.observed.as_ref().map_or_else(|| self.random.next(), |observed| observed.seed)
    }

    /// Every backend of a view, for people.
    pub fn overview(&self, now: Timestamp, view: &View) -> Vec<Overview> {
        let one = |slot: &Arc<Slot>| {
            let member = self.member(slot.0);
            let (state, cooldown) = member.own_state(now);
            let mut model_cooldowns: Vec<ModelCooldown> = member
                .cooldowns(now)
                .filter_map(|(model, h)| {
                    let Health { until, reason, failures, .. } = *h;
                    Some(ModelCooldown { model: model?.clone(), until, reason, failures })
                })
                .collect();
            let models_cooling = model_cooldowns.len();
            model_cooldowns.sort_by(|a, b| (b.until, &a.model).cmp(&(a.until, &b.model)));
            model_cooldowns.truncate(MAX_MODEL_COOLDOWNS);
            let (requests_left, tokens_left) = member.left(now);
            Overview {
                id: member.id.clone(),
                state,
                cooldown,
                models_cooling,
                model_cooldowns,
                in_flight: member.in_flight,
                requests_left,
                tokens_left,
                failures: member.failures(),
                stats: member.stats,
            }
        };
        view.slots.iter().map(one).collect()
    }

    /// How many backends of a view take requests.
    pub fn serving(&self, now: Timestamp, view: &View) -> ServingCounts {
        let mut counts = ServingCounts { configured: view.slots.len(), ..ServingCounts::default() };
        for slot in &view.slots {
            match self.member(slot.0).own_state(now) {
                (RowState::Drained, _) => counts.drained += 1,
                (RowState::Cooling, Some((_, reason))) if is_exclusion(reason) => counts.excluded += 1,
                (
                    RowState::Ready | RowState::Throttled | RowState::Cooling | RowState::Probing | RowState::Unsuited,
                    _,
                ) => {}
            }
        }
        counts
    }

    /// A backend's state for what is wanted, and the cooldown behind it: its own or that of the wanted model, whichever
    /// lasts longer. Those of other models do not count.
    pub fn state_for(
        &self,
        now: Timestamp,
        view: &View,
        want: &Want,
        index: u32,
    ) -> (RowState, Option<(Timestamp, Kind)>) {
        self.member(view.slots[index as usize].0).state_for(now, &want.model, want.tokens)
    }

    /// Is a backend's cooldown for this model over, with nobody trying yet whether it is well?
    pub fn is_due(&self, now: Timestamp, view: &View, index: u32, model: &str) -> bool {
        view.slots.get(index as usize).is_some_and(|slot| self.member(slot.0).is_due(now, model))
    }

    /// Takes a backend out, or back in; false when there is none of that id.
    pub fn set_drained(&mut self, now: Timestamp, id: &str, drained: bool) -> bool {
        self.operate(id, |member| member.set_drained(now, drained))
    }

    /// Ends a backend's cooldowns; false when there is none of that id.
    pub fn clear_cooldown(&mut self, now: Timestamp, id: &str) -> bool {
        self.operate(id, |member| member.clear_cooldown(now))
    }

    /// The operator gave the backend another key or base URL: ends the cooldowns that say the old key was refused, had
    /// no money or not the model; false when there is none of that id.
    pub fn forget_key_faults(&mut self, now: Timestamp, id: &str) -> bool {
        self.operate(id, |member| member.forget_key_faults(now))
    }

    fn operate(&mut self, id: &str, f: impl FnOnce(&mut Member)) -> bool {
        self.unserved = true;
        let is_it = |(slot, m): &(Weak<Slot>, Member)| &*m.id == id && slot.strong_count() > 0;
        let Some(place) = self.members.iter().position(|place| place.as_ref().is_some_and(is_it)) else { return false };
        f(self.member_mut(place));
        self.keep_changes(place);
        true
    }

    fn keep_changes(&mut self, slot: usize) {
        let Some((_, member)) = &mut self.members[slot] else { return };
        self.changes.extend(member.take_changes());
        let surplus = self.changes.len().saturating_sub(MAX_CHANGES);
        self.changes.drain(..surplus);
    }

    /// Are there changes of state to report?
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The changes of state to report, oldest first. To be asked now and then also when there is none: what a backend
    /// changed more often than is reported comes out when its time is over.
    pub fn take_changes(&mut self, now: Timestamp) -> Vec<StateChange> {
        let overdue = self.members.iter_mut().flatten().filter_map(|(_, member)| member.overdue_change(now));
        self.changes.drain(..).chain(overdue).collect()
    }

    /// The cooldowns in force, to be kept over a restart.
    pub fn cooldowns(&self, now: Timestamp) -> Vec<KeptCooldown> {
        let of_member = |member: &Member| -> Vec<KeptCooldown> {
            let keep = |(model, health): (Option<&Arc<str>>, &Health)| KeptCooldown {
                backend: member.id.to_string(),
                model: model.map(|m| m.to_string()),
                until: health.until,
                reason: health.reason,
                failures: health.failures,
            };
            member.cooldowns(now).map(keep).collect()
        };
        self.members.iter().flatten().flat_map(|(_, m)| of_member(m)).collect()
    }

    /// The backends that the operator took out, to be kept over a restart; those that are no longer configured are forgotten.
    pub fn drained(&self) -> Vec<Arc<str>> {
        let configured = self.members.iter().flatten().filter(|(slot, _)| slot.strong_count() > 0);
        configured.filter(|(_, member)| member.is_drained()).map(|(_, member)| member.id.clone()).collect()
    }

    /// Puts cooldowns back after a restart; those of unknown backends are dropped, and those for a refused key, because
    /// a restart is how many a key is changed.
    pub fn restore(&mut self, now: Timestamp, kept: &[KeptCooldown]) {
        for k in kept.iter().filter(|k| k.until > now && k.reason != Kind::Unauthorised) {
            let health = Health::restored(k.until, k.reason, k.failures);
            self.operate(&k.backend, |member| member.restore(now, k.model.as_deref(), health));
        }
    }
}

impl Fleet {
    /// A backend has all this behind it; false when there is none of that id. For worlds of the lab.
    pub fn assume(&mut self, now: Timestamp, id: &str, past: &Past) -> bool {
        self.operate(id, |member| {
            member.forget();
            member.assume(now, past);
        })
    }

    /// From now on this recorded moment is in force, or none. For worlds of the lab.
    pub fn observe(&mut self, observed: Option<Observed>) {
        self.unserved = true;
        self.observed = observed.map(Box::new);
    }

    /// Hands the capacity of a backend to somebody in line, as it was recorded; none when nobody waits with this ticket.
    /// For worlds of the lab.
    pub fn grant(&mut self, now: Timestamp, ticket: Ticket, backend: u32) -> Option<Permit> {
        self.unserved = true;
        let (view, lane, want) = self.queue.serve(ticket)?;
        Some(self.take(now, &view, &want, lane, backend))
    }
}

/// How long until a member could take what is wanted in this lane; none when nobody can tell.
fn ready_in(member: &Member, now: Timestamp, want: &Want, lane: Lane) -> Option<Duration> {
    match lane {
        Lane::Primary | Lane::Fallback => member.readiness(now, &want.model, want.tokens).1,
        Lane::Emergency => member.emergency_in(now, &want.model, want.tokens),
    }
}

/// The seed of a fleet whose first random number is this one: what a query was told says which world it came from.
pub fn seed_of_first(number: u64) -> u64 {
    /// The inverses of the factors of [`Random::next`], modulo 2^64.
    const INVERSES: [u64; 2] = [0x3196_42b2_d24d_8ec3, 0x96de_1b17_3f11_9089];
    let mut z = number ^ (number >> 31) ^ (number >> 62);
    z = z.wrapping_mul(INVERSES[0]);
    z = z ^ (z >> 27) ^ (z >> 54);
    z = z.wrapping_mul(INVERSES[1]);
    z = z ^ (z >> 30) ^ (z >> 60);
    z.wrapping_sub(GOLDEN)
}

/// What a [`Random`] goes on by.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, good enough to spread things.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
