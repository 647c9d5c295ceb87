//! Waiting for a permit: joining and leaving the queue, serving it, and estimates of when capacity comes.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::member::Member;
use super::members::Fleet;
use super::permits::Permit;
use super::queue::Ticket;
use crate::table::{Lane, Tier};
use crate::time::Timestamp;
use crate::view::{View, Want};

impl Fleet {
    /// Joins the queue by the rank of the want; `None` when the queue is full.
    pub fn join(&mut self, view: &Arc<View>, want: &Want, lane: Lane) -> Option<Ticket> {
        self.is_queue_stale = true;
        if self.observed.as_ref().is_some_and(|observed| !observed.can_wait) {
            return None;
        }
        let is_held_back = |index: &u32| self.member(view.slots[*index as usize].0).holds_back(want.parts());
        let held_back_at = want.candidates.iter().copied().filter(is_held_back).collect();
        self.queue.join(view, want, lane, held_back_at)
    }

    /// Leaves the queue; false when the ticket had already been served.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        self.queue.leave(ticket)
    }

    /// Number of exchanges that wait for a lane.
    pub fn waiting_in(&self, lane: Lane) -> usize {
        self.queue.len_in(lane)
    }

    /// Number of exchanges that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Hands free capacity to the queue, in order. A ticket that gets a permit has left the queue.
    ///
    /// Also returns when to call again: the next time at which capacity may come by itself (a cooldown ends, a limit
    /// has room); `None` when only a returning permit can bring it.
    pub fn serve_queue(&mut self, now: Timestamp) -> (Vec<(Ticket, Permit)>, Option<Timestamp>) {
        if self.queue.is_empty() || self.observed.is_some() {
            (self.is_queue_stale, self.next_check) = (self.observed.is_some(), None);
            return (Vec::new(), None);
        }
        if !self.is_queue_stale && self.next_check.is_none_or(|at| now < at) {
            return (Vec::new(), self.next_check);
        }
        let mut served = Vec::new();
        let mut next_check: Option<Timestamp> = None;
        let mut fronts = self.queue.front_of_each();
        while let Some(Reverse((ticket, class))) = fronts.pop() {
            let Some((view, lane, want)) = self.queue.front(class) else { continue };
            match self.best(now, &view, &want, lane) {
                Ok(backend) => {
                    fronts.extend(self.queue.pop_front(class).map(|next| Reverse((next, class))));
                    served.push((ticket, self.take(now, &view, &want, lane, backend)));
                }
                Err(_) => {
                    // A backend that is ready but was refused is reserved for an earlier waiter, whose own check counts.
                    let later = self.ready_times(now, &view, &want, lane).filter(|d| !d.is_zero()).min();
                    let later = later.map(|d| now + d.max(Duration::from_millis(1)));
                    next_check = [next_check, later].into_iter().flatten().min();
                }
            }
        }
        (self.is_queue_stale, self.next_check) = (false, next_check);
        (served, next_check)
    }

    /// Returns true if this backend may take an attempt in the lane within this time.
    ///
    /// False for one that the lane does not admit, that is drained, that is excluded (in the emergency lane), or that is
    /// known to need longer. With attempts under way a limit may have room earlier than it says, because each of them
    /// may give back what it took.
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
        let is_excluded = lane == Lane::Emergency && member.is_excluded(now, want.parts());
        let needs = match (lane, member.in_flight) {
            (_, 0) => ready_in(member, now, want, lane),
            (Lane::Primary | Lane::Fallback, _) => Some(member.cooldown_left(now, want.parts())),
            (Lane::Emergency, _) => None,
        };
        let is_known_to_need_longer = needs.is_some_and(|needs| needs > within);
        lane.admits(view.backend(index).tier) && !member.is_drained() && !is_excluded && !is_known_to_need_longer
    }

    /// Time until the first backend of the lane may be ready; `None` when unknown.
    pub fn earliest_ready(&self, now: Timestamp, view: &View, want: &Want, lane: Lane) -> Option<Duration> {
        self.ready_times(now, view, want, lane).min()
    }

    /// Time until the first candidate that is not out may take an attempt, in either tier; `None` when there is none, or
    /// it is unknown. One that is down, refuses this size, or is kept for earlier waiters is none.
    pub fn earliest_other(
        &self,
        now: Timestamp,
        view: &View,
        want: &Want,
        is_out: impl Fn(u32) -> bool,
    ) -> Option<Duration> {
        if self.observed.is_some() {
            // It goes as it was recorded.
            return Some(Duration::ZERO);
        }
        let others = want.candidates.iter().copied().filter(|index| !is_out(*index));
        let ready_in = |index: u32| {
            let member = self.member(view.slots[index as usize].0);
            let lane = match view.backend(index).tier {
                Tier::Primary => Lane::Primary,
                Tier::Fallback => Lane::Fallback,
            };
            let is_closed = member.is_down(want.parts())
                || self.is_too_large(now, view, want, index)
                || self.queue.is_behind(view, want, lane, index);
            if is_closed { None } else { ready_in(member, now, want, lane) }
        };
        others.filter_map(ready_in).min()
    }

    fn ready_times(&self, now: Timestamp, view: &View, want: &Want, lane: Lane) -> impl Iterator<Item = Duration> {
        want.candidates.iter().filter_map(move |&index| {
            let member = self.member(view.slots[index as usize].0);
            lane.admits(view.backend(index).tier).then(|| ready_in(member, now, want, lane)).flatten()
        })
    }
}

/// Time until a backend can take what is wanted in this lane; `None` when unknown.
fn ready_in(member: &Member, now: Timestamp, want: &Want, lane: Lane) -> Option<Duration> {
    match lane {
        Lane::Primary | Lane::Fallback => member.readiness(now, want.parts(), want.tokens).1,
        Lane::Emergency => member.emergency_in(now, want.parts(), want.tokens),
    }
}
