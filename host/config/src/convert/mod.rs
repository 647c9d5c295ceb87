//! From raw to checked: the only place where a configuration becomes a [`Config`].

mod advice;
mod backend;
mod client;
mod exchanges;
mod limits;
mod listeners;
mod models;
mod outbound;
mod policy;
mod prices;
mod records;
mod sealed;
mod secrets;
mod values;

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};
use std::rc::Rc;

use sha2::{Digest, Sha256};

use listeners::is_same_socket;
use sealed::SealKey;

use super::checked::{Admin, Config};
use super::defaults;
use super::diagnostic::Problems;
use super::overlay::Env;
use super::raw::{RawConfig, RawSecrets};
use super::tree::{Node, Path};
use crate::seal::PrivateKey;

/// The store's path that is none.
const MEMORY: &str = ":memory:";

/// Resolves the path of the store; `None`: the store is in memory.
pub(super) fn store_path(path: Option<&str>, folder: &FilePath) -> Option<PathBuf> {
    let path = path.unwrap_or(defaults::STORE_PATH);
    (path != MEMORY).then(|| folder.join(path))
}

/// The private key of a configuration, whether anything is sealed or not; none only when the report has an error.
pub(super) fn seal_key(
    raw: RawSecrets,
    tree: &Node,
    env: &dyn Env,
    folder: &FilePath,
    report: &mut Problems<'_>,
) -> Option<Rc<PrivateKey>> {
    let mut check = Check::new(tree, env, folder, report);
    check.secrets(raw);
    check.seal_key(None)
}

/// `[admin]` alone. The result is only to be used when the report has no error.
pub(super) fn admin(raw: RawConfig, tree: &Node, env: &dyn Env, folder: &FilePath, report: &mut Problems<'_>) -> Admin {
    let mut check = Check::new(tree, env, folder, report);
    check.secrets(raw.secrets);
    check.admin(&raw.admin)
}

/// Checks everything. The result is only to be used when the report has no error.
pub(super) fn convert(
    raw: RawConfig,
    tree: &Node,
    env: &dyn Env,
    folder: &FilePath,
    report: &mut Problems<'_>,
) -> Config {
    let mut check = Check::new(tree, env, folder, report);
    check.advise_on_limits(&raw);
    check.secrets(raw.secrets);
    let mut backends = check.backends(raw.backend);
    if let Some(price) = raw.budget.default_price {
        let price = check.price(&Path::of("budget").key("default_price"), price);
        for one in &mut backends {
            one.backend.prices.entry("*".to_owned()).or_insert_with(|| price.clone());
        }
    }
    let open = raw.client.is_empty() && !raw.server.allow_open.unwrap_or(false);
    let clients = check.clients(raw.client);
    let journal = check.journal(&raw.journal, raw.store.path.as_deref() == Some(MEMORY));
    let mut config = Config {
        server: check.server(&raw.server),
        admin: check.admin(&raw.admin),
        store: check.store(&raw.store, journal.max_mb),
        journal,
        policy: check.policy(raw.policy),
        stream: check.stream(&raw.stream),
        limits: check.limits(&raw.limits),
        cooldown: check.cooldown(&raw.cooldown),
        log: check.log(raw.log),
        backends,
        clients,
        secret_files: Vec::new(),
        revision: revision(tree),
    };
    config.secret_files = check.files.iter().cloned().collect();
    if open && !config.server.listen.ip().is_loopback() {
        check.open_to_everyone();
    }
    if is_same_socket(config.server.listen, config.admin.listen) {
        check.one_address_for_two(config.server.listen);
    }
    if check.report.errors() == 0 {
        check.advise(&config);
    }
    config
}

/// The state shared by all checks.
struct Check<'a, 't> {
    tree: &'a Node,
    env: &'a dyn Env,
    /// Base of relative paths: the folder of the configuration file.
    folder: &'a FilePath,
    report: &'a mut Problems<'t>,
    /// Key that opens sealed secrets.
    seal_key: SealKey,
    /// Files that hold secrets or certificates.
    files: BTreeSet<PathBuf>,
}

impl<'a, 't> Check<'a, 't> {
    fn new(tree: &'a Node, env: &'a dyn Env, folder: &'a FilePath, report: &'a mut Problems<'t>) -> Self {
        Self { tree, env, folder, report, seal_key: SealKey::Refused, files: BTreeSet::new() }
    }
}

/// The same text in another order or layout has the same revision; another value another one, secrets aside.
fn revision(tree: &Node) -> std::sync::Arc<str> {
    let mut tree = tree.clone();
    secrets::scrub(&mut tree);
    let canonical = serde_json::to_vec(&tree.to_value()).expect("tables of a TOML value have text keys");
    let digest = Sha256::digest(&canonical);
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}
