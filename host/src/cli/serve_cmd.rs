//! The command `pointsman serve`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use pointsman_config::{self as config, Config, Loaded, ProcessEnv};
use pointsman_engine::clock::Clock;
use pointsman_lab as lab;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::serving::serving;
use super::start_log::log_start;
use super::{in_runtime, told};
use crate::serve::{self, Running, Start};
use crate::telemetry::logs::Logs;

/// Loads the configuration and runs the proxy until a signal ends it.
pub(super) fn run(config_file: Option<&Path>) -> ExitCode {
    use_ordinary_pages();
    let loaded = match config::load(config_file, &ProcessEnv) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    told(in_runtime(serve(loaded)))
}

/// With pages of 2 MiB, which the allocator asks for, the few megabytes of a proxy are scattered over seven of them, and 1,000 streams
/// take 20 MiB more. What they would save of the processor's time is not to be measured. Where it is not allowed it stays so.
fn use_ordinary_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

async fn serve(loaded: Loaded) -> anyhow::Result<()> {
    let Loaded { config, path, .. } = loaded;
    let clock = Clock::start();
    let logs = Logs::init(&config.log.level, log_format(&config), Arc::new(move || clock.now()))?;
    let (shown, config_file) = (config.clone(), path.clone());
    let running =
        serve::start(Start { config, config_file: path, log: logs.exchanges(), explain: lab::explain::json }).await?;
    if io::stderr().is_terminal() {
        eprintln!("{}", welcome(&running, &summary(&shown)));
    } else {
        log_start(&shown, config_file.as_deref(), &running);
    }
    let mut signals = Signals::new()?;
    signals.until_told_to_stop(&running).await;
    running.shutdown(signals.until_told_again()).await;
    drop(logs);
    Ok(())
}

/// SIGHUP looks at the files again; SIGTERM and Ctrl-C end it; either once more cuts the drain short.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn until_told_to_stop(&mut self, running: &Running) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => running.reload(),
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
            }
        }
    }

    async fn until_told_again(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn log_format(config: &Config) -> crate::telemetry::logs::LogFormat {
    use crate::telemetry::logs::LogFormat as Look;
    match config.log.format {
        config::LogFormat::Auto => Look::Auto,
        config::LogFormat::Pretty => Look::Text,
        config::LogFormat::Json => Look::Json,
    }
}

fn summary(config: &Config) -> String {
    let width = config.backends.iter().map(|one| one.base_url.to_string().len()).max().unwrap_or_default();
    let line = |one: &config::BackendConfig| {
        let (backend, url) = (&one.backend, one.base_url.to_string());
        let serves = serving(backend);
        format!("    {:<9} {:<16} {url:<width$}  {serves}", backend.tier.as_str(), backend.id)
    };
    config.backends.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn welcome(running: &Running, summary: &str) -> String {
    format!(
        "\n  Pointsman is ready. Point any OpenAI SDK at http://{}/v1\n  Console: http://{}/\n\n{summary}\n\n  Ctrl-C stops it.\n",
        running.addr, running.admin_addr
    )
}
