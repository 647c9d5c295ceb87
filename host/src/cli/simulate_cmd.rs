//! The command `pointsman simulate`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use pointsman_config::{self as config, Config, Env};
use pointsman_lab::simulate::judge::Rule;
use pointsman_lab::simulate::{Options, Policy, Refusal, simulate, simulate_days};

use super::component::compile;

/// Arguments of `pointsman policy simulate`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("The rules that every exchange is held to:\n{}", Rule::listed()))]
pub(super) struct SimulateArgs {
    /// Seed of the simulation; each further run takes the next number.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of simulated runs, each with other backends, outages and requests.
    #[arg(long, alias = "worlds", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: u64,
    /// Number of requests in each run.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub exchanges: u64,
    /// Simulate so many made-up days with free keys and a paid fallback instead, and compare money and waiting with the
    /// fixed rule of 6 waits of 5 s.
    #[arg(long, value_name = "N", conflicts_with_all = ["runs", "exchanges", "config"],
        value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub days: Option<u64>,
    /// A component file; `default` for the default policy, natively; `random` for decisions by chance
    /// [default: what the configuration names, else `default`].
    #[arg(long, value_name = "FILE|default|random")]
    pub policy: Option<PathBuf>,
    /// Simulate the backends of this configuration instead of made-up ones.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print a report for machines.
    #[arg(long)]
    pub json: bool,
}

/// Runs it: results go to `out`, complaints to `err`. Exit 0: every rule held, or no day is worse in money and time; 1: not so, or
/// the policy could not be loaded; 2: wrong usage.
///
/// # Errors
/// They cannot be written to.
pub(super) fn run(
    args: &SimulateArgs,
    env: &dyn Env,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitCode> {
    let config = match args.config.as_deref().map(|file| config::load(Some(file), env)).transpose() {
        Ok(loaded) => loaded.map(|loaded| loaded.config),
        Err(error) => {
            writeln!(err, "{error}")?;
            return Ok(ExitCode::from(2));
        }
    };
    let (name, policy) = match policy(args, config.as_ref()) {
        Ok(named) => named,
        Err(why) => {
            writeln!(err, "error: {why}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let held = match args.days {
        Some(days) => compare_days(args, days, name, &policy, out, err)?,
        None => hold_to_rules(args, name, &policy, config.as_ref(), out, err)?,
    };
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns true if every rule held.
fn hold_to_rules(
    args: &SimulateArgs,
    name: String,
    policy: &Policy,
    config: Option<&Config>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<bool> {
    let options = Options {
        seed: args.seed,
        runs: args.runs,
        exchanges: args.exchanges,
        policy,
        policy_name: name,
        config: config.zip(args.config.clone()),
    };
    let report = match simulate(&options) {
        Ok(report) => report,
        Err(Refusal { seed, why }) => {
            writeln!(err, "error: the policy refuses the backends or settings of seed {seed}: {why}")?;
            return Ok(false);
        }
    };
    match args.json {
        true => writeln!(out, "{:#}", report.json())?,
        false => write!(out, "{report}")?,
    }
    Ok(report.breach.is_none())
}

/// Compares the policy with the fixed rule. Returns false if a day is worse in money and time.
fn compare_days(
    args: &SimulateArgs,
    days: u64,
    name: String,
    policy: &Policy,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<bool> {
    let report = match simulate_days(args.seed, days, policy, name) {
        Ok(report) => report,
        Err(Refusal { seed, why }) => {
            writeln!(err, "error: the policy refuses the table of day {seed}: {why}")?;
            return Ok(false);
        }
    };
    match args.json {
        true => writeln!(out, "{:#}", report.json())?,
        false => write!(out, "{report}")?,
    }
    Ok(report.worse_in_both() == 0)
}

/// Loads the policy to simulate, and its name.
fn policy(args: &SimulateArgs, config: Option<&Config>) -> Result<(String, Policy), String> {
    let configured = || config.and_then(|config| config.policy.file.clone());
    let Some(file) = args.policy.clone().or_else(configured) else {
        return Ok(("default".to_owned(), Policy::Native));
    };
    let name = file.display().to_string();
    let policy = match name.as_str() {
        "default" => Policy::Native,
        "random" => Policy::Random,
        _ => {
            let stem = file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
            Policy::Component { compiled: compile(&file)?, name: stem }
        }
    };
    Ok((name, policy))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn ran(words: &[&str]) -> (ExitCode, String, String) {
        let line = Line::parse_from([&["simulate"], words].concat());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ended = run(&line.args, &[], &mut out, &mut err).unwrap();
        (ended, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn the_command_prints_the_same_for_the_same_seed_but_for_real_time() {
        let words = ["--seed", "5", "--runs", "3", "--exchanges", "100", "--json"];
        let told = || {
            let (ended, out, _) = ran(&words);
            assert_eq!(ended, ExitCode::SUCCESS);
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
        assert_eq!(ended, ExitCode::SUCCESS, "{err}");
        let told: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(told["answered"]["primary"], 0, "it has no primary");
        assert!(told["answered"]["fallback"].as_u64().unwrap() > 0, "{told}");
        std::fs::write(&file, "nonsense").unwrap();
        assert_eq!(ran(&words).0, ExitCode::from(2));
    }
}
