//! Connections to one origin, kept between requests.
//!
//! HTTP/1.1 connections are lent to one request at a time and come back when its answer has been read to the end; a
//! lease that is dropped before closes its connection, which is how an abandoned answer stops at once. HTTP/2, where
//! TLS agreed on it, is one connection shared by all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pointsman_engine::clock::Stopwatch;

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::client::legacy::connect::Connection;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tower_service::Service;

use pointsman_config::Outbound;

use super::connect::{self, BadOutbound, Connector, Route};
use super::flood::{Allowance, Bounded};
use super::slots::{GiveWay, Slot, Slots, is_own_shortage};

/// Idle connections kept per origin.
const MAX_IDLE: usize = 512;

/// An idle connection older than this is not used again; servers close theirs after a minute or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(55);

/// After a connection that failed for want of a descriptor, how long it is until the next try.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// The largest response head that is read, in bytes.
const MAX_HEAD_BYTES: usize = 128 * 1024;

type Body = Full<Bytes>;

/// One scheme, host and port, and the connections to it.
pub struct Origin {
    uri: Uri,
    host: HeaderValue,
    route: Route,
    outbound: Outbound,
    handed_to_proxy: Option<HandedToProxy>,
    idle: Arc<Idle>,
    shared: Mutex<Option<Http2>>,
}

/// Requests go to a proxy as they are, not through a tunnel.
struct HandedToProxy {
    authorization: Option<HeaderValue>,
}

/// Kept connections, the one used last at the end.
struct Idle {
    kept: Mutex<Vec<(Http1, Stopwatch)>>,
    slots: Arc<Slots>,
}

/// A response head with its body to come, and the connection it comes on.
pub struct Answer {
    /// Head and body of the response.
    pub response: Response<Incoming>,
    /// Gives the connection back when the body has been read to its end.
    pub lease: Lease,
}

/// A lent connection. Dropped without [`Lease::give_back`], it is closed.
pub struct Lease {
    connection: Option<Http1>,
    idle: Arc<Idle>,
}

/// Permission to use a kept connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// A kept connection, if there is one.
    Kept,
    /// A new one is made.
    Fresh,
}

/// The reason why no response head arrived.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection: refused, unreachable, unknown name, TLS.
    #[error("cannot connect to {origin}: {reason}")]
    Connect {
        /// Origin of the upstream.
        origin: String,
        /// Cause of the failure.
        reason: String,
    },
    /// No connection within the time limit.
    #[error("no connection to {origin} within {limit:?} (timeouts.connect_ms)")]
    ConnectTimeout {
        /// Origin of the upstream.
        origin: String,
        /// The time limit.
        limit: Duration,
    },
    /// This process has no descriptor, port or memory left for a connection; the upstream was not asked.
    #[error("Pointsman has no room for another connection: {0}")]
    OwnShortage(String),
    /// The connection broke before the head was there.
    #[error("the connection broke before a response: {reason}")]
    Reset {
        /// Cause of the failure.
        reason: String,
        /// The connection had served before: its end may have crossed the request.
        reused: bool,
    },
    /// The upstream's bytes are not HTTP.
    #[error("the upstream's response is not valid HTTP: {0}")]
    Malformed(String),
}

impl Origin {
    /// The origin of a base URL; nothing is connected yet.
    ///
    /// # Errors
    /// [`BadOutbound`]: its certificates cannot be used.
    pub fn new(base_url: &Uri, outbound: &Outbound, connector: &Connector) -> Result<Self, BadOutbound> {
        let authority = base_url.authority().map_or("", |a| a.as_str());
        let host = HeaderValue::from_str(authority).unwrap_or(HeaderValue::from_static(""));
        let origin = Uri::builder()
            .scheme(base_url.scheme_str().unwrap_or("http"))
            .authority(authority)
            .path_and_query("/")
            .build()
            .unwrap_or_default();
        let is_plain = base_url.scheme_str() != Some("https");
        let handed_to_proxy = outbound
            .proxy
            .as_ref()
            .filter(|proxy| is_plain && !proxy.is_socks())
            .map(|proxy| HandedToProxy { authorization: connect::proxy_authorization(proxy) });
        let idle = Arc::new(Idle { kept: Mutex::default(), slots: connector.slots().clone() });
        connector.slots().add(&idle);
        Ok(Self {
            uri: origin,
            host,
            route: connector.route(outbound)?,
            outbound: outbound.clone(),
            handed_to_proxy,
            idle,
            shared: Mutex::new(None),
        })
    }

