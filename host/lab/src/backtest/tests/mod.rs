//! Journals of worlds whose truth is known: what a backtest makes of them.

mod truth;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::Query;
use pointsman_core::journal::Setup;
use pointsman_core::time::Timestamp;
use pointsman_store::{Store, StoreLimits, StorePath};

use truth::{Ill, Plot, Provider, START, Says};

use super::gather::Gathering;
use super::metrics::{Metric, Row, rows};
use super::model::limits::Counts;
use super::model::{MINUTE, Model};
use super::past::Past;
use super::results::{Counter, ExchangeStats};
use super::*;
use crate::chronicle::Chronicler;

const CONFIG: &str = r#"
[policy.settings]
primary_wait_ms = 5000
[[backend]]
id = "free-1"
base_url = "http://x"
tier = "primary"
rpm = 60
models = ["m"]
[[backend]]
id = "free-2"
base_url = "http://x"
tier = "primary"
models = ["m"]
[[backend]]
id = "paid"
base_url = "http://x"
tier = "fallback"
models = ["m"]
price = { m = { input_per_mtok = 1.0, output_per_mtok = 4.0 } }
"#;

fn default_policy() -> Compiled {
    super::source::engine().expect("the engine starts").compile_embedded().expect("it is a policy")
}

/// Lets the policy with these settings live in this plot; its journal.
fn chronicle(plot: &Plot, seed: u64, policy: &Compiled, settings: &str) -> Store {
    let unlimited = StoreLimits { retention_days: None, max_bytes: None, ..StoreLimits::default() };
    let store = Store::open(StorePath::Memory, unlimited, Arc::new(|| START)).expect("memory is there");
    let setup = Setup { settings: settings.to_owned(), ..plot.config().setup() };
    let revision = policy.isolated(settings, Arc::new(setup.table.clone())).expect("it takes the table");
    let decide = |query: &Query, texts: &Arc<Texts>| revision.decide(query, texts);
    let chronicler = Chronicler::new(store.handle(), &setup, policy.id().clone());
    World::new(&setup, START, seed, &[], plot.play(seed), decide, chronicler).run();
    store.handle().flush_blocking().expect("it is written");
    store
}

/// Runs this policy in the very world that the journal is of, with several seeds of core's random numbers.
fn true_tallies(plot: &Plot, seed: u64, policy: &Compiled, settings: &str, past: &Past) -> [ExchangeStats; 3] {
    let setup = plot.config().setup();
    [1, 2, 3].map(|throw| {
        let revision = policy.isolated(settings, Arc::new(setup.table.clone())).expect("it takes the table");
        let decide = |query: &Query, texts: &Arc<Texts>| revision.decide(query, texts);
        let counter = Counter::new(past.face, plot.exchanges as usize);
        World::new(&setup, START, throw, &[], plot.play(seed), decide, counter).run().watcher.stats
    })
}

fn take_in(store: &Store) -> Past {
    let mut gathering = Gathering::default();
    let all = (Timestamp::default(), Timestamp::from_millis(u64::MAX / 2_000));
    let each = |journaled| {
        gathering.add(journaled);
        ControlFlow::Continue(())
    };
    let skipped = store.reader().journal(all.0, all.1, each).expect("it can be read");
    assert_eq!(skipped.trails, 0);
    gathering.finish().unwrap_or_else(|few| panic!("{few:?}"))
}

fn compared(past: &Past, model: &Model, policy: &Compiled, settings: &str, seeds: u32) -> Vec<Row> {
    let policies = [(policy, (&past.setup.settings).into()), (policy, settings.into())];
    let plan = Plan { past, model, policies, seeds };
    let lived = live(&plan, |_, _| ()).unwrap_or_else(|(_, why)| panic!("{why}"));
    rows(&past.recorded, past.share, &lived)
}

fn row(rows: &[Row], metric: Metric) -> Row {
    *rows.iter().find(|row| row.metric == metric).expect("all are there")
}

fn told(rows: &[Row]) -> String {
    let one = |r: &Row| format!("  {:?}: recorded {:.4}, modelled {:.4}\n", r.metric, r.recorded, r.current.mean);
    rows.iter().map(one).collect()
}

