//! The rules of the default policy, one scenario each.

use pointsman_policy_default::Default as Rules;
use pointsman_sdk::testing::{self, Case, Given};
use pointsman_sdk::{Attempt, Decision, Hold, Lane, NONE, Outcome, State, Tier};
use proptest::prelude::*;

fn primary() -> Given {
    testing::primary("")
}

fn fallback() -> Given {
    testing::fallback("")
}

/// A question about these backends, named b0, b1, ...
fn scenario(given: impl IntoIterator<Item = Given>) -> Case {
    let mut case = testing::case(given);
    for (i, given) in case.backends.iter_mut().enumerate() {
        given.backend.id = format!("b{i}");
    }
    case
}

fn wait(lane: Lane, max_ms: u32) -> Decision {
    Decision::Wait(Hold { max_ms, lane })
}

use Outcome::Unauthorised;
use Outcome::{ConnectFailed, ModelMissing, OutOfCredit, RateLimited, Refused, ServerError, TimedOut, TooLong};

// --- choosing a primary

#[test]
fn a_ready_primary_is_chosen_without_a_note() {
    let answer = scenario([fallback(), primary()]).ask::<Rules>();
    assert_eq!(answer.decision, Decision::primary(1));
    assert!(answer.notes.is_empty());
}

#[test]
fn equal_primaries_share_by_weight() {
    let shares = scenario([primary(), primary().weight(3), primary()]).shares::<Rules>();
    for (share, expected) in shares.iter().zip([200, 600, 200]) {
        assert!(share.abs_diff(expected) < 60, "{shares:?}");
    }
}

#[test]
fn a_session_stays_at_its_home_while_that_is_well_and_not_nearly_full() {
    let at = |home: Given| scenario([primary().with("in_flight", 0), home.with("home", 1)]).session("s", 7);
    assert_eq!(at(primary().with("first_token_ms", 3_000)).shares::<Rules>(), [0, 1_000], "a slower one has its cache");
    for left in [
        primary().with("failures", 1),
        primary().with("error_permille", 400),
        primary().cooling(RateLimited, 5_000),
        primary().throttled(5_000),
        primary().drained(),
        primary().rpm(100).with("requests_left", 5),
    ] {
        assert_eq!(at(left.clone()).shares::<Rules>(), [1_000, 0], "{left:?}");
    }
    assert_eq!(at(primary()).after(1, ServerError).decision::<Rules>(), Decision::primary(0));
    let paid = scenario([primary(), fallback().with("home", 1)]).session("s", 7);
    assert_eq!(paid.decision::<Rules>(), Decision::primary(0), "a home that costs money is no reason to spend it");
}

#[test]
fn a_fallback_that_holds_the_cache_comes_before_one_of_the_same_price() {
    let away = || primary().cooling(OutOfCredit, 900_000);
    let both = scenario([away(), fallback(), fallback().with("home", 1)]).session("s", 7);
    assert_eq!(both.shares::<Rules>(), [0, 0, 1_000]);
}

#[test]
fn what_makes_a_primary_worse_makes_it_avoided() {
    for worse in [
        primary().with("error_permille", 200),
        primary().with("failures", 1),
        primary().with("concurrency_left", 1).with("in_flight", 9),
        primary().rpm(100).with("requests_left", 5),
        primary().with("in_flight", 40),
        primary().with("first_token_ms", 20_000),
    ] {
        let better = primary().with("first_token_ms", 500);
        assert_eq!(scenario([worse.clone(), better]).shares::<Rules>(), [0, 1_000], "{worse:?}");
    }
}

#[test]
fn of_many_primaries_a_sick_one_is_rarely_chosen_and_shares_stay_by_weight() {
    let mut many = scenario([]);
    many.backends = (0..40).map(|i| primary().weight(if i < 20 { 3 } else { 1 })).collect();
    let shares = many.shares::<Rules>();
    let heavy: u32 = shares[..20].iter().sum();
    assert!(heavy.abs_diff(750) < 80, "{heavy}");
    assert!(shares.iter().all(|&share| share > 0), "{shares:?}");
    many.backends[0] = primary().weight(3).with("failures", 5);
    assert!(many.shares::<Rules>()[0] <= 1);
}

