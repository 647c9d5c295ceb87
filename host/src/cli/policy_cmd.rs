//! `pointsman policy new | build | check | test | bench | guide | promote`: the loop of a policy's author.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use pointsman_config::{self as config, Config, ProcessEnv};
use pointsman_engine::sample;
use pointsman_engine::{Engine, EngineLimits, Revision, SettingsOffer, name_of};

use super::component;
use super::promote_cmd::{self, PromoteArgs};
use super::settings_args::SettingsArgs;
use super::test_cmd::{self, TestArgs, Tested};
use crate::author::bench::bench;
use crate::author::build::{BuildError, Built, Language, build};
use crate::author::check::{Conditions, check};
use crate::author::guide::{Topic, contents};
use crate::author::new;
use crate::serve::engine_limits;

/// Backends of the table a policy is tried with when no configuration is given.
const EXAMPLE_BACKENDS: usize = 4;

/// Subcommands of `pointsman policy`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PolicyCommand {
    /// Start a new policy: a small project that builds, with scenarios that pass.
    ///
    /// The project needs nothing of Pointsman but this binary. From here to a policy in force:
    ///
    ///   pointsman policy new mine --lang rust
    ///   pointsman policy build mine
    ///   curl -T mine/policy.wasm http://127.0.0.1:9901/api/policy
    #[command(verbatim_doc_comment)]
    New {
        /// Its name: a-z, 0-9, - and _, beginning with a letter.
        name: String,
        /// Programming language of the policy.
        #[arg(long, short, value_enum)]
        lang: Language,
        /// The project's folder [default: ./NAME]. One that is not empty is not touched.
        #[arg(long, value_name = "PATH")]
        dir: Option<PathBuf>,
    },
    /// Make the component of a project, with the ordinary tools of its language.
    ///
    /// A project has a Cargo.toml (cargo, with the target wasm32-wasip2), a policy.js (componentize-qjs), a policy.py
    /// (componentize-py) or a policy.c (zig or clang). A tool that is missing is named, with the command that installs it. The
    /// component is judged before it is put in place whole: to build onto the file in force is to swap it.
    ///
    ///   pointsman policy build mine
    ///   pointsman policy build mine -o /etc/pointsman/policy.wasm
    #[command(verbatim_doc_comment)]
    Build {
        /// Folder of the project.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// The component [default: policy.wasm in the project's folder].
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Say whether the proxy would take a component, aspect by aspect.
    ///
    /// It is compiled, configured, probed and asked a few hundred times, by the code with which the proxy judges. Each line is
    /// marked `ok`, `warn` (it would be taken; look at it) or `no` (it would be refused for this).
    /// Exit 0: accepted; 1: refused; 2: nothing was judged (wrong usage, no such file, a bad configuration).
    ///
    ///   pointsman policy check mine.wasm
    ///   pointsman policy check mine.wasm --config pointsman.toml     (for its backends and settings)
    ///   pointsman policy check mine.wasm --json | jq .figures
    #[command(verbatim_doc_comment)]
    Check {
        /// The component file, or the folder of a project that is built.
        file: PathBuf,
        /// Judge it for this configuration, not for an example table.
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Its settings [default: those that the configuration has for it].
        #[command(flatten)]
        settings: SettingsArgs,
        /// Write JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Run scenarios against a policy in virtual time: scripted backends, expected decisions, expected ends.
    ///
    /// A failed one prints what was not as expected and the story of its exchanges. The last line counts; exit 0 when
    /// all pass, 1 when one does not, 2 when there is nothing to test.
    ///
    ///   pointsman policy test mine                     (mine/policy.wasm with mine/scenarios/*.toml)
    ///   pointsman policy test mine/policy.wasm other.toml --explain
    #[command(verbatim_doc_comment)]
    Test(TestArgs),
    /// Measure how long a decision takes, beside the default policy.
    ///
    /// Both are asked in turns in one run, for tables of 1 to 256 backends, the first question about an exchange and one
    /// with a past. Takes a few seconds. `default` as FILE is the policy inside this binary.
    ///
    ///   pointsman policy bench mine.wasm
    ///   pointsman policy bench default --json
    #[command(verbatim_doc_comment)]
    Bench {
        /// The component file, the folder of a project that is built, or `default`.
        file: PathBuf,
        /// Take `[policy.settings]` and the limits from this configuration.
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Its settings [default: those that the configuration has for it].
        #[command(flatten)]
        settings: SettingsArgs,
        /// Write JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Print a page of the guide for policy authors, or the list of its pages.
    ///
    /// The pages are those of the repository, as they were when this binary was built; all of it is Markdown.
    ///
    ///   pointsman policy guide first-rule
    ///   pointsman policy guide scenarios | less
    ///   pointsman policy guide contract > policy.wit
    #[command(verbatim_doc_comment)]
    Guide {
        /// The page [default: the list of them].
        #[arg(value_enum)]
        topic: Option<Topic>,
    },
    /// Put a component into force by degrees, and roll it back by itself where it does worse.
    ///
    /// It gets a share of a running proxy's exchanges and is compared with the policy in force.
    ///
    /// It is rolled back as soon as a guard is shown to be violated, or when it fails. When its time is over and no guard is,
    /// it is promoted; when too little is known by then, it is given as much time again, once.
    /// Exit 0: promoted; 1: rolled back, refused or unreachable; 2: wrong usage. Ctrl-C leaves the promotion running.
    ///
    ///   pointsman policy promote candidate.wasm --canary 5% --for 10m --guard 'p95<=+10%'
    ///   pointsman policy promote --abort
    #[command(verbatim_doc_comment)]
    Promote(PromoteArgs),
}

/// Result of a command that ran without an error.
enum Ended {
    /// The command succeeded; exit code 0.
    Well,
    /// Exit 1: the answer is no.
    Badly,
    /// Exit 2: it could not be carried out as it was given.
    Usage(String),
}

/// Runs it: results go to `out`, complaints to `err`. Exit 0: done; 1: failed or refused; 2: wrong usage.
pub(super) fn run(command: &PolicyCommand, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    let ended = match command {
        PolicyCommand::New { name, lang, dir } => start(name, *lang, dir.as_deref(), out),
        PolicyCommand::Build { dir, output } => make(dir, output.as_deref(), out),
        PolicyCommand::Check { file, config, settings, json } => judge((file, config.as_deref(), settings), *json, out),
        PolicyCommand::Test(args) => match test_cmd::run(args, out, err)? {
            Tested::Passed => Ok(Ended::Well),
            Tested::Failed => Ok(Ended::Badly),
            Tested::WrongUsage => return Ok(ExitCode::from(2)),
        },
        PolicyCommand::Bench { file, config, settings, json } => {
            measure((file, config.as_deref(), settings), *json, out)
        }
        PolicyCommand::Guide { topic } => guide(*topic, out),
        PolicyCommand::Promote(args) => return promote_cmd::run(args, out, err),
    };
    match ended {
        Ok(Ended::Well) => Ok(ExitCode::SUCCESS),
        Ok(Ended::Badly) => Ok(ExitCode::FAILURE),
        Ok(Ended::Usage(why)) => {
            writeln!(err, "error: {why}")?;
            Ok(ExitCode::from(2))
        }
        Err(error) => match error.downcast::<io::Error>() {
            Ok(error) => Err(error),
            Err(error) => {
                // A compiler's own words come as they are.
                let is_source = matches!(error.downcast_ref(), Some(BuildError::Source { .. }));
                writeln!(err, "{}{error}", if is_source { "" } else { "error: " })?;
                Ok(ExitCode::FAILURE)
            }
        },
    }
}

fn start(name: &str, lang: Language, dir: Option<&Path>, out: &mut dyn Write) -> anyhow::Result<Ended> {
    let project = new::create(name, lang, dir.unwrap_or(Path::new(name)))?;
    let dir = project.dir.display();
    writeln!(out, "{dir} is a policy in {}, ready to build; its README.md tells more. Next:\n", lang.as_str())?;
    writeln!(out, "  pointsman policy build {dir}")?;
    writeln!(out, "  curl -T {dir}/policy.wasm http://127.0.0.1:9901/api/policy")?;
    Ok(Ended::Well)
}

fn guide(topic: Option<Topic>, out: &mut dyn Write) -> anyhow::Result<Ended> {
    match topic {
        Some(topic) => write!(out, "{}", topic.text())?,
        None => write!(out, "The guide for policy authors, page by page:\n\n{}", contents())?,
    }
    Ok(Ended::Well)
}

fn make(dir: &Path, output: Option<&Path>, out: &mut dyn Write) -> anyhow::Result<Ended> {
    let file = output.map_or_else(|| dir.join(component::DEFAULT_OUTPUT), Path::to_owned);
    let Built { language, file, bytes, revision, name, took, wants_settings } = build(dir, &file)?;
    let (file, took) = (file.display(), took.as_secs_f64());
    let named = name.map(|name| format!("{name}, ")).unwrap_or_default();
    writeln!(
        out,
        "{file}: {named}revision {revision}, {} KiB, from {} in {took:.1} s",
        bytes / 1024,
        language.as_str()
    )?;
    if let Some(why) = wants_settings {
        writeln!(out, "It wants [policy.settings]: {why}")?;
    }
    Ok(Ended::Well)
}

/// A component, the configuration and the settings that it is tried with.
type Tried<'a> = (&'a Path, Option<&'a Path>, &'a SettingsArgs);

fn judge(tried: Tried<'_>, json: bool, out: &mut dyn Write) -> anyhow::Result<Ended> {
    let (file, ..) = tried;
    let (bytes, conditions) = match conditions(tried) {
        Ok(tried) => tried,
        Err(error) => return Ok(Ended::Usage(error)),
    };
    let report = check(&bytes, &conditions)?;
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "{}", file.display())?;
        writeln!(out, "{report}")?;
    }
    Ok(if report.accepted { Ended::Well } else { Ended::Badly })
}

