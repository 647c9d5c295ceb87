//! Another policy: from its file, or uploaded.

use std::sync::Arc;

use anyhow::Context;
use axum::body::Bytes;
use pointsman_config::Config;
use pointsman_core::lifecycle::history::{History, Incoming, Source};
use pointsman_core::lifecycle::{Change, Intent, Reload, Requested, SourceSeen, Superseded, UploadOptions, shown};
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_engine::{Compiled, LoadError, Revision};
use tokio::sync::MutexGuard;

use super::compilations::{Abandoned, Code, SourceJudged};
use super::component::{Component, source_of};
use super::settings::{Provenance, tell_left_out};
use super::{Control, in_background, in_own_thread};
use crate::proxy::Snapshot;

/// The thread that judges a component.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Thread {
    /// The engine's own, where one is judged after the other, in the time that serving leaves.
    Background,
    /// One of its own, which waits for no compilation.
    Own,
}

/// A component that is good under the configuration in force.
pub(super) struct Judged {
    /// The snapshot in force.
    pub(super) before: Arc<Snapshot>,
    pub(super) revision: Revision,
    /// Its settings, as it was told them.
    pub(super) standing: Provenance,
}

/// The content of the configured source, to be judged.
pub(super) struct Offered {
    pub(super) component: Component,
    pub(super) intent: Intent,
}

/// A change that may be written down and then put in force.
pub(super) struct Prepared {
    change: Change,
    history: History,
    at: Timestamp,
}

/// The turn to put something in force.
pub(super) type Turn<'a> = MutexGuard<'a, ()>;

/// A reason why an uploaded policy is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum CannotUpload {
    /// It does not pass its checks under this configuration.
    #[error("{0}")]
    Refused(String),
    /// A newer one was put in force meanwhile.
    #[error("the uploaded policy is not put in force: {0}")]
    Superseded(#[from] Superseded),
}

impl Control {
    /// Reads the configured source. None where its content is no intention: it is known, or in force. `again`: the configuration is
    /// another, so content that was refused may be good.
    pub(super) async fn offered_policy(&self, config: &Config, again: bool) -> anyhow::Result<Option<Offered>> {
        let file = source_of(config);
        let file = file.as_deref();
        if file.is_none() && self.state().lifecycle.knows_source(None) {
            return Ok(None);
        }
        let component = Component::of_source(file, self.engine.limits().max_component_bytes).await?;
        let _turn = self.turn.lock().await;
        let seen = self.state().lifecycle.see_source(file, component.hash, again);
        self.cancel_superseded();
        match seen {
            SourceSeen::Judge(intent) => Ok(Some(Offered { component, intent })),
            SourceSeen::Refused(why) => Err(anyhow::anyhow!(why)),
            SourceSeen::Known { restored, is_noted } => {
                if is_noted {
                    self.save_history().await;
                }
                if restored {
                    tracing::info!("the policy file is back to its previous content; nothing is refused any more");
                }
                Ok(None)
            }
        }
    }

    async fn save_history(&self) {
        let history = self.state().lifecycle.history().clone();
        self.kept.save(&history, None).await;
    }

    /// Brings the source's component into force.
    pub(super) async fn take_from_source(&self, offered: &Offered) {
        let Offered { component, intent } = offered;
        let (intent, config) = (*intent, self.proxy.snapshot().config.clone());
        let source = SourceJudged { intent, hash: component.hash, config: config.clone(), is_together: false };
        let _judging = self.judging_source(source);
        let judged = self.judge_until_current(
            Code::Component(component.clone()),
            intent,
            Thread::Background,
            Provenance::source,
        );
        match judged.await.with_context(|| refused_source(&config)) {
            Ok((turn, judged)) => {
                let change = source_change(&judged.standing, component, intent, &config);
                if let Err(superseded) = self.take(&turn, judged, change, Some(component)).await {
                    self.note_superseded(&turn, component, &config, &superseded).await;
                }
            }
            Err(error) if error.is::<Abandoned>() => tracing::info!("{error:#}"),
            Err(error) if error.is::<Superseded>() => {
                let turn = self.turn.lock().await;
                if let Some(superseded) = error.downcast_ref() {
                    self.note_superseded(&turn, component, &config, superseded).await;
                }
            }
            // It was not judged, so it may be good.
            Err(error) if error.downcast_ref().is_some_and(LoadError::is_no_verdict) => {
                self.refuse_policy(Requested::Source, &error);
            }
            // Half a file that was being written is no policy; the watcher tells when it is whole.
            Err(_) if !self.still_offers(component, &config).await => {}
            Err(error) => self.refuse_source(component, &error),
        }
    }

