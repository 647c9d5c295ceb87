//! A policy's component out of its project, with the ordinary tools of its language.
//!
//! | project has | language | tools |
//! |---|---|---|
//! | `Cargo.toml` | Rust | cargo, with the target wasm32-wasip2 |
//! | `policy.js` | JavaScript | componentize-qjs |
//! | `policy.py` | Python | componentize-py |
//! | `policy.c` | C | zig or clang; the component is made of the module in here |
//!
//! A tool is looked for where its package manager puts it: `node_modules/.bin` and `.venv/bin` of the project and of the
//! folders above it, the active Python environment, the PATH. `POINTSMAN_COMPONENTIZE_QJS`, `POINTSMAN_COMPONENTIZE_PY` and
//! `POINTSMAN_CC` name one outright. The contract is the project's own `wit/policy.wit`, else the one in this binary; the SDK
//! is the project's own too, else the one in this binary.

mod component;
mod interrupt;
mod languages;
mod lines;
mod stage;
mod tool;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pointsman_engine::clock::Stopwatch;
use pointsman_engine::{Engine, EngineError, EngineLimits, LoadError, name_of, named};
use pointsman_engine::{plain_file, sample};

use super::sdk;

/// A larger contract or manifest of a project is not read, in bytes.
const MAX_TEXT_BYTES: u64 = 4 << 20;

/// Programming language of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Rust; the project has a `Cargo.toml`.
    Rust,
    /// JavaScript; the project has a `policy.js`.
    #[value(name = "js")]
    JavaScript,
    /// Python; the project has a `policy.py`.
    Python,
    /// C; the project has a `policy.c`.
    C,
}

impl Language {
    /// Every language, with the file that tells it.
    pub const ALL: [(Language, &'static str); 4] = [
        (Language::Rust, "Cargo.toml"),
        (Language::JavaScript, "policy.js"),
        (Language::Python, "policy.py"),
        (Language::C, "policy.c"),
    ];

    /// The language of a project, by its files.
    pub fn of(dir: &Path) -> Result<Self, BuildError> {
        let found: Vec<_> = Self::ALL.into_iter().filter(|(_, file)| dir.join(file).is_file()).collect();
        match found[..] {
            [(language, _)] => Ok(language),
            [] if !dir.is_dir() => Err(BuildError::NoFolder { dir: dir.to_owned() }),
            [] => Err(BuildError::NoProject { dir: dir.to_owned() }),
            [(_, one), (_, other), ..] => Err(BuildError::Ambiguous { dir: dir.to_owned(), one, other }),
        }
    }

    /// Name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Language::Rust => "Rust",
            Language::JavaScript => "JavaScript",
            Language::Python => "Python",
            Language::C => "C",
        }
    }
}

/// A component that was built and would be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Language that the project's files tell.
    pub language: Language,
    /// Path that the component was written to.
    pub file: PathBuf,
    /// Size of the component, bytes.
    pub bytes: usize,
    /// The name of its revision.
    pub revision: String,
    /// Name of the policy, by which it gets `[policy.settings.NAME]`.
    pub name: Option<String>,
    /// Duration of the whole build.
    pub took: Duration,
    /// Error for an empty `[policy.settings]`, if the policy needs settings.
    pub wants_settings: Option<String>,
}

/// The reason why there is no component. An existing file in its place is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The folder has no file of a policy project.
    #[error(
        "{} is no policy: it has none of Cargo.toml, policy.js, policy.py, policy.c; start one with `pointsman policy new`",
        dir.display()
    )]
    NoProject {
        /// Folder that was given.
        dir: PathBuf,
    },
    /// The folder does not exist.
    #[error(
        "there is no folder {}: give that of a policy's project, or start one with `pointsman policy new`",
        dir.display()
    )]
    NoFolder {
        /// Path that was given.
        dir: PathBuf,
    },
    /// The folder has files of two languages.
    #[error("{} has both {one} and {other}: which one is the policy? Move the other elsewhere", dir.display())]
    Ambiguous {
        /// Folder that was given.
        dir: PathBuf,
        /// A file that tells a language.
        one: &'static str,
        /// The other file found.
        other: &'static str,
    },
    /// A tool that is not there.
    #[error("{what} is not there; install it:\n  {install}")]
    Missing {
        /// Its name and what it is for.
        what: String,
        /// The command that installs it.
        install: &'static str,
    },
    /// A tool cannot be run, or did something else than it should.
    #[error("this failed:\n  {command}\n{output}")]
    Tool {
        /// Command line of the tool.
        command: String,
        /// Output of the tool.
        output: String,
    },
    /// A tool found something wrong with the project, and said what.
    #[error("{output}\n\nerror: nothing was built: {tool} ended with the error above")]
    Source {
        /// Name of the tool.
        tool: String,
        /// Output of the tool.
        output: String,
    },
    /// A tool did not come to an end.
    #[error("this was still running after {} minutes, and was ended:\n  {command}", limit.as_secs() / 60)]
    Slow {
        /// Command line of the tool.
        command: String,
        /// Time limit of the tool.
        limit: Duration,
    },
    /// Ctrl-C was pressed while a tool ran.
    #[error("interrupted")]
    Interrupted,
    /// The compiler's module is no policy.
    #[error("the compiler's module cannot be made a component: {0}")]
    Component(String),
    /// The proxy would not take it.
    #[error("it was built, but the proxy would refuse it: {0}")]
    Refused(#[from] LoadError),
    /// This machine cannot run policies.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file that cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// File that cannot be read or written.
        path: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
}

