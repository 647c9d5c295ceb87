//! Commands that run to their end.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::process::command;
use crate::within;

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
