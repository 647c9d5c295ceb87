//! The real proxy as a child process, described by a builder and a `pointsman.toml` in a directory of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use toml::{Table, Value};

use crate::client::{Answer, Request, http_client, http2_client};
use crate::upstream::Upstream;
use crate::{soon, within};

/// One `[[backend]]` of the configuration. Its key is `key-of-ID` unless another is set.
#[derive(Clone)]
pub struct Backend(Table);

/// Describes a backend.
pub fn backend(id: &str) -> Backend {
    let mut table = Table::new();
    table.insert("id".into(), id.into());
    table.insert("tier".into(), "primary".into());
    table.insert("dialect".into(), "openai".into());
    table.insert("api_key".into(), format!("key-of-{id}").into());
    Backend(table)
}

impl Backend {
    /// A primary served by this upstream.
    pub fn primary(self, upstream: &Upstream) -> Self {
        self.set("tier", "primary").set("base_url", upstream.url())
    }

    /// A fallback served by this upstream.
    pub fn fallback(self, upstream: &Upstream) -> Self {
        self.set("tier", "fallback").set("base_url", upstream.url())
    }

    /// Sets any key, by its dotted path.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        set_in(&mut self.0, path, value.into());
        self
    }

    /// Requests a minute.
    pub fn rpm(self, rpm: u32) -> Self {
        self.set("rpm", i64::from(rpm))
    }

    /// Requests at a time.
    pub fn max_concurrency(self, n: u32) -> Self {
        self.set("max_concurrency", i64::from(n))
    }

    /// One of `connect_ms`, `first_byte_ms`, `first_token_ms`, `idle_ms`, `total_ms`.
    pub fn timeout(self, name: &str, ms: u64) -> Self {
        self.set(&format!("timeouts.{name}"), ms as i64)
    }

    /// Serves `asked` as `sent`.
    pub fn model(mut self, asked: &str, sent: &str) -> Self {
        let models = self.0.entry("models").or_insert_with(|| Value::Table(Table::new()));
        models.as_table_mut().expect("models is a table").insert(asked.into(), sent.into());
        self
    }

    /// USD per million tokens of the model sent.
    pub fn price(mut self, sent: &str, input: f64, output: f64) -> Self {
        let prices = self.0.entry("price").or_insert_with(|| Value::Table(Table::new()));
        let mut price = Table::new();
        price.insert("input_per_mtok".into(), input.into());
        price.insert("output_per_mtok".into(), output.into());
        prices.as_table_mut().expect("price is a table").insert(sent.into(), Value::Table(price));
        self
    }
}

fn set_in(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            set_in(inner.as_table_mut().expect("a section is a table"), rest, value);
        }
    }
}

/// Describes a proxy; made by [`crate::proxy!`].
pub struct ProxyBuilder {
    binary: PathBuf,
    config: Table,
    env: Vec<(String, String)>,
    /// The largest file it may write, in blocks of the shell's `ulimit -f`.
    max_file_blocks: Option<u32>,
    /// The most file descriptors it may have, soft and hard.
    max_descriptors: Option<u32>,
    with_file: bool,
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

    /// Starts it with no file at all: everything is in its environment.
    pub async fn start_without_a_file(self) -> Proxy {
        let dir = TempDir::new().expect("a directory can be made");
        let what = ["SERVER", "ADMIN"].into_iter().fold(Self { with_file: false, ..self }, |what, section| {
            what.env(&format!("POINTSMAN__{section}__LISTEN"), "127.0.0.1:0")
        });
        let running = Running::start(&what, dir.path()).await;
        Proxy { what, dir, running, http: http_client() }
    }

    /// Starts it and waits until it listens.
    pub async fn start(self) -> Proxy {
        let dir = TempDir::new().expect("a directory can be made");
        write_config(dir.path(), &self.config);
        let running = Running::start(&self, dir.path()).await;
        Proxy { what: self, dir, running, http: http_client() }
    }
}

fn write_config(dir: &Path, config: &Table) {
    std::fs::write(dir.join("pointsman.toml"), config.to_string()).expect("the configuration can be written");
}

