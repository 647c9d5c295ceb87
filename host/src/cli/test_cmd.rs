//! `pointsman policy test FILE|FOLDER [SCENARIOS...]`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pointsman_engine::clock::Clock;
use pointsman_engine::{Compiled, plain_file};
use pointsman_lab::report::{self, Verdict};
use pointsman_lab::scenario::Scenario;
use pointsman_lab::settings::GivenSettings;
use pointsman_lab::trial::Trial;

use super::component::{EMBEDDED, compile};
use super::settings_args::SettingsArgs;

/// Arguments of `pointsman policy test`.
#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// The component; a project's folder, with its policy.wasm and its scenarios; a folder of scenarios beside a policy.wasm; or
    /// `default` for the policy inside this binary.
    pub file: PathBuf,
    /// Scenario files, or folders of them [default: scenarios/ beside the component, else ./scenarios].
    pub scenarios: Vec<PathBuf>,
    /// Settings over those of the scenarios.
    #[command(flatten)]
    pub settings: SettingsArgs,
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

/// Result of `pointsman policy test`, which the exit code tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tested {
    /// Every scenario passed.
    Passed,
    /// One did not, or the policy could not be loaded.
    Failed,
    /// There was nothing to test.
    WrongUsage,
}

/// A scenario file larger than this is none, in bytes.
const MAX_SCENARIO_BYTES: u64 = 4 << 20;

/// File name of a project's component.
const COMPONENT: &str = "policy.wasm";

/// A folder with one of these is a project.
const LANGUAGE_FILES: [&str; 4] = ["Cargo.toml", "policy.js", "policy.py", "policy.c"];

