//! From raw to checked: the only place where a configuration becomes a [`Config`].

mod advice;
mod backend;
mod client;
mod outbound;
mod sealed;
mod secrets;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use pointsman_core::contract::{Commit, OnFault, Resume};
use pointsman_core::dialect::translate::Strictness;
use pointsman_core::exchange::{Budgets, ExhaustedStatus};
use pointsman_core::fleet::health::CooldownSettings;
use pointsman_core::http::cors::AllowedOrigins;
use pointsman_core::lifecycle::fault_breaker::FaultLimits;
use sha2::{Digest, Sha256};

use sealed::SealKey;

use super::checked::{
    Admin, Config, Cooldown, ExchangeLimits, Journal, KeptBodies, Log, LogFormat, Policy, Privileges, Server, Shadow,
    Store, Stream,
};
use super::defaults::{self, millis};
use super::diagnostic::{Diagnostic, Problems};
use super::log_level;
use super::overlay::Env;
use super::raw::{
    RawAdmin, RawCommit, RawConfig, RawCooldown, RawExhaustedStatus, RawJournal, RawLimits, RawLog, RawLogFormat,
    RawOnFault, RawPolicy, RawResume, RawRollback, RawSecrets, RawServer, RawShadow, RawStore, RawStream,
    RawTranslation,
};
use super::settings::DEFAULT_POLICY;
use super::tree::{Node, Path};
use crate::seal::PrivateKey;

/// The store's path that is none.
const MEMORY: &str = ":memory:";

/// The smallest memory budget, MiB.
const MIN_MEMORY_BUDGET_MB: u32 = 8;

/// The most of one body that is kept, in KiB.
const MAX_BODY_KB: u32 = 4_096;

/// The longest duration that is believed: 100 days.
const MAX_MS: u64 = 100 * 24 * 3_600_000;

/// Resolves the path of the store; `None`: the store is in memory.
pub(super) fn store_path(path: Option<&str>, folder: &FilePath) -> Option<PathBuf> {
    let path = path.unwrap_or(defaults::STORE_PATH);
    (path != MEMORY).then(|| folder.join(path))
}

/// The private key of a configuration, whether anything is sealed or not; none only when the report has an error.
pub(super) fn seal_key(
    raw: RawSecrets,
    tree: &Node,
    env: &dyn Env,
    folder: &FilePath,
    report: &mut Problems<'_>,
) -> Option<Rc<PrivateKey>> {
    let mut check = Check::new(tree, env, folder, report);
    check.secrets(raw);
    check.seal_key(None)
}

/// `[admin]` alone. The result is only to be used when the report has no error.
pub(super) fn admin(raw: RawConfig, tree: &Node, env: &dyn Env, folder: &FilePath, report: &mut Problems<'_>) -> Admin {
    let mut check = Check::new(tree, env, folder, report);
    check.secrets(raw.secrets);
    check.admin(&raw.admin)
}

/// As core has it.
const fn exhausted_status(raw: RawExhaustedStatus) -> ExhaustedStatus {
    match raw {
        RawExhaustedStatus::Unavailable => ExhaustedStatus::Unavailable,
        RawExhaustedStatus::Common => ExhaustedStatus::Common,
    }
}

/// Checks everything. The result is only to be used when the report has no error.
pub(super) fn convert(
    raw: RawConfig,
    tree: &Node,
    env: &dyn Env,
    folder: &FilePath,
    report: &mut Problems<'_>,
) -> Config {
    let mut check = Check::new(tree, env, folder, report);
    check.advise_on_limits(&raw);
    check.secrets(raw.secrets);
    let mut backends = check.backends(raw.backend);
    if let Some(price) = raw.budget.default_price {
        let price = check.price(&Path::of("budget").key("default_price"), price);
        for one in &mut backends {
            one.backend.prices.entry("*".to_owned()).or_insert_with(|| price.clone());
        }
    }
    let open = raw.client.is_empty() && !raw.server.allow_open.unwrap_or(false);
    let clients = check.clients(raw.client);
    let journal = check.journal(&raw.journal, raw.store.path.as_deref() == Some(MEMORY));
    let mut config = Config {
        server: check.server(&raw.server),
        admin: check.admin(&raw.admin),
        store: check.store(&raw.store, journal.max_mb),
        journal,
        policy: check.policy(raw.policy),
        stream: check.stream(&raw.stream),
        limits: check.limits(&raw.limits),
        cooldown: check.cooldown(&raw.cooldown),
        log: check.log(raw.log),
        backends,
        clients,
        secret_files: Vec::new(),
        revision: revision(tree),
    };
    config.secret_files = check.files.iter().cloned().collect();
    if open && !config.server.listen.ip().is_loopback() {
        check.open_to_everyone();
    }
    if is_same_socket(config.server.listen, config.admin.listen) {
        check.one_address_for_two(config.server.listen);
    }
    if check.report.errors() == 0 {
        check.advise(&config);
    }
    config
}

