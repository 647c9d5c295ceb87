use super::*;
use proptest::prelude::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

fn rate_limited(retry_after_ms: Option<u64>) -> Outcome {
    Outcome { retry_after: retry_after_ms.map(Duration::from_millis), ..Outcome::new(Kind::RateLimited, "") }
}

fn fail(h: &mut Health, now: u64, sent: u64, outcome: &Outcome) {
    h.record_failure(at(now), at(sent), outcome, &CooldownSettings::default(), 0.0, ANYBODY);
}

/// A request that is like no other.
const ANYBODY: Evidence = seen(0, 0);

const fn seen(request: u64, client: u64) -> Evidence {
    Evidence::Seen { witness: Witness { request, client }, is_blamed: false }
}

fn answer(h: &mut Health, now: u64, sent: u64) {
    h.record_success(at(now), at(sent), Kind::Answered, Witness::default());
}

/// A failed attempt of a request, sent and ended at `now`.
fn fails(h: &mut Health, now: u64, kind: Kind, evidence: Evidence) {
    h.record_failure(at(now), at(now), &Outcome::new(kind, ""), &CooldownSettings::default(), 0.0, evidence);
}

/// Time left of the cooldown, in ms.
fn left(h: &Health, now: u64) -> u64 {
    h.until.since(at(now)).as_millis() as u64
}

#[test]
fn one_request_does_not_double_a_cooldown_and_a_second_one_does() {
    let mut h = Health::default();
    for now in [0, 1_000, 2_000, 3_000] {
        fails(&mut h, now, Kind::ServerError, seen(7, 0));
        assert_eq!(left(&h, now), 500, "at {now}");
    }
    fails(&mut h, 4_000, Kind::ServerError, seen(8, 0));
    assert_eq!(left(&h, 4_000), 1_000);
    fails(&mut h, 6_000, Kind::ServerError, seen(7, 0));
    assert_eq!(left(&h, 6_000), 2_000);
}

#[test]
fn the_own_cooldown_of_a_request_is_doubled() {
    let mut h = Health::default();
    for (now, expected) in [(0, 500), (1_000, 1_000), (3_000, 2_000), (6_000, 4_000)] {
        fails(&mut h, now, Kind::ServerError, Evidence::Own);
        assert_eq!(left(&h, now), expected, "at {now}");
    }
    let mut h = Health::default();
    fails(&mut h, 0, Kind::Unauthorised, Evidence::Own);
    assert_eq!(left(&h, 0), 30_000);
}

#[test]
fn a_refused_key_is_a_suspicion_until_another_request_confirms_it() {
    for kind in [Kind::Unauthorised, Kind::OutOfCredit] {
        let mut h = Health::default();
        fails(&mut h, 0, kind, seen(7, 0));
        assert_eq!((left(&h, 0), h.is_confirmed()), (1_000, false));
        fails(&mut h, 2_000, kind, seen(7, 0));
        assert_eq!(left(&h, 2_000), 1_000, "the same request again");
        fails(&mut h, 4_000, kind, seen(8, 0));
        assert_eq!((left(&h, 4_000), h.is_confirmed()), (900_000, true));
        fails(&mut h, 1_000_000, kind, seen(9, 0));
        assert_eq!(left(&h, 1_000_000), 1_800_000);
    }
}

#[test]
fn two_requests_of_one_burst_confirm_a_refused_key() {
    let mut h = Health::default();
    for request in [7, 8, 9] {
        let outcome = Outcome::new(Kind::Unauthorised, "");
        h.record_failure(at(10), at(0), &outcome, &CooldownSettings::default(), 0.0, seen(request, 0));
    }
    assert_eq!(left(&h, 10), 900_000);
}

