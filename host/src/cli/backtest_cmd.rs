//! `pointsman backtest`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use crate::clock::Clock;
use crate::config::ProcessEnv;
use crate::lab::{BacktestArgs, BacktestStreams, Backtested, backtest};

/// Runs it on the standard streams.
///
/// # Errors
/// They cannot be written to.
pub fn run(args: &BacktestArgs) -> io::Result<ExitCode> {
    let (out, err) = (&mut io::stdout().lock(), &mut io::stderr().lock());
    let is_watched = err.is_terminal();
    let ended = backtest(args, &ProcessEnv, Clock::start().now(), BacktestStreams { out, err, is_watched })?;
    Ok(match ended {
        Backtested::Told => ExitCode::SUCCESS,
        Backtested::Refused => ExitCode::FAILURE,
        Backtested::WrongUsage => ExitCode::from(2),
    })
}