/// The state shared by all checks.
struct Check<'a, 't> {
    tree: &'a Node,
    env: &'a dyn Env,
    /// Base of relative paths: the folder of the configuration file.
    folder: &'a FilePath,
    report: &'a mut Problems<'t>,
    /// Key that opens sealed secrets.
    seal_key: SealKey,
    /// Files that hold secrets or certificates.
    files: BTreeSet<PathBuf>,
}

impl<'a, 't> Check<'a, 't> {
    fn new(tree: &'a Node, env: &'a dyn Env, folder: &'a FilePath, report: &'a mut Problems<'t>) -> Self {
        Self { tree, env, folder, report, seal_key: SealKey::Refused, files: BTreeSet::new() }
    }
}

impl Check<'_, '_> {
    fn server(&mut self, raw: &RawServer) -> Server {
        let at = Path::of("server");
        Server {
            listen: self.listen(&at, raw.listen.as_deref(), defaults::LISTEN),
            max_body_bytes: self.at_least(&at.key("max_body_bytes"), raw.max_body_bytes, defaults::MAX_BODY_BYTES, 1),
            memory_budget: raw.memory_budget_mb.map(|mb| {
                u64::from(self.at_least(&at.key("memory_budget_mb"), Some(mb), mb, MIN_MEMORY_BUDGET_MB)) << 20
            }),
            max_header_bytes: self.at_least(
                &at.key("max_header_bytes"),
                raw.max_header_bytes,
                defaults::MAX_HEADER_BYTES,
                8 << 10,
            ),
            max_connections: raw
                .max_connections
                .map(|max| self.at_least(&at.key("max_connections"), Some(max), max, 1)),
            drain_timeout: self.millis(
                &at.key("drain_timeout_ms"),
                raw.drain_timeout_ms,
                defaults::DRAIN_TIMEOUT_MS,
                0,
            ),
            header_read_timeout: self.millis(
                &at.key("header_read_timeout_ms"),
                raw.header_read_timeout_ms,
                defaults::HEADER_READ_TIMEOUT_MS,
                1,
            ),
            unread_timeout: self.millis(
                &at.key("unread_timeout_ms"),
                raw.unread_timeout_ms,
                defaults::UNREAD_TIMEOUT_MS,
                1,
            ),
            translation: match raw.translation {
                None => Strictness::default(),
                Some(RawTranslation::Lenient) => Strictness::Lenient,
                Some(RawTranslation::Strict) => Strictness::Strict,
            },
            exhausted_status: raw.exhausted_status.map_or(ExhaustedStatus::Unavailable, exhausted_status),
            keep_alive: self.millis(&at.key("keep_alive_ms"), raw.keep_alive_ms, defaults::KEEP_ALIVE_MS, 1),
            allowed_origins: self.allowed_origins(&at.key("allowed_origins"), &raw.allowed_origins),
            privileges: Privileges { priority_max: self.priority_max(&at, raw.priority_max), labels: None },
        }
    }

    fn allowed_origins(&mut self, at: &Path, raw: &[String]) -> AllowedOrigins {
        AllowedOrigins::parse(raw.iter().map(String::as_str)).unwrap_or_else(|(index, text)| {
            let problem = self.error(&at.index(index), format!("`{text}` is not an origin"));
            problem.help("write \"https://app.example\", without a path, or \"*\" for all");
            AllowedOrigins::default()
        })
    }

