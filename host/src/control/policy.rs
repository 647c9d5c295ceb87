//! Another policy: from its file, or uploaded.

use std::sync::Arc;

use anyhow::Context;
use axum::body::Bytes;
use pointsman_core::table::Table;
use pointsman_engine::{Compiled, Revision};

use super::component::{Component, Hash, shown, source_of};
use super::history::{End, Entry, Incoming, Origin, Source};
use super::settings::{Standing, tell_left_out};
use super::{About, Control, KEPT_COMPILED};
use crate::config::Config;
use crate::control::upload::UploadOptions;
use crate::drive::Snapshot;
use pointsman_core::lifecycle::Reload;

/// What comes into force, from where, and why what was there goes.
pub(super) struct Place<'a> {
    pub(super) incoming: Incoming,
    /// Where it is not in the store yet.
    pub(super) component: Option<&'a Component>,
    pub(super) end: End,
    pub(super) why: String,
    /// What the operator should go on to see; none: nothing is wrong.
    pub(super) error: Option<String>,
}

impl<'a> Place<'a> {
    /// From what the configuration names.
    pub(super) fn of_source(component: &'a Component, config: &Config) -> Self {
        let file = source_of(config);
        let why = format!("{} has changed", shown(file.as_deref()));
        Self::of(component, &Standing::source(config), why)
    }

    /// A component that has just been judged.
    pub(super) fn of(component: &'a Component, standing: &Standing, why: String) -> Self {
        let incoming = standing.incoming(component.hash, component.bytes.len() as u64);
        Self { incoming, component: Some(component), end: End::Replaced, why, error: None }
    }

    /// A revision that is kept.
    pub(super) fn back_to(entry: Entry, end: End, why: String) -> Self {
        let Entry { hash, bytes, origin, options, .. } = entry;
        let incoming = Incoming { hash, bytes, origin, options };
        Self { incoming, component: None, end, why, error: None }
    }

    /// What the source is known to hold afterwards; none: as before. A revision that is kept says nothing about it.
    fn source(&self) -> Option<Source> {
        self.component?;
        let file = match &self.incoming.origin {
            Origin::Embedded => None,
            Origin::File(file) => Some(file.clone()),
            Origin::Upload => return None,
        };
        (self.end == End::Replaced).then_some(Source { file, hash: self.incoming.hash })
    }
}

impl Control {
    /// What the configuration's source holds, where that is to be judged: it is not when it was before, unless the
    /// configuration is another (`again`), nor when it is in force.
    pub(super) async fn offered_policy(&self, config: &Config, again: bool) -> anyhow::Result<Option<Component>> {
        let file = source_of(config);
        let file = file.as_deref();
        let known = self.state().history.source.clone().filter(|source| source.file.as_deref() == file);
        if file.is_none() && known.is_some() {
            return Ok(None);
        }
        let component = Component::of_source(file, self.engine.limits().max_component_bytes).await?;
        let in_force = self.state().history.in_force().cloned();
        let is_in_force = in_force.as_ref().is_some_and(|entry| entry.hash == component.hash);
        // An upload of the same component was not the file's: it had settings of its own, or what the configuration has for others.
        let was_the_files = in_force.is_some_and(|entry| entry.is_of(file));
        if let Some(known) = known {
            if is_in_force && was_the_files && known.hash != component.hash {
                let mut history = self.state().history.clone();
                history.source = Some(Source { hash: component.hash, ..known });
                self.keep(history, None).await;
                self.source_is_well();
                return Ok(None);
            }
            if known.hash == component.hash {
                self.source_is_well();
                return Ok(None);
            }
            let refused = self.state().refused.clone().filter(|(hash, _)| *hash == component.hash);
            if let Some((_, why)) = refused.filter(|_| !again) {
                return Err(anyhow::anyhow!(why));
            }
        }
        let given_up = self.state().history.rolled_back_for_faults(&component.hash).filter(|_| !is_in_force);
        if let Some(why) = given_up {
            let why = format!("{} is refused: {why}", shown(file));
            self.state().refused = Some((component.hash, why.clone()));
            return Err(anyhow::anyhow!(why));
        }
        Ok(Some(component))
    }

    /// The file holds again what is in force, or what an upload or a rollback was put above.
    fn source_is_well(&self) {
        let mut state = self.state();
        state.refused = None;
        state.policy_refusal.take_if(|(about, _)| *about == About::Source);
        if state.source_error.take().is_some() {
            tracing::info!("the policy file is back to its previous content; nothing is refused any more");
        }
    }

    /// Brings the source's component into force. True when there was something to tell.
    pub(super) async fn take_from_source(&self, before: &Snapshot, component: &Component) -> bool {
        match self.judge_source(component, &before.config, before.view.table.clone()).await {
            Ok(revision) => {
                let place = Place::of_source(component, &before.config);
                self.take(before, revision, place).await;
                true
            }
            // Half a file that was being written is no policy; the watcher tells when it is whole.
            Err(_) if !self.still_offers(component, &before.config).await => false,
            Err(error) => {
                self.state().refused = Some((component.hash, format!("{error:#}")));
                self.refused_policy(About::Source, &error)
            }
        }
    }

