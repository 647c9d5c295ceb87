//! Guarded promotions on made-up traffic with fixed seeds: how often a candidate that is no worse is rolled back, and after how
//! many exchanges one that is worse.
//!
//! Every exchange is followed by a look at the verdict, which is what the error level must hold against.

use std::time::Duration;

use pointsman_core::lifecycle::promotion::{ERROR_LEVEL, Plan, Promotion, Sample, Side, Verdict};
use pointsman_core::random::SplitMix64;
use pointsman_core::time::Timestamp;

/// One policy's exchanges.
#[derive(Clone, Copy)]
struct World {
    /// The share that fails.
    failing: f64,
    /// The median time, in s; times are log-normal, as those of answers are.
    median_s: f64,
    /// The spread of their logarithm.
    sigma: f64,
    /// The share of exchanges that cost something: the others are answered for nothing.
    paid: f64,
    /// The median cost of those, in USD; log-normal too.
    usd: f64,
}

const USUAL: World = World { failing: 0.01, median_s: 1.0, sigma: 0.6, paid: 0.3, usd: 0.002 };

/// Numbers that look like chance.
struct Dice(SplitMix64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0.unit()
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    fn exchange(&mut self, world: &World) -> Sample {
        let is_paid = self.unit() < world.paid;
        Sample {
            arrived: Timestamp::from_millis(1),
            failed: self.unit() < world.failing,
            took: Duration::from_secs_f64(self.log_normal(world.median_s, world.sigma)),
            cost_usd: if is_paid { self.log_normal(world.usd, 1.0) } else { 0.0 },
        }
    }
}

/// Returns how many of the candidate's exchanges it took to roll it back; `None`: it was not, in `most` exchanges of
/// both.
fn rolled_back_after(seed: u64, guards: &[&str], share: f64, worlds: [World; 2], most: u64) -> Option<u64> {
    let plan = Plan::parse(Some("5%"), Some("10m"), guards.iter().copied()).unwrap();
    let mut promotion = Promotion::new(plan, Timestamp::default());
    let mut dice = Dice(SplitMix64(seed));
    for _ in 0..most {
        let is_candidate = dice.unit() < share;
        let side = if is_candidate { Side::Candidate } else { Side::Control };
        let sample = dice.exchange(&worlds[usize::from(is_candidate)]);
        match promotion.ended(Timestamp::from_millis(2), side, &sample) {
            Verdict::GoOn => {}
            Verdict::RollBack(_) => return Some(promotion.seen(Side::Candidate).exchanges),
            told @ (Verdict::Extended(_) | Verdict::Promote(_)) => panic!("before its time: {told:?}"),
        }
    }
    None
}

/// The share of trials that were rolled back, and the median number of the candidate's exchanges it took.
fn trials(count: u64, guards: &[&str], share: f64, worlds: [World; 2], most: u64) -> (f64, u64) {
    let run = |seed| rolled_back_after(seed * 7_919 + 1, guards, share, worlds, most);
    let mut after: Vec<u64> = (0..count).filter_map(run).collect();
    after.sort_unstable();
    let median = after.get(after.len() / 2).copied().unwrap_or(0);
    (after.len() as f64 / count as f64, median)
}

/// Measured with 200 trials of 6,000 exchanges in each of the eight cases: none of the 1,600 was rolled back.
#[test]
fn the_same_policy_against_itself_is_rolled_back_no_more_often_than_stated() {
    // Without an allowance, so that nothing hides an error; quiet, failing, heavy-tailed and rarely paid worlds.
    let none = ["error_rate<=+0%", "p95<=+0%", "spend<=+0%"];
    let (count, most) = size(25, 2_000);
    for (name, world) in [
        ("usual", USUAL),
        ("failing and heavy-tailed", World { failing: 0.3, sigma: 1.5, ..USUAL }),
        ("quiet", World { failing: 0.0, sigma: 0.01, paid: 1.0, ..USUAL }),
        ("rarely paid", World { paid: 0.01, ..USUAL }),
    ] {
        for share in [0.05, 0.5] {
            let (rolled_back, _) = trials(count, &none, share, [world, world], most);
            println!("{name} at a share of {share}: {rolled_back} rolled back");
            assert!(rolled_back <= ERROR_LEVEL, "{rolled_back} of {name} at a share of {share}");
        }
    }
}

#[test]
fn one_that_is_better_is_never_rolled_back() {
    let better = World { failing: 0.0, median_s: 0.7, usd: 0.001, ..USUAL };
    assert_eq!(trials(20, &[], 0.05, [USUAL, better], 2_000).0, 0.0);
}

/// With the guards of a promotion that names none, and a candidate at 5 %. Measured with 60 trials each, the median of the
/// candidate's exchanges until it was rolled back: 123 (fails a tenth), 16 (a third), 10 (always), 298 (1.5 times as
/// long), 67 (twice), 458 (costs twice as much), 58 (pays for everything); all were.
#[test]
fn one_that_is_worse_is_caught() {
    for (what, worse, within) in [
        ("fails a tenth", World { failing: 0.1, ..USUAL }, 250),
        ("fails a third", World { failing: 0.33, ..USUAL }, 40),
        ("fails always", World { failing: 1.0, ..USUAL }, 10),
        ("takes 1.5 times as long", World { median_s: 1.5, ..USUAL }, 600),
        ("takes twice as long", World { median_s: 2.0, ..USUAL }, 140),
        ("costs twice as much", World { usd: 0.004, ..USUAL }, 900),
        ("pays for everything", World { paid: 1.0, ..USUAL }, 120),
    ] {
        let (count, most) = size(8, 20_000);
        let (caught, median) = trials(count, &[], 0.05, [USUAL, worse], most);
        println!("{what}: {caught} caught, half of them after {median} exchanges");
        assert!(caught == 1.0 && median <= within, "{what}: {caught} after {median}");
    }
}

/// Returns the number of trials and of exchanges in each; `CANARY_TRIALS=1000,20000` makes it a measurement.
fn size(count: u64, most: u64) -> (u64, u64) {
    let asked = std::env::var("CANARY_TRIALS").ok();
    let parse = |text: &str| text.split_once(',').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    asked.as_deref().and_then(parse).unwrap_or((count, most))
}