    fn admin(&mut self, raw: &RawAdmin) -> Admin {
        let at = Path::of("admin");
        let listen = self.listen(&at, raw.listen.as_deref(), defaults::ADMIN_LISTEN);
        let owner = "the admin listener";
        let token = raw.token.as_deref().and_then(|text| self.secret(&at.key("token"), text, owner));
        if raw.token.is_none() && !self.tree.refused(&at.key("token")) && !listen.ip().is_loopback() {
            let problem = self.error(&at.key("listen"), "the admin listener would be open to everyone");
            problem
                .label("not a loopback address")
                .help("set [admin] token = \"env:POINTSMAN_ADMIN_TOKEN\", or listen on 127.0.0.1");
        }
        let max_connections =
            self.at_least(&at.key("max_connections"), raw.max_connections, defaults::ADMIN_MAX_CONNECTIONS, 4);
        Admin { listen, token, max_connections }
    }

    fn store(&mut self, raw: &RawStore, journal_max_mb: u32) -> Store {
        let at = Path::of("store");
        if raw.path.as_deref() == Some("") {
            self.error(&at.key("path"), "the store needs a file").help("write a path, or \":memory:\"");
        }
        let max_mb = defaults::store_max_mb(journal_max_mb, raw.path.as_deref() == Some(MEMORY));
        Store {
            path: store_path(raw.path.as_deref(), self.folder),
            retention_days: self.at_least(
                &at.key("retention_days"),
                raw.retention_days,
                defaults::STORE_RETENTION_DAYS,
                1,
            ),
            max_mb: self.at_least(&at.key("max_mb"), raw.max_mb, max_mb, 1),
            backlog: self.at_least(&at.key("backlog"), raw.backlog, defaults::STORE_BACKLOG, 1),
            backlog_mb: self.at_least(&at.key("backlog_mb"), raw.backlog_mb, defaults::STORE_BACKLOG_MB, 1),
        }
    }

    fn journal(&mut self, raw: &RawJournal, in_memory: bool) -> Journal {
        let at = Path::of("journal");
        let max_mb = if in_memory { defaults::JOURNAL_MAX_MB_IN_MEMORY } else { defaults::JOURNAL_MAX_MB };
        Journal {
            sample: self.fraction(&at.key("sample"), raw.sample, defaults::JOURNAL_SAMPLE),
            retention_days: self.at_least(
                &at.key("retention_days"),
                raw.retention_days,
                defaults::JOURNAL_RETENTION_DAYS,
                1,
            ),
            max_mb: self.at_least(&at.key("max_mb"), raw.max_mb, max_mb, 1),
            backlog_mb: self.at_least(&at.key("backlog_mb"), raw.backlog_mb, defaults::JOURNAL_BACKLOG_MB, 1),
            bodies: self.bodies(&at, raw),
        }
    }

    fn bodies(&mut self, at: &Path, raw: &RawJournal) -> Option<KeptBodies> {
        let max_body_kb = self.at_least(&at.key("max_body_kb"), raw.max_body_kb, defaults::JOURNAL_BODY_KB, 1);
        if max_body_kb > MAX_BODY_KB {
            self.error(&at.key("max_body_kb"), format!("`max_body_kb` must be at most {MAX_BODY_KB}"));
        }
        let list = at.key("redact");
        let mut redact = Vec::new();
        for (i, pattern) in raw.redact.iter().enumerate() {
            match regex::Regex::new(pattern) {
                Ok(pattern) => redact.push(pattern),
                Err(error) => {
                    let last = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                    let problem = self.error(&list.index(i), format!("this is no regular expression: {last}"));
                    problem.help("write it in single quotes, so that a backslash stays one: '\\d{16}'");
                }
            }
        }
        raw.bodies.unwrap_or(false).then(|| KeptBodies { max_body_kb, redact: redact.into() })
    }

