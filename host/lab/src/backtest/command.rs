//! `pointsman backtest`.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman_config::{self as config, Env, PolicySettings, policy_names, recorded_settings};
use pointsman_core::rfc3339::Rfc3339;
use pointsman_core::time::Timestamp;
use pointsman_engine::clock::Stopwatch;
use pointsman_engine::{Engine, LoadError, left_out_words};
use pointsman_store::{Skipped, StoreError, StoreReader};

use super::gather::Gathering;
use super::model::Model;
use super::past::{MIN_EXCHANGES, Past, TooFew};
use super::report::{Html, Report, Terminal, json};
use super::source::{Named, engine, named, of_file, of_revision};
use super::{Plan, SEEDS, live};
use crate::journal::{JournalArgs, Period, Progress};
use crate::settings::{SettingsArgs, recorded};

/// Arguments of `pointsman backtest`.
#[derive(Debug, clap::Args)]
pub struct BacktestArgs {
    /// The candidate: a component file, or `default` for the policy inside this binary.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Its settings [default: its table of [policy.settings] in the configuration, else what it knows of those that were in force].
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// The policy to compare with: a component file, `default`, or a revision that the store keeps [default: the
    /// revision that decided most of the recorded exchanges].
    #[arg(long, value_name = "FILE|default|REVISION")]
    pub against: Option<String>,
    /// Location of the journal.
    #[command(flatten)]
    pub journal: JournalArgs,
    /// Exchanges that ended since then: how long ago (90s, 30m, 24h, 7d) or a time.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub since: String,
    /// Exchanges that ended before then [default: now].
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Simulations of each policy; more of them make the confidence intervals more certain, not narrower.
    #[arg(long, default_value_t = SEEDS, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub seeds: u32,
    /// Print a report for machines.
    #[arg(long)]
    pub json: bool,
    /// Write a page with plots, too.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Result of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backtested {
    /// The report is made.
    Told,
    /// There is nothing to tell.
    Refused,
    /// The command line or the configuration is no good.
    WrongUsage,
}

/// The reason why there is no report.
enum Failure {
    /// The request cannot be met.
    Refused(String),
    /// The arguments are wrong.
    WrongUsage(String),
}