    /// Does the source hold what was judged, or has it changed meanwhile?
    pub(super) async fn still_offers(&self, component: &Component, config: &Config) -> bool {
        let now = Component::of_source(source_of(config).as_deref(), self.engine.limits().max_component_bytes).await;
        now.is_ok_and(|now| now.hash == component.hash)
    }

    /// Brings an uploaded component into force with what came with it, where it is not already.
    ///
    /// # Errors
    /// In one sentence, why it is refused.
    pub async fn offer_policy(&self, bytes: Bytes, options: UploadOptions) -> anyhow::Result<()> {
        let _turn = self.one_at_a_time.lock().await;
        let component = self.in_workshop(move || Component::new(bytes)).await?;
        let before = self.proxy.snapshot();
        let is_this = |entry: &Entry| entry.hash == component.hash && entry.options == options;
        if self.state().history.in_force().is_some_and(is_this) {
            self.state().policy_refusal.take_if(|(about, _)| *about != About::Source);
            return Ok(());
        }
        let standing = Standing::upload(options);
        match self.judge(&component, &before.config, before.view.table.clone(), &standing).await {
            Ok(revision) => {
                let standing = standing.settled(&revision);
                let place = Place::of(&component, &standing, "another policy was uploaded".to_owned());
                self.take(&before, revision, place).await;
                Ok(())
            }
            Err(error) => {
                self.refused_policy(About::Upload, &error.context("the uploaded policy is refused"));
                let refusal = self.state().policy_refusal.clone();
                Err(anyhow::anyhow!(refusal.map(|(_, refusal)| refusal.error).unwrap_or_default()))
            }
        }
    }

    /// Puts a policy into force under the configuration there is.
    pub(super) async fn take(&self, before: &Snapshot, revision: Revision, place: Place<'_>) {
        let id = revision.id().to_string();
        self.put_in_force(before, before.with_policy(Arc::new(revision)), place).await;
        self.taken(Reload::Policy, &id);
    }

    /// Writes down what comes into force, then puts it there; a promotion under way is over.
    pub(super) async fn put_in_force(&self, before: &Snapshot, next: Snapshot, place: Place<'_>) {
        let overtaken = format!("revision {} came into force: {}", place.incoming.hash.revision(), place.why);
        self.install(before, next, place).await;
        self.overtaken(&overtaken).await;
    }

    /// Writes down what comes into force, then puts it there.
    pub(super) async fn install(&self, before: &Snapshot, next: Snapshot, place: Place<'_>) {
        let mut history = self.state().history.clone();
        history.count(before.fault_stats.decisions(), before.fault_stats.faults());
        if let Some(source) = place.source() {
            history.source = Some(source);
        }
        history.take(self.proxy.clock.now(), place.incoming, place.end, &place.why);
        let not_kept = self.write_down(&history, place.component).await;
        self.publish(before, next);
        let refusal = place.error.map(|why| (About::Rollback, self.refusal(About::Rollback, why)));
        let mut state = self.state();
        state.history = history;
        state.not_kept = not_kept;
        state.policy_refusal = refusal;
        state.source_error = None;
        state.refused = None;
    }

    /// Compiles, checks, instantiates, configures, probes, away from the runtime.
    pub(super) async fn judge(
        &self,
        component: &Component,
        config: &Config,
        table: Arc<Table>,
        standing: &Standing,
    ) -> anyhow::Result<Revision> {
        let (engine, component, config) = (self.engine.clone(), component.clone(), config.clone());
        let (known, file, asked) = (self.compiled(&component.hash), self.config_file.clone(), standing.clone());
        let judged = self.in_workshop(move || {
            let compiled = known.map_or_else(|| engine.compile(&component.bytes).map(Arc::new), Ok)?;
            let (own, id) = (compiled.name(), compiled.id());
            let configured = compiled.configure(asked.offer(&config, own, id), table);
            let revision = configured.map_err(|error| asked.explain(error, (&config, file.as_deref()), own, id))?;
            anyhow::Ok((component.hash, compiled, revision))
        });
        let (hash, compiled, revision) = judged.await??;
        tell_left_out(revision.id(), standing, revision.left_out());
        self.remember(hash, compiled);
        Ok(revision)
    }

    /// As [`Control::judge`]; an error names the source.
    pub(super) async fn judge_source(
        &self,
        component: &Component,
        config: &Config,
        table: Arc<Table>,
    ) -> anyhow::Result<Revision> {
        let refused = || format!("{} is refused", shown(source_of(config).as_deref()));
        self.judge(component, config, table, &Standing::source(config)).await.with_context(refused)
    }

    /// What was compiled of late.
    pub(super) fn compiled(&self, hash: &Hash) -> Option<Arc<Compiled>> {
        self.state().compiled.iter().find(|(known, _)| known == hash).map(|(_, compiled)| compiled.clone())
    }

    fn remember(&self, hash: Hash, compiled: Arc<Compiled>) {
        let mut state = self.state();
        state.compiled.retain(|(known, _)| *known != hash);
        state.compiled.push((hash, compiled));
        let surplus = state.compiled.len().saturating_sub(KEPT_COMPILED);
        state.compiled.drain(..surplus);
    }
}
