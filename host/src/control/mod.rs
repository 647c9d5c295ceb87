//! Changes while running: another policy, another configuration. Each is judged whole before it takes effect, and a bad
//! one leaves what runs untouched and says why.

mod component;
mod config;
mod history;
pub mod kept_states;
mod policy;
mod promotion;
mod rollback;
mod settings;
mod shadow;
mod start;
mod steps;
pub mod upload;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::Context;
use component::{Component, Hash, shown, source_of};
use pointsman_core::time::Timestamp;
use pointsman_engine::watch::Watcher;
use pointsman_engine::{Compiled, Engine, Revision};
use pointsman_store::{MAX_POLICY_EVENTS, PolicyEventRow, PolicyStore, StoreError};
use tokio::sync::{Notify, oneshot};

use crate::drive::{Proxy, Snapshot};
use crate::upstream::Connector;
use pointsman_core::lifecycle::Reload;

pub use history::{Entry, History};
pub use promotion::{CannotPromote, Promotion};
pub use rollback::{CannotGoBack, WentBack};
pub use shadow::{ShadowLoader, ShadowStatus};
pub use start::{First, first_policy};

/// Compiled components kept in memory, the one in force among them: going back and forth between them takes no time.
const KEPT_COMPILED: usize = 3;

/// Brings changes into force, one at a time.
pub struct Control {
    proxy: Arc<Proxy>,
    engine: Engine,
    connector: Connector,
    config_file: Option<PathBuf>,
    policies: PolicyStore,
    state: Mutex<State>,
    wake: Arc<Notify>,
    /// There is another time to look at.
    promotion_began: Notify,
    /// The operator asked to look (SIGHUP), and is owed a word.
    asked: AtomicBool,
    one_at_a_time: tokio::sync::Mutex<()>,
    shadow_loader: Arc<ShadowLoader>,
}

/// What is known of the changes so far.
#[derive(Default)]
struct State {
    history: History,
    /// The latest last.
    compiled: Vec<(Hash, Arc<Compiled>)>,
    /// Every revision that was in force and that exchanges may still use.
    alive: Vec<Weak<Revision>>,
    /// The policy file's content, where it is refused, and why.
    refused: Option<(Hash, String)>,
    /// Why the configuration file's content is not in force; none: it is.
    config_refusal: Option<Refusal>,
    /// When the configuration in force came into it.
    config_loaded: Timestamp,
    policy_refusal: Option<(About, Refusal)>,
    /// What was told of the source last, where that was no good.
    source_error: Option<String>,
    not_kept: Option<String>,
    /// The one under way, or the last.
    promotion: Option<Promotion>,
    /// Components of the history that could not be written to the store, for the next time.
    unwritten: Vec<Component>,
}

/// Which try to replace the policy an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// What the configuration names.
    Source,
    /// `PUT /api/policy`.
    Upload,
    /// Going back.
    Rollback,
}

/// A change that was refused, or a policy that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// The file, or `upload`, or `rollback`.
    pub source: String,
    /// Why.
    pub error: String,
}

