//! The waiting line: who waits for what, and since when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use pointsman_core::contract::{Column, Decision, Dispatch, Query, Row, RowState};
use pointsman_core::fleet::health::may_be_requests;
use pointsman_core::outcome::Kind;
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;

use super::{Found, InFlight, Name, Rule};

/// Larger priorities first, then by when it first waited.
type Rank = (Reverse<i32>, u64);

/// Everyone who waits or has waited.
#[derive(Default)]
pub(super) struct Line {
    files: HashMap<(Lane, Name), BTreeMap<Rank, Waiter>>,
    /// Exchanges under way that have waited.
    ranks: HashMap<u64, QueuedExchange>,
    joined: u64,
    /// Backends that an exchange under way has failed at, each with whether that may be its own fault.
    failed_at: HashMap<u64, Vec<(usize, bool)>>,
    /// The question that was put last: nothing else happens between it, its decision and what comes of that.
    asked: Vec<Shown>,
    /// The decision whose consequence has not been seen yet.
    decided: Option<Decided>,
}

struct QueuedExchange {
    rank: Rank,
    /// Queue that it waits in.
    file: Option<(Lane, Name)>,
    /// Backend that it was given a permit of.
    granted: Option<usize>,
}

struct Waiter {
    exchange: u64,
    since: Timestamp,
    backends: Vec<usize>,
}

/// Target of a wait that a decision begins.
#[derive(Clone, Copy)]
enum Decided {
    /// Any backend of the lane that was not shown as open.
    Wait(Lane),
    /// This backend, or any of the lane.
    Dispatch(Lane, Option<usize>),
}

#[derive(Clone, Copy)]
struct Shown {
    suited: bool,
    ready: bool,
    open_to_emergency: bool,
}

impl Line {
    pub(super) fn asked(&mut self, query: &Query) {
        let shown = |row: Row<'_>| Shown {
            suited: !row.is(RowState::Unsuited),
            ready: row.is(RowState::Ready),
            open_to_emergency: row.number(Column::EmergencyMs) == 0,
        };
        self.asked.clear();
        self.asked.extend(query.rows.iter().map(shown));
    }

    pub(super) fn decided(&mut self, decision: &Decision) {
        let named = |dispatch: &Dispatch| dispatch.backend.map(|backend| backend as usize);
        self.decided = match decision {
            Decision::Primary(dispatch) => Some(Decided::Dispatch(Lane::Primary, named(dispatch))),
            Decision::Fallback(dispatch) => Some(Decided::Dispatch(Lane::Fallback, named(dispatch))),
            Decision::Emergency(dispatch) => Some(Decided::Dispatch(Lane::Emergency, named(dispatch))),
            Decision::Wait(hold) => Some(Decided::Wait(hold.lane)),
            Decision::Reject(_) => None,
        };
    }

    pub(super) fn waits(&mut self, exchange: u64, now: Timestamp, model: Name, priority: i32, view: &View) {
        let Some(decided) = self.decided else { return };
        let (Decided::Wait(lane) | Decided::Dispatch(lane, _)) = decided;
        self.joined += 1;
        let newcomer = QueuedExchange { rank: (Reverse(priority), self.joined), file: None, granted: None };
        let place = self.ranks.entry(exchange).or_insert(newcomer);
        place.file = Some((lane, model));
        place.granted = None;
        let is_meant = |(i, shown): &(usize, &Shown)| {
            let is_waited_for = match decided {
                Decided::Wait(Lane::Emergency) => !shown.open_to_emergency,
                Decided::Wait(Lane::Primary | Lane::Fallback) => !shown.ready,
                Decided::Dispatch(_, named) => named.is_none_or(|named| named == *i),
            };
            shown.suited && is_waited_for && lane.admits(view.backend(*i as u32).tier)
        };
        let backends = self.asked.iter().enumerate().filter(is_meant).map(|(i, _)| i).collect();
        self.files.entry((lane, model)).or_default().insert(place.rank, Waiter { exchange, since: now, backends });
    }

    pub(super) fn granted(&mut self, exchange: u64, now: Timestamp, backend: u32) -> Found {
        match self.leave(exchange) {
            Some((file, rank)) => self.nobody_before(file, rank, backend as usize, now),
            None => Err((Rule::Order, "it was given a permit that it did not wait for".to_owned())),
        }
    }

    pub(super) fn waited(&mut self, exchange: u64, now: Timestamp, granted: Option<u32>) -> Found {
        let left = self.leave(exchange);
        if let Some(place) = self.ranks.get_mut(&exchange) {
            place.granted = granted.map(|backend| backend as usize);
        }
        match (left, granted) {
            // It was served as it joined.
            (Some((file, rank)), Some(backend)) => self.nobody_before(file, rank, backend as usize, now),
            (Some(_), None) | (None, _) => Ok(()),
        }
    }

    fn leave(&mut self, exchange: u64) -> Option<((Lane, Name), Rank)> {
        let place = self.ranks.get_mut(&exchange)?;
        let file = place.file.take()?;
        self.files.get_mut(&file)?.remove(&place.rank);
        Some((file, place.rank))
    }

    pub(super) fn sent(&mut self, attempt: InFlight, priority: i32) -> Found {
        let InFlight { exchange, backend, lane, model, at, .. } = attempt;
        let rank = match self.ranks.get_mut(&exchange) {
            Some(place) => {
                if place.granted.take() == Some(backend) {
                    // It was looked at when it was handed over.
                    return Ok(());
                }
                place.rank
            }
            None => (Reverse(priority), u64::MAX),
        };
        self.nobody_before((lane, model), rank, backend, at)
    }

    pub(super) fn finished(&mut self, exchange: u64) {
        if !self.ranks.is_empty() {
            self.ranks.remove(&exchange);
        }
        if !self.failed_at.is_empty() {
            self.failed_at.remove(&exchange);
        }
    }

    /// An attempt ended: one that fails alone has a cooldown of its own, and one that fails again a pause, under which others
    /// pass it.
    pub(super) fn ended(&mut self, attempt: InFlight, kind: Kind) {
        if !matches!(kind, Kind::Answered | Kind::ClientGone | Kind::NotResumed) {
            self.failed_at.entry(attempt.exchange).or_default().push((attempt.backend, may_be_requests(kind)));
        }
    }

    fn is_held_back(&self, exchange: u64, backend: usize) -> bool {
        let Some(failed) = self.failed_at.get(&exchange) else { return false };
        failed.iter().any(|(at, is_alone)| *at == backend && (*is_alone || failed.len() > 1))
    }

    /// Checks that nobody waits before this rank; one that joined at this very moment may have come after the backend
    /// was given away.
    fn nobody_before(&self, file: (Lane, Name), rank: Rank, backend: usize, now: Timestamp) -> Found {
        let Some(waiters) = self.files.get(&file) else { return Ok(()) };
        let is_waiting = |w: &&Waiter| w.since < now && w.backends.contains(&backend);
        let is_passed_over = |w: &&Waiter| is_waiting(w) && !self.is_held_back(w.exchange, backend);
        match waiters.range(..rank).map(|(_, waiter)| waiter).find(is_passed_over) {
            Some(w) => Err((
                Rule::Order,
                format!(
                    "it was given what exchange {} has waited for since {:?} before",
                    w.exchange + 1,
                    now.since(w.since)
                ),
            )),
            None => Ok(()),
        }
    }
}
