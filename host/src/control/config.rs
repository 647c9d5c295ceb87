//! Another configuration: judged with the policy, published with it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pointsman_config::{self as config, BackendConfig, Config, Loaded, ProcessEnv};
use pointsman_core::lifecycle::{ConfigChange, ConfigResult, ConfigStep, Reload, Requested, Superseded};
use pointsman_core::table::Table;
use pointsman_engine::{LoadError, Revision};

use super::compilations::{Abandoned, Code, SourceJudged};
use super::component::{Component, source_of};
use super::policy::{Offered, Thread, refused_source, source_change};
use super::settings::{Provenance, tell_left_out};
use super::{Control, in_background};
use crate::proxy::{FaultStats, Snapshot, Target};

/// The policy that came with a configuration takes long to be judged.
#[derive(Debug, thiserror::Error)]
#[error("the policy takes long to be compiled")]
struct SlowPolicy;

impl Control {
    /// Looks at the files while the source's component is judged. A configuration that the policy in force takes does not wait;
    /// another content of the source, or another configuration than the one that is judged with it, ends that judgement.
    pub(super) async fn look_meanwhile(&self) {
        let Some(judged) = self.state().compilations.source().cloned() else { return };
        let before = self.proxy.snapshot();
        let changed = match self.changed_config(&before).await {
            Ok(changed) => changed,
            Err(error) => return self.refuse_config(&error),
        };
        let wanted = changed.as_ref().unwrap_or(&before.config);
        let source = source_of(wanted);
        let content = Component::of_source(source.as_deref(), self.engine.limits().max_component_bytes).await;
        let is_other = source != source_of(&judged.config) || content.is_ok_and(|now| now.hash != judged.hash);
        if is_other || (judged.is_together && !wanted.is_same(&judged.config)) {
            return self.state().compilations.cancel(judged.intent);
        }
        if let Some(config) = changed.filter(|_| !judged.is_together) {
            let table = Arc::new(config.table());
            if let Err(error) = self.take_config_alone(config, table).await {
                self.refuse_config(&error);
            }
        }
    }

    /// The configuration of the file, where it is another one.
    pub(super) async fn changed_config(&self, before: &Snapshot) -> anyhow::Result<Option<Arc<Config>>> {
        let Some(file) = self.config_file.clone() else { return Ok(None) };
        let loaded = tokio::task::spawn_blocking(move || config::load(Some(&file), &ProcessEnv)).await??;
        let Loaded { mut config, warnings, .. } = loaded;
        // A file that is gone, or half written, is no other policy.
        if config.policy.own_name.is_none() && config.policy.file == before.config.policy.file {
            config.policy.own_name.clone_from(&before.config.policy.own_name);
        }
        if config.is_same(&before.config) {
            if self.state().lifecycle.config_is_good() {
                tracing::info!(
                    "the configuration file is back to the configuration in force; nothing is refused any more"
                );
            }
            return Ok(None);
        }
        let messages: Vec<String> = warnings.iter().map(|warning| format!("{warning:?}")).collect();
        if self.state().lifecycle.are_new_warnings(&messages) {
            for warning in &warnings {
                let (at, help) = (warning.place.as_ref().map(ToString::to_string), warning.help.as_deref());
                tracing::warn!(at, help, "{}", warning.message);
            }
        }
        Ok(Some(Arc::new(config)))
    }

    /// Brings a configuration into force, together with a policy that is offered with it; else alone.
    pub(super) async fn take_config(&self, before: &Snapshot, config: Arc<Config>, offered: Option<Offered>) {
        let table = Arc::new(config.table());
        let is_moved = config.policy.file != before.config.policy.file;
        let mut change = ConfigChange::new(offered.is_some(), is_moved);
        let mut result = ConfigResult::None;
        loop {
            let step = change.next(result);
            result = match (step, &offered) {
                (ConfigStep::TakeAlone, _) => match self.take_config_alone(config.clone(), table.clone()).await {
                    Ok(()) => ConfigResult::Taken,
                    Err(error) => ConfigResult::Refused { error, is_verdict: true },
                },
                (ConfigStep::RefuseConfig(error), _) => {
                    self.refuse_config(&error);
                    ConfigResult::None
                }
                (step, Some(offered)) => match self.take_policy_with(step, offered, &config, &table).await {
                    Some(result) => result,
                    None => return,
                },
                (_, None) => return,
            };
        }
    }

    /// Does a step that is about the policy offered with a configuration; none: there is no further step.
    async fn take_policy_with(
        &self,
        step: ConfigStep<anyhow::Error>,
        offered: &Offered,
        config: &Arc<Config>,
        table: &Arc<Table>,
    ) -> Option<ConfigResult<anyhow::Error>> {
        match step {
            ConfigStep::TakeTogether { grace } => {
                Some(joint_result(self.take_together(config.clone(), table.clone(), offered, grace).await))
            }
            ConfigStep::NoteSuperseded(superseded) => {
                let turn = self.turn.lock().await;
                self.note_superseded(&turn, &offered.component, config, &superseded).await;
                Some(ConfigResult::None)
            }
            ConfigStep::LookAgain => {
                Some(ConfigResult::StillOffered(self.still_offers(&offered.component, config).await))
            }
            ConfigStep::RefusePolicy(error) => {
                self.refuse_policy(Requested::Source, &error);
                Some(ConfigResult::None)
            }
            ConfigStep::RefuseContent(error) => {
                self.refuse_source(&offered.component, &error);
                Some(ConfigResult::None)
            }
            ConfigStep::TakePolicy => {
                self.take_from_source(offered).await;
                Some(ConfigResult::None)
            }
            ConfigStep::TakeAlone | ConfigStep::RefuseConfig(_) | ConfigStep::End => None,
        }
    }