    pub(super) fn refuse_source(&self, component: &Component, error: &anyhow::Error) {
        self.state().lifecycle.refuse_content(component.hash, &format!("{error:#}"));
        self.refuse_policy(Requested::Source, error);
    }

    /// The source's content is known from now on, so that it does not come back at the next look.
    pub(super) async fn note_superseded(
        &self,
        _turn: &Turn<'_>,
        component: &Component,
        config: &Config,
        superseded: &Superseded,
    ) {
        let file = source_of(config);
        tracing::info!("{} is not put in force: {superseded}", shown(file.as_deref()));
        self.state().lifecycle.note_source(Source { file, hash: component.hash });
        self.save_history().await;
    }

    /// True where the source holds what was judged, and has not changed meanwhile.
    pub(super) async fn still_offers(&self, component: &Component, config: &Config) -> bool {
        let now = Component::of_source(source_of(config).as_deref(), self.engine.limits().max_component_bytes).await;
        now.is_ok_and(|now| now.hash == component.hash)
    }

    /// Brings an uploaded component into force with what came with it, where it is not already.
    ///
    /// # Errors
    /// When it is refused, or a newer one came into force while it was compiled.
    pub async fn upload(&self, bytes: Bytes, options: UploadOptions) -> Result<(), CannotUpload> {
        let component = self.hashed(bytes).await.map_err(|error| CannotUpload::Refused(format!("{error:#}")))?;
        // Nothing is half put in force while this one is compared with what is.
        let turn = self.turn.lock().await;
        let intent = self.state().lifecycle.upload(component.hash, &options);
        self.cancel_superseded();
        let Some(intent) = intent else { return Ok(()) };
        drop(turn);
        let standing = |_: &Config| Provenance::upload(options.clone());
        let judged =
            self.judge_until_current(Code::Component(component.clone()), intent, Thread::Background, standing).await;
        let judged = judged.and_then(|(turn, judged)| Ok((turn, judged.settled()?)));
        match judged {
            // The same was uploaded twice, and the other is in force.
            Ok(_) if self.state().lifecycle.is_repeated(intent, component.hash, &options) => {
                self.cancel_superseded();
                Ok(())
            }
            Ok((turn, judged)) => {
                let incoming = judged.standing.incoming(&component);
                let change = Change::to(intent, incoming, "another policy was uploaded".to_owned());
                Ok(self.take(&turn, judged, change, Some(&component)).await?)
            }
            Err(error) if error.is::<Superseded>() => Err(error
                .downcast::<Superseded>()
                .map_or_else(|error| CannotUpload::Refused(format!("{error:#}")), CannotUpload::Superseded)),
            Err(error) => {
                let error = error.context("the uploaded policy is refused");
                Err(CannotUpload::Refused(self.refuse_policy(Requested::Upload, &error)))
            }
        }
    }

    pub(super) async fn hashed(&self, bytes: Bytes) -> anyhow::Result<Component> {
        Ok(tokio::task::spawn_blocking(move || Component::new(bytes)).await?)
    }

    /// Puts a good component in force under the configuration there is.
    pub(super) async fn take(
        &self,
        turn: &Turn<'_>,
        judged: Judged,
        change: Change,
        component: Option<&Component>,
    ) -> Result<(), Superseded> {
        let Judged { before, revision, .. } = judged;
        let id = revision.id().to_string();
        let prepared = self.prepare(turn, &before, change)?;
        self.put_in_force(turn, &before, before.with_policy(Arc::new(revision)), prepared, component).await;
        self.report_taken(Reload::Policy, &id);
        Ok(())
    }

