//! Made-up days with free, rate-limited keys and a paid fallback: what a policy pays for, and how long its clients wait.
//!
//! Beside the policy stands the fixed rule that this project began with: while no primary is ready, wait 5 s up to 6 times,
//! then pay.

mod nature;
mod report;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use pointsman_config::{self as config, Config};
use pointsman_core::contract::{Column, Decision, Dispatch, Hold, Query, Rejection, RowState};
use pointsman_core::record::End;
use pointsman_core::table::{Lane, Table, Tier};
use pointsman_engine::{LoadError, Texts, Verdict};

use nature::Nature;

use super::{Decider, Plan, Policy, START};
use crate::dice::Dice;
use crate::world::{EventKind, Finished, Scene, Watcher, World};

pub use report::DaysReport;

/// Shortest length of a simulated day. Shorter than a real day, so that twenty of them take seconds.
const LENGTH: Duration = Duration::from_secs(3_600);

/// A day: the keys, the demand, and what befalls them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Day {
    /// Seed of everything random.
    seed: u64,
    /// Requests a minute of each free key.
    rpm: Vec<u32>,
    phases: Vec<Phase>,
    storms: Vec<Storm>,
    arrivals: Arrivals,
}

/// Distances between arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrivals {
    /// Exponentially distributed distances (a Poisson process).
    Random,
    /// Equal distances.
    #[cfg_attr(not(test), expect(dead_code, reason = "made-up days are random; tests ask for both"))]
    Even,
}

/// A time of constant demand.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Phase {
    length: Duration,
    /// Demand, as a multiple of what the keys take together.
    load: f64,
}

/// A time in which keys answer 429, whatever their limits say.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Storm {
    /// Its beginning, from the beginning of the day.
    from: Duration,
    length: Duration,
    /// It is over the first so many keys.
    keys: usize,
}

/// The numbers of a day under one policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DayResult {
    requests: u64,
    /// Requests that the fallback answered.
    paid: u64,
    /// Requests that nobody answered.
    failed: u64,
    /// Arrival to end of each that was answered, in ms, ascending.
    times_ms: Vec<u32>,
}

/// A day under the policy and under the fixed rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compared {
    seed: u64,
    policy: DayResult,
    fixed: DayResult,
}

/// The made-up day of this seed, lived under both.
///
/// # Errors
/// The component refuses the table.
pub(super) fn compare(seed: u64, policy: &Policy) -> Result<Compared, LoadError> {
    let day = Day::made_up(seed);
    Ok(Compared { seed, policy: day.under(policy)?, fixed: day.under_fixed_rule() })
}

impl DayResult {
    /// The share of all requests that the fallback answered, 0..=1.
    fn paid_share(&self) -> f64 {
        self.paid as f64 / self.requests.max(1) as f64
    }

    /// The time that this share of the answered requests stayed within, in ms.
    fn quantile_ms(&self, share: f64) -> u32 {
        let place = (self.times_ms.len() as f64 * share) as usize;
        self.times_ms.get(place.min(self.times_ms.len().saturating_sub(1))).copied().unwrap_or(0)
    }

    fn mean_ms(&self) -> f64 {
        self.times_ms.iter().map(|ms| f64::from(*ms)).sum::<f64>() / self.times_ms.len().max(1) as f64
    }
}

impl Compared {
    /// Returns true if the policy both costs more than the fixed rule and lets clients wait longer, each significantly.
    fn is_worse_in_both(&self) -> bool {
        self.policy.paid_share() > self.fixed.paid_share() + 0.002
            && self.policy.mean_ms() > self.fixed.mean_ms() * 1.02
    }
}

