//! The real proxy as a child process, described by a builder and a `pointsman.toml` in a directory of its own.

mod backend;
mod builder;
mod process;
mod rows;
mod run;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use http::Method;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use toml::Value;

pub use backend::{Backend, backend};
pub use builder::ProxyBuilder;
pub use rows::forget_sums;
pub use run::{Finished, run, run_with_input, run_within};

use backend::set_in;
use builder::write_config;
use process::Running;
use rows::rows;

use crate::client::{Answer, Request, http2_client};
use crate::soon;

/// A running proxy; dropped, it is killed.
pub struct Proxy {
    what: ProxyBuilder,
    dir: TempDir,
    running: Running,
    http: reqwest::Client,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the proxy said\n{}\n---", self.output().join("\n"));
        }
    }
}

impl Proxy {
    /// Returns the address of the clients' listener.
    pub fn addr(&self) -> SocketAddr {
        self.running.addr
    }

    /// Returns the address of the operator's listener.
    pub fn admin_addr(&self) -> SocketAddr {
        self.running.admin
    }

    /// Its directory: configuration and store.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.child.id().expect("the proxy is running")
    }

    /// Everything it wrote so far.
    pub fn output(&self) -> Vec<String> {
        self.running.output.lines()
    }

    /// Waits for a log line, given as JSON with its fields at the top.
    pub async fn wait_log<T>(&self, what: &str, pick: impl Fn(&Json) -> Option<T>) -> T {
        self.running.output.wait(what, pick).await
    }

    /// Any request.
    pub fn request(&self, method: Method, path: &str) -> Request {
        Request::new(&self.http, method, format!("http://{}{path}", self.addr()))
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    /// A POST.
    pub fn post(&self, path: &str) -> Request {
        self.request(Method::POST, path)
    }

    /// A GET on the admin listener.
    pub fn admin(&self, path: &str) -> Request {
        Request::new(&self.http, Method::GET, format!("http://{}{path}", self.admin_addr()))
    }

    /// `GET /api/policy`.
    pub async fn policy(&self) -> Json {
        self.admin("/api/policy").send().await.json()
    }

    /// `PUT /api/policy`.
    pub async fn put_policy(&self, component: impl Into<bytes::Bytes>) -> Answer {
        self.admin_request(Method::PUT, "/api/policy").body("application/wasm", component).send().await
    }

    /// The same with what comes with the component, such as `settings={"a":1}`.
    pub async fn put_policy_with(&self, component: impl Into<bytes::Bytes>, options: &[(&str, &str)]) -> Answer {
        let url = reqwest::Url::parse_with_params("http://proxy/api/policy", options).expect("it is an address");
        let path = format!("/api/policy?{}", url.query().unwrap_or_default());
        self.admin_request(Method::PUT, &path).body("application/wasm", component).send().await
    }

    /// `POST /api/policy/rollback`, to this revision or the one before.
    pub async fn rollback(&self, to: Option<&str>) -> Answer {
        let query = to.map(|to| format!("?to={to}")).unwrap_or_default();
        self.admin_request(Method::POST, &format!("/api/policy/rollback{query}")).send().await
    }

    /// Waits until `/api/policy` is as `is_so` wants it; answers it.
    pub async fn wait_policy(&self, what: &str, is_so: impl Fn(&Json) -> bool) -> Json {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
        let told = async {
            loop {
                let policy = self.policy().await;
                if is_so(&policy) {
                    return policy;
                }
                ticks.tick().await;
            }
        };
        soon(what, told).await
    }

    /// The value of a metric, by the beginning of its line up to the value; 0 when it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.admin("/metrics").send().await.text();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or_default()
    }

    /// Counts the lines of its log with these words.
    pub fn told(&self, words: &str) -> usize {
        self.output().iter().filter(|line| line.contains(words)).count()
    }

    /// Waits until `/api/backends` holds these words.
    pub async fn wait_backends(&self, words: &str) {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
        let told = async {
            while !self.admin("/api/backends").send().await.text().contains(words) {
                ticks.tick().await;
            }
        };
        soon(words, told).await;
    }

    /// Any request on the admin listener.
    pub fn admin_request(&self, method: Method, path: &str) -> Request {
        Request::new(&self.http, method, format!("http://{}{path}", self.admin_addr()))
    }

    /// The same proxy, spoken to in HTTP/2 from the first byte.
    pub fn over_http2(&self) -> Http2<'_> {
        Http2(self)
    }

    /// A chat request for model `m`.
    pub fn chat(&self) -> Request {
        self.chat_for("m")
    }

    /// A chat request for this model.
    pub fn chat_for(&self, model: &str) -> Request {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
        self.post("/v1/chat/completions").json(&body)
    }

    /// A chat request that asks for a stream.
    pub fn chat_stream(&self) -> Request {
        let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
        self.post("/v1/chat/completions").json(&body)
    }

    /// The store's file.
    pub fn store_path(&self) -> PathBuf {
        self.dir().join("pointsman.db")
    }

    /// All rows of a query on the store, as JSON objects; empty while the store does not have the table.
    pub fn rows(&self, sql: &str) -> Vec<Json> {
        rows(&self.store_path(), sql).unwrap_or_default()
    }

    /// Waits until the query has at least `n` rows.
    pub async fn wait_rows(&self, n: usize, sql: &str) -> Vec<Json> {
        crate::eventually(sql, || Some(self.rows(sql)).filter(|r| r.len() >= n)).await
    }

    /// Changes the configuration file in place.
    pub fn reconfigure(&mut self, path: &str, value: impl Into<Value>) {
        set_in(&mut self.what.config, path, value.into());
        write_config(self.dir.path(), &self.what.config);
    }

    /// Writes the configuration file again with these backends.
    pub fn reconfigure_backends(&mut self, backends: impl IntoIterator<Item = Backend>) {
        let list: Vec<Value> = backends.into_iter().map(|b| Value::Table(b.0)).collect();
        self.reconfigure("backend", list);
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the proxy is running");
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("a process has a size");
        line.trim().trim_end_matches(" kB").parse().expect("a size is a number")
    }

    /// The largest that its resident memory has been, in KiB.
    pub fn peak_resident_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill9(&mut self) {
        self.running.child.kill().await.expect("the proxy can be killed");
    }

    /// SIGTERM.
    pub fn sigterm(&self) {
        self.signal("TERM");
    }

    /// SIGHUP.
    pub fn sighup(&self) {
        self.signal("HUP");
    }

    fn signal(&self, name: &str) {
        let done = std::process::Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(done.is_ok_and(|s| s.success()), "SIG{name} was not sent");
    }

    /// Waits until it has ended by itself.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        soon("the proxy's end", self.running.child.wait()).await.expect("a child can be waited for")
    }

    /// Starts it again after its end, on the same directory (ports change).
    pub async fn restart(&mut self) {
        self.running = self.what.launch(self.dir.path()).await;
    }
}

/// A proxy as an HTTP/2 client sees it.
pub struct Http2<'a>(&'a Proxy);

impl Http2<'_> {
    /// Any request.
    pub fn request(&self, method: Method, path: &str) -> Request {
        Request::new(&http2_client(), method, format!("http://{}{path}", self.0.addr()))
    }

    /// A chat request for model `m`.
    pub fn chat(&self) -> Request {
        let url = format!("http://{}/v1/chat/completions", self.0.addr());
        Request::new(&http2_client(), Method::POST, url)
            .json(&json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}))
    }
}
