//! `pointsman policy test FILE [SCENARIOS...]`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::report::{self, Verdict};
use super::scenario::Scenario;
use super::trial::Trial;
use crate::clock::Clock;
use crate::policy::{Compiled, Engine, EngineLimits};

/// What `pointsman policy test` is told.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// The component, or `default` for the policy inside this binary.
    pub file: PathBuf,
    /// Scenario files, or directories of them [default: scenarios/ beside FILE, else ./scenarios].
    pub scenarios: Vec<PathBuf>,
    /// Print a report for machines.
    #[arg(long)]
    pub json: bool,
    /// Tell the story of every exchange, also of scenarios that pass.
    #[arg(long)]
    pub explain: bool,
    /// Only scenarios with these words in their title or file name.
    #[arg(long, value_name = "WORDS")]
    pub only: Option<String>,
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tested {
    /// Every scenario passed.
    Passed,
    /// One did not, or the policy could not be loaded.
    Failed,
    /// There was nothing to test.
    WrongUsage,
}

/// A scenario file larger than this is none, in bytes.
const MAX_SCENARIO_BYTES: u64 = 4 << 20;

/// The name of the embedded policy.
const EMBEDDED: &str = "default";

/// Runs it: results go to `out`, complaints to `err`.
pub fn run(args: &TestArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Tested> {
    let files = match scenario_files(args) {
        Ok(files) => files,
        Err(why) => {
            writeln!(err, "error: {why}")?;
            return Ok(Tested::WrongUsage);
        }
    };
    let policy = match compile(&args.file) {
        Ok(policy) => policy,
        Err(why) => {
            writeln!(err, "error: {why}")?;
            return Ok(Tested::Failed);
        }
    };
    let mut verdicts = Vec::new();
    for file in &files {
        let Some(verdict) = judge(&policy, file, args.only.as_deref()) else { continue };
        if !args.json {
            write!(out, "{}", verdict.text(args.explain))?;
        }
        verdicts.push(verdict);
    }
    if verdicts.is_empty() {
        let only = args.only.as_deref().unwrap_or_default();
        writeln!(err, "error: none of {} scenarios has {only:?} in its title or file name", files.len())?;
        return Ok(Tested::WrongUsage);
    }
    let passed = verdicts.iter().filter(|v| v.passed()).count();
    let failed = verdicts.len() - passed;
    if args.json {
        writeln!(out, "{:#}", report::json(policy.id(), &verdicts))?;
    } else {
        writeln!(out, "{passed} passed, {failed} failed")?;
    }
    Ok(if failed == 0 { Tested::Passed } else { Tested::Failed })
}

/// The policy of a file, or the embedded one.
pub(super) fn compile(file: &Path) -> Result<Compiled, String> {
    // One scenario at a time asks one instance.
    let limits = EngineLimits { max_instances: 4, ..EngineLimits::default() };
    compile_in(&Engine::new(limits).map_err(|error| error.to_string())?, file)
}

/// The same, in this engine.
pub(super) fn compile_in(engine: &Engine, file: &Path) -> Result<Compiled, String> {
    if file == Path::new(EMBEDDED) {
        return engine.compile_embedded().map_err(|error| error.to_string());
    }
    let shown = file.display();
    let bytes = read(file, engine.limits().max_component_bytes as u64).map_err(|error| {
        format!(
            "cannot read {shown}: {error}; give a component file, or `{EMBEDDED}` for the policy inside this binary"
        )
    })?;
    engine.compile(&bytes).map_err(|error| format!("{shown}: {error}"))
}

/// A file, at most one byte more of it than it may have.
fn read(file: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(file)?, max_bytes + 1), &mut bytes)?;
    Ok(bytes)
}

/// Tries one file; none when it is not meant.
fn judge(policy: &Compiled, file: &Path, only: Option<&str>) -> Option<Verdict> {
    let name = file.display().to_string();
    let is_meant = |text: &str| only.is_none_or(|words| text.to_lowercase().contains(&words.to_lowercase()));
    let problem = |why: String| Verdict { file: name.clone(), title: None, trial: Err(why), took: Duration::ZERO };
    let scenario = match parse(file, &name) {
        Ok(scenario) => scenario,
        Err(why) => return is_meant(&name).then(|| problem(why)),
    };
    if !is_meant(&scenario.title) && !is_meant(&name) {
        return None;
    }
    let clock = Clock::start();
    let began = clock.now();
    let trial = Trial::run(policy, &scenario).map_err(|error| error.to_string());
    let took = clock.now().since(began);
    Some(Verdict { file: name, title: Some(scenario.title), trial, took })
}

fn parse(file: &Path, name: &str) -> Result<Scenario, String> {
    let bytes = read(file, MAX_SCENARIO_BYTES).map_err(|error| format!("cannot read {name}: {error}"))?;
    if bytes.len() as u64 > MAX_SCENARIO_BYTES {
        return Err(format!("{name} is larger than {MAX_SCENARIO_BYTES} bytes; is this the right file?"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8 text; save it as UTF-8"))?;
    Scenario::parse(&text, name)
        .map_err(|error| error.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))
}

/// The scenario files meant, in the order given, those of a directory by name.
fn scenario_files(args: &TestArgs) -> Result<Vec<PathBuf>, String> {
    if args.file != Path::new(EMBEDDED) && !args.file.exists() {
        let shown = args.file.display();
        return Err(format!(
            "there is no file {shown}; give a component, or `{EMBEDDED}` for the policy inside this binary"
        ));
    }
    if args.scenarios.is_empty() {
        return in_directory(&usual_directory(&args.file)?);
    }
    let mut files = Vec::new();
    for path in &args.scenarios {
        if path.is_dir() {
            files.extend(in_directory(path)?);
        } else if path.exists() {
            files.push(path.clone());
        } else {
            return Err(format!("there is no {}; name scenario files, or directories of them", path.display()));
        }
    }
    Ok(files)
}

fn usual_directory(file: &Path) -> Result<PathBuf, String> {
    let beside = file.parent().unwrap_or(Path::new("")).join("scenarios");
    let here = PathBuf::from("scenarios");
    [&beside, &here].into_iter().find(|dir| dir.is_dir()).cloned().ok_or_else(|| {
        let both =
            if beside == here { "./scenarios".to_owned() } else { format!("{} or ./scenarios", beside.display()) };
        format!("there is no directory {both}; {HOW_TO}, or name them after FILE")
    })
}

const HOW_TO: &str = "write scenarios as TOML files there (policies/SCENARIOS.md says how)";

fn in_directory(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = directory.display();
    let entries = std::fs::read_dir(directory).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let is_scenario = |path: &PathBuf| path.extension().is_some_and(|e| e == "toml");
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_scenario).collect();
    files.sort();
    if files.is_empty() {
        return Err(format!("{shown} has no scenario in it; {HOW_TO}"));
    }
    Ok(files)
}
