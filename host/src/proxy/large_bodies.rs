//! Work on large bodies, which takes milliseconds to seconds: off the runtime's workers, and only some of it at a time.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::offload_blocking::offload_blocking;

/// Bodies of at least this size are worked on apart, bytes.
const LARGE_BYTES: usize = 256 << 10;

/// One core is left to the workers, where there are several.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, usize::from).saturating_sub(1).max(1)));

/// Returns true if work on a body of this size is done apart.
pub fn is_large(bytes: usize) -> bool {
    bytes >= LARGE_BYTES
}

/// Permission to work on a body.
pub struct Turn(Option<SemaphorePermit<'static>>);

/// Waits until a body of this size may be worked on; a small one may at once.
pub async fn turn(bytes: usize) -> Turn {
    Turn(match is_large(bytes) {
        true => TURNS.acquire().await.ok(),
        false => None,
    })
}

impl Turn {
    /// Does the work: that on a large body while another thread goes on with this one's tasks.
    pub fn run<T>(self, work: impl FnOnce() -> T) -> T {
        match self.0 {
            None => work(),
            Some(_turn) => offload_blocking(work),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_body_waits_for_no_turn_and_large_ones_for_their_own() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(async {
            let mut held = Vec::new();
            while TURNS.available_permits() > 0 {
                held.push(turn(LARGE_BYTES).await);
            }
            let waiting = tokio::spawn(async { turn(LARGE_BYTES).await.run(|| 7) });
            assert_eq!(turn(LARGE_BYTES - 1).await.run(|| 1), 1);
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            held.pop().unwrap().run(|| ());
            assert_eq!(waiting.await.unwrap(), 7);
        });
    }
}
