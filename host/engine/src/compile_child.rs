//! Compilation in a child process of the same binary, because its cost cannot be seen from a component's size: a small
//! function may take gigabytes.
//!
//! The child gets the component on its standard input and gives the compiled code back on its standard output. It
//! lowers its own limits of memory and time before it reads a byte; to die of them is the component's fault.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use super::address_space::{self, Reservation};
use super::check::{self, LoadError};
use super::limits::EngineLimits;
use super::memory;
use super::priority::Priority;

/// The hidden command of the binary that compiles one component.
const COMMAND: &str = "compile-component";

/// The first bytes of a child: it is ours, and runs.
const GREETING: &[u8; 8] = b"PMCWASM1";

/// The byte before compiled code, and that before an error.
const CODE: u8 = b'C';
const ERROR: u8 = b'E';

/// Compiled code that is larger is not taken, in bytes.
const MAX_CODE_BYTES: u64 = 512 << 20;

/// Children at a time; a newer one takes the place of the oldest, so that no number of slow ones keeps out the next.
const MAX_AT_A_TIME: usize = 2;

/// The least memory for each of two children, in bytes: components of languages with a runtime of their own take some hundred
/// MiB.
const SHARED_MIN_BYTES: u64 = 384 << 20;

/// The program that answers to [`COMMAND`]; none: components are compiled in this process.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Compiles components in child processes from now on: this binary answers to the command, by [`CompileJob`].
pub fn compile_in_children() {
    // The file may have been replaced by a newer version meanwhile; the running one is still there.
    let program = match cfg!(target_os = "linux") {
        true => Some(PathBuf::from("/proc/self/exe")),
        false => std::env::current_exe().ok(),
    };
    if let Some(program) = program {
        let _ = PROGRAM.set(program);
    }
}

/// The program to start; none: components are compiled in this process.
pub(super) fn program() -> Option<&'static PathBuf> {
    PROGRAM.get()
}

/// The work of a child: how it compiles, and its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileJob {
    reservation: Reservation,
    /// Memory of one instance, in bytes: a small reservation shows in the code.
    instance_bytes: u64,
    memory_bytes: u64,
    seconds: u64,
}

impl CompileJob {
    /// A job for this engine, and how many may be done at a time.
    pub(super) fn new(reservation: Reservation, limits: &EngineLimits) -> (Self, usize) {
        Self::with_memory(reservation, limits, memory::limit_bytes())
    }

    /// The same in a process of so much memory: together they take at most half of it. Where that is little, one alone has the half,
    /// because two could compile nothing.
    fn with_memory(reservation: Reservation, limits: &EngineLimits, bytes: Option<u64>) -> (Self, usize) {
        let half = bytes.map_or(u64::MAX, |bytes| bytes / 2);
        let quarter = half / 2;
        let (share, at_a_time) = if quarter < SHARED_MIN_BYTES { (half, 1) } else { (quarter, MAX_AT_A_TIME) };
        let job = Self {
            reservation,
            instance_bytes: limits.memory_bytes as u64,
            memory_bytes: limits.compile_memory_bytes.min(share).max(EngineLimits::COMPILE_MEMORY_MIN_BYTES),
            seconds: u64::from(limits.compile_ms).div_ceil(1_000),
        };
        // Where each may take little, two fit into the half.
        let fits = job.memory_bytes.saturating_mul(MAX_AT_A_TIME as u64) <= half;
        (job, if fits { MAX_AT_A_TIME } else { at_a_time })
    }

    /// The job that a command line is; none: it is another command.
    pub fn of_arguments(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut next = || arguments.next()?.into_string().ok();
        if next()? != COMMAND {
            return None;
        }
        let reservation = Reservation::parse(&next()?)?;
        let mut number = || next()?.parse().ok();
        Some(Self { reservation, instance_bytes: number()?, memory_bytes: number()?, seconds: number()? })
    }

    fn arguments(&self) -> [String; 5] {
        let Self { reservation, instance_bytes, memory_bytes, seconds } = self;
        [
            COMMAND.to_owned(),
            reservation.as_str().to_owned(),
            instance_bytes.to_string(),
            memory_bytes.to_string(),
            seconds.to_string(),
        ]
    }

    /// Does the work of the child: standard input to standard output.
    pub fn run(&self) -> ExitCode {
        match self.answer(&mut io::stdin().lock(), &mut io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            // Nobody waits any more.
            Err(_) => ExitCode::FAILURE,
        }
    }

