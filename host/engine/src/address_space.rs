//! Address space for the instances of policies: as much as the machine lets the process have.
//!
//! The fastest way gives every memory 4 GiB of address space and guard pages behind it, so that no access is checked: some
//! TiB, of which next to nothing is memory. A process under `ulimit -v`, a strict overcommit rule or valgrind may not have
//! that much. Smaller pools check every access instead, and the last resort has no pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::LOG_TARGET;
use super::guest::MAX_TABLE_ELEMENTS;
use super::limits::EngineLimits;
use super::size_limits;

/// Memories a component may have; JavaScript's have 2. Each reserves address space, not memory.
const MEMORIES_PER_COMPONENT: u32 = 2;

/// A way to reserve address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reservation {
    /// As much as makes checks unnecessary.
    Full,
    /// As much as instances may use; this part of them, 1 / n.
    Pool(u32),
    /// Nothing before an instance is started.
    OnDemand,
}

/// From the best to the last.
const RESERVATIONS: [Reservation; 4] =
    [Reservation::Full, Reservation::Pool(1), Reservation::Pool(8), Reservation::OnDemand];

impl Reservation {
    fn instances(self, limits: &EngineLimits) -> u32 {
        match self {
            Reservation::Full | Reservation::OnDemand => limits.max_instances,
            Reservation::Pool(part) => (limits.max_instances / part).max(1),
        }
    }

    /// The word for it; how large a part of a pool there is shows in no code.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Reservation::Full => "full",
            Reservation::Pool(_) => "pool",
            Reservation::OnDemand => "on-demand",
        }
    }

    /// Reads what [`Reservation::as_str`] returns.
    pub(super) fn parse(word: &str) -> Option<Self> {
        RESERVATIONS.into_iter().find(|reservation| reservation.as_str() == word)
    }

    fn config(self, limits: &EngineLimits) -> Config {
        let mut config = compiling(self, limits.memory_bytes as u64);
        if self != Reservation::OnDemand {
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(self.instances(limits), limits)));
        }
        config
    }
}

/// The settings that show in compiled code, for instances of this much memory, in bytes.
pub(super) fn compiling(reservation: Reservation, instance_bytes: u64) -> Config {
    let mut config = Config::new();
    config
        // The default doubles or triples the cost of a call.
        .concurrency_support(false)
        .epoch_interruption(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    match reservation {
        Reservation::Full => {}
        Reservation::Pool(_) => {
            config.memory_reservation(instance_bytes).memory_guard_size(0);
        }
        Reservation::OnDemand => {
            config.memory_reservation(0).memory_reservation_for_growth(0).memory_guard_size(0);
        }
    }
    config
}

/// Nothing is kept resident: a fresh instance then costs microseconds.
fn pool(instances: u32, limits: &EngineLimits) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(size_limits::MAX_MODULES))
        .total_memories(instances.saturating_mul(MEMORIES_PER_COMPONENT))
        .total_tables(instances.saturating_mul(4))
        .max_core_instances_per_component(size_limits::MAX_MODULES)
        .max_tables_per_component(8)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_memory_size(limits.memory_bytes)
        .table_elements(MAX_TABLE_ELEMENTS)
        .linear_memory_keep_resident(0)
        .table_keep_resident(0);
    pool
}

/// Starts wasmtime with the best reservation that the machine allows; `limits` then say how many instances there may be.
///
/// # Errors
/// The last reservation's, when even that fails.
pub(super) fn start(limits: &mut EngineLimits) -> wasmtime::Result<(Engine, Reservation)> {
    start_with(&RESERVATIONS, limits, |reservation, limits| {
        Engine::new(&reservation.config(limits)).map(|engine| (engine, reservation))
    })
}

fn start_with<E>(
    reservations: &[Reservation],
    limits: &mut EngineLimits,
    attempt: impl Fn(Reservation, &EngineLimits) -> wasmtime::Result<E>,
) -> wasmtime::Result<E> {
    let mut refused = None;
    for reservation in reservations {
        match attempt(*reservation, limits) {
            Ok(engine) => {
                limits.max_instances = reservation.instances(limits);
                if let Some(error) = refused {
                    let instances = limits.max_instances;
                    tracing::warn!(target: LOG_TARGET, ?reservation, instances, "this process may not have the address space that the policy engine would like ({error:#}): policies run with less, and decide more slowly; raise `ulimit -v` or the overcommit limit");
                }
                return Ok(engine);
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.expect("there is a reservation to try"))
}

/// Count of the instances alive, and the bound on it.
#[derive(Debug)]
pub(crate) struct InstanceCount {
    alive: AtomicU32,
    max: u32,
}

/// One of the instances that may be alive; gives its place back when it is dropped.
#[derive(Debug)]
pub(super) struct InstancePermit(Arc<InstanceCount>);

impl InstanceCount {
    pub(super) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { alive: AtomicU32::new(0), max })
    }

    pub(super) fn alive(&self) -> u32 {
        self.alive.load(Ordering::Relaxed)
    }

    /// A place for one more; none when all are taken.
    pub(super) fn take(self: &Arc<Self>) -> Option<InstancePermit> {
        let one_more = |alive| (alive < self.max).then_some(alive + 1);
        self.alive.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(InstancePermit(Arc::clone(self)))
    }
}

impl Drop for InstancePermit {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reservation_that_fits_is_taken() {
        let fits = |from: usize| {
            let mut limits = EngineLimits::default();
            let found = start_with(&RESERVATIONS, &mut limits, |reservation, _| {
                let place = RESERVATIONS.iter().position(|r| *r == reservation).unwrap();
                if place >= from { Ok(reservation) } else { Err(wasmtime::Error::msg("no room")) }
            });
            (found.ok(), limits.max_instances)
        };
        let all = EngineLimits::default().max_instances;
        assert_eq!(fits(0), (Some(Reservation::Full), all));
        assert_eq!(fits(1), (Some(Reservation::Pool(1)), all));
        assert_eq!(fits(2), (Some(Reservation::Pool(8)), all / 8));
        assert_eq!(fits(3), (Some(Reservation::OnDemand), all));
        assert_eq!(fits(4).0, None);
    }

    #[test]
    fn every_reservation_starts_an_engine() {
        let limits = EngineLimits { max_instances: 16, ..EngineLimits::default() };
        for reservation in RESERVATIONS {
            Engine::new(&reservation.config(&limits)).unwrap_or_else(|error| panic!("{reservation:?}: {error:#}"));
        }
    }

    #[test]
    fn no_more_instances_than_allowed_are_alive() {
        let count = InstanceCount::new(2);
        let (first, _second) = (count.take().unwrap(), count.take().unwrap());
        assert!(count.take().is_none());
        drop(first);
        assert!(count.take().is_some());
        assert_eq!(count.alive(), 1);
    }
}
