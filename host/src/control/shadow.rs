//! The shadow policy: read, judged and installed beside the policy in force, on a way of its own, so that nothing waits for it.
//!
//! A bad file is told and changes nothing: the shadow there is goes on to be asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use pointsman_config::Shadow as Wanted;
use pointsman_core::lifecycle::{Hash, Reload};
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_engine::{Compiled, Engine, LoadError, left_out_words};
use tokio::sync::Notify;

use super::component::Component;
use super::in_background;
use super::watched::WatchedFile;
use crate::proxy::{Proxy, ShadowPolicy, ShadowStats};

/// Casts the shadow that the configuration names.
pub struct ShadowLoader {
    proxy: Arc<Proxy>,
    engine: Engine,
    wake: Arc<Notify>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    installed: Option<Installed>,
    /// Input that was refused last.
    refused: Option<Key>,
    error: Option<String>,
}

/// The shadow that is asked.
#[derive(Clone)]
struct Installed {
    key: Key,
    compiled: Arc<Compiled>,
    since: Timestamp,
    stats: Arc<ShadowStats>,
}

/// Inputs of a shadow: it is checked again when any of them changes.
#[derive(Clone)]
struct Key {
    hash: Hash,
    wanted: Wanted,
    table: Arc<Table>,
}

/// The shadow, for the operator.
#[derive(Clone)]
pub struct ShadowStatus {
    /// The file that is named.
    pub file: PathBuf,
    /// The revision that is asked, since when, and what came of it; none: no shadow is asked.
    pub installed: Option<(String, Timestamp, Arc<ShadowStats>)>,
    /// The share of one processor it may use.
    pub core_share: f64,
    /// The reason why the latest file is not loaded; `None`: it is.
    pub error: Option<String>,
}

impl Key {
    fn is(&self, other: &Key) -> bool {
        self.is_same_policy(other) && Arc::ptr_eq(&self.table, &other.table)
    }

    /// The same, but for another table: what was counted goes on.
    fn is_same_policy(&self, other: &Key) -> bool {
        self.hash == other.hash && self.wanted == other.wanted
    }
}

impl ShadowLoader {
    /// Without a shadow until [`ShadowLoader::run`] has looked.
    pub fn new(proxy: Arc<Proxy>, engine: Engine) -> Self {
        Self { proxy, engine, wake: Arc::default(), state: Mutex::default() }
    }

    /// The shadow's file or the configuration may have changed.
    pub fn look_again(&self) {
        self.wake.notify_one();
    }

    /// Returns the state of the shadow; `None`: the configuration names none.
    pub fn status(&self) -> Option<ShadowStatus> {
        let wanted = self.proxy.snapshot().config.policy.shadow.clone()?;
        let state = self.state();
        let installed = state
            .installed
            .as_ref()
            .map(|installed| (installed.key.hash.revision(), installed.since, installed.stats.clone()));
        Some(ShadowStatus { file: wanted.file, installed, core_share: wanted.core_share, error: state.error.clone() })
    }

