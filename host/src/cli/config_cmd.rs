//! `pointsman config check | schema | prices | import-litellm | seal-key | seal`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::config_needs::{self, Needs};
use super::seal_cmd::{self, SealArgs};
use super::serving::serving;
use super::well;
use pointsman_config::{self as config, ConfigError, Env, Loaded, Severity};
use pointsman_core::table::{Backend, Pattern, Table};
use pointsman_engine::plain_file;

/// A larger configuration of LiteLLM is not imported, in bytes.
const MAX_IMPORT_BYTES: u64 = 16 << 20;

/// Subcommands of `pointsman config`.
#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Check a file: says where, what is wrong and what to write; exit 0 when it would be taken.
    ///
    /// The policy is loaded for this configuration as `serve` would load it, and the store's folder is looked at.
    Check {
        /// The file; without one, what `serve` would take: $POINTSMAN_CONFIG, ./pointsman.toml, or the environment.
        #[arg(env = "POINTSMAN_CONFIG")]
        file: Option<PathBuf>,
    },
    /// Print the JSON schema of pointsman.toml, for editors.
    Schema,
    /// Fill in the prices that a configuration lacks, from a dated list of providers' list prices.
    ///
    /// The whole configuration goes to standard output, and what was filled in, from which sources, to standard error. Prices
    /// that are there stay as they are; a model that the list does not have is named. List prices change: compare them with
    /// your provider's.
    Prices {
        /// The file; without one, $POINTSMAN_CONFIG or ./pointsman.toml.
        #[arg(env = "POINTSMAN_CONFIG", default_value = config::DEFAULT_FILE)]
        file: PathBuf,
        /// Write them into the file instead.
        #[arg(long)]
        write: bool,
    },
    /// Convert a LiteLLM config.yaml; the pointsman.toml goes to standard output.
    ImportLitellm {
        /// The LiteLLM configuration file.
        file: PathBuf,
    },
    /// Make the pair of keys for sealed secrets.
    ///
    /// The public key seals, anywhere; the private key opens, where the proxy runs: in the environment as POINTSMAN_SEAL_KEY, or
    /// in a file that [secrets] key names.
    SealKey {
        /// Write the private key there, readable by its owner alone; never over another file [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Seal a secret from standard input; what is printed may stand in pointsman.toml wherever a secret may.
    ///
    ///   pointsman config seal --to seal-public:... < key.txt
    #[command(verbatim_doc_comment)]
    Seal(SealArgs),
}

/// Runs it: results go to `out`, complaints to `err`. Exit 0: done; 1: failed; 2: wrong usage. A reader that has had enough
/// (`| head`) is no failure.
pub fn run(command: &ConfigCommand, env: &dyn Env, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    match answer(command, env, out, err) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        answered => answered,
    }
}

fn answer(command: &ConfigCommand, env: &dyn Env, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    match command {
        ConfigCommand::Check { file } => check(file.as_deref(), env, out, err).map(well),
        ConfigCommand::Schema => writeln!(out, "{:#}", config::schema().as_value()).map(|()| ExitCode::SUCCESS),
        ConfigCommand::Prices { file, write } => prices(file, *write, env, out, err).map(well),
        ConfigCommand::ImportLitellm { file } => import(file, env, out, err).map(well),
        ConfigCommand::SealKey { out: file } => seal_cmd::make_key(file.as_deref(), out, err),
        ConfigCommand::Seal(args) => seal_cmd::run(args, env, out, err),
    }
}

fn check(file: Option<&Path>, env: &dyn Env, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<bool> {
    let mut loaded = match config::load(file, env) {
        Ok(loaded) => loaded,
        Err(error) => {
            writeln!(err, "{error}")?;
            return Ok(false);
        }
    };
    let Needs { policy, problems } = config_needs::look(&loaded, env);
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        writeln!(err, "{}", ConfigError { diagnostics: problems })?;
        return Ok(false);
    }
    loaded.warnings.extend(problems);
    for warning in &loaded.warnings {
        writeln!(err, "{warning}\n")?;
    }
    summary(&loaded, policy.as_deref(), out)?;
    Ok(true)
}

