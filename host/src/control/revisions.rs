//! Compiled components, and the revisions that are in use.

use std::sync::{Arc, Weak};

use pointsman_core::lifecycle::Hash;
use pointsman_engine::{Compiled, Revision};

/// Compiled components kept in memory, the one in force among them: going back and forth between them takes no time.
const KEPT_COMPILED: usize = 3;

/// Recently compiled components, and revisions that are alive.
pub(super) struct Revisions {
    /// Compiled components, the latest last.
    compiled: Vec<(Hash, Arc<Compiled>)>,
    /// Every revision that was in force and that exchanges may still use.
    alive: Vec<Weak<Revision>>,
}

impl Revisions {
    pub(super) fn new(compiled: (Hash, Arc<Compiled>), policy: &Arc<Revision>) -> Self {
        Self { compiled: vec![compiled], alive: vec![Arc::downgrade(policy)] }
    }

    /// The compiled component, where it is kept.
    pub(super) fn compiled(&self, hash: Hash) -> Option<Arc<Compiled>> {
        self.compiled.iter().find(|(known, _)| *known == hash).map(|(_, compiled)| compiled.clone())
    }

    pub(super) fn remember(&mut self, hash: Hash, compiled: Arc<Compiled>) {
        self.compiled.retain(|(known, _)| *known != hash);
        self.compiled.push((hash, compiled));
        let surplus = self.compiled.len().saturating_sub(KEPT_COMPILED);
        self.compiled.drain(..surplus);
    }

    /// These are in force now.
    pub(super) fn track(&mut self, policies: &[Arc<Revision>]) {
        self.alive.retain(|revision| revision.strong_count() > 0);
        for policy in policies {
            if !self.alive.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(policy))) {
                self.alive.push(Arc::downgrade(policy));
            }
        }
    }

    /// Revisions in force or still used.
    pub(super) fn live(&self) -> u64 {
        self.alive.iter().filter(|revision| revision.strong_count() > 0).count() as u64
    }
}
