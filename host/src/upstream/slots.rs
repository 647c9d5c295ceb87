//! Connections to all backends together: at most as many as there are descriptors for them. Kept ones that nobody uses
//! give way to new ones.
//!
//! A shortage of descriptors, ports or memory is this machine's own and says nothing about a backend.

use std::error::Error;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permission to have one connection open.
pub(super) type Slot = OwnedSemaphorePermit;

/// Kept connections of one origin, of which some can be closed.
pub(super) trait GiveWay: Send + Sync {
    /// Closes the connection that has been unused for longest; false when there is none.
    fn close_oldest(&self) -> bool;
}

/// The slots of all connections.
pub(super) struct Slots {
    free: Arc<Semaphore>,
    /// Connections that wait for a slot.
    waiting: AtomicUsize,
    kept: Mutex<Vec<Weak<dyn GiveWay>>>,
}

impl Slots {
    /// At most `max` connections.
    pub(super) fn new(max: usize) -> Self {
        let free = Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS)));
        Self { free, waiting: AtomicUsize::new(0), kept: Mutex::default() }
    }

    /// From now on kept connections of this origin may be closed to make room.
    pub(super) fn add(&self, origin: &Arc<impl GiveWay + 'static>) {
        let origin: Weak<dyn GiveWay> = Arc::<_>::downgrade(origin) as Weak<dyn GiveWay>;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.strong_count() > 0);
        kept.push(origin);
    }

    /// A slot; waits until there is one.
    pub(super) async fn take(&self) -> Slot {
        if let Ok(slot) = self.free.clone().try_acquire_owned() {
            return slot;
        }
        let _waiting = Waiting::new(&self.waiting);
        self.make_room();
        self.free.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Returns true where a connection that is given back is to be closed, because another waits for its slot.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Closes a kept connection, whose descriptor is free a moment later.
    pub(super) fn make_room(&self) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = kept.iter().filter_map(Weak::upgrade).any(|origin| origin.close_oldest());
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns true if a connection failed for want of something of this machine's own.
pub(super) fn is_own_shortage(error: &(dyn Error + 'static)) -> bool {
    // A name that could not be looked up says no more than that.
    has_shortage(error) || has_no_descriptor()
}

/// Looks for a shortage among an error and its causes. What an `io::Error` was made of is not among its sources.
fn has_shortage(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<io::Error>();
    let inner = io.and_then(io::Error::get_ref).map(|inner| inner as &(dyn Error + 'static));
    io.is_some_and(is_shortage) || inner.or_else(|| error.source()).is_some_and(has_shortage)
}

fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| short.contains(&code))
}

fn has_no_descriptor() -> bool {
    io::stderr().as_fd().try_clone_to_owned().is_err_and(|error| is_shortage(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kept connections, each with its slot.
    struct Kept(Mutex<Vec<Slot>>);

    impl GiveWay for Kept {
        fn close_oldest(&self) -> bool {
            self.0.lock().unwrap().pop().is_some()
        }
    }

    #[tokio::test]
    async fn a_kept_connection_gives_way_and_then_one_waits_for_the_next_that_ends() {
        let slots = Slots::new(2);
        let kept = Arc::new(Kept(Mutex::new(vec![slots.take().await])));
        slots.add(&kept);
        let in_use = slots.take().await;
        let second = slots.take().await;
        assert!(kept.0.lock().unwrap().is_empty() && !slots.is_wanted());
        let third = slots.take();
        tokio::pin!(third);
        assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut third).await.is_err());
        assert!(slots.is_wanted(), "what is given back now is closed");
        drop(in_use);
        drop(third.await);
        drop(second);
        assert!(!slots.is_wanted());
    }

    #[test]
    fn a_shortage_is_found_among_the_causes() {
        let ours = io::Error::other(io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()));
        assert!(is_own_shortage(&ours));
        for theirs in [io::ErrorKind::ConnectionRefused, io::ErrorKind::HostUnreachable, io::ErrorKind::TimedOut] {
            assert!(!is_own_shortage(&io::Error::from(theirs)), "{theirs}");
        }
    }
}
