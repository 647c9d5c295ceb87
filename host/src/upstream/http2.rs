//! An HTTP/2 connection, which all requests to its origin share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http2;
use pointsman_engine::clock::Stopwatch;

use super::flood::Allowance;
use super::http1::Body;

/// A connection that is shared.
#[derive(Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Body>,
    pub(super) allowance: Allowance,
    pub(super) uses: Uses,
}

/// Requests under way on a shared connection, and the time since the last of them.
#[derive(Clone, Default)]
pub(super) struct Uses(Arc<Mutex<(usize, Option<Stopwatch>)>>);

/// One request under way.
pub(super) struct Use(Uses);

impl Uses {
    /// Counts a request, until what is returned is dropped.
    pub(super) fn begin(&self) -> Use {
        lock(&self.0).0 += 1;
        Use(self.clone())
    }

    /// Returns true if nothing has been under way for this long.
    pub(super) fn is_idle_for(&self, limit: Duration) -> bool {
        let (under_way, since) = &*lock(&self.0);
        *under_way == 0 && since.as_ref().is_some_and(|since| since.elapsed() >= limit)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut uses = lock(&self.0.0);
        uses.0 -= 1;
        uses.1 = Some(Stopwatch::start());
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_connection_is_idle_from_the_end_of_its_last_request_on() {
        let uses = Uses::default();
        assert!(!uses.is_idle_for(Duration::ZERO), "it was just made");
        let (first, second) = (uses.begin(), uses.begin());
        drop(first);
        assert!(!uses.is_idle_for(Duration::ZERO), "one request is under way");
        drop(second);
        assert!(uses.is_idle_for(Duration::ZERO) && !uses.is_idle_for(Duration::from_secs(3_600)));
    }
}
