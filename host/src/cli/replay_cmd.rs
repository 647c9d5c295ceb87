//! `pointsman replay`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use pointsman_core::time::Timestamp;

use crate::clock::Clock;
use crate::config::{self, ProcessEnv};
use crate::lab::replay::{Chosen, Plan, run as replay};
use crate::policy::EngineLimits;
use crate::serve::engine_limits;
use crate::telemetry::rfc3339;

/// A file of settings larger than this is none, in bytes.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;

/// Exchanges between two looks of the progress bar at the clock.
const TELL_EVERY: u64 = 64;

/// What `pointsman replay` is told.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// The configuration that names the store and the bounds of policies [default: ./pointsman.toml where it exists].
    #[arg(long, short, env = "POINTSMAN_CONFIG", value_name = "FILE", conflicts_with = "store")]
    config: Option<PathBuf>,
    /// The store itself; policies have their usual bounds.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Exchanges that ended since then: how long ago (90s, 30m, 24h, 7d) or a time [default: all].
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Exchanges that ended before then [default: all].
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Who is asked: a component file, `default` for the policy inside this binary, or a revision that the store keeps
    /// [default: the one that decided].
    #[arg(long, value_name = "FILE|default|REVISION")]
    policy: Option<PathBuf>,
    /// Its settings, a file of JSON [default: those under which each exchange was decided].
    #[arg(long, value_name = "FILE", requires = "policy")]
    settings: Option<PathBuf>,
    /// How many examples of each kind of divergence are told.
    #[arg(long, value_name = "N", default_value_t = 3)]
    examples: usize,
    /// Print a report for machines.
    #[arg(long)]
    json: bool,
}

/// Runs it: results go to `out`, complaints to `err`. Exit 0: the report is good; 1: a policy is not deterministic or was
/// refused; 2: wrong usage.
pub fn run(args: &ReplayArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    let plan = match plan(args, Clock::start().now()) {
        Ok(plan) => plan,
        Err(why) => {
            writeln!(err, "error: {why}")?;
            return Ok(ExitCode::from(2));
        }
    };
    let bar = bar();
    let replayed = replay(&plan, |done, of| {
        if done.is_multiple_of(TELL_EVERY) {
            bar.set_length(of);
            bar.set_position(done);
        }
    });
    bar.finish_and_clear();
    let report = match replayed {
        Ok(report) => report,
        Err(error) => {
            writeln!(err, "error: {error}")?;
            return Ok(ExitCode::from(if error.is_usage() { 2 } else { 1 }));
        }
    };
    if args.json {
        writeln!(out, "{:#}", report.json())?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// On standard error, and only where that is a terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("replay {bar:40} {human_pos} of {human_len} exchanges, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn plan(args: &ReplayArgs, now: Timestamp) -> Result<Plan, String> {
    let (store, limits) = store(args)?;
    let time = |name: &str, text: &Option<String>, default: Timestamp| match text {
        None => Ok(default),
        Some(text) => {
            rfc3339::parse_or_ago(text, now).ok_or_else(|| format!("--{name}: `{text}` {}", rfc3339::NOT_UNDERSTOOD))
        }
    };
    let since = time("since", &args.since, Timestamp::default())?;
    let until = time("until", &args.until, Timestamp::from_micros(u64::MAX))?;
    if since >= until {
        return Err("--since is not before --until: no exchange ended in between".to_owned());
    }
    let policy = args.policy.as_deref().map(|name| chosen(name, &limits)).transpose()?;
    let settings = args.settings.as_deref().map(settings).transpose()?;
    Ok(Plan { store, since, until, policy, settings, limits, examples: args.examples })
}

/// Where the journal is, and what policies may use.
fn store(args: &ReplayArgs) -> Result<(PathBuf, EngineLimits), String> {
    let (store, limits) = match &args.store {
        Some(store) => (store.clone(), EngineLimits::default()),
        None => {
            let loaded = config::load(args.config.as_deref(), &ProcessEnv)
                .map_err(|error| format!("{error}\n--store FILE names the store without a configuration"))?;
            let limits = engine_limits(&loaded.config);
            let in_memory =
                "the store of this configuration is in memory and ends with the proxy: set [store] path".to_owned();
            (loaded.config.store.path.ok_or(in_memory)?, limits)
        }
    };
    match store.exists() {
        true => Ok((store, limits)),
        false => Err(format!("there is no store {}: no exchange was recorded there", store.display())),
    }
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
        let bytes = read(name, limits.max_component_bytes as u64 + 1)?;
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

fn settings(file: &Path) -> Result<String, String> {
    let shown = file.display();
    let text = String::from_utf8(read(file, MAX_SETTINGS_BYTES)?).map_err(|_| format!("{shown} is not UTF-8 text"))?;
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            Err(format!("{shown} has no settings: {error}; write a JSON object, as [policy.settings] would be"))
        }
    }
}

fn read(file: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|opened| opened.take(max_bytes).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(bytes)
}