/// Builds the project in `dir` into the component `out`, which is replaced whole or not at all.
pub fn build(dir: &Path, out: &Path) -> Result<Built, BuildError> {
    let watch = Stopwatch::start();
    let language = Language::of(dir)?;
    let work = tempfile::Builder::new().prefix("pointsman-build-").tempdir().map_err(at(&std::env::temp_dir()))?;
    let project = Project::read(dir, work.path())?;
    let component = match language {
        Language::Rust => languages::rust(&project),
        Language::JavaScript => languages::javascript(&project),
        Language::Python => languages::python(&project),
        Language::C => languages::c(&project),
    }?;
    let component = match project.name(language) {
        Some(name) => named(component, &name),
        None => component,
    };
    let (revision, wants_settings) = judge(&component)?;
    publish(&component, out).map_err(at(out))?;
    Ok(Built {
        language,
        file: out.to_owned(),
        bytes: component.len(),
        revision,
        name: name_of(&component),
        took: watch.elapsed(),
        wants_settings,
    })
}

/// Input of a language's build steps.
struct Project {
    /// Absolute path of the author's folder.
    dir: PathBuf,
    /// An empty folder, gone afterwards.
    work: PathBuf,
    /// The contract's text, and where a tool can read it.
    contract: String,
    contract_file: PathBuf,
}

fn read_text(file: &Path) -> io::Result<String> {
    plain_file::read_text(file, MAX_TEXT_BYTES).map_err(io::Error::other)
}

impl Project {
    fn read(dir: &Path, work: &Path) -> Result<Self, BuildError> {
        let dir = dir.canonicalize().map_err(at(dir))?;
        let own = dir.join("wit/policy.wit");
        let contract = if own.is_file() { read_text(&own).map_err(at(&own))? } else { sdk::CONTRACT.to_owned() };
        let contract_file = work.join("contract/policy.wit");
        stage::add(&[("contract/policy.wit", &contract)], work).map_err(at(work))?;
        Ok(Self { dir, work: work.to_owned(), contract, contract_file })
    }

    /// Returns the policy's name, by which a configuration has settings for it: the crate's name, or the folder's.
    fn name(&self, language: Language) -> Option<String> {
        let crates = || {
            let manifest: toml::Table = read_text(&self.dir.join("Cargo.toml")).ok()?.parse().ok()?;
            Some(manifest.get("package")?.get("name")?.as_str()?.to_owned())
        };
        let folders = || Some(self.dir.file_name()?.to_str()?.to_owned());
        match language {
            Language::Rust => crates().or_else(folders),
            Language::JavaScript | Language::Python | Language::C => folders(),
        }
    }
}

/// Loads it as the proxy would, with an example table and no settings.
fn judge(component: &[u8]) -> Result<(String, Option<String>), BuildError> {
    /// Backends of the example table.
    const BACKENDS: usize = 4;
    let engine = Engine::new(EngineLimits { max_instances: 8, ..EngineLimits::default() })?;
    let compiled = engine.compile(component)?;
    let wants_settings = match compiled.configure("{}", Arc::new(sample::table(BACKENDS))) {
        Ok(_) => None,
        Err(LoadError::Refused(why)) => Some(why),
        Err(error) => return Err(error.into()),
    };
    Ok((compiled.id().to_string(), wants_settings))
}

/// Writes it beside its place and renames it, so that whoever watches the file never sees half of it.
fn publish(component: &[u8], out: &Path) -> io::Result<()> {
    let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".pointsman-").suffix(".part").tempfile_in(folder)?;
    file.write_all(component)?;
    readable(file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(out).map_err(|error| error.error)?;
    Ok(())
}

/// A temporary file is its owner's alone; a component is for whoever runs the proxy.
#[cfg(unix)]
fn readable(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &std::fs::File) -> io::Result<()> {
    Ok(())
}

/// Names the file that an error is about.
fn at(path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.to_owned();
    move |error| BuildError::File { path, error }
}

#[cfg(test)]
mod tests;
