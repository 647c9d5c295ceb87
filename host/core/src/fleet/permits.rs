//! Permits: the right to send one attempt to a backend, taken before it and settled after it.

use std::sync::Arc;
use std::time::Duration;

use super::failed_requests::Comparison;
use super::health::Tries;
use super::member::{Charge, EndedAttempt, PartsUsed};
use super::members::Fleet;
use crate::contract::RowState;
use crate::origin::Origin;
use crate::outcome::{Kind, Outcome};
use crate::table::Lane;
use crate::time::Timestamp;
use crate::view::{Slot, View, Want};

/// A held slot of a backend, to be returned by [`Fleet::settle`] or [`Fleet::refund`].
#[derive(Debug)]
#[must_use = "a permit must be settled or refunded"]
pub struct Permit {
    /// Index of the backend in the table of the view it was taken through.
    pub backend: u32,
    /// The lane it was taken in.
    pub lane: Lane,
    /// Start of the attempt, for latency and rate limits.
    pub taken_at: Timestamp,
    pub(super) slot: Arc<Slot>,
    model: Arc<str>,
    origin: Origin,
    tries: Tries,
    charge: Charge,
}

impl Permit {
    /// Returns true if this attempt probes a backend after its cooldown.
    pub fn is_probe(&self) -> bool {
        self.charge.is_probe()
    }

    /// Sets the number of its request, known since the permit was taken, and its tries that failed, this one
    /// included.
    pub fn set_request(&mut self, request: u64, tries: Tries) {
        self.origin.request = request;
        self.tries = tries;
    }

    fn parts(&self) -> PartsUsed<'_> {
        PartsUsed::of(&self.origin, &self.model)
    }
}

impl Want {
    pub(super) fn parts(&self) -> PartsUsed<'_> {
        PartsUsed::of(&self.origin, &self.model)
    }
}

/// The reason why no permit was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// State of the backend named, or of one of the lane.
    pub state: RowState,
}

/// The result of an attempt, for settling its permit.
#[derive(Clone, Debug)]
pub struct AttemptReport<'a> {
    /// Outcome of the attempt, with its scope.
    pub outcome: &'a Outcome,
    /// Time to the first content.
    pub first_token: Option<Duration>,
    /// Tokens used, prompt and answer; `None`: unknown, the estimate stands.
    pub tokens_used: Option<u32>,
}

impl Fleet {
    /// Returns true if a permit handed out earlier may still be used: its backend is neither drained nor set cooling
    /// since.
    pub fn is_usable(&self, now: Timestamp, permit: &Permit) -> bool {
        if let Some(observed) = &self.observed {
            return observed.admits == Some(permit.backend);
        }
        let (state, _) = self.member(permit.slot.0).readiness(now, permit.parts(), 0);
        match state {
            RowState::Cooling => permit.lane == Lane::Emergency,
            RowState::Drained | RowState::Unsuited => false,
            RowState::Ready | RowState::Throttled | RowState::Probing => true,
        }
    }

