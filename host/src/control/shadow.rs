//! The shadow policy: read, judged and installed beside the policy in force, on a way of its own, so that nothing waits for it.
//!
//! A bad file is told and changes nothing: the shadow there is goes on to be asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use pointsman_config::Shadow as Wanted;
use pointsman_core::lifecycle::{Hash, Reload, ShadowKey, ShadowSeen, ShadowSource};
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_engine::watch::FileWatcher;
use pointsman_engine::{Compiled, Engine, LoadError, left_out_words};
use tokio::sync::Notify;

use super::component::Component;
use super::in_background;
use super::watched::WatchedFile;
use crate::proxy::{Proxy, ShadowPolicy, ShadowStats};

/// Loads the shadow policy that the configuration names.
pub struct ShadowLoader {
    proxy: Arc<Proxy>,
    engine: Engine,
    watcher: Option<FileWatcher>,
    wake: Arc<Notify>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    source: ShadowSource<Wanted>,
    /// The shadow that is asked; there where `source` has one in use.
    installed: Option<Installed>,
}

#[derive(Clone)]
struct Installed {
    compiled: Arc<Compiled>,
    stats: Arc<ShadowStats>,
}

type Key = ShadowKey<Wanted>;

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

impl ShadowLoader {
    /// Without a shadow until [`ShadowLoader::run`] has looked.
    pub fn new(proxy: Arc<Proxy>, engine: Engine, watcher: Option<FileWatcher>) -> Self {
        Self { proxy, engine, watcher, wake: Arc::default(), state: Mutex::default() }
    }

    /// The shadow's file or the configuration may have changed.
    pub fn look_again(&self) {
        self.wake.notify_one();
    }

    /// Returns the state of the shadow; `None`: the configuration names none.
    pub fn status(&self) -> Option<ShadowStatus> {
        let wanted = self.proxy.snapshot().config.policy.shadow.clone()?;
        let state = self.state();
        let installed = state.source.in_use().zip(state.installed.as_ref());
        let installed =
            installed.map(|((key, since), installed)| (key.hash.revision(), since, installed.stats.clone()));
        let error = state.source.error().map(str::to_owned);
        Some(ShadowStatus { file: wanted.file, installed, core_share: wanted.core_share, error })
    }

    /// Watches the shadow's file, and loads what is in it. Runs until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut watched = WatchedFile::new(self.watcher.as_ref(), &self.wake);
        loop {
            let file = self.proxy.snapshot().config.policy.shadow.as_ref().map(|wanted| wanted.file.clone());
            watched.follow(file.as_deref());
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
        let seen = self.state().source.see(&key);
        match seen {
            ShadowSeen::InUse { is_restored: true } => {
                tracing::info!("the shadow policy's file is back to its previous content; nothing is refused any more");
            }
            ShadowSeen::InUse { is_restored: false } | ShadowSeen::Refused => {}
            ShadowSeen::Judge => self.judge(key, component).await,
        }
    }

    async fn read(&self, file: &Path) -> anyhow::Result<Component> {
        Component::of_source(Some(file), self.engine.limits().max_component_bytes).await
    }

    async fn judge(&self, key: Key, component: Component) {
        let (engine, known) = (self.engine.clone(), self.compiled(key.hash));
        let compiled = tokio::task::spawn_blocking(move || {
            known.map_or_else(|| engine.compile(&component.bytes).map(Arc::new), Ok)
        });
        let installed = match compiled.await {
            Ok(Ok(compiled)) => self.install(&key, compiled, ShadowSource::take).await,
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

    /// The compiled code of this component, if it is that of the shadow in use.
    fn compiled(&self, hash: Hash) -> Option<Arc<Compiled>> {
        let state = self.state();
        let is_known = state.source.in_use().is_some_and(|(key, _)| key.hash == hash);
        state.installed.as_ref().filter(|_| is_known).map(|installed| installed.compiled.clone())
    }

    /// Configures and probes it, and has it asked from now on, which `note` notes.
    async fn install(
        &self,
        key: &Key,
        compiled: Arc<Compiled>,
        note: impl FnOnce(&mut ShadowSource<Wanted>, Timestamp, Key),
    ) -> anyhow::Result<()> {
        let offer = self.proxy.snapshot().config.policy.offer_to_shadow(&key.wanted, compiled.name());
        let deadline_ms = u32::try_from(key.wanted.deadline.as_millis()).unwrap_or(u32::MAX);
        let (code, table) = (compiled.clone(), key.table.clone());
        let revision = in_background(&self.engine, move || code.shadow(&offer, table, deadline_ms)).await??;
        if let Some(words) = left_out_words(revision.left_out()) {
            tracing::warn!(shadow = key.hash.revision(), left_out = revision.left_out().join(", "), "{words}");
        }
        let stats = self.counted(key).unwrap_or_default();
        let policy = ShadowPolicy { revision, core_share: key.wanted.core_share, stats: stats.clone() };
        self.proxy.shadow.install(Some(Arc::new(policy))).context("the shadow's thread cannot be started")?;
        tracing::info!(revision = key.hash.revision(), "shadow policy loaded");
        self.proxy.metrics.reloaded(Reload::Shadow, true);
        self.proxy.events.change(Reload::Shadow.as_str(), Some(&key.hash.revision()), None);
        let mut state = self.state();
        note(&mut state.source, self.proxy.clock.now(), key.clone());
        state.installed = Some(Installed { compiled, stats });
        Ok(())
    }

    /// Counts so far of the shadow in use, if these are its inputs but for the table.
    fn counted(&self, key: &Key) -> Option<Arc<ShadowStats>> {
        let state = self.state();
        state.source.since(key).and_then(|_| state.installed.as_ref()).map(|installed| installed.stats.clone())
    }

    /// The shadow there is goes on, under the table there is now; where it cannot, there is none.
    async fn follow(&self, table: Arc<Table>) {
        let key = self.state().source.follow(&table);
        let Some((key, compiled)) = key.and_then(|key| self.compiled(key.hash).map(|compiled| (key, compiled))) else {
            return;
        };
        if let Err(error) = self.install(&key, compiled, ShadowSource::go_on).await {
            let error = format!("{error:#}");
            tracing::warn!(error, "the shadow policy refuses this configuration and is no longer asked");
            self.forget();
            self.state().source.stop(&error);
        }
    }

    fn dismiss(&self) {
        if self.state().source.dismiss() {
            tracing::info!("shadow policy removed: the configuration no longer names one");
            self.forget();
        }
    }

    fn forget(&self) {
        self.state().installed = None;
        // It fails only where a thread is to be started.
        let _ = self.proxy.shadow.install(None);
    }

    /// The same reason is not told twice.
    fn refuse(&self, key: Option<Key>, error: &anyhow::Error) {
        let error = format!("{error:#}");
        if !self.state().source.refuse(key, &error) {
            return;
        }
        super::log_refused(Reload::Shadow, &error);
        self.proxy.metrics.reloaded(Reload::Shadow, false);
        self.proxy.events.change(Reload::Shadow.as_str(), None, Some(&error));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is a few assignments.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