/// How changes stand, for the operator.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The revisions kept.
    pub history: History,
    /// Why the policy last offered was refused, or the last one given up; none: it is in force.
    pub policy_refusal: Option<Refusal>,
    /// Why the configuration file's content is not in force; none: it is.
    pub config_refusal: Option<Refusal>,
    /// When the configuration in force came into it.
    pub config_loaded: Timestamp,
    /// The configuration's file; none: it came from the environment.
    pub config_file: Option<PathBuf>,
    /// Why the history could not be written to the store; none: it is there.
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
        let policy = snapshot.policy.clone();
        let now = proxy.clock.now();
        let refusal = |error| {
            let source = shown(source_of(&snapshot.config).as_deref()).into_owned();
            (About::Source, Refusal { at: now, source, error })
        };
        let state = State {
            compiled: vec![(first.component.hash, first.compiled)],
            alive: vec![Arc::downgrade(&policy)],
            source_error: first.error.clone(),
            policy_refusal: first.error.map(refusal),
            history: first.history,
            refused: first.refused,
            unwritten: if first.not_kept.is_some() { vec![first.component] } else { Vec::new() },
            not_kept: first.not_kept,
            config_refusal: None,
            config_loaded: now,
            promotion: None,
        };
        if state.policy_refusal.is_some() {
            proxy.metrics.reloaded(Reload::Policy, false);
        }
        let shadow_loader = Arc::new(ShadowLoader::new(proxy.clone(), engine.clone()));
        Self {
            shadow_loader,
            proxy,
            engine,
            connector,
            config_file,
            policies,
            state: Mutex::new(state),
            wake: Arc::default(),
            promotion_began: Notify::new(),
            asked: AtomicBool::new(false),
            one_at_a_time: tokio::sync::Mutex::default(),
        }
    }

    /// The proxy under control.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// What casts the shadow.
    pub fn shadow_loader(&self) -> &Arc<ShadowLoader> {
        &self.shadow_loader
    }

    /// Steps of promotions, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn events(&self) -> Result<Vec<PolicyEventRow>, StoreError> {
        self.policies.events(MAX_POLICY_EVENTS)
    }

    /// How changes stand.
    pub fn status(&self) -> Status {
        let state = self.state();
        Status {
            history: state.history.clone(),
            policy_refusal: state.policy_refusal.as_ref().map(|(_, refusal)| refusal.clone()),
            config_refusal: state.config_refusal.clone(),
            config_loaded: state.config_loaded,
            config_file: self.config_file.clone(),
            not_kept: state.not_kept.clone(),
            live_revisions: state.alive.iter().filter(|revision| revision.strong_count() > 0).count() as u64,
            instances: self.engine.instances(),
        }
    }

    /// The operator says that a file may have changed.
    pub fn look_again(&self) {
        self.asked.store(true, Ordering::Relaxed);
        self.wake.notify_one();
        self.shadow_loader.look_again();
    }

    /// Watches the files and the policy, and brings changes into force. Runs until dropped.
    pub async fn run(self: Arc<Self>) {
        self.note_interruption().await;
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
            tokio::select! {
                () = self.wake.notified() => {
                    let asked = self.asked.swap(false, Ordering::Relaxed);
                    let told = self.reload().await;
                    if asked && !told {
                        self.nothing_new();
                    }
                }
                () = self.proxy.breaker_tripped.notified() => {
                    self.give_up_candidate().await;
                    self.give_up().await;
                }
                () = self.proxy.promotion_judged.notified() => self.judge_promotion().await,
                () = self.promotion_is_due() => self.judge_promotion().await,
                () = self.promotion_began.notified() => {}
            }
        }
    }

    fn watch(&self, file: &Path) -> Option<Watcher> {
        let wake = self.wake.clone();
        let watcher = Watcher::new(file, move || wake.notify_one())
            .inspect_err(|error| tracing::error!(file = %file.display(), %error, "this file is not watched; send SIGHUP after a change"))
            .ok();
        // It may have changed between being read and being watched.
        self.wake.notify_one();
        watcher
    }

    /// Looks at both files; what has changed and is good is in force afterwards. True when there was something to tell.
    ///
    /// A configuration and a policy may need each other, so when both have changed they are first judged together.
    pub async fn reload(&self) -> bool {
        let _turn = self.one_at_a_time.lock().await;
        let before = self.proxy.snapshot();
        let (changed, told) = match self.changed_config(&before).await {
            Ok(changed) => (changed, false),
            Err(error) => (None, self.refused_config(&error)),
        };
        let config = changed.as_ref().unwrap_or(&before.config);
        let moved = config.policy.file != before.config.policy.file;
        let offered = match self.offered_policy(config, changed.is_some()).await {
            Ok(offered) => offered,
            Err(error) if moved => return self.refused_config(&error) || told,
            Err(error) => {
                let told = self.refused_policy(About::Source, &error) || told;
                return match changed {
                    Some(config) => self.take_config(&before, config, None).await || told,
                    None => told,
                };
            }
        };
        match (changed, offered) {
            (None, None) => told,
            (None, Some(component)) => self.take_from_source(&before, &component).await || told,
            (Some(config), offered) => self.take_config(&before, config, offered).await || told,
        }
    }

    /// What the policy did is written down, for the next start.
    pub async fn close(&self) {
        let _turn = self.one_at_a_time.lock().await;
        let fault_stats = self.proxy.snapshot().fault_stats.clone();
        let mut history = self.state().history.clone();
        history.count(fault_stats.decisions(), fault_stats.faults());
        self.keep(history, None).await;
    }

    /// Does this on the engine's own thread for such work, which gives way to those who serve.
    async fn in_workshop<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        in_workshop(&self.engine, work).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is a single assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a snapshot into force; exchanges under way keep theirs, idle instances of what it has not are freed.
    fn publish(&self, before: &Snapshot, next: Snapshot) {
        let policies: Vec<_> = next.policies().cloned().collect();
        let is_new = !Arc::ptr_eq(&before.config, &next.config);
        self.proxy.publish(next);
        let is_gone = |policy: &&Arc<Revision>| !policies.iter().any(|kept| Arc::ptr_eq(kept, policy));
        before.policies().filter(is_gone).for_each(|policy| policy.release_instances());
        let mut state = self.state();
        state.alive.retain(|revision| revision.strong_count() > 0);
        for policy in &policies {
            if !state.alive.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(policy))) {
                state.alive.push(Arc::downgrade(policy));
            }
        }
        drop(state);
        if is_new {
            self.shadow_loader.look_again();
        }
    }

    /// Writes the history to the store, and the component that may be new to it.
    async fn keep(&self, history: History, component: Option<&Component>) {
        let not_kept = self.write_down(&history, component).await;
        let mut state = self.state();
        state.history = history;
        state.not_kept = not_kept;
    }

    /// Why it could not be written; none: it is on disk, and what could not be written before is too.
    async fn write_down(&self, history: &History, component: Option<&Component>) -> Option<String> {
        let mut components = std::mem::take(&mut self.state().unwritten);
        components.extend(component.cloned());
        components.retain(|component| history.find(&component.hash.revision()).is_some());
        let not_kept = why_not_kept(self.in_workshop(save(&self.policies, history, &components)).await);
        if not_kept.is_some() {
            self.state().unwritten = components;
        }
        not_kept
    }

    fn taken(&self, what: Reload, revision: &str) {
        match what {
            Reload::Config => tracing::info!(revision, "configuration reloaded"),
            Reload::Policy => tracing::info!(revision, "policy loaded"),
            Reload::Shadow => tracing::info!(revision, "shadow policy loaded"),
        }
        self.proxy.metrics.reloaded(what, true);
        self.proxy.events.change(what.as_str(), Some(revision), None);
    }

    /// True when it is told: the same reason is not told twice.
    fn refused_config(&self, error: &anyhow::Error) -> bool {
        let error = format!("{error:#}");
        let mut state = self.state();
        if state.config_refusal.as_ref().is_some_and(|refusal| refusal.error == error) {
            return false;
        }
        self.refused(Reload::Config, &error);
        let source = self.config_file.as_deref().map_or_else(String::new, |file| file.display().to_string());
        state.config_refusal = Some(Refusal { at: self.proxy.clock.now(), source, error });
        true
    }

    /// True when it is told: the same reason is not told twice.
    fn refused_policy(&self, about: About, error: &anyhow::Error) -> bool {
        let error = format!("{error:#}");
        let mut state = self.state();
        // Each upload is answered and counted; a file is looked at more often than it changes.
        if about == About::Source && state.source_error.replace(error.clone()).as_ref() == Some(&error) {
            return false;
        }
        self.refused(Reload::Policy, &error);
        state.policy_refusal = Some((about, self.refusal(about, error)));
        true
    }

    fn refusal(&self, about: About, error: String) -> Refusal {
        let source = match about {
            About::Source => shown(source_of(&self.proxy.snapshot().config).as_deref()).into_owned(),
            About::Upload => "upload".to_owned(),
            About::Rollback => "rollback".to_owned(),
        };
        Refusal { at: self.proxy.clock.now(), source, error }
    }

    fn refused(&self, what: Reload, error: &str) {
        log_refused(what, error);
        self.proxy.metrics.reloaded(what, false);
        self.proxy.events.change(what.as_str(), None, Some(error));
    }

    fn nothing_new(&self) {
        let state = self.state();
        let config = state.config_refusal.as_ref().map(|refusal| refusal.error.as_str());
        let policy = state.policy_refusal.as_ref().map(|(_, refusal)| refusal.error.as_str());
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

/// Does this on the engine's own thread for such work.
async fn in_workshop<T: Send + 'static>(
    engine: &Engine,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (sender, done) = oneshot::channel();
    let job = move || {
        // Nobody may be waiting any more.
        let _ = sender.send(work());
    };
    anyhow::ensure!(engine.run_in_background(job), "too many changes wait to be judged; try again in a moment");
    done.await.context("this failed in Pointsman itself; the log has the panic")
}

/// Writes the history to the store.
fn save(policies: &PolicyStore, history: &History, components: &[Component]) -> impl FnOnce() -> Saved + use<> {
    let (policies, rows) = (policies.clone(), history.rows());
    let components: Vec<_> = components.iter().map(|c| (c.hash.to_string(), c.bytes.clone())).collect();
    move || policies.save(&rows, &components)
}

type Saved = Result<(), StoreError>;

/// Why it is not written; none: it is on disk.
fn why_not_kept(saved: anyhow::Result<Saved>) -> Option<String> {
    let error = saved.and_then(|saved| Ok(saved?)).err()?.to_string();
    tracing::error!(error, "the policies are not written to the store: a restart may not come up with this one");
    Some(error)
}