fn summary(loaded: &Loaded, policy: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    let Loaded { config, warnings, path } = loaded;
    let source = path.as_ref().map_or("the environment".to_owned(), |path| path.display().to_string());
    writeln!(out, "ok: {source}, revision {}", config.revision)?;
    writeln!(out, "  listen    {} (admin {})", config.server.listen, config.admin.listen)?;
    let file = config.policy.file.as_ref().map_or("embedded".to_owned(), |file| file.display().to_string());
    writeln!(out, "  policy    {file}, revision {}", policy.unwrap_or("unknown"))?;
    if let Some(shadow) = &config.policy.shadow {
        writeln!(out, "  shadow    {}", shadow.file.display())?;
    }
    let width = config.backends.iter().map(|b| b.backend.id.len()).max().unwrap_or(0);
    for (index, one) in config.backends.iter().enumerate() {
        let backend = &one.backend;
        let title = if index == 0 { "backends" } else { "" };
        let key = if one.api_key.is_some() { "key" } else { "no key" };
        let mut rpm = backend.limits.rpm.map_or("no rpm limit".to_owned(), |rpm| format!("{rpm} rpm"));
        if let Some(burst) = backend.limits.burst {
            rpm.push_str(&format!(", {burst} at once"));
        }
        let (id, tier) = (&backend.id, backend.tier.as_str());
        writeln!(out, "  {title:<9} {id:<width$}  {tier:<8}  {}  {key}, {rpm}", one.base_url)?;
        writeln!(out, "  {:<9} {:<width$}  serves {}", "", "", serving(backend))?;
    }
    let table = config.table();
    writeln!(out, "  models    {}", models(&table))?;
    let clients = if table.clients.is_empty() {
        "everyone who reaches the listener".to_owned()
    } else {
        table.clients.join(", ")
    };
    writeln!(out, "  clients   {clients}")?;
    writeln!(out, "  warnings  {}", warnings.len())
}

/// Lists the models that can be asked for: the names, the patterns, and whether any other is served too.
fn models(table: &Table) -> String {
    let globs = table.backends.iter().flat_map(|backend| &backend.routes).filter(|route| route.is_served());
    let mut globs: Vec<String> = globs
        .filter(|route| matches!(route.asked, Pattern::Glob { .. }) && !route.asked.is_any())
        .map(|route| route.asked.to_string())
        .collect();
    globs.sort_unstable();
    globs.dedup();
    let mut names = table.models.clone();
    names.extend(globs);
    match (table.backends.iter().any(Backend::has_star), names.is_empty()) {
        (true, true) => "any".to_owned(),
        (true, false) => format!("{} and any other", names.join(", ")),
        (false, _) => names.join(", "),
    }
}