/// Checks several journals of a world: each lane's share is within 5 % of itself, or within a point where that is more;
/// the spend is within 10 %. One journal is one random sample, and the next one is as far from it as from the model: the
/// spend of one varies by 7 %, so that the mean of three may be 8 % off by chance (ten were 1.4 % off).
fn assert_calibrated(what: &str, journals: &[Vec<Row>]) {
    let told: String = journals.iter().map(|rows| told(rows)).collect();
    let mean = |metric, of: fn(&Row) -> f64| {
        journals.iter().map(|rows| of(&row(rows, metric))).sum::<f64>() / journals.len() as f64
    };
    let recorded_and_off = |metric| {
        let recorded = mean(metric, |row| row.recorded);
        (recorded, mean(metric, |row| row.current.mean) - recorded)
    };
    for metric in [Metric::Primary, Metric::Fallback, Metric::Emergency, Metric::Unanswered] {
        let (recorded, off) = recorded_and_off(metric);
        assert!(off.abs() <= (0.05 * recorded).max(0.01), "{what}: {metric:?} is off by {off:.4}\n{told}");
    }
    let (spent, off) = recorded_and_off(Metric::Spend);
    assert!(off.abs() <= 0.1 * spent, "{what}: the spend is off by {off:.5} of {spent:.5}\n{told}");
}

/// The worlds: what is asked, and what is hidden.
fn plots() -> Vec<(&'static str, Plot)> {
    let plot = |providers: [Provider; 3], gap_ms| Plot {
        config: CONFIG,
        providers: providers.into(),
        exchanges: 3_000,
        mean_gap: Duration::from_millis(gap_ms),
        impatient: 60,
    };
    let out = |from, to, ill| Provider { outages: vec![(from..to, ill)], ..Provider::default() };
    let by_the_clock = Some((Counts::RequestsSince(MINUTE), 30));
    let many_ills = Provider {
        outages: vec![(400..900, Ill::Failing), (1_500..1_560, Ill::Dead), (2_400..2_700, Ill::Storm)],
        slow: vec![(1_000..1_400, 6.0)],
        ..Provider::default()
    };
    vec![
        ("limits unlike the table's", limits_unlike_the_tables()),
        (
            "a limit by the clock, and one that says when there is room",
            plot(
                [
                    Provider { limit: by_the_clock, says: Says::UntilRoom, ..Provider::default() },
                    limited(20, Says::UntilRoom),
                    Provider::default(),
                ],
                2_000,
            ),
        ),
        (
            "outages, a storm and slow hours",
            plot(
                [
                    many_ills,
                    Provider { limit: Some((Counts::UnderWay, 6)), ..out(600, 1_000, Ill::Silent) },
                    Provider::default(),
                ],
                1_100,
            ),
        ),
        (
            "failures for no reason",
            plot(
                [
                    Provider { faulty: 6, ..Provider::default() },
                    Provider { faulty: 12, ..limited(30, Says::Nothing) },
                    Provider::default(),
                ],
                1_500,
            ),
        ),
    ]
}

fn limited(limit: u64, says: Says) -> Provider {
    Provider { limit: Some((Counts::RequestsWithin(MINUTE), limit)), says, ..Provider::default() }
}

/// The table says 60 a minute of the first, and nothing of the second.
fn limits_unlike_the_tables() -> Plot {
    Plot {
        config: CONFIG,
        providers: vec![limited(30, Says::Seconds(5)), limited(25, Says::Nothing), Provider::default()],
        exchanges: 3_000,
        mean_gap: Duration::from_millis(2_000),
        impatient: 60,
    }
}

#[test]
fn the_policy_that_ran_comes_to_what_was_recorded() {
    let policy = default_policy();
    for (name, plot) in plots() {
        let journal = |seed| {
            let past = take_in(&chronicle(&plot, seed, &policy, WAITS));
            let model = Model::learn(&past);
            let rows = compared(&past, &model, &policy, &past.setup.settings, 3);
            println!("{name}, seed {seed}\n{}", told(&rows));
            model.backends.iter().for_each(|b| println!("  {:?} {}", b.limits, b.whole.outages.spells.len()));
            for row in &rows {
                assert_eq!(row.difference.mean, 0.0, "the same policy differs from itself: {row:?}");
            }
            rows
        };
        assert_calibrated(name, &[1, 2, 3].map(journal));
    }
}

/// Settings of the default policy.
const WAITS: &str = r#"{"primary_wait_ms":2000,"primary_wait_max_retries":2}"#;
const WAITS_LONG: &str = r#"{"primary_wait_ms":5000,"primary_wait_max_retries":3}"#;
const NEVER_WAITS: &str = r#"{"primary_wait_max_retries":0}"#;

#[test]
fn a_policy_that_never_waits_spends_more_and_one_that_waits_less() {
    let policy = default_policy();
    for (ran, other, is_better) in [(WAITS, NEVER_WAITS, false), (NEVER_WAITS, WAITS, true)] {
        let plot = Plot { exchanges: 6_000, ..limits_unlike_the_tables() };
        let past = take_in(&chronicle(&plot, 3, &policy, ran));
        let rows = compared(&past, &Model::learn(&past), &policy, other, 14);
        let (spend, waited) = (row(&rows, Metric::Spend), row(&rows, Metric::Waited));
        println!("{ran} {other} {spend:?}");
        assert_eq!(spend.is_better(), Some(is_better), "{ran} {other}: {spend:?}");
        assert_eq!(waited.is_better(), Some(!is_better), "{ran} {other}: {waited:?}");
    }
}

