//! Compilation: in a child process of the same binary where there is one, else on a thread; at low priority, bounded in
//! number and time, and not awaited by those who no longer want it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use wasmtime::Engine;

use super::LOG_TARGET;
use super::cancellation::Cancellation;
use super::check::{self, LoadError};
use super::compile_child::{ChildEnd, CompileChild, CompileJob, program};
use super::priority::Priority;

/// Threads at a time. One that nobody waits for any more goes on, as the compiler cannot be interrupted.
const MAX_THREADS: usize = 4;

/// Compiles components. The memory that it takes, tens of MiB and more, goes back with the child or the thread.
pub(super) struct Compiler {
    job: CompileJob,
    /// Children at a time.
    max_children: usize,
    children: Mutex<Children>,
    /// Held by every thread under way.
    threads: Arc<()>,
    /// True once it was said that there are no children.
    is_told: AtomicBool,
}

/// The children at work, the oldest first.
#[derive(Default)]
struct Children {
    latest: u64,
    at_work: VecDeque<(u64, Sender<Event>)>,
}

/// An event that ends the wait for a compilation.
enum Event {
    Done(Result<Vec<u8>, LoadError>),
    NotStarted,
    Cancelled,
    Displaced,
}

/// The work to be done.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    /// The engine that will run it.
    pub(super) engine: &'a Engine,
    /// The component.
    pub(super) wasm: &'a [u8],
    /// True for the component of this binary, which is not to be feared.
    pub(super) is_own: bool,
    /// Time that the compilation may take.
    pub(super) limit: Duration,
}

impl Compiler {
    /// A compiler whose children do this job, so many at a time.
    pub(super) fn new((job, max_children): (CompileJob, usize)) -> Self {
        Self { job, max_children, children: Mutex::default(), threads: Arc::default(), is_told: AtomicBool::new(false) }
    }

    /// Compiled code, as the engine loads it; not awaited for longer than the limit.
    pub(super) fn compile(&self, work: Work<'_>, cancellation: &Cancellation) -> Result<Vec<u8>, LoadError> {
        if let Some(program) = program().filter(|_| !work.is_own) {
            let started = CompileChild::start(program, &self.job);
            let compiled = started.map(|child| self.in_child(child, work, cancellation));
            match compiled {
                Ok(Some(compiled)) => return compiled,
                Ok(None) => self.tell_without_child("it did not answer"),
                Err(error) if is_shortage(&error) => return Err(LoadError::CompilerBusy),
                Err(error) => self.tell_without_child(&error.to_string()),
            }
        }
        self.in_thread(work, cancellation)
    }

    /// None where the child did not start.
    fn in_child(
        &self,
        (child, input, output): (CompileChild, std::process::ChildStdin, std::process::ChildStdout),
        work: Work<'_>,
        cancellation: &Cancellation,
    ) -> Option<Result<Vec<u8>, LoadError>> {
        let (events, happened) = mpsc::channel();
        let place = self.take_place(&events);
        let (wasm, job, talking, done) = (work.wasm.to_vec(), self.job, child.clone(), events.clone());
        let talk = move || {
            let event = match talking.converse(input, output, &wasm, &job) {
                ChildEnd::Answer(answer) => Event::Done(answer),
                ChildEnd::NotStarted => Event::NotStarted,
            };
            // Nobody may be waiting any more.
            let _ = done.send(event);
        };
        let event = match thread::Builder::new().name("policy-compiler".to_owned()).spawn(talk) {
            Ok(_) => {
                cancellation.when_cancelled(move || drop(events.send(Event::Cancelled)));
                happened.recv_timeout(work.limit)
            }
            Err(error) => Ok(Event::Done(Err(thread_error(&error)))),
        };
        self.children().at_work.retain(|(number, _)| *number != place);
        if !matches!(event, Ok(Event::Done(_))) {
            child.kill();
        }
        match event {
            Ok(Event::NotStarted) => None,
            event => Some(result(event, work.limit)),
        }
    }

    fn in_thread(&self, work: Work<'_>, cancellation: &Cancellation) -> Result<Vec<u8>, LoadError> {
        if Arc::strong_count(&self.threads) > MAX_THREADS {
            return Err(LoadError::CompilerBusy);
        }
        let (events, happened) = mpsc::channel();
        let (engine, wasm, running, done) =
            (work.engine.clone(), work.wasm.to_vec(), self.threads.clone(), events.clone());
        let compile = move || {
            Priority::Low.take();
            let compiled = catch_unwind(AssertUnwindSafe(|| engine.precompile_component(&wasm)));
            let compiled = match compiled {
                Ok(compiled) => compiled.map_err(|error| check::compile_error(&check::words(&error))),
                Err(_) => Err(LoadError::Broken("the compiler panicked on this component".to_owned())),
            };
            let _ = done.send(Event::Done(compiled));
            drop(running);
        };
        let spawned = thread::Builder::new().name("policy-compiler".to_owned()).spawn(compile);
        spawned.map_err(|error| thread_error(&error))?;
        cancellation.when_cancelled(move || drop(events.send(Event::Cancelled)));
        result(happened.recv_timeout(work.limit), work.limit)
    }

    /// Takes a place among the children; where there is none, the oldest gives its own up.
    fn take_place(&self, events: &Sender<Event>) -> u64 {
        let mut children = self.children();
        while children.at_work.len() >= self.max_children {
            let Some((_, oldest)) = children.at_work.pop_front() else { break };
            let _ = oldest.send(Event::Displaced);
        }
        children.latest += 1;
        let number = children.latest;
        children.at_work.push_back((number, events.clone()));
        number
    }

    fn tell_without_child(&self, error: &str) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(target: LOG_TARGET, error, "no child process can be started to compile policies: they are compiled in this process, where nothing limits the memory that a component takes to compile");
        }
    }

    fn children(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn result(event: Result<Event, RecvTimeoutError>, limit: Duration) -> Result<Vec<u8>, LoadError> {
    match event {
        Ok(Event::Done(compiled)) => compiled,
        Ok(Event::Cancelled) => Err(LoadError::Cancelled),
        Ok(Event::Displaced | Event::NotStarted) => Err(LoadError::Displaced),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(LoadError::CompileTime { limit }),
    }
}

/// Returns true if a child may be had later. Without it, what it bounds is not done in this process instead.
fn is_shortage(error: &std::io::Error) -> bool {
    let is_short =
        |code| [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE].iter().any(|e| e.raw_os_error() == code);
    error.raw_os_error().is_some_and(is_short)
}

fn thread_error(error: &std::io::Error) -> LoadError {
    LoadError::Broken(format!("the compiler's thread cannot start: {error}"))
}
