//! The command `pointsman serve`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pointsman_config::{self as config, Config, Loaded, ProcessEnv};
use pointsman_engine::clock::Clock;
use pointsman_lab as lab;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::forced_exit::ForcedExit;
use super::serving::serving;
use super::start_log::log_start;
use super::{in_runtime, told};
use crate::serve::{self, AFTER_HURRY, Running, Start, Stopping};
use crate::telemetry::logs::Logs;
use crate::terminal::complain;

/// Loads the configuration and runs the proxy until a signal ends it.
pub(super) fn run(config_file: Option<&Path>) -> ExitCode {
    use_ordinary_pages();
    let loaded = match config::load(config_file, &ProcessEnv) {
        Ok(loaded) => loaded,
        Err(error) => {
            complain(format_args!("{error}"));
            return ExitCode::FAILURE;
        }
    };
    for warning in &loaded.warnings {
        complain(format_args!("{warning}"));
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
    // Before anything that may take long: the first process of a container ends by no signal that it does not handle.
    let mut signals = Signals::new()?;
    let start = Start { config, config_file: path, log: logs.exchanges(), explain: lab::explain::json };
    let running = tokio::select! {
        started = tokio::spawn(serve::start(start)) => started??,
        () = signals.told_to_stop() => {
            tracing::info!("stopped before it had started");
            return Ok(());
        }
    };
    if io::stderr().is_terminal() {
        complain(format_args!("{}", welcome(&running, &summary(&shown))));
    } else {
        log_start(&shown, config_file.as_deref(), &running);
    }
    signals.until_told_to_stop(&running).await;
    stop(running, signals).await?;
    drop(logs);
    Ok(())
}

/// Time for the last lines of the log, the threads and the last word, whose reader may have stopped reading.
const LAST_STEPS: Duration = Duration::from_secs(2);

/// The end, which a second signal hastens and a third leaves undone.
async fn stop(running: Running, mut signals: Signals) -> anyhow::Result<()> {
    let records = running.records();
    let forced = ForcedExit::within(running.shutdown_limit(), move || {
        format!("the end took too long and was forced; {} records are not written and lost", records.unwritten())
    })?;
    let stopping = Stopping::default();
    tokio::spawn({
        let (stopping, forced) = (stopping.clone(), forced.clone());
        async move {
            signals.told_to_stop().await;
            tracing::warn!("told to stop again: what is under way is cut");
            stopping.hurry();
            forced.now_within(AFTER_HURRY);
            signals.told_to_stop().await;
            forced.now_within(Duration::ZERO);
        }
    });
    let stopped = running.shutdown(&stopping).await;
    forced.now_within(LAST_STEPS);
    Ok(stopped?)
}

/// SIGHUP looks at the files again; SIGTERM and Ctrl-C end it; either once more cuts the drain short.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    /// It would end the process where a file reaches `ulimit -f`; caught, it leaves the write an error, as on a full disk.
    _file_size: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
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

    async fn told_to_stop(&mut self) {
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
