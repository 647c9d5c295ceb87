//! Connections that are kept between requests, and lent to one at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use pointsman_engine::clock::Stopwatch;

use super::flood::Allowance;
use super::slots::{GiveWay, Slots};

/// Idle connections kept per origin.
const MAX_IDLE: usize = 512;

/// An idle connection older than this is not used again; servers close theirs after a minute or more.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(55);

pub(super) type Body = Full<Bytes>;

/// A connection for one request at a time.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Body>,
    pub(super) allowance: Allowance,
}

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

/// Kept connections, the one used last at the end.
pub(super) struct Idle {
    pub(super) kept: Mutex<Vec<(Http1, Stopwatch)>>,
    pub(super) slots: Arc<Slots>,
}

impl GiveWay for Idle {
    fn close_oldest(&self) -> bool {
        let mut kept = lock(&self.kept);
        !kept.is_empty() && {
            kept.remove(0);
            true
        }
    }
}

impl Idle {
    /// The connection used last, of those that are still good.
    pub(super) fn pop(&self) -> Option<Http1> {
        let mut idle = lock(&self.kept);
        while let Some((kept, since)) = idle.pop() {
            if kept.sender.is_ready() && since.elapsed() < IDLE_TIMEOUT {
                return Some(kept);
            }
        }
        None
    }

    fn push(&self, connection: Http1) {
        let mut idle = lock(&self.kept);
        if idle.len() < MAX_IDLE && !self.slots.is_wanted() {
            idle.push((connection, Stopwatch::start()));
        }
    }
}

/// A lent connection. Dropped without [`Lease::give_back`], it is closed.
pub struct Lease {
    pub(super) connection: Option<Http1>,
    pub(super) idle: Arc<Idle>,
    /// Of a connection that is shared.
    pub(super) _use: Option<Use>,
}

impl Lease {
    /// The body was read to its end: the connection may serve another request.
    pub fn give_back(mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if connection.sender.is_ready() {
            self.idle.push(connection);
        } else if !connection.sender.is_closed() {
            // The connection task has not yet seen the end that we saw; it will in a moment, or it closes.
            let idle = self.idle.clone();
            tokio::spawn(async move {
                if let Ok(Ok(())) = tokio::time::timeout(IDLE_TIMEOUT, connection.sender.ready()).await {
                    idle.push(connection);
                }
            });
        }
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
        assert!(uses.is_idle_for(Duration::ZERO) && !uses.is_idle_for(IDLE_TIMEOUT));
    }
}
