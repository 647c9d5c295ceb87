use super::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

fn plan(guards: &[&str]) -> Plan {
    Plan::parse(Some("50%"), Some("10m"), guards.iter().copied()).unwrap()
}

fn sample(failed: bool, ms: u64, cost_usd: f64) -> Sample {
    Sample { arrived: at(1), failed, took: Duration::from_millis(ms), cost_usd }
}

/// Both sides alike until the candidate has had so many.
fn alike(promotion: &mut Promotion, exchanges: u64) {
    for i in 0..exchanges {
        for side in [Side::Control, Side::Candidate] {
            let sample = sample(i % 50 == 0, 100 + i % 40, 0.001 * (1 + i % 3) as f64);
            assert_eq!(promotion.ended(at(2), side, &sample), Verdict::GoOn);
        }
    }
}

#[test]
fn one_that_is_like_the_other_is_promoted_when_its_time_is_over() {
    let mut promotion = Promotion::new(plan(&[]), at(0));
    alike(&mut promotion, 300);
    assert_eq!(promotion.look(at(599_999)), Verdict::GoOn);
    let Verdict::Promote(why) = promotion.look(at(600_000)) else { panic!("it is no worse") };
    assert!(
        why.starts_with(
            "no guard is violated: error_rate<=+0.5%: failed requests: candidate 6 of 300 (2%), baseline 6 of 300"
        ),
        "{why}"
    );
    assert_eq!(promotion.look(at(700_000)), Verdict::GoOn, "said once");
    assert!(promotion.findings().iter().all(|finding| finding.standing == GuardStatus::Within));
}

#[test]
fn one_that_fails_is_rolled_back_as_soon_as_that_is_shown() {
    let mut promotion = Promotion::new(plan(&["error_rate<=+0.5%"]), at(0));
    for _ in 0..100 {
        promotion.ended(at(2), Side::Control, &sample(false, 10, 0.0));
    }
    let verdicts: Vec<_> = (0..20).map(|_| promotion.ended(at(2), Side::Candidate, &sample(true, 10, 0.0))).collect();
    let nth = verdicts.iter().position(|verdict| *verdict != Verdict::GoOn).unwrap();
    assert_eq!(nth as u64 + 1, MIN_TO_ROLL_BACK);
    let Verdict::RollBack(why) = &verdicts[nth] else { panic!("{verdicts:?}") };
    assert!(why.starts_with("error_rate<=+0.5% is violated: "), "{why}");
    assert!(verdicts[nth + 1..].iter().all(|verdict| *verdict == Verdict::GoOn), "said once");
}

#[test]
fn one_that_is_slow_or_dear_is_rolled_back() {
    for (guard, ms, cost) in [("p95<=+10%", 1_000, 0.001), ("spend<=+5%", 100, 0.003)] {
        let mut promotion = Promotion::new(plan(&[guard]), at(0));
        let mut told = None;
        for i in 0..1_000 {
            let control = sample(false, 100 + i % 7, 0.001 + (i % 5) as f64 * 1e-4);
            for (side, sample) in [(Side::Control, control), (Side::Candidate, sample(false, ms + i % 7, cost))] {
                let verdict = promotion.ended(at(2), side, &sample);
                told = told.or((verdict != Verdict::GoOn).then_some((i, verdict)));
            }
        }
        let (after, verdict) = told.expect(guard);
        assert!(after < 400, "{guard} after {after}");
        assert!(matches!(&verdict, Verdict::RollBack(why) if why.contains(guard)), "{verdict:?}");
    }
}

#[test]
fn thin_evidence_is_given_as_much_time_again_and_then_up() {
    let mut promotion = Promotion::new(plan(&[]), at(0));
    alike(&mut promotion, MIN_EXCHANGES - 1);
    let thin = promotion.look(at(600_000));
    assert!(
        matches!(&thin, Verdict::Extended(why) if why.contains("99 of the candidate and 99 of the policy in force have ended, and 100 of each are needed")),
        "{thin:?}"
    );
    assert_eq!((promotion.until(), promotion.extended().is_some()), (at(1_200_000), true));
    assert_eq!(promotion.look(at(1_199_999)), Verdict::GoOn);
    let given_up = promotion.look(at(1_200_000));
    assert!(
        matches!(&given_up, Verdict::RollBack(why) if why.ends_with("the time was extended once already")),
        "{given_up:?}"
    );
}

#[test]
fn a_percentile_that_is_not_known_yet_is_thin_evidence() {
    let mut promotion = Promotion::new(plan(&["p95<=+10%"]), at(0));
    alike(&mut promotion, MIN_EXCHANGES);
    let thin = promotion.look(at(600_000));
    assert!(
        matches!(&thin, Verdict::Extended(why) if why.contains("100 requests of the baseline are too few to bound its 95th percentile, 131 are needed")),
        "{thin:?}"
    );
    alike(&mut promotion, 131 - MIN_EXCHANGES);
    assert!(matches!(promotion.look(at(1_200_000)), Verdict::Promote(_)), "so many are enough");
}

#[test]
fn what_seems_worse_and_may_be_chance_is_looked_at_for_longer_and_then_promoted() {
    let mut promotion = Promotion::new(plan(&["error_rate<=+0.5%"]), at(0));
    for i in 0..200 {
        promotion.ended(at(2), Side::Control, &sample(false, 10, 0.0));
        promotion.ended(at(2), Side::Candidate, &sample(i % 80 == 0, 10, 0.0));
    }
    let open = promotion.look(at(600_000));
    assert!(
        matches!(&open, Verdict::Extended(why) if why.contains("may be violated: failed requests: candidate 3 of 200 (1.5%)")),
        "{open:?}"
    );
    assert!(matches!(promotion.look(at(1_200_000)), Verdict::Promote(_)));
}

#[test]
fn what_arrived_before_is_not_counted() {
    let mut promotion = Promotion::new(plan(&[]), at(0));
    let before = Sample { arrived: at(0) - Duration::from_millis(1), ..sample(true, 1, 1.0) };
    promotion.ended(at(1), Side::Candidate, &before);
    assert_eq!(promotion.seen(Side::Candidate).exchanges, 0);
}

/// Numbers too small for six digits after the point, in a sentence that one reads once.
#[test]
fn a_dear_candidate_is_told_with_significant_digits() {
    let mut promotion = Promotion::new(plan(&["spend<=+5%"]), at(0));
    let mut told = None;
    for i in 0..600 {
        for (side, cost) in [(Side::Control, 4e-7), (Side::Candidate, 1.4e-5)] {
            let verdict = promotion.ended(at(2), side, &sample(false, 10, cost * (1.0 + 0.01 * f64::from(i % 3))));
            told = told.or((verdict != Verdict::GoOn).then_some(verdict));
        }
    }
    let Some(Verdict::RollBack(why)) = told else { panic!("{told:?}") };
    assert!(
        why.starts_with("spend<=+5% is violated: mean cost per request: candidate $0.0000141 (at least $0.0000"),
        "{why}"
    );
    assert!(why.contains("baseline $0.000000404 (at most $0.000") && why.ends_with("limit +5% exceeded"), "{why}");
}
