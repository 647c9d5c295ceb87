//! The policy that a start comes up with; core's `lifecycle/history` has the rules.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use pointsman_config::Config;
use pointsman_core::lifecycle::history::{End, History, Preference, Source};
use pointsman_core::lifecycle::{Hash, shown};
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_engine::{Compiled, Engine, Revision};
use pointsman_store::PolicyStore;

use super::component::{Component, source_of};
use super::settings::{Provenance, tell_left_out};
use super::{kept, rows};

/// The first policy of a process.
pub struct First {
    /// In force.
    pub revision: Arc<Revision>,
    /// Its component, compiled.
    pub compiled: Arc<Compiled>,
    /// Its component's bytes.
    pub component: Component,
    /// With it in force.
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

/// Result of trying a candidate.
struct Chosen {
    component: Component,
    loaded: Loaded,
    is_source: bool,
    error: Option<String>,
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
                match self.load_source(&component).await {
                    Ok(loaded) => return Ok(Chosen { component, loaded, is_source: true, error: None }),
                    Err(error) => error.context(format!("{} is refused", shown(file))),
                }
            }
            (Preference::Kept, source) => match self.load_kept().await {
                Ok((component, loaded)) => return Ok(Chosen { component, loaded, is_source: false, error: None }),
                Err(error) => {
                    let error = error.context(self.which_cannot_be_used());
                    let Ok(component) = source else { return Err(error) };
                    let Ok(loaded) = self.load_source(&component).await else { return Err(error) };
                    let error = Some(format!("{error:#}"));
                    return Ok(Chosen { component, loaded, is_source: true, error });
                }
            },
            (Preference::Instead(why), _) => anyhow::anyhow!("{why}"),
        };
        // The same component would be refused again, and without another there is nothing to come up with.
        if self.history.in_force().is_none_or(|entry| Some(entry.hash) == offered) {
            return Err(error);
        }
        match self.load_kept().await {
            Ok((component, loaded)) => {
                let error = Some(format!("{error:#}"));
                Ok(Chosen { component, loaded, is_source: false, error })
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

    async fn load(&self, component: &Component, standing: Provenance) -> anyhow::Result<Loaded> {
        let (engine, bytes) = (self.engine.clone(), component.bytes.clone());
        let (config, table, file) = (self.config.clone(), self.table.clone(), self.config_file.map(Path::to_owned));
        tokio::task::spawn_blocking(move || {
            let compiled = engine.compile(&bytes)?;
            let (own, id) = (compiled.name(), compiled.id());
            let configured = compiled.configure(standing.offer(&config, own, id), table);
            let revision = configured.map_err(|error| standing.explain(error, (&config, file.as_deref()), own, id))?;
            tell_left_out(id, &standing, revision.left_out());
            anyhow::Ok(Loaded { compiled, revision })
        })
        .await?
    }

    async fn load_source(&self, component: &Component) -> anyhow::Result<Loaded> {
        self.load(component, Provenance::source(&self.config)).await
    }

    async fn load_kept(&self) -> anyhow::Result<(Component, Loaded)> {
        let entry = self.history.in_force().context("nothing was in force")?;
        let component = kept::component(self.policies, entry.hash).await?;
        let loaded = self.load(&component, Provenance::kept(entry, &self.history, &self.config)).await?;
        Ok((component, loaded))
    }

    async fn write_down(self, chosen: Chosen, offered: Option<Hash>, now: Timestamp) -> First {
        let Chosen { component, loaded: Loaded { compiled, revision }, is_source, error } = chosen;
        let (hash, file) = (component.hash, self.file.as_deref());
        let mut history = self.history;
        if is_source {
            let incoming = Provenance::source(&self.config).incoming(&component);
            if history.in_force().is_none_or(|entry| entry.hash != hash || !entry.is_of(file)) {
                let why =
                    error.clone().unwrap_or_else(|| format!("{} had changed when Pointsman started", shown(file)));
                history.take(now, incoming, End::Replaced, &why);
            }
            history.source = Some(Source { file: file.map(Into::into), hash });
        }
        if let Some(error) = &error {
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