fn measure(tried: Tried<'_>, json: bool, out: &mut dyn Write) -> anyhow::Result<Ended> {
    let (file, ..) = tried;
    let (bytes, conditions) = match conditions(tried) {
        Ok(tried) => tried,
        Err(error) => return Ok(Ended::Usage(error)),
    };
    let report = bench(&bytes, &conditions.settings, conditions.limits)?;
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "{} (revision {}), beside the default policy\n", file.display(), report.policy.revision)?;
        writeln!(out, "{report}")?;
    }
    Ok(Ended::Well)
}

/// The component's bytes, at most one more than are accepted; `default` is the embedded one.
fn read(file: &Path, limits: &EngineLimits) -> Result<Vec<u8>, String> {
    if file == Path::new("default") {
        return Ok(Engine::embedded_bytes().to_vec());
    }
    component::read(file, limits.max_component_bytes as u64).map_err(|error| {
        format!(
            "cannot read {}: {error}; give a component file, a project that is built, or `default` for the policy inside this binary",
            file.display()
        )
    })
}

/// The component, and what it is tried with: a configuration's table, settings and limits, or examples.
fn conditions((file, config, settings): Tried<'_>) -> Result<(Vec<u8>, Conditions), String> {
    let given = settings.read()?;
    let Some(config_file) = config else {
        let limits = EngineLimits::default();
        let conditions = Conditions {
            limits,
            settings: given.over("{}".into()),
            table: Arc::new(sample::table(EXAMPLE_BACKENDS)),
            origin: "an example table".to_owned(),
        };
        return Ok((read(file, &limits)?, conditions));
    };
    let config = config::load(Some(config_file), &ProcessEnv).map_err(|error| error.to_string())?.config;
    let limits = engine_limits(&config);
    let bytes = read(file, &limits)?;
    let conditions = Conditions {
        limits,
        settings: given.over(offer(&config, file, &bytes)),
        table: Arc::new(config.table()),
        origin: format!("the table of {}", config_file.display()),
    };
    Ok((bytes, conditions))
}

/// Returns the configuration's settings for this component, which may be the configured policy or another one.
fn offer(config: &Config, file: &Path, bytes: &[u8]) -> SettingsOffer {
    let own = name_of(bytes);
    let is_default = *Revision::id_of(bytes) == *Engine::embedded_id();
    let same = |configured: &Path| {
        configured.canonicalize().ok().is_some_and(|one| component::file_of(file).canonicalize().ok() == Some(one))
    };
    match config.policy.file.as_deref().map_or(is_default, same) {
        true => config.policy.offer(own.as_deref()),
        false => config.policy.offer_for_other(&config::policy_names(own.as_deref(), Some(file), is_default)),
    }
}
