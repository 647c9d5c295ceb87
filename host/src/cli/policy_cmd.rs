//! `pointsman policy ...`: the loop of a policy's author.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::lab::{TestArgs, Tested, test};

/// What `pointsman policy` can do.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Run scenarios against a policy in virtual time: scripted backends, expected decisions, expected ends.
    ///
    /// A failed one prints what was not as expected and the story of its exchanges. The last line counts; exit 0 when
    /// all pass, 1 when one does not, 2 when there is nothing to test.
    Test(TestArgs),
}

/// Runs it: results go to `out`, complaints to `err`.
pub fn run(command: &PolicyCommand, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    match command {
        PolicyCommand::Test(args) => Ok(match test(args, out, err)? {
            Tested::Passed => ExitCode::SUCCESS,
            Tested::Failed => ExitCode::FAILURE,
            Tested::WrongUsage => ExitCode::from(2),
        }),
    }
}
