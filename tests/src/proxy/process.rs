//! The proxy's process and its output.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

pub(super) fn command(binary: &Path, dir: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(dir).env_clear().env("HOME", dir).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Compiled policies are kept between tests, as an operator's machine keeps them.
    command.env("XDG_CACHE_HOME", std::env::temp_dir().join("pointsman-tests-cache"));
    command
}

/// The child process and what it said.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) addr: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) output: Output,
}

#[derive(Clone)]
pub(super) struct Output {
    pub(super) lines: Arc<Mutex<Vec<String>>>,
    pub(super) changed: watch::Sender<()>,
}

impl Output {
    pub(super) fn collect(&self, pipe: impl AsyncRead + Unpin + Send + 'static) {
        let output = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(pipe).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                output.lines.lock().expect("no test panics with the lines in hand").push(line);
                output.changed.send_replace(());
            }
        });
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no test panics with the lines in hand").clone()
    }

    /// Waits for a log line, given as JSON with its fields at the top.
    pub(super) async fn wait<T>(&self, what: &str, pick: impl Fn(&Json) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                if let Some(value) = self.lines().iter().find_map(|l| pick(&flat(l))) {
                    return value;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(crate::PATIENCE, found).await {
            Ok(value) => value,
            Err(_) => panic!("no log line: {what}\n{}", self.lines().join("\n")),
        }
    }
}

/// A log line's fields; an empty object when it is not JSON.
fn flat(line: &str) -> Json {
    let mut value: Json = serde_json::from_str(line).unwrap_or_else(|_| json!({}));
    if let Some(Json::Object(fields)) = value.get("fields").cloned()
        && let Some(object) = value.as_object_mut()
    {
        object.extend(fields);
    }
    value
}

pub(super) fn address(value: &Json) -> SocketAddr {
    value.as_str().and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("not an address: {value}"))
}
