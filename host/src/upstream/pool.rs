//! Connections to one origin, kept between requests.
//!
//! HTTP/1.1 connections are lent to one request at a time and come back when its answer has been read to the end; a
//! lease that is dropped before closes its connection, which is how an abandoned answer stops at once. HTTP/2, where
//! TLS agreed on it, is one connection shared by all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::client::legacy::connect::Connection;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tower_service::Service;

use pointsman_config::Outbound;

use super::connect::{self, BadOutbound, Connector, Route};
use super::flood::Bounded;
use super::http1::{Body, Http1};
use super::http2::{Http2, Uses, lock};
use super::idle::{IDLE_TIMEOUT, Idle, Lease};
use super::send_error::{NotMade, SendError, broken};
use super::slots::Slot;

/// After a connection that failed for want of a descriptor, how long it is until the next try.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of one answer that an HTTP/2 connection holds for a client that reads slower than its upstream sends.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// The same of all answers on the connection: the largest there is (RFC 9113, section 6.9.1), so that no number of slow
/// clients keeps others' answers from coming.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

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

/// A response head with its body to come, and the connection it comes on.
pub struct Answer {
    /// Head and body of the response.
    pub response: Response<Incoming>,
    /// Gives the connection back when the body has been read to its end.
    pub lease: Lease,
}

/// Permission to use a kept connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// A kept connection, if there is one.
    Kept,
    /// A new one is made.
    Fresh,
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
        let idle = Idle::new(connector.slots());
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
        {
            let mut shared = lock(&self.shared);
            if let Some(kept) = shared.as_ref() {
                if !kept.sender.is_closed() && !kept.uses.is_idle_for(IDLE_TIMEOUT) {
                    return Some(Kept::Http2(kept.clone()));
                }
                // Somebody on the way may have forgotten it, which would show only when a request has waited for long.
                *shared = None;
            }
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
            let Ok(slot) = tokio::time::timeout_at(deadline, self.idle.slots().take()).await else {
                return Err(SendError::OwnShortage(shortage));
            };
            // Boxed: TLS and all make it 6 KiB, which every exchange would carry for what few of them need.
            let made = tokio::time::timeout_at(deadline, Box::pin(self.handshake(slot))).await;
            match made.map_err(|_| SendError::ConnectTimeout { origin: origin(), limit })? {
                Ok(kept) => return Ok(kept),
                Err(NotMade::Failed(reason)) => return Err(SendError::Connect { origin: origin(), reason }),
                Err(NotMade::OwnShortage(reason)) => shortage = reason,
            }
            self.idle.slots().make_room();
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
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .keep_alive_interval(Duration::from_secs(30))
                .handshake(io)
                .await
                .map_err(|e| NotMade::by(&e))?;
            // The connection ends with its last sender; until then it belongs to the process.
            tokio::spawn(holding(slot, connection));
            let shared = Http2 { sender, allowance, uses: Uses::default() };
            *lock(&self.shared) = Some(shared.clone());
            return Ok(Kept::Http2(shared));
        }
        Http1::new(io, allowance, slot).await.map(Kept::Http1).map_err(|e| NotMade::by(&e))
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
        let response = connection.send(request).await?;
        Ok(Answer { response, lease: Lease { connection: Some(connection), idle: self.idle.clone(), _use: None } })
    }

    async fn send_http2(
        &self,
        mut connection: Http2,
        mut request: Request<Body>,
    ) -> Result<Answer, TrySendError<Request<Body>>> {
        *request.uri_mut() = self.absolute(request.uri());
        connection.allowance.begin();
        let in_use = connection.uses.begin();
        let response = connection.sender.try_send_request(request).await?;
        Ok(Answer { response, lease: Lease { connection: None, idle: self.idle.clone(), _use: Some(in_use) } })
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

/// Runs a connection, which has its slot until its end.
async fn holding(slot: Slot, connection: impl Future) {
    connection.await;
    drop(slot);
}

/// An unsent HTTP/2 request has an absolute URI; put it back into the form in which it came.
fn as_sent(mut request: Request<Body>) -> Request<Body> {
    let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
    request
}
