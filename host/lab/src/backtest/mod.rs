//! `pointsman backtest`: recorded traffic once more, under the policy that ran and under another, side by side.
//!
//! The journal is taken in ([`gather`], [`past`]); from it a [`model`] of the world outside is learned; for each seed the
//! world is as it may have been ([`likely`], [`responses`]), and core's own `Exchange` and `Fleet` live through it once with each policy
//! ([`results`] counts). Both policies meet the same worlds, so that what differs is theirs ([`stats`], [`metrics`]).

mod gather;
mod likely;
mod metrics;
mod model;
mod past;
mod report;
mod responses;
mod results;
mod source;
mod stats;
#[cfg(test)]
mod tests;
mod thin;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use pointsman_core::contract::Query;

use pointsman_config::recorded_settings;
use pointsman_engine::clock::Stopwatch;
use pointsman_engine::{Compiled, LoadError, SettingsOffer, Texts};
use pointsman_store::Skipped;

pub use past::{MIN_EXCHANGES, Past, TooFew};
pub use report::{BacktestReport, Html, Terminal, json};
pub use source::{Named, ReadError, engine, of_revision, read};

use likely::{Guesses, Likely};
use model::Model;
use results::{Counter, ExchangeStats};

use super::world::{After, World};

/// Seeds, where nobody says how many.
pub const SEEDS: u32 = 20;

/// Inputs of a backtest: traffic, candidate and number of worlds.
pub struct Options<'a> {
    /// Requests and attempts of the journal.
    pub past: &'a Past,
    /// Trails that could not be read.
    pub skipped: Skipped,
    /// The policy to compare with, which has the recorded settings, and the candidate.
    pub policies: [&'a Named; 2],
    /// Settings that the candidate is configured with.
    pub settings: SettingsOffer,
    /// Number of worlds that are drawn, each by a seed of its own; at least 1.
    pub seeds: u32,
    /// Started when the command was, whose duration the report tells.
    pub watch: Stopwatch,
}

/// Learns a model of the past, lives through its worlds and compares; `progress` is told how many simulations are done, of two for
/// each seed.
///
/// # Errors
/// A policy refuses the recorded table or settings: which of the two, and why.
pub fn backtest(options: Options<'_>, progress: &mut dyn FnMut(u64)) -> Result<BacktestReport, (usize, LoadError)> {
    let Options { past, skipped, policies: [current, candidate], settings, seeds, watch } = options;
    let model = Model::learn(past);
    let policies = [(&current.policy, recorded_settings(&past.setup.settings)), (&candidate.policy, settings.clone())];
    let lived = live(&Plan { past, model: &model, policies, seeds }, |done, _| progress(done as u64))?;
    let told = candidate.policy.isolated(&settings, Arc::new(past.setup.table.clone()));
    let left_out = told.map(|revision| revision.left_out().to_vec()).unwrap_or_default();
    let mut report = BacktestReport::new(past, &model, [current, candidate], &lived, skipped, watch.elapsed());
    report.caveats.settings_left_out = left_out;
    Ok(report)
}

/// Result of one world under one policy.
#[derive(Clone, Debug)]
pub struct Run {
    /// Results of its exchanges, counted.
    pub stats: ExchangeStats,
    /// Counts of its answers by how they were found.
    pub guesses: Guesses,
}

/// Worlds to be lived through.
pub struct Plan<'a> {
    /// Requests and attempts of the journal.
    pub past: &'a Past,
    /// The model learned from it.
    pub model: &'a Model,
    /// The policy that ran, and the candidate, each with its settings.
    pub policies: [(&'a Compiled, SettingsOffer); 2],
    /// Number of worlds that are drawn, each by a seed of its own; at least 1.
    pub seeds: u32,
}

/// Lives through every world with both policies, as many at a time as there are processors; `progress` is told how many of all
/// are done. Answers in the order of the seeds.
///
/// # Errors
/// A policy refuses the recorded table or settings: which of the two, and why.
pub fn live(plan: &Plan<'_>, mut progress: impl FnMut(usize, usize)) -> Result<Vec<[Run; 2]>, (usize, LoadError)> {
    let table = Arc::new(plan.past.setup.table.clone());
    for (which, (policy, settings)) in plan.policies.iter().enumerate() {
        policy.isolated(settings, table.clone()).map_err(|why| (which, why))?;
    }
    let jobs = plan.seeds as usize * 2;
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(jobs.max(1));
    let mut lived: Vec<Option<Run>> = vec![None; jobs];
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (done, next, table) = (done.clone(), &next, table.clone());
            scope.spawn(move || {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs || done.send((job, one(plan, job, table.clone()))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for (finished, (job, result)) in (1..).zip(results) {
            lived[job] = Some(result.map_err(|why| (job % 2, why))?);
            progress(finished, jobs);
        }
        Ok(())
    })?;
    let mut lived = lived.into_iter().flatten();
    Ok(std::iter::from_fn(|| Some([lived.next()?, lived.next()?])).collect())
}

/// One world with one policy.
fn one(plan: &Plan<'_>, job: usize, table: Arc<pointsman_core::table::Table>) -> Result<Run, LoadError> {
    let (seed, (policy, settings)) = (job as u64 / 2, &plan.policies[job % 2]);
    let past = plan.past;
    let revision = policy.isolated(settings, table)?;
    let decide = |query: &Query, texts: &Arc<Texts>| revision.decide(query, texts);
    let outside = Likely::new(past, plan.model, seed);
    let watcher = Counter::new(past.face, past.arrivals.len());
    let world = World::new(&past.setup, past.face.start, seed, &past.spent_usd, outside, decide, watcher);
    let After { outside, watcher, .. } = world.run();
    Ok(Run { stats: watcher.stats, guesses: outside.guesses })
}
