//! Rate limits as providers count them, and what providers say of theirs.

mod quota;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

pub use quota::Quota;

/// The window of a limit that is counted here.
const MINUTE_US: u64 = 60_000_000;

/// The window of a limit that a provider counts is longer by this: what was sent over a new connection may arrive so much
/// later than what is sent a minute after it, and the provider counts arrivals.
const ARRIVAL_JITTER_US: u64 = 500_000;

/// So many entries of a log have times of their own; beyond it, what is taken within the same [`CELL_US`] shares one.
const EXACT_ENTRIES: usize = 500;

/// A five-hundredth of a minute.
const CELL_US: u64 = MINUTE_US / 500;

/// The longest that a debt is paid off.
const MAX_DEBT_NS: u64 = 3_600_000_000_000;

/// A limit of so many units within any minute: a log of what was taken and when.
///
/// All that is left may go at once, or no more than `burst` at once and the rest spaced. What the window does not see is a
/// debt that is paid off at the pace of the limit: an amount larger than the limit, which may go while nothing else is in
/// the window, and what was taken without being ready. The debt is kept by the generic cell rate algorithm.
///
/// Times are exact up to [`EXACT_ENTRIES`] entries a minute. Beyond it those within the same 0.12 s count as of the last
/// of them, so that what they hold comes back up to 0.12 s late: 99.8 % of the limit, and never more than the limit.
#[derive(Clone, Debug)]
pub struct RateLimit {
    limit: u32,
    burst: u32,
    window_us: u64,
    /// The time that the debt of one unit takes, rounded down: the log is what keeps the limit.
    unit_ns: u64,
    /// Ascending in time; at most [`EXACT_ENTRIES`] and one for each cell of the window.
    log: VecDeque<Entry>,
    /// The last entry that left the log.
    before: Entry,
}

/// Something taken, with the sums up to it.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// When the last of it was taken.
    at_us: u64,
    /// All units that were ever taken, up to this entry and with it.
    total: u64,
    /// When the debt up to this entry and with it is paid off (the theoretical arrival time).
    paid_at_ns: u64,
}

impl Entry {
    /// The entry after this one.
    fn next(self, at_us: u64, units: u64, unit_ns: u64) -> Entry {
        let at_ns = at_us.saturating_mul(1_000);
        let paid_at_ns = self.paid_at_ns.max(at_ns).saturating_add(unit_ns.saturating_mul(units));
        Entry { at_us, total: self.total + units, paid_at_ns: paid_at_ns.min(at_ns.saturating_add(MAX_DEBT_NS)) }
    }
}

impl RateLimit {
    /// A limit that is counted here, of which nothing is used. `limit` is at least 1.
    pub fn per_minute(limit: u32) -> Self {
        Self::with_burst(limit, limit)
    }

    /// The same, with at most `burst` at once, the rest spaced evenly.
    pub fn with_burst(limit: u32, burst: u32) -> Self {
        Self::new(limit, burst, MINUTE_US)
    }

    /// A limit that a provider counts by arrivals; without a `burst` all that is left may go at once.
    pub fn of_provider(limit: u32, burst: Option<u32>) -> Self {
        Self::new(limit, burst.unwrap_or(limit), MINUTE_US + ARRIVAL_JITTER_US)
    }

    fn new(limit: u32, burst: u32, window_us: u64) -> Self {
        let (log, before) = (VecDeque::new(), Entry::default());
        let mut new = Self { limit, burst, window_us, unit_ns: 0, log, before };
        new.set(limit, burst);
        new
    }

    /// The same limit, of which nothing is used.
    pub fn unused(&self) -> Self {
        Self::new(self.limit, self.burst, self.window_us)
    }

    /// Takes another limit; what is used stays used.
    pub fn set(&mut self, limit: u32, burst: u32) {
        self.limit = limit.max(1);
        self.burst = burst.clamp(1, self.limit);
        self.unit_ns = self.window_us * 1_000 / u64::from(self.limit);
        let (mut previous, mut total) = (self.before, self.before.total);
        for entry in &mut self.log {
            let units = entry.total - std::mem::replace(&mut total, entry.total);
            *entry = previous.next(entry.at_us, units, self.unit_ns);
            previous = *entry;
        }
    }

    fn last(&self) -> &Entry {
        self.log.back().unwrap_or(&self.before)
    }

    fn burst_ns(&self) -> u64 {
        self.unit_ns * u64::from(self.burst)
    }

    /// How long until `units` may go, exact to the microsecond; zero now. What is larger than the limit (or the burst)
    /// counts as large as that. O(log n) in the entries of the log.
    pub fn ready_in(&self, now: Timestamp, units: u32) -> Duration {
        let now_us = now.as_micros();
        let at_us = self.room_at_us(units).max(self.paced_at_us(units));
        Duration::from_micros(at_us.saturating_sub(now_us))
    }

