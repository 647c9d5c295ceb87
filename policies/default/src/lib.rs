//! The policy Pointsman decides with when none is configured, and its native twin when another one fails.
//!
//! For each question the steps below are tried in turn; the first that has an answer gives it.
//!
//! 1. **Primary**: the best ready primary by [`pointsman_sdk::Load::cost`] (errors, failures, fullness, time to answer); among those
//!    within a quarter of the best, one by weight and the query's seed. Before all the one that holds the session's prompt
//!    cache (the column `home`), while it is well and not nearly full. One that this exchange has not tried goes first.
//!    Budget: `1 + max_pool_retries` attempts since the last wait, twice that in the whole exchange.
//! 2. **Wait for a primary** when none is ready and waiting can pay: see [`hope`]. At most `primary_wait_max_retries`
//!    waits of at most `primary_wait_ms`, less the time that was lost in attempts which hung; what the recovery is expected to take decides whether to wait at all. In steady
//!    overload ([`overload`]), while a fallback is ready, only who is expected to be served within `overload_wait_ms` joins
//!    the line.
//! 3. **Fallback**: healthy ones first, of these the cheapest for this request where prices are known, then as for
//!    primaries. Each at most twice, `1 + max_pool_retries` together.
//! 4. **Wait for a fallback** that is only throttled and free again within one wait.
//! 5. **Emergency**: any backend whose emergency rate allows it and that may answer at all, three rounds, the ones
//!    never tried first, then the soonest to recover. Not one that last answered this request with a rate limit: to ask
//!    again does not lift it.
//! 6. **Wait for emergency** when its rate allows one within `primary_wait_ms`: three waits of its own, so that spent waits for
//!    primaries do not keep it from its rounds.
//! 7. **Wait for the next probe**: everything is down, but a backend is tried again within `primary_wait_ms`, and may be well by
//!    then. Out of the same waits as those for primaries.
//! 8. **Reject**, in the host's own words.
//!
//! After `too_long`, `model_missing` or `refused` a backend is not used again in the exchange; one that is drained or does not
//! serve the model is never used.
//!
//! Settings, all optional: `primary_wait_ms` (5000), `primary_wait_max_retries` (6), `max_pool_retries` (3),
//! `overload_wait_ms` (2000), `emergency_rpm_fraction` (0.1; the host enforces the rate, the policy only checks the value).
//!
//! The common case, a first question with a ready primary, allocates nothing and leaves no note.

mod choose;
mod history;
mod hope;
mod overload;
mod pools;
mod settings;

use pointsman_sdk::{Decision, Hold, Lane, Policy, Query, Row, State, Table, note};

use crate::choose::{best, cheapest, last_resort};
use crate::history::History;
use crate::hope::Hope;
use crate::overload::Line;
use crate::pools::{Candidate, Pools};
pub use crate::settings::Settings;

/// The default policy.
pub struct Default {
    settings: Settings,
    pools: Pools,
    /// Backend ids, for the notes.
    ids: Vec<String>,
}

pointsman_sdk::export!(Default);

impl Default {
    /// Configured with checked settings.
    pub fn with_settings(settings: Settings, table: &Table) -> Self {
        let ids = table.backends.iter().map(|backend| backend.id.clone()).collect();
        Self { settings, pools: Pools::new(table), ids }
    }
}

impl Policy for Default {
    fn configure(settings: &str, table: &Table) -> Result<Self, String> {
        Ok(Self::with_settings(Settings::parse(settings)?, table))
    }

    fn decide(&mut self, query: &Query) -> Decision {
        let question = Question { policy: self, query, history: History::of(query.attempts) };
        question
            .primary()
            .or_else(|| question.wait_for_primary())
            .or_else(|| question.fallback())
            .or_else(|| question.wait_for_fallback())
            .or_else(|| question.emergency())
            .or_else(|| question.wait_for_emergency())
            .or_else(|| question.wait_for_a_probe())
            .unwrap_or_else(|| question.exhausted())
    }
}

/// One question and what it takes to answer it.
struct Question<'a> {
    policy: &'a Default,
    query: &'a Query<'a>,
    history: History<'a>,
}