/// Runs it at this time: results go to `out`, complaints to `err`.
///
/// # Errors
/// They cannot be written to.
pub fn run(
    args: &BacktestArgs,
    env: &dyn Env,
    now: Timestamp,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Backtested> {
    let report = match report(args, env, now) {
        Ok((report, left_out)) => {
            if let Some(words) = left_out_words(&left_out) {
                writeln!(err, "warning: of what was recorded, {words}")?;
            }
            report
        }
        Err(Failure::Refused(why)) => {
            writeln!(err, "error: {why}")?;
            return Ok(Backtested::Refused);
        }
        Err(Failure::WrongUsage(why)) => {
            writeln!(err, "error: {why}")?;
            return Ok(Backtested::WrongUsage);
        }
    };
    if let Some(file) = &args.html {
        if let Err(error) = std::fs::write(file, Html(&report).to_string()) {
            writeln!(err, "error: cannot write {}: {error}; check --html", file.display())?;
            return Ok(Backtested::Refused);
        }
        writeln!(err, "The page is {}", file.display())?;
    }
    match args.json {
        true => writeln!(out, "{:#}", json(&report))?,
        false => write!(out, "{}", Terminal(&report))?,
    }
    Ok(Backtested::Told)
}

/// The report, and recorded settings that the candidate does not know.
fn report(args: &BacktestArgs, env: &dyn Env, now: Timestamp) -> Result<(Report, Vec<String>), Failure> {
    let watch = Stopwatch::start();
    let default = Period { since: Timestamp::default(), until: now };
    let period = Period::parse(Some(&args.since), args.until.as_deref(), now, default).map_err(Failure::WrongUsage)?;
    let file = args.journal.file(env).map_err(Failure::WrongUsage)?;
    let refused = |error: StoreError| Failure::Refused(error.to_string());
    let reader = StoreReader::open(&file).map_err(refused)?;
    let engine = engine().map_err(Failure::Refused)?;
    // A candidate that is none is told before the long part.
    let candidate = of_file(&engine, &args.policy).map_err(Failure::Refused)?;
    let given = args.settings.read().map_err(Failure::WrongUsage)?;
    let configured = configured(args, env).map_err(Failure::WrongUsage)?;
    let (past, skipped) = take_in(&reader, &file, period)?;
    let current = current(args, &engine, &reader, &past).map_err(Failure::Refused)?;
    let is_default = **candidate.policy.id() == *Engine::embedded_id();
    let names = policy_names(candidate.policy.name(), Some(&args.policy), is_default);
    let settings = given.over(recorded(&configured, &names, &past.setup.settings));
    let model = Model::learn(&past);
    let policies = [(&current.policy, recorded_settings(&past.setup.settings)), (&candidate.policy, settings.clone())];
    let plan = Plan { past: &past, model: &model, policies, seeds: args.seeds };
    let progress = Progress::of("simulating", u64::from(args.seeds) * 2);
    let lived = live(&plan, |done, _| progress.is_at(done as u64));
    drop(progress);
    let lived = lived.map_err(|(which, why)| Failure::Refused(refusal(which, [&current, &candidate], &why)))?;
    let told = candidate.policy.isolated(&settings, Arc::new(past.setup.table.clone()));
    let left_out = told.map(|revision| revision.left_out().to_vec()).unwrap_or_default();
    let candidate = match args.settings.words() {
        None => candidate,
        Some(words) => Named { name: format!("{} with {words}", candidate.name), ..candidate },
    };
    let mut report = Report::new(&past, &model, [current, candidate], &lived, skipped, watch.elapsed());
    report.doubts.settings_left_out.clone_from(&left_out);
    Ok((report, left_out))
}

fn refusal(which: usize, policies: [&Named; 2], why: &LoadError) -> String {
    let name = &policies[which].name;
    match which {
        0 => format!("{name}, which is to be compared with, refuses the recorded backends and settings: {why}"),
        _ => format!(
            "the candidate {name} refuses the recorded backends and settings: {why}; it is given what it knows of the \
             [policy.settings] that were in force; --settings FILE gives it others, --set KEY=VALUE changes one"
        ),
    }
}

/// The settings of the configuration; none where a store is named instead of a configuration.
fn configured(args: &BacktestArgs, env: &dyn Env) -> Result<PolicySettings, String> {
    if args.journal.store.is_some() {
        return Ok(PolicySettings::default());
    }
    config::policy_settings(args.journal.config.as_deref(), env).map_err(|error| error.to_string())
}

fn current(args: &BacktestArgs, engine: &Engine, reader: &StoreReader, past: &Past) -> Result<Named, String> {
    match (&args.against, past.revisions.first()) {
        (Some(name), _) => named(engine, reader, name),
        (None, Some((revision, _))) => of_revision(engine, reader, revision),
        (None, None) => named(engine, reader, "default"),
    }
}

/// Reads the journal.
fn take_in(reader: &StoreReader, file: &Path, period: Period) -> Result<(Past, Skipped), Failure> {
    let refused = |error: StoreError| Failure::Refused(error.to_string());
    let Period { since, until } = period;
    let all = reader.journal_size(since, until).map_err(refused)?;
    let progress = Progress::of("reading the journal", all);
    let (mut gathering, mut read) = (Gathering::default(), 0_u64);
    let skipped = reader.journal(since, until, |journaled| {
        gathering.add(journaled);
        read += 1;
        progress.passes(read, all);
        ControlFlow::Continue(())
    });
    drop(progress);
    let skipped = skipped.map_err(refused)?;
    let past = gathering.finish().map_err(|few| too_few(reader, file, period, few))?;
    Ok((past, skipped))
}

fn too_few(reader: &StoreReader, file: &Path, period: Period, few: TooFew) -> Failure {
    let shown = file.display();
    let (since, until) = (Rfc3339(period.since), Rfc3339(period.until));
    Failure::Refused(match reader.journal_span() {
        Ok(Some((first, last))) => format!(
            "the journal in {shown} has {} exchanges of its sample between {since} and {until}; a backtest needs at least \
             {MIN_EXCHANGES}. What it has is from {} to {}: set --since and --until",
            few.found,
            Rfc3339(first),
            Rfc3339(last)
        ),
        Ok(None) => format!(
            "the journal in {shown} is empty; `pointsman serve` fills it when [journal] sample is more than 0, and a \
             backtest needs at least {MIN_EXCHANGES} exchanges"
        ),
        Err(error) => error.to_string(),
    })
}
