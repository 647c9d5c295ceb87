//! The recorded traffic and the policies of a backtest.

use std::ops::ControlFlow;

use pointsman_core::time::Timestamp;
use pointsman_engine::{Compiled, Engine, EngineLimits};
use pointsman_store::{Skipped, StoreError, StoreReader};

use super::gather::Gathering;
use super::past::{Past, TooFew};

/// The reason why there is no recorded traffic.
#[derive(Debug)]
pub enum ReadError {
    /// The store cannot be read.
    Store(StoreError),
    /// The journal has too little to say.
    TooFew(TooFew),
}

/// Reads the journal of exchanges that ended since one time and before another; `progress` is told how many are read, and of how
/// many. Returns the trails that could not be read, too.
///
/// # Errors
/// The store cannot be read, or has too few exchanges.
pub fn read(
    reader: &StoreReader,
    (since, until): (Timestamp, Timestamp),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Past, Skipped), ReadError> {
    let all = reader.journal_size(since, until).map_err(ReadError::Store)?;
    let (mut gathering, mut read) = (Gathering::default(), 0_u64);
    let skipped = reader.journal(since, until, |journaled| {
        gathering.add(journaled);
        read += 1;
        progress(read, all);
        ControlFlow::Continue(())
    });
    let skipped = skipped.map_err(ReadError::Store)?;
    Ok((gathering.finish().map_err(ReadError::TooFew)?, skipped))
}

/// An engine with room for a world on every processor, twice, and for instances that are yet to be taken apart: a thread
/// does that which gives way to all others. Decisions may take as long as they may anywhere.
///
/// # Errors
/// The machine cannot run policies.
pub fn engine() -> Result<Engine, String> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let max_instances = u32::try_from(threads).unwrap_or(64).saturating_mul(8).max(64);
    let limits = EngineLimits { max_instances, decide_ms: EngineLimits::MAX_DECIDE_MS, ..EngineLimits::default() };
    Engine::new(limits).map_err(|error| error.to_string())
}

/// A policy and what it is called.
pub struct Named {
    /// Name in reports: a revision, a file, or "default".
    pub name: String,
    /// The compiled component.
    pub policy: Compiled,
}

/// The policy that ran, by its revision.
///
/// # Errors
/// The store does not keep it.
pub fn of_revision(engine: &Engine, reader: &StoreReader, revision: &str) -> Result<Named, String> {
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