fn command(binary: &Path, dir: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(dir).env_clear().env("HOME", dir).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Compiled policies are kept between tests, as an operator's machine keeps them.
    command.env("XDG_CACHE_HOME", std::env::temp_dir().join("pointsman-tests-cache"));
    command
}

/// The child process and what it said.
struct Running {
    child: Child,
    addr: SocketAddr,
    admin: SocketAddr,
    output: Output,
}

#[derive(Clone)]
struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    changed: watch::Sender<()>,
}

impl Output {
    fn collect(&self, pipe: impl AsyncRead + Unpin + Send + 'static) {
        let output = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(pipe).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                output.lines.lock().expect("no test panics with the lines in hand").push(line);
                output.changed.send_replace(());
            }
        });
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no test panics with the lines in hand").clone()
    }

    /// Waits for a log line, given as JSON with its fields at the top.
    async fn wait<T>(&self, what: &str, pick: impl Fn(&Json) -> Option<T>) -> T {
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

impl Running {
    async fn start(what: &ProxyBuilder, dir: &Path) -> Self {
        // The signal of a file that grows too large is ignored, so that the write itself fails.
        let file_limit = what.max_file_blocks.map(|blocks| format!("trap '' XFSZ; ulimit -f {blocks}; "));
        let descriptor_limit = what.max_descriptors.map(|max| format!("ulimit -n {max}; "));
        let limits: String = file_limit.into_iter().chain(descriptor_limit).collect();
        let mut command = if limits.is_empty() {
            command(&what.binary, dir)
        } else {
            let mut limited = command(Path::new("/bin/sh"), dir);
            limited.args(["-c", &format!("{limits}exec \"$0\" \"$@\"")]).arg(&what.binary);
            limited
        };
        command.arg("serve");
        if what.with_file {
            command.args(["--config", "pointsman.toml"]);
        }
        command.envs(what.env.iter().map(|(n, v)| (n, v)));
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
        Self { child, addr, admin, output }
    }
}

fn address(value: &Json) -> SocketAddr {
    value.as_str().and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("not an address: {value}"))
}

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
        self.running = Running::start(&self.what, self.dir.path()).await;
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

fn rows(path: &Path, sql: &str) -> rusqlite::Result<Vec<Json>> {
    let store = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = store.prepare(sql)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let read = statement.query_map([], |row| {
        let fields = names.iter().enumerate().map(|(i, n)| Ok((n.clone(), cell(row.get_ref(i)?))));
        fields.collect::<rusqlite::Result<serde_json::Map<_, _>>>().map(Json::Object)
    })?;
    read.collect()
}

fn cell(value: rusqlite::types::ValueRef<'_>) -> Json {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(i) => json!(i),
        ValueRef::Real(f) => json!(f),
        ValueRef::Text(t) | ValueRef::Blob(t) => json!(String::from_utf8_lossy(t)),
    }
}

/// A command that ran to its end.
pub struct Finished {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs the binary with these arguments in a directory, with nothing in its environment but `env`.
pub async fn run(binary: impl Into<PathBuf>, dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Finished {
    run_within(crate::PATIENCE, binary, dir, args, env).await
}

/// The same, with this on its standard input.
pub async fn run_with_input(
    binary: impl Into<PathBuf>,
    dir: &Path,
    args: &[&str],
    env: &[(&str, &str)],
    input: &str,
) -> Finished {
    let mut command = command(&binary.into(), dir);
    command.args(args).envs(env.iter().copied()).stdin(Stdio::piped());
    let mut child = command.spawn().expect("the binary can be run");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A command that refuses at once reads nothing of it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    finished(within(crate::PATIENCE, "the command's end", child.wait_with_output()).await)
}

/// The same without input, for a command that may take so long.
pub async fn run_within(
    patience: Duration,
    binary: impl Into<PathBuf>,
    dir: &Path,
    args: &[&str],
    env: &[(&str, &str)],
) -> Finished {
    let mut command = command(&binary.into(), dir);
    command.args(args).envs(env.iter().copied());
    finished(within(patience, "the command's end", command.output()).await)
}

fn finished(output: std::io::Result<std::process::Output>) -> Finished {
    let output = output.expect("the binary can be run");
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
