use proptest::prelude::*;

use super::*;

const S: Duration = Duration::from_secs(1);
const US: Duration = Duration::from_micros(1);
const MINUTE: Duration = Duration::from_secs(60);
const CELL: Duration = Duration::from_micros(CELL_US);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

fn all_at_once(limit: &mut RateLimit, now: Timestamp) -> u32 {
    let mut sent = 0;
    while limit.ready_in(now, 1).is_zero() {
        limit.take(now, 1);
        sent += 1;
    }
    sent
}

#[test]
fn all_that_is_left_goes_at_once_and_comes_back_after_a_minute() {
    let mut limit = RateLimit::per_minute(40);
    limit.take(at(0), 1);
    assert_eq!(all_at_once(&mut limit, at(25_000)), 39);
    assert_eq!((limit.left(at(25_000)), limit.ready_in(at(25_000), 1)), (0, S * 35));
    assert_eq!((limit.left(at(60_000)), limit.ready_in(at(60_000), 2)), (1, S * 25));
    assert_eq!((limit.left(at(85_000)), all_at_once(&mut limit, at(85_000))), (40, 40));
}

#[test]
fn a_provider_may_see_a_request_half_a_second_late() {
    let mut limit = RateLimit::for_provider(20, None);
    assert_eq!(all_at_once(&mut limit, at(0)), 20);
    assert_eq!(limit.ready_in(at(0), 1), Duration::from_millis(60_500));
}

#[test]
fn with_a_burst_the_rest_is_spaced() {
    let mut limit = RateLimit::with_burst(20, 2);
    assert_eq!((limit.left(at(0)), all_at_once(&mut limit, at(0))), (2, 2));
    let mut sent = vec![at(0), at(0)];
    while sent.len() < 20 {
        let last = sent[sent.len() - 1];
        assert_eq!(limit.ready_in(last, 1), S * 3);
        assert_eq!(all_at_once(&mut limit, last + S * 3), 1);
        sent.push(last + S * 3);
    }
    // 20 within 54 s: the next may go when the first two have left the minute, and so may another.
    assert_eq!((limit.ready_in(at(54_000), 1), limit.left(at(59_999))), (S * 6, 0));
    assert_eq!(all_at_once(&mut limit, at(60_000)), 2);
}

#[test]
fn what_is_larger_than_the_limit_goes_when_nothing_else_did_and_is_paid_off() {
    let mut limit = RateLimit::per_minute(1_000);
    limit.take(at(0), 1);
    assert_eq!(limit.ready_in(at(0), 2_500), MINUTE);
    assert_eq!(limit.ready_in(at(60_000), 2_500), Duration::ZERO);
    limit.take(at(60_000), 2_500);
    // 2.5 minutes' worth: the first unit after 1.5, all of the limit after 2.5.
    assert_eq!(limit.ready_in(at(60_000), 1), S * 90 + Duration::from_millis(60));
    assert_eq!((limit.ready_in(at(60_000), 1_000), limit.left(at(209_999))), (S * 150, 999));
    // It used only 400 of them.
    limit.give_back(at(60_000), 2_100);
    assert_eq!((limit.left(at(61_000)), limit.ready_in(at(61_000), 601)), (600, S * 59));
}

#[test]
fn what_was_taken_without_being_ready_is_paid_off() {
    let mut limit = RateLimit::per_minute(1_000);
    (0..5).for_each(|n| limit.take(at(n * 1_000), 800));
    assert_eq!(limit.left(at(64_000)), 0, "the minute is over, but 4000 are owed");
    assert_eq!(limit.ready_in(at(64_000), 1_000), S * (4 * 60 - 64));
    limit.take(at(64_000), u32::MAX);
    assert!(limit.ready_in(at(64_000), 1) <= MINUTE * 60, "no debt lasts for ever");
}

#[test]
fn a_refund_removes_what_it_is_for() {
    let mut limit = RateLimit::per_minute(2);
    limit.take(at(0), 1);
    limit.take(at(10_000), 1);
    limit.give_back(at(0), 1);
    assert_eq!((limit.left(at(10_000)), limit.ready_in(at(10_000), 2)), (1, MINUTE));
    limit.give_back(at(10_000), 1);
    assert_eq!(limit.left(at(10_000)), 2);
}

