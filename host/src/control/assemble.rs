//! The proxy with its first configuration and policy, under control.

use std::path::PathBuf;
use std::sync::Arc;

use pointsman_core::fleet::Fleet;
use pointsman_engine::Engine;
use pointsman_engine::clock::Clock;
use pointsman_store::Store;

use super::{Control, first_policy, kept_states};
use crate::proxy::{FaultStats, Proxy, SharedFleet, Snapshot, Target};
use crate::telemetry::logs::ExchangeLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Connector;
use pointsman_config::Config;

/// Parts of a proxy besides its configuration.
pub(crate) struct Parts<'a> {
    /// The clock of all logic.
    pub clock: Clock,
    /// The engine of its policies.
    pub engine: Engine,
    /// The store of its records, and of the last run's state.
    pub store: &'a Store,
    /// The line per exchange.
    pub log: ExchangeLog,
    /// Connections to backends at a time.
    pub max_upstream_connections: usize,
    /// Memory for requests where the configuration does not say, bytes.
    pub default_memory: u64,
}

/// Builds the fleet, loads the first policy, and puts both under control.
///
/// # Errors
/// When no policy can be used, or a backend cannot be sent to.
pub(crate) async fn assemble(
    config: Arc<Config>,
    config_file: Option<PathBuf>,
    parts: Parts<'_>,
) -> anyhow::Result<Control> {
    let Parts { clock, engine, store, log, max_upstream_connections, default_memory } = parts;
    let table = Arc::new(config.table());
    let mut fleet = Fleet::new(config.fleet_settings(), clock.now().as_micros());
    let view = fleet.adopt(table.clone(), config.fleet_settings());
    kept_states::restore(&mut fleet, &table, store, clock.now());
    let policies = store.policies();
    let now = clock.now();
    let first =
        first_policy(engine.clone(), &policies, config.clone(), table.clone(), now, config_file.as_deref()).await?;
    let connector = Connector::with_native_roots(max_upstream_connections);
    let (policy, fault_stats) = (first.revision.clone(), Arc::new(FaultStats::new(config.policy.rollback)));
    let snapshot = Snapshot::new(config.clone(), view, policy, fault_stats, Target::all(&config, &connector, None)?);
    let metrics = Metrics::new(&table, env!("CARGO_PKG_VERSION"), clock.now());
    let fleet = Arc::new(SharedFleet::new(fleet, clock));
    let proxy = Proxy::new(clock, fleet, metrics, log, store.handle(), store.reader(), snapshot);
    let proxy = Arc::new(proxy.with_affinity(kept_states::homes(store, clock.now())).with_memory(default_memory));
    Ok(Control::new(proxy, engine, connector, config_file, policies, first))
}
