//! The commands of the `pointsman` binary.

mod backtest_cmd;
mod component;
pub mod config_cmd;
mod config_needs;
mod environment;
mod explain_cmd;
mod forced_exit;
mod help_text;
mod journal_args;
mod journal_cmd;
mod policy_cmd;
mod promote_cmd;
mod promote_screen;
mod replay_cmd;
mod seal_cmd;
mod serve_cmd;
mod serving;
mod settings_args;
mod simulate_cmd;
mod start_log;
mod test_cmd;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use pointsman_config::ProcessEnv;
use pointsman_engine::clock::Clock;
use pointsman_engine::{CompileJob, compile_in_children};
use pointsman_lab::explain;

use crate::demo::{self, DemoArgs};
use crate::terminal::{Own, Terminal, complain};

/// A proxy for LLM APIs whose routing is decided by a WebAssembly component.
///
/// Pointsman sits in front of your providers: it spreads requests over free, rate-limited keys, waits for them when they
/// cool down, and spends money on a fallback only when waiting does not pay. Point any OpenAI or Anthropic SDK at it.
#[derive(Parser)]
#[command(name = "pointsman", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy server.
    ///
    /// Without a file, providers are found by their usual environment variables (NVIDIA_API_KEY, OPENAI_API_KEY,
    /// GROQ_API_KEY, OPENROUTER_API_KEY, ANTHROPIC_API_KEY, ...). A changed file or policy takes effect while running;
    /// a bad one is refused and what was in force stays. SIGHUP reads the files again, SIGTERM and
    /// Ctrl-C drain and stop.
    Serve {
        /// The configuration [default: ./pointsman.toml where it exists].
        #[arg(long, short, env = "POINTSMAN_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Run the whole proxy in front of simulated providers that rate-limit, fail and cut streams. No key needed.
    Demo(DemoArgs),
    /// Check a configuration, print its schema, convert LiteLLM's, or seal the secrets in it.
    Config {
        #[command(subcommand)]
        command: config_cmd::ConfigCommand,
    },
    /// Write, build, check, test and measure a policy, and put it into force.
    Policy {
        #[command(subcommand)]
        command: policy_cmd::PolicyCommand,
    },
    /// Explain an exchange: what the policy saw and decided, what came of it, what it cost.
    ///
    /// Reads the journal in the store, beside a running proxy or after it. Without an id it tells the latest.
    ///
    ///   pointsman explain req_0a1b2c --store pointsman.db
    ///   pointsman explain last --json | jq .events
    ///   pointsman explain req_0a1b2c --as-scenario > scenarios/incident.toml
    #[command(verbatim_doc_comment)]
    Explain(explain_cmd::ExplainArgs),
    /// Remove prompts and answers from the journal.
    Journal {
        #[command(subcommand)]
        command: journal_cmd::JournalCommand,
    },
    /// Run a policy against simulated backends and requests in virtual time, and check every exchange against the proxy's rules.
    ///
    /// Backends are rate-limited, fail, cut and stall at random; everything comes from the seed, so the same seed is the
    /// same run. Exit 1 with the seed when a rule is broken.
    Simulate(simulate_cmd::SimulateArgs),
    /// Simulate recorded traffic under the policy that ran and under a candidate, side by side.
    ///
    /// From the journal it learns how the backends were (rate limits, outages, times, lengths), and puts every recorded
    /// request to both policies in simulations of that. Says how sure each number is, and what the model cannot know. The
    /// proxy may be running. Exit 0: the report is made; 1: refused; 2: wrong usage.
    ///
    ///   pointsman backtest --policy candidate.wasm --since 24h --html backtest.html
    ///   pointsman backtest --policy default --set primary_wait_ms=20000 --json | jq .metrics.spend_usd
    #[command(verbatim_doc_comment)]
    Backtest(backtest_cmd::BacktestArgs),
    /// Put the recorded questions of a proxy to a policy again.
    ///
    /// Without --policy each question goes to the revision that decided it, which must decide the same again, bit for bit: what
    /// it read from `state` then is what it reads now. One that does not is told as non-deterministic, with the first
    /// difference; so is one whose answers depend on what an instance remembers. With --policy it is told what that policy would
    /// have decided otherwise, by kind and with examples. The proxy may be running.
    /// Exit 0: the report is made; 1: a policy is not deterministic, was refused, or none could be asked; 2: wrong usage, or
    /// nothing is recorded.
    ///
    ///   pointsman replay --since 24h
    ///   pointsman replay --store pointsman.db --policy candidate.wasm
    ///   pointsman replay --policy candidate.wasm --settings candidate.json --json | jq .divergences.groups
    #[command(verbatim_doc_comment)]
    Replay(replay_cmd::ReplayArgs),
}

