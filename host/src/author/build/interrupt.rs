//! Ctrl-C while a tool runs. The terminal tells the tool too, but not every tool listens: a Python one is deaf while it
//! is in native code.

use std::sync::mpsc::Sender;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;

/// An event while a tool runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It closed stdout, or stderr.
    PipeClosed,
    /// Ctrl-C was pressed while a command ran.
    Interrupted,
}

/// The exit status of a command that Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// Receiver of Ctrl-C. Once the first tool runs, the handler alone decides whether the process ends.
static RUN: Mutex<Option<Sender<Event>>> = Mutex::new(None);
static WATCH: Once = Once::new();

/// While this lives, Ctrl-C is an event of the run; afterwards it ends the process, as it did before.
pub(super) struct Guard(());

/// Tells this run of Ctrl-C.
pub(super) fn tell(run: Sender<Event>) -> Guard {
    WATCH.call_once(|| drop(thread::Builder::new().name("ctrl-c".to_owned()).spawn(watch)));
    *RUN.lock().unwrap_or_else(PoisonError::into_inner) = Some(run);
    Guard(())
}

impl Drop for Guard {
    fn drop(&mut self) {
        RUN.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn watch() {
    // Without a runtime Ctrl-C stays what it is: it ends this process.
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    while runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
        match &*RUN.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(run) => drop(run.send(Event::Interrupted)),
            None => std::process::exit(INTERRUPTED),
        }
    }
}
