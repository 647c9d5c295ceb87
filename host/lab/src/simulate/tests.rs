//! Worlds of fixed seeds, lived through with the default policy and with decisions by chance.

use super::*;

fn lived(seed: u64, exchanges: u64, policy: &Policy) -> Run {
    live(&Plan { seed, exchanges, policy, config: None }).expect("a native policy refuses nothing")
}

/// Holds every world to the rules; answers their numbers together.
fn all_hold(seeds: std::ops::Range<u64>, policy: &Policy) -> SimulationStats {
    let mut sum = SimulationStats::default();
    for seed in seeds {
        let Run { stats, breach } = lived(seed, 500, policy);
        if let Some((breach, story)) = breach {
            let story = story.map_or(String::new(), |story| story.to_string());
            panic!("seed {seed}: {}: {}\n{breach:?}\n{story}", breach.rule.as_str(), breach.rule.sentence());
        }
        sum.add(&stats);
    }
    sum
}

#[test]
fn every_rule_holds_whatever_is_decided() {
    let stats = all_hold(1..21, &Policy::Random);
    assert_eq!(stats.exchanges, 10_000);
    assert!(stats.probes > 100 && stats.waits > 500 && stats.rate_limited > 100, "little happened: {stats:?}");
}

#[test]
fn every_rule_holds_with_the_default_policy() {
    let stats = all_hold(1..21, &Policy::Native);
    assert_eq!(stats.exchanges, 10_000);
    assert!(stats.probes > 100 && stats.waits > 500 && stats.rate_limited > 100, "little happened: {stats:?}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    for policy in [Policy::Random, Policy::Native] {
        let (one, again, other) = (lived(7, 300, &policy), lived(7, 300, &policy), lived(8, 300, &policy));
        assert_eq!(one.stats, again.stats);
        assert_ne!(one.stats, other.stats);
    }
}

#[test]
fn a_breach_is_told_with_its_seed_its_story_and_the_way_back() {
    let story = pass(&Plan { seed: 9, exchanges: 40, policy: &Policy::Random, config: None }, Some(20)).unwrap().2;
    let how = "it took too long".to_owned();
    let breach = Breach { rule: judge::Rule::Budget, exchange: Some(20), at: START, how };
    let report = report::SimulationReport {
        seed: 1,
        exchanges: 40,
        config: None,
        policy: "random".to_owned(),
        stats: SimulationStats::default(),
        runs: 1,
        breach: Some((9, breach, story)),
        real: std::time::Duration::ZERO,
    };
    let text = report.to_string();
    for words in [
        "BROKEN: budget: every exchange ends",
        "seed 9, exchange 21",
        "it took too long",
        "request 21: ",
        "again: pointsman simulate --seed 9 --runs 1 --exchanges 40 --policy random\n",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    assert_eq!(report.json()["breach"]["rule"], "budget");
}