/// Runs the command line. Exit 0: done; 1: failed; 2: wrong usage.
pub fn main() -> ExitCode {
    // Before the command line is read: what a hidden command is told comes from this program.
    if let Some(job) = CompileJob::of_arguments(std::env::args_os().skip(1)) {
        return job.run();
    }
    compile_in_children();
    let matches = help_text::reflowed(Cli::command()).try_get_matches();
    let command = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli.command,
        Err(error) => return print_usage(&error),
    };
    if let Err(error) = environment::check() {
        complain(format_args!("error: {error}"));
        return ExitCode::from(2);
    }
    match command {
        Command::Serve { config } => serve_cmd::run(config.as_deref()),
        Command::Demo(args) => told(in_runtime(demo::run(&args, explain::json))),
        Command::Config { command } => {
            printed(Own::Nothing, |out, err| config_cmd::run(&command, &ProcessEnv, out, err))
        }
        Command::Policy { command } => printed(Own::Line, |out, err| policy_cmd::run(&command, out, err)),
        Command::Explain(args) => {
            printed(Own::Colours, |out, err| explain_cmd::run(&args, &ProcessEnv, out, err).map(well))
        }
        Command::Journal { command } => {
            printed(Own::Nothing, |out, err| journal_cmd::run(&command, &ProcessEnv, out, err).map(well))
        }
        Command::Backtest(args) => {
            printed(Own::Nothing, |out, err| backtest_cmd::run(&args, &ProcessEnv, Clock::start().now(), out, err))
        }
        Command::Replay(args) => printed(Own::Nothing, |out, err| replay_cmd::run(&args, out, err)),
        Command::Simulate(args) => printed(Own::Nothing, |out, err| simulate_cmd::run(&args, &ProcessEnv, out, err)),
    }
}

/// Runs a command whose results go to standard output and whose complaints go to standard error. `own`: what it itself writes on
/// a terminal beside text.
fn printed(own: Own, command: impl FnOnce(&mut dyn Write, &mut dyn Write) -> io::Result<ExitCode>) -> ExitCode {
    let (out, err) = (io::stdout().lock(), io::stderr().lock());
    let own = if out.is_terminal() { own } else { Own::Nothing };
    match command(&mut Terminal::new(out, own), &mut Terminal::new(err, Own::Nothing)) {
        Ok(code) => code,
        // The reader of our output has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => told(Err(error.into())),
    }
}

/// Prints what is wrong with a command line, or the help that it asks for. It repeats the arguments.
fn print_usage(error: &clap::Error) -> ExitCode {
    let (is_terminal, code) = match error.use_stderr() {
        true => (io::stderr().is_terminal(), ExitCode::from(2)),
        false => (io::stdout().is_terminal(), ExitCode::SUCCESS),
    };
    // https://no-color.org
    let is_terminal = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let rendered = error.render();
    let (text, own) =
        if is_terminal { (rendered.ansi().to_string(), Own::Colours) } else { (rendered.to_string(), Own::Nothing) };
    let printed = match error.use_stderr() {
        true => Terminal::new(io::stderr().lock(), own).write_all(text.as_bytes()),
        false => Terminal::new(io::stdout().lock(), own).write_all(text.as_bytes()),
    };
    // Whoever closed our output wants no more of it.
    drop(printed);
    code
}

fn well(done: bool) -> ExitCode {
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Time for the threads of a runtime to end after its work is done.
const LAST_THREADS: Duration = Duration::from_millis(200);

/// Runs a future on a runtime of its own. `POINTSMAN_WORKERS` sets the number of threads; else one per core.
fn in_runtime<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = environment::workers().map_err(anyhow::Error::msg)? {
        builder.worker_threads(workers);
    }
    let runtime = builder.enable_all().build()?;
    let done = runtime.block_on(future);
    // A thread that hangs on a file or a question to the store would be waited for without end.
    runtime.shutdown_timeout(LAST_THREADS);
    done
}

fn told(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