#[test]
fn an_answer_to_another_request_ends_or_prevents_the_suspicion() {
    let mut h = Health::default();
    fails(&mut h, 100, Kind::Unauthorised, seen(7, 0));
    answer(&mut h, 200, 50);
    assert_eq!(h.state(at(200)), HealthState::Healthy, "it was under way with the same key");
    fails(&mut h, 300, Kind::Unauthorised, seen(7, 0));
    assert_eq!(h.state(at(300)), HealthState::Healthy, "the key gave an answer just now");
    fails(&mut h, 400, Kind::Unauthorised, seen(8, 0));
    assert_eq!(left(&h, 400), 900_000, "two different ones since");
    let refused = |h: &mut Health| h.record_success(at(901_000), at(900_500), Kind::Refused, Witness::default());
    refused(&mut h);
    assert_eq!(h.state(at(901_000)), HealthState::ProbeDue, "a refusal of the request says nothing of the key");
    answer(&mut h, 902_000, 901_000);
    assert_eq!(h.failures, 0);
}

#[test]
fn an_error_confirms_no_refused_key() {
    let mut h = Health::default();
    fails(&mut h, 0, Kind::ServerError, seen(7, 0));
    fails(&mut h, 1_000, Kind::Unauthorised, seen(8, 0));
    assert_eq!((left(&h, 1_000), h.is_confirmed()), (1_000, false));
}

#[test]
fn what_one_request_brought_about_is_undone_and_what_others_met_is_not() {
    for (others, is_undone) in [(vec![], true), (vec![8], false)] {
        let mut h = Health::default();
        fails(&mut h, 0, Kind::TimedOut, seen(7, 0));
        for request in others {
            fails(&mut h, 1, Kind::TimedOut, seen(request, 0));
        }
        h.end_cooldown_of(9);
        assert_ne!(h.state(at(2)), HealthState::Healthy, "it is not its own");
        h.end_cooldown_of(7);
        assert_eq!(h.state(at(2)) == HealthState::Healthy, is_undone);
    }
    let mut h = Health::default();
    fail(&mut h, 0, 0, &rate_limited(Some(5_000)));
    h.end_cooldown_of(0);
    assert_eq!(left(&h, 0), 5_000, "a rate limit is no request's");
}

#[test]
fn blamed_requests_tell_against_a_backend_only_when_they_are_many() {
    let blamed = |request| Evidence::Seen { witness: Witness { request, client: 0 }, is_blamed: true };
    let mut h = Health::default();
    fails(&mut h, 0, Kind::ServerError, blamed(7));
    fails(&mut h, 1, Kind::ServerError, blamed(7));
    assert_eq!(h.state(at(1)), HealthState::Healthy);
    fails(&mut h, 2, Kind::ServerError, blamed(8));
    assert_eq!(left(&h, 2), 500, "an outage: no request is answered");
    answer(&mut h, 600, 600);
    fails(&mut h, 700, Kind::ServerError, blamed(8));
    assert_eq!(left(&h, 700), 0, "others are answered");
}

#[test]
fn one_clients_requests_add_only_so_much_while_another_is_answered() {
    for (kind, most) in [(Kind::ServerError, 5_000), (Kind::Unauthorised, 120_000)] {
        let mut h = Health::default();
        h.record_success(at(0), at(0), Kind::Answered, Witness { request: 99, client: 2 });
        for request in 1..20 {
            fails(&mut h, 50_000 + request, kind, seen(request, 1));
            assert!(left(&h, 50_000 + request) <= most, "{kind:?} {request}");
        }
        fails(&mut h, 50_020, kind, seen(20, 2));
        fails(&mut h, 250_000, kind, seen(21, 2));
        assert!(left(&h, 250_000) > most, "{kind:?}: another client has met it too");
    }
}

#[test]
fn the_only_client_is_believed_after_three_requests() {
    for (kind, most, full) in [(Kind::ServerError, 5_000, 20_000), (Kind::Unauthorised, 120_000, 1_800_000)] {
        for answered in [None, Some(1)] {
            let (mut h, mut now) = (Health::default(), 100_000);
            if let Some(client) = answered {
                h.record_success(at(0), at(0), Kind::Answered, Witness { request: 99, client });
            }
            for request in [1, 1, 1, 2, 1, 2] {
                fails(&mut h, now, kind, seen(request, 1));
                assert!(left(&h, now) <= most, "{kind:?} {request}");
                now += left(&h, now) + 1;
            }
            for request in 3..9 {
                fails(&mut h, now, kind, seen(request, 1));
                now += if request < 8 { left(&h, now) + 1 } else { 0 };
            }
            assert!(left(&h, now) >= full, "{kind:?}: {}", left(&h, now));
        }
    }
}

