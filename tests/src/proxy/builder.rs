//! Description of a proxy that a test starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::watch;
use toml::{Table, Value};

use super::Proxy;
use super::backend::{Backend, set_in};
use super::process::{Output, Running, address, command};
use crate::client::http_client;

/// Describes a proxy; made by [`crate::proxy!`].
pub struct ProxyBuilder {
    pub(super) binary: PathBuf,
    pub(super) config: Table,
    pub(super) env: Vec<(String, String)>,
    /// The largest file it may write, in blocks of the shell's `ulimit -f`.
    pub(super) max_file_blocks: Option<u32>,
    /// The most file descriptors it may have, soft and hard.
    pub(super) max_descriptors: Option<u32>,
    pub(super) with_file: bool,
}

impl ProxyBuilder {
    /// A proxy on free loopback ports, with its store in its own directory.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let (binary, config, env) = (binary.into(), Table::new(), Vec::new());
        Self { binary, config, env, max_file_blocks: None, max_descriptors: None, with_file: true }
            .set("server.listen", "127.0.0.1:0")
            .set("admin.listen", "127.0.0.1:0")
            .set("store.path", "pointsman.db")
            // A slow machine is no reason to start with another policy than a test names.
            .set("policy.start_wait_ms", crate::PATIENCE.as_millis() as i64)
    }

    /// Adds a backend.
    pub fn backend(self, backend: Backend) -> Self {
        self.push("backend", backend.0)
    }

    /// Adds a client key.
    pub fn client(self, name: &str, key: &str) -> Self {
        self.client_with::<Value>(name, key, &[])
    }

    /// Adds a client key with further settings.
    pub fn client_with<V: Into<Value> + Clone>(self, name: &str, key: &str, more: &[(&str, V)]) -> Self {
        let mut table = Table::new();
        table.insert("name".into(), name.into());
        table.insert("key".into(), key.into());
        for (name, value) in more {
            table.insert((*name).into(), value.clone().into());
        }
        self.push("client", table)
    }

    /// Sets any key, by its dotted path.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        set_in(&mut self.config, path, value.into());
        self
    }

    /// One of `[policy.settings]`.
    pub fn setting(self, name: &str, value: impl Into<Value>) -> Self {
        self.set(&format!("policy.settings.{name}"), value)
    }

    /// The policy to decide with.
    pub fn policy_file(self, path: &Path) -> Self {
        self.set("policy.file", path.display().to_string())
    }

    /// An environment variable of the child.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Writes to a file beyond this size fail, as on a full disk; in blocks of the shell's `ulimit -f` (512 or 1024 bytes).
    pub fn max_file_blocks(mut self, blocks: u32) -> Self {
        self.max_file_blocks = Some(blocks);
        self
    }

    /// The most file descriptors that it may have open.
    pub fn max_descriptors(mut self, max: u32) -> Self {
        self.max_descriptors = Some(max);
        self
    }

    fn push(mut self, list: &str, entry: Table) -> Self {
        let entries = self.config.entry(list).or_insert_with(|| Value::Array(Vec::new()));
        entries.as_array_mut().expect("a list of tables").push(Value::Table(entry));
        self
    }

    /// Starts the process in its directory and waits until it listens.
    pub(super) async fn launch(&self, dir: &Path) -> Running {
        // The signal of a file that grows too large is ignored, so that the write itself fails.
        let file_limit = self.max_file_blocks.map(|blocks| format!("trap '' XFSZ; ulimit -f {blocks}; "));
        let descriptor_limit = self.max_descriptors.map(|max| format!("ulimit -n {max}; "));
        let limits: String = file_limit.into_iter().chain(descriptor_limit).collect();
        let mut command = if limits.is_empty() {
            command(&self.binary, dir)
        } else {
            let mut limited = command(Path::new("/bin/sh"), dir);
            limited.args(["-c", &format!("{limits}exec \"$0\" \"$@\"")]).arg(&self.binary);
            limited
        };
        command.arg("serve");
        if self.with_file {
            command.args(["--config", "pointsman.toml"]);
        }
        command.envs(self.env.iter().map(|(n, v)| (n, v)));
        let mut child = command.spawn().expect("the proxy can be started");
        let output = Output { lines: Arc::default(), changed: watch::Sender::new(()) };
        output.collect(child.stdout.take().expect("stdout is piped"));
        output.collect(child.stderr.take().expect("stderr is piped"));
        let listening = output.wait("listening", |l| {
            (l["message"] == "listening").then(|| (address(&l["addr"]), address(&l["admin_addr"])))
        });
        let (addr, admin) = tokio::select! {
            addresses = listening => addresses,
            exit = child.wait() => panic!("the proxy ended: {exit:?}\n{}", output.lines().join("\n")),
        };
        Running { child, addr, admin, output }
    }

    /// Starts it with no file at all: everything is in its environment.
    pub async fn start_without_a_file(self) -> Proxy {
        let dir = TempDir::new().expect("a directory can be made");
        let what = ["SERVER", "ADMIN"].into_iter().fold(Self { with_file: false, ..self }, |what, section| {
            what.env(&format!("POINTSMAN__{section}__LISTEN"), "127.0.0.1:0")
        });
        let running = what.launch(dir.path()).await;
        Proxy { what, dir, running, http: http_client() }
    }

    /// Starts it and waits until it listens.
    pub async fn start(self) -> Proxy {
        let dir = TempDir::new().expect("a directory can be made");
        write_config(dir.path(), &self.config);
        let running = self.launch(dir.path()).await;
        Proxy { what: self, dir, running, http: http_client() }
    }
}

pub(super) fn write_config(dir: &Path, config: &Table) {
    std::fs::write(dir.join("pointsman.toml"), config.to_string()).expect("the configuration can be written");
}