    /// A policy that takes longer than the `grace` to be judged is not waited for: [`SlowPolicy`].
    async fn take_together(
        &self,
        config: Arc<Config>,
        table: Arc<Table>,
        offered: &Offered,
        grace: Option<Duration>,
    ) -> anyhow::Result<()> {
        let Offered { component, intent } = offered;
        let (code, standing) = (Code::Component(component.clone()), Provenance::source(&config));
        let source = SourceJudged { intent: *intent, hash: component.hash, config: config.clone(), is_together: true };
        let judging = self.judging_source(source);
        let judged = self.judge(code, *intent, &config, table.clone(), &standing, Thread::Background);
        let judged = match grace {
            Some(grace) => tokio::time::timeout(grace, judged).await.map_err(|_| SlowPolicy)?,
            None => judged.await,
        };
        drop(judging);
        let (_, revision) = judged.with_context(|| refused_source(&config))?;
        let turn = self.turn.lock().await;
        let before = self.proxy.snapshot();
        let change = source_change(&standing, component, *intent, &config);
        let (published, policy) = (config.revision.to_string(), revision.id().to_string());
        let prepared = self.prepare(&turn, &before, change)?;
        let stats = Arc::new(FaultStats::new(config.policy.rollback));
        let next = self.snapshot(&before, config, table, revision, stats)?;
        self.config_is_good();
        self.put_in_force(&turn, &before, next, prepared, Some(component)).await;
        self.report_taken(Reload::Config, &published);
        self.report_taken(Reload::Policy, &policy);
        Ok(())
    }

    /// The policies in force stay; configured again where one came into force meanwhile.
    async fn take_config_alone(&self, config: Arc<Config>, table: Arc<Table>) -> anyhow::Result<()> {
        loop {
            let before = self.proxy.snapshot();
            let standing = self.standing_in_force(&config);
            let revision = self.with_table(before.policy.clone(), &config, table.clone(), &standing).await?;
            let candidate = self.candidate_with_table(&before, &config, table.clone()).await;
            let turn = self.turn.lock().await;
            let before_now = self.proxy.snapshot();
            let is_same = before.policies().map(Arc::as_ptr).eq(before_now.policies().map(Arc::as_ptr));
            if !is_same {
                continue;
            }
            before.fault_stats.set_limits(config.policy.rollback);
            let published = config.revision.to_string();
            let next = self.snapshot(&before, config, table, revision, before.fault_stats.clone())?;
            let next = self.with_candidate(&turn, &before, next, candidate).await;
            self.config_is_good();
            self.publish(&before, next);
            self.report_taken(Reload::Config, &published);
            return Ok(());
        }
    }

    /// The policy in force, on fresh instances.
    pub(super) async fn with_table(
        &self,
        policy: Arc<Revision>,
        config: &Config,
        table: Arc<Table>,
        standing: &Provenance,
    ) -> anyhow::Result<Revision> {
        let offer = standing.offer(config, policy.name(), policy.id());
        let (asked, before) = (policy.clone(), policy.left_out().to_vec());
        let configured = in_background(&self.engine, move || asked.with_table(&offer, table)).await?;
        let revision = configured.map_err(|error| {
            standing.explain(error, (config, self.config_file.as_deref()), policy.name(), policy.id())
        })?;
        if revision.left_out() != before {
            tell_left_out(revision.id(), standing, revision.left_out());
        }
        Ok(revision)
    }

    /// Ends an earlier refusal. Before the configuration is published, so that the new revision is never shown beside it.
    fn config_is_good(&self) {
        let now = self.proxy.clock.now();
        let mut state = self.state();
        state.lifecycle.config_is_good();
        state.config_loaded = now;
    }

    /// The next snapshot. The fleet takes the table over: nothing can be refused any more after this.
    fn snapshot(
        &self,
        before: &Snapshot,
        config: Arc<Config>,
        table: Arc<Table>,
        revision: Revision,
        fault_stats: Arc<FaultStats>,
    ) -> anyhow::Result<Snapshot> {
        let listens = |c: &Config| (c.server.listen, c.admin.listen);
        if listens(&config) != listens(&before.config) {
            tracing::warn!("server.listen or admin.listen has changed; restart Pointsman for it to take effect");
        }
        let targets = Target::all(&config, &self.connector, Some(before))?;
        let settings = config.fleet_settings();
        let rekeyed = rekeyed(&before.config, &config);
        let view = self.proxy.fleet.with(|fleet, now| {
            for id in &rekeyed {
                fleet.forget_key_faults(now, id);
            }
            fleet.adopt(table.clone(), settings)
        });
        self.proxy.metrics.set_table(&table);
        Ok(Snapshot::new(config, view, Arc::new(revision), fault_stats, targets))
    }
}

/// The result of judging a configuration and a policy together.
fn joint_result(taken: anyhow::Result<()>) -> ConfigResult<anyhow::Error> {
    let error = match taken {
        Ok(()) => return ConfigResult::Taken,
        Err(error) if error.is::<SlowPolicy>() => return ConfigResult::Slow,
        Err(error) if error.is::<Abandoned>() => return ConfigResult::Abandoned,
        Err(error) => error,
    };
    match error.downcast::<Superseded>() {
        Ok(superseded) => ConfigResult::Superseded(superseded),
        Err(error) => {
            let is_verdict = !error.downcast_ref().is_some_and(LoadError::is_no_verdict);
            ConfigResult::Refused { error, is_verdict }
        }
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
