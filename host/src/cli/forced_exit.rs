//! The end of a process that does not end by itself in time.

use std::process;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

/// Exit code of a command that failed.
const FAILED: i32 = 1;

/// Time to print the last words, whose reader may have stopped reading.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A thread that ends the process when a time limit passes, whatever else hangs. It stays until the process ends.
#[derive(Clone)]
pub(super) struct ForcedExit {
    limits: Sender<Duration>,
}

impl ForcedExit {
    /// Starts the thread: the process ends after `limit` at the latest, with exit code 1 and what `last_words` returns.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn within(limit: Duration, last_words: impl Fn() -> String + Send + 'static) -> std::io::Result<Self> {
        let (limits, shortened) = mpsc::channel();
        let kept = limits.clone();
        thread::Builder::new().name("forced-exit".to_owned()).spawn(move || {
            // While one is kept here, the channel does not close.
            let _kept = kept;
            let mut limit = limit;
            while let Ok(shorter) = shortened.recv_timeout(limit) {
                limit = shorter;
            }
            exit(last_words());
        })?;
        Ok(Self { limits })
    }

    /// Sets the limit anew, from now on.
    pub(super) fn now_within(&self, limit: Duration) {
        // The thread lives as long as the process.
        let _ = self.limits.send(limit);
    }
}

fn exit(words: String) -> ! {
    let (said, done) = mpsc::channel::<()>();
    let saying = thread::Builder::new().spawn(move || {
        eprintln!("error: {words}");
        drop(said);
    });
    if saying.is_ok() {
        let _ = done.recv_timeout(LAST_WORDS);
    }
    process::exit(FAILED)
}