#[test]
fn a_retry_after_that_one_request_met_binds_itself_alone_until_another_confirms_it() {
    for (kind, most) in
        [(Kind::Unauthorised, 1_000), (Kind::OutOfCredit, 1_000), (Kind::ServerError, 5_000), (Kind::Reset, 5_000)]
    {
        let asked = Outcome { retry_after: Some(Duration::from_secs(3_600)), ..Outcome::new(kind, "") };
        let (mut h, mut own) = (Health::default(), Health::default());
        for now in [0, 10_000, 20_000] {
            let settings = CooldownSettings::default();
            h.record_failure(at(now), at(now), &asked, &settings, 0.0, seen(7, 1));
            own.record_failure(at(now), at(now), &asked, &settings, 0.0, Evidence::Own);
            assert_eq!(left(&h, now), most, "{kind:?}");
            assert_eq!(left(&own, now), 3_600_000, "{kind:?}: the request itself obeys");
        }
        assert_eq!(h.emergency_in(at(20_000)).as_millis() as u64, most, "{kind:?}");
        h.record_failure(at(30_000), at(30_000), &asked, &CooldownSettings::default(), 0.0, seen(8, 1));
        assert_eq!(left(&h, 30_000), 3_600_000, "{kind:?}: confirmed");
    }
}

#[test]
fn failures_of_another_sort_do_not_multiply_a_cooldown() {
    let mut h = Health::default();
    let mut now = 0;
    for request in 1..12 {
        fails(&mut h, now, Kind::ServerError, seen(request, 0));
        now += left(&h, now) + 1;
    }
    for (request, expected) in [(20, 1_000), (21, 900_000), (22, 1_800_000)] {
        fails(&mut h, now, Kind::Unauthorised, seen(request, 0));
        assert_eq!(left(&h, now), expected, "{request}");
        now += expected + 1;
    }
    assert_eq!(h.failures, 14, "all are counted");
    let mut h = Health::default();
    let mut now = 0;
    for request in 1..9 {
        fails(&mut h, now, Kind::Unauthorised, seen(request, 0));
        now += left(&h, now) + 1;
    }
    fails(&mut h, now, Kind::ServerError, seen(20, 0));
    assert_eq!(left(&h, now), 500);
}

#[test]
fn a_client_whose_requests_fail_while_others_are_answered_is_not_listened_to() {
    let mut h = Health::default();
    fails(&mut h, 0, Kind::ServerError, seen(7, 1));
    h.record_success(at(600), at(550), Kind::Answered, Witness { request: 8, client: 2 });
    for request in 9..20 {
        fails(&mut h, 700, Kind::ServerError, seen(request, 1));
        assert_eq!(left(&h, 700), 0);
    }
    fails(&mut h, 800, Kind::ServerError, seen(21, 2));
    assert_eq!(left(&h, 800), 500, "the other client is");
    let mut h = Health::default();
    fails(&mut h, 0, Kind::ServerError, seen(7, 1));
    h.record_success(at(600), at(550), Kind::Answered, Witness { request: 8, client: 1 });
    fails(&mut h, 700, Kind::ServerError, seen(9, 1));
    assert_eq!(left(&h, 700), 500, "its own other requests were answered");
}

#[test]
fn one_request_that_is_rate_limited_again_and_again_is_bounded() {
    let mut h = Health::default();
    let mut now = 0;
    for _ in 0..10 {
        fails(&mut h, now, Kind::RateLimited, seen(7, 0));
        assert!(left(&h, now) <= 20_000);
        now += left(&h, now) + 1;
    }
    fails(&mut h, now, Kind::RateLimited, seen(8, 0));
    assert_eq!(left(&h, now), 60_000);
}

