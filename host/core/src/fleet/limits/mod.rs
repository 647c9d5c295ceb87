//! Rate limits as providers count them, and the quotas that providers report.

mod ceiling;
mod models;
mod quota;
mod rates;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

pub use ceiling::Ceiling;
pub use models::ModelRates;
pub use quota::Quota;
pub use rates::RateLimits;

/// Window of a limit that we count ourselves.
const MINUTE_US: u64 = 60_000_000;

/// Length added to the window of a limit that a provider counts. The provider counts arrivals, and a request on a new
/// connection may arrive this much later than one that is sent a minute after it.
const ARRIVAL_JITTER_US: u64 = 500_000;

/// Window of a daily limit.
const DAY_US: u64 = 24 * 60 * MINUTE_US;

/// Entries of a log with a time of their own; beyond it, units taken within the same cell, a five-hundredth of the window,
/// share an entry.
const EXACT_ENTRIES: usize = 500;

/// A five-hundredth of a minute.
const CELL_US: u64 = MINUTE_US / 500;

/// Longest time to pay off a debt, in nanoseconds; that of a daily limit is a day.
const MAX_DEBT_NS: u64 = 3_600_000_000_000;

/// A limit of units within any minute, or any day: a sliding window log of the units taken.
///
/// All units left may be taken at once, or at most `burst` at once and the rest spaced. Units that exceed the window are a
/// debt, paid off at the rate of the limit by the generic cell rate algorithm: an amount larger than the limit, which may
/// be taken when the window is empty, and units taken before they were ready.
///
/// Times are exact up to `EXACT_ENTRIES` entries a window. Beyond it, units taken within the same 0.12 s of a minute, or
/// 173 s of a day, count from the last of them, so that they come back that much late: at least 99.8 % of the limit is
/// used, and never more than it.
#[derive(Clone, Debug)]
pub struct RateLimit {
    limit: u32,
    burst: u32,
    window_us: u64,
    /// Time to pay off one unit, rounded down (the log, not the debt, enforces the limit).
    unit_ns: u64,
    /// Ascending in time; at most `EXACT_ENTRIES` and one for each cell of the window.
    log: VecDeque<Entry>,
    /// The last entry that left the window.
    expired: Entry,
}

/// Units taken at one time, with running sums.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Time when the last of its units was taken.
    at_us: u64,
    /// Units ever taken, up to and including this entry.
    total: u64,
    /// Time when the debt up to and including this entry is paid off (the theoretical arrival time).
    paid_at_ns: u64,
}

impl Entry {
    /// Builds the entry that follows this one.
    fn next(self, at_us: u64, units: u64, unit_ns: u64, max_debt_ns: u64) -> Entry {
        let at_ns = at_us.saturating_mul(1_000);
        let paid_at_ns = self.paid_at_ns.max(at_ns).saturating_add(unit_ns.saturating_mul(units));
        Entry { at_us, total: self.total + units, paid_at_ns: paid_at_ns.min(at_ns.saturating_add(max_debt_ns)) }
    }
}

impl RateLimit {
    /// Creates an unused limit that we count ourselves. `limit` is at least 1.
    pub fn per_minute(limit: u32) -> Self {
        Self::with_burst(limit, limit)
    }

    /// Creates an unused limit with at most `burst` units at once, the rest spaced evenly.
    pub fn with_burst(limit: u32, burst: u32) -> Self {
        Self::new(limit, burst, MINUTE_US)
    }

    /// Creates an unused limit that a provider counts by arrivals; without a `burst` all units may be taken at once.
    pub fn for_provider(limit: u32, burst: Option<u32>) -> Self {
        Self::new(limit, burst.unwrap_or(limit), MINUTE_US + ARRIVAL_JITTER_US)
    }

    /// Creates an unused limit of a day that a provider counts by arrivals.
    pub fn per_day(limit: u32) -> Self {
        Self::new(limit, limit, DAY_US + ARRIVAL_JITTER_US)
    }

    fn new(limit: u32, burst: u32, window_us: u64) -> Self {
        let (log, expired) = (VecDeque::new(), Entry::default());
        let mut new = Self { limit, burst, window_us, unit_ns: 0, log, expired };
        new.set(limit, burst);
        new
    }

    /// Returns the same limit, unused.
    pub fn unused(&self) -> Self {
        Self::new(self.limit, self.burst, self.window_us)
    }

    /// Changes the limit; units already used stay used.
    pub fn set(&mut self, limit: u32, burst: u32) {
        self.limit = limit.max(1);
        self.burst = burst.clamp(1, self.limit);
        self.unit_ns = self.window_us * 1_000 / u64::from(self.limit);
        let max_debt_ns = self.max_debt_ns();
        let (mut previous, mut total) = (self.expired, self.expired.total);
        for entry in &mut self.log {
            let units = entry.total - std::mem::replace(&mut total, entry.total);
            *entry = previous.next(entry.at_us, units, self.unit_ns, max_debt_ns);
            previous = *entry;
        }
    }

    /// Longest time to pay off a debt, in nanoseconds.
    fn max_debt_ns(&self) -> u64 {
        MAX_DEBT_NS.max(self.window_us.saturating_mul(1_000))
    }

    fn last(&self) -> &Entry {
        self.log.back().unwrap_or(&self.expired)
    }

    fn burst_ns(&self) -> u64 {
        self.unit_ns * u64::from(self.burst)
    }

    /// Time until `units` may be taken, exact to the microsecond; zero: now. Amounts above the limit (or the burst) count
    /// as the limit (or the burst). O(log n) in the entries of the log.
    pub fn ready_in(&self, now: Timestamp, units: u32) -> Duration {
        let now_us = now.as_micros();
        let at_us = self.room_at_us(units).max(self.paced_at_us(units));
        Duration::from_micros(at_us.saturating_sub(now_us))
    }