    /// Takes a permit in a lane: of the backend named by `choice`, or of the best that is ready.
    ///
    /// Capacity that an exchange of a better rank waits for is not given out, even if it would suffice for this one:
    /// otherwise small requests would starve large ones.
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
            Some(index) => self.check_admission(now, view, want, lane, index).map(|()| index)?,
            None => self.best(now, view, want, lane)?,
        };
        Ok(self.take(now, view, want, lane, backend))
    }

    /// Takes a permit of a backend, ready or not.
    pub(super) fn take(&mut self, now: Timestamp, view: &View, want: &Want, lane: Lane, backend: u32) -> Permit {
        let slot = view.slots[backend as usize].clone();
        let charge = self.member_mut(slot.0).charge(now, want.parts(), want.tokens, lane == Lane::Emergency);
        let (model, origin) = (want.model.clone(), want.origin.clone());
        Permit { backend, lane, taken_at: now, slot, model, origin, tries: Tries::FIRST, charge }
    }

    /// Checks that a backend takes an attempt in this lane now.
    fn check_admission(&self, now: Timestamp, view: &View, want: &Want, lane: Lane, index: u32) -> Result<(), Denied> {
        let known = want.candidates.binary_search(&index).is_ok();
        if !known || !lane.admits(view.backend(index).tier) {
            return Err(Denied { state: RowState::Unsuited });
        }
        let member = self.member(view.slots[index as usize].0);
        let (state, _) = member.readiness(now, want.parts(), want.tokens);
        let open = match lane {
            Lane::Primary | Lane::Fallback => state == RowState::Ready,
            Lane::Emergency => member.emergency_in(now, want.parts(), want.tokens) == Some(Duration::ZERO),
        };
        match open {
            true if self.queue.is_behind(view, want, lane, index) => Err(Denied { state: RowState::Throttled }),
            true => Ok(()),
            false => Err(Denied { state }),
        }
    }

    /// Picks the home where it is ready, else the best ready backend of the lane; one that has refused a request of this size only where no other is ready,
    /// and one that needs a translation likewise.
    pub(super) fn best(&mut self, now: Timestamp, view: &View, want: &Want, lane: Lane) -> Result<u32, Denied> {
        if let Some(home) = want.home
            && self.check_admission(now, view, want, lane, home.backend).is_ok()
        {
            return Ok(home.backend);
        }
        let too_small: Vec<u32> =
            want.candidates.iter().copied().filter(|index| self.is_too_large(now, view, want, *index)).collect();
        if !too_small.is_empty()
            && let Ok(fitting) = self.best_of(now, view, want, lane, |index| !too_small.contains(&index))
        {
            return Ok(fitting);
        }
        let native = self.best_of(now, view, want, lane, |index| want.foreign.binary_search(&index).is_err());
        match native {
            Err(_) if !want.foreign.is_empty() => self.best_of(now, view, want, lane, |_| true),
            native => native,
        }
    }

    /// Picks the least loaded of these that is ready; among equals one at random by weight.
    fn best_of(
        &mut self,
        now: Timestamp,
        view: &View,
        want: &Want,
        lane: Lane,
        is_eligible: impl Fn(u32) -> bool,
    ) -> Result<u32, Denied> {
        let mut denied = Denied { state: RowState::Unsuited };
        let mut best: Option<(f32, u32)> = None;
        let mut total_weight = 0;
        for index in want.candidates.iter().copied().filter(|index| is_eligible(*index)) {
            match self.check_admission(now, view, want, lane, index) {
                Ok(()) => {
                    let score = self.member(view.slots[index as usize].0).load_score();
                    let weight = u64::from(view.backend(index).weight);
                    if best.is_none_or(|(lowest, _)| score < lowest) {
                        best = Some((score, index));
                        total_weight = weight;
                    } else if best.is_some_and(|(lowest, _)| score == lowest) {
                        // Weighted reservoir sampling: each replaces the one kept with its share of the weights so far.
                        total_weight += weight;
                        if self.random.draw() % total_weight.max(1) < weight {
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

    /// Settles the permit of an attempt that ended. A request that fails alike at a second backend is to blame: what it
    /// brought upon the first is undone.
    pub fn settle(&mut self, now: Timestamp, permit: Permit, report: AttemptReport<'_>) {
        self.is_queue_stale = true;
        let (chance, cooldown) = (self.random.unit(), self.settings.cooldown);
        let (request, slot) = (permit.origin.request, permit.slot.0);
        let comparison = if report.outcome.kind == Kind::Answered {
            self.failed_requests.answered(request);
            for (culprit, places) in self.failed_requests.shown_by_answer_at(slot) {
                for slot in places {
                    self.member_in(slot).into_iter().for_each(|member| member.forget_failures_of(culprit));
                }
            }
            Comparison::default()
        } else {
            self.failed_requests.failed(now, request, slot, report.outcome)
        };
        let settled = EndedAttempt {
            now,
            sent_at: permit.taken_at,
            model: &permit.model,
            origin: &permit.origin,
            tries: permit.tries,
            is_blamed: comparison.is_blamed,
            outcome: report.outcome,
            first_token: report.first_token,
            tokens_used: report.tokens_used,
            cooldown: &cooldown,
            chance,
        };
        self.member_mut(slot).settle(settled, permit.charge);
        for slot in comparison.cleared {
            self.member_in(slot).into_iter().for_each(|member| member.end_cooldowns_of(permit.parts()));
        }
        self.collect_changes(slot);
    }

    /// Returns true if this request failed alike at two backends lately.
    pub fn is_blamed(&self, now: Timestamp, request: u64) -> bool {
        self.failed_requests.is_blamed(now, request)
    }

    /// Returns true if requests have failed lately that a new one may be the same as.
    pub fn compares_requests(&self, now: Timestamp) -> bool {
        self.failed_requests.any(now)
    }

    /// Gives up the probe that an attempt under way is, so that the next one is the probe: its backend has begun to answer,
    /// or lets it wait for so long that others must not wait for its end.
    pub fn return_probe(&mut self, permit: &Permit) {
        self.is_queue_stale |= permit.is_probe();
        self.member_mut(permit.slot.0).return_probes(permit.parts(), permit.charge);
    }

    /// Takes back a permit that was not used.
    pub fn refund(&mut self, permit: Permit) {
        self.is_queue_stale = true;
        self.member_mut(permit.slot.0).refund(permit.taken_at, permit.parts(), permit.charge);
    }

    /// Applies what the provider's rate limit headers say is left of its limits, each with the time of its reset; a reset
    /// counts for no longer than the cap of Retry-After.
    pub fn learn(&mut self, permit: &Permit, requests: Option<(u32, Timestamp)>, tokens: Option<(u32, Timestamp)>) {
        self.is_queue_stale = true;
        let latest = permit.taken_at + self.settings.cooldown.retry_after_cap;
        let capped = |(left, until): (u32, Timestamp)| (left, until.min(latest));
        self.member_mut(permit.slot.0).learn(requests.map(capped), tokens.map(capped));
    }
}
