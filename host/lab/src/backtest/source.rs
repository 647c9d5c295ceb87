//! Finding the journal and the policies of a backtest.

use std::path::Path;

use pointsman_engine::{Compiled, Engine, EngineLimits};
use pointsman_store::StoreReader;

use crate::command::compile_in;

/// An engine with room for a world on every processor, twice, and for instances that are yet to be taken apart: a thread
/// does that which gives way to all others. Decisions may take as long as they may anywhere: how busy this
/// machine is must not decide what becomes of a world.
///
/// # Errors
/// The machine cannot run policies.
pub(super) fn engine() -> Result<Engine, String> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let max_instances = u32::try_from(threads).unwrap_or(64).saturating_mul(8).max(64);
    let limits = EngineLimits { max_instances, decide_ms: EngineLimits::MAX_DECIDE_MS, ..EngineLimits::default() };
    Engine::new(limits).map_err(|error| error.to_string())
}

/// A policy and what it is called.
pub(super) struct Named {
    /// For people.
    pub name: String,
    /// The policy.
    pub policy: Compiled,
}

/// The policy of a component file, or `default`.
///
/// # Errors
/// It cannot be read, or is no policy.
pub(super) fn of_file(engine: &Engine, file: &Path) -> Result<Named, String> {
    compile_in(engine, file).map(|policy| Named { name: file.display().to_string(), policy })
}

/// The policy to compare with: of this file, `default`, or a revision that the store keeps.
///
/// # Errors
/// There is no such policy.
pub(super) fn named(engine: &Engine, reader: &StoreReader, name: &str) -> Result<Named, String> {
    if name == "default" || Path::new(name).exists() {
        return of_file(engine, Path::new(name));
    }
    let is_revision = name.len() >= 6 && name.chars().all(|c| c.is_ascii_hexdigit());
    if !is_revision {
        return Err(format!(
            "there is no file {name}; give a component file, `default`, or a revision that the store keeps (`/api/policy`)"
        ));
    }
    of_revision(engine, reader, name)
}

/// The policy that ran, by its revision.
///
/// # Errors
/// The store does not keep it.
pub(super) fn of_revision(engine: &Engine, reader: &StoreReader, revision: &str) -> Result<Named, String> {
    let embedded = engine.compile_embedded().map_err(|error| error.to_string())?;
    if embedded.id().starts_with(revision) {
        return Ok(Named { name: "default".to_owned(), policy: embedded });
    }
    let kept = reader.policy_component(revision).map_err(|error| error.to_string())?;
    let bytes = kept.ok_or_else(|| {
        format!(
            "the store does not keep the component of revision {revision}, which decided in that time; \
             name it: --against FILE, or --against default"
        )
    })?;
    let policy = engine.compile(&bytes).map_err(|error| format!("the revision {revision} in the store: {error}"))?;
    Ok(Named { name: format!("revision {revision}"), policy })
}
