//! Connections to all backends together: at most as many as there are descriptors for them. Kept ones that nobody uses
//! give way to new ones.
//!
//! A shortage of descriptors, ports or memory is this machine's own and says nothing about a backend.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
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
    /// Slots for at most `max` connections.
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

/// Looks for a shortage among an error and its causes.
fn has_shortage(error: &(dyn Error + 'static)) -> bool {
    find_io(error, is_shortage) || (find_io(error, is_without_local_address) && is_to_ipv4(error))
}

/// Looks for such an error among an error and its causes. What an `io::Error` was made of is not among its sources.
fn find_io(error: &(dyn Error + 'static), is_such: fn(&io::Error) -> bool) -> bool {
    let io = error.downcast_ref::<io::Error>();
    let inner = io.and_then(io::Error::get_ref).map(|inner| inner as &(dyn Error + 'static));
    io.is_some_and(is_such) || inner.or_else(|| error.source()).is_some_and(|cause| find_io(cause, is_such))
}

fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| short.contains(&code))
}

/// `EADDRNOTAVAIL` of connect(2): every local port to this destination is used up, or, over IPv6, this machine has no address
/// from which it could be reached, as where IPv6 is disabled.
fn is_without_local_address(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error())
}

/// Returns true if the connection was to an IPv4 address. hyper-util tells the address in its error's debug output alone.
fn is_to_ipv4(error: &(dyn Error + 'static)) -> bool {
    let debug = format!("{error:?}");
    debug.split([' ', ',', '(', ')']).find_map(|word| word.parse().ok()).is_some_and(|to: SocketAddr| to.is_ipv4())
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

    /// hyper-util's error of a connection, as far as it can be told from outside.
    struct ConnectError(SocketAddr, io::Error);

    impl std::fmt::Debug for ConnectError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_tuple("ConnectError").field(&"tcp connect error").field(&self.0).field(&self.1).finish()
        }
    }

    impl std::fmt::Display for ConnectError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("tcp connect error")
        }
    }

    impl Error for ConnectError {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn no_local_address_is_a_shortage_of_ports_over_ipv4_only() {
        for (to, is_ours) in [
            ("192.0.2.7:443", true),
            ("127.0.0.1:80", true),
            ("[2001:db8::1]:443", false),
            ("[::1]:11434", false),
            ("[fd00::7]:80", false),
        ] {
            let cause = io::Error::from_raw_os_error(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error());
            let error = ConnectError(to.parse().unwrap(), cause);
            assert_eq!(is_own_shortage(&error), is_ours, "{to}");
            let wrapped = io::Error::other(error);
            assert_eq!(is_own_shortage(&wrapped), is_ours, "{to}");
        }
    }

    #[tokio::test]
    async fn the_connectors_error_tells_its_destination() {
        use tower_service::Service as _;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
        let refused = connector.call(format!("http://{addr}/").parse().unwrap()).await.expect_err("nobody listens");
        assert!(is_to_ipv4(&refused), "{refused:?}");
        assert!(is_to_ipv4(&io::Error::other(refused)));
    }
}