#[test]
fn the_only_ready_one_of_many_is_found() {
    let mut many = scenario([]);
    many.backends =
        (0..200).map(|i| if i == 137 { primary() } else { primary().cooling(RateLimited, 9_000) }).collect();
    assert_eq!(many.shares::<Rules>()[137], 1_000);
}

#[test]
fn after_a_failure_another_primary_goes_first() {
    let s = scenario([primary(), primary()]).after(0, ServerError);
    assert_eq!(s.shares::<Rules>(), [0, 1_000]);
    assert_eq!(s.ask::<Rules>().notes, ["primary b1: best of those ready"]);
}

#[test]
fn a_tried_primary_is_used_again_when_it_is_ready() {
    assert_eq!(scenario([primary()]).after(0, ServerError).decision::<Rules>(), Decision::primary(0));
}

#[test]
fn a_drained_or_unsuited_backend_is_never_used() {
    let unsuited = || primary().with("state", 5).with("emergency_ms", 0);
    let drained = || fallback().drained().with("emergency_ms", 0);
    assert_eq!(scenario([unsuited(), drained()]).decision::<Rules>(), Decision::exhausted());
}

// --- budgets

#[test]
fn the_pool_budget_ends_in_the_fallback() {
    let s = scenario([primary(), fallback()]);
    assert_eq!(s.clone().after_times(3, 0, ServerError).decision::<Rules>(), Decision::primary(0));
    assert_eq!(s.clone().after_times(4, 0, ServerError).decision::<Rules>(), Decision::fallback(1));
    let one_try = s.settings(r#"{"max_pool_retries": 0}"#);
    assert_eq!(one_try.after(0, ServerError).decision::<Rules>(), Decision::fallback(1));
}

#[test]
fn a_wait_renews_the_pool_budget_once() {
    let s = scenario([primary(), fallback()]).after_times(4, 0, ServerError).after_waits(1);
    assert_eq!(s.decision::<Rules>(), Decision::primary(0));
    let s = s.after_times(4, 0, ServerError).after_waits(1);
    assert_eq!(s.decision::<Rules>(), Decision::fallback(1), "twice the budget is all there is");
}

#[test]
fn a_backend_that_refuses_the_request_or_lacks_the_model_or_the_room_is_not_asked_again() {
    for word in [TooLong, ModelMissing, Refused] {
        assert_eq!(scenario([primary(), fallback()]).after(0, word).decision::<Rules>(), Decision::fallback(1));
        let both = scenario([primary().with("emergency_ms", 0), fallback()]).after(0, word).after(1, word);
        assert_eq!(both.decision::<Rules>(), Decision::exhausted());
    }
}

// --- waiting for a primary

#[test]
fn it_waits_for_a_recovery_rather_than_spend() {
    let s = scenario([primary().cooling(RateLimited, 1_200), primary().throttled(3_000), fallback()]);
    assert_eq!(s.decision::<Rules>(), wait(Lane::Primary, 5_000));
    assert_eq!(s.ask::<Rules>().notes.len(), 1);
}

#[test]
fn a_long_recovery_takes_several_waits() {
    let s = scenario([primary().cooling(RateLimited, 29_000), fallback()]);
    assert_eq!(s.decision::<Rules>(), wait(Lane::Primary, 5_000));
    assert_eq!(
        s.clone().after_waits(1).decision::<Rules>(),
        Decision::fallback(1),
        "five waits are left, six are needed"
    );
    let longer = scenario([primary().cooling(RateLimited, 31_000), fallback()]);
    assert_eq!(longer.decision::<Rules>(), Decision::fallback(1), "it could not pay");
}

#[test]
fn waits_are_counted_and_bounded_by_the_settings() {
    let s = scenario([primary().cooling(RateLimited, 1_000), fallback()]);
    assert_eq!(s.clone().after_waits(5).decision::<Rules>(), wait(Lane::Primary, 5_000));
    assert_eq!(s.clone().after_waits(6).decision::<Rules>(), Decision::fallback(1));
    assert_eq!(s.clone().settings(r#"{"primary_wait_ms": 0}"#).decision::<Rules>(), Decision::fallback(1));
    assert_eq!(s.settings(r#"{"primary_wait_max_retries": 0}"#).decision::<Rules>(), Decision::fallback(1));
}

#[test]
fn it_never_waits_longer_than_the_client_does() {
    let s = scenario([primary().cooling(RateLimited, 3_000), fallback()]);
    assert_eq!(s.clone().remaining_ms(3_100).decision::<Rules>(), wait(Lane::Primary, 3_100));
    assert_eq!(s.remaining_ms(2_900).decision::<Rules>(), Decision::fallback(1));
}

#[test]
fn an_outage_is_no_hope_unless_it_is_about_to_be_tried() {
    let after = |reason, ready_ms, failures| {
        scenario([primary().cooling(reason, ready_ms).with("failures", failures), fallback()]).decision::<Rules>()
    };
    let spent = Decision::fallback(1);
    for reason in [ConnectFailed, Outcome::TimedOut, Outcome::Reset, Unauthorised, OutOfCredit, ModelMissing] {
        assert_eq!(after(reason, 4_000, 1), spent, "{reason:?}");
        assert_eq!(after(reason, 1_500, 3), spent, "{reason:?}");
        let probing = primary().cooling(reason, NONE).with("state", 3).with("failures", 2);
        assert_eq!(scenario([probing, fallback()]).decision::<Rules>(), wait(Lane::Primary, 5_000), "{reason:?}");
        assert_eq!(after(reason, 1_500, 2), wait(Lane::Primary, 5_000), "{reason:?}");
    }
    for reason in [ServerError, Outcome::Overloaded, Outcome::Malformed, Outcome::Cut, Outcome::Stalled] {
        assert_eq!(after(reason, 4_000, 2), wait(Lane::Primary, 5_000), "{reason:?}");
        assert_eq!(after(reason, 4_000, 3), spent, "{reason:?}");
    }
    assert_eq!(after(RateLimited, 4_000, 9), wait(Lane::Primary, 5_000));
}

#[test]
fn when_nobody_says_how_long_it_waits_one_whole_wait() {
    let probing = primary().with("state", 3).with("ready_ms", NONE);
    assert_eq!(scenario([probing, fallback()]).decision::<Rules>(), wait(Lane::Primary, 5_000));
    assert_eq!(scenario([primary().throttled(NONE), fallback()]).decision::<Rules>(), wait(Lane::Primary, 5_000));
}

#[test]
fn those_before_in_the_queue_count() {
    // 60 a minute: one a second, and two wait already.
    let busy = |queued| primary().rpm(60).throttled(1_000).with("queued", queued);
    assert_eq!(scenario([busy(2), fallback()]).decision::<Rules>(), wait(Lane::Primary, 5_000));
    assert_eq!(
        scenario([busy(2), busy(2), fallback()]).decision::<Rules>(),
        wait(Lane::Primary, 5_000),
        "two serve the queue"
    );
    assert_eq!(scenario([busy(30), fallback()]).decision::<Rules>(), Decision::fallback(1), "too long a queue");
}

#[test]
fn it_does_not_wait_for_a_primary_that_it_may_not_use() {
    let s = scenario([primary().cooling(ModelMissing, 500), fallback()]).after(0, ModelMissing);
    assert_eq!(s.decision::<Rules>(), Decision::fallback(1));
}

// --- overload

/// A primary of 60 a minute with a line of 5 in front of it, and a fallback.
fn standing_line() -> Case {
    scenario([primary().rpm(60).throttled(1_000).with("queued", 5), fallback()])
}

/// The first backend in another state.
fn b0(mut given: Given) -> Given {
    given.backend.id = "b0".to_owned();
    given
}

/// The decisions for newcomers that arrive every second, while every `served_every`th second one of the line is served.
fn newcomers(case: &mut Case, seconds: u64, served_every: Option<u64>) -> Vec<Decision> {
    let line = case.backends.clone();
    let one = |second: u64| {
        case.now_ms += 1_000;
        if served_every.is_some_and(|every| second.is_multiple_of(every)) {
            (case.backends[0], case.waits) = (b0(primary()), 1);
            assert_eq!(case.decision::<Rules>(), Decision::primary(0));
            (case.backends, case.waits) = (line.clone(), 0);
        }
        case.decision::<Rules>()
    };
    (0..seconds).map(one).collect()
}

fn count(decisions: &[Decision], which: &Decision) -> usize {
    decisions.iter().filter(|decision| *decision == which).count()
}

#[test]
fn a_line_that_stands_for_a_minute_and_grows_sends_newcomers_to_the_fallback() {
    let mut case = standing_line();
    let first = newcomers(&mut case, 60, Some(2));
    assert_eq!(count(&first, &wait(Lane::Primary, 5_000)), 60, "it may be a burst");
    let second = newcomers(&mut case, 60, Some(2));
    assert_eq!(count(&second, &Decision::fallback(1)), 60);
    let notes = case.ask::<Rules>().notes;
    assert!(notes[0].starts_with("no wait: primaries are overloaded"), "{notes:?}");
    // Those in line stay there.
    assert_eq!(case.clone().after_waits(1).decision::<Rules>(), wait(Lane::Primary, 5_000));
}

#[test]
fn a_short_line_is_joined_also_in_overload() {
    let mut case = standing_line();
    newcomers(&mut case, 90, Some(2));
    case.backends[0] = b0(primary().rpm(60).throttled(500).with("queued", 1));
    assert_eq!(case.decision::<Rules>(), wait(Lane::Primary, 5_000), "1.5 s are within the target");
    case.backends = standing_line().backends;
    let again = newcomers(&mut case, 25, Some(2));
    assert_eq!(count(&again, &Decision::fallback(1)), 5, "after an overload 20 s of standing are enough");
}

#[test]
fn a_line_that_gets_shorter_or_is_not_served_is_no_overload() {
    for served_every in [Some(1), None] {
        let line = newcomers(&mut standing_line(), 180, served_every);
        assert_eq!(count(&line, &wait(Lane::Primary, 5_000)), 180, "served every {served_every:?} s");
    }
}

#[test]
fn a_line_that_was_short_in_the_same_millisecond_does_not_stand() {
    let mut case = standing_line();
    let line = case.backends.clone();
    newcomers(&mut case, 30, Some(2));
    case.backends[0] = b0(primary().rpm(60).throttled(500).with("queued", 0));
    assert_eq!(case.decision::<Rules>(), wait(Lane::Primary, 5_000));
    case.backends = line;
    assert_eq!(case.decision::<Rules>(), wait(Lane::Primary, 5_000), "a burst begins");
}

#[test]
fn one_that_returns_to_its_place_says_nothing_of_the_line() {
    let mut case = standing_line();
    let line = case.backends.clone();
    for second in 0..90 {
        newcomers(&mut case, 1, (second % 2 == 0).then_some(1));
        // Its attempt after a wait failed, and only it stands before all others.
        let mut back = case.after_waits(1).after(0, RateLimited);
        back.backends[0] = b0(primary().rpm(60).throttled(500).with("queued", 0));
        assert_eq!(back.decision::<Rules>(), wait(Lane::Primary, 5_000));
        (back.backends, back.attempts, back.waits) = (line.clone(), Vec::new(), 0);
        case = back;
    }
    assert_eq!(case.decision::<Rules>(), Decision::fallback(1));
}

#[test]
fn a_line_behind_a_cooling_primary_gets_more_time() {
    let cooling = || primary().rpm(60).cooling(RateLimited, 4_000).with("queued", 5);
    let mut case = scenario([cooling(), fallback()]);
    assert_eq!(count(&newcomers(&mut case, 180, Some(2)), &wait(Lane::Primary, 5_000)), 180);
    assert_eq!(count(&newcomers(&mut case, 10, Some(2)), &Decision::fallback(1)), 10);
}

#[test]
fn without_a_ready_fallback_the_line_is_joined_also_in_overload() {
    let mut case = standing_line();
    case.backends[1] = fallback().throttled(400);
    assert_eq!(count(&newcomers(&mut case, 90, Some(2)), &wait(Lane::Primary, 5_000)), 90);
}

#[test]
fn the_target_is_a_setting() {
    let mut case = standing_line().settings(r#"{"overload_wait_ms": 6000}"#);
    assert_eq!(count(&newcomers(&mut case, 90, Some(2)), &wait(Lane::Primary, 5_000)), 90, "6 s are expected");
}

// --- fallback

#[test]
fn the_cheapest_healthy_fallback_is_chosen() {
    let dear = || fallback().price(3.0, 15.0);
    let cheap = || fallback().price(0.1, 0.4);
    assert_eq!(scenario([dear(), cheap()]).shares::<Rules>(), [0, 1_000]);
    assert_eq!(scenario([dear(), cheap().with("failures", 1)]).shares::<Rules>(), [1_000, 0]);
    assert_eq!(scenario([fallback(), dear()]).shares::<Rules>(), [0, 1_000], "a known price before an unknown one");
    let shares = scenario([fallback(), fallback()]).shares::<Rules>();
    assert!(shares[0].abs_diff(500) < 60, "{shares:?}");
}

#[test]
fn a_fallback_is_tried_twice_and_the_pool_four_times() {
    let s = scenario([fallback(), fallback(), fallback()]);
    let two = s.clone().after_times(2, 0, ServerError);
    assert_eq!(two.shares::<Rules>()[0], 0);
    let four = two.after(1, ServerError).after(2, ServerError);
    assert_eq!(four.decision::<Rules>(), Decision::exhausted());
    assert_eq!(scenario([fallback()]).after_times(2, 0, ServerError).decision::<Rules>(), Decision::exhausted());
}

#[test]
fn a_throttled_fallback_is_waited_for_within_one_wait() {
    assert_eq!(scenario([fallback().throttled(2_000)]).decision::<Rules>(), wait(Lane::Fallback, 5_000));
    assert_eq!(scenario([fallback().throttled(6_000)]).decision::<Rules>(), Decision::exhausted());
    let cooling = |ms| scenario([fallback().cooling(RateLimited, ms)]).decision::<Rules>();
    assert_eq!((cooling(2_000), cooling(6_000)), (wait(Lane::Fallback, 5_000), Decision::exhausted()), "so is a probe");
    assert_eq!(scenario([fallback().throttled(2_000)]).after_waits(6).decision::<Rules>(), Decision::exhausted());
}

// --- emergency

/// Too long gone to wait for.
fn lost(g: Given) -> Given {
    g.cooling(RateLimited, 90_000)
}

#[test]
fn emergency_uses_whatever_may_answer_not_the_same_twice_in_a_row() {
    let s = scenario([lost(primary()).with("emergency_ms", 0), lost(fallback()).with("emergency_ms", 0)]);
    let first = s.after_in(Lane::Emergency, 0, ServerError);
    assert_eq!(first.decision::<Rules>(), Decision::emergency(1));
    assert_eq!(first.after_in(Lane::Emergency, 1, ServerError).decision::<Rules>(), Decision::emergency(0));
}

#[test]
fn emergency_does_not_ask_again_who_has_just_said_that_a_limit_is_reached() {
    let s = scenario([lost(primary()).with("emergency_ms", 0), lost(fallback()).with("emergency_ms", 0)]);
    assert_eq!(s.clone().after(0, RateLimited).decision::<Rules>(), Decision::emergency(1));
    let both = s.after(0, RateLimited).after_in(Lane::Emergency, 1, RateLimited);
    assert_eq!(both.decision::<Rules>(), Decision::exhausted(), "nor is its emergency rate waited for");
}

#[test]
fn time_lost_in_an_attempt_that_hung_counts_like_waits() {
    let s = || scenario([primary().throttled(2_000), primary(), fallback()]);
    let after = |outcome, ms| {
        let mut s = s().after(0, outcome).after_times(4, 1, ServerError);
        s.attempts[0].elapsed_ms = ms;
        s.backends[1] = primary().throttled(2_000);
        s.decision::<Rules>()
    };
    assert_eq!(after(TimedOut, 24_000), wait(Lane::Primary, 5_000), "two of six are left");
    assert_eq!(after(TimedOut, 30_000), Decision::fallback(2));
    assert_eq!(after(ServerError, 30_000), wait(Lane::Primary, 5_000));
}

#[test]
fn emergency_prefers_the_untried_then_the_soonest() {
    let soon = || primary().cooling(RateLimited, 40_000).with("emergency_ms", 0);
    let late = || lost(primary()).with("emergency_ms", 0);
    assert_eq!(scenario([late(), soon()]).decision::<Rules>(), Decision::emergency(1));
    let tried = scenario([late(), soon(), lost(fallback())]).after(1, ServerError).after(2, ServerError);
    assert_eq!(tried.decision::<Rules>(), Decision::emergency(0));
}

#[test]
fn emergency_ends_after_three_rounds() {
    let mut s = scenario([lost(primary()).with("emergency_ms", 0)]);
    for _ in 0..3 {
        assert_eq!(s.decision::<Rules>(), Decision::emergency(0));
        s = s.after_in(Lane::Emergency, 0, ServerError);
    }
    assert_eq!(s.decision::<Rules>(), Decision::exhausted());
}

#[test]
fn emergency_does_not_bother_who_cannot_answer() {
    for reason in [Unauthorised, OutOfCredit, ModelMissing] {
        let s = scenario([primary().cooling(reason, 90_000).with("emergency_ms", 0)]);
        assert_eq!(s.decision::<Rules>(), Decision::exhausted(), "{reason:?}");
    }
}

#[test]
fn the_emergency_rate_is_waited_for_as_long_as_for_anything() {
    let s = scenario([lost(primary()).with("emergency_ms", 4_000)]);
    assert_eq!(s.decision::<Rules>(), wait(Lane::Emergency, 5_000));
    assert_eq!(s.clone().remaining_ms(4_500).decision::<Rules>(), wait(Lane::Emergency, 4_500));
    assert_eq!(scenario([lost(primary()).with("emergency_ms", 5_001)]).decision::<Rules>(), Decision::exhausted());
    assert_eq!(scenario([lost(primary()).with("emergency_ms", NONE)]).decision::<Rules>(), Decision::exhausted());
    assert_eq!(scenario([]).decision::<Rules>(), Decision::exhausted());
}

#[test]
fn emergency_has_three_waits_of_its_own() {
    let s = scenario([lost(primary()).with("emergency_ms", 4_000)]).after_waits(8);
    assert_eq!(s.decision::<Rules>(), wait(Lane::Emergency, 5_000), "six for primaries, and three");
    assert_eq!(s.clone().after_waits(1).decision::<Rules>(), Decision::exhausted());
    let after_one = s.after_in(Lane::Emergency, 0, ServerError);
    assert_eq!(
        after_one.clone().after_waits(2).decision::<Rules>(),
        wait(Lane::Emergency, 5_000),
        "counted from the first one"
    );
    assert_eq!(after_one.after_waits(3).decision::<Rules>(), Decision::exhausted());
    let none = scenario([lost(primary()).with("emergency_ms", 800)]).settings(r#"{"primary_wait_max_retries": 0}"#);
    assert_eq!(none.decision::<Rules>(), wait(Lane::Emergency, 5_000));
}

// --- when everything is down

#[test]
fn the_next_probe_is_waited_for_where_it_comes_within_one_wait() {
    let down = |g: Given, ms| g.cooling(ConnectFailed, ms).with("failures", 5);
    let s = scenario([down(primary(), 20_000), down(primary(), 2_700), down(fallback(), 9_000)]);
    assert_eq!(s.decision::<Rules>(), wait(Lane::Primary, 5_000));
    assert_eq!(s.clone().after_waits(6).decision::<Rules>(), Decision::exhausted(), "out of the same waits");
    let s = scenario([down(primary(), 20_000), down(fallback(), 3_000)]);
    assert_eq!(s.decision::<Rules>(), wait(Lane::Fallback, 5_000));
    assert_eq!(scenario([down(primary(), 5_001)]).decision::<Rules>(), Decision::exhausted());
    assert_eq!(scenario([primary().cooling(Unauthorised, 3_000)]).decision::<Rules>(), Decision::exhausted());
}

// --- whatever happens

fn any_given() -> impl Strategy<Value = Given> {
    let number = || prop_oneof![Just(0), Just(NONE), 0..10_000u32];
    let numbers = (0..7u32, 0..20u32, number(), number(), number(), number(), number(), number());
    (any::<bool>(), numbers, 0..5u32, number(), 0..100u32, prop::option::of(1..1_000u32)).prop_map(
        |(is_primary, n, failures, emergency, queued, rpm)| {
            let mut given = if is_primary { primary() } else { fallback() }
                .with("state", n.0)
                .with("cooldown_reason", n.1)
                .with("ready_ms", n.2)
                .with("requests_left", n.3)
                .with("tokens_left", n.4)
                .with("in_flight", n.5)
                .with("concurrency_left", n.6)
                .with("latency_ms", n.7)
                .with("failures", failures)
                .with("emergency_ms", emergency)
                .with("queued", queued);
            given.backend.rpm = rpm;
            given
        },
    )
}

fn any_scenario() -> impl Strategy<Value = Case> {
    let attempt = (any::<prop::sample::Index>(), 0..3usize, 0..Outcome::ALL.len(), 0..8u32);
    let attempts = prop::collection::vec(attempt, 0..12);
    (prop::collection::vec(any_given(), 0..24), attempts, 0..8u32, 0..20_000u32, any::<u64>()).prop_map(
        |(given, attempts, waits, remaining_ms, seed)| {
            let attempt = |(index, lane, outcome, waits_before): (prop::sample::Index, usize, usize, u32)| Attempt {
                backend: index.index(given.len().max(1)),
                lane: [Lane::Primary, Lane::Fallback, Lane::Emergency][lane],
                outcome: Outcome::ALL[outcome],
                status: 0,
                elapsed_ms: 1,
                waits_before,
            };
            let attempts = attempts.into_iter().map(attempt).collect();
            let mut case = scenario(given).after_waits(waits).remaining_ms(remaining_ms);
            (case.attempts, case.seed) = (attempts, seed);
            case
        },
    )
}

proptest! {
    #[test]
    fn every_decision_can_be_carried_out(s in any_scenario()) {
        let state = |index: u32| match s.backends[index as usize].number("state") {
            0 => State::Ready,
            1..=3 => State::Cooling,
            _ => State::Drained,
        };
        let tier = |index: u32| s.backends[index as usize].backend.tier;
        match s.decision::<Rules>() {
            Decision::Primary(d) => {
                let index = d.backend.unwrap();
                prop_assert_eq!((tier(index), state(index)), (Tier::Primary, State::Ready));
            }
            Decision::Fallback(d) => {
                let index = d.backend.unwrap();
                prop_assert_eq!((tier(index), state(index)), (Tier::Fallback, State::Ready));
            }
            Decision::Emergency(d) => {
                let index = d.backend.unwrap();
                prop_assert!(state(index) != State::Drained);
                prop_assert_eq!(s.backends[index as usize].number("emergency_ms"), 0);
            }
            Decision::Wait(hold) => {
                let (longest_ms, waits) = if hold.lane == Lane::Emergency { (20_000, 9 + 8) } else { (5_000, 6) };
                prop_assert!(hold.max_ms > 0 && hold.max_ms <= longest_ms && hold.max_ms <= s.request.remaining_ms);
                prop_assert!(s.waits < waits);
            }
            Decision::Reject(_) => {}
        }
    }
}
