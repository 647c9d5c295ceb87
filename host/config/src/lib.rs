//! `pointsman.toml` and the environment, checked.
//!
//! Text becomes a tree that knows where every value stands ([`tree`]); the environment is laid over it ([`overlay`]);
//! the tree becomes raw structs ([`decode`], [`raw`]); these become a [`Config`] ([`convert`]). Problems are collected
//! on the way ([`diagnostic`]) and told together. Without a file, [`providers`] writes the text.

mod catalogue;
mod checked;
mod convert;
mod decode;
mod defaults;
mod diagnostic;
mod hints;
mod litellm;
mod log_level;
mod outbound;
mod overlay;
mod providers;
mod raw;
pub mod seal;
pub mod secret;
mod settings;
mod sketch;
mod text_limits;
mod tree;

use std::path::{Path, PathBuf};
use std::rc::Rc;

pub use catalogue::{Added, Filled, fill_prices};
pub use checked::{
    Admin, BackendConfig, Client, Config, Cooldown, ExchangeLimits, HealthCheck, Journal, KeptBodies, Log, LogFormat,
    Policy, Privileges, Server, Shadow, Spill, Store, Stream,
};
/// Connections of the operator's listener, unless `admin.max_connections` says otherwise.
pub use defaults::ADMIN_MAX_CONNECTIONS as DEFAULT_ADMIN_MAX_CONNECTIONS;
pub use diagnostic::{ConfigError, Diagnostic, Location, Severity};
pub use litellm::import_litellm;
pub use outbound::{ForwardProxy, Identity, Outbound};
pub use overlay::{Env, ProcessEnv};
pub use settings::{DEFAULT_POLICY, PolicySettings, names as policy_names, recorded_settings};
pub use sketch::{Complaints, OwnKeys, sketch};
pub use tree::Path as KeyPath;

use diagnostic::Problems;
use pointsman_engine::plain_file::{self, FileError};
use tree::{Body, Node};

use crate::seal::PrivateKey;

/// The file that is taken when none is named.
pub const DEFAULT_FILE: &str = "pointsman.toml";

/// A larger file is no configuration.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A configuration, and what the operator should know about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, every value of it valid.
    pub config: Config,
    /// In the order of the file.
    pub warnings: Vec<Diagnostic>,
    /// The file it came from; none: the providers' environment variables.
    pub path: Option<PathBuf>,
}

/// Loads the file named, else `./pointsman.toml` where it exists, else what the providers' variables come to.
pub fn load(path: Option<&Path>, env: &dyn Env) -> Result<Loaded, ConfigError> {
    let default = Path::new(DEFAULT_FILE);
    let mut loaded = match path.or_else(|| default.exists().then_some(default)) {
        Some(path) => load_file(path, env)?,
        None => discovered(env)?,
    };
    let policy = &mut loaded.config.policy;
    policy.own_name = policy.file.as_deref().and_then(settings::own_name);
    Ok(loaded)
}

/// Builds a configuration from the providers' variables, without a file.
fn discovered(env: &dyn Env) -> Result<Loaded, ConfigError> {
    let providers::Discovered { text, remarks } = providers::discover(env)?;
    let mut loaded = parse(&text, "(environment)", env)?;
    let warning = |remark| Diagnostic { severity: Severity::Warning, ..Diagnostic::error(remark) };
    loaded.warnings.extend(remarks.into_iter().map(warning));
    Ok(loaded)
}

/// Checks a text. `file_name` is what problems call it; relative paths in it start at its folder.
pub fn parse(text: &str, file_name: &str, env: &dyn Env) -> Result<Loaded, ConfigError> {
    let mut report = Problems::new(file_name, text);
    let Some(mut tree) = Node::parse(text, &mut report) else {
        return Err(report.finish().expect_err("a text without a tree has an error"));
    };
    overlay::overlay(&mut tree, env, &mut report);
    let raw = decode::decode(&mut tree, &mut report, &[]);
    let folder = Path::new(file_name).parent().unwrap_or(Path::new(""));
    let config = convert::convert(raw, &tree, env, folder, &mut report);
    Ok(Loaded { config, warnings: report.finish()?, path: None })
}