    /// The next history, unless something newer came into force.
    pub(super) fn prepare(&self, _turn: &Turn<'_>, before: &Snapshot, change: Change) -> Result<Prepared, Superseded> {
        let at = self.proxy.clock.now();
        let counts = (before.fault_stats.decisions(), before.fault_stats.faults());
        let history = self.state().lifecycle.prepare(at, &change, counts)?;
        Ok(Prepared { change, history, at })
    }

    /// Writes down what comes into force, then puts it there; a promotion under way is over.
    pub(super) async fn put_in_force(
        &self,
        _turn: &Turn<'_>,
        before: &Snapshot,
        next: Snapshot,
        prepared: Prepared,
        component: Option<&Component>,
    ) {
        let Prepared { change, history, at } = prepared;
        self.kept.save(&history, component).await;
        self.publish(before, next);
        let ended = self.state().lifecycle.commit(at, &change, history);
        self.cancel_superseded();
        if let Some((step, why)) = ended {
            self.candidate_is_over();
            self.tell(step, &why).await;
        }
    }

    /// Judges a component under the configuration in force, and once more where that changed meanwhile. The turn is taken with the
    /// result, so that nothing comes between.
    pub(super) async fn judge_until_current(
        &self,
        mut code: Code,
        intent: Intent,
        thread: Thread,
        standing: impl Fn(&Config) -> Provenance,
    ) -> anyhow::Result<(Turn<'_>, Judged)> {
        loop {
            let before = self.proxy.snapshot();
            let (config, table) = (before.config.clone(), before.view.table.clone());
            let standing = standing(&config);
            let (compiled, revision) = self.judge(code, intent, &config, table, &standing, thread).await?;
            let turn = self.turn.lock().await;
            let before = self.proxy.snapshot();
            if Arc::ptr_eq(&before.config, &config) {
                return Ok((turn, Judged { before, revision, standing }));
            }
            code = Code::Compiled(compiled);
        }
    }

    /// Compiles, checks, instantiates, configures, probes, away from the runtime. Whatever is compiled keeps no other thread, so
    /// that nothing else waits for it.
    pub(super) async fn judge(
        &self,
        code: Code,
        intent: Intent,
        config: &Arc<Config>,
        table: Arc<Table>,
        standing: &Provenance,
        thread: Thread,
    ) -> anyhow::Result<(Arc<Compiled>, Revision)> {
        let (config, file) = (config.clone(), self.config_file.clone());
        let (asked, hash) = (standing.clone(), code.hash());
        let compiled = self.compiled(code, intent).await?;
        let work = move || {
            let (own, id) = (compiled.name(), compiled.id());
            let configured = compiled.configure(asked.offer(&config, own, id), table);
            let revision = configured.map_err(|error| asked.explain(error, (&config, file.as_deref()), own, id))?;
            anyhow::Ok((compiled, revision))
        };
        let (compiled, revision) = match thread {
            Thread::Background => in_background(&self.engine, work).await??,
            Thread::Own => in_own_thread(work).await??,
        };
        tell_left_out(revision.id(), standing, revision.left_out());
        if let Some(hash) = hash {
            self.state().revisions.remember(hash, compiled.clone());
        }
        Ok((compiled, revision))
    }
}

impl Judged {
    /// The same, with all settings it was told as its own, where single ones came with it.
    ///
    /// # Errors
    /// When these are more than the history keeps.
    pub(super) fn settled(self) -> anyhow::Result<Self> {
        let standing = self.standing.settled(&self.revision)?;
        Ok(Self { standing, ..self })
    }
}

/// The context of an error about the source's component.
pub(super) fn refused_source(config: &Config) -> String {
    format!("{} is refused", shown(source_of(config).as_deref()))
}

/// The change to the source's component.
pub(super) fn source_change(standing: &Provenance, component: &Component, intent: Intent, config: &Config) -> Change {
    let incoming: Incoming = standing.incoming(component);
    Change::to(intent, incoming, format!("{} has changed", shown(source_of(config).as_deref())))
}
