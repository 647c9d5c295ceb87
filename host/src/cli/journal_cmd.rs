//! `pointsman journal`: what an operator may want of the journal besides reading it.

use std::io::{self, Write};

use pointsman_config::Env;
use pointsman_store::redact;

use super::journal_args::JournalArgs;

/// Subcommands of `pointsman journal`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum JournalCommand {
    /// Remove prompt and answer of an exchange; how it went stays.
    ///
    /// What was there is overwritten in the store. Works beside a running proxy.
    Redact {
        /// Request id of the exchange.
        request_id: String,
        /// Location of the journal.
        #[command(flatten)]
        journal: JournalArgs,
    },
}

/// Runs it: what was done goes to `out`, complaints to `err`. True: it was done.
///
/// # Errors
/// When `out` or `err` cannot be written.
pub(super) fn run(
    command: &JournalCommand,
    env: &dyn Env,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<bool> {
    let JournalCommand::Redact { request_id, journal } = command;
    let done = journal.file(env).and_then(|file| redact(&file, request_id).map_err(|error| error.to_string()));
    match done {
        Ok(done) if done.exchanges == 0 => {
            writeln!(
                err,
                "error: no prompt or answer of {request_id} is kept in the store; there is nothing to remove"
            )?;
            Ok(false)
        }
        Ok(done) => {
            writeln!(out, "prompt and answer of {request_id} are removed")?;
            if !done.log_emptied {
                writeln!(
                    err,
                    "warning: the store's write-ahead log could not be emptied now, because it is being read; it still has them \
                     until the proxy's next checkpoint: run this again, or stop the proxy"
                )?;
            }
            Ok(true)
        }
        Err(why) => {
            writeln!(err, "error: {why}")?;
            Ok(false)
        }
    }
}
