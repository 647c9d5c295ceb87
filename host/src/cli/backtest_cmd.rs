//! The command `pointsman backtest`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pointsman_config::{Env, policy_names};
use pointsman_core::rfc3339::Rfc3339;
use pointsman_core::time::Timestamp;
use pointsman_engine::clock::Stopwatch;
use pointsman_engine::{Engine, LoadError, left_out_words};
use pointsman_lab::backtest::{
    BacktestReport, Html, MIN_EXCHANGES, Named, Options, Past, ReadError, SEEDS, Terminal, TooFew, backtest, engine,
    json, of_revision, read,
};
use pointsman_lab::settings::recorded;
use pointsman_store::{Skipped, StoreError, StoreReader};

use super::component::{EMBEDDED, compile_in};
use super::journal_args::{JournalArgs, Period, Progress};
use super::settings_args::SettingsArgs;

/// Arguments of `pointsman backtest`.
#[derive(Debug, clap::Args)]
pub(super) struct BacktestArgs {
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
    /// Store and time of the recorded exchanges.
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

/// The reason why there is no report.
enum Failure {
    /// The request cannot be met.
    Refused(String),
    /// The arguments are wrong.
    WrongUsage(String),
}

/// Runs it at this time: results go to `out`, complaints to `err`. Exit 0: the report is made; 1: it was refused; 2: wrong usage.
///
/// # Errors
/// They cannot be written to.
pub(super) fn run(
    args: &BacktestArgs,
    env: &dyn Env,
    now: Timestamp,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitCode> {
    let report = match report(args, env, now) {
        Ok(report) => {
            if let Some(words) = left_out_words(report.settings_left_out()) {
                writeln!(err, "warning: of what was recorded, {words}")?;
            }
            report
        }
        Err(Failure::Refused(why)) => {
            writeln!(err, "error: {why}")?;
            return Ok(ExitCode::FAILURE);
        }
        Err(Failure::WrongUsage(why)) => {
            writeln!(err, "error: {why}")?;
            return Ok(ExitCode::from(2));
        }
    };
    if let Some(file) = &args.html {
        if let Err(error) = std::fs::write(file, Html(&report).to_string()) {
            writeln!(err, "error: cannot write {}: {error}; check --html", file.display())?;
            return Ok(ExitCode::FAILURE);
        }
        writeln!(err, "The page is {}", file.display())?;
    }
    match args.json {
        true => writeln!(out, "{:#}", json(&report))?,
        false => write!(out, "{}", Terminal(&report))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the journal, plays the worlds, and makes the report.
fn report(args: &BacktestArgs, env: &dyn Env, now: Timestamp) -> Result<BacktestReport, Failure> {
    let watch = Stopwatch::start();
    let default = Period { since: Timestamp::default(), until: now };
    let period = Period::parse(Some(&args.since), args.until.as_deref(), now, default).map_err(Failure::WrongUsage)?;
    let file = args.journal.file(env).map_err(Failure::WrongUsage)?;
    let reader = StoreReader::open(&file).map_err(refused)?;
    let engine = engine().map_err(Failure::Refused)?;
    // A candidate that is none is told before the long part.
    let candidate = of_file(&engine, &args.policy).map_err(Failure::Refused)?;
    let given = args.settings.read().map_err(Failure::WrongUsage)?;
    let configured = args.journal.policy_settings(env).map_err(Failure::WrongUsage)?;
    let (past, skipped) = take_in(&reader, &file, period)?;
    let current = current(args, &engine, &reader, &past).map_err(Failure::Refused)?;
    let is_default = **candidate.policy.id() == *Engine::embedded_id();
    let names = policy_names(candidate.policy.name(), Some(&args.policy), is_default);
    let settings = given.over(recorded(&configured, &names, &past.setup.settings));
    let plain = [current.name.clone(), candidate.name.clone()];
    let candidate = match args.settings.words() {
        None => candidate,
        Some(words) => Named { name: format!("{} with {words}", candidate.name), ..candidate },
    };
    let policies = [&current, &candidate];
    let options = Options { past: &past, skipped, policies, settings, seeds: args.seeds, watch };
    let progress = Progress::of("simulating", u64::from(args.seeds) * 2);
    let report = backtest(options, &mut |done| progress.is_at(done));
    drop(progress);
    report.map_err(|(which, why)| Failure::Refused(refusal(which, &plain[which], &why)))
}

fn refused(error: StoreError) -> Failure {
    Failure::Refused(error.to_string())
}

fn refusal(which: usize, name: &str, why: &LoadError) -> String {
    match which {
        0 => format!("{name}, which is to be compared with, refuses the recorded backends and settings: {why}"),
        _ => format!(
            "the candidate {name} refuses the recorded backends and settings: {why}; it is given what it knows of the \
             [policy.settings] that were in force; --settings FILE gives it others, --set KEY=VALUE changes one"
        ),
    }
}

/// The policy of a component file, or `default`.
fn of_file(engine: &Engine, file: &Path) -> Result<Named, String> {
    compile_in(engine, file).map(|policy| Named { name: file.display().to_string(), policy })
}

/// The policy to compare with: of this file, `default`, or a revision that the store keeps.
fn named(engine: &Engine, reader: &StoreReader, name: &str) -> Result<Named, String> {
    if name == EMBEDDED || Path::new(name).exists() {
        return of_file(engine, Path::new(name));
    }
    let is_revision = name.len() >= 6 && name.chars().all(|c| c.is_ascii_hexdigit());
    if !is_revision {
        return Err(format!(
            "there is no file {name}; give a component file, `default`, or a revision that the store keeps (`/api/policy`)"
        ));
    }
    of_revision(engine, reader, name)
}

fn current(args: &BacktestArgs, engine: &Engine, reader: &StoreReader, past: &Past) -> Result<Named, String> {
    match (&args.against, past.revisions.first()) {
        (Some(name), _) => named(engine, reader, name),
        (None, Some((revision, _))) => of_revision(engine, reader, revision),
        (None, None) => named(engine, reader, EMBEDDED),
    }
}

/// Reads the exchanges of a time, and counts those that are skipped.
fn take_in(reader: &StoreReader, file: &Path, period: Period) -> Result<(Past, Skipped), Failure> {
    let progress = Progress::of("reading the journal", 0);
    let read = read(reader, (period.since, period.until), &mut |done, all| progress.passes(done, all));
    drop(progress);
    read.map_err(|error| match error {
        ReadError::Store(error) => refused(error),
        ReadError::TooFew(few) => too_few(reader, file, period, few),
    })
}

fn too_few(reader: &StoreReader, file: &Path, period: Period, few: TooFew) -> Failure {
    let shown = file.display();
    let (since, until) = (Rfc3339(period.since), Rfc3339(period.until));
    Failure::Refused(match reader.journal_span() {
        Ok(Some((first, last))) => {
            let is_all = period.since <= first && last <= period.until;
            let what_to_do = if is_all {
                "that is all it has: let the proxy run for longer, or raise [journal] sample".to_owned()
            } else {
                format!("what it has is from {} to {}: set --since and --until", Rfc3339(first), Rfc3339(last))
            };
            format!(
                "the journal in {shown} has {} exchanges of its sample between {since} and {until}; a backtest needs at \
                 least {MIN_EXCHANGES}; {what_to_do}",
                few.found
            )
        }
        Ok(None) => format!(
            "the journal in {shown} is empty; `pointsman serve` fills it when [journal] sample is more than 0, and a \
             backtest needs at least {MIN_EXCHANGES} exchanges"
        ),
        Err(error) => error.to_string(),
    })
}
