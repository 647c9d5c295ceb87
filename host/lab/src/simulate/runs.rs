//! Simulations of several seeds: worlds until a rule is broken, or days.

use std::collections::VecDeque;
use std::path::PathBuf;

use pointsman_config::Config;
use pointsman_engine::LoadError;
use pointsman_engine::clock::Stopwatch;

use super::report::SimulationReport;
use super::{Plan, Policy, Run, SimulationStats, days, live};

/// Inputs of a simulation of several worlds.
pub struct Options<'a> {
    /// Seed of the first run; each further run takes the next number.
    pub seed: u64,
    /// Number of worlds; their seeds follow one another.
    pub runs: u64,
    /// Number of requests in each run.
    pub exchanges: u64,
    /// The deciding policy.
    pub policy: &'a Policy,
    /// Name of the policy in the report.
    pub policy_name: String,
    /// The configuration whose table takes the place of made-up ones, and its file.
    pub config: Option<(&'a Config, PathBuf)>,
}

/// A component that takes no table or settings of a seed.
#[derive(Debug)]
pub struct Refusal {
    /// Seed of the world that could not be made.
    pub seed: u64,
    /// Reason for which the policy cannot be loaded.
    pub why: LoadError,
}

/// Simulates run after run, until a rule is broken.
///
/// # Errors
/// The component refuses the table or the settings of a run.
pub fn simulate(options: &Options<'_>) -> Result<SimulationReport, Refusal> {
    let watch = Stopwatch::start();
    let Options { seed, runs, exchanges, policy, policy_name, config } = options;
    let mut report = SimulationReport {
        seed: *seed,
        exchanges: *exchanges,
        config: config.as_ref().map(|(_, file)| file.clone()),
        policy: policy_name.clone(),
        stats: SimulationStats::default(),
        runs: 0,
        breach: None,
        real: watch.elapsed(),
    };
    let config = config.as_ref().map(|(config, _)| *config);
    let plan = |seed| Plan { seed, exchanges: *exchanges, policy, config };
    for (seed, lived) in Worlds::new(*seed, *runs, plan) {
        let Run { stats, breach } = lived.map_err(|why| Refusal { seed, why })?;
        report.stats.add(&stats);
        report.runs += 1;
        report.breach = breach.map(|(breach, story)| (seed, breach, story));
        if report.breach.is_some() {
            break;
        }
    }
    report.real = watch.elapsed();
    Ok(report)
}

/// Compares the policy with the fixed rule on so many days, from the one of this seed.
///
/// # Errors
/// The component refuses the table of a day.
pub fn simulate_days(first: u64, days: u64, policy: &Policy, policy_name: String) -> Result<days::DaysReport, Refusal> {
    let seeds = (0..days).map(|n| first.wrapping_add(n));
    let days = seeds.map(|seed| days::compare(seed, policy).map_err(|why| Refusal { seed, why }));
    Ok(days::DaysReport { policy: policy_name, days: days.collect::<Result<_, _>>()? })
}

/// Worlds lived through side by side, as many at a time as there are processors, and told in the order of their seeds.
struct Worlds<P> {
    plan: P,
    next: u64,
    left: u64,
    lived: VecDeque<(u64, Result<Run, LoadError>)>,
}

impl<'a, P: Fn(u64) -> Plan<'a>> Worlds<P> {
    fn new(first: u64, number: u64, plan: P) -> Self {
        Self { plan, next: first, left: number, lived: VecDeque::new() }
    }

    fn live_through_some(&mut self) {
        let at_a_time = std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(self.left);
        let seeds: Vec<u64> = (0..at_a_time).map(|n| self.next.wrapping_add(n)).collect();
        let plans: Vec<_> = seeds.iter().map(|seed| (self.plan)(*seed)).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = plans.iter().map(|plan| scope.spawn(|| live(plan))).collect();
            for (seed, thread) in seeds.iter().zip(threads) {
                // A panic in there is one of ours.
                let lived = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                self.lived.push_back((*seed, lived));
            }
        });
        self.next = self.next.wrapping_add(at_a_time);
        self.left -= at_a_time;
    }
}

impl<'a, P: Fn(u64) -> Plan<'a>> Iterator for Worlds<P> {
    type Item = (u64, Result<Run, LoadError>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.lived.is_empty() && self.left > 0 {
            self.live_through_some();
        }
        self.lived.pop_front()
    }
}