#[test]
fn what_would_have_been_there_anyway_is_not_given_back() {
    let mut limit = RateLimit::with_burst(6, 1);
    limit.take(at(0), 1);
    limit.take(at(10_000), 1);
    limit.give_back(at(0), 1);
    assert_eq!(limit.ready_in(at(10_001), 1), S * 10 - Duration::from_millis(1), "else two would go at once");
    let mut limit = RateLimit::per_minute(1);
    limit.take(at(0), 1);
    limit.take(at(60_000), 1);
    limit.give_back(at(0), 1);
    assert_eq!(limit.left(at(60_000)), 0);
}

#[test]
fn another_limit_keeps_what_is_used() {
    let mut limit = RateLimit::per_minute(10);
    (0..8).for_each(|n| limit.take(at(n * 1_000), 1));
    limit.set(20, 20);
    assert_eq!(limit.left(at(8_000)), 12);
    limit.set(5, 5);
    assert_eq!((limit.left(at(8_000)), limit.ready_in(at(8_000), 1)), (0, S * 55), "when the fourth has left");
    limit.set(10, 2);
    assert_eq!(
        (limit.left(at(8_000)), limit.ready_in(at(8_000), 1)),
        (0, S * 34),
        "spaced by 6 s, 2 at once, they would take till 36 s"
    );
    limit.set(u32::MAX, u32::MAX);
    assert_eq!(limit.left(at(8_000)), u32::MAX - 8);
}

#[test]
fn a_world_may_begin_with_less_than_all() {
    let mut limit = RateLimit::per_minute(40);
    limit.set_left(at(0), 10);
    assert_eq!((limit.left(at(0)), limit.ready_in(at(0), 10), limit.ready_in(at(0), 11)), (10, Duration::ZERO, S * 2));
    assert_eq!(limit.left(at(30_000)), 25, "what was used comes back evenly");
    let mut limit = RateLimit::per_minute(1_000_000);
    limit.set_left(at(0), 500);
    assert_eq!((limit.left(at(0)), limit.left(at(60_000))), (500, 1_000_000));
    let mut limit = RateLimit::with_burst(40, 4);
    limit.set_left(at(0), 3);
    assert_eq!((limit.left(at(0)), limit.left(at(1_500))), (3, 4));
    for mut limit in [RateLimit::per_minute(7), RateLimit::with_burst(7, 1), RateLimit::with_burst(1, 1)] {
        limit.block_for(at(0), Duration::from_millis(800));
        assert_eq!((limit.left(at(0)), limit.ready_in(at(0), 1)), (0, Duration::from_millis(800)));
    }
}

/// All that was taken and not given back, counted plainly.
#[derive(Default)]
struct Plain(Vec<(Timestamp, u32)>);

impl Plain {
    fn take(&mut self, now: Timestamp, units: u32) {
        self.0.push((now, units));
    }

    fn used(&self, now: Timestamp) -> u64 {
        self.0.iter().filter(|(at, _)| now.since(*at) < MINUTE).map(|(_, units)| u64::from(*units)).sum()
    }

    /// Time until `units` fit beside the units taken.
    fn ready_in(&self, now: Timestamp, units: u32, limit: u32) -> Duration {
        let fits = |now| self.used(now) + u64::from(units.min(limit)) <= u64::from(limit);
        let ends = self.0.iter().map(|(at, _)| (*at + MINUTE).since(now));
        let mut times: Vec<Duration> = std::iter::once(Duration::ZERO).chain(ends).collect();
        times.sort_unstable();
        times.into_iter().find(|wait| fits(now + *wait)).expect("nothing is used after a minute")
    }
}

/// Time passes; something is taken, or given back.
#[derive(Clone, Debug)]
enum Step {
    Take { gap_us: u64, units: u32 },
    GiveBack(prop::sample::Index),
}