    /// Returns true for the same place, reached in the same way.
    pub fn is_at(&self, base_url: &Uri, outbound: &Outbound) -> bool {
        let scheme = base_url.scheme_str().unwrap_or("http");
        self.uri.scheme_str() == Some(scheme)
            && self.uri.authority().map(|a| a.as_str()) == base_url.authority().map(|a| a.as_str())
            && self.outbound == *outbound
    }

    /// Sends a request (its URI is path and query only) and waits for the response head.
    ///
    /// A kept connection that turns out to be closed is replaced by another as long as the request was not written.
    pub async fn send(
        &self,
        mut request: Request<Body>,
        connect_timeout: Duration,
        reuse: Reuse,
        written: &AtomicBool,
    ) -> Result<Answer, SendError> {
        while let Some(kept) = self.kept(reuse) {
            written.store(true, Ordering::Relaxed);
            let reused = match kept {
                Kept::Http1(sender) => self.send_http1(sender, request).await,
                Kept::Http2(sender) => self.send_http2(sender, request).await,
            };
            match reused {
                Ok(answer) => return Ok(answer),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => {
                        written.store(false, Ordering::Relaxed);
                        request = as_sent(unsent);
                    }
                    None => return Err(broken(&error.into_error(), true)),
                },
            }
        }
        let connection = self.connect(connect_timeout).await?;
        written.store(true, Ordering::Relaxed);
        let sent = match connection {
            Kept::Http1(sender) => self.send_http1(sender, request).await,
            Kept::Http2(sender) => self.send_http2(sender, request).await,
        };
        sent.map_err(|error| broken(&error.into_error(), false))
    }

    fn kept(&self, reuse: Reuse) -> Option<Kept> {
        match reuse {
            Reuse::Fresh => return None,
            Reuse::Kept => {}
        }
        if let Some(sender) = lock(&self.shared).as_ref().filter(|shared| !shared.sender.is_closed()) {
            return Some(Kept::Http2(sender.clone()));
        }
        self.idle.pop().map(Kept::Http1)
    }

    /// A new connection. A shortage of our own is waited for within the limit.
    async fn connect(&self, limit: Duration) -> Result<Kept, SendError> {
        let origin = || self.uri.to_string();
        let deadline = crate::timer::now() + limit;
        let mut shortage =
            "connections to backends have all file descriptors that they may have (ulimit -n)".to_owned();
        loop {
            let Ok(slot) = tokio::time::timeout_at(deadline, self.idle.slots.take()).await else {
                return Err(SendError::OwnShortage(shortage));
            };
            // Boxed: TLS and all make it 6 KiB, which every exchange would carry for what few of them need.
            let made = tokio::time::timeout_at(deadline, Box::pin(self.handshake(slot))).await;
            match made.map_err(|_| SendError::ConnectTimeout { origin: origin(), limit })? {
                Ok(kept) => return Ok(kept),
                Err(NotMade::Failed(reason)) => return Err(SendError::Connect { origin: origin(), reason }),
                Err(NotMade::OwnShortage(reason)) => shortage = reason,
            }
            self.idle.slots.make_room();
            if crate::timer::now() + SHORTAGE_PAUSE >= deadline {
                return Err(SendError::OwnShortage(shortage));
            }
            tokio::time::sleep(SHORTAGE_PAUSE).await;
        }
    }

    async fn handshake(&self, slot: Slot) -> Result<Kept, NotMade> {
        let mut route = self.route.clone();
        let io = route.call(self.uri.clone()).await.map_err(|e| NotMade::by(e.as_ref()))?;
        let is_http2 = io.connected().is_negotiated_h2();
        let io = Bounded::new(TokioIo::new(io), is_http2);
        let allowance = io.allowance();
        let io = TokioIo::new(io);
        if is_http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .adaptive_window(true)
                .keep_alive_interval(Duration::from_secs(30))
                .handshake(io)
                .await
                .map_err(|e| NotMade::by(&e))?;
            // The connection ends with its last sender; until then it belongs to the process.
            tokio::spawn(holding(slot, connection));
            let shared = Http2 { sender, allowance };
            *lock(&self.shared) = Some(shared.clone());
            return Ok(Kept::Http2(shared));
        }
        let (sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(io).await.map_err(|e| NotMade::by(&e))?;
        tokio::spawn(holding(slot, connection));
        Ok(Kept::Http1(Http1 { sender, allowance }))
    }

    async fn send_http1(
        &self,
        mut connection: Http1,
        mut request: Request<Body>,
    ) -> Result<Answer, TrySendError<Request<Body>>> {
        request.headers_mut().insert(HOST, self.host.clone());
        if let Some(HandedToProxy { authorization }) = &self.handed_to_proxy {
            *request.uri_mut() = self.absolute(request.uri());
            connect::add_authorization(request.headers_mut(), authorization.as_ref());
        }
        connection.allowance.begin();
        let response = connection.sender.try_send_request(request).await?;
        connection.allowance.answered();
        Ok(Answer { response, lease: Lease { connection: Some(connection), idle: self.idle.clone() } })
    }

    async fn send_http2(
        &self,
        mut connection: Http2,
        mut request: Request<Body>,
    ) -> Result<Answer, TrySendError<Request<Body>>> {
        *request.uri_mut() = self.absolute(request.uri());
        connection.allowance.begin();
        let response = connection.sender.try_send_request(request).await?;
        Ok(Answer { response, lease: Lease { connection: None, idle: self.idle.clone() } })
    }

    fn absolute(&self, target: &Uri) -> Uri {
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = target.path_and_query().cloned();
        Uri::from_parts(parts).unwrap_or_default()
    }
}

