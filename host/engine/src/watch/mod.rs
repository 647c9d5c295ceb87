//! Watching files: any sign of a change means "look again", and nothing else is concluded from it.
//!
//! Editors rename over a file, Kubernetes swaps a symbolic link above it, removals end watches, and network file systems send
//! no events. So a file is watched beside the names in its directory, with a slow look at the file itself beside both; whoever
//! is told reads the file once and compares its hash. Writes to other files of the directory are not asked for: the store's
//! log may lie there, and is written under load at every moment.
//!
//! One thread and one queue of the kernel's events serve all files.

mod file;
#[cfg(target_os = "linux")]
mod inotify;
#[cfg(any(not(target_os = "linux"), test))]
mod notify_events;

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::LOG_TARGET;
use super::clock::Stopwatch;
use file::{File, Nearness};
#[cfg(target_os = "linux")]
use inotify::Events;
#[cfg(not(target_os = "linux"))]
use notify_events::Events;

/// Interval of looking at the files themselves.
const POLL: Duration = Duration::from_millis(2_000);

/// Identifies a watched file.
type Id = u64;

/// Watches any number of files on one thread. Clones share it; it ends with the last of them and the last [`Watched`].
#[derive(Clone)]
pub struct FileWatcher(Arc<Shared>);

struct Shared {
    commands: Sender<Command>,
    /// A byte written to it ends the thread's wait.
    waker: UnixStream,
    thread: Option<JoinHandle<()>>,
    next_id: AtomicU64,
}

/// A file that is watched until this is dropped. A call that has begun by then may still come.
pub struct Watched {
    watcher: FileWatcher,
    id: Id,
}

enum Command {
    Watch(Id, Box<WatchedFile>),
    Forget(Id),
    Stop,
}

/// A file, and the callback for its changes.
struct WatchedFile {
    file: File,
    on_change: Box<dyn Fn() + Send>,
}

impl FileWatcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be started, or there is no descriptor to wake it by. Where the kernel has no events to give, files
    /// are looked at every 2 s.
    pub fn start() -> io::Result<Self> {
        Self::with_poll(POLL)
    }

    fn with_poll(poll: Duration) -> io::Result<Self> {
        let (waker, woken) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (commands, inbox) = mpsc::channel();
        let thread = thread::Builder::new().name("file-watch".to_owned()).spawn(move || {
            let clock = Stopwatch::start();
            Watch { inbox, woken, poll, next_poll: poll, clock, events: Events::open(), files: HashMap::new() }.run();
        })?;
        Ok(Self(Arc::new(Shared { commands, waker, thread: Some(thread), next_id: AtomicU64::new(0) })))
    }

    /// Watches `path`, which need not exist yet, and calls `on_change` on the watcher's thread, which it must not hold up. It is
    /// not called for the file as it is now, and may be called when nothing changed.
    pub fn watch(&self, path: impl Into<PathBuf>, on_change: impl Fn() + Send + 'static) -> Watched {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        // Looked at here, so that no change after this returns is missed.
        let file = File::new(path.into());
        self.0.send(Command::Watch(id, Box::new(WatchedFile { file, on_change: Box::new(on_change) })));
        Watched { watcher: self.clone(), id }
    }
}

impl Shared {
    fn send(&self, command: Command) {
        // The thread is gone only if a callback panicked, which was reported then.
        let _ = self.commands.send(command);
        // A full buffer wakes it as well.
        let _ = (&self.waker).write(&[1]);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watcher.0.send(Command::Forget(self.id));
    }
}

/// State of the thread. Times count from its start.
struct Watch {
    inbox: Receiver<Command>,
    woken: UnixStream,
    poll: Duration,
    next_poll: Duration,
    clock: Stopwatch,
    events: Events,
    files: HashMap<Id, WatchedFile>,
}

impl Watch {
    fn run(mut self) {
        while self.obey() {
            self.hear();
            self.look();
            self.wait();
        }
    }

    /// Carries out what was asked for; returns false when the thread is to end.
    fn obey(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Watch(id, mut watched)) => {
                    self.events.follow(id, &watched.file);
                    watched.file.touched(Nearness::Neighbour, self.clock.elapsed());
                    self.files.insert(id, *watched);
                }
                Ok(Command::Forget(id)) => {
                    self.events.forget(id);
                    self.files.remove(&id);
                }
                Err(TryRecvError::Empty) => return true,
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Tells the files of the events that have come.
    fn hear(&mut self) {
        let (files, now) = (&mut self.files, self.clock.elapsed());
        self.events.read(|id, nearness| {
            if let Some(watched) = files.get_mut(&id) {
                watched.file.touched(nearness, now);
            }
        });
    }

    /// Looks at the files for which it is time, and calls back for those that have changed and are quiet again.
    fn look(&mut self) {
        let now = self.clock.elapsed();
        let is_poll = now >= self.next_poll;
        if is_poll {
            self.next_poll = now + self.poll;
        }
        for (id, watched) in &mut self.files {
            if is_poll {
                // Directories may have come, gone, or been swapped under the watch.
                self.events.follow(*id, &watched.file);
                watched.file.touched(Nearness::Neighbour, now);
            }
            if watched.file.due().is_some_and(|due| due <= now) {
                self.events.follow(*id, &watched.file);
                if watched.file.settle(now) {
                    (watched.on_change)();
                }
            }
        }
    }

    /// Waits for an event, a command, or the time of the next look.
    fn wait(&mut self) {
        let look = (!self.files.is_empty()).then_some(self.next_poll);
        let next = self.files.values().filter_map(|watched| watched.file.due()).chain(look).min();
        let timeout = next.map(|next| next.saturating_sub(self.clock.elapsed()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let woken = PollFd::new(&self.woken, PollFlags::IN);
        let result = match self.events.fd() {
            Some(events) => poll(&mut [woken, PollFd::from_borrowed_fd(events, PollFlags::IN)], timeout.as_ref()),
            None => poll(&mut [woken], timeout.as_ref()),
        };
        if let Err(error) = result
            && error != Errno::INTR
        {
            tracing::error!(target: LOG_TARGET, %error, "files cannot be waited for; they are looked at less often");
            thread::sleep(self.poll);
        }
        let mut bytes = [0; 64];
        while matches!((&self.woken).read(&mut bytes), Ok(1..)) {}
    }
}

#[cfg(test)]
mod tests;
