//! Detection of steady overload of a pool of primaries.
//!
//! A line in front of a pool that is only busy for a while gets shorter again, and everybody in it is served for nothing.
//! In steady overload it does not: what exceeds the capacity has to go to the fallback anyway, and a long line only makes
//! the others slow. As in active queue management (CoDel, RFC 8289), a line that was short at some time within an interval
//! is a burst; one that stood for all of it, while more requests joined than were served, is overload.
//!
//! The counts are kept in `state`, so that all instances share them and a replay reads what was read. Only questions that
//! find no ready primary, and those that follow a wait, touch them.

use pointsman_sdk::state;

/// A line that stands for so long is no burst.
const INTERVAL_MS: u64 = 60_000;

/// The same for a pool that was overloaded a short while ago.
const INTERVAL_AGAIN_MS: u64 = 20_000;

/// The same while a primary cools: when it is back, the line may get shorter.
const INTERVAL_COOLING_MS: u64 = 180_000;

/// Time for which an overload is remembered.
const REMEMBERED_MS: u64 = 90_000;

/// A line that nobody joined for so long does not stand.
const IDLE_MS: u64 = 60_000;

/// In place of the time since which a line stands.
const NOT_STANDING: i64 = 0;

/// The width of one count, in ms.
const SLICE_MS: u64 = 10_000;

/// The counts of so many slices before the one under way are compared.
const SLICES: u64 = 6;

/// A count outlives the minute that it is read in.
const KEPT_MS: u64 = (SLICES + 2) * SLICE_MS;

/// The waiting line of one pool at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    pool: u32,
    now_ms: u64,
}

/// The queue as a newcomer finds it that sees no ready primary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// Would it be served within the target wait, or is nobody before it?
    pub is_short: bool,
    /// A primary that is counted on is cooling.
    pub is_cooling: bool,
}

impl Line {
    /// The line in front of the backends with these ids.
    pub(crate) fn of<'a>(ids: impl Iterator<Item = &'a str>, now_ms: u64) -> Self {
        // FNV-1a: a pool keeps its line over a change of the table.
        let bytes = ids.flat_map(|id| id.bytes().chain([0]));
        let pool = bytes.fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Self { pool, now_ms }
    }

    /// Counts a request that is sent to a primary after a wait.
    pub(crate) fn count_served(self) {
        self.count("served");
    }

    /// Counts a request that finds no ready primary, on arrival or after an attempt.
    pub(crate) fn count_joined(self) {
        self.count("joined");
    }

    /// Does a newcomer find the pool overloaded? One that has waited before must not ask: it stands in front of those who came
    /// after it, and would take a long line for a short one.
    pub(crate) fn is_overloaded(self, seen: View) -> bool {
        let standing = self.key("standing");
        let since = state::get(&standing).filter(|ms| *ms != NOT_STANDING);
        if seen.is_short {
            if since.is_some() {
                // It is kept for as short as may be.
                state::set(&standing, NOT_STANDING, 1);
            }
            return false;
        }
        let since = since.map_or(self.now_ms, |ms| u64::try_from(ms).unwrap_or(self.now_ms));
        state::set(&standing, i64::try_from(since).unwrap_or(i64::MAX), IDLE_MS);
        let remembered = self.key("overloaded");
        let interval_ms = match (seen.is_cooling, state::get(&remembered)) {
            (true, _) => INTERVAL_COOLING_MS,
            (false, Some(_)) => INTERVAL_AGAIN_MS,
            (false, None) => INTERVAL_MS,
        };
        let is_overloaded = self.now_ms.saturating_sub(since) >= interval_ms && self.is_growing();
        if is_overloaded {
            state::set(&remembered, 1, REMEMBERED_MS);
        }
        is_overloaded
    }

    /// Returns true if more requests joined within the last minute than were served. A queue that was not served at all
    /// waits for the end of cooldowns.
    fn is_growing(self) -> bool {
        let served = self.in_last_minute("served");
        served > 0 && self.in_last_minute("joined") > served
    }

    fn count(self, what: &str) {
        state::add(&self.slice_key(what, self.slice()), 1, KEPT_MS);
    }

    fn in_last_minute(self, what: &str) -> i64 {
        let now = self.slice();
        (now.saturating_sub(SLICES)..=now).filter_map(|slice| state::get(&self.slice_key(what, slice))).sum()
    }

    fn slice(self) -> u64 {
        self.now_ms / SLICE_MS
    }

    fn slice_key(self, what: &str, slice: u64) -> String {
        self.key(&format!("{what}/{slice}"))
    }

    fn key(self, what: &str) -> String {
        format!("default/line/{:08x}/{what}", self.pool)
    }
}
