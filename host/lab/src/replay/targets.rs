//! The components that one thread puts questions to, each configured for the tables and settings it is asked under.

use std::sync::Arc;

use pointsman_core::journal::Setup;
use pointsman_engine::{Compiled, LoadError, Replay, Replayer, SettingsOffer};

/// Configured at a time; beyond it the one that was not asked for longest goes, with what its instance remembers.
const MAX_KEPT: usize = 16;

/// An instance's configuration, which questions are put to.
#[derive(Clone)]
pub(super) struct ReplayTarget {
    /// The compiled component that is asked.
    pub compiled: Arc<Compiled>,
    /// The recorded setup, whose table it is told.
    pub setup: Arc<Setup>,
    /// The settings it is offered.
    pub settings: Arc<SettingsOffer>,
}

/// One thread's. What a question shows of `state` is known at all of them.
#[derive(Default)]
pub(super) struct Desks {
    replay: Replay,
    /// The last one asked is the last.
    kept: Vec<(ReplayTarget, Arc<Replayer>)>,
}

impl ReplayTarget {
    /// The same component under the same setup: the same objects, as they are shared. The settings follow from them.
    fn is(&self, other: &ReplayTarget) -> bool {
        Arc::ptr_eq(&self.compiled, &other.compiled) && Arc::ptr_eq(&self.setup, &other.setup)
    }
}

impl Desks {
    /// Returns true if it is configured already.
    pub(super) fn knows(&self, desk: &ReplayTarget) -> bool {
        self.kept.iter().any(|(kept, _)| kept.is(desk))
    }

    /// The one that is meant.
    ///
    /// # Errors
    /// When it has to be configured, and does not start or refuses.
    pub(super) fn at(&mut self, desk: &ReplayTarget) -> Result<Arc<Replayer>, LoadError> {
        let place = self.kept.iter().rposition(|(kept, _)| kept.is(desk));
        let (desk, replayer) = match place {
            Some(last) if last + 1 == self.kept.len() => return Ok(self.kept[last].1.clone()),
            Some(place) => self.kept.remove(place),
            None => {
                let table = Arc::new(desk.setup.table.clone());
                (desk.clone(), Arc::new(self.replay.configure(&desk.compiled, &desk.settings, table)?))
            }
        };
        if self.kept.len() == MAX_KEPT {
            self.kept.remove(0);
        }
        self.kept.push((desk, replayer.clone()));
        Ok(replayer)
    }

    /// All that is known of `state`.
    pub(super) fn replay(&self) -> &Replay {
        &self.replay
    }
}
