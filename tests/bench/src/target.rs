//! The proxies under load: processes on a core of their own, and what they use of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The core proxies run on; the load and the mock provider have the other.
const CORE: &str = "0";

/// A running proxy.
pub(crate) struct Target {
    /// Its name in the table.
    pub name: &'static str,
    /// Address of the clients' listener.
    pub addr: SocketAddr,
    /// Address of the operator's listener, if the proxy has one.
    pub admin: Option<SocketAddr>,
    pid: u32,
    _child: Child,
    _dir: tempfile::TempDir,
}

impl Target {
    /// The bare hyper proxy, built beside this binary.
    pub(crate) async fn bare(name: &'static str, upstream: SocketAddr) -> anyhow::Result<Self> {
        let binary = std::env::current_exe()?.with_file_name("bare");
        Self::start(name, &binary, &[&upstream.to_string()], tempfile::tempdir()?).await
    }

    /// Pointsman with everything on: client key, limits, prices, store, metrics, log.
    pub(crate) async fn pointsman(binary: &Path, upstream: SocketAddr) -> anyhow::Result<Self> {
        Self::pointsman_with(binary, upstream, 1).await
    }

    /// The same with so many workers.
    pub(crate) async fn pointsman_with(binary: &Path, upstream: SocketAddr, workers: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = \"bench.db\"\n\
             [[client]]\nname = \"bench\"\nkey = \"{key}\"\nrpm = 100000000\n\
             [[backend]]\nid = \"mock\"\nbase_url = \"http://{upstream}/v1\"\napi_key = \"mock-key\"\n\
             rpm = 100000000\ntpm = 4000000000\nmax_concurrency = 100000\nmodels = {{ \"m\" = \"m\" }}\n\
             price = {{ \"m\" = {{ input_per_mtok = 0.1, output_per_mtok = 0.3 }} }}\n",
            key = crate::load::CLIENT_KEY,
        );
        std::fs::write(dir.path().join("pointsman.toml"), config)?;
        let workers = format!("TOKIO_WORKER_THREADS={workers}");
        let binary = std::path::absolute(binary)?.display().to_string();
        Self::start(
            "pointsman",
            Path::new("/usr/bin/env"),
            &[&workers, &binary, "serve", "--config", "pointsman.toml"],
            dir,
        )
        .await
    }

    /// nginx as a pass-through, with kept connections on both sides; none where it is not installed.
    pub(crate) async fn nginx(upstream: SocketAddr) -> anyhow::Result<Option<Self>> {
        let Some(binary) = installed("nginx") else { return Ok(None) };
        let (dir, addr) = (tempfile::tempdir()?, free_address()?);
        let own = dir.path().display();
        let config = format!(
            "daemon off; master_process off; error_log stderr crit; pid {own}/pid;\n\
             events {{ worker_connections 30000; }}\n\
             http {{\n access_log off; client_max_body_size 16m; client_body_buffer_size 1m;\n\
             client_body_temp_path {own}/a; proxy_temp_path {own}/b; fastcgi_temp_path {own}/c; uwsgi_temp_path {own}/d; scgi_temp_path {own}/e;\n\
             upstream mock {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}\n\
             server {{ listen {addr}; keepalive_requests 1000000000;\n location / {{ proxy_pass http://mock; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; proxy_buffering off; }} }}\n}}\n"
        );
        std::fs::write(dir.path().join("nginx.conf"), config)?;
        let file = dir.path().join("nginx.conf").display().to_string();
        Self::start_at("nginx", &binary, &["-p", &own.to_string(), "-c", &file], addr)
            .await
            .map(|target| Some(target.keeping(dir)))
    }

    /// HAProxy as a pass-through, with kept connections on both sides; none where it is not installed.
    pub(crate) async fn haproxy(upstream: SocketAddr) -> anyhow::Result<Option<Self>> {
        let Some(binary) = installed("haproxy") else { return Ok(None) };
        let (dir, addr) = (tempfile::tempdir()?, free_address()?);
        let config = format!(
            "global\n maxconn 30000\n nbthread 1\ndefaults\n mode http\n timeout connect 5s\n timeout client 120s\n timeout server 120s\n \
             option http-no-delay\n http-reuse always\nfrontend bench\n bind {addr}\n default_backend mock\nbackend mock\n server mock {upstream}\n"
        );
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, config)?;
        let file = file.display().to_string();
        Self::start_at("haproxy", &binary, &["-db", "-f", &file], addr).await.map(|target| Some(target.keeping(dir)))
    }

    /// Starts a proxy that says nothing of its address, which is given.
    async fn start_at(name: &'static str, binary: &Path, args: &[&str], addr: SocketAddr) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", CORE]).arg(binary).args(args);
        command.stdout(Stdio::null()).stderr(Stdio::inherit()).stdin(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{} cannot be started", binary.display()))?;
        let pid = child.id().context("it just started")?;
        while tokio::net::TcpStream::connect(addr).await.is_err() {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("{name} ended before it listened: {status}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { name, addr, admin: None, pid, _child: child, _dir: tempfile::tempdir()? })
    }

    fn keeping(self, dir: tempfile::TempDir) -> Self {
        Self { _dir: dir, ..self }
    }

    /// Lets the proxy use these cores instead, as `taskset` has them.
    pub(crate) fn move_to(&self, cores: &str) -> anyhow::Result<()> {
        let moved =
            std::process::Command::new("taskset").args(["-a", "-p", "-c", cores, &self.pid.to_string()]).output()?;
        anyhow::ensure!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
        Ok(())
    }

    async fn start(name: &'static str, binary: &Path, args: &[&str], dir: tempfile::TempDir) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", CORE]).arg(std::path::absolute(binary)?).args(args).current_dir(dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{} cannot be started", binary.display()))?;
        let pid = child.id().context("it just started")?;
        let mut out = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let mut err = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        let (addr, admin) = loop {
            let line = tokio::select! {
                line = out.next_line() => line?,
                line = err.next_line() => line?,
            };
            let line = line.with_context(|| format!("{name} ended before it listened"))?;
            if let Some(addr) = address(&line, "addr") {
                break (addr, address(&line, "admin_addr"));
            }
            eprintln!("{name}: {line}");
        };
        // Its log is read, as a collector would, but not kept.
        tokio::task::spawn_local(async move { while let Ok(Some(_)) = out.next_line().await {} });
        tokio::task::spawn_local(async move {
            let mut log = err.into_inner();
            tokio::io::copy(&mut log, &mut tokio::io::sink()).await.ok();
        });
        Ok(Self { name, addr, admin, pid, _child: child, _dir: dir })
    }

    /// CPU time used so far, user and system, over all threads.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("stat has a name")?.1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // USER_HZ is 100 on every Linux this runs on.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("a process has a size")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

/// The program of this name, where it is installed.
fn installed(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    // Debian keeps them where only root looks.
    let all = std::env::split_paths(&folders).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    all.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// A loopback address that is free now.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// An address in a line that says `listening`.
fn address(line: &str, name: &str) -> Option<SocketAddr> {
    let rest = line.contains("listening").then(|| line.split_once(&format!("\"{name}\":\"")))??.1;
    rest.split_once('"')?.0.parse().ok()
}