impl Question<'_> {
    fn primary(&self) -> Option<Decision> {
        if !self.primary_budget_left() {
            return None;
        }
        let index = best(self.query, &self.history, self.primaries())?;
        if !self.is_first() {
            self.note(|ids| format!("primary {}: best of those ready", ids[index]));
            if !self.is_joining() {
                self.line().count_served();
            }
        }
        Some(Decision::primary(index))
    }

    fn wait_for_primary(&self) -> Option<Decision> {
        let primaries = self.primaries().candidates();
        // A ready one that the budget forbids would end the wait at once.
        let ready = |c: &Candidate| self.history.usable(c.index) && self.query.backend(c.index).is_ready();
        if self.waits_left() == 0
            || self.history.primaries() >= 2 * self.policy.settings.attempts_per_pool()
            || primaries.iter().any(ready)
        {
            return None;
        }
        let hope = Hope::of(primaries.iter().filter(|c| self.history.usable(c.index)), self.query)?;
        let expected_ms = hope.expected_ms(self.policy.settings.primary_wait_ms);
        if self.is_joining() {
            let (line, seen) = (self.line(), hope.line(expected_ms, self.policy.settings.overload_wait_ms));
            line.count_joined();
            if self.query.waits == 0 && line.is_overloaded(seen) && self.has_ready_fallback() {
                self.note(|_| format!("no wait: primaries are overloaded, and this one would need {expected_ms} ms"));
                return None;
            }
        }
        let most_ms = u64::from(self.policy.settings.primary_wait_ms) * u64::from(self.waits_left());
        if expected_ms > most_ms.min(u64::from(self.query.request.remaining_ms)) {
            self.note(|_| format!("no wait: primaries need {expected_ms} ms"));
            return None;
        }
        self.note(|_| format!("wait for a primary: the first is expected in {expected_ms} ms"));
        self.hold(Lane::Primary, self.policy.settings.primary_wait_ms)
    }

    fn fallback(&self) -> Option<Decision> {
        if self.history.fallbacks() >= self.policy.settings.attempts_per_pool() {
            return None;
        }
        let index = cheapest(self.query, &self.history, self.fallbacks(), &self.policy.pools)?;
        self.note(|ids| format!("fallback {}: no primary to try or to wait for", ids[index]));
        Some(Decision::fallback(index))
    }

    fn wait_for_fallback(&self) -> Option<Decision> {
        if self.waits_left() == 0 || self.history.fallbacks() >= self.policy.settings.attempts_per_pool() {
            return None;
        }
        let throttled = |c: &&Candidate| {
            self.history.may_fall_back_to(c.index) && self.query.backend(c.index).state() == State::Throttled
        };
        let rows = self.fallbacks().candidates().iter().filter(throttled).map(|c| self.query.backend(c.index));
        let (_, ready_ms) = pointsman_sdk::soonest_ready(rows)?;
        self.hold_if_within(Lane::Fallback, ready_ms, self.policy.settings.primary_wait_ms)
    }

    fn emergency(&self) -> Option<Decision> {
        let now = self.emergency_candidates().filter(|c| self.query.backend(c.index).emergency_ms() == 0);
        let index = last_resort(self.query, &self.history, now)?;
        self.note(|ids| format!("emergency {}: every pool is exhausted", ids[index]));
        Some(Decision::emergency(index))
    }

    fn wait_for_emergency(&self) -> Option<Decision> {
        if !self.may_wait_for_emergency() {
            return None;
        }
        let soonest_ms = self.emergency_candidates().map(|c| self.query.backend(c.index).emergency_ms()).min()?;
        self.hold_if_within(Lane::Emergency, soonest_ms, self.policy.settings.primary_wait_ms)
    }

    fn wait_for_a_probe(&self) -> Option<Decision> {
        let each = self.policy.settings.attempts_per_pool();
        if self.waits_left() == 0 {
            return None;
        }
        let down_for = |c: &Candidate| {
            let row = self.query.backend(c.index);
            match row.state() {
                State::Cooling if !hope::is_hopeless(row) => Some(row.ready_ms()),
                State::Probing => Some(0),
                State::Cooling
                | State::Ready
                | State::Throttled
                | State::Drained
                | State::Unsuited
                | State::Unknown => None,
            }
        };
        let primaries = (self.history.primaries() < 2 * each).then(|| self.primaries().candidates());
        let fallbacks = (self.history.fallbacks() < each).then(|| self.fallbacks().candidates());
        let usable = |c: &&Candidate| self.history.usable(c.index);
        let may_fall_back = |c: &&Candidate| self.history.may_fall_back_to(c.index);
        let primary = primaries.into_iter().flatten().filter(usable).filter_map(down_for).min();
        let fallback = fallbacks.into_iter().flatten().filter(may_fall_back).filter_map(down_for).min();
        let (ms, lane) = match (primary, fallback) {
            (Some(p), Some(f)) if f < p => (f, Lane::Fallback),
            (Some(p), _) => (p, Lane::Primary),
            (None, Some(f)) => (f, Lane::Fallback),
            (None, None) => return None,
        };
        self.hold_if_within(lane, ms, self.policy.settings.primary_wait_ms)
    }

    /// Nobody says which waits before the first emergency attempt were for one: until then, those for the other lanes
    /// are taken to be spent.
    fn may_wait_for_emergency(&self) -> bool {
        const WAITS: u32 = 3;
        let before = self.history.waits_before_emergency().unwrap_or(self.policy.settings.primary_wait_max_retries);
        self.query.waits < before.saturating_add(WAITS)
    }

    fn exhausted(&self) -> Decision {
        self.note(|_| "nothing left: no primary, no fallback, no emergency".to_owned());
        Decision::exhausted()
    }

    fn primaries(&self) -> &pools::Pool {
        &self.policy.pools.of(self.query.request.model).primary
    }

    fn fallbacks(&self) -> &pools::Pool {
        &self.policy.pools.of(self.query.request.model).fallback
    }

    /// Backends that may answer in the emergency lane, now or later.
    fn emergency_candidates(&self) -> impl Iterator<Item = &Candidate> {
        const ROUNDS: u32 = 3;
        self.primaries().candidates().iter().chain(self.fallbacks().candidates()).filter(|c| {
            let row = self.query.backend(c.index);
            self.history.usable(c.index)
                && row.is_candidate()
                && !hope::is_hopeless(row)
                && !self.history.is_rate_limited(c.index)
                && self.history.emergencies_of(c.index) < ROUNDS
        })
    }

    fn primary_budget_left(&self) -> bool {
        let each = self.policy.settings.attempts_per_pool();
        // A wait for an emergency, when those for primaries are spent, renews nothing.
        let waits = self.query.waits.min(self.policy.settings.primary_wait_max_retries);
        self.history.is_empty() || (self.history.primaries_since(waits) < each && self.history.primaries() < 2 * each)
    }

    /// Time lost in attempts that hung counts like waits.
    fn waits_left(&self) -> u32 {
        let lost = self.history.lost_ms() / u64::from(self.policy.settings.primary_wait_ms.max(1));
        let spent = u64::from(self.query.waits).saturating_add(lost);
        u64::from(self.policy.settings.primary_wait_max_retries).saturating_sub(spent) as u32
    }

    fn hold_if_within(&self, lane: Lane, ms: u32, longest_ms: u32) -> Option<Decision> {
        if ms > longest_ms.min(self.query.request.remaining_ms) {
            return None;
        }
        self.note(|_| format!("wait for {} capacity: expected in {ms} ms", lane_word(lane)));
        self.hold(lane, longest_ms)
    }

    /// As long as may be: the host wakes the exchange the moment there is capacity, so that a longer hold costs nothing,
    /// and a shorter one would be spent on those before it in line.
    fn hold(&self, lane: Lane, longest_ms: u32) -> Option<Decision> {
        let max_ms = longest_ms.min(self.query.request.remaining_ms);
        (max_ms > 0).then_some(Decision::Wait(Hold { max_ms, lane }))
    }

    fn line(&self) -> Line {
        // The pool of a model that is not listed is everybody's; the rows tell who serves it.
        let is_listed = self.query.request.model.is_some();
        let serves = |c: &&Candidate| is_listed || self.query.backend(c.index).state() != State::Unsuited;
        let ids = self.primaries().candidates().iter().filter(serves).map(|c| self.policy.ids[c.index].as_str());
        Line::of(ids, self.query.now_ms)
    }

    /// Returns true if it has not waited since it arrived, or since its last attempt.
    fn is_joining(&self) -> bool {
        self.query.waits == self.query.attempts.last().map_or(0, |last| last.waits_before)
    }

    fn has_ready_fallback(&self) -> bool {
        self.history.fallbacks() < self.policy.settings.attempts_per_pool()
            && self
                .fallbacks()
                .candidates()
                .iter()
                .any(|c| self.query.backend(c.index).is_ready() && self.history.may_fall_back_to(c.index))
    }

    fn is_first(&self) -> bool {
        self.history.is_empty() && self.query.waits == 0
    }

    fn note(&self, text: impl FnOnce(&[String]) -> String) {
        note(&text(&self.policy.ids));
    }
}

fn lane_word(lane: Lane) -> &'static str {
    match lane {
        Lane::Primary => "primary",
        Lane::Fallback => "fallback",
        Lane::Emergency => "emergency",
    }
}

/// Returns true in a state in which an attempt has a fair chance.
fn is_healthy(row: Row) -> bool {
    const SICK_PERMILLE: u32 = 300;
    row.failures() == 0 && row.error_permille() < SICK_PERMILLE
}
