//! An HTTP/1.1 connection, polled in the task of the exchange that it serves.
//!
//! In a task of its own it would be woken for each piece of an answer only to wake the exchange's. Nobody polls a connection
//! that is kept for the next request but whoever keeps it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body as _, Frame};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use super::connect::Route;
use super::flood::{Allowance, Bounded};
use super::slots::Slot;

/// The body of a request.
pub(super) type Body = Full<Bytes>;

/// The stream that a route leads to, TLS included.
pub(super) type Stream = <Route as Service<Uri>>::Response;

/// That stream, read within an allowance.
pub(super) type Io = TokioIo<Bounded<TokioIo<Stream>>>;

/// The largest response head that is read, in bytes.
const MAX_HEAD_BYTES: usize = 128 * 1024;

/// A connection for one request at a time; dropped, it is closed.
pub(super) struct Http1 {
    sender: http1::SendRequest<Body>,
    driver: Driver,
    allowance: Allowance,
    _slot: Slot,
}

/// Reads and writes while it is polled.
struct Driver {
    /// None once it has ended.
    connection: Option<Box<http1::Connection<Io, Body>>>,
    /// The last poll found nothing, so that this one was woken for something.
    is_woken: bool,
    /// One piece comes right behind the other.
    is_flowing: bool,
}

impl Http1 {
    /// A connection over a stream that was just made, which holds the slot until it is closed.
    ///
    /// # Errors
    /// Hyper's.
    pub(super) async fn new(io: Io, allowance: Allowance, slot: Slot) -> hyper::Result<Self> {
        let (sender, connection) = http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(io).await?;
        let driver = Driver { connection: Some(Box::new(connection)), is_woken: false, is_flowing: false };
        Ok(Self { sender, driver, allowance, _slot: slot })
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// Hyper's, with the request where it was not written.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        self.allowance.begin();
        let mut response = pin!(self.sender.try_send_request(request));
        let response = poll_fn(|cx| self.driver.poll_until(cx, |cx| response.as_mut().poll(cx))).await?;
        self.allowance.answered();
        Ok(response)
    }

    /// Polls for the next frame of a body that this connection brings.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.driver.poll_until(cx, |cx| Pin::new(&mut *body).poll_frame(cx))
    }

    /// Returns true if it can take a request now.
    pub(super) fn is_ready(&mut self) -> bool {
        self.driver.advance(&mut Context::from_waker(Waker::noop()));
        !self.has_ended() && self.sender.is_ready()
    }

    /// Returns true if it can take no request any more.
    pub(super) fn has_ended(&self) -> bool {
        self.driver.connection.is_none() || self.sender.is_closed()
    }

    /// Waits until it can take a request; false: it has ended.
    pub(super) async fn ready(&mut self) -> bool {
        let Self { sender, driver, .. } = self;
        poll_fn(|cx| driver.poll_until(cx, |cx| sender.poll_ready(cx))).await.is_ok() && !self.has_ended()
    }

    /// Returns true once the upstream has closed it, or has sent what nobody asked for; until then whoever polls is woken for that.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> bool {
        self.driver.advance(cx);
        self.has_ended()
    }
}

impl Driver {
    /// Polls for what the connection brings about, and the connection.
    ///
    /// All that it brings comes of these polls, so that nobody need be woken for it but by the stream. What is expected to be
    /// there is looked for by a waker that wakes nobody, and only where it is not the task is registered: else it would be
    /// woken for what it takes itself.
    fn poll_until<T>(&mut self, cx: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let quiet = &mut Context::from_waker(Waker::noop());
        let is_expected = self.is_woken || self.is_flowing;
        self.is_woken = false;
        if let Poll::Ready(found) = poll(quiet) {
            return Poll::Ready(found);
        }
        if is_expected {
            self.advance(quiet);
            if let Poll::Ready(found) = poll(quiet) {
                return Poll::Ready(found);
            }
        }
        self.advance(cx);
        let polled = poll(quiet);
        self.is_flowing = polled.is_ready();
        self.is_woken = polled.is_pending();
        polled
    }

    fn advance(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(&mut **connection).poll(cx).is_ready()
        {
            // The reason is told to whoever waits for a response or a body.
            self.connection = None;
        }
    }
}