    fn policy(&mut self, raw: RawPolicy) -> Policy {
        let at = Path::of("policy");
        if raw.file.as_deref() == Some("") {
            self.error(&at.key("file"), "this is not a file").help("leave the line out to use the embedded policy");
        }
        if raw.file.is_none() {
            let fraction = "emergency_rpm_fraction";
            let settings = at.key("settings");
            let own = raw.settings.get(DEFAULT_POLICY).and_then(serde_json::Value::as_object);
            for (at, all) in [(settings.clone(), Some(&raw.settings)), (settings.key(DEFAULT_POLICY), own)] {
                let value = all.and_then(|all| all.get(fraction)).and_then(serde_json::Value::as_f64);
                let place = at.key(fraction);
                if self.fraction(&place, value, 0.1) == 0.0 {
                    self.warn(
                        &place,
                        format!("`{fraction}` of 0 still lets one request a minute through in an emergency"),
                    )
                    .help("the emergency lane sends at least one a minute to each backend");
                }
            }
        }
        let shadow = self.shadow(&at.key("shadow"), raw.shadow, &raw.settings);
        Policy {
            shadow,
            file: raw.file.map(|file| self.folder.join(file)),
            own_name: None,
            settings: raw.settings,
            deadline: self.decision_deadline(&at, raw.deadline_ms),
            on_fault: match raw.on_fault {
                None | Some(RawOnFault::Default) => OnFault::AskDefault,
                Some(RawOnFault::Refuse) => OnFault::Refuse,
            },
            memory_mb: self.at_least(&at.key("memory_mb"), raw.memory_mb, defaults::POLICY_MEMORY_MB, 1),
            compile_memory_mb: self.at_least(
                &at.key("compile_memory_mb"),
                raw.compile_memory_mb,
                defaults::COMPILE_MEMORY_MB,
                defaults::COMPILE_MEMORY_MIN_MB,
            ),
            start_wait: self.millis(&at.key("start_wait_ms"), raw.start_wait_ms, defaults::START_WAIT_MS, 0),
            rollback: self.rollback(&at.key("rollback"), &raw.rollback),
        }
    }

    fn shadow(
        &mut self,
        at: &Path,
        raw: RawShadow,
        settings: &serde_json::Map<String, serde_json::Value>,
    ) -> Option<Shadow> {
        let deadline = self.decision_deadline(at, raw.deadline_ms);
        let core_share = self.fraction(&at.key("core_share"), raw.core_share, defaults::SHADOW_CORE_SHARE);
        if core_share == 0.0 {
            self.error(&at.key("core_share"), "a shadow needs some time").help("take the [policy.shadow] out instead");
        }
        let Some(file) = raw.file.filter(|file| !file.is_empty()) else {
            if self.tree.find(at).is_some() && !self.tree.refused(&at.key("file")) {
                self.error(at, "the shadow has no file").help("name a component with file = \"candidate.wasm\"");
            }
            return None;
        };
        Some(Shadow {
            file: self.folder.join(file),
            own_settings: raw.settings,
            settings: settings.clone(),
            deadline,
            core_share,
        })
    }

    /// The longest decision, of the policy or its shadow.
    fn decision_deadline(&mut self, at: &Path, ms: Option<u32>) -> Duration {
        /// Upper limit set by the engine.
        const MAX_MS: u32 = 90;
        let at = at.key("deadline_ms");
        let ms = self.at_least(&at, ms, defaults::DECISION_DEADLINE_MS, 1);
        if ms > MAX_MS {
            self.error(&at, format!("`deadline_ms` must be at most {MAX_MS}")).label(format!("this is {ms}"));
        }
        Duration::from_millis(ms.into())
    }

    fn rollback(&mut self, at: &Path, raw: &RawRollback) -> Option<FaultLimits> {
        let default = FaultLimits::default();
        let window_ms = millis(default.window);
        let rule = FaultLimits {
            first_decisions: self.at_least(&at.key("first_decisions"), raw.first_decisions, default.first_decisions, 1),
            fault_permille: raw.fault_permille.unwrap_or(default.fault_permille),
            window: self.millis(&at.key("window_ms"), raw.window_ms, window_ms, 1),
            window_faults: self.at_least(&at.key("window_faults"), raw.window_faults, default.window_faults, 1),
        };
        for (name, value, most) in [
            ("fault_permille", rule.fault_permille, 1_000),
            ("window_faults", rule.window_faults, FaultLimits::MAX_WINDOW_FAULTS),
        ] {
            if value > most {
                self.error(&at.key(name), format!("`{name}` must be at most {most}")).label(format!("this is {value}"));
            }
        }
        raw.enabled.unwrap_or(true).then_some(rule)
    }