/// Finds the place of a key's value: in the file, or in the environment; `None` without a value.
pub fn place(file: &Path, env: &dyn Env, section: &str, key: &str) -> Option<Location> {
    let text = read(file).ok()?;
    let mut report = Problems::new(&file.display().to_string(), &text);
    let mut tree = Node::parse(&text, &mut report)?;
    overlay::overlay(&mut tree, env, &mut report);
    let node = tree.find(&tree::Path::of(section).key(key))?;
    Some(report.place(&node.site))
}

/// Finds the place of a setting of a policy with one of these names: in a table of such a name, or among the plain
/// keys.
pub fn settings_place(file: &Path, env: &dyn Env, names: &[&str], key: &str) -> Option<Location> {
    let text = read(file).ok()?;
    let mut report = Problems::new(&file.display().to_string(), &text);
    let mut tree = Node::parse(&text, &mut report)?;
    overlay::overlay(&mut tree, env, &mut report);
    let settings = tree::Path::of("policy").key("settings");
    let tables = names.iter().map(|name| settings.key(name)).chain([settings.clone()]);
    let node = tables.filter_map(|table| tree.find(&table.key(key))).next()?;
    Some(report.place(node.key.as_ref().unwrap_or(&node.site)))
}

/// `[policy.settings]` of the file named, else of `./pointsman.toml` where it exists, and the policies that it names; nothing else
/// is looked at.
///
/// # Errors
/// When there is no such file, or it is not TOML.
pub fn policy_settings(path: Option<&Path>, env: &dyn Env) -> Result<PolicySettings, ConfigError> {
    let source = Source::find(path)?;
    let tree = source.tree(env)?;
    let policy = tree::Path::of("policy");
    let value = |at: &tree::Path| tree.find(at).and_then(|node| serde_json::to_value(node.to_value()).ok());
    let file =
        |at: &tree::Path| value(at)?.as_str().filter(|file| !file.is_empty()).map(|file| source.folder.join(file));
    let settings = value(&policy.key("settings")).and_then(|value| value.as_object().cloned()).unwrap_or_default();
    let (own, shadow_file) = (file(&policy.key("file")), file(&policy.key("shadow").key("file")));
    Ok(PolicySettings { settings, own_name: own.as_deref().and_then(settings::own_name), file: own, shadow_file })
}

/// `[store] path` of the file named, else of `./pointsman.toml` where it exists, else the default; none: the store is in memory.
/// Nothing else is looked at: who reads a store needs no key of a provider.
///
/// # Errors
/// When there is no such file, or it is not TOML.
pub fn store_path(path: Option<&Path>, env: &dyn Env) -> Result<Option<PathBuf>, ConfigError> {
    let source = Source::find(path)?;
    let tree = source.tree(env)?;
    let node = tree.find(&tree::Path::of("store").key("path"));
    let path = node.map(Node::to_value).and_then(|value| value.as_str().map(str::to_owned));
    Ok(convert::store_path(path.as_deref(), &source.folder))
}

/// The private key by which the file named, else `./pointsman.toml` where it exists, opens what is sealed. Nothing else is looked
/// at: who seals the first secret has none yet.
///
/// # Errors
/// When there is no such file, it is not TOML, or the key is not where `[secrets]` says.
pub fn seal_key(path: Option<&Path>, env: &dyn Env) -> Result<Rc<PrivateKey>, ConfigError> {
    let source = Source::find(path)?;
    let (raw, tree, mut report) = source.sections(&["secrets"], env)?;
    let key = convert::seal_key(raw.secrets, &tree, env, &source.folder, &mut report);
    report.finish()?;
    Ok(key.expect("there is a key, or a reason why not"))
}

