//! Output of `pointsman simulate`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use pointsman_core::table::Lane;
use serde_json::{Value, json};

use super::START;
use super::judge::{Breach, Rule};
use super::stats::SimulationStats;
use crate::story::{Story, in_words};

/// Everything there is to tell.
pub struct SimulationReport {
    /// Seed of the first run.
    pub seed: u64,
    /// Number of requests in each run.
    pub exchanges: u64,
    /// File of the configuration that the table is of.
    pub config: Option<PathBuf>,
    /// Name of the policy.
    pub policy: String,
    /// The numbers of all runs together.
    pub stats: SimulationStats,
    /// Simulated runs.
    pub runs: u64,
    /// The first breach, with the seed of its run.
    pub breach: Option<(u64, Breach, Option<Story>)>,
    /// Real time that the simulation took.
    pub real: Duration,
}

impl SimulationReport {
    fn per_second(&self) -> u64 {
        (self.stats.exchanges as f64 / self.real.as_secs_f64().max(1e-9)) as u64
    }

    fn tries(&self) -> f64 {
        self.stats.attempts as f64 / self.stats.exchanges.max(1) as f64
    }

    /// The command that simulates one run again.
    fn again(&self, seed: u64) -> String {
        let config = self.config.as_ref().map_or(String::new(), |file| format!(" --config {}", file.display()));
        format!(
            "pointsman simulate --seed {seed} --runs 1 --exchanges {} --policy {}{config}",
            self.exchanges, self.policy
        )
    }

    /// Returns the report as JSON, in the shape that `--json` prints.
    pub fn json(&self) -> Value {
        let t = &self.stats;
        let lanes: serde_json::Map<String, Value> =
            Lane::ALL.into_iter().map(|lane| (lane.as_str().to_owned(), t.answered[lane as usize].into())).collect();
        let breach = self.breach.as_ref().map(|(seed, breach, story)| {
            json!({
                "seed": seed,
                "rule": breach.rule.as_str(),
                "sentence": breach.rule.sentence(),
                "how": breach.how,
                "exchange": breach.exchange.map(|number| number + 1),
                "at_ms": breach.at.since(START).as_millis() as u64,
                "story": story.as_ref().map(Story::to_string),
                "again": self.again(*seed),
            })
        });
        json!({
            "policy": self.policy,
            "seed": self.seed,
            "runs": self.runs,
            "exchanges": t.exchanges,
            "simulated_s": t.simulated.as_secs(),
            "answered": lanes,
            "refused": t.refused,
            "rejected": t.rejected,
            "broken": t.broken,
            "waits": t.waits,
            "waited_ms": t.waited.as_millis() as u64,
            "attempts": t.attempts,
            "tries_per_exchange": (self.tries() * 1_000.0).round() / 1_000.0,
            "probes": t.probes,
            "rate_limited": t.rate_limited,
            "policy_faults": t.faults,
            "spend_usd": t.spend_microusd as f64 / 1e6,
            "p50_ms": t.times.quantile_ms(0.5),
            "p99_ms": t.times.quantile_ms(0.99),
            "breach": breach,
            "real": { "ms": self.real.as_millis() as u64, "exchanges_per_second": self.per_second() },
        })
    }
}

impl fmt::Display for SimulationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.stats;
        let runs = if self.runs == 1 { "1 run".to_owned() } else { format!("{} runs", self.runs) };
        let hours = t.simulated.as_secs_f64() / 3_600.0;
        writeln!(f, "{runs} from seed {}, {hours:.1} h of virtual time, policy {}\n", self.seed, self.policy)?;
        let share = |n: u64| n as f64 * 100.0 / t.exchanges.max(1) as f64;
        let mut line =
            |what: &str, n: u64, more: String| writeln!(f, "{}", format!("{what:<22}{n:>12}  {more}").trim_end());
        line("exchanges", t.exchanges, String::new())?;
        for lane in Lane::ALL {
            let n = t.answered[lane as usize];
            line(&format!("answered, {} lane", lane.as_str()), n, format!("{:5.1} %", share(n)))?;
        }
        line("refused by upstreams", t.refused, format!("{:5.1} %", share(t.refused)))?;
        line("rejected", t.rejected, format!("{:5.1} %", share(t.rejected)))?;
        line("broken", t.broken, format!("{:5.1} %", share(t.broken)))?;
        let wait = t.waited.checked_div(u32::try_from(t.waits).unwrap_or(u32::MAX)).unwrap_or_default();
        line("waits", t.waits, format!("{} each", in_words(wait)))?;
        line("upstream tries", t.attempts, format!("{:.3} per exchange, {} probes", self.tries(), t.probes))?;
        line("429s received", t.rate_limited, String::new())?;
        if t.faults > 0 {
            line("policy faults", t.faults, String::new())?;
        }
        writeln!(f, "{:<22}{:>12.2}  USD", "spent", t.spend_microusd as f64 / 1e6)?;
        writeln!(f, "{:<22}{:>12}  ms, virtual", "answered within, p50", t.times.quantile_ms(0.5))?;
        writeln!(f, "{:<22}{:>12}  ms, virtual", "answered within, p99", t.times.quantile_ms(0.99))?;
        writeln!(f, "{:<22}{:>12}  exchanges per second of real time", "speed", self.per_second())?;
        match &self.breach {
            None => write!(f, "\nAll {} rules held:\n{}", Rule::ALL.len(), Rule::listed()),
            Some((seed, breach, story)) => self.broken(f, *seed, breach, story.as_ref()),
        }
    }
}

impl SimulationReport {
    fn broken(&self, f: &mut fmt::Formatter<'_>, seed: u64, breach: &Breach, story: Option<&Story>) -> fmt::Result {
        let Breach { rule, exchange, at, how } = breach;
        let whose = exchange.map_or("the run as a whole".to_owned(), |number| format!("exchange {}", number + 1));
        let at = at.since(START).as_secs_f64();
        writeln!(f, "\nBROKEN: {}: {}", rule.as_str(), rule.sentence())?;
        writeln!(f, "seed {seed}, {whose}, at {at:.6} s: {how}\n")?;
        if let Some(story) = story {
            writeln!(f, "{story}")?;
        }
        writeln!(f, "again: {}", self.again(seed))
    }
}