    fn stream(&mut self, raw: &RawStream) -> Stream {
        let at = Path::of("stream");
        let keepalive = self.millis(&at.key("keepalive_ms"), raw.keepalive_ms, defaults::KEEPALIVE_MS, 0);
        Stream {
            commit: match raw.commit {
                None | Some(RawCommit::FirstContent) => Commit::FirstContent,
                Some(RawCommit::Headers) => Commit::Headers,
                Some(RawCommit::Complete) => Commit::Complete,
                Some(RawCommit::Tokens(n)) => Commit::Tokens(self.at_least(&at.key("commit"), Some(n), 1, 1)),
            },
            resume: match raw.resume {
                None | Some(RawResume::Splice) => Resume::Splice,
                Some(RawResume::None) => Resume::None,
                Some(RawResume::Prefill) => Resume::Prefill,
            },
            keepalive: Some(keepalive).filter(|d| !d.is_zero()),
        }
    }

    fn limits(&mut self, raw: &RawLimits) -> ExchangeLimits {
        let at = Path::of("limits");
        let default = Budgets::default();
        ExchangeLimits {
            max_attempts: self.at_least(&at.key("max_attempts"), raw.max_attempts, default.max_attempts, 1),
            max_waits: raw.max_waits.unwrap_or(default.max_waits),
            max_wait: self.millis(&at.key("max_wait_ms"), raw.max_wait_ms, millis(default.max_wait), 0),
            max_exchange: self.millis(&at.key("max_exchange_ms"), raw.max_exchange_ms, millis(default.max_total), 1),
            queue_length: raw.queue_length.unwrap_or(defaults::QUEUE_LENGTH),
        }
    }

    fn cooldown(&mut self, raw: &RawCooldown) -> Cooldown {
        let at = Path::of("cooldown");
        let default = CooldownSettings::default();
        let [base, max, floor, cap] =
            [default.base, default.max, default.retry_after_floor, default.retry_after_cap].map(millis);
        let cooldown = Cooldown {
            base: self.millis(&at.key("base_ms"), raw.base_ms, base, 1),
            max: self.millis(&at.key("max_ms"), raw.max_ms, max, 1),
            jitter: self.fraction(&at.key("jitter"), raw.jitter, default.jitter),
            retry_after_floor: self.millis(&at.key("retry_after_floor_ms"), raw.retry_after_floor_ms, floor, 0),
            retry_after_cap: self.millis(&at.key("retry_after_cap_ms"), raw.retry_after_cap_ms, cap, 1),
        };
        for (low, low_name, high, high_name) in [
            (cooldown.base, "base_ms", cooldown.max, "max_ms"),
            (cooldown.retry_after_floor, "retry_after_floor_ms", cooldown.retry_after_cap, "retry_after_cap_ms"),
        ] {
            if low > high {
                let key = if self.tree.find(&at.key(low_name)).is_some() { low_name } else { high_name };
                let message =
                    format!("`{low_name}` ({}) is above `{high_name}` ({})", low.as_millis(), high.as_millis());
                self.error(&at.key(key), message);
            }
        }
        cooldown
    }

    fn log(&mut self, raw: RawLog) -> Log {
        let level = raw.level.unwrap_or_else(|| defaults::LOG_LEVEL.to_owned());
        if let Some(fault) = log_level::fault(&level) {
            self.error(&Path::of("log").key("level"), fault).help(log_level::HELP);
        }
        Log {
            level,
            format: match raw.format {
                None | Some(RawLogFormat::Auto) => LogFormat::Auto,
                Some(RawLogFormat::Pretty) => LogFormat::Pretty,
                Some(RawLogFormat::Json) => LogFormat::Json,
            },
            exchanges: raw.exchanges.unwrap_or(true),
        }
    }