    /// When the window has room for `units`.
    fn room_at_us(&self, units: u32) -> u64 {
        let total = self.last().total + u64::from(units.min(self.limit));
        // All of these units have to leave the window.
        let leaving = total.saturating_sub(u64::from(self.limit));
        if leaving <= self.before.total {
            return 0;
        }
        // Of a limit in use it is mostly the first.
        let entry = match self.log.front() {
            Some(first) if first.total >= leaving => first,
            Some(_) | None => &self.log[self.log.partition_point(|entry| entry.total < leaving)],
        };
        entry.at_us.saturating_add(self.window_us)
    }

    /// When the debt leaves room for `units` within the burst.
    fn paced_at_us(&self, units: u32) -> u64 {
        let cost_ns = self.unit_ns * u64::from(units.min(self.burst));
        let at_ns = (self.last().paid_at_ns.saturating_add(cost_ns)).saturating_sub(self.burst_ns());
        at_ns.div_ceil(1_000)
    }

    /// Units that could go right now.
    pub fn left(&self, now: Timestamp) -> u32 {
        let now_us = now.as_micros();
        let used = self.last().total - self.gone(now_us);
        let debt_ns = self.last().paid_at_ns.saturating_sub(now_us.saturating_mul(1_000));
        let paced = self.burst_ns().saturating_sub(debt_ns) / self.unit_ns;
        let left = u64::from(self.limit).saturating_sub(used).min(paced);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// The sum of all that has left the window.
    fn gone(&self, now_us: u64) -> u64 {
        let is_gone = |entry: &Entry| entry.at_us.saturating_add(self.window_us) <= now_us;
        match (self.log.front(), self.log.back()) {
            (Some(first), Some(last)) if is_gone(first) => {
                if is_gone(last) {
                    return last.total;
                }
                self.before(self.log.partition_point(is_gone)).total
            }
            _ => self.before.total,
        }
    }

    /// Takes `units`, whether or not they are ready.
    pub fn take(&mut self, now: Timestamp, units: u32) {
        if units == 0 {
            return;
        }
        let now_us = now.as_micros();
        while let Some(first) = self.log.front().filter(|first| first.at_us.saturating_add(self.window_us) <= now_us) {
            self.before = *first;
            self.log.pop_front();
        }
        let last = *self.last();
        let next = last.next(now_us.max(last.at_us), u64::from(units), self.unit_ns);
        let shares_cell = self.log.len() >= EXACT_ENTRIES && next.at_us / CELL_US == last.at_us / CELL_US;
        match self.log.back_mut() {
            Some(back) if next.at_us == last.at_us || shares_cell => *back = next,
            Some(_) | None => self.log.push_back(next),
        }
    }

    /// Gives back units that were taken at `taken_at` and not used, as if they had never been taken; what has left the
    /// window holds nothing any more. O(n) in the entries since then.
    pub fn give_back(&mut self, taken_at: Timestamp, units: u32) {
        let taken_us = taken_at.as_micros();
        let has_left = self.before.total > 0 && taken_us <= self.before.at_us;
        let index = self.log.partition_point(|entry| entry.at_us < taken_us);
        if units == 0 || has_left || index == self.log.len() {
            return;
        }
        let before = self.before(index);
        let (mut previous, mut total) = (before, before.total);
        let mut given_back = u64::from(units).min(self.log[index].total - total);
        for entry in self.log.range_mut(index..) {
            let units = entry.total - std::mem::replace(&mut total, entry.total) - std::mem::take(&mut given_back);
            let next = previous.next(entry.at_us, units, self.unit_ns);
            // An entry of a whole cell was taken earlier than it says: it owes no more than it did.
            *entry = Entry { paid_at_ns: next.paid_at_ns.min(entry.paid_at_ns), ..next };
            previous = *entry;
        }
        if self.log[index].total == before.total {
            self.log.remove(index);
        }
    }

    /// The entry before the one at this index.
    fn before(&self, index: usize) -> Entry {
        index.checked_sub(1).and_then(|i| self.log.get(i)).copied().unwrap_or(self.before)
    }

    /// Only so many units are left now; for a world that does not begin with unused limits. What is used was taken evenly
    /// over the window before.
    pub fn leave(&mut self, now: Timestamp, units: u32) {
        (self.log, self.before) = (VecDeque::new(), Entry::default());
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

    /// One unit may go only after this; for a world that does not begin with unused limits.
    pub fn leave_none_for(&mut self, now: Timestamp, wait: Duration) {
        (self.log, self.before) = (VecDeque::new(), Entry::default());
        let held_us = if self.burst < self.limit { self.unit_ns.div_ceil(1_000) } else { self.window_us };
        self.take((now + wait) - Duration::from_micros(held_us), self.burst);
    }
}