#[test]
fn what_is_foretold_of_another_policy_comes_true() {
    let policy = default_policy();
    for (name, plot) in [("limits", limits_unlike_the_tables()), plots().swap_remove(2)] {
        let past = take_in(&chronicle(&plot, 5, &policy, WAITS));
        let model = Model::learn(&past);
        for settings in [NEVER_WAITS, WAITS_LONG] {
            let rows = compared(&past, &model, &policy, settings, 3);
            let truth = true_tallies(&plot, 5, &policy, settings, &past);
            for metric in [Metric::Primary, Metric::Fallback, Metric::Unanswered, Metric::Spend, Metric::Waiting] {
                let came = truth.iter().map(|stats| metric.of(stats, 1.0)).sum::<f64>() / truth.len() as f64;
                let foretold = row(&rows, metric).candidate.mean;
                println!("{name} {settings} {metric:?}: foretold {foretold:.4}, came {came:.4}");
                let off = (foretold - came).abs();
                assert!(
                    off <= (0.15 * came).max(0.03),
                    "{name} {settings} {metric:?}: {foretold:.4} instead of {came:.4}"
                );
            }
        }
    }
}

fn journaled(store: &Store) -> Vec<pointsman_store::Journaled> {
    let mut all = Vec::new();
    let end = Timestamp::from_millis(u64::MAX / 2_000);
    let each = |journaled| {
        all.push(journaled);
        ControlFlow::Continue(())
    };
    store.reader().journal(Timestamp::default(), end, each).expect("it can be read");
    all
}

#[test]
fn a_sample_is_scaled_up_and_meets_limits_scaled_down() {
    let policy = default_policy();
    let store = chronicle(&limits_unlike_the_tables(), 7, &policy, NEVER_WAITS);
    let whole = take_in(&store);
    let (mut gathering, mut dice) = (Gathering::default(), crate::dice::Dice::new(1, 9));
    for mut one in journaled(&store) {
        // As the journal does: half by chance, and those of note besides.
        one.sampled = dice.one_in(2);
        gathering.add(one);
    }
    let half = gathering.finish().unwrap_or_else(|few| panic!("{few:?}"));
    assert!((0.45..0.55).contains(&half.share), "{}", half.share);
    assert!(half.arrivals.len() < whole.arrivals.len() * 11 / 20, "the rest is not of the sample");
    assert_eq!(half.setup.table.backends[0].limits.rpm, Some((60.0 * half.share).round() as u32));
    let spend = |past: &Past| Metric::Spend.of(&past.recorded, past.share);
    assert!((spend(&half) / spend(&whole) - 1.0).abs() < 0.1, "{} {}", spend(&half), spend(&whole));
    let rows = compared(&half, &Model::learn(&half), &policy, NEVER_WAITS, 2);
    let primary = row(&rows, Metric::Primary);
    // The gaps between those of the sample are not what the backends saw.
    assert!((primary.current.mean - primary.recorded).abs() < 0.1, "{primary:?}");
}

#[test]
fn the_latest_setup_wins_and_the_others_are_counted() {
    let policy = default_policy();
    let plot = Plot { exchanges: 150, ..limits_unlike_the_tables() };
    let all = journaled(&chronicle(&plot, 8, &policy, WAITS));
    let mut later = Setup { settings: NEVER_WAITS.to_owned(), ..(*all[0].setup).clone() };
    // The second is gone, and the third has moved up.
    later.table.backends.remove(1);
    let later = Arc::new(later);
    let mut gathering = Gathering::default();
    for (n, mut one) in all.into_iter().enumerate() {
        if n >= 100 {
            one.setup = later.clone();
        }
        gathering.add(one);
    }
    let past = gathering.finish().unwrap_or_else(|few| panic!("{few:?}"));
    assert_eq!((past.other_setups, &*past.setup.settings), (100, NEVER_WAITS));
    assert_eq!((past.tries.len(), &*past.setup.table.backends[1].id), (2, "paid"));
    assert!(past.lost_tries > 0 && !past.tries[0].is_empty());
}

#[test]
fn too_few_exchanges_are_told() {
    let plot = Plot { exchanges: 40, ..limits_unlike_the_tables() };
    let mut gathering = Gathering::default();
    journaled(&chronicle(&plot, 9, &default_policy(), WAITS)).into_iter().for_each(|one| gathering.add(one));
    assert_eq!(gathering.finish().err(), Some(super::past::TooFew { found: 40 }));
}
