//! The command `pointsman replay`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pointsman_config::{self as config, ProcessEnv};
use pointsman_core::time::Timestamp;
use pointsman_engine::clock::Clock;
use pointsman_engine::{EngineLimits, left_out_words};
use pointsman_lab::replay::{Chosen, Plan, run as replay};

use super::component;
use super::journal_args::{JournalArgs, Period, Progress};
use super::settings_args::SettingsArgs;
use crate::serve::engine_limits;

/// Arguments of `pointsman replay`.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// Location of the journal; its configuration also sets the limits of policies.
    #[command(flatten)]
    journal: JournalArgs,
    /// Exchanges that ended since then: how long ago (90s, 30m, 24h, 7d) or a time [default: all].
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Exchanges that ended before then [default: all].
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Policy to ask: a component file, `default` for the built-in policy, or a revision kept in the store [default:
    /// the one that decided].
    #[arg(long, value_name = "FILE|default|REVISION")]
    policy: Option<PathBuf>,
    /// Its settings [default: its table of [policy.settings] in the configuration, else what it knows of those under which each
    /// exchange was decided].
    #[command(flatten)]
    settings: SettingsArgs,
    /// Number of examples shown for each kind of divergence.
    #[arg(long, value_name = "N", default_value_t = 3)]
    examples: usize,
    /// Print a report for machines.
    #[arg(long)]
    json: bool,
}

/// Runs it: results go to `out`, complaints to `err`. Exit 0: the report is good; 1: a policy is not deterministic or was
/// refused; 2: wrong usage.
pub(super) fn run(args: &ReplayArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    let plan = match plan(args, Clock::start().now()) {
        Ok(plan) => plan,
        Err(why) => {
            writeln!(err, "error: {why}")?;
            return Ok(ExitCode::from(2));
        }
    };
    let progress = Progress::of("replaying exchanges", 0);
    let replayed = replay(&plan, |done, all| progress.passes(done, all));
    drop(progress);
    let report = match replayed {
        Ok(report) => report,
        Err(error) => {
            writeln!(err, "error: {error}")?;
            return Ok(ExitCode::from(if error.is_usage() { 2 } else { 1 }));
        }
    };
    let left_out: Vec<String> = report.settings_left_out.iter().cloned().collect();
    if let Some(words) = left_out_words(&left_out) {
        writeln!(err, "warning: of what was recorded, {words}")?;
    }
    if args.json {
        writeln!(out, "{:#}", report.json())?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plan(args: &ReplayArgs, now: Timestamp) -> Result<Plan, String> {
    let (store, limits) = (args.journal.file(&ProcessEnv)?, limits(&args.journal)?);
    let ever = Period { since: Timestamp::default(), until: Timestamp::from_micros(u64::MAX) };
    let Period { since, until } = Period::parse(args.since.as_deref(), args.until.as_deref(), now, ever)?;
    let policy = args.policy.as_deref().map(|name| chosen(name, &limits)).transpose()?;
    if policy.is_none() && args.settings.is_any() {
        return Err("--set and --settings are for the policy that --policy names; name one".to_owned());
    }
    let settings = args.settings.read()?;
    let configured = args.journal.policy_settings(&ProcessEnv)?;
    Ok(Plan { store, since, until, policy, settings, configured, limits, examples: args.examples })
}

/// Returns the limits of policies, as this configuration's proxy has them.
fn limits(journal: &JournalArgs) -> Result<EngineLimits, String> {
    if journal.store.is_some() {
        return Ok(EngineLimits::default());
    }
    let loaded = config::load(journal.config.as_deref(), &ProcessEnv)
        .map_err(|error| format!("{error}\n--store FILE names the store without a configuration"))?;
    Ok(engine_limits(&loaded.config))
}

/// A file where there is one, else a revision's name.
fn chosen(name: &Path, limits: &EngineLimits) -> Result<Chosen, String> {
    /// Digits of a revision's name.
    const DIGITS: usize = 12;
    let shown = name.display().to_string();
    if shown == "default" {
        return Ok(Chosen::Embedded);
    }
    if name.exists() {
        let bytes = read(name, limits.max_component_bytes as u64)?;
        return Ok(Chosen::File { name: shown, bytes });
    }
    let is_revision = shown.len() == DIGITS && shown.bytes().all(|b| b.is_ascii_hexdigit());
    match is_revision {
        true => Ok(Chosen::Revision(shown.to_ascii_lowercase())),
        false => Err(format!(
            "--policy: there is no file {shown}, and it is no revision ({DIGITS} hexadecimal digits); give a component file, \
             `default` for the policy inside this binary, or a revision"
        )),
    }
}

fn read(file: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    component::read(file, max_bytes).map_err(|error| format!("cannot read {}: {error}", file.display()))
}
