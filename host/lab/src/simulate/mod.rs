//! `pointsman simulate`: worlds made up from a seed, lived through in virtual time, every exchange held to the
//! invariants of [`judge`].
//!
//! One number decides everything: the table ([`table`]), what befalls the backends ([`nature`]), who asks what
//! ([`traffic`]) and, where it is left to chance, what is decided ([`chance`]). The same number is the same world, so a
//! breach can be lived through again.

mod chance;
mod days;
pub mod judge;
mod nature;
mod report;
mod runs;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod traffic;
mod window;

use std::sync::Arc;

use pointsman_config::{Config, DEFAULT_POLICY};
use pointsman_core::contract::Query;
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_engine::{Compiled, LoadError, NativeFallback, Revision, Texts, Verdict};

use chance::Chance;
use judge::{Breach, Judge};
use nature::Nature;

use super::recorder::Recorded;
use super::story::Story;
use super::world::{After, EventKind, Scene, Watcher, World};

pub use days::DaysReport;
pub use report::SimulationReport;
pub use runs::{Options, Refusal, simulate, simulate_days};
pub use stats::SimulationStats;

/// Time 0 of every world: Monday 2026-01-05, 00:00 UTC.
const START: Timestamp = Timestamp::from_millis(1_767_571_200_000);

/// The policy that decides in a simulation.
pub enum Policy {
    /// The default policy, compiled natively.
    Native,
    /// Chance: any valid decision.
    Random,
    /// A compiled component with its settings.
    Component {
        /// The compiled component.
        compiled: Compiled,
        /// The name of its file, without its ending.
        name: Option<String>,
    },
}

/// A world to be made up.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// Seed of all that is drawn: providers, traffic, and the queries' seeds.
    pub seed: u64,
    /// Number of requests that arrive.
    pub exchanges: u64,
    /// The deciding policy.
    pub policy: &'a Policy,
    /// The table, when it is not to be made up.
    pub config: Option<&'a Config>,
}

/// Result of one simulated world.
#[derive(Debug)]
pub struct Run {
    /// Counts of its exchanges.
    pub stats: SimulationStats,
    /// The first rule that was broken, with the story of the exchange that broke it.
    pub breach: Option<(Breach, Option<Story>)>,
}

/// Lives through a world; when a rule is broken, once more, to tell the story.
///
/// # Errors
/// The component refuses the table or the settings.
pub fn live(plan: &Plan<'_>) -> Result<Run, LoadError> {
    let (stats, breach, _) = pass(plan, None)?;
    let Some(breach) = breach else { return Ok(Run { stats, breach: None }) };
    let story = match breach.exchange {
        Some(exchange) => pass(plan, Some(exchange))?.2,
        None => None,
    };
    Ok(Run { stats, breach: Some((breach, story)) })
}

fn pass(plan: &Plan<'_>, told: Option<u64>) -> Result<(SimulationStats, Option<Breach>, Option<Story>), LoadError> {
    let made_up;
    let config = match plan.config {
        Some(config) => config,
        None => {
            made_up = table::config(plan.seed);
            &made_up
        }
    };
    let table = Arc::new(config.table());
    let mut decider = Decider::new(plan, config, &table)?;
    let nature = Nature::new(plan.seed, &table, START, plan.exchanges);
    let watcher = Observer {
        judge: Judge::new(config),
        stats: SimulationStats::default(),
        teller: told.map(|exchange| Teller { exchange, recorded: None }),
    };
    let decide = |query: &Query, texts: &Arc<Texts>| decider.decide(query, texts);
    let world = World::new(&config.setup(), START, plan.seed, &[], nature, decide, watcher);
    let After { watcher, fleet, view, now, .. } = world.run();
    let Observer { judge, mut stats, teller } = watcher;
    stats.simulated = now.since(START);
    let story = teller.and_then(|teller| teller.recorded).map(|recorded| recorded.story().clone());
    Ok((stats, judge.verdict(&fleet, &view, now), story))
}

/// The deciding policy, over one table.
enum Decider<'a> {
    Native(NativeFallback),
    Random(Chance<'a>),
    Component(Revision),
}

impl<'a> Decider<'a> {
    fn new(plan: &Plan<'_>, config: &Config, table: &'a Arc<Table>) -> Result<Self, LoadError> {
        let settings = config.policy.offer_for_other(&[DEFAULT_POLICY]);
        Ok(match plan.policy {
            Policy::Native => Decider::Native(NativeFallback::new(settings.json(), table)),
            Policy::Random => Decider::Random(Chance::new(plan.seed, table)),
            Policy::Component { compiled, name } => {
                // What is made up is made up for the default policy; another has settings of its own.
                let names: Vec<&str> = compiled.name().into_iter().chain(name.as_deref()).collect();
                let settings = match plan.config {
                    Some(_) => config.policy.offer_for_other(&names),
                    None => "{}".into(),
                };
                Decider::Component(compiled.isolated(&settings, table.clone())?)
            }
        })
    }

    fn decide(&mut self, query: &Query, texts: &Arc<Texts>) -> Verdict {
        match self {
            Decider::Native(twin) => {
                let (decision, notes) = twin.decide(query, texts);
                Verdict { notes, ..Verdict::of(decision) }
            }
            Decider::Random(chance) => chance.decide(),
            Decider::Component(revision) => revision.decide(query, texts),
        }
    }
}

/// Judges, counts, and tells of one exchange when asked to.
struct Observer {
    judge: Judge,
    stats: SimulationStats,
    teller: Option<Teller>,
}

impl Watcher for Observer {
    fn saw(&mut self, scene: &Scene<'_>, sight: EventKind<'_>) {
        self.judge.saw(scene, &sight);
        self.stats.saw(&sight);
        if let Some(teller) = &mut self.teller {
            teller.saw(scene, sight);
        }
    }
}

/// A watcher that records one exchange.
struct Teller {
    exchange: u64,
    recorded: Option<Recorded>,
}

impl Teller {
    fn saw(&mut self, scene: &Scene<'_>, sight: EventKind<'_>) {
        if scene.exchange != self.exchange {
            return;
        }
        let at = scene.now.since(START);
        match (&mut self.recorded, sight) {
            (none, EventKind::Arrived(ask)) => *none = Some(Recorded::new(scene.exchange, at, ask)),
            (Some(recorded), sight) => recorded.saw(at, scene.view, sight),
            (None, _) => {}
        }
    }
}