    /// Time when the window has room for `units`.
    fn room_at_us(&self, units: u32) -> u64 {
        let total = self.last().total + u64::from(units.min(self.limit));
        // The units that have to leave the window.
        let leaving = total.saturating_sub(u64::from(self.limit));
        if leaving <= self.expired.total {
            return 0;
        }
        // In a limit under constant use this is mostly the first entry.
        let entry = match self.log.front() {
            Some(first) if first.total >= leaving => first,
            Some(_) | None => &self.log[self.log.partition_point(|entry| entry.total < leaving)],
        };
        entry.at_us.saturating_add(self.window_us)
    }

    /// Time when the debt leaves room for `units` within the burst.
    fn paced_at_us(&self, units: u32) -> u64 {
        let cost_ns = self.unit_ns * u64::from(units.min(self.burst));
        let at_ns = (self.last().paid_at_ns.saturating_add(cost_ns)).saturating_sub(self.burst_ns());
        at_ns.div_ceil(1_000)
    }

    /// Units that may be taken now.
    pub fn left(&self, now: Timestamp) -> u32 {
        let now_us = now.as_micros();
        let used = self.last().total - self.expired_total(now_us);
        let debt_ns = self.last().paid_at_ns.saturating_sub(now_us.saturating_mul(1_000));
        let paced = self.burst_ns().saturating_sub(debt_ns) / self.unit_ns;
        let left = u64::from(self.limit).saturating_sub(used).min(paced);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Sum of the units that have left the window.
    fn expired_total(&self, now_us: u64) -> u64 {
        let is_expired = |entry: &Entry| entry.at_us.saturating_add(self.window_us) <= now_us;
        match (self.log.front(), self.log.back()) {
            (Some(first), Some(last)) if is_expired(first) => {
                if is_expired(last) {
                    return last.total;
                }
                self.entry_before(self.log.partition_point(is_expired)).total
            }
            _ => self.expired.total,
        }
    }

    /// Takes `units`, ready or not.
    pub fn take(&mut self, now: Timestamp, units: u32) {
        if units == 0 {
            return;
        }
        let now_us = now.as_micros();
        while let Some(first) = self.log.front().filter(|first| first.at_us.saturating_add(self.window_us) <= now_us) {
            self.expired = *first;
            self.log.pop_front();
        }
        let last = *self.last();
        let next = last.next(now_us.max(last.at_us), u64::from(units), self.unit_ns, self.max_debt_ns());
        let cell_us = CELL_US * (self.window_us / MINUTE_US);
        let shares_cell = self.log.len() >= EXACT_ENTRIES && next.at_us / cell_us == last.at_us / cell_us;
        match self.log.back_mut() {
            Some(back) if next.at_us == last.at_us || shares_cell => *back = next,
            Some(_) | None => self.log.push_back(next),
        }
    }

    /// Gives back units that were taken at `taken_at` and not used, as if they had never been taken; units that have left
    /// the window are ignored. O(n) in the entries since then.
    pub fn give_back(&mut self, taken_at: Timestamp, units: u32) {
        let taken_us = taken_at.as_micros();
        let has_left = self.expired.total > 0 && taken_us <= self.expired.at_us;
        let index = self.log.partition_point(|entry| entry.at_us < taken_us);
        if units == 0 || has_left || index == self.log.len() {
            return;
        }
        let (before, max_debt_ns) = (self.entry_before(index), self.max_debt_ns());
        let (mut previous, mut total) = (before, before.total);
        let mut given_back = u64::from(units).min(self.log[index].total - total);
        for entry in self.log.range_mut(index..) {
            let units = entry.total - std::mem::replace(&mut total, entry.total) - std::mem::take(&mut given_back);
            let next = previous.next(entry.at_us, units, self.unit_ns, max_debt_ns);
            // The units of a shared entry were taken before its time: its debt must not grow.
            *entry = Entry { paid_at_ns: next.paid_at_ns.min(entry.paid_at_ns), ..next };
            previous = *entry;
        }
        if self.log[index].total == before.total {
            self.log.remove(index);
        }
    }

    /// The entry before the one at this index.
    fn entry_before(&self, index: usize) -> Entry {
        index.checked_sub(1).and_then(|i| self.log.get(i)).copied().unwrap_or(self.expired)
    }

    /// Sets the units left now, for the start of a simulation. The used units count as taken evenly over the last window.
    pub fn set_left(&mut self, now: Timestamp, units: u32) {
        (self.log, self.expired) = (VecDeque::new(), Entry::default());
        if self.burst < self.limit {
            return self.take(now, self.burst.saturating_sub(units));
        }
        let used = u64::from(self.limit.saturating_sub(units));
        let steps = used.min(EXACT_ENTRIES as u64);
        for step in 1..=steps {
            let ago_us = self.window_us * (steps - step) / steps;
            let amount = used * step / steps - used * (step - 1) / steps;
            self.take(now - Duration::from_micros(ago_us), u32::try_from(amount).unwrap_or(u32::MAX));
        }
    }

    /// Makes the limit used up for this time, for the start of a simulation.
    pub fn block_for(&mut self, now: Timestamp, wait: Duration) {
        (self.log, self.expired) = (VecDeque::new(), Entry::default());
        let held_us = if self.burst < self.limit { self.unit_ns.div_ceil(1_000) } else { self.window_us };
        self.take((now + wait) - Duration::from_micros(held_us), self.burst);
    }
}
