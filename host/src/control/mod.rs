//! Changes while running: another policy, another configuration.
//!
//! `core/lifecycle` decides which policy is in force; this driver reads files, compiles, writes the history and publishes
//! snapshots. A component is compiled without a lock, so several may be at once; only to put one in force takes a turn, in
//! which nothing is compiled. A bad one leaves what runs untouched and says why.

mod assemble;
mod compilations;
mod component;
mod config;
mod kept;
pub(crate) mod kept_states;
mod policy;
mod promotion;
mod revisions;
mod rollback;
mod rows;
mod settings;
mod shadow;
mod start;
mod steps;
mod watched;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use pointsman_config::ConfigError;
use pointsman_core::lifecycle::{Lifecycle, Reload, Requested, shown};
use pointsman_core::time::Timestamp;
use pointsman_engine::watch::FileWatcher;
use pointsman_engine::{Engine, Revision};
use pointsman_store::{PolicyEventRow, PolicyStore, StoreError};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::proxy::{Proxy, Snapshot};
use crate::upstream::Connector;
use compilations::Compilations;
use component::source_of;
use kept::HistoryStore;
use promotion::Candidate;
use revisions::Revisions;
use watched::{WatchedFile, WatchedFiles, start_watcher};

pub(crate) use assemble::{Parts, assemble};
pub(crate) use policy::CannotUpload;
pub(crate) use promotion::PromotionStatus;
pub(crate) use rollback::WentBack;
pub(crate) use shadow::{ShadowLoader, ShadowStatus};
use start::{First, first_policy};

/// Driver of the policies' life cycle: brings configurations and policies into force.
pub struct Control {
    proxy: Arc<Proxy>,
    engine: Engine,
    connector: Connector,
    config_file: Option<PathBuf>,
    kept: HistoryStore,
    shadow_loader: Arc<ShadowLoader>,
    /// Watcher of the configuration's, the policy's and secrets' files; none where it cannot be started.
    watcher: Option<FileWatcher>,
    state: Mutex<State>,
    signals: Signals,
    /// Held while something is put in force, never while something is compiled.
    turn: tokio::sync::Mutex<()>,
}

/// The reasons to look at something.
#[derive(Default)]
struct Signals {
    /// A watched file may have changed.
    files: Arc<Notify>,
    /// The operator asked to look at the files (SIGHUP) and waits for a log line.
    is_asked: AtomicBool,
    /// A promotion began, so that there is another time to wait for.
    promotion_began: Notify,
}

/// The life cycle, and what belongs to its policies here.
struct State {
    lifecycle: Lifecycle,
    /// The candidate of the promotion under way, or of the last one.
    candidate: Option<Candidate>,
    revisions: Revisions,
    compilations: Compilations,
    /// The time when the configuration in force came into it.
    config_loaded: Timestamp,
    /// Log lines about changes so far.
    reports: u64,
}

/// The state of changes, for the operator.
pub struct Status {
    /// The policies, the promotion and the refusals.
    pub lifecycle: Lifecycle,
    /// The time when the configuration in force came into it.
    pub config_loaded: Timestamp,
    /// The reason why the history could not be written to the store; none: it is there.
    pub not_kept: Option<String>,
    /// Revisions that are in force or that exchanges still use.
    pub live_revisions: u64,
    /// Instances of all of them.
    pub instances: u64,
}

