//! Worlds of fixed seeds, lived through with the default policy and with decisions by chance.

use clap::{CommandFactory, Parser};

use super::judge::Rule;
use super::*;

fn lived(seed: u64, exchanges: u64, policy: &Policy) -> Run {
    live(&Plan { seed, exchanges, policy, config: None }).expect("a native policy refuses nothing")
}

/// Holds every world to the rules; answers their numbers together.
fn all_hold(seeds: std::ops::Range<u64>, policy: &Policy) -> Tally {
    let mut sum = Tally::default();
    for seed in seeds {
        let Run { tally, breach } = lived(seed, 500, policy);
        if let Some((breach, story)) = breach {
            let story = story.map_or(String::new(), |story| story.to_string());
            panic!("seed {seed}: {}: {}\n{breach:?}\n{story}", breach.rule.as_str(), breach.rule.sentence());
        }
        sum.add(&tally);
    }
    sum
}

#[test]
fn every_rule_holds_whatever_is_decided() {
    let tally = all_hold(1..21, &Policy::Random);
    assert_eq!(tally.exchanges, 10_000);
    assert!(tally.probes > 100 && tally.waits > 500 && tally.rate_limited > 100, "little happened: {tally:?}");
}

#[test]
fn every_rule_holds_with_the_default_policy() {
    let tally = all_hold(1..21, &Policy::Native);
    assert_eq!(tally.exchanges, 10_000);
    assert!(tally.probes > 100 && tally.waits > 500 && tally.rate_limited > 100, "little happened: {tally:?}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    for policy in [Policy::Random, Policy::Native] {
        let (one, again, other) = (lived(7, 300, &policy), lived(7, 300, &policy), lived(8, 300, &policy));
        assert_eq!(one.tally, again.tally);
        assert_ne!(one.tally, other.tally);
    }
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: SimulateArgs,
}

fn ran(words: &[&str]) -> (Simulated, String, String) {
    let line = Line::parse_from([&["simulate"], words].concat());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = command::run(&line.args, &[], &mut out, &mut err).unwrap();
    (ended, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn the_command_prints_the_same_for_the_same_seed_but_for_real_time() {
    let words = ["--seed", "5", "--runs", "3", "--exchanges", "100", "--json"];
    let told = || {
        let (ended, out, _) = ran(&words);
        assert_eq!(ended, Simulated::Held);
        let mut told: serde_json::Value = serde_json::from_str(&out).unwrap();
        told.as_object_mut().unwrap().remove("real");
        told
    };
    let one = told();
    assert_eq!(one, told());
    assert_eq!((&one["exchanges"], &one["runs"]), (&300.into(), &3.into()));
    let (_, table, _) = ran(&words[..6]);
    assert!(table.contains("All 7 rules held:\n") && table.contains("429s received"), "{table}");
    assert!(Rule::ALL.iter().all(|rule| table.contains(rule.sentence())), "each is explained: {table}");
    let help = Line::command().render_long_help().to_string();
    let unwrapped = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(Rule::ALL.iter().all(|rule| unwrapped.contains(rule.sentence())), "and in the help: {help}");
}

#[test]
fn a_table_of_ones_own_is_used_and_a_bad_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.toml");
    std::fs::write(&file, "[[backend]]\nid = \"a\"\nbase_url = \"http://x\"\ntier = \"fallback\"\n").unwrap();
    let words = ["--worlds", "1", "--exchanges", "100", "--json", "--config", file.to_str().unwrap()];
    let (ended, out, err) = ran(&words);
    assert_eq!(ended, Simulated::Held, "{err}");
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["answered"]["primary"], 0, "it has no primary");
    assert!(told["answered"]["fallback"].as_u64().unwrap() > 0, "{told}");
    std::fs::write(&file, "nonsense").unwrap();
    assert_eq!(ran(&words).0, Simulated::WrongUsage);
}

#[test]
fn a_breach_is_told_with_its_seed_its_story_and_the_way_back() {
    let line = Line::parse_from(["simulate", "--exchanges", "40", "--policy", "random"]);
    let story = pass(&Plan { seed: 9, exchanges: 40, policy: &Policy::Random, config: None }, Some(20)).unwrap().2;
    let how = "it took too long".to_owned();
    let breach = Breach { rule: judge::Rule::Budget, exchange: Some(20), at: START, how };
    let report = report::Report {
        args: &line.args,
        policy: "random".to_owned(),
        tally: Tally::default(),
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