    fn answer(&self, from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
        self.confine();
        to.write_all(GREETING)?;
        to.flush()?;
        let mut component = Vec::new();
        from.read_to_end(&mut component)?;
        let config = address_space::compiling(self.reservation, self.instance_bytes);
        let code = wasmtime::Engine::new(&config).and_then(|engine| engine.precompile_component(&component));
        match code {
            Ok(code) => to.write_all(&[CODE]).and_then(|()| to.write_all(&code)),
            Err(error) => to.write_all(&[ERROR]).and_then(|()| to.write_all(check::words(&error).as_bytes())),
        }?;
        to.flush()
    }

    /// Lowers this process's limits. What the system does not know, it does not limit.
    fn confine(&self) {
        let limit = |resource, most: u64, hard: u64| {
            let _ = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(hard) });
        };
        limit(Resource::Data, self.memory_bytes, self.memory_bytes);
        // Text, stacks and reserved pages count here as well.
        let all = self.memory_bytes.saturating_mul(2).saturating_add(1 << 30);
        limit(Resource::As, all, all);
        limit(Resource::Cpu, self.seconds.max(1), self.seconds.max(1) + 1);
        limit(Resource::Core, 0, 0);
        Priority::Low.take();
        #[cfg(target_os = "linux")]
        {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            // Where memory runs out all the same, this process goes and not the proxy.
            let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        }
    }
}

/// A child at work. It is killed when the last clone is dropped.
#[derive(Clone)]
pub(super) struct CompileChild(Arc<Killed>);

struct Killed(Mutex<Child>);

/// The end of a child's work.
pub(super) enum ChildEnd {
    /// It did not start: a system without processes, or another program in its place.
    NotStarted,
    Answer(Result<Vec<u8>, LoadError>),
}

impl CompileChild {
    /// Starts a child.
    pub(super) fn start(program: &PathBuf, job: &CompileJob) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        let mut command = Command::new(program);
        command.args(job.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // It needs nothing of the environment, where keys are. Memory that is only reserved would count.
        command.env_clear().env("MIMALLOC_ARENA_EAGER_COMMIT", "0").env("MIMALLOC_ARENA_RESERVE", "65536");
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let child = Self(Arc::new(Killed(Mutex::new(child))));
        let (Some(input), Some(output)) = (input, output) else {
            return Err(io::Error::other("its standard input and output are not there"));
        };
        Ok((child, input, output))
    }

    /// Kills it; what it has said is worth nothing then.
    pub(super) fn kill(&self) {
        let _ = self.0.lock().kill();
    }

    /// Gives it the component, and waits for its answer.
    pub(super) fn converse(
        &self,
        mut input: ChildStdin,
        mut output: ChildStdout,
        wasm: &[u8],
        job: &CompileJob,
    ) -> ChildEnd {
        let mut greeting = [0; GREETING.len()];
        if output.read_exact(&mut greeting).is_err() || greeting != *GREETING {
            return ChildEnd::NotStarted;
        }
        // Where it is gone, its end says why.
        let _ = input.write_all(wasm);
        drop(input);
        let mut said = Vec::new();
        let read = output.take(MAX_CODE_BYTES + 2).read_to_end(&mut said);
        let code = match (read, said.first()) {
            (Ok(_), Some(&ERROR)) => {
                return ChildEnd::Answer(Err(check::compile_error(&String::from_utf8_lossy(&said[1..]))));
            }
            (Ok(_), Some(&CODE)) if said.len() as u64 > MAX_CODE_BYTES + 1 => {
                self.kill();
                Err(LoadError::TooBig(format!("more than {MAX_CODE_BYTES} bytes of compiled code")))
            }
            (Ok(_), Some(&CODE)) => {
                said.remove(0);
                Ok(said)
            }
            (Ok(_) | Err(_), _) => Err(LoadError::Broken("the compiler ended without a word".to_owned())),
        };
        let ended = self.0.lock().wait();
        ChildEnd::Answer(match ended {
            Ok(status) if status.success() || matches!(code, Err(LoadError::TooBig(_))) => code,
            Ok(status) => Err(job.died(status.signal(), status.code())),
            Err(error) => Err(LoadError::Broken(format!("the compiler's end is not known: {error}"))),
        })
    }
}

