//! The server: everything that runs for as long as the process does, started and stopped in one place.

mod admission;
mod connections;
mod descriptors;
mod discovery;
mod door;
mod guard;
mod health_check;
mod ids;
mod listen;
mod local;
mod memory_limit;
mod models;
mod operator;
mod refusals;
mod request_body;
mod service;
mod shutdown;
mod spill;
mod state_log;
mod strangers;
mod unread;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pointsman_config::Config;
use pointsman_core::http::keyless::Exposure;
use pointsman_engine::clock::Clock;
use pointsman_engine::{Engine, EngineLimits};
use pointsman_store::{JournalLimits, Store, StoreLimits, StorePath};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use listen::{ListenLimits, Listener, Serve};
use operator::Operator;
use service::Service;
pub use shutdown::{AFTER_HURRY, Stopping};

use crate::admin::{self, AdminState, AdminToken, Explain};
use crate::control::{self, Control, Parts, kept_states};
use crate::proxy::Proxy;
use crate::telemetry::logs::ExchangeLog;

/// Inputs for starting the server.
pub struct Start {
    /// The checked configuration.
    pub config: Config,
    /// The file it came from, watched for changes; none: it never changes.
    pub config_file: Option<PathBuf>,
    /// Log of one line per exchange.
    pub log: ExchangeLog,
    /// Function that explains an exchange of the journal.
    pub explain: Explain,
}

/// A running server. Dropped, it is cut off; [`Running::shutdown`] is the civil way.
pub struct Running {
    /// Address of the clients' listener.
    pub addr: SocketAddr,
    /// Address of the operator's listener.
    pub admin_addr: SocketAddr,
    proxy: Arc<Proxy>,
    control: Arc<Control>,
    store: Option<Store>,
    stop: CancellationToken,
    cut: CancellationToken,
    over: CancellationToken,
    listeners: TaskTracker,
    tasks: TaskTracker,
    drain_timeout: Duration,
}

/// Starts everything: store, policy, fleet, listeners, watchers.
pub async fn start(start: Start) -> anyhow::Result<Running> {
    let Start { config, config_file, log, explain } = start;
    let config = Arc::new(config);
    let default_memory = memory_limit::default_budget();
    let shares = descriptors::divide(&config, config.server.memory_budget.unwrap_or(default_memory));
    let clock = Clock::start();
    let store = open_store(&config, clock)?;
    let engine = Engine::new(engine_limits(&config))?;
    let max_component_bytes = engine.limits().max_component_bytes;
    let max_upstream_connections = shares.upstream as usize;
    let parts = Parts { clock, engine, store: &store, log, max_upstream_connections, default_memory };
    let control = Arc::new(control::assemble(config.clone(), config_file, parts).await?);
    let proxy = control.proxy().clone();

    let [stop, cut, over] = std::array::from_fn(|_| CancellationToken::new());
    let (listeners, tasks) = (TaskTracker::new(), TaskTracker::new());
    let admin_state = admin_state(&control, &store, explain, over.clone(), clock, max_component_bytes);

    let limits = listen_limits(&config, "server.max_connections", shares.downstream);
    let service = Service::new(proxy.clone(), Exposure::of(config.server.listen.ip()));
    let downstream = listen(config.server.listen, "server.listen", limits, service).await?;
    let limits = listen_limits(&config, "admin.max_connections", shares.admin);
    let operator = Operator::new(admin::router(admin_state), limits.max_connections);
    let admin = listen(config.admin.listen, "admin.listen", limits, operator).await?;
    let (addr, admin_addr) = (downstream.addr()?, admin.addr()?);

    listeners.spawn(downstream.serve(stop.clone(), cut.clone()));
    // What exchanges under way need goes on until they are over.
    tasks.spawn(admin.serve(over.clone(), CancellationToken::new()));
    tasks.spawn(until(over.clone(), proxy.fleet.clone().run_timer()));
    tasks.spawn(until(over.clone(), kept_states::keep(proxy.clone())));
    tasks.spawn(until(over.clone(), state_log::run(proxy.clone())));
    tasks.spawn(until(stop.clone(), control.clone().run()));
    tasks.spawn(until(stop.clone(), control.shadow_loader().clone().run()));
    tasks.spawn(until(stop.clone(), health_check::run(proxy.clone())));
    tracing::info!(%addr, %admin_addr, policy = %proxy.snapshot().policy.id(), config = %config.revision, "listening");
    let drain_timeout = config.server.drain_timeout;
    Ok(Running {
        addr,
        admin_addr,
        proxy,
        control,
        store: Some(store),
        stop,
        cut,
        over,
        listeners,
        tasks,
        drain_timeout,
    })
}

