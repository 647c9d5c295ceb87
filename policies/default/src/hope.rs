//! Estimates of whether waiting for a pool can pay, and how long it would take.
//!
//! A limit that is reached, or a 429, ends at a known time: that is always worth counting on. An outage is not: nobody
//! knows when it ends, so a backend that cools for one counts only while it is about to be tried again and has not
//! failed often.

use pointsman_sdk::{NONE, Outcome, Query, Row, State};

use crate::overload;
use crate::pools::Candidate;

/// Prospects of a pool without a ready backend, from its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hope {
    /// Time until the first of known recovery is ready, in ms.
    soonest_ms: Option<u32>,
    /// One may be ready any time, but does not say when.
    any_time: bool,
    /// Number of exchanges that wait already.
    queued: u32,
    /// Requests a minute of all that are hoped for; none where one has no such limit.
    rpm: Option<u64>,
    /// One of them is cooling.
    is_cooling: bool,
}

impl Hope {
    /// The hope in these candidates; none when there is none.
    pub(crate) fn of<'a>(candidates: impl Iterator<Item = &'a Candidate>, query: &Query) -> Option<Self> {
        let mut hope = Self { soonest_ms: None, any_time: false, queued: 0, rpm: Some(0), is_cooling: false };
        for candidate in candidates {
            let row = query.backend(candidate.index);
            if !is_hope(row) {
                continue;
            }
            match row.ready_ms() {
                NONE => hope.any_time = true,
                ms => hope.soonest_ms = Some(hope.soonest_ms.map_or(ms, |soonest| soonest.min(ms))),
            }
            hope.queued = hope.queued.max(row.queued());
            hope.is_cooling |= row.state() == State::Cooling;
            hope.rpm = match candidate.load.rpm {
                NONE => None,
                rpm => hope.rpm.map(|sum| sum + u64::from(rpm)),
            };
        }
        (hope.any_time || hope.soonest_ms.is_some()).then_some(hope)
    }

    /// Expected wait of this exchange, those before it in the queue included; one whole wait where nothing is known.
    pub(crate) fn expected_ms(&self, one_wait_ms: u32) -> u64 {
        let known = self.soonest_ms.map(|ms| u64::from(ms) + self.queue_ms());
        match (known, self.any_time) {
            (Some(ms), false) => ms,
            (Some(ms), true) => ms.min(u64::from(one_wait_ms)),
            (None, _) => u64::from(one_wait_ms),
        }
    }

    /// The queue as this exchange would join it, where a wait of `target_ms` counts as short.
    pub(crate) fn line(&self, expected_ms: u64, target_ms: u32) -> overload::View {
        let is_short = expected_ms <= u64::from(target_ms) || self.queued == 0;
        overload::View { is_short, is_cooling: self.is_cooling }
    }

    /// The time the queue takes at the pace of the pool's rpm limits.
    fn queue_ms(&self) -> u64 {
        match self.rpm {
            Some(rpm) => u64::from(self.queued) * 60_000 / rpm.max(1),
            None => 0,
        }
    }
}

/// Returns true if this backend may recover in a time worth waiting for.
fn is_hope(row: Row) -> bool {
    match row.state() {
        State::Throttled => true,
        State::Cooling | State::Probing => match row.cooldown_reason() {
            Outcome::ConnectFailed
            | Outcome::TimedOut
            | Outcome::Reset
            | Outcome::Unauthorised
            | Outcome::OutOfCredit
            | Outcome::ModelMissing => is_about_to_be_tried(row),
            Outcome::ServerError | Outcome::Overloaded | Outcome::Malformed | Outcome::Cut | Outcome::Stalled => {
                row.failures() < MANY_FAILURES || is_about_to_be_tried(row)
            }
            Outcome::RateLimited
            | Outcome::Answered
            | Outcome::Refused
            | Outcome::TooLong
            | Outcome::ClientGone
            | Outcome::NotResumed
            | Outcome::Unknown => true,
        },
        State::Ready | State::Drained | State::Unsuited | State::Unknown => false,
    }
}

const MANY_FAILURES: u32 = 3;

/// Or is being tried right now.
fn is_about_to_be_tried(row: Row) -> bool {
    const SOON_MS: u32 = 1_500;
    let is_soon = row.state() == State::Probing || row.ready_ms() <= SOON_MS;
    is_soon && row.failures() < MANY_FAILURES
}

/// Returns true if the backend is excluded (key, credit or model), which holds in an emergency too.
pub(crate) fn is_hopeless(row: Row) -> bool {
    matches!(row.state(), State::Cooling | State::Probing)
        && matches!(row.cooldown_reason(), Outcome::Unauthorised | Outcome::OutOfCredit | Outcome::ModelMissing)
}