enum Kept {
    Http1(Http1),
    Http2(Http2),
}

/// A connection for one request at a time.
struct Http1 {
    sender: http1::SendRequest<Body>,
    allowance: Allowance,
}

/// A connection that is shared.
#[derive(Clone)]
struct Http2 {
    sender: http2::SendRequest<Body>,
    allowance: Allowance,
}

/// The reason why there is no connection.
enum NotMade {
    Failed(String),
    OwnShortage(String),
}

impl NotMade {
    fn by(error: &(dyn std::error::Error + 'static)) -> Self {
        let reason = causes(error);
        if is_own_shortage(error) { Self::OwnShortage(reason) } else { Self::Failed(reason) }
    }
}

/// Runs a connection, which has its slot until its end.
async fn holding(slot: Slot, connection: impl Future) {
    connection.await;
    drop(slot);
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
    fn pop(&self) -> Option<Http1> {
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

/// An unsent HTTP/2 request has an absolute URI; put it back into the form in which it came.
fn as_sent(mut request: Request<Body>) -> Request<Body> {
    let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
    request
}

fn broken(error: &hyper::Error, reused: bool) -> SendError {
    let reason = causes(error);
    let from_io = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    // A flood in place of a head is an error of the reader, not of the parser.
    let is_nonsense = error.is_parse() || from_io.is_some_and(|e| e.kind() == std::io::ErrorKind::InvalidData);
    if is_nonsense { SendError::Malformed(reason) } else { SendError::Reset { reason, reused } }
}

/// An error and its causes in one line.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