    /// Without client keys, anyone who reaches the listener spends the operator's money.
    fn open_to_everyone(&mut self) {
        let listen = Path::of("server").key("listen");
        let problem = self.error(&listen, "everyone who reaches this address could spend your keys");
        problem
            .label("not a loopback address, and there is no [[client]]")
            .help("add a [[client]] with a name and a key, or say [server] allow_open = true");
    }

    /// The second listener would not start.
    fn one_address_for_two(&mut self, listen: SocketAddr) {
        let [server, admin] = ["server", "admin"].map(|section| Path::of(section).key("listen"));
        let is_written = self.tree.find(&admin).is_some();
        let at = if is_written { &admin } else { &server };
        let problem = self.error(at, "clients and the operator would be served at the same address");
        problem
            .label(format!("[server] and [admin] would both listen on port {}", listen.port()))
            .help("give [admin] listen a port of its own, such as \"127.0.0.1:9901\"");
    }

    fn listen(&mut self, section: &Path, text: Option<&str>, default: &str) -> SocketAddr {
        let default: SocketAddr = default.parse().expect("a default address is valid");
        let port = default.port();
        let Some(text) = text else { return default };
        let text = text.replace("localhost", "127.0.0.1");
        text.parse().unwrap_or_else(|_| {
            let help = match text.strip_prefix(':').unwrap_or(&text).parse::<u16>() {
                Ok(port) => format!("write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for every interface"),
                Err(_) => format!("write an IP address and a port, such as \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
            };
            self.error(&section.key("listen"), "this is not an address to listen on").help(help);
            default
        })
    }

    /// A duration; `least` and at most [`MAX_MS`].
    fn millis(&mut self, at: &Path, value: Option<u64>, default: u64, least: u64) -> Duration {
        let ms = self.at_least(at, value, default, least);
        if ms > MAX_MS {
            self.error(at, format!("`{}` is longer than 100 days", at.name())).help("durations are in milliseconds");
        }
        Duration::from_millis(ms.min(MAX_MS))
    }

    fn at_least<N: Copy + Ord + std::fmt::Display>(&mut self, at: &Path, value: Option<N>, default: N, least: N) -> N {
        let value = value.unwrap_or(default);
        if value < least {
            let problem = self.error(at, format!("`{}` must be at least {least}", at.name()));
            problem.label(format!("this is {value}"));
        }
        value
    }

    fn fraction(&mut self, at: &Path, value: Option<f64>, default: f64) -> f64 {
        let value = value.unwrap_or(default);
        if !(0.0..=1.0).contains(&value) {
            let problem = self.error(at, format!("`{}` is a share and must be between 0 and 1", at.name()));
            problem.help("write 0.1 for a tenth");
        }
        value
    }

    /// A problem at `at`, or at the deepest part of it that the file has.
    fn error(&mut self, at: &Path, message: impl Into<String>) -> &mut Diagnostic {
        self.report.error(Some(self.tree.nearest(at)), message)
    }

    fn warn(&mut self, at: &Path, message: impl Into<String>) -> &mut Diagnostic {
        self.report.warn(Some(self.tree.nearest(at)), message)
    }

    /// Two elements of a list claim the same name: both are pointed to.
    fn duplicate(&mut self, first: &Path, second: &Path, message: String) {
        let first = self.report.place(self.tree.nearest(first));
        self.error(second, message).label("again here").related = Some((first, "first here".to_owned()));
    }

    /// A required key that is not there; silent when it was there and is already complained of.
    fn missing(&mut self, owner: &Path, key: &str, message: String, help: &str) {
        if !self.tree.refused(&owner.key(key)) {
            self.error(owner, message).help(help);
        }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }
}

/// Returns true if only one of two listeners can bind: port 0 takes any free one, and an unspecified address takes
/// every address.
fn is_same_socket(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && overlap
}

/// The same text in another order or layout has the same revision; another value another one, secrets aside.
fn revision(tree: &Node) -> std::sync::Arc<str> {
    let mut tree = tree.clone();
    secrets::scrub(&mut tree);
    let canonical = serde_json::to_vec(&tree.to_value()).expect("tables of a TOML value have text keys");
    let digest = Sha256::digest(&canonical);
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}
