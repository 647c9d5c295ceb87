//! Threads that give way to those on which clients are served.

/// Scheduling priority of a thread.
#[derive(Clone, Copy, Debug)]
pub enum Priority {
    /// For work that should come to an end also where others keep the processor busy.
    Low,
    /// For what nobody waits for.
    Lowest,
}

impl Priority {
    /// The calling thread has this priority from now on. On Linux a niceness is a thread's own; elsewhere, or where it is
    /// not allowed, the thread is only less polite.
    pub fn take(self) {
        let niceness = match self {
            Priority::Low => 10,
            Priority::Lowest => 19,
        };
        if cfg!(target_os = "linux") {
            let _ = rustix::process::setpriority_process(None, niceness);
        }
    }
}
