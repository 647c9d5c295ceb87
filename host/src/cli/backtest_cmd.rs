//! The command `pointsman backtest`.

use std::io::{self, Write};
use std::process::ExitCode;

use pointsman_config::ProcessEnv;
use pointsman_engine::clock::Clock;
use pointsman_lab::{BacktestArgs, Backtested, backtest};

/// Runs it: results go to `out`, complaints to `err`. Exit 0: the report is made; 1: it was refused; 2: wrong usage.
///
/// # Errors
/// They cannot be written to.
pub(super) fn run(args: &BacktestArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    Ok(match backtest(args, &ProcessEnv, Clock::start().now(), out, err)? {
        Backtested::Told => ExitCode::SUCCESS,
        Backtested::Refused => ExitCode::FAILURE,
        Backtested::WrongUsage => ExitCode::from(2),
    })
}