/// Runs it: results go to `out`, complaints to `err`.
pub(super) fn run(args: &TestArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Tested> {
    let meant = Meant::of(args).and_then(|meant| Ok((meant.scenario_files()?, args.settings.read()?, meant)));
    let (files, settings, meant) = match meant {
        Ok(meant) => meant,
        Err(why) => {
            writeln!(err, "error: {why}")?;
            return Ok(Tested::WrongUsage);
        }
    };
    let policy = match compile(&meant.file) {
        Ok(policy) => policy,
        Err(why) => {
            writeln!(err, "error: {why}")?;
            return Ok(Tested::Failed);
        }
    };
    if args.file.is_dir() && !args.json {
        let (file, revision, number) = (meant.file.display(), policy.id(), files.len());
        let noun = if number == 1 { "scenario" } else { "scenarios" };
        let folder = files[0].parent().unwrap_or(Path::new("")).display();
        writeln!(out, "{file} (revision {revision}), {number} {noun} of {folder}\n")?;
    }
    let mut verdicts = Vec::new();
    for file in &files {
        let Some(verdict) = judge(&policy, file, args.only.as_deref(), &settings) else { continue };
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

/// Tries one file; none when it is not meant.
fn judge(policy: &Compiled, file: &Path, only: Option<&str>, settings: &GivenSettings) -> Option<Verdict> {
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
    let trial = Trial::run(policy, &scenario, settings).map_err(|error| error.to_string());
    let took = clock.now().since(began);
    Some(Verdict { file: name, title: Some(scenario.title), trial, took })
}

fn parse(file: &Path, name: &str) -> Result<Scenario, String> {
    let text =
        plain_file::read_text(file, MAX_SCENARIO_BYTES).map_err(|error| format!("cannot read {name}: {error}"))?;
    Scenario::parse(&text, name)
        .map_err(|error| error.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))
}

/// Scenarios to test, and the policy.
struct Meant<'a> {
    /// The component.
    file: PathBuf,
    /// Scenario files and folders of them; empty: the usual folder.
    scenarios: Vec<&'a Path>,
}

impl<'a> Meant<'a> {
    /// A project's folder means its component; a folder of scenarios means the component beside it.
    fn of(args: &'a TestArgs) -> Result<Self, String> {
        let folder = &args.file;
        let mut scenarios: Vec<&Path> = args.scenarios.iter().map(PathBuf::as_path).collect();
        if !folder.is_dir() {
            return Ok(Self { file: folder.clone(), scenarios });
        }
        let shown = folder.display();
        let inside = folder.join(COMPONENT);
        if inside.is_file() {
            return Ok(Self { file: inside, scenarios });
        }
        if LANGUAGE_FILES.iter().any(|file| folder.join(file).is_file()) {
            return Err(format!("{shown} has no {COMPONENT} yet; make it with `pointsman policy build {shown}`"));
        }
        let is_of_scenarios = in_directory(folder).is_ok();
        let whole = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let beside = whole.parent().map(|parent| parent.join(COMPONENT)).filter(|file| file.is_file());
        match beside {
            Some(beside) if is_of_scenarios => {
                scenarios.insert(0, folder);
                Ok(Self { file: beside, scenarios })
            }
            Some(_) | None => Err(format!(
                "{shown} is no policy's project: it has no {COMPONENT}, and there is none beside it; give the component before the \
                 scenarios, as in `pointsman policy test FILE {shown}`"
            )),
        }
    }

    /// The scenario files, in the order given, those of a folder by name.
    fn scenario_files(&self) -> Result<Vec<PathBuf>, String> {
        if self.file != Path::new(EMBEDDED) && !self.file.exists() {
            let shown = self.file.display();
            return Err(format!(
                "there is no file {shown}; give a component, or `{EMBEDDED}` for the policy inside this binary"
            ));
        }
        if self.scenarios.is_empty() {
            return in_directory(&usual_directory(&self.file)?);
        }
        let mut files = Vec::new();
        for path in &self.scenarios {
            if path.is_dir() {
                files.extend(in_directory(path)?);
            } else if path.exists() {
                files.push((*path).to_owned());
            } else {
                return Err(format!("there is no {}; name scenario files, or directories of them", path.display()));
            }
        }
        Ok(files)
    }
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

const HOW_TO: &str = "write scenarios as TOML files there (`pointsman policy guide scenarios` says how)";

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

#[cfg(test)]
mod tests {
    use super::*;

    fn args(scenarios: &[&Path]) -> TestArgs {
        let scenarios = scenarios.iter().map(|p| p.to_path_buf()).collect();
        TestArgs {
            file: "default".into(),
            scenarios,
            settings: SettingsArgs::default(),
            json: false,
            explain: false,
            only: None,
        }
    }

    fn ran(args: &TestArgs) -> (Tested, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let tested = run(args, &mut out, &mut err).unwrap();
        (tested, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn scenarios_of_default() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/default/scenarios")
    }

    const ONE_429: &str = include_str!("../../lab/src/testdata/one-429.toml");

    #[test]
    fn the_default_policys_scenarios_pass() {
        let (tested, out, err) = ran(&args(&[&scenarios_of_default()]));
        assert_eq!(tested, Tested::Passed, "{out}{err}");
        let last = out.lines().last().unwrap();
        let passed: usize = last.strip_suffix(" passed, 0 failed").and_then(|n| n.parse().ok()).unwrap();
        assert!(passed >= 10 && out.matches("pass  ").count() == passed, "{out}");
    }

    #[test]
    fn a_failed_scenario_prints_its_reasons_and_its_story() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        file("1.toml", &format!("{ONE_429}end = \"delivered by b\""));
        file("2.toml", &format!("{}end = \"delivered by a\"", ONE_429.replace("one 429", "the other")));
        file("3.toml", "title = 3");
        file("4.txt", "no scenario");
        let (tested, out, _) = ran(&args(&[folder.path()]));
        assert_eq!(tested, Tested::Failed);
        for words in [
            "FAIL  one 429 (2.42 s simulated in ",
            "      request 1: it was to be delivered by b, and was delivered by a\n",
            "           0.020 s  outcome  a: rate_limited (429) after 20 ms, Retry-After 2 s",
            "asked    a cools for 2 s more (rate_limited), emergency in 2 s\n                             b is ready\n",
            "others   a cools for 2 s more (rate_limited): waited for\n",
            "b is ready, but a fallback; the policy chose to wait for the primary lane\n",
            "noted    wait for a primary: the first is expected in 2000 ms",
            "2.020 s  waited   2 s, then got a permit of a",
            "sent     to a in the primary lane, as m, a probe after its cooldown",
            "end      delivered by a in the primary lane after 2.42 s",
            "pass  the other (",
            "3.toml:1:9",
        ] {
            assert!(out.contains(words), "{words:?} in\n{out}");
        }
        assert_eq!(out.lines().last(), Some("1 passed, 2 failed"));
        let (tested, out, _) = ran(&TestArgs { only: Some("OTHER".into()), explain: true, ..args(&[folder.path()]) });
        assert_eq!((tested, out.lines().last()), (Tested::Passed, Some("1 passed, 0 failed")));
        assert!(out.contains("waited   2 s, then got a permit of a"), "--explain tells of those that pass: {out}");
        let (_, out, _) = ran(&TestArgs { json: true, ..args(&[folder.path()]) });
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&report["passed"], &report["failed"]), (&1.into(), &2.into()));
        assert_eq!(report["scenarios"][0]["failures"][0]["request"], 1);
        assert_eq!(report["scenarios"][1]["exchanges"][0]["attempts"][0]["outcome"], "rate_limited");
        assert!(report["scenarios"][2]["problem"].as_str().unwrap().contains("`title` must be text"));
    }

    #[test]
    fn nothing_to_test_is_wrong_usage_and_says_what_to_do() {
        let empty = tempfile::tempdir().unwrap();
        let told = |args: &TestArgs, words: &str| {
            let (tested, out, err) = ran(args);
            assert!(tested == Tested::WrongUsage && out.is_empty() && err.contains(words), "{err}");
        };
        told(&args(&[empty.path()]), "has no scenario in it; write scenarios as TOML files there");
        told(&args(&[Path::new("/nowhere")]), "there is no /nowhere");
        told(
            &TestArgs { file: "/no.wasm".into(), ..args(&[]) },
            "there is no file /no.wasm; give a component, or `default`",
        );
        let none = TestArgs { only: Some("no such words".into()), ..args(&[&scenarios_of_default()]) };
        told(&none, "scenarios has \"no such words\"");
        let component = empty.path().join("p.wasm");
        std::fs::write(&component, "text").unwrap();
        told(&TestArgs { file: component.clone(), ..args(&[]) }, "there is no directory");
        let (tested, _, err) = ran(&TestArgs { file: component, ..args(&[&scenarios_of_default()]) });
        assert!(tested == Tested::Failed && err.contains("not WebAssembly"), "{err}");
    }
}