/// `[admin]` of the file named, else of `./pointsman.toml` where it exists, else the default. Nothing else is looked at: who asks
/// a running proxy something needs no key of a provider.
///
/// # Errors
/// When there is no such file, it is not TOML, or its token is not to be had here.
pub fn admin(path: Option<&Path>, env: &dyn Env) -> Result<Admin, ConfigError> {
    let source = Source::find(path)?;
    let (raw, tree, mut report) = source.sections(&["admin", "secrets"], env)?;
    let admin = convert::admin(raw, &tree, env, &source.folder, &mut report);
    report.finish()?;
    Ok(admin)
}

/// The text of a configuration of which only a part is wanted.
struct Source {
    name: String,
    text: String,
    folder: PathBuf,
}

impl Source {
    /// The file named, else `./pointsman.toml` where it exists, else no text.
    fn find(path: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let file = path.or_else(|| default.exists().then_some(default));
        Ok(Self {
            name: file.map_or_else(|| "(environment)".to_owned(), |file| file.display().to_string()),
            text: file.map_or(Ok(String::new()), read)?,
            folder: file.and_then(Path::parent).unwrap_or(Path::new("")).to_owned(),
        })
    }

    fn report(&self) -> Problems<'_> {
        Problems::new(&self.name, &self.text)
    }

    /// These sections, as they are written; the others are not judged.
    fn sections(&self, names: &[&str], env: &dyn Env) -> Result<(raw::RawConfig, Node, Problems<'_>), ConfigError> {
        let mut tree = self.tree(env)?;
        if let Body::Table { entries, .. } = &mut tree.body {
            entries.retain(|section, _| names.contains(&section.as_str()));
        }
        let mut report = self.report();
        let raw = decode::decode(&mut tree, &mut report, &[]);
        Ok((raw, tree, report))
    }

    /// With the environment laid over it; what fits nowhere is none of the part's business.
    fn tree(&self, env: &dyn Env) -> Result<Node, ConfigError> {
        let mut report = self.report();
        let Some(mut tree) = Node::parse(&self.text, &mut report) else {
            return Err(report.finish().expect_err("a text without a tree has an error"));
        };
        overlay::overlay(&mut tree, env, &mut report);
        Ok(tree)
    }
}

/// The JSON schema of `pointsman.toml`, for editors.
pub fn schema() -> schemars::Schema {
    let settings = schemars::generate::SchemaSettings::default();
    let mut schema = settings.into_generator().into_root_schema_for::<raw::RawConfig>();
    without_null(&mut schema);
    schema
}

/// TOML has no null: what serde calls optional is simply left out.
fn without_null(schema: &mut schemars::Schema) {
    schemars::transform::transform_subschemas(&mut without_null, schema);
    let Some(object) = schema.as_object_mut() else { return };
    if object.get("default").is_some_and(serde_json::Value::is_null) {
        object.remove("default");
    }
    let alternatives = object.get_mut("anyOf").and_then(serde_json::Value::as_array_mut);
    if let Some(alternatives) = alternatives {
        alternatives.retain(|one| one["type"] != "null");
    }
    if let Some(serde_json::Value::Array(types)) = object.get_mut("type") {
        types.retain(|one| one != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
}

fn load_file(path: &Path, env: &dyn Env) -> Result<Loaded, ConfigError> {
    let loaded = parse(&read(path)?, &path.display().to_string(), env)?;
    Ok(Loaded { path: Some(path.to_owned()), ..loaded })
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let shown = path.display();
    plain_file::read_text(path, MAX_FILE_BYTES).map_err(|error| match error {
        FileError::TooLarge { most, .. } => {
            ConfigError::whole(format!("{shown} is larger than {most} bytes"), "is this the right file?")
        }
        FileError::NotText { line } => {
            ConfigError::whole(format!("{shown}:{line}: this is not UTF-8 text"), "save the file as UTF-8")
        }
        FileError::NotPlain(_) | FileError::Io(_) => {
            ConfigError::whole(format!("cannot read {shown}: {error}"), "name a file with --config FILE")
        }
    })
}

#[cfg(test)]
mod tests;
