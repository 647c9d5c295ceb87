//! Arguments of `pointsman simulate`.

use std::path::PathBuf;

use super::judge::Rule;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("The rules that every exchange is held to:\n{}", Rule::listed()))]
pub struct SimulateArgs {
    /// Seed of the simulation; each further run takes the next number.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of simulated runs, each with other backends, outages and requests.
    #[arg(long, alias = "worlds", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: u64,
    /// Number of requests in each run.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub exchanges: u64,
    /// Instead of the rules: so many made-up days before free keys and a paid fallback, beside the fixed rule of 6 waits of
    /// 5 s.
    #[arg(long, value_name = "N", conflicts_with_all = ["runs", "exchanges", "config"],
        value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub days: Option<u64>,
    /// A component file; `default` for the default policy, natively; `random` for decisions by chance
    /// [default: what the configuration names, else `default`].
    #[arg(long, value_name = "FILE|default|random")]
    pub policy: Option<PathBuf>,
    /// The table of this configuration instead of made-up ones.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print a report for machines.
    #[arg(long)]
    pub json: bool,
}
