//! The checked configuration: every value of it is valid.

mod backend;
mod client;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Commit, OnFault, Resume};
use pointsman_core::dialect::translate::Strictness;
use pointsman_core::exchange::{Budgets, ExhaustedStatus, StreamDefaults};
use pointsman_core::fleet;
use pointsman_core::fleet::health::CooldownSettings;
use pointsman_core::http::cors::AllowedOrigins;
use pointsman_core::journal::{Setup, Terms};
use pointsman_core::lifecycle::fault_breaker;
use pointsman_core::table::Table;

pub use backend::{BackendConfig, HealthCheck};
pub use client::{Client, Privileges};

use crate::outbound::Outbound;
use crate::secret::{KeyDigest, Secret};

/// Everything `pointsman.toml` and the environment say.
#[derive(Clone, Debug)]
pub struct Config {
    /// Section `[server]`: the clients' listener.
    pub server: Server,
    /// Section `[admin]`: the operator's listener.
    pub admin: Admin,
    /// Section `[store]`: the database.
    pub store: Store,
    /// Section `[journal]`: the record of decisions.
    pub journal: Journal,
    /// Section `[policy]`: the policy component.
    pub policy: Policy,
    /// Section `[stream]`: streamed answers.
    pub stream: Stream,
    /// Section `[limits]`: limits of one exchange.
    pub limits: ExchangeLimits,
    /// Section `[cooldown]`: exclusion of failing backends.
    pub cooldown: Cooldown,
    /// Section `[log]`: lines on standard error.
    pub log: Log,
    /// `[[backend]]`, at least one, in the order of the file.
    pub backends: Vec<BackendConfig>,
    /// Tables `[[client]]`; empty: no key is needed.
    pub clients: Vec<Client>,
    /// Files that it was made of beside its own: keys, certificates.
    pub secret_files: Vec<PathBuf>,
    /// Names this configuration: 12 hexadecimal digits of the SHA-256 of all that was set, secrets' values left out.
    pub revision: Arc<str>,
}

impl Config {
    /// The table the core and the policy see.
    pub fn table(&self) -> Table {
        let backends = self.backends.iter().map(|b| b.backend.clone()).collect();
        Table::new(backends, self.clients.iter().map(|c| c.name.to_string()).collect())
    }

    /// Returns the status of requests of this client (an index into `clients`) that the limits of all backends exhausted.
    pub fn exhausted_status(&self, client: u32) -> ExhaustedStatus {
        let own = self.clients.get(client as usize).and_then(|client| client.exhausted_status);
        own.unwrap_or(self.server.exhausted_status)
    }

    /// Returns what the requests of this client (an index into `clients`; none: no key is required) may say.
    pub fn privileges(&self, client: Option<u32>) -> &Privileges {
        let own = client.and_then(|client| self.clients.get(client as usize)).map(|client| &client.privileges);
        own.unwrap_or(&self.server.privileges)
    }

    /// Returns the limits of one exchange.
    pub fn budgets(&self) -> Budgets {
        let l = &self.limits;
        Budgets {
            max_attempts: l.max_attempts,
            max_waits: l.max_waits,
            max_wait: l.max_wait,
            max_total: l.max_exchange,
        }
    }

    /// Returns the defaults for streams, where the policy does not decide.
    pub fn stream_defaults(&self) -> StreamDefaults {
        StreamDefaults { commit: self.stream.commit, resume: self.stream.resume }
    }

    /// Returns the fleet's settings: cooldowns, the emergency lane's share, and the queue's length.
    pub fn fleet_settings(&self) -> fleet::Settings {
        let fraction = self.policy.emergency_fraction();
        let c = self.cooldown;
        fleet::Settings {
            emergency_fraction: fraction.unwrap_or(0.1).clamp(0.0, 1.0),
            cooldown: CooldownSettings {
                base: c.base,
                max: c.max,
                jitter: c.jitter,
                retry_after_floor: c.retry_after_floor,
                retry_after_cap: c.retry_after_cap,
            },
            queue_length: self.limits.queue_length as usize,
        }
    }

    /// All of it that decides what becomes of a request, under the policy that it names.
    pub fn setup(&self) -> Setup {
        self.setup_under(self.policy.offer(None).json())
    }

