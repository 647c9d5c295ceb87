//! Rate limits as smooth buckets (the generic cell rate algorithm), and what providers say of theirs.

use std::collections::VecDeque;
use std::time::Duration;

use crate::contract::NONE;
use crate::time::Timestamp;

const MINUTE_NS: u64 = 60_000_000_000;

/// A smooth limit of so many units a minute.
///
/// A tenth of the limit may go at once, the rest is spaced evenly, such that no 60 seconds, wherever they begin, see
/// more than the limit. One request that is larger than the burst passes when the bucket is full, and is paid off after.
#[derive(Clone, Debug)]
pub struct Bucket {
    per_minute: u32,
    unit_ns: u64,
    burst_ns: u64,
    /// When the bucket will be full again, in nanoseconds since the epoch (the theoretical arrival time of GCRA).
    full_at_ns: u64,
    /// What was owed just before the last takes, as far as nothing less was owed later: (time of the take, debt).
    lows: VecDeque<(u64, u64)>,
}

/// Lows that a bucket remembers; beyond it the oldest count as one.
const MAX_LOWS: usize = 16;

impl Bucket {
    /// A full bucket. `per_minute` is at least 1.
    pub fn per_minute(per_minute: u32) -> Self {
        Self::with_burst(per_minute, per_minute.div_ceil(10))
    }

    /// A full bucket that lets `burst` units go at once; `burst` is 1..=`per_minute`.
    pub fn with_burst(per_minute: u32, burst: u32) -> Self {
        let per_minute = per_minute.max(1);
        let burst = burst.clamp(1, per_minute);
        let unit_ns = MINUTE_NS.div_ceil(u64::from(per_minute - burst) + 1);
        Self { per_minute, unit_ns, burst_ns: unit_ns * u64::from(burst), full_at_ns: 0, lows: VecDeque::new() }
    }

    /// The limit it was made for.
    pub fn limit(&self) -> u32 {
        self.per_minute
    }

    /// How long until `units` may go; zero now.
    pub fn ready_in(&self, now: Timestamp, units: u32) -> Duration {
        let now_ns = ns(now);
        let debt = self.full_at_ns.saturating_sub(now_ns);
        if debt == 0 {
            return Duration::ZERO;
        }
        let cost = self.unit_ns.saturating_mul(u64::from(units)).min(self.burst_ns);
        Duration::from_nanos((debt + cost).saturating_sub(self.burst_ns))
    }

    /// Takes `units`, whether or not they are ready.
    pub fn take(&mut self, now: Timestamp, units: u32) {
        let cost = self.unit_ns.saturating_mul(u64::from(units));
        let debt = self.full_at_ns.saturating_sub(ns(now));
        self.remember_low(ns(now), debt);
        self.full_at_ns = self.full_at_ns.max(ns(now)).saturating_add(cost);
    }

    fn remember_low(&mut self, at: u64, debt: u64) {
        while self.lows.back().is_some_and(|(_, low)| *low >= debt) {
            self.lows.pop_back();
        }
        self.lows.push_back((at, debt));
        if self.lows.len() > MAX_LOWS
            && let Some((_, lowest)) = self.lows.pop_front()
            && let Some((_, low)) = self.lows.front_mut()
        {
            *low = lowest;
        }
    }

    /// Gives back units that were taken at `taken_at` and not used.
    ///
    /// No more than would be there had they never been taken: a bucket that was full meanwhile would have gained nothing
    /// by them, and to give them back would let a second burst go.
    pub fn give_back(&mut self, taken_at: Timestamp, units: u32) {
        let later = self.lows.partition_point(|(at, _)| *at <= ns(taken_at));
        let lowest = self.lows.get(later).map_or(u64::MAX, |(_, low)| *low);
        let refund = self.unit_ns.saturating_mul(u64::from(units)).min(lowest);
        self.full_at_ns = self.full_at_ns.saturating_sub(refund);
        // As if they had never been taken.
        for (_, low) in self.lows.range_mut(later..) {
            *low -= refund;
        }
        if let Some((_, lowest)) = self.lows.get(later).copied() {
            let kept = self.lows.iter().take(later).take_while(|(_, low)| *low < lowest).count();
            self.lows.drain(kept..later);
        }
    }

    /// Only so many units are left now, at most the burst; for a world that does not begin with full buckets.
    pub fn leave(&mut self, now: Timestamp, units: u32) {
        let debt = self.burst_ns.saturating_sub(self.unit_ns.saturating_mul(u64::from(units)));
        (self.full_at_ns, self.lows) = (ns(now).saturating_add(debt), VecDeque::new());
    }

    /// One unit may go only after this; for a world that does not begin with full buckets.
    pub fn leave_none_for(&mut self, now: Timestamp, wait: Duration) {
        self.leave(now, 1);
        self.full_at_ns = self.full_at_ns.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Units that could go right now.
    pub fn left(&self, now: Timestamp) -> u32 {
        let debt = self.full_at_ns.saturating_sub(ns(now));
        u32::try_from(self.burst_ns.saturating_sub(debt) / self.unit_ns).unwrap_or(u32::MAX)
    }
}

fn ns(t: Timestamp) -> u64 {
    t.as_micros().saturating_mul(1_000)
}

/// What a provider's headers said is left of its own limit, until when.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quota {
    left: u32,
    until: Timestamp,
}