fn prices(file: &Path, is_written: bool, env: &dyn Env, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<bool> {
    let filled = match config::fill_prices(file, env) {
        Ok(filled) => filled,
        Err(error) => {
            writeln!(err, "{error}")?;
            return Ok(false);
        }
    };
    for one in &filled.added {
        writeln!(err, "{}: list prices of {} for {}, from", one.backend, one.checked, one.models.join(", "))?;
        one.sources.iter().try_for_each(|source| writeln!(err, "  {source}"))?;
    }
    for (backend, model) in &filled.unknown {
        writeln!(err, "{backend}: the list has no price for {model}; write [backend.price.\"{model}\"]")?;
    }
    if filled.added.is_empty() {
        writeln!(err, "no price is missing that the list of {} has", filled.compiled)?;
    }
    let Some(text) = &filled.text else {
        writeln!(err, "error: they could not be put into {}; copy these lines behind their backends", file.display())?;
        filled.added.iter().try_for_each(|one| writeln!(out, "# {}\n{}", one.backend, one.lines))?;
        return Ok(false);
    };
    if !is_written {
        out.write_all(text.as_bytes())?;
        return Ok(true);
    }
    match std::fs::write(file, text) {
        Ok(()) => Ok(true),
        Err(error) => {
            writeln!(err, "error: {} cannot be written: {error}", file.display())?;
            Ok(false)
        }
    }
}

fn import(file: &Path, env: &dyn Env, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<bool> {
    let read = plain_file::read_text(file, MAX_IMPORT_BYTES).map_err(|error| format!("cannot be read: {error}"));
    match read.and_then(|yaml| config::import_litellm(&yaml, env)) {
        Ok(text) => {
            out.write_all(text.as_bytes())?;
            Ok(true)
        }
        Err(why) => {
            writeln!(err, "error: {}: {why}", file.display())?;
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(command: ConfigCommand, env: &dyn Env) -> (bool, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ok = run(&command, env, &mut out, &mut err).unwrap() == ExitCode::SUCCESS;
        (ok, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn check_text(text: &str, env: &dyn Env) -> (bool, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.toml");
        std::fs::write(&file, text).unwrap();
        ran(ConfigCommand::Check { file: Some(file) }, env)
    }

    #[test]
    fn a_good_file_is_summed_up() {
        let text = "[[backend]]\nid = \"nvidia-1\"\nbase_url = \"http://x/v1\"\napi_key = \"literal\"\nrpm = 40\nmodels = [\"m\", \"n-*\"]\n";
        let (ok, out, err) = check_text(text, &[]);
        assert!(ok);
        for words in ["ok: ", "nvidia-1  primary   http://x/v1  key, 40 rpm", "  models    m, n-*\n", "warnings  1"] {
            assert!(out.contains(words), "{words:?} in {out}");
        }
        assert!(err.starts_with("warning: ") && !err.contains("literal"), "{err}");
    }

    #[test]
    fn a_bad_file_fails_with_its_reasons_and_nothing_on_standard_output() {
        let (ok, out, err) = check_text("[[backend]]\nid = 1\n", &[]);
        assert!(!ok && out.is_empty());
        assert!(err.contains("p.toml:2:6") && err.contains("the configuration is refused: 2 problems"), "{err}");
    }

    #[test]
    fn the_policy_named_is_judged_for_this_configuration() {
        let backend = "[[backend]]\nid = \"a\"\nbase_url = \"http://x/v1\"\n";
        for (text, place, words) in [
            ("[policy]\nfile = \"gone.wasm\"\n", "p.toml:2:8", "gone.wasm cannot be read"),
            ("[policy]\nfile = \"p.toml\"\n", "p.toml:2:8", "is not WebAssembly"),
            ("[policy]\n[policy.settings]\nprimary_wait = 1\n", "p.toml:", "`primary_wait` is no setting"),
            ("[policy.shadow]\nfile = \"gone.wasm\"\n", "p.toml:1:", "gone.wasm cannot be read"),
            ("[policy.shadow]\nfile = \"p.toml\"\n", "p.toml:1:", "is not WebAssembly"),
        ] {
            let (ok, out, err) = check_text(&format!("{text}{backend}"), &[]);
            assert!(!ok && out.is_empty(), "{out}");
            assert!(err.contains(place) && err.contains(words), "{words}: {err}");
            assert!(err.ends_with("the configuration is refused: 1 problem\n"), "{err}");
        }
    }

    #[test]
    fn a_store_without_a_folder_is_told() {
        let text = "[store]\npath = \"not/there.db\"\n[[backend]]\nid = \"a\"\nbase_url = \"http://x/v1\"\n";
        let (ok, _, err) = check_text(text, &[]);
        assert!(!ok && err.contains("p.toml:2:8") && err.contains("is not there"), "{err}");
    }

    #[test]
    fn missing_prices_are_printed_or_written_and_their_sources_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.toml");
        let text =
            "[[backend]]\nid = \"a\"\nbase_url = \"https://api.openai.com/v1\"\nmodels = [\"gpt-4o\", \"mine\"]\n";
        std::fs::write(&file, text).unwrap();
        let prices = |write| ran(ConfigCommand::Prices { file: file.clone(), write }, &[]);
        let (ok, out, err) = prices(false);
        assert!(ok && out.starts_with(text) && out.contains("[backend.price.\"gpt-4o\"]\n"), "{out}");
        assert!(
            err.contains("a: list prices of 20") && err.contains("https://") && err.contains("no price for mine"),
            "{err}"
        );
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        let (ok, out, _) = prices(true);
        assert!(ok && out.is_empty() && std::fs::read_to_string(&file).unwrap().contains("input_per_mtok = 2.5"));
        let (ok, _, err) = prices(true);
        assert!(ok && err.contains("no price is missing"), "{err}");
        let (ok, _, err) = ran(ConfigCommand::Prices { file: "/nowhere.toml".into(), write: false }, &[]);
        assert!(!ok && err.contains("/nowhere.toml"), "{err}");
    }

    #[test]
    fn the_schema_is_json() {
        let (ok, out, _) = ran(ConfigCommand::Schema, &[]);
        let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(ok);
        assert_eq!(schema["title"], "pointsman.toml");
        assert_eq!(schema["properties"]["backend"]["type"], "array");
        assert_eq!(schema["$defs"]["Secrets"]["properties"]["key"]["type"], "string");
    }

    #[test]
    fn a_missing_litellm_file_is_named() {
        let (ok, out, err) = ran(ConfigCommand::ImportLitellm { file: "/nowhere.yaml".into() }, &[]);
        assert!(!ok && out.is_empty() && err.contains("/nowhere.yaml: cannot be read"), "{err}");
    }
}
