//! `pointsman policy new | check | bench`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::author::bench::bench;
use crate::author::check::{Trial, check};
use crate::author::new::{self, Language};
use crate::author::sample;
use crate::config::{self, ProcessEnv};
use crate::policy::{Engine, EngineLimits};
use crate::serve::{engine_limits, settings_json};

/// Backends of the table a policy is tried with when no configuration is given.
const EXAMPLE_BACKENDS: usize = 4;

/// What `pointsman policy` can do.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Start a new policy: a small project that builds, with scenarios that pass.
    ///
    /// The project needs nothing of Pointsman but this binary. From here to a policy in force:
    ///
    ///   pointsman policy new mine --lang rust
    ///   pointsman policy build mine -o mine.wasm
    ///   curl -T mine.wasm http://127.0.0.1:9901/api/policy
    #[command(verbatim_doc_comment)]
    New {
        /// Its name: a-z, 0-9, - and _, beginning with a letter.
        name: String,
        /// What it is written in.
        #[arg(long, short, value_enum)]
        lang: Language,
        /// The project's folder [default: ./NAME]. One that is not empty is not touched.
        #[arg(long, value_name = "PATH")]
        dir: Option<PathBuf>,
    },
    /// Say whether the proxy would take a component, aspect by aspect.
    ///
    /// It is compiled, configured, probed and asked a few hundred times, by the code with which the proxy judges. Each line is
    /// marked `ok`, `warn` (it would be taken; look at it) or `no` (it would be refused for this).
    /// Exit 0: accepted; 1: refused; 2: nothing was judged (wrong usage, no such file, a bad configuration).
    ///
    ///   pointsman policy check mine.wasm
    ///   pointsman policy check mine.wasm --config pointsman.toml      with its backends, settings and limits
    ///   pointsman policy check mine.wasm --json | jq .figures
    #[command(verbatim_doc_comment)]
    Check {
        /// The component.
        file: PathBuf,
        /// Judge it for this configuration, not for an example table.
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Tell it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure how long a decision takes, beside the default policy.
    ///
    /// Both are asked in turns in one run, for tables of 1 to 256 backends, the first question about an exchange and one
    /// with a past. Takes a few seconds. `default` as FILE is the policy inside this binary.
    ///
    ///   pointsman policy bench mine.wasm
    ///   pointsman policy bench default --json
    #[command(verbatim_doc_comment)]
    Bench {
        /// The component, or `default`.
        file: PathBuf,
        /// Take `[policy.settings]` and the limits from this configuration.
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Tell it as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How a command ended.
enum Outcome {
    Done,
    Failed,
    /// The command could not be carried out as it was given.
    Usage(String),
}

/// Runs it. Exit 0: done; 1: failed or refused; 2: wrong usage.
pub fn run(command: &PolicyCommand) -> ExitCode {
    let out = &mut io::stdout().lock();
    match answer(command, out) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Ok(Outcome::Usage(error)) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
        // The reader of our output went away: nobody is left to tell.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(command: &PolicyCommand, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    match command {
        PolicyCommand::New { name, lang, dir } => start(name, *lang, dir.as_deref(), out),
        PolicyCommand::Check { file, config, json } => judge(file, config.as_deref(), *json, out),
        PolicyCommand::Bench { file, config, json } => measure(file, config.as_deref(), *json, out),
    }
}

fn start(name: &str, lang: Language, dir: Option<&Path>, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let project = new::create(name, lang, dir.unwrap_or(Path::new(name)))?;
    let dir = project.dir.display();
    writeln!(out, "{dir} is a policy that works ({} files; its README.md tells more). Next:\n", project.files.len())?;
    writeln!(out, "  pointsman policy build {dir} -o {name}.wasm")?;
    writeln!(out, "  pointsman policy test {name}.wasm {dir}/scenarios")?;
    writeln!(out, "  curl -T {name}.wasm http://127.0.0.1:9901/api/policy")?;
    Ok(Outcome::Done)
}

fn judge(file: &Path, config: Option<&Path>, json: bool, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let (bytes, trial) = match (read(file), trial(config)) {
        (Ok(bytes), Ok(trial)) => (bytes, trial),
        (Err(error), _) | (_, Err(error)) => return Ok(Outcome::Usage(error)),
    };
    let report = check(&bytes, &trial)?;
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "{}", file.display())?;
        writeln!(out, "{report}")?;
    }
    Ok(if report.accepted { Outcome::Done } else { Outcome::Failed })
}

fn measure(file: &Path, config: Option<&Path>, json: bool, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let (bytes, trial) = match (read(file), trial(config)) {
        (Ok(bytes), Ok(trial)) => (bytes, trial),
        (Err(error), _) | (_, Err(error)) => return Ok(Outcome::Usage(error)),
    };
    let report = bench(&bytes, &trial.settings, trial.limits)?;
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "{} (revision {}), beside the default policy\n", file.display(), report.policy.revision)?;
        writeln!(out, "{report}")?;
    }
    Ok(Outcome::Done)
}

/// The component's bytes; `default` is the embedded one.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    if file == Path::new("default") {
        return Ok(Engine::embedded_bytes().to_vec());
    }
    std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// What the policy is tried with: a configuration's table, settings and limits, or examples.
fn trial(config: Option<&Path>) -> Result<Trial, String> {
    let Some(file) = config else {
        return Ok(Trial {
            limits: EngineLimits::default(),
            settings: "{}".to_owned(),
            table: Arc::new(sample::table(EXAMPLE_BACKENDS)),
            origin: "an example table".to_owned(),
        });
    };
    let config = config::load(Some(file), &ProcessEnv).map_err(|error| error.to_string())?.config;
    Ok(Trial {
        limits: engine_limits(&config),
        settings: settings_json(&config),
        table: Arc::new(config.table()),
        origin: format!("the table of {}", file.display()),
    })
}
