//! Finding the tools of a language, and running them: no shell, bounded time and output.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::BuildError;
use super::interrupt::{self, Event};

/// The longest one tool may run: a first build of a Rust policy fetches and compiles its dependencies.
const MAX_RUN: Duration = Duration::from_mins(15);
/// Bytes kept of each of a tool's outputs: the end, which has the compiler's errors.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// An executable file of this name: where the variable says, in one of these folders of the project or of a folder above
/// it, in the active Python environment, or on the PATH.
pub(super) fn find(project: &Path, variable: &str, folders: &[&str], name: &str) -> Option<PathBuf> {
    if let Some(named) = env::var_os(variable).filter(|value| !value.is_empty()) {
        return Some(named.into());
    }
    let project = project.canonicalize().ok()?;
    let above = project.ancestors().flat_map(|dir| folders.iter().map(move |folder| dir.join(folder)));
    let python = env::var_os("VIRTUAL_ENV").map(|venv| Path::new(&venv).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::split_paths(&path).filter(|dir| dir.is_absolute());
    above.chain(python).chain(path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    let Ok(metadata) = file.metadata() else {
        return false;
    };
    #[cfg(unix)]
    let may_run = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let may_run = true;
    metadata.is_file() && may_run
}

/// One call of a tool.
pub(super) struct Call {
    command: Command,
    /// Name in error messages; `None`: the program's name.
    known_as: Option<&'static str>,
}

impl Call {
    /// Builds the command for this program in this folder.
    pub(super) fn of(program: &Path, folder: &Path) -> Self {
        let mut command = Command::new(program);
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A tool's own backtrace says nothing of the project.
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
        Self { command, known_as: None }
    }

    /// Called this when it fails.
    pub(super) fn known_as(self, name: &'static str) -> Self {
        Self { known_as: Some(name), ..self }
    }

    /// With these arguments, each as it is.
    pub(super) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// As one would type it.
    pub(super) fn line(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(quoted).collect::<Vec<_>>().join(" ")
    }

    /// The name of the program.
    fn tool(&self) -> String {
        if let Some(name) = self.known_as {
            return name.to_owned();
        }
        let program = Path::new(self.command.get_program());
        program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
    }

    /// Runs it to its end, at most [`MAX_RUN`], or until Ctrl-C; what it wrote to stdout.
    pub(super) fn run(self) -> Result<Vec<u8>, BuildError> {
        self.run_for(MAX_RUN)
    }

    fn run_for(mut self, limit: Duration) -> Result<Vec<u8>, BuildError> {
        let (command, tool) = (self.line(), self.tool());
        let broken = |error: io::Error| BuildError::Tool { command: command.clone(), output: error.to_string() };
        let (events, happened) = mpsc::channel();
        let _told = interrupt::tell(events.clone());
        let mut child = self.command.spawn().map_err(broken)?;
        let stdout = child.stdout.take().map(|pipe| drain(pipe, events.clone()));
        let stderr = child.stderr.take().map(|pipe| drain(pipe, events));
        if let Err(why) = until_closed(&happened, &command, limit) {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
            return Err(why);
        }
        let status = child.wait().map_err(broken)?;
        let read = |reader: Option<thread::JoinHandle<Vec<u8>>>| reader.and_then(|r| r.join().ok()).unwrap_or_default();
        let (stdout, stderr) = (read(stdout), read(stderr));
        if status.success() {
            return Ok(stdout);
        }
        // What is wrong stands in stderr; stdout is for machines, but where there is nothing else.
        let said = [&stderr, &stdout].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
        match said.into_iter().find(|text| !text.is_empty()) {
            Some(output) => Err(BuildError::Source { tool, output }),
            None => Err(BuildError::Tool { command, output: format!("it ended with {status} and said nothing") }),
        }
    }
}

/// Waits until a tool has closed both its pipes.
fn until_closed(happened: &mpsc::Receiver<Event>, command: &str, limit: Duration) -> Result<(), BuildError> {
    let mut open = 2;
    while open > 0 {
        match happened.recv_timeout(limit) {
            Ok(Event::PipeClosed) => open -= 1,
            Ok(Event::Interrupted) => return Err(BuildError::Interrupted),
            Err(_) => return Err(BuildError::Slow { command: command.to_owned(), limit }),
        }
    }
    Ok(())
}

/// Reads a pipe to its end, keeping the last [`MAX_OUTPUT_BYTES`].
fn drain(mut pipe: impl Read + Send + 'static, events: mpsc::Sender<Event>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let (mut kept, mut piece) = (Vec::new(), [0; 8 * 1024]);
        while let Ok(len @ 1..) = pipe.read(&mut piece) {
            kept.extend_from_slice(&piece[..len]);
            if kept.len() > 2 * MAX_OUTPUT_BYTES {
                kept.drain(..kept.len() - MAX_OUTPUT_BYTES);
            }
        }
        kept.drain(..kept.len().saturating_sub(MAX_OUTPUT_BYTES));
        // Nobody listens any more when the tool was given up.
        let _ = events.send(Event::PipeClosed);
        kept
    })
}

fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The option and its value as one word, for paths that are no UTF-8.
pub(super) fn joined(option: &str, value: &Path) -> OsString {
    let mut word = OsString::from(option);
    word.push(value);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Call {
        Call::of(Path::new("sh"), Path::new(".")).args(["-c", script])
    }

    #[test]
    fn what_a_tool_says_on_failure_is_told_and_nothing_behind_it_but_one_sentence() {
        assert_eq!(shell("echo fine").run().unwrap(), b"fine\n");
        let error = shell("echo '{\"json\": 1}'; echo 'it broke' >&2; exit 3").run().unwrap_err().to_string();
        assert_eq!(error, "it broke\n\nerror: nothing was built: sh ended with the error above");
        let error = shell("echo 'it broke'; exit 3").run().unwrap_err().to_string();
        assert!(error.starts_with("it broke\n"), "{error}");
        let silent = shell("exit 3").run().unwrap_err().to_string();
        assert!(silent.contains("exit status: 3"), "{silent}");
        let absent = Call::of(Path::new("/no/such/tool"), Path::new(".")).run().unwrap_err().to_string();
        assert!(absent.contains("/no/such/tool"), "{absent}");
    }

    #[test]
    fn of_a_long_output_the_end_is_kept() {
        let script = "i=0; while [ $i -lt 4000 ]; do echo 'a line that is about forty bytes long....'; i=$((i+1)); done; echo last; exit 1";
        let BuildError::Source { output, .. } = shell(script).run().unwrap_err() else {
            panic!("not the tool's failure")
        };
        assert!(output.len() <= 2 * MAX_OUTPUT_BYTES, "{}", output.len());
        assert!(output.ends_with("last"));
    }

    #[test]
    fn a_tool_that_hangs_is_ended() {
        let error = shell("exec sleep 600").run_for(Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, BuildError::Slow { .. }), "{error}");
    }

    #[test]
    fn ctrl_c_ends_the_wait() {
        let (events, happened) = mpsc::channel();
        events.send(Event::PipeClosed).unwrap();
        events.send(Event::Interrupted).unwrap();
        let error = until_closed(&happened, "x", MAX_RUN).unwrap_err();
        assert!(matches!(error, BuildError::Interrupted), "{error}");
    }

    #[test]
    fn a_tool_is_found_in_the_project_and_above() {
        let root = tempfile::tempdir().unwrap();
        let project = root.path().join("a/b");
        let bin = root.path().join("node_modules/.bin");
        std::fs::create_dir_all(&project).unwrap();
        std::fs::create_dir_all(&bin).unwrap();
        let found = || find(&project, "POINTSMAN_NO_SUCH_VARIABLE", &["node_modules/.bin"], "pointsman-test-tool");
        std::fs::write(bin.join("pointsman-test-tool"), "").unwrap();
        assert_eq!(found(), None, "it cannot be run");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let may_run = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(bin.join("pointsman-test-tool"), may_run).unwrap();
            assert_eq!(found(), Some(bin.canonicalize().unwrap().join("pointsman-test-tool")));
        }
    }

    #[test]
    fn words_are_quoted_as_a_shell_wants_them() {
        assert_eq!(quoted(OsStr::new("--out=a/b.wasm")), "--out=a/b.wasm");
        assert_eq!(quoted(OsStr::new("a b$(c)")), "'a b$(c)'");
        assert_eq!(quoted(OsStr::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(OsStr::new("")), "''");
    }
}
