//! Calls that take milliseconds, made without holding up the other tasks of the thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Calls offloaded now.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Calls `f` while another thread goes on with this one's tasks. More of them than there are processors would only take
/// turns, so further ones are made as ordinary calls, which keeps their number bounded by the runtime's threads.
pub(super) fn offload_blocking<T>(f: impl FnOnce() -> T) -> T {
    let can_hand_over = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    let limit = available_parallelism().map_or(1, usize::from);
    let turn = Turn(UNDER_WAY.fetch_add(1, Ordering::Relaxed));
    if can_hand_over && turn.0 < limit { tokio::task::block_in_place(f) } else { f() }
}

/// Gives the turn back, also when the call panics.
struct Turn(usize);

impl Drop for Turn {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_tasks_of_the_thread_go_on() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (said, heard) = std::sync::mpsc::channel();
        let answer = runtime.spawn(async move {
            tokio::spawn(async move { said.send(7) });
            // Blocks the only worker until the other task has run, which an ordinary call would do for ever.
            offload_blocking(|| heard.recv_timeout(std::time::Duration::from_secs(20)))
        });
        assert_eq!(runtime.block_on(answer).unwrap(), Ok(7));
    }

    #[test]
    fn it_is_an_ordinary_call_where_there_is_nobody_to_hand_over_to() {
        assert_eq!(offload_blocking(|| 1), 1);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(async { offload_blocking(|| 2) }), 2);
    }
}
