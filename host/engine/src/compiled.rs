//! A compiled component that has not run yet.

use std::sync::Arc;

use pointsman_core::table::Table;

use super::background::Garbage;
use super::check::LoadError;
use super::code::Code;
use super::pool::Source;
use super::revision::Revision;
use super::runtime::Runtime;
use super::settings::SettingsOffer;

/// A component that is a policy by its contract, and has not run yet.
pub struct Compiled {
    runtime: Arc<Runtime>,
    code: Arc<Code>,
    imports: Vec<String>,
    from_cache: bool,
}

impl Compiled {
    pub(crate) fn new(runtime: Arc<Runtime>, code: Arc<Code>, imports: Vec<String>, from_cache: bool) -> Self {
        Self { runtime, code, imports, from_cache }
    }

    /// The second half of [`Engine::load`](super::Engine::load): configures it for a table and probes it.
    ///
    /// # Errors
    /// When it does not start, refuses the settings or the table, or fails a probe.
    pub fn configure(&self, settings: impl Into<SettingsOffer>, table: Arc<Table>) -> Result<Revision, LoadError> {
        Revision::new(self.source(), settings.into(), table)
    }

    /// A revision with an empty `state` of its own, in which not even the probes leave a trace.
    ///
    /// # Errors
    /// The same.
    pub fn isolated(&self, settings: impl Into<SettingsOffer>, table: Arc<Table>) -> Result<Revision, LoadError> {
        Revision::isolated(&self.source(), &settings.into(), &table)
    }

    /// An isolated revision with its own time for one decision, in ms, at most
    /// [`EngineLimits::MAX_DECIDE_MS`](super::EngineLimits::MAX_DECIDE_MS), which never takes an instance from another revision.
    ///
    /// # Errors
    /// The same.
    pub fn shadow(
        &self,
        settings: impl Into<SettingsOffer>,
        table: Arc<Table>,
        decide_ms: u32,
    ) -> Result<Revision, LoadError> {
        Ok(self.isolated(settings, table)?.for_shadow(decide_ms))
    }

    /// Returns the source of its instances.
    pub(crate) fn source(&self) -> Source {
        Source {
            runtime: self.runtime.clone(),
            code: self.code.clone(),
            shared: self.runtime.shared.clone(),
            waits_for_start: false,
        }
    }

    /// The name of its revisions.
    pub fn id(&self) -> &Arc<str> {
        &self.code.id
    }

    /// The name in the component, as `policy build` writes it: that of its project.
    pub fn name(&self) -> Option<&str> {
        self.code.name.as_deref()
    }

    /// Returns the names of the interfaces it imports, with their versions.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Returns true if it came from the cache of compiled components.
    pub fn is_from_cache(&self) -> bool {
        self.from_cache
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        self.runtime.background.defer_drop([Garbage::Code(self.code.clone())]);
    }
}