impl Control {
    /// Control over a running proxy, whose policy is the `first`.
    pub fn new(
        proxy: Arc<Proxy>,
        engine: Engine,
        connector: Connector,
        config_file: Option<PathBuf>,
        policies: PolicyStore,
        first: First,
    ) -> Self {
        let snapshot = proxy.snapshot();
        let now = proxy.clock.now();
        let mut lifecycle = Lifecycle::new(first.history);
        if let Some((hash, why)) = &first.refused {
            lifecycle.refuse_content(*hash, why);
        }
        if let Some(error) = first.error {
            let source = shown(source_of(&snapshot.config).as_deref());
            lifecycle.refuse_policy(now, Requested::Source, &source, error);
            proxy.metrics.reloaded(Reload::Policy, false);
        }
        let revisions = Revisions::new((first.component.hash, first.compiled), &snapshot.policy);
        let state = State {
            lifecycle,
            candidate: None,
            revisions,
            compilations: Compilations::default(),
            config_loaded: now,
            reports: 0,
        };
        let watcher = start_watcher();
        Self {
            shadow_loader: Arc::new(ShadowLoader::new(proxy.clone(), engine.clone(), watcher.clone())),
            watcher,
            kept: HistoryStore::new(policies, first.not_kept.map(|error| (error, first.component))),
            proxy,
            engine,
            connector,
            config_file,
            state: Mutex::new(state),
            signals: Signals::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The proxy under control.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// The loader of the shadow policy.
    pub fn shadow_loader(&self) -> &Arc<ShadowLoader> {
        &self.shadow_loader
    }

    /// The configuration's file; none: it came from the environment.
    pub fn config_file(&self) -> Option<&Path> {
        self.config_file.as_deref()
    }

    /// Steps of promotions, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn events(&self) -> Result<Vec<PolicyEventRow>, StoreError> {
        self.kept.events()
    }

    /// Returns the policies, the promotion and the refusals at this moment.
    pub fn status(&self) -> Status {
        let state = self.state();
        Status {
            lifecycle: state.lifecycle.clone(),
            config_loaded: state.config_loaded,
            not_kept: self.kept.error(),
            live_revisions: state.revisions.live(),
            instances: self.engine.instances(),
        }
    }

    /// The operator says that a file may have changed.
    pub fn look_again(&self) {
        self.signals.is_asked.store(true, Ordering::Relaxed);
        self.signals.files.notify_one();
        self.shadow_loader.look_again();
    }

    /// Watches the files and the traffic, and brings changes into force. Runs until dropped.
    pub async fn run(self: Arc<Self>) {
        self.note_interruption().await;
        // Side by side: a policy that fails does not wait for a file that is compiled.
        tokio::join!(self.watch_files(), self.watch_traffic());
    }

    async fn watch_files(&self) {
        let (watcher, signal) = (self.watcher.as_ref(), &self.signals.files);
        let [mut config_file, mut policy_file] = [WatchedFile::new(watcher, signal), WatchedFile::new(watcher, signal)];
        let mut secret_files = WatchedFiles::new(watcher, signal);
        config_file.follow(self.config_file.as_deref());
        loop {
            let config = self.proxy.snapshot().config.clone();
            policy_file.follow(config.policy.file.as_deref());
            secret_files.follow(&config.secret_files);
            self.signals.files.notified().await;
            let is_asked = self.signals.is_asked.swap(false, Ordering::Relaxed);
            let reports = self.state().reports;
            self.reload_and_look_meanwhile().await;
            if is_asked && self.state().reports == reports {
                self.report_nothing_new();
            }
        }
    }

    /// Reloads; what changes while a policy is compiled does not wait for it.
    async fn reload_and_look_meanwhile(&self) {
        let is_over = CancellationToken::new();
        let reload = async {
            self.reload().await;
            is_over.cancel();
        };
        // Beside it, not in its place: either may hold the turn that the other waits for.
        let look = async {
            let mut is_changed = false;
            while is_over.run_until_cancelled(self.signals.files.notified()).await.is_some() {
                is_changed = true;
                self.look_meanwhile().await;
            }
            is_changed
        };
        let ((), is_changed) = tokio::join!(reload, look);
        if is_changed {
            self.signals.files.notify_one();
        }
    }

    async fn watch_traffic(&self) {
        loop {
            tokio::select! {
                () = self.proxy.breaker_tripped.notified() => {
                    self.drop_failing_candidate().await;
                    self.fall_back().await;
                }
                () = self.proxy.promotion_judged.notified() => self.judge_promotion().await,
                () = self.promotion_is_due() => self.judge_promotion().await,
                () = self.signals.promotion_began.notified() => {}
            }
        }
    }

    /// Looks at both files; what has changed and is good is in force afterwards.
    ///
    /// A configuration and a policy may need each other, so when both have changed they are first judged together.
    pub async fn reload(&self) {
        let before = self.proxy.snapshot();
        let changed = match self.changed_config(&before).await {
            Ok(changed) => changed,
            Err(error) => {
                self.refuse_config(&error);
                None
            }
        };
        let config = changed.as_ref().unwrap_or(&before.config);
        let moved = config.policy.file != before.config.policy.file;
        let offered = match self.offered_policy(config, changed.is_some()).await {
            Ok(offered) => offered,
            Err(error) if moved => return self.refuse_config(&error),
            Err(error) => {
                self.refuse_policy(Requested::Source, &error);
                None
            }
        };
        match (changed, offered) {
            (None, None) => {}
            (None, Some(offered)) => self.take_from_source(&offered).await,
            (Some(config), offered) => self.take_config(&before, config, offered).await,
        }
    }

    /// Writes down what the policy did, for the next start.
    pub async fn close(&self) {
        let _turn = self.turn.lock().await;
        let stats = self.proxy.snapshot().fault_stats.clone();
        let mut history = self.state().lifecycle.history().clone();
        history.count(stats.decisions(), stats.faults());
        self.kept.save(&history, None).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is a single call or assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a snapshot into force; exchanges under way keep theirs, idle instances of what it has not are freed.
    fn publish(&self, before: &Snapshot, next: Snapshot) {
        let policies: Vec<_> = next.policies().cloned().collect();
        let is_new = !Arc::ptr_eq(&before.config, &next.config);
        self.proxy.publish(next);
        let is_gone = |policy: &&Arc<Revision>| !policies.iter().any(|kept| Arc::ptr_eq(kept, policy));
        before.policies().filter(is_gone).for_each(|policy| policy.release_instances());
        self.state().revisions.track(&policies);
        if is_new {
            self.shadow_loader.look_again();
        }
    }

    fn report_taken(&self, what: Reload, revision: &str) {
        match what {
            Reload::Config => tracing::info!(revision, "configuration reloaded"),
            Reload::Policy => tracing::info!(revision, "policy loaded"),
            Reload::Shadow => tracing::info!(revision, "shadow policy loaded"),
        }
        self.state().reports += 1;
        self.proxy.metrics.reloaded(what, true);
        self.proxy.events.change(what.as_str(), Some(revision), None);
    }

    fn refuse_config(&self, error: &anyhow::Error) {
        // Its warnings would stand before what has to be corrected.
        let error = error.downcast_ref().map_or_else(|| format!("{error:#}"), ConfigError::errors);
        let file = self.config_file.as_deref().map_or_else(String::new, |file| file.display().to_string());
        let now = self.proxy.clock.now();
        let is_new = self.state().lifecycle.refuse_config(now, file, error.clone()).is_some();
        if is_new {
            self.report_refused(Reload::Config, &error);
        }
    }

    /// The error as it is reported.
    fn refuse_policy(&self, requested: Requested, error: &anyhow::Error) -> String {
        let error = format!("{error:#}");
        let source = shown(source_of(&self.proxy.snapshot().config).as_deref());
        let now = self.proxy.clock.now();
        let is_new = self.state().lifecycle.refuse_policy(now, requested, &source, error.clone()).is_some();
        if is_new {
            self.report_refused(Reload::Policy, &error);
        }
        error
    }

    fn report_refused(&self, what: Reload, error: &str) {
        log_refused(what, error);
        self.state().reports += 1;
        self.proxy.metrics.reloaded(what, false);
        self.proxy.events.change(what.as_str(), None, Some(error));
    }

    fn report_nothing_new(&self) {
        let state = self.state();
        let config = state.lifecycle.config_refusal().map(|refusal| refusal.error.as_str());
        let policy = state.lifecycle.policy_refusal().map(|refusal| refusal.error.as_str());
        tracing::info!(config_refused = config, policy_refused = policy, "reload requested: nothing has changed");
    }
}

fn log_refused(what: Reload, error: &str) {
    match what {
        Reload::Config => tracing::error!(error, "configuration refused; the previous one stays in force"),
        Reload::Policy => tracing::error!(error, "policy refused; the previous one stays in force"),
        Reload::Shadow => tracing::error!(error, "shadow policy refused; the previous one stays in use"),
    }
}

/// Runs work on the engine's own thread, which gives way to those that serve; jobs there are one after another.
async fn in_background<T: Send + 'static>(
    engine: &Engine,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let busy = "too many changes wait to be judged; try again in a moment";
    elsewhere(work, |job| engine.run_in_background(job).then_some(()).context(busy)).await
}

/// Runs work on a thread of its own, for which neither other work nor the end of the process waits.
async fn in_own_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    let thread = std::thread::Builder::new().name("policy-restore".to_owned());
    elsewhere(work, |job| Ok(thread.spawn(job).map(drop)?)).await
}

/// Runs work where `start` puts it, and waits for its result.
async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    start: impl FnOnce(Box<dyn FnOnce() + Send>) -> anyhow::Result<()>,
) -> anyhow::Result<T> {
    let (sender, done) = oneshot::channel();
    start(Box::new(move || {
        // The receiver may be gone.
        let _ = sender.send(work());
    }))?;
    done.await.context("this failed in Pointsman itself; the log has the panic")
}
