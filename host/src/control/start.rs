//! The policy that a start comes up with; core's `lifecycle/history` has the rules.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::body::Bytes;
use pointsman_config::Config;
use pointsman_core::contract::OnFault;
use pointsman_core::lifecycle::history::{End, History, Preference, Source};
use pointsman_core::lifecycle::{Hash, shown};
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_engine::{Cancellation, Compiled, Engine, LoadError, Revision};
use pointsman_store::PolicyStore;

use super::component::{Component, source_of};
use super::settings::{Provenance, tell_left_out};
use super::{kept, rows};

/// The first policy of a process.
pub struct First {
    /// Revision that is in force at the start.
    pub revision: Arc<Revision>,
    /// Its component, compiled.
    pub compiled: Arc<Compiled>,
    /// Its component's bytes.
    pub component: Component,
    /// History in which it is in force.
    pub history: History,
    /// The reason why it is not the configured policy; `None`: it is, or something else was wanted later.
    pub error: Option<String>,
    /// The source's content, where that was refused, and why.
    pub refused: Option<(Hash, String)>,
    /// The reason why the history is not in the store; `None`: it is.
    pub not_kept: Option<String>,
}

struct Loaded {
    compiled: Compiled,
    revision: Revision,
}

/// The policy that was chosen of those there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The configured source.
    Source,
    /// The one that was in force before.
    Kept,
    /// The embedded one, in the place of the configuration's.
    StandIn,
}

/// Result of trying a candidate.
struct Chosen {
    component: Component,
    loaded: Loaded,
    which: Which,
    error: Option<String>,
    /// True where the source is compiled while this one decides.
    is_late: bool,
}

struct Starting<'a> {
    engine: Engine,
    config_file: Option<&'a Path>,
    policies: &'a PolicyStore,
    config: Arc<Config>,
    file: Option<PathBuf>,
    table: Arc<Table>,
    history: History,
}

/// Chooses, loads and writes down the first policy.
///
/// # Errors
/// When neither what the configuration names nor what was in force before can be used.
pub(super) async fn first_policy(
    engine: Engine,
    policies: &PolicyStore,
    config: Arc<Config>,
    table: Arc<Table>,
    now: Timestamp,
    config_file: Option<&Path>,
) -> anyhow::Result<First> {
    let history = match policies.load() {
        Ok(rows) => rows::to_history(rows),
        Err(error) => {
            tracing::error!(%error, "the policies of the last run could not be read from the store");
            History::default()
        }
    };
    let max_bytes = engine.limits().max_component_bytes;
    let file = source_of(&config);
    let source = Component::of_source(file.as_deref(), max_bytes).await;
    let offered = source.as_ref().ok().map(|source| source.hash);
    let starting = Starting { engine, config_file, policies, config, file, table, history };
    let chosen = starting.choose(source).await?;
    Ok(starting.write_down(chosen, offered, now).await)
}