    /// The same under a policy that is offered these settings, as JSON.
    pub fn setup_under(&self, settings: &str) -> Setup {
        let terms = |client: &Client| Terms {
            name: client.name.clone(),
            limits: client.limits,
            budget_usd_per_day: client.budget_usd_per_day,
            free_when_over_budget: client.free_when_over_budget,
            models: client.models.clone(),
        };
        Setup {
            table: self.table(),
            settings: settings.to_owned(),
            fleet: self.fleet_settings(),
            budgets: self.budgets(),
            streams: self.stream_defaults(),
            clients: self.clients.iter().map(terms).collect(),
        }
    }

    /// Returns true for the same configuration, including secrets and the name in the policy's file, which `revision`
    /// leaves out.
    pub fn is_same(&self, other: &Config) -> bool {
        let keys = |c: &Config| -> Vec<Option<Secret>> { c.backends.iter().map(|b| b.api_key.clone()).collect() };
        let clients = |c: &Config| -> Vec<KeyDigest> { c.clients.iter().map(|c| c.key).collect() };
        let headers = |c: &Config| -> Vec<_> { c.backends.iter().map(|b| b.headers.clone()).collect() };
        let outbounds = |c: &Config| -> Vec<Outbound> { c.backends.iter().map(|b| b.outbound.clone()).collect() };
        let queries = |c: &Config| -> Vec<_> { c.backends.iter().map(|b| b.query.clone()).collect() };
        self.revision == other.revision
            && self.policy.own_name == other.policy.own_name
            && keys(self) == keys(other)
            && clients(self) == clients(other)
            && headers(self) == headers(other)
            && outbounds(self) == outbounds(other)
            && self.admin.token == other.admin.token
            && queries(self) == queries(other)
    }

    /// The index of the client whose key this is. Every key is compared, each in constant time.
    pub fn client_of(&self, presented: &str) -> Option<usize> {
        let digest = KeyDigest::of(presented);
        self.clients.iter().enumerate().fold(
            None,
            |found, (i, client)| {
                if client.key.matches(&digest) { Some(i) } else { found }
            },
        )
    }
}

/// Disk for large requests that wait for memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spill {
    /// The folder.
    pub dir: PathBuf,
    /// The most that is taken of it, bytes.
    pub bytes: u64,
}

/// The clients' listener and its limits.
#[derive(Clone, Debug)]
pub struct Server {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Largest request body, decoded, bytes.
    pub max_body_bytes: u64,
    /// Memory for requests, bytes; none: by the memory that there is.
    pub memory_budget: Option<u64>,
    /// Disk for large requests that wait for memory; none: they are refused.
    pub spill: Option<Spill>,
    /// Largest request head, bytes.
    pub max_header_bytes: u32,
    /// Largest number of open connections; none: by the limit of open files.
    pub max_connections: Option<u32>,
    /// Time that a shutdown waits for exchanges under way.
    pub drain_timeout: Duration,
    /// Time for a client to send the request head.
    pub header_read_timeout: Duration,
    /// Time after which a client that reads nothing of its answer is disconnected.
    pub unread_timeout: Duration,
    /// Treatment of fields that a backend of another dialect cannot take.
    pub translation: Strictness,
    /// Status of requests that the limits of all backends exhausted.
    pub exhausted_status: ExhaustedStatus,
    /// Time that a client's connection may be idle between two requests.
    pub keep_alive: Duration,
    /// Origins whose pages may send requests from a browser.
    pub allowed_origins: AllowedOrigins,
    /// Headers that count of requests without a client key, where none is required.
    pub privileges: Privileges,
}

/// The operator's listener: address, token and connections.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Address and port; loopback when there is no token.
    pub listen: SocketAddr,
    /// The bearer token asked for.
    pub token: Option<Secret>,
    /// Largest number of open connections.
    pub max_connections: u32,
}

/// The record of what happened.
#[derive(Clone, Debug)]
pub struct Store {
    /// The SQLite file; none: in memory.
    pub path: Option<PathBuf>,
    /// Records older than this are dropped.
    pub retention_days: u32,
    /// The oldest records are dropped when the file is larger, in MiB.
    pub max_mb: u32,
    /// Records waiting to be written; above it new ones are dropped and counted.
    pub backlog: u32,
    /// Memory of the records that wait to be written, MiB.
    pub backlog_mb: u32,
}