impl Quota {
    /// The provider says: so much is left until then.
    pub fn learn(&mut self, left: u32, until: Timestamp) {
        *self = Self { left, until };
    }

    /// How long until `units` fit; zero when they do, or when what was learned is over.
    pub fn ready_in(&self, now: Timestamp, units: u32) -> Duration {
        if now >= self.until || self.left >= units { Duration::ZERO } else { self.until.since(now) }
    }

    /// Counts what is sent against it.
    pub fn take(&mut self, units: u32) {
        self.left = self.left.saturating_sub(units);
    }

    /// What is left, [`NONE`] when nothing is known.
    pub fn left(&self, now: Timestamp) -> u32 {
        if now >= self.until { NONE } else { self.left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    #[test]
    fn a_bucket_may_begin_with_less_than_all() {
        let mut b = Bucket::per_minute(40);
        b.leave(at(0), 2);
        assert_eq!((b.left(at(0)), b.ready_in(at(0), 1)), (2, Duration::ZERO));
        b.leave_none_for(at(0), Duration::from_millis(800));
        assert_eq!((b.left(at(0)), b.ready_in(at(0), 1)), (0, Duration::from_millis(800)));
    }

    #[test]
    fn a_tenth_goes_at_once_and_the_rest_is_spaced() {
        let mut b = Bucket::per_minute(40);
        for _ in 0..4 {
            assert_eq!(b.ready_in(at(0), 1), Duration::ZERO);
            b.take(at(0), 1);
        }
        let wait = b.ready_in(at(0), 1);
        assert!(wait > Duration::from_millis(1_500) && wait < Duration::from_millis(1_700), "{wait:?}");
        assert_eq!(b.left(at(0)), 0);
        assert_eq!(b.ready_in(at(1_700), 1), Duration::ZERO);
    }

    #[test]
    fn what_is_larger_than_the_burst_passes_when_full_and_is_paid_off() {
        let mut b = Bucket::per_minute(1_000);
        assert_eq!(b.ready_in(at(0), 900), Duration::ZERO);
        b.take(at(0), 900);
        assert!(b.ready_in(at(0), 1) > Duration::from_secs(50));
    }

    #[test]
    fn giving_back_makes_room_again() {
        let mut b = Bucket::with_burst(1, 1);
        b.take(at(0), 1);
        assert!(b.ready_in(at(0), 1) > Duration::ZERO);
        b.give_back(at(0), 1);
        assert_eq!(b.ready_in(at(0), 1), Duration::ZERO);
    }

    #[test]
    fn what_would_have_been_there_anyway_is_not_given_back() {
        let mut b = Bucket::with_burst(6, 1);
        b.take(at(0), 1);
        assert_eq!(b.ready_in(at(10_000), 1), Duration::ZERO);
        b.take(at(10_000), 1);
        b.give_back(at(0), 1);
        assert!(b.ready_in(at(10_001), 1) > Duration::from_secs(9), "else two would go at once");
    }

    #[test]
    fn a_learned_quota_blocks_until_its_reset() {
        let mut q = Quota::default();
        assert_eq!(q.ready_in(at(0), 1), Duration::ZERO);
        q.learn(1, at(2_000));
        q.take(1);
        assert_eq!(q.ready_in(at(500), 1), Duration::from_millis(1_500));
        assert_eq!(q.ready_in(at(2_000), 1), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_sixty_seconds_see_more_than_the_limit_whatever_is_given_back(
            rpm in 1u32..200,
            steps in prop::collection::vec((0u64..4_000, 0u8..3, any::<prop::sample::Index>()), 1..600),
        ) {
            let mut b = Bucket::per_minute(rpm);
            let mut now = at(0);
            let mut sent: Vec<Timestamp> = Vec::new();
            for (gap, what, which) in steps {
                now = now + Duration::from_millis(gap);
                if what == 0 && !sent.is_empty() {
                    // One of the last: attempts do not last for ever.
                    let recent = sent.len().saturating_sub(20);
                    let unused = sent.remove(recent + which.index(sent.len() - recent));
                    b.give_back(unused, 1);
                } else if b.ready_in(now, 1) == Duration::ZERO {
                    b.take(now, 1);
                    sent.push(now);
                }
                let window = sent.iter().filter(|t| now.since(**t) < Duration::from_secs(60)).count();
                prop_assert!(window <= rpm as usize, "{window} in one minute, limit {rpm}");
            }
        }

        #[test]
        fn no_sixty_seconds_see_more_than_the_limit(rpm in 1u32..200, gaps in prop::collection::vec(0u64..4_000, 1..600)) {
            let mut b = Bucket::per_minute(rpm);
            let mut now = at(0);
            let mut sent: Vec<Timestamp> = Vec::new();
            for gap in gaps {
                now = now + Duration::from_millis(gap);
                if b.ready_in(now, 1) == Duration::ZERO {
                    b.take(now, 1);
                    sent.push(now);
                }
            }
            for (i, first) in sent.iter().enumerate() {
                let window = sent[i..].iter().filter(|t| t.since(*first) < Duration::from_secs(60)).count();
                prop_assert!(window <= rpm as usize, "{window} in one minute, limit {rpm}");
            }
        }
    }
}