impl Starting<'_> {
    async fn choose(&self, source: anyhow::Result<Component>) -> anyhow::Result<Chosen> {
        let file = self.file.as_deref();
        let offered = source.as_ref().ok().map(|source| source.hash);
        let readable = match &source {
            Ok(source) => Ok(source.hash),
            Err(error) => Err(format!("{error:#}")),
        };
        let preference = self.history.preference(file, readable);
        let error = match (preference, source) {
            (Preference::Source, source) => {
                let component = source?;
                match self.load_source_in_time(&component).await {
                    Some(Ok(loaded)) => {
                        return Ok(Chosen { component, loaded, which: Which::Source, error: None, is_late: false });
                    }
                    Some(Err(error)) => error.context(format!("{} is refused", shown(file))),
                    None => return self.meanwhile(&component).await,
                }
            }
            (Preference::Kept, source) => match self.load_kept().await {
                Ok((component, loaded)) => {
                    return Ok(Chosen { component, loaded, which: Which::Kept, error: None, is_late: false });
                }
                Err(error) => {
                    let error = error.context(self.which_cannot_be_used());
                    let Ok(component) = source else { return Err(error) };
                    let Ok(loaded) = self.load_source(&component).await else { return Err(error) };
                    let error = Some(format!("{error:#}"));
                    return Ok(Chosen { component, loaded, which: Which::Source, error, is_late: false });
                }
            },
            (Preference::Instead(why), _) => anyhow::anyhow!("{why}"),
        };
        // A component that costs too much to compile is no reason to be down: it would be so at every start.
        let is_cost = matches!(
            error.downcast_ref(),
            Some(LoadError::CompileMemory { .. } | LoadError::CompileTime { .. } | LoadError::CompilerKilled { .. })
        );
        if is_cost && self.may_stand_in() && self.history.in_force().is_none_or(|entry| Some(entry.hash) == offered) {
            let (component, loaded) = self.load_embedded().await?;
            return Ok(Chosen {
                component,
                loaded,
                which: Which::StandIn,
                error: Some(format!("{error:#}")),
                is_late: false,
            });
        }
        // The same component would be refused again, and without another there is nothing to come up with.
        if self.history.in_force().is_none_or(|entry| Some(entry.hash) == offered) {
            return Err(error);
        }
        match self.load_kept().await {
            Ok((component, loaded)) => {
                let error = Some(format!("{error:#}"));
                Ok(Chosen { component, loaded, which: Which::Kept, error, is_late: false })
            }
            Err(kept) => bail!("{error:#}; nor can what was in force before be used: {kept:#}"),
        }
    }

    /// It may be an upload that nobody remembers.
    fn which_cannot_be_used(&self) -> String {
        let which = self.history.in_force().map_or_else(String::new, |entry| {
            format!(", revision {} ({})", entry.hash.revision(), entry.origin.shown())
        });
        format!("the policy that was in force{which}, cannot be used")
    }

    async fn load(
        &self,
        component: &Component,
        standing: Provenance,
        cancellation: &Cancellation,
    ) -> anyhow::Result<Loaded> {
        let (engine, bytes, cancellation) = (self.engine.clone(), component.bytes.clone(), cancellation.clone());
        let (config, table, file) = (self.config.clone(), self.table.clone(), self.config_file.map(Path::to_owned));
        tokio::task::spawn_blocking(move || {
            let compiled = engine.compile_unless(&bytes, &cancellation)?;
            let (own, id) = (compiled.name(), compiled.id());
            let configured = compiled.configure(standing.offer(&config, own, id), table);
            let revision = configured.map_err(|error| standing.explain(error, (&config, file.as_deref()), own, id))?;
            tell_left_out(id, &standing, revision.left_out());
            anyhow::Ok(Loaded { compiled, revision })
        })
        .await?
    }

    async fn load_source(&self, component: &Component) -> anyhow::Result<Loaded> {
        self.load(component, Provenance::source(&self.config), &Cancellation::default()).await
    }

    /// None where it takes longer than [`SOURCE_LIMIT`]: something else decides meanwhile. What was in force before is waited for,
    /// and so is a policy without which nothing may be decided.
    async fn load_source_in_time(&self, component: &Component) -> Option<anyhow::Result<Loaded>> {
        let is_known = self.history.in_force().is_some_and(|entry| entry.hash == component.hash);
        let has_other = self.history.in_force().is_some() || self.may_stand_in();
        let cancellation = Cancellation::default();
        let loading = self.load(component, Provenance::source(&self.config), &cancellation);
        if is_known || !has_other {
            return Some(loading.await);
        }
        let loaded = tokio::time::timeout(self.config.policy.start_wait, loading).await;
        // What is not awaited any more is compiled again, as any other change of the file.
        cancellation.cancel();
        loaded.ok()
    }

    /// The policy that decides while the source is compiled: the one in force before, else the embedded one.
    async fn meanwhile(&self, source: &Component) -> anyhow::Result<Chosen> {
        if self.history.in_force().is_some()
            && let Ok((component, loaded)) = self.load_kept().await
        {
            return Ok(Chosen { component, loaded, which: Which::Kept, error: None, is_late: true });
        }
        if self.may_stand_in() {
            let (component, loaded) = self.load_embedded().await?;
            return Ok(Chosen { component, loaded, which: Which::StandIn, error: None, is_late: true });
        }
        let (component, loaded) = (source.clone(), self.load_source(source).await?);
        Ok(Chosen { component, loaded, which: Which::Source, error: None, is_late: false })
    }

    /// True where the embedded policy may decide in the place of the configured one.
    fn may_stand_in(&self) -> bool {
        self.config.policy.on_fault == OnFault::AskDefault
    }

    async fn load_embedded(&self) -> anyhow::Result<(Component, Loaded)> {
        let component = Component::new(Bytes::from_static(Engine::embedded_bytes()));
        let loaded = self.load(&component, Provenance::embedded(), &Cancellation::default()).await?;
        Ok((component, loaded))
    }

    async fn load_kept(&self) -> anyhow::Result<(Component, Loaded)> {
        let entry = self.history.in_force().context("nothing was in force")?;
        let component = kept::component(self.policies, entry.hash).await?;
        let standing = Provenance::kept(entry, &self.history, &self.config);
        let loaded = self.load(&component, standing, &Cancellation::default()).await?;
        Ok((component, loaded))
    }

    async fn write_down(self, chosen: Chosen, offered: Option<Hash>, now: Timestamp) -> First {
        let Chosen { component, loaded: Loaded { compiled, revision }, which, error, is_late } = chosen;
        let (hash, file) = (component.hash, self.file.as_deref());
        let mut history = self.history;
        let is_in_force = |file| history.in_force().is_some_and(|entry| entry.hash == hash && entry.is_of(file));
        let (incoming, is_source) = match which {
            Which::Source => (Some(Provenance::source(&self.config)).filter(|_| !is_in_force(file)), true),
            Which::StandIn => (Some(Provenance::embedded()).filter(|_| !is_in_force(None)), false),
            Which::Kept => (None, false),
        };
        if let Some(standing) = incoming {
            let changed = || format!("{} had changed when Pointsman started", shown(file));
            history.take(now, standing.incoming(&component), End::Replaced, &error.clone().unwrap_or_else(changed));
        }
        if is_source {
            history.source = Some(Source { file: file.map(Into::into), hash });
        }
        if is_late {
            let (file, revision) = (shown(file), hash.revision());
            tracing::warn!(policy = revision, "{file} takes long to be compiled; until then another policy decides");
        } else if let Some(error) = &error {
            tracing::error!(
                error,
                policy = hash.revision(),
                "the policy that should be in force cannot be used; started with another"
            );
        } else if !is_source {
            let (revision, origin) = (hash.revision(), history.in_force().map(|entry| entry.origin.shown()));
            tracing::warn!(
                revision,
                origin,
                "the policy in force is not the configuration's: it was uploaded or rolled back to, and stays until the policy file changes"
            );
        }
        // A file that is looked at again must not be judged and told again.
        let refused = error.clone().zip(offered).filter(|_| !is_source).map(|(why, hash)| (hash, why));
        let not_kept = kept::save(self.policies, &history, vec![component.clone()]).await;
        First {
            revision: Arc::new(revision),
            compiled: Arc::new(compiled),
            component,
            history,
            error,
            refused,
            not_kept,
        }
    }
}
