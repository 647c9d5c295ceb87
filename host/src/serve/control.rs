//! Changes while running: another policy, another configuration. Each is judged whole before it takes effect, and a bad
//! one leaves what runs untouched and says why.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use pointsman_core::table::Table;
use tokio::sync::Notify;

use crate::config::{self, BackendConfig, Config, ProcessEnv};
use crate::drive::{Proxy, Snapshot, Target, fleet_settings};
use crate::policy::watch::Watcher;
use crate::policy::{Engine, Revision};
use crate::telemetry::metrics::Reload;
use crate::upstream::Connector;

/// A larger policy file is not read into memory to be refused.
const MAX_POLICY_BYTES: u64 = 256 * 1024 * 1024;

/// Revisions kept in memory to go back to.
const KEPT_REVISIONS: usize = 4;

/// What the last change came to, for the operator.
#[derive(Clone, Debug, Default)]
pub struct LastChange {
    /// Why the policy last offered was refused; none: it was taken.
    pub policy_error: Option<String>,
    /// Why the configuration last offered was refused; none: it was taken.
    pub config_error: Option<String>,
}

/// Brings changes into force, one at a time.
pub struct Control {
    proxy: Arc<Proxy>,
    engine: Engine,
    connector: Connector,
    config_file: Option<PathBuf>,
    last: Mutex<LastChange>,
    /// The revisions that were in force before, newest last.
    earlier: Mutex<Vec<Arc<Revision>>>,
    seen_policy: Mutex<Option<Arc<str>>>,
    wake: Arc<Notify>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl Control {
    /// Control over a running proxy.
    pub fn new(proxy: Arc<Proxy>, engine: Engine, connector: Connector, config_file: Option<PathBuf>) -> Self {
        let snapshot = proxy.snapshot();
        let loaded = snapshot.config.policy.file.is_some().then(|| snapshot.policy.id().clone());
        Self {
            proxy,
            engine,
            connector,
            config_file,
            last: Mutex::default(),
            earlier: Mutex::default(),
            seen_policy: Mutex::new(loaded),
            wake: Arc::default(),
            one_at_a_time: tokio::sync::Mutex::default(),
        }
    }

    /// The proxy under control.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// What the last change came to.
    pub fn last_change(&self) -> LastChange {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Somebody says that a file may have changed.
    pub fn look_again(&self) {
        self.wake.notify_one();
    }

    /// Watches the files and brings their changes into force. Runs until dropped.
    pub async fn run(self: Arc<Self>) {
        let _config_watcher = self.config_file.as_deref().and_then(|file| self.watch(file));
        let mut watched: Option<(PathBuf, Option<Watcher>)> = None;
        loop {
            let file = self.proxy.snapshot().config.policy.file.clone();
            if watched.as_ref().map(|(path, _)| path) != file.as_ref() {
                watched = file.map(|file| {
                    let watcher = self.watch(&file);
                    (file, watcher)
                });
            }
            self.wake.notified().await;
            self.reload().await;
        }
    }

    fn watch(&self, file: &Path) -> Option<Watcher> {
        let wake = self.wake.clone();
        Watcher::new(file, move || wake.notify_one())
            .inspect_err(|error| tracing::error!(file = %file.display(), %error, "this file is not watched; send SIGHUP after a change"))
            .ok()
    }

    /// Looks at both files; what has changed and is good is in force afterwards.
    pub async fn reload(&self) {
        let _turn = self.one_at_a_time.lock().await;
        if let Some(file) = &self.config_file {
            let outcome = self.reload_config(file).await;
            self.tell(Reload::Config, outcome, |last, error| last.config_error = error);
        }
        let outcome = self.reload_policy().await;
        self.tell(Reload::Policy, outcome, |last, error| last.policy_error = error);
    }

    fn tell(
        &self,
        what: Reload,
        outcome: anyhow::Result<Option<String>>,
        set: impl FnOnce(&mut LastChange, Option<String>),
    ) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(None) => {}
            Ok(Some(revision)) => {
                tracing::info!(what = ?what, revision, "a change is in force");
                self.proxy.metrics.reloaded(what, true);
                set(&mut last, None);
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(what = ?what, error, "a change was refused; what was in force stays");
                self.proxy.metrics.reloaded(what, false);
                set(&mut last, Some(error));
            }
        }
    }

