use super::*;
use proptest::prelude::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

fn rate_limited(retry_after_ms: Option<u64>) -> Outcome {
    Outcome { retry_after: retry_after_ms.map(Duration::from_millis), ..Outcome::new(Kind::RateLimited, "") }
}

fn fail(h: &mut Health, now: u64, sent: u64, outcome: &Outcome) {
    h.record_failure(at(now), at(sent), outcome, &CooldownSettings::default(), 0.0);
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
    h.record_success(at(1_100), at(1_000));
    assert_eq!(h.state(at(1_100)), HealthState::Ramping { allowed: 2 });
    for allowed in [4, 8, 16, 32] {
        h.record_success(at(1_200), at(1_100));
        assert_eq!(h.state(at(1_200)), HealthState::Ramping { allowed });
    }
    h.record_success(at(1_300), at(1_200));
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
    h.record_success(at(100), at(50));
    assert_eq!(h.state(at(200)), HealthState::Cooling { until: at(5_000) });
}

#[test]
fn no_retry_after_counts_as_less_than_the_floor() {
    let base = Duration::from_millis(20);
    let bounds = CooldownSettings { base, ..CooldownSettings::default() };
    let mut h = Health::default();
    for ms in [0, 1_000, 2_000] {
        h.record_failure(at(ms), at(ms), &rate_limited(Some(0)), &bounds, 0.0);
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
    h.record_success(at(100), at(50));
    assert_eq!(h.state(at(200)), HealthState::Cooling { until: at(5_000) });
    h.record_success(at(2_020), at(60));
    assert_eq!(h.state(at(2_020)), HealthState::Ramping { allowed: 2 });
}

#[test]
fn an_answer_from_before_the_cooldown_does_not_end_it() {
    let reset = Outcome::new(Kind::Reset, "");
    let mut h = Health::default();
    fail(&mut h, 100, 0, &reset);
    h.record_success(at(200), at(50));
    assert_eq!(h.state(at(200)), HealthState::Cooling { until: at(600) });
    h.record_success(at(700), at(50));
    assert_eq!(h.state(at(700)), HealthState::ProbeDue, "nor does it stand for the probe");
    fail(&mut h, 700, 700, &reset);
    h.record_success(at(800), at(750));
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
    fn until_only_grows_while_failures_come(steps in prop::collection::vec((0u64..5_000, prop::option::of(0u64..10_000_000), 0f64..1.0), 1..50)) {
        let mut h = Health::default();
        let mut now = 0;
        for (gap, retry_after, jitter) in steps {
            now += gap;
            let before = h.until;
            h.record_failure(at(now), at(now), &rate_limited(retry_after), &CooldownSettings::default(), jitter);
            prop_assert!(h.until >= before);
            prop_assert!(h.until <= at(now) + Duration::from_secs(3_600) || h.until == before);
            prop_assert!(h.until > at(now));
        }
    }
}