/// The state of the operator's side, which ends when everything is over.
fn admin_state(
    control: &Arc<Control>,
    store: &Store,
    explain: Explain,
    over: CancellationToken,
    clock: Clock,
    max_component_bytes: usize,
) -> AdminState {
    let proxy = control.proxy().clone();
    AdminState {
        control: control.clone(),
        metrics: proxy.metrics.clone(),
        queries: store.queries(),
        explain,
        store: store.handle(),
        events: proxy.events.clone(),
        stop: over,
        max_component_bytes,
        token: {
            let proxy = proxy.clone();
            Arc::new(move || proxy.snapshot().config.admin.token.as_ref().map(|token| AdminToken::new(token.expose())))
        },
        clock: Arc::new(move || clock.now()),
    }
}

impl Running {
    /// Looks again at the configuration and policy files (SIGHUP).
    pub fn reload(&self) {
        self.control.look_again();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut.cancel();
        self.over.cancel();
    }
}

async fn until(stop: CancellationToken, task: impl Future<Output = ()>) {
    let _ = stop.run_until_cancelled(task).await;
}

/// The limits of a listener: those of clients' requests hold for the operator's too.
fn listen_limits(config: &Config, max_connections_setting: &'static str, max_connections: u32) -> ListenLimits {
    let s = &config.server;
    ListenLimits {
        max_connections_setting,
        max_connections: max_connections as usize,
        max_header_bytes: s.max_header_bytes as usize,
        header_read_timeout: s.header_read_timeout,
        unread_timeout: s.unread_timeout,
        keep_alive: s.keep_alive,
    }
}

async fn listen<S: Serve>(
    addr: SocketAddr,
    setting: &str,
    limits: ListenLimits,
    service: S,
) -> anyhow::Result<Listener<S>> {
    let listener = Listener::bind(addr, limits, service).await;
    listener.with_context(|| format!("cannot listen on {addr} ({setting}); is something else listening there?"))
}

/// The bounds of policies that a configuration asks for.
pub fn engine_limits(config: &Config) -> EngineLimits {
    EngineLimits {
        decide_ms: u32::try_from(config.policy.deadline.as_millis()).unwrap_or(u32::MAX),
        memory_bytes: config.policy.memory_mb as usize * 1024 * 1024,
        compile_memory_bytes: u64::from(config.policy.compile_memory_mb) << 20,
        ..EngineLimits::default()
    }
}

fn open_store(config: &Config, clock: Clock) -> anyhow::Result<Store> {
    let path = match &config.store.path {
        Some(path) => StorePath::File(path.clone()),
        None => StorePath::Memory,
    };
    let limits = StoreLimits {
        backlog: config.store.backlog as usize,
        backlog_bytes: (config.store.backlog_mb as usize) << 20,
        retention_days: Some(config.store.retention_days),
        max_bytes: Some(u64::from(config.store.max_mb) << 20),
        journal: JournalLimits {
            backlog_bytes: (config.journal.backlog_mb as usize) << 20,
            retention_days: Some(config.journal.retention_days),
            max_bytes: Some(u64::from(config.journal.max_mb) << 20),
        },
    };
    Store::open(path, limits, Arc::new(move || clock.now())).context("the store cannot be opened (store.path)")
}