    /// The revision that is now in force; none when nothing changed.
    async fn reload_config(&self, file: &Path) -> anyhow::Result<Option<String>> {
        let before = self.proxy.snapshot();
        let config = Arc::new(config::load(Some(file), &ProcessEnv)?.config);
        if config.is_same(&before.config) {
            return Ok(None);
        }
        let table = Arc::new(config.table());
        let policy = if config.policy.file == before.config.policy.file {
            let (policy, settings, table) = (before.policy.clone(), settings_json(&config), table.clone());
            tokio::task::spawn_blocking(move || policy.with_table(&settings, table)).await??
        } else {
            load_policy(self.engine.clone(), config.clone(), table.clone()).await?
        };
        let listens = |c: &Config| (c.server.listen, c.admin.listen);
        if listens(&config) != listens(&before.config) {
            tracing::warn!("server.listen and admin.listen take effect with the next start");
        }
        // Everything that can be refused has been judged before the fleet changes.
        let targets = Target::all(&config, &self.connector, Some(&before))?;
        let settings = fleet_settings(&config);
        let rekeyed = rekeyed(&before.config, &config);
        let view = self.proxy.line.with(|fleet, _| {
            for id in &rekeyed {
                fleet.forget_key_faults(id);
            }
            fleet.adopt(table.clone(), settings)
        });
        let revision = config.revision.to_string();
        let snapshot = Snapshot::new(config, view, Arc::new(policy), targets);
        self.proxy.metrics.set_table(&table);
        self.proxy.publish(snapshot);
        Ok(Some(revision))
    }

    async fn reload_policy(&self) -> anyhow::Result<Option<String>> {
        let before = self.proxy.snapshot();
        let Some(file) = before.config.policy.file.clone() else { return Ok(None) };
        let bytes = read_policy(&file).await?;
        {
            // A file is judged once: not again after a rollback, nor at every look while it is bad.
            let mut seen = self.seen_policy.lock().unwrap_or_else(PoisonError::into_inner);
            let id = Revision::id_of(&bytes);
            if seen.as_ref() == Some(&id) {
                return Ok(None);
            }
            *seen = Some(id);
        }
        self.take_policy(before, bytes).await
    }

    /// Brings a component into force. None: it already is.
    ///
    /// # Errors
    /// In one sentence, why it is refused.
    pub async fn offer_policy(&self, bytes: Vec<u8>) -> anyhow::Result<Option<String>> {
        let _turn = self.one_at_a_time.lock().await;
        let outcome = self.take_policy(self.proxy.snapshot(), bytes).await;
        let answer = match &outcome {
            Ok(revision) => Ok(revision.clone()),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        self.tell(Reload::Policy, outcome, |last, error| last.policy_error = error);
        answer
    }

    async fn take_policy(&self, before: Arc<Snapshot>, bytes: Vec<u8>) -> anyhow::Result<Option<String>> {
        if Revision::id_of(&bytes) == *before.policy.id() {
            return Ok(None);
        }
        let (engine, table) = (self.engine.clone(), before.view.table.clone());
        let settings = settings_json(&before.config);
        let policy = tokio::task::spawn_blocking(move || engine.load(&bytes, &settings, table)).await??;
        let revision = policy.id().to_string();
        {
            let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
            if earlier.len() == KEPT_REVISIONS {
                earlier.remove(0);
            }
            earlier.push(before.policy.clone());
        }
        self.proxy.publish(before.with_policy(Arc::new(policy)));
        Ok(Some(revision))
    }

    /// Brings the revision before this one back into force; a file that is not touched does not bring the other back.
    ///
    /// # Errors
    /// There is none.
    pub async fn rollback(&self) -> anyhow::Result<()> {
        let _turn = self.one_at_a_time.lock().await;
        let last = self.earlier.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(earlier) = last else { bail!("there is no earlier policy revision in this process to go back to") };
        let before = self.proxy.snapshot();
        let (settings, table) = (settings_json(&before.config), before.view.table.clone());
        let policy = tokio::task::spawn_blocking(move || earlier.with_table(&settings, table)).await??;
        self.proxy.publish(before.with_policy(Arc::new(policy)));
        Ok(())
    }
}

/// Backends that stay under another key or at another place: what was held against the old one is over.
fn rekeyed(before: &Config, after: &Config) -> Vec<Arc<str>> {
    let changed = |new: &&BackendConfig| {
        let old = before.backends.iter().find(|old| old.backend.id == new.backend.id);
        old.is_some_and(|old| old.api_key != new.api_key || old.base_url != new.base_url)
    };
    after.backends.iter().filter(changed).map(|b| b.backend.id.clone()).collect()
}

/// The policy a configuration names: its file, or the embedded default.
pub async fn load_policy(engine: Engine, config: Arc<Config>, table: Arc<Table>) -> anyhow::Result<Revision> {
    let settings = settings_json(&config);
    let Some(file) = config.policy.file.clone() else {
        return Ok(tokio::task::spawn_blocking(move || engine.embedded(&settings, table)).await??);
    };
    let bytes = read_policy(&file).await?;
    let loaded = tokio::task::spawn_blocking(move || engine.load(&bytes, &settings, table)).await?;
    loaded.with_context(|| format!("the policy {} is refused", file.display()))
}

async fn read_policy(file: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = file.display();
    let size = tokio::fs::metadata(file).await.with_context(|| format!("cannot read the policy {shown}"))?.len();
    if size > MAX_POLICY_BYTES {
        bail!("the policy {shown} has {size} bytes; at most {MAX_POLICY_BYTES} are read");
    }
    tokio::fs::read(file).await.with_context(|| format!("cannot read the policy {shown}"))
}

/// `[policy.settings]` as the policy gets it.
pub fn settings_json(config: &Config) -> String {
    serde_json::Value::Object(config.policy.settings.clone()).to_string()
}
