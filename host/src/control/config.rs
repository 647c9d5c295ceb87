//! Another configuration: judged with the policy, published with it.

use std::sync::Arc;

use pointsman_core::table::Table;
use pointsman_engine::Revision;

use super::component::Component;
use super::policy::Place;
use super::settings::{Standing, tell_left_out};
use super::{About, Control};
use crate::config::{self, BackendConfig, Config, Loaded, ProcessEnv};
use crate::drive::{FaultStats, Snapshot, Target};
use pointsman_core::lifecycle::Reload;

impl Control {
    /// The configuration of the file, where it is another one.
    pub(super) async fn changed_config(&self, before: &Snapshot) -> anyhow::Result<Option<Arc<Config>>> {
        let Some(file) = self.config_file.clone() else { return Ok(None) };
        let loaded = tokio::task::spawn_blocking(move || config::load(Some(&file), &ProcessEnv)).await??;
        let Loaded { mut config, warnings, .. } = loaded;
        // A file that is gone, or half written, is no other policy.
        if config.policy.own_name.is_none() && config.policy.file == before.config.policy.file {
            config.policy.own_name.clone_from(&before.config.policy.own_name);
        }
        if !config.is_same(&before.config) {
            for warning in &warnings {
                let (at, help) = (warning.place.as_ref().map(ToString::to_string), warning.help.as_deref());
                tracing::warn!(at, help, "{}", warning.message);
            }
            return Ok(Some(Arc::new(config)));
        }
        if self.state().config_refusal.take().is_some() {
            tracing::info!("the configuration file is back to the configuration in force; nothing is refused any more");
        }
        Ok(None)
    }

    /// Brings a configuration into force, together with a policy that is offered with it; else alone. True when there
    /// was something to tell.
    pub(super) async fn take_config(&self, before: &Snapshot, config: Arc<Config>, offered: Option<Component>) -> bool {
        let table = Arc::new(config.table());
        let Some(component) = offered else {
            return match self.take_config_alone(before, config, table).await {
                Ok(()) => true,
                Err(error) => self.refused_config(&error),
            };
        };
        let error = match self.take_together(before, config.clone(), table.clone(), &component).await {
            Ok(()) => return true,
            Err(error) => error,
        };
        if config.policy.file != before.config.policy.file {
            return self.refused_config(&error);
        }
        let whole = self.still_offers(&component, &config).await;
        match self.take_config_alone(before, config, table).await {
            Ok(()) if !whole => true,
            Ok(()) => {
                self.state().refused = Some((component.hash, format!("{error:#}")));
                self.refused_policy(About::Source, &error);
                true
            }
            Err(error) => {
                let told = self.refused_config(&error);
                self.take_from_source(before, &component).await || told
            }
        }
    }

    async fn take_together(
        &self,
        before: &Snapshot,
        config: Arc<Config>,
        table: Arc<Table>,
        component: &Component,
    ) -> anyhow::Result<()> {
        let revision = self.judge_source(component, &config, table.clone()).await?;
        let fault_stats = Arc::new(FaultStats::new(config.policy.rollback));
        let place = Place::of_source(component, &config);
        let (published, policy) = (config.revision.to_string(), revision.id().to_string());
        let next = self.snapshot(before, config, table, revision, fault_stats)?;
        self.put_in_force(before, next, place).await;
        self.config_taken(&published);
        self.taken(Reload::Policy, &policy);
        Ok(())
    }

    async fn take_config_alone(&self, before: &Snapshot, config: Arc<Config>, table: Arc<Table>) -> anyhow::Result<()> {
        let standing = self.standing_in_force(&config);
        let revision = self.with_table(before.policy.clone(), &config, table.clone(), &standing).await?;
        before.fault_stats.set_limits(config.policy.rollback);
        let published = config.revision.to_string();
        let candidate = self.candidate_with_table(before, &config, table.clone()).await;
        let next = self.snapshot(before, config, table, revision, before.fault_stats.clone())?;
        let next = self.with_candidate(before, next, candidate).await;
        self.publish(before, next);
        self.config_taken(&published);
        Ok(())
    }

    /// The policy in force, on fresh instances.
    pub(super) async fn with_table(
        &self,
        policy: Arc<Revision>,
        config: &Config,
        table: Arc<Table>,
        standing: &Standing,
    ) -> anyhow::Result<Revision> {
        let offer = standing.offer(config, policy.name(), policy.id());
        let (asked, before) = (policy.clone(), policy.left_out().to_vec());
        let configured = self.in_workshop(move || asked.with_table(&offer, table)).await?;
        let revision = configured.map_err(|error| {
            standing.explain(error, (config, self.config_file.as_deref()), policy.name(), policy.id())
        })?;
        if revision.left_out() != before {
            tell_left_out(revision.id(), standing, revision.left_out());
        }
        Ok(revision)
    }

    fn config_taken(&self, revision: &str) {
        let mut state = self.state();
        state.config_refusal = None;
        state.config_loaded = self.proxy.clock.now();
        drop(state);
        self.taken(Reload::Config, revision);
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
        let view = self.proxy.line.with(|fleet, now| {
            for id in &rekeyed {
                fleet.forget_key_faults(now, id);
            }
            fleet.adopt(table.clone(), settings)
        });
        self.proxy.metrics.set_table(&table);
        Ok(Snapshot::new(config, view, Arc::new(revision), fault_stats, targets))
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
