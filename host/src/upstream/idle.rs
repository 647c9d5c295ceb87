//! Connections to one origin that are kept for further requests.
//!
//! Nothing polls a kept connection, so that one which the upstream closes, or which has been unused for too long, is found by a
//! task that looks at them all from time to time and ends with the last.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use pointsman_engine::clock::Stopwatch;

use super::http1::Http1;
use super::http2::Use;
use super::slots::{GiveWay, Slots};

/// Idle connections kept per origin.
const MAX_IDLE: usize = 512;

/// An idle connection older than this is closed; servers close theirs after a minute or more.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(55);

/// Interval of looking at the idle connections; one that has been looked at is closed at once when the upstream closes it.
const SWEEP_EVERY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2_000 });

/// Kept connections of one origin.
pub(super) struct Idle {
    kept: Mutex<Kept>,
    slots: Arc<Slots>,
}

#[derive(Default)]
struct Kept {
    /// The one used last at the end.
    connections: Vec<(Http1, Stopwatch)>,
    /// A task looks at them.
    is_swept: bool,
}

impl Idle {
    /// None yet.
    pub(super) fn new(slots: &Arc<Slots>) -> Arc<Self> {
        let idle = Arc::new(Self { kept: Mutex::default(), slots: slots.clone() });
        slots.add(&idle);
        idle
    }

    /// The slots of all connections.
    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The connection used last. Where its upstream has closed it since, it gives a request back unwritten.
    pub(super) fn pop(&self) -> Option<Http1> {
        let (connection, since) = self.kept().connections.pop()?;
        // All others are older.
        (since.elapsed() < IDLE_TIMEOUT).then_some(connection)
    }

    /// Keeps a connection whose answer was read to its end; one that is not done with its request yet, when it is.
    pub(super) fn take_back(self: &Arc<Self>, mut connection: Http1) {
        if connection.is_ready() {
            self.push(connection);
        } else if !connection.has_ended() {
            let idle = self.clone();
            tokio::spawn(async move {
                if let Ok(true) = tokio::time::timeout(IDLE_TIMEOUT, connection.ready()).await {
                    idle.push(connection);
                }
            });
        }
    }

    fn push(self: &Arc<Self>, connection: Http1) {
        let mut kept = self.kept();
        if kept.connections.len() >= MAX_IDLE || self.slots.is_wanted() {
            drop(kept);
            drop(connection);
            return;
        }
        kept.connections.push((connection, Stopwatch::start()));
        if !std::mem::replace(&mut kept.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes those that have ended or are too old; returns true if none is left. Whoever polls is woken when another ends.
    fn close_ended(&self, cx: &mut Context<'_>) -> bool {
        let mut kept = self.kept();
        kept.connections.retain_mut(|(connection, since)| since.elapsed() < IDLE_TIMEOUT && !connection.poll_end(cx));
        kept.is_swept = !kept.connections.is_empty();
        !kept.is_swept
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GiveWay for Idle {
    fn close_oldest(&self) -> bool {
        let mut kept = self.kept();
        !kept.connections.is_empty() && {
            kept.connections.remove(0);
            true
        }
    }
}

/// Looks at the idle connections until there are none.
async fn sweep(idle: Weak<Idle>) {
    loop {
        let mut pause = pin!(tokio::time::sleep(SWEEP_EVERY));
        let look = |cx: &mut Context<'_>| match idle.upgrade() {
            Some(idle) if !idle.close_ended(cx) => pause.as_mut().poll(cx).map(|()| true),
            Some(_) | None => Poll::Ready(false),
        };
        if !poll_fn(look).await {
            return;
        }
    }
}

/// A lent connection. Dropped without [`Lease::give_back`], it is closed.
pub struct Lease {
    /// None: it is shared.
    pub(super) connection: Option<Http1>,
    pub(super) idle: Arc<Idle>,
    /// Present for a shared connection.
    pub(super) _use: Option<Use>,
}

impl Lease {
    /// Polls for the next frame of the body that came with it.
    pub fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.connection {
            Some(connection) => connection.poll_frame(body, cx),
            None => Pin::new(body).poll_frame(cx),
        }
    }

    /// The next frame of the body that came with it; none at its end.
    pub async fn frame(&mut self, body: &mut Incoming) -> Option<hyper::Result<Frame<Bytes>>> {
        poll_fn(|cx| self.poll_frame(body, cx)).await
    }

    /// The body was read to its end: the connection may serve another request.
    pub fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            self.idle.take_back(connection);
        }
    }
}
