//! Hooks of the lab: a fleet that begins in a given state, or shows a recorded moment.

use super::member::InitialState;
use super::members::Fleet;
use super::observed::Observed;
use super::permits::Permit;
use super::queue::Ticket;
use crate::time::Timestamp;

impl Fleet {
    /// Sets a backend's state as it is when a simulation starts; false when there is none of that id.
    pub fn set_initial_state(&mut self, now: Timestamp, id: &str, state: &InitialState) -> bool {
        self.update_member(id, |member| {
            member.reset();
            member.set_initial_state(now, state);
        })
    }

    /// Shows a recorded moment instead of the present state from now on; `None` ends that.
    pub fn observe(&mut self, observed: Option<Observed>) {
        self.is_queue_stale = true;
        self.observed = observed.map(Box::new);
    }

    /// Hands a permit of a backend to the exchange that waits with this ticket, as it was recorded; `None` when nobody does.
    pub fn grant(&mut self, now: Timestamp, ticket: Ticket, backend: u32) -> Option<Permit> {
        self.is_queue_stale = true;
        let (view, lane, want) = self.queue.take(ticket)?;
        Some(self.take(now, &view, &want, lane, backend))
    }
}