impl Day {
    /// A day of chance: phases of calm, of demand near the keys' capacity and of overload, with a storm now and then.
    fn made_up(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 20);
        let keys = dice.between(2, 5);
        let rpm = (0..keys).map(|_| dice.pick(&[10, 20, 30, 40, 60])).collect();
        let mut phases = Vec::new();
        let mut length = Duration::ZERO;
        while length < LENGTH {
            let load = match dice.below(10) {
                0..=4 => dice.magnitude(0.1, 0.9),
                5..=6 => dice.magnitude(0.9, 1.1),
                7..=8 => dice.magnitude(1.1, 2.0),
                _ => 0.0,
            };
            let phase = Phase { length: Duration::from_secs_f64(dice.magnitude(20.0, 1_800.0)), load };
            length += phase.length;
            phases.push(phase);
        }
        let storm = |dice: &mut Dice| Storm {
            from: length.mul_f64(dice.unit()),
            length: Duration::from_secs_f64(dice.magnitude(10.0, 300.0)),
            keys: dice.between(1, keys) as usize,
        };
        let storms = (0..dice.below(6)).map(|_| storm(&mut dice)).collect();
        Self { seed, rpm, phases, storms, arrivals: Arrivals::Random }
    }

    /// Requests a minute that all keys take together.
    fn capacity(&self) -> u32 {
        self.rpm.iter().sum()
    }

    fn config(&self) -> Config {
        let mut text = String::new();
        let common = "base_url = \"http://127.0.0.1/v1\"\nmodels = [\"m\"]";
        for (i, rpm) in self.rpm.iter().enumerate() {
            writeln!(text, "[[backend]]\nid = \"free-{i}\"\n{common}\nrpm = {rpm}").expect("a String takes all");
        }
        writeln!(text, "[[backend]]\nid = \"paid\"\ntier = \"fallback\"\n{common}").expect("a String takes all");
        config::parse(&text, "made up", &[]).expect("what is written here is within the bounds of `config`").config
    }

    fn under(&self, policy: &Policy) -> Result<DayResult, LoadError> {
        let config = self.config();
        let table = Arc::new(config.table());
        let plan = Plan { seed: self.seed, exchanges: 0, policy, config: Some(&config) };
        let mut decider = Decider::new(&plan, &config, &table)?;
        Ok(self.decided_by(&config, |query, texts| decider.decide(query, texts)))
    }

    fn under_fixed_rule(&self) -> DayResult {
        let config = self.config();
        let table = config.table();
        self.decided_by(&config, |query, _| Verdict::of(fixed_rule(query, &table)))
    }

    fn decided_by(&self, config: &Config, decide: impl FnMut(&Query, &Arc<Texts>) -> Verdict) -> DayResult {
        let world =
            World::new(&config.setup(), START, self.seed, &[], Nature::new(self), decide, Books(DayResult::default()));
        let Books(mut result) = world.run().watcher;
        result.times_ms.sort_unstable();
        result
    }
}

/// The least loaded ready primary, else one of up to 6 waits of 5 s, else the fallback.
fn fixed_rule(query: &Query, table: &Table) -> Decision {
    const ATTEMPTS: usize = 8;
    let is_primary = |i: &usize| table.backends[*i].tier == Tier::Primary;
    let is_ready = |i: &usize| query.rows.is(*i, RowState::Ready);
    let ready = (0..table.backends.len()).filter(is_primary).filter(is_ready);
    match ready.min_by_key(|i| query.rows.number(*i, Column::InFlight)) {
        Some(i) if query.attempts.len() < ATTEMPTS => {
            Decision::Primary(Dispatch { backend: Some(i as u32), ..Dispatch::default() })
        }
        _ if query.waits < 6 => Decision::Wait(Hold { max: Duration::from_secs(5), lane: Lane::Primary }),
        _ if query.attempts.len() < 2 * ATTEMPTS => Decision::Fallback(Dispatch::default()),
        _ => Decision::Reject(Rejection::default()),
    }
}

/// Keeps the numbers of a day.
struct Books(DayResult);

impl Watcher for Books {
    fn saw(&mut self, _: &Scene<'_>, sight: EventKind<'_>) {
        let EventKind::Finished(Finished { end, by, took, .. }) = sight else { return };
        let result = &mut self.0;
        result.requests += 1;
        match end {
            End::Delivered => {
                result.paid += u64::from(by.is_some_and(|(lane, _)| lane == Lane::Fallback));
                result.times_ms.push(u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
            }
            End::Refused | End::Rejected | End::Denied | End::Broken | End::ClientGone => result.failed += 1,
        }
    }
}