#[test]
fn retry_after_is_obeyed_to_the_millisecond() {
    let mut h = Health::default();
    fail(&mut h, 0, 0, &rate_limited(Some(2_000)));
    assert_eq!(h.state(at(1_999)), HealthState::Cooling { until: at(2_000) });
    assert_eq!(h.state(at(2_000)), HealthState::ProbeDue);
}

#[test]
fn retry_after_beyond_the_cap_is_cut_to_it() {
    let mut h = Health::default();
    fail(&mut h, 0, 0, &rate_limited(Some(86_400_000)));
    assert_eq!(h.until, at(3_600_000));
}

#[test]
fn a_retry_after_of_nothing_is_believed_once() {
    let mut h = Health::default();
    fail(&mut h, 0, 0, &rate_limited(Some(0)));
    assert_eq!(h.until, at(100));
    fail(&mut h, 150, 150, &rate_limited(Some(0)));
    assert_eq!(h.until, at(1_150));
    fail(&mut h, 1_200, 1_200, &rate_limited(Some(0)));
    assert_eq!(h.until, at(3_200));
}

#[test]
fn a_cooldown_in_force_is_never_shortened() {
    let mut h = Health::default();
    fail(&mut h, 0, 0, &rate_limited(Some(10_000)));
    fail(&mut h, 100, 0, &rate_limited(Some(1_000)));
    assert_eq!(h.until, at(10_000));
    fail(&mut h, 200, 0, &rate_limited(None));
    assert_eq!(h.until, at(10_000));
    fail(&mut h, 300, 0, &rate_limited(Some(20_000)));
    assert_eq!(h.until, at(20_300));
}

#[test]
fn a_burst_of_failures_counts_as_one() {
    let mut h = Health::default();
    for _ in 0..10 {
        fail(&mut h, 50, 0, &rate_limited(None));
    }
    assert_eq!(h.until, at(1_050));
    assert_eq!(h.failures, 1);
}

#[test]
fn one_probe_goes_first_then_the_ramp_doubles() {
    let mut h = Health::default();
    fail(&mut h, 0, 0, &rate_limited(None));
    assert!(h.record_sent(at(1_000)).is_some(), "the first after the cooldown is the probe");
    assert_eq!(h.state(at(1_000)), HealthState::Probing);
    assert!(h.record_sent(at(1_000)).is_none());
    answer(&mut h, 1_100, 1_000);
    assert_eq!(h.state(at(1_100)), HealthState::Ramping { allowed: 2 });
    for allowed in [4, 8, 16, 32] {
        answer(&mut h, 1_200, 1_100);
        assert_eq!(h.state(at(1_200)), HealthState::Ramping { allowed });
    }
    answer(&mut h, 1_300, 1_200);
    assert_eq!(h.state(at(1_300)), HealthState::Healthy);
}

#[test]
fn a_failed_probe_cools_twice_as_long() {
    let mut h = Health::default();
    fail(&mut h, 0, 0, &rate_limited(None));
    let probe = h.record_sent(at(1_000));
    h.return_probe(probe);
    fail(&mut h, 1_100, 1_000, &rate_limited(None));
    assert_eq!(h.until, at(3_100));
}

#[test]
fn an_answer_does_not_shorten_what_the_provider_asked_for() {
    let mut h = Health::default();
    fail(&mut h, 0, 0, &rate_limited(Some(5_000)));
    answer(&mut h, 100, 50);
    assert_eq!(h.state(at(200)), HealthState::Cooling { until: at(5_000) });
}

#[test]
fn no_retry_after_counts_as_less_than_the_floor() {
    let base = Duration::from_millis(20);
    let bounds = CooldownSettings { base, ..CooldownSettings::default() };
    let mut h = Health::default();
    for ms in [0, 1_000, 2_000] {
        h.record_failure(at(ms), at(ms), &rate_limited(Some(0)), &bounds, 0.0, ANYBODY);
        assert!(h.until >= at(ms) + bounds.retry_after_floor, "{ms}");
    }
}