impl CompileJob {
    /// The reason why a child died.
    fn died(&self, signal: Option<i32>, code: Option<i32>) -> LoadError {
        let is = |known: Signal| signal == Some(known.as_raw());
        if is(Signal::XCPU) {
            return LoadError::CompileTime { limit: Duration::from_secs(self.seconds) };
        }
        // An allocation that fails aborts.
        if is(Signal::ABORT) {
            return LoadError::CompileMemory { mib: self.memory_bytes >> 20 };
        }
        // The system, where the machine or the container runs out of memory before the child is at its limit; or somebody.
        if is(Signal::KILL) {
            return LoadError::CompilerKilled { mib: self.memory_bytes >> 20 };
        }
        let mut words = "the compiler failed on this component".to_owned();
        let _ = match (signal, code) {
            (Some(signal), _) => write!(words, " (signal {signal})"),
            (None, code) => write!(words, " (exit code {})", code.unwrap_or_default()),
        };
        LoadError::Broken(words)
    }
}

impl Killed {
    fn lock(&self) -> MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let mut child = self.lock();
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_as_it_is_written() {
        for reservation in [Reservation::Full, Reservation::Pool(8), Reservation::OnDemand] {
            let (job, _) = CompileJob::new(reservation, &EngineLimits::default());
            let read = CompileJob::of_arguments(job.arguments().into_iter().map(OsString::from)).unwrap();
            assert_eq!(read.arguments(), job.arguments());
        }
        let none = |words: &[&str]| CompileJob::of_arguments(words.iter().map(OsString::from)).is_none();
        assert!(none(&[]) && none(&["serve"]) && none(&[COMMAND]) && none(&[COMMAND, "full", "1", "x", "1"]));
    }

    #[test]
    fn children_together_take_at_most_half_of_the_memory() {
        const MIB: u64 = 1 << 20;
        let jobs = |bytes: Option<u64>, limit: u64| {
            let limits = EngineLimits { compile_memory_bytes: limit * MIB, ..EngineLimits::default() };
            let (job, at_a_time) = CompileJob::with_memory(Reservation::Full, &limits, bytes);
            (job.memory_bytes / MIB, at_a_time)
        };
        assert_eq!(jobs(None, 2_048), (2_048, 2));
        assert_eq!(jobs(Some(16_384 * MIB), 2_048), (2_048, 2));
        assert_eq!(jobs(Some(4_096 * MIB), 2_048), (1_024, 2));
        assert_eq!(jobs(Some(2_048 * MIB), 2_048), (512, 2));
        assert_eq!(jobs(Some(1_024 * MIB), 2_048), (512, 1), "one, which has enough");
        assert_eq!(jobs(Some(1_024 * MIB), 200), (200, 2), "as the operator has it");
        assert_eq!(jobs(Some(256 * MIB), 2_048), (192, 1), "the least there is");
        for bytes in (384..32_768).step_by(97) {
            let (each, at_a_time) = jobs(Some(bytes * MIB), 2_048);
            assert!(each * at_a_time as u64 <= bytes / 2, "{at_a_time} of {each} MiB in {bytes}");
        }
    }

    #[test]
    fn the_code_of_a_job_is_the_engines_own() {
        let wasm =
            wat::parse_str("(component (core module (memory 1) (func (drop (i32.load (i32.const 8))))))").unwrap();
        let mut limits = EngineLimits { max_instances: 4, ..EngineLimits::default() };
        let (engine, reservation) = address_space::start(&mut limits).unwrap();
        let (job, _) = CompileJob::new(reservation, &limits);
        let config = address_space::compiling(job.reservation, job.instance_bytes);
        let code = wasmtime::Engine::new(&config).unwrap().precompile_component(&wasm).unwrap();
        assert_eq!(code, engine.precompile_component(&wasm).unwrap());
    }

    #[test]
    fn the_end_of_a_child_names_the_limit() {
        let (job, _) = CompileJob::new(Reservation::Full, &EngineLimits::default());
        let died = |signal: Signal| job.died(Some(signal.as_raw()), None);
        assert!(matches!(died(Signal::XCPU), LoadError::CompileTime { .. }));
        assert!(matches!(died(Signal::ABORT), LoadError::CompileMemory { .. }));
        assert!(matches!(died(Signal::KILL), LoadError::CompilerKilled { .. }), "nothing is known of the component");
        assert!(died(Signal::KILL).is_no_verdict() && !died(Signal::ABORT).is_no_verdict());
        assert!(matches!(job.died(None, Some(101)), LoadError::Broken(words) if words.contains("exit code 101")));
    }
}