    /// Watches the shadow's file, and casts what is in it. Runs until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut watched = WatchedFile::new(&self.wake);
        loop {
            let file = self.proxy.snapshot().config.policy.shadow.as_ref().map(|wanted| wanted.file.clone());
            watched.follow(file.as_deref(), "the shadow's file");
            self.look().await;
            self.wake.notified().await;
        }
    }

    async fn look(&self) {
        let snapshot = self.proxy.snapshot();
        let Some(wanted) = snapshot.config.policy.shadow.clone() else { return self.dismiss() };
        let table = snapshot.view.table.clone();
        let component = match self.read(&wanted.file).await {
            Ok(component) => component,
            Err(error) => {
                self.refuse(None, &error);
                return self.follow(table).await;
            }
        };
        let key = Key { hash: component.hash, wanted, table };
        let (is_installed, is_refused) = {
            let state = self.state();
            let is = |known: Option<&Key>| known.is_some_and(|known| known.is(&key));
            (is(state.installed.as_ref().map(|installed| &installed.key)), is(state.refused.as_ref()))
        };
        if is_installed {
            self.is_well();
        } else if !is_refused {
            self.judge(key, component).await;
        }
    }

    async fn read(&self, file: &Path) -> anyhow::Result<Component> {
        Component::of_source(Some(file), self.engine.limits().max_component_bytes).await
    }

    async fn judge(&self, key: Key, component: Component) {
        let before = self.state().installed.clone().filter(|installed| installed.key.hash == key.hash);
        let (engine, known) = (self.engine.clone(), before.map(|installed| installed.compiled));
        let compiled = tokio::task::spawn_blocking(move || {
            known.map_or_else(|| engine.compile(&component.bytes).map(Arc::new), Ok)
        });
        let installed = match compiled.await {
            Ok(Ok(compiled)) => self.install(key.clone(), compiled).await,
            Ok(Err(error)) => Err(error.into()),
            Err(panicked) => Err(panicked.into()),
        };
        let Err(error) = installed else { return };
        // Half a file that was being written is no policy; the watcher tells when it is whole.
        if self.read(&key.wanted.file).await.is_ok_and(|now| now.hash == key.hash) {
            let error = error.context(format!("the shadow {} is refused", key.wanted.file.display()));
            let table = key.table.clone();
            let is_verdict = !error.downcast_ref().is_some_and(LoadError::is_no_verdict);
            self.refuse(is_verdict.then_some(key), &error);
            self.follow(table).await;
        }
    }

    /// Configures and probes it, and has it asked from now on.
    async fn install(&self, key: Key, compiled: Arc<Compiled>) -> anyhow::Result<()> {
        let offer = self.proxy.snapshot().config.policy.offer_to_shadow(&key.wanted, compiled.name());
        let deadline_ms = u32::try_from(key.wanted.deadline.as_millis()).unwrap_or(u32::MAX);
        let (code, table) = (compiled.clone(), key.table.clone());
        let revision = in_background(&self.engine, move || code.shadow(&offer, table, deadline_ms)).await??;
        if let Some(words) = left_out_words(revision.left_out()) {
            tracing::warn!(shadow = key.hash.revision(), left_out = revision.left_out().join(", "), "{words}");
        }
        let before = self.state().installed.clone().filter(|installed| installed.key.is_same_policy(&key));
        let (since, stats) = before
            .map_or_else(|| (self.proxy.clock.now(), Arc::default()), |installed| (installed.since, installed.stats));
        let policy = ShadowPolicy { revision, core_share: key.wanted.core_share, stats: stats.clone() };
        self.proxy.shadow.install(Some(Arc::new(policy))).context("the shadow's thread cannot be started")?;
        tracing::info!(revision = key.hash.revision(), "shadow policy loaded");
        self.proxy.metrics.reloaded(Reload::Shadow, true);
        self.proxy.events.change(Reload::Shadow.as_str(), Some(&key.hash.revision()), None);
        *self.state() =
            State { installed: Some(Installed { key, compiled, since, stats }), refused: None, error: None };
        Ok(())
    }

    /// The shadow there is goes on, under the table there is now; where it cannot, there is none.
    async fn follow(&self, table: Arc<Table>) {
        let installed = self.state().installed.clone();
        let Some(installed) = installed.filter(|installed| !Arc::ptr_eq(&installed.key.table, &table)) else { return };
        let (refused, error) = {
            let state = self.state();
            (state.refused.clone(), state.error.clone())
        };
        match self.install(Key { table, ..installed.key }, installed.compiled).await {
            // What was refused is still to be told.
            Ok(()) => {
                let mut state = self.state();
                (state.refused, state.error) = (refused, error);
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the shadow policy refuses this configuration and is no longer asked"
                );
                self.forget();
                self.state().error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    fn dismiss(&self) {
        if self.state().installed.is_some() {
            tracing::info!("shadow policy removed: the configuration no longer names one");
            self.forget();
        }
        *self.state() = State::default();
    }

    fn forget(&self) {
        self.state().installed = None;
        // It fails only where a thread is to be started.
        let _ = self.proxy.shadow.install(None);
    }

    /// The file holds again what is asked.
    fn is_well(&self) {
        let mut state = self.state();
        state.refused = None;
        if state.error.take().is_some() {
            tracing::info!("the shadow policy's file is back to its previous content; nothing is refused any more");
        }
    }

    /// The same reason is not told twice.
    fn refuse(&self, key: Option<Key>, error: &anyhow::Error) {
        let error = format!("{error:#}");
        let mut state = self.state();
        state.refused = key;
        if state.error.as_ref() == Some(&error) {
            return;
        }
        super::log_refused(Reload::Shadow, &error);
        self.proxy.metrics.reloaded(Reload::Shadow, false);
        self.proxy.events.change(Reload::Shadow.as_str(), None, Some(&error));
        state.error = Some(error);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is a few assignments.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