/// The record that `explain`, `replay` and `backtest` read.
#[derive(Clone, Debug)]
pub struct Journal {
    /// The share of exchanges, 0 to 1; 0: none at all.
    pub sample: f64,
    /// Days after which records are deleted.
    pub retention_days: u32,
    /// The oldest ones are dropped when they take more, in MiB.
    pub max_mb: u32,
    /// Memory for records that wait to be written, MiB.
    pub backlog_mb: u32,
    /// Prompts and answers; none: they are not kept.
    pub bodies: Option<KeptBodies>,
}

/// Recording of prompts and answers.
#[derive(Clone, Debug)]
pub struct KeptBodies {
    /// The most of one, in KiB.
    pub max_body_kb: u32,
    /// Patterns whose matches are replaced before recording.
    pub redact: Arc<[regex::Regex]>,
}

/// The policy component and its limits.
#[derive(Clone, Debug)]
pub struct Policy {
    /// A component file; none: the embedded policy.
    pub file: Option<PathBuf>,
    /// The name in that file's component, as it was when the configuration was loaded; none: it has none, or could not be read.
    pub own_name: Option<String>,
    /// `[policy.settings]` as it is written: [`Policy::offer`] says whose each is.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Time limit of one decision.
    pub deadline: Duration,
    /// Memory of one instance, in MiB.
    pub memory_mb: u32,
    /// Memory to compile a component, in MiB.
    pub compile_memory_mb: u32,
    /// Time for which a start waits for a new content of the file to be compiled.
    pub start_wait: Duration,
    /// Fallback when the policy fails.
    pub on_fault: OnFault,
    /// Limits for rolling back a policy that keeps failing; `None`: never.
    pub rollback: Option<fault_breaker::FaultLimits>,
    /// Another policy that is asked the same and decides nothing.
    pub shadow: Option<Shadow>,
}

/// A policy that is asked beside the one in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Shadow {
    /// Path of a component file.
    pub file: PathBuf,
    /// `[policy.shadow.settings]`; none: it is offered what it would be as the policy in force.
    pub own_settings: Option<serde_json::Map<String, serde_json::Value>>,
    /// `[policy.settings]` as it is written.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Time limit of one of its decisions.
    pub deadline: Duration,
    /// The share of one processor it may use, above 0 and at most 1.
    pub core_share: f64,
}

/// Treatment of streams: commit gate, resume mode and keep-alive.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Commit gate where the policy does not decide.
    pub commit: Commit,
    /// Resume mode where the policy does not decide.
    pub resume: Resume,
    /// Interval of keep-alive comments to a waiting client; `None`: no comments.
    pub keepalive: Option<Duration>,
}

/// Limits of an exchange: attempts, waits and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeLimits {
    /// Number of attempts, at least 1.
    pub max_attempts: u32,
    /// Largest number of waits.
    pub max_waits: u32,
    /// Total time in the queue.
    pub max_wait: Duration,
    /// From arrival to the last byte.
    pub max_exchange: Duration,
    /// Exchanges waiting at a time, all together.
    pub queue_length: u32,
}

/// Lengths of cooldowns, where a provider names none and where it does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cooldown {
    /// The first cooldown where the provider names none; it doubles with every failure.
    pub base: Duration,
    /// Longest cooldown without a Retry-After.
    pub max: Duration,
    /// Up to this share is added by chance, 0 to 1.
    pub jitter: f64,
    /// A provider's Retry-After below this counts as this.
    pub retry_after_floor: Duration,
    /// A provider's Retry-After above this counts as this.
    pub retry_after_cap: Duration,
}

/// Log lines on standard error: which, and in what form.
#[derive(Clone, Debug)]
pub struct Log {
    /// Directives for the `tracing` filter.
    pub level: String,
    /// Format of the lines.
    pub format: LogFormat,
    /// Write one line per exchange.
    pub exchanges: bool,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// Readable text, coloured on a terminal.
    Pretty,
    /// One JSON object per line.
    Json,
}