/// Gaps of all lengths, and up to `most` units at once.
fn steps(most: u32, len: usize) -> impl Strategy<Value = Vec<Step>> {
    let gap = prop_oneof![4 => Just(0), 4 => 0u64..200_000, 2 => 0u64..4_000_000, 1 => 0u64..70_000_000];
    let take = (gap, 1..=most).prop_map(|(gap_us, units)| Step::Take { gap_us, units });
    let give_back = any::<prop::sample::Index>().prop_map(Step::GiveBack);
    prop::collection::vec(prop_oneof![4 => take, 1 => give_back], 1..len)
}

/// Units at a time, so that small and large limits are filled alike.
fn portion(limit: u32) -> u32 {
    (limit / 100).max(1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_minute_sees_more_than_the_limit_whatever_is_given_back(
        rpm in prop_oneof![1u32..200, 200u32..100_000],
        burst in prop::option::of(1u32..300),
        steps in steps(4, 900),
    ) {
        let mut limit = RateLimit::with_burst(rpm, burst.unwrap_or(rpm));
        let (mut plain, mut now) = (Plain::default(), at(0));
        for step in steps {
            match step {
                Step::Take { gap_us, units } => {
                    now = now + Duration::from_micros(gap_us);
                    let units = (units * portion(rpm)).min(limit.limit);
                    // A burst that is smaller lets as much go as it is large, and the debt keeps what comes after.
                    if limit.ready_in(now, units).is_zero() {
                        limit.take(now, units);
                        plain.take(now, units);
                    }
                }
                Step::GiveBack(which) if !plain.0.is_empty() => {
                    // Any of the last: attempts do not last for ever.
                    let recent = plain.0.len().saturating_sub(40);
                    let (taken_at, units) = plain.0.remove(recent + which.index(plain.0.len() - recent));
                    limit.give_back(taken_at, units);
                }
                Step::GiveBack(_) => {}
            }
            prop_assert!(plain.used(now) <= u64::from(rpm), "{} in one minute, limit {rpm}", plain.used(now));
        }
    }

    #[test]
    fn up_to_some_hundreds_a_minute_are_counted_exactly(rpm in 1u32..500, steps in steps(1, 1_500)) {
        let mut limit = RateLimit::per_minute(rpm);
        let (mut plain, mut now) = (Plain::default(), at(0));
        for step in steps {
            match step {
                Step::Take { gap_us, .. } => {
                    now = now + Duration::from_micros(gap_us / 4);
                    prop_assert_eq!(limit.ready_in(now, 1), plain.ready_in(now, 1, rpm));
                    if limit.ready_in(now, 1).is_zero() {
                        limit.take(now, 1);
                        plain.take(now, 1);
                    }
                }
                Step::GiveBack(which) if !plain.0.is_empty() => {
                    let recent = plain.0.len().saturating_sub(40);
                    let (taken_at, _) = plain.0.remove(recent + which.index(plain.0.len() - recent));
                    limit.give_back(taken_at, 1);
                }
                Step::GiveBack(_) => {}
            }
            prop_assert_eq!(u64::from(limit.left(now)), u64::from(rpm) - plain.used(now));
            plain.0.retain(|(at, _)| now.since(*at) < MINUTE);
        }
    }

    #[test]
    fn beyond_that_what_was_used_comes_back_at_most_a_cell_late(
        rpm in 600u32..3_000,
        units in 1u32..3,
        gaps in prop::collection::vec(0u64..60_000, 1_500..3_000),
    ) {
        let mut limit = RateLimit::per_minute(rpm);
        let (mut plain, mut now) = (Plain::default(), at(0));
        for (n, gap_us) in gaps.into_iter().enumerate() {
            now = now + Duration::from_micros(gap_us);
            let ready_in = limit.ready_in(now, units);
            if n % 16 == 0 {
                let exactly = plain.ready_in(now, units, rpm);
                prop_assert!(exactly <= ready_in && ready_in <= exactly + CELL, "{ready_in:?} instead of {exactly:?}");
            }
            if ready_in.is_zero() {
                limit.take(now, units);
                plain.take(now, units);
            }
        }
        prop_assert!(limit.log.len() <= 2 * EXACT_ENTRIES + 1, "{} entries", limit.log.len());
    }

    #[test]
    fn it_is_ready_when_it_says_and_not_a_microsecond_before(
        rpm in 1u32..100_000,
        burst in prop::option::of(1u32..300),
        taken in prop::collection::vec((0u64..5_000_000, 1u32..40), 1..80),
        units in 1u32..200_000,
        later_us in 0u64..60_000_000,
    ) {
        let mut limit = RateLimit::for_provider(rpm, burst);
        let mut now = at(0);
        for (gap_us, units) in taken {
            now = now + Duration::from_micros(gap_us);
            // Ready or not.
            limit.take(now, units * portion(rpm));
        }
        now = now + Duration::from_micros(later_us);
        let wait = limit.ready_in(now, units);
        prop_assert_eq!(limit.ready_in(now + wait, units), Duration::ZERO);
        if !wait.is_zero() {
            prop_assert_eq!(limit.ready_in(now + (wait - US), units), US);
        }
        prop_assert_eq!(limit.left(now) >= units, wait.is_zero() && units <= limit.burst);
    }

    #[test]
    fn after_an_idle_minute_all_of_it_goes_at_once(rpm in 1u32..1_000_000, steps in steps(3, 400)) {
        let mut limit = RateLimit::per_minute(rpm);
        let mut now = at(0);
        for step in steps {
            if let Step::Take { gap_us, units } = step {
                now = now + Duration::from_micros(gap_us);
                let units = units * portion(rpm);
                if limit.ready_in(now, units).is_zero() && units <= rpm {
                    limit.take(now, units);
                }
            }
        }
        now = now + MINUTE;
        prop_assert_eq!((limit.left(now), limit.ready_in(now, rpm)), (rpm, Duration::ZERO));
    }

    #[test]
    fn all_of_the_limit_is_used_where_it_is_asked_for(
        rpm in prop_oneof![1u32..500, 500u32..5_000],
        burst in prop::option::of(1u32..50),
        gap_us in 1u64..40_000,
    ) {
        // Whatever is ready goes, looked at all the time.
        let mut limit = RateLimit::with_burst(rpm, burst.unwrap_or(rpm));
        let (mut now, mut sent, end) = (at(0), 0u64, at(10 * 60_000));
        while now < end {
            let wait = limit.ready_in(now, 1);
            if wait.is_zero() {
                limit.take(now, 1);
                sent += 1;
                now = now + Duration::from_micros(gap_us.min(1_000_000 / u64::from(rpm)));
            } else {
                now = now + wait;
            }
        }
        let share = if rpm <= 500 { 1.0 } else { 0.998 };
        prop_assert!(sent as f64 >= (f64::from(rpm) * 10.0 * share).floor(), "{sent} of {} a minute", rpm);
    }

    #[test]
    fn no_more_than_the_burst_goes_at_once_and_the_rest_at_the_pace_of_the_limit(
        rpm in 2u32..600,
        burst in 1u32..20,
        steps in steps(1, 600),
    ) {
        let mut limit = RateLimit::with_burst(rpm, burst);
        let mut sent: Vec<Timestamp> = Vec::new();
        let mut now = at(0);
        for step in steps {
            match step {
                Step::Take { gap_us, .. } => {
                    now = now + Duration::from_micros(gap_us / 4);
                    if limit.ready_in(now, 1).is_zero() {
                        limit.take(now, 1);
                        sent.push(now);
                    }
                }
                Step::GiveBack(which) if !sent.is_empty() => {
                    let recent = sent.len().saturating_sub(20);
                    limit.give_back(sent.remove(recent + which.index(sent.len() - recent)), 1);
                }
                Step::GiveBack(_) => {}
            }
        }
        for (i, first) in sent.iter().enumerate() {
            for (n, last) in (1..).zip(&sent[i..]) {
                let paced = last.since(*first).as_secs_f64() * f64::from(rpm) / 60.0;
                prop_assert!(f64::from(n) <= f64::from(burst) + paced + 0.001, "{n} within {paced} of {burst}");
            }
        }
    }
}
