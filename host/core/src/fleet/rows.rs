//! Rows of the backends: the live numbers that a query shows to the policy.

use super::member::RowContext;
use super::members::Fleet;
use super::permits::Permit;
use crate::affinity::Home;
use crate::contract::{BackendRow, Column, RowState};
use crate::table::{Lane, Tier};
use crate::time::Timestamp;
use crate::view::{View, Want};

impl Fleet {
    /// Builds the row of every backend for a query. `held` is the permit that the exchange was given while it waited.
    pub fn rows(&self, now: Timestamp, view: &View, want: &Want, held: Option<&Permit>) -> Vec<BackendRow> {
        if let Some(observed) = &self.observed {
            return observed.rows.clone();
        }
        let mut rows = vec![BackendRow::UNSUITED; view.slots.len()];
        let queued = [Lane::Primary, Lane::Fallback].map(|lane| self.count_ahead(want, lane));
        for &i in want.candidates.iter() {
            let slot = view.slots[i as usize].0;
            let (lane, queued) = match view.backend(i).tier {
                Tier::Primary => (Lane::Primary, queued[0]),
                Tier::Fallback => (Lane::Fallback, queued[1]),
            };
            let context = RowContext {
                holds: held.filter(|p| p.slot.0 == slot).map(|p| p.lane),
                is_behind: queued > 0 && self.queue.is_behind(view, want, lane, i),
                queued,
                home: Home::number(want.home, i),
            };
            self.member(slot).write_row(now, want.parts(), want.tokens, context, &mut rows[i as usize]);
        }
        self.hide_translated(view, want, held, &mut rows);
        self.hide_too_small(now, view, want, held, &mut rows);
        rows
    }

    /// Marks backends that have refused a request of this size lately as unsuited, while one that has not is ready.
    fn hide_too_small(&self, now: Timestamp, view: &View, want: &Want, held: Option<&Permit>, rows: &mut [BackendRow]) {
        if !want.candidates.iter().any(|i| self.member(view.slots[*i as usize].0).has_ceilings()) {
            return;
        }
        let is_too_large = |i: u32| self.is_too_large(now, view, want, i);
        if !want.candidates.iter().any(|&i| rows[i as usize].is(RowState::Ready) && !is_too_large(i)) {
            return;
        }
        for &i in want.candidates.iter().filter(|i| is_too_large(**i)) {
            if held.is_none_or(|p| p.slot.0 != view.slots[i as usize].0) {
                rows[i as usize].put(Column::State, RowState::Unsuited as u32);
            }
        }
    }

    /// Returns true if a backend has refused a request of this size lately.
    pub(super) fn is_too_large(&self, now: Timestamp, view: &View, want: &Want, index: u32) -> bool {
        self.member(view.slots[index as usize].0).is_too_large(now, &want.model, want.origin.size)
    }

    /// Marks backends that need a translation as unsuited while one of their tier that needs none is ready.
    fn hide_translated(&self, view: &View, want: &Want, held: Option<&Permit>, rows: &mut [BackendRow]) {
        for &i in want.foreign.iter() {
            let is_held = held.is_some_and(|p| p.slot.0 == view.slots[i as usize].0);
            let is_better = |j: &&u32| {
                let is_ready = rows[**j as usize].is(RowState::Ready);
                is_ready && want.foreign.binary_search(j).is_err() && view.backend(**j).tier == view.backend(i).tier
            };
            if !is_held && want.candidates.iter().any(|j| is_better(&j)) {
                rows[i as usize].put(Column::State, RowState::Unsuited as u32);
            }
        }
    }

    fn count_ahead(&self, want: &Want, lane: Lane) -> u32 {
        if self.queue.is_empty() {
            return 0;
        }
        u32::try_from(self.queue.ahead(lane, want.rank)).unwrap_or(u32::MAX)
    }
}
