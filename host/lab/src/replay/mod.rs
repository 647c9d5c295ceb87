//! `pointsman replay`: recorded questions put to a component again.
//!
//! The revision that decided must decide the same again, bit for bit ([`compare::exactness`]); of another one it is told
//! what it would have done otherwise ([`compare::divergence`]). Questions are asked in the order in which their exchanges
//! ended, of one instance that remembers them all, and a second time of a fresh instance each ([`fresh`]): a policy whose
//! answers depend on what an instance remembers is found out, though both runs may be the same every time.
//!
//! The journal is streamed: reading, asking, and asking fresh instances are threads with bounded queues between them.

pub mod compare;
mod components;
mod describe;
mod fresh;
mod report;
mod session;
pub mod summary;
mod targets;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::thread;

use pointsman_config::PolicySettings;
use pointsman_core::rfc3339::Rfc3339;
use pointsman_core::time::Timestamp;
use pointsman_engine::{Engine, EngineError, EngineLimits, LoadError};
use pointsman_store::{Journaled, StoreError, StoreReader};

use super::settings::GivenSettings;

pub use components::Chosen;
pub use report::ReplayReport;

use components::Components;
use fresh::Threads;
use session::Session;

/// Exchanges that are read before they are replayed.
const AHEAD: usize = 256;

/// Inputs of a replay: store, time and components.
#[derive(Clone, Debug)]
pub struct Plan {
    /// File of the store.
    pub store: PathBuf,
    /// Exchanges that ended then or later.
    pub since: Timestamp,
    /// End of the time: exchanges that ended before it.
    pub until: Timestamp,
    /// The component that is asked; none: the one that decided.
    pub policy: Option<Chosen>,
    /// Settings given for it; else it has what is its own in `configured`, where a table has its name, or the recorded ones that it
    /// knows.
    pub settings: GivenSettings,
    /// `[policy.settings]`, where a configuration is read.
    pub configured: PolicySettings,
    /// The bounds of policies. Its time for a decision is the longest there is, whatever they say: time is not compared.
    pub limits: EngineLimits,
    /// Number of examples kept for each kind of divergence.
    pub examples: usize,
}

/// The reason why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nothing in the journal.
    #[error(
        "the journal of {store} is empty: nothing was recorded, or all of it is older than it is kept; `sample` in [journal] says \
         which share of the exchanges is recorded"
    )]
    Empty {
        /// The store.
        store: String,
    },
    /// There is nothing in that time.
    #[error(
        "no exchange in the journal of {store} ended in that time; it has those from {first} to {last}: set --since and --until"
    )]
    NothingThen {
        /// The store.
        store: String,
        /// The end of the first exchange.
        first: String,
        /// The end of the last one.
        last: String,
    },
    /// There is no such revision.
    #[error(
        "revision {0} is not kept in this store, and is not the policy inside this binary: give its component file with --policy FILE"
    )]
    UnknownRevision(String),
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A component is no policy.
    #[error("{name} is no policy that can be asked: {why}")]
    NoPolicy {
        /// Its name in the report: a revision or a file.
        name: String,
        /// Reason for which it cannot be loaded.
        why: LoadError,
    },
    /// The candidate does not take what was recorded.
    #[error(
        "revision {revision} cannot be asked under the table and the settings of {exchange} of {started}: {why}{}",
        refusal_hint(why, *.is_own)
    )]
    Refused {
        /// The component.
        revision: String,
        /// The first exchange of that setup.
        exchange: String,
        /// Time of its arrival.
        started: String,
        /// Reason for which it cannot be loaded.
        why: LoadError,
        /// True for the revision that decided.
        is_own: bool,
    },
}

fn refusal_hint(why: &LoadError, is_own: bool) -> &'static str {
    let is_about_settings = matches!(why, LoadError::Refused(_) | LoadError::Configure(_));
    match (is_own, is_about_settings) {
        (true, _) => "; it took them then, so it is not deterministic, or has less memory or time than it had",
        (false, true) => "; give it settings of its own with --settings FILE or --set KEY=VALUE",
        (false, false) => "",
    }
}

impl ReplayError {
    /// Returns true if the arguments name something that does not exist.
    pub fn is_usage(&self) -> bool {
        match self {
            ReplayError::Store(StoreError::Sql(_) | StoreError::Thread(_) | StoreError::Closed) => false,
            ReplayError::Store(_)
            | ReplayError::Empty { .. }
            | ReplayError::NothingThen { .. }
            | ReplayError::UnknownRevision(_) => true,
            ReplayError::Engine(_) | ReplayError::NoPolicy { .. } | ReplayError::Refused { .. } => false,
        }
    }
}

/// Replays; `progress` is told how many exchanges are done, and of how many.
///
/// # Errors
/// When there is nothing to replay, or a component cannot be asked.
pub fn run(plan: &Plan, mut progress: impl FnMut(u64, u64)) -> Result<ReplayReport, ReplayError> {
    let reader = StoreReader::open(&plan.store)?;
    let expected = expected(plan, &reader)?;
    let limits = EngineLimits { decide_ms: EngineLimits::MAX_DECIDE_MS, ..plan.limits };
    // Components are looked up while the journal is being read.
    let mut components = Components::new(Engine::new(limits)?, StoreReader::open(&plan.store)?);
    let candidate = plan.policy.as_ref().map(|chosen| components.chosen(chosen)).transpose()?;
    thread::scope(|scope| {
        let (sender, journal) = sync_channel::<Journaled>(AHEAD);
        let reading = scope.spawn(move || {
            reader.journal(plan.since, plan.until, |journaled| match sender.send(journaled) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = Threads::start(scope, processors.saturating_sub(1));
        let mut session = Session::new(plan, components, candidate, expected, threads);
        for (done, journaled) in (1..).zip(journal) {
            if session.take(journaled)?.is_break() {
                break;
            }
            progress(done, expected);
        }
        let skipped = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        session.finish(skipped)
    })
}

/// Counts the exchanges to replay.
fn expected(plan: &Plan, reader: &StoreReader) -> Result<u64, ReplayError> {
    let store = || plan.store.display().to_string();
    let Some((first, last)) = reader.journal_span()? else { return Err(ReplayError::Empty { store: store() }) };
    match reader.journal_size(plan.since, plan.until)? {
        0 => {
            let [first, last] = [first, last].map(|time| Rfc3339(time).to_string());
            Err(ReplayError::NothingThen { store: store(), first, last })
        }
        expected => Ok(expected),
    }
}
