//! Finding the component of a revision.

use std::sync::Arc;

use pointsman_engine::{Compiled, Engine, LoadError, Revision};
use pointsman_store::{StoreError, StoreReader};

use super::ReplayError;

/// The component that recorded questions are put to.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// The one inside this binary.
    Embedded,
    /// A component from a file.
    File {
        /// As it is named in the report.
        name: String,
        /// The file's bytes.
        bytes: Vec<u8>,
    },
    /// A revision that the store keeps, or the one inside this binary.
    Revision(String),
}

/// Finds and compiles components, each once.
pub(super) struct Components {
    engine: Engine,
    store: StoreReader,
    found: Vec<(String, Option<Arc<Compiled>>)>,
}

impl Components {
    /// From this store, over a connection that nobody else is using.
    pub(super) fn new(engine: Engine, store: StoreReader) -> Self {
        Self { engine, store, found: Vec::new() }
    }

    /// The component of a revision; none: it is not kept any more.
    ///
    /// # Errors
    /// When the store fails, or it does not compile.
    pub(super) fn of_revision(&mut self, revision: &str) -> Result<Option<Arc<Compiled>>, ReplayError> {
        if let Some((_, compiled)) = self.found.iter().find(|(known, _)| known == revision) {
            return Ok(compiled.clone());
        }
        let compiled = match self.bytes(revision)? {
            Some(bytes) => Some(self.compile(&bytes, &format!("revision {revision}"))?),
            None => None,
        };
        self.found.push((revision.to_owned(), compiled.clone()));
        Ok(compiled)
    }

    /// The one that was chosen; the recorded revision of the same bytes is the same.
    ///
    /// # Errors
    /// When there is no such revision, or it does not compile.
    pub(super) fn chosen(&mut self, chosen: &Chosen) -> Result<Arc<Compiled>, ReplayError> {
        let compiled = match chosen {
            Chosen::Embedded => self.compile(Engine::embedded_bytes(), "the policy inside this binary")?,
            Chosen::File { name, bytes } => self.compile(bytes, name)?,
            Chosen::Revision(revision) => {
                let unknown = || ReplayError::UnknownRevision(revision.clone());
                self.of_revision(revision)?.ok_or_else(unknown)?
            }
        };
        self.found.push((compiled.id().to_string(), Some(compiled.clone())));
        Ok(compiled)
    }

    fn bytes(&self, revision: &str) -> Result<Option<Vec<u8>>, StoreError> {
        if *Revision::id_of(Engine::embedded_bytes()) == *revision {
            return Ok(Some(Engine::embedded_bytes().to_vec()));
        }
        self.store.policy_component(revision)
    }

    fn compile(&self, bytes: &[u8], name: &str) -> Result<Arc<Compiled>, ReplayError> {
        let refused = |why: LoadError| ReplayError::NoPolicy { name: name.to_owned(), why };
        self.engine.compile(bytes).map(Arc::new).map_err(refused)
    }
}
