//! The server: everything that runs for as long as the process does, started and stopped in one place.

mod discovery;
mod door;
mod guard;
mod health_check;
mod ids;
mod listen;
mod local;
mod models;
mod service;
mod shutdown;
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
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use listen::{ListenLimits, Listener};
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
    let clock = Clock::start();
    let store = open_store(&config, clock)?;
    let engine = Engine::new(engine_limits(&config))?;
    let max_component_bytes = engine.limits().max_component_bytes;
    let parts = Parts { clock, engine, store: &store, log };
    let control = Arc::new(control::assemble(config.clone(), config_file, parts).await?);
    let proxy = control.proxy().clone();

    let [stop, cut, over] = std::array::from_fn(|_| CancellationToken::new());
    let (listeners, tasks) = (TaskTracker::new(), TaskTracker::new());
    let downstream = listen_downstream(&config, proxy.clone()).await?;
    let addr = downstream.addr()?;
    let admin = listen_admin(&config).await?;
    let admin_addr = admin.local_addr()?;
    let admin_state = AdminState {
        control: control.clone(),
        metrics: proxy.metrics.clone(),
        queries: store.queries(),
        explain,
        store: store.handle(),
        events: proxy.events.clone(),
        stop: over.clone(),
        max_component_bytes,
        token: {
            let proxy = proxy.clone();
            Arc::new(move || proxy.snapshot().config.admin.token.as_ref().map(|token| AdminToken::new(token.expose())))
        },
        clock: Arc::new(move || clock.now()),
    };

    listeners.spawn(downstream.serve(stop.clone(), cut.clone()));
    // What exchanges under way need goes on until they are over.
    tasks.spawn(serve_admin(admin, admin_state, over.clone()));
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

async fn listen_downstream(config: &Config, proxy: Arc<Proxy>) -> anyhow::Result<Listener> {
    let s = &config.server;
    let limits = ListenLimits {
        max_connections: s.max_connections as usize,
        max_header_bytes: s.max_header_bytes as usize,
        header_read_timeout: s.header_read_timeout,
        unread_timeout: s.unread_timeout,
        keep_alive: s.keep_alive,
    };
    Listener::bind(s.listen, limits, Service::new(proxy, Exposure::of(s.listen.ip())))
        .await
        .with_context(|| format!("cannot listen on {} (server.listen); is something else listening there?", s.listen))
}

async fn listen_admin(config: &Config) -> anyhow::Result<TcpListener> {
    let addr = config.admin.listen;
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("cannot listen on {addr} (admin.listen); is something else listening there?"))
}

async fn serve_admin(listener: TcpListener, state: AdminState, stop: CancellationToken) {
    if let Err(error) = admin::serve(listener, state, stop.cancelled_owned()).await {
        tracing::error!(%error, "the admin listener failed");
    }
}

/// The bounds of policies that a configuration asks for.
pub fn engine_limits(config: &Config) -> EngineLimits {
    EngineLimits {
        decide_ms: u32::try_from(config.policy.deadline.as_millis()).unwrap_or(u32::MAX),
        memory_bytes: config.policy.memory_mb as usize * 1024 * 1024,
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
        retention_days: Some(config.store.retention_days),
        max_bytes: config.store.max_mb.map(|mb| u64::from(mb) << 20),
        journal: JournalLimits {
            backlog_bytes: (config.journal.backlog_mb as usize) << 20,
            retention_days: Some(config.journal.retention_days),
            max_bytes: Some(u64::from(config.journal.max_mb) << 20),
        },
    };
    Store::open(path, limits, Arc::new(move || clock.now())).context("the store cannot be opened (store.path)")
}
