//! Checks of a configuration on this machine: the policy accepts its settings, the store can be written.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman_config::{self as config, Diagnostic, Env, Loaded, Severity};
use pointsman_engine::{Engine, EngineLimits, LoadError, SettingsOffer, name_of, plain_file, refused_key};

use crate::serve::engine_limits;

/// Results of loading a configuration on this machine: the policy, and problems.
pub(super) struct Needs {
    /// The revision of the policy, where it was taken.
    pub(super) policy: Option<Arc<str>>,
    /// Problems found by the checks.
    pub(super) problems: Vec<Diagnostic>,
}

/// Loads the policy for this configuration, as `serve` would, and looks at the store's folder.
pub(super) fn look(loaded: &Loaded, env: &dyn Env) -> Needs {
    let mut looking = Looking { loaded, env, problems: Vec::new() };
    let policy = looking.policy();
    looking.store();
    Needs { policy, problems: looking.problems }
}

struct Looking<'a> {
    loaded: &'a Loaded,
    env: &'a dyn Env,
    problems: Vec<Diagnostic>,
}

impl Looking<'_> {
    fn policy(&mut self) -> Option<Arc<str>> {
        let engine = match Engine::new(engine_limits(&self.loaded.config)) {
            Ok(engine) => engine,
            Err(error) => {
                let help = "policies need a 64-bit machine with address space to reserve";
                self.problem(Severity::Error, "policy", "memory_mb", error.to_string(), help);
                return None;
            }
        };
        self.shadow(&engine);
        self.live(&engine)
    }

    fn live(&mut self, engine: &Engine) -> Option<Arc<str>> {
        let config = &self.loaded.config;
        let bytes = match &config.policy.file {
            None => Engine::embedded_bytes().to_vec(),
            Some(file) => match plain_file::read(file, EngineLimits::MAX_COMPONENT_BYTES as u64) {
                Ok(bytes) => bytes,
                Err(error) => {
                    let message = format!("the policy {} cannot be read: {error}", file.display());
                    let help = "give the path of a component; it starts at this file's folder";
                    self.problem(Severity::Error, "policy", "file", message, help);
                    return None;
                }
            },
        };
        let own = name_of(&bytes);
        let offer = config.policy.offer(own.as_deref());
        match engine.load(&bytes, &offer, Arc::new(config.table())) {
            Ok(revision) => {
                self.others(revision.left_out());
                Some(revision.id().clone())
            }
            Err(LoadError::Refused(words)) => {
                self.settings_refused(&words, &offer, own.as_deref());
                None
            }
            Err(error) => {
                let help = "`pointsman policy check FILE --config` with this file tells more";
                self.problem(Severity::Error, "policy", "file", error.to_string(), help);
                None
            }
        }
    }

    /// Points at the key that the policy refuses.
    fn settings_refused(&mut self, words: &str, offer: &SettingsOffer, own: Option<&str>) {
        let message = LoadError::Refused(words.to_owned()).to_string();
        let offered = serde_json::from_str(offer.json()).unwrap_or_default();
        let Some((key, nearest)) = refused_key(words, &offered) else {
            let help = "`pointsman policy check FILE --config` with this file tells more";
            return self.problem(Severity::Error, "policy", "settings", message, help);
        };
        let file = self.loaded.config.policy.file.as_deref();
        let names = config::policy_names(own, file, file.is_none());
        let place = self.loaded.path.as_deref().and_then(|path| config::settings_place(path, self.env, &names, key));
        let mut problem = Diagnostic { place, ..Diagnostic::error(message) };
        let as_number =
            offered.get(key).and_then(|value| value.as_str()).filter(|text| text.trim().parse::<f64>().is_ok());
        match (nearest, as_number) {
            (Some(nearest), _) => problem.help(format!("did you mean `{nearest}`?")),
            (None, Some(number)) => problem.help(format!("write {}, without quotation marks", number.trim())),
            // Of a key that it knows the policy has said what it takes.
            (None, None) if words.contains("must be") => &mut problem,
            (None, None) => {
                problem.help("settings of another policy stand in a table of its name, [policy.settings.NAME]")
            }
        };
        self.problems.push(problem);
    }

    /// Tables that the policy does not know are for policies that are not there yet, or are misspelt.
    fn others(&mut self, tables: &[String]) {
        for table in tables {
            let place = self.loaded.path.as_deref().and_then(|path| config::settings_place(path, self.env, &[], table));
            let message = format!(
                "[policy.settings.{table}] is for a policy called {table}, and none of that name is configured"
            );
            let mut problem = Diagnostic { severity: Severity::Warning, place, ..Diagnostic::error(message) };
            problem.help("it is kept for a policy of that name that is uploaded; take it out if none is meant");
            self.problems.push(problem);
        }
    }

    /// `serve` would run without a bad shadow, so it would not be noticed for long.
    fn shadow(&mut self, engine: &Engine) {
        let config = &self.loaded.config;
        let Some(shadow) = &config.policy.shadow else { return };
        let file = shadow.file.display();
        let problem = match plain_file::read(&shadow.file, EngineLimits::MAX_COMPONENT_BYTES as u64) {
            Err(error) => Some(format!("the shadow {file} cannot be read: {error}")),
            Ok(bytes) => {
                let offer = config.policy.offer_to_shadow(shadow, name_of(&bytes).as_deref());
                let judged = engine.load(&bytes, offer, Arc::new(config.table()));
                judged.err().map(|error| format!("the shadow {file} is refused: {error}"))
            }
        };
        if let Some(message) = problem {
            let help = "give the path of a component that takes this configuration, or take [policy.shadow] out";
            self.problem(Severity::Error, "policy", "shadow", message, help);
        }
    }

    fn store(&mut self) {
        let Some(path) = self.loaded.config.store.path.clone() else { return };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
        let shown = folder.display();
        if path.is_dir() {
            let message = format!("the store {} is a folder, and not a file", path.display());
            let help = format!("write \"{}\"", path.join("pointsman.db").display());
            self.problem(Severity::Error, "store", "path", message, &help);
        } else if !folder.is_dir() {
            let message = format!("the store's folder {shown} is not there");
            self.problem(Severity::Error, "store", "path", message, "make the folder, or write another path");
        } else if let Err(error) = try_to_write(&folder, &path) {
            let message = format!("the store {} cannot be written by this user: {error}", path.display());
            let help = "give the user that runs Pointsman the right to write there, or write another path";
            self.problem(Severity::Warning, "store", "path", message, help);
        }
    }

    fn problem(&mut self, severity: Severity, section: &str, key: &str, message: String, help: &str) {
        let place = self.loaded.path.as_deref().and_then(|file| config::place(file, self.env, section, key));
        let mut problem = Diagnostic { severity, place, ..Diagnostic::error(message) };
        problem.help(help);
        self.problems.push(problem);
    }
}

/// SQLite needs to write the file, and others beside it.
fn try_to_write(folder: &Path, store: &Path) -> io::Result<()> {
    if store.exists() {
        OpenOptions::new().append(true).open(store)?;
    }
    let probe = folder.join(format!(".pointsman-check-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    fs::remove_file(probe)
}