#[test]
fn what_the_provider_asked_for_holds_also_under_a_longer_cooldown_of_our_own() {
    let mut h = Health::default();
    fail(&mut h, 0, 0, &Outcome::new(Kind::TimedOut, ""));
    assert_eq!(h.until, at(5_000));
    fail(&mut h, 10, 0, &rate_limited(Some(2_000)));
    assert_eq!(h.until, at(5_000));
    answer(&mut h, 100, 50);
    assert_eq!(h.state(at(200)), HealthState::Cooling { until: at(5_000) });
    answer(&mut h, 2_020, 60);
    assert_eq!(h.state(at(2_020)), HealthState::Ramping { allowed: 2 });
}

#[test]
fn an_answer_from_before_the_cooldown_does_not_end_it() {
    let reset = Outcome::new(Kind::Reset, "");
    let mut h = Health::default();
    fail(&mut h, 100, 0, &reset);
    answer(&mut h, 200, 50);
    assert_eq!(h.state(at(200)), HealthState::Cooling { until: at(600) });
    answer(&mut h, 700, 50);
    assert_eq!(h.state(at(700)), HealthState::ProbeDue, "nor does it stand for the probe");
    fail(&mut h, 700, 700, &reset);
    answer(&mut h, 800, 750);
    assert_eq!(h.state(at(800)), HealthState::Ramping { allowed: 2 }, "an emergency found it well");
}

#[test]
fn only_the_probe_under_way_ends_the_probing() {
    let mut h = Health::default();
    fail(&mut h, 0, 0, &rate_limited(None));
    let first = h.record_sent(at(1_000));
    fail(&mut h, 1_001, 0, &rate_limited(None));
    assert_eq!(h.state(at(1_001)), HealthState::Probing, "a straggler is not the probe");
    h.clear();
    let second = h.record_sent(at(1_100));
    h.return_probe(first);
    h.return_probe(None);
    assert_eq!(h.state(at(1_200)), HealthState::Probing, "nor is the probe of before");
    h.return_probe(second);
    assert_eq!(h.state(at(1_200)), HealthState::ProbeDue);
}

proptest! {
    #[test]
    fn one_request_alone_never_takes_a_part_away_for_long(
        steps in prop::collection::vec((0u64..3_000, prop::sample::select(vec![
            Kind::ServerError, Kind::Unauthorised, Kind::OutOfCredit, Kind::Cut, Kind::Malformed, Kind::Stalled,
            Kind::TimedOut, Kind::Reset, Kind::RateLimited, Kind::Overloaded,
        ]), prop::option::of(0u64..4_000)), 1..60),
    ) {
        let mut h = Health::default();
        let mut now = 0;
        for (gap, kind, retry_after) in steps {
            now += gap;
            let retry_after = retry_after.filter(|_| may_be_requests(kind)).map(Duration::from_secs);
            let outcome = Outcome { retry_after, ..Outcome::new(kind, "") };
            h.record_failure(at(now), at(now), &outcome, &CooldownSettings::default(), 0.0, seen(7, 0));
            prop_assert!(left(&h, now) <= 20_000);
        }
    }

    #[test]
    fn until_only_grows_while_failures_come(steps in prop::collection::vec((0u64..5_000, prop::option::of(0u64..10_000_000), 0f64..1.0), 1..50)) {
        let mut h = Health::default();
        let mut now = 0;
        for (gap, retry_after, jitter) in steps {
            now += gap;
            let before = h.until;
            h.record_failure(at(now), at(now), &rate_limited(retry_after), &CooldownSettings::default(), jitter, ANYBODY);
            prop_assert!(h.until >= before);
            prop_assert!(h.until <= at(now) + Duration::from_secs(3_600) || h.until == before);
            prop_assert!(h.until > at(now));
        }
    }
}
