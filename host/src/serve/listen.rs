//! A listener, for clients or for the operator: connections in, bounded, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connections::{ConnectionPlace, Connections, RequestBody};
use super::guard::Guarded;
use super::unread::{Handed, Streams};

/// After an accept that failed for want of resources, how long nothing is accepted; twice as long after each further one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Longest pause after a connection that could not be accepted.
const MAX_ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Interval between log lines about the same trouble of a listener.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// HTTP/2 streams at a time on one connection.
const MAX_STREAMS: u32 = 256;

/// Bytes of an answer that an HTTP/2 stream holds for a client that does not read.
const SEND_BUFFER_BYTES: usize = 32 << 10;

/// Time for a connection that was told to end to do so.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Answers the requests of a listener.
pub(super) trait Serve: Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static;

    /// Answers a request, one that the guard refused included.
    fn serve(
        &self,
        peer: SocketAddr,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Limits of a listener: connections, heads and times.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListenLimits {
    /// The setting of the number of connections, for messages.
    pub max_connections_setting: &'static str,
    /// Connections at a time. A new one takes the place of one that is idle; where none is, it waits.
    pub max_connections: usize,
    /// Largest request head, bytes.
    pub max_header_bytes: usize,
    /// Time for a client to send a request head.
    pub header_read_timeout: Duration,
    /// Time after which a client that reads nothing of its answer is disconnected.
    pub unread_timeout: Duration,
    /// Time that a connection may be idle between two requests.
    pub keep_alive: Duration,
}

/// Accepts until told to stop, then lets the connections finish what they are at.
pub(super) struct Listener<S> {
    tcp: TcpListener,
    http: Arc<auto::Builder<Streams>>,
    connections: Arc<Connections>,
    service: Arc<S>,
    limits: ListenLimits,
    refusals: Arc<AtomicU64>,
}

impl<S: Serve> Listener<S> {
    /// Binds the address; requests are served by `service`.
    pub(super) async fn bind(addr: SocketAddr, limits: ListenLimits, service: S) -> io::Result<Self> {
        let tcp = TcpListener::bind(addr).await?;
        let mut http = auto::Builder::new(Streams::new(limits.unread_timeout));
        http.http1()
            .timer(TokioTimer::new())
            // The guard minds the time of a head; here it is that from one request to the next.
            .header_read_timeout(limits.keep_alive)
            // The guard has judged the head's size before.
            .max_buf_size(limits.max_header_bytes.saturating_mul(2).max(65_536))
            .keep_alive(true);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(Duration::from_secs(30)));
        let connections = Connections::new(limits.max_connections);
        let service = Arc::new(service);
        Ok(Self { tcp, http: Arc::new(http), connections, service, limits, refusals: Arc::default() })
    }

    /// Returns the address it is bound to, with the real port.
    pub(super) fn addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `stop`; then no connection is accepted, and those there are end after their exchange, or at once when
    /// `cut` comes. Returns when the last is gone.
    pub(super) async fn serve(self, stop: CancellationToken, cut: CancellationToken) {
        let tasks = tokio_util::task::TaskTracker::new();
        let mut trouble = Trouble::default();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept(&mut trouble) => accepted,
            };
            let Some((stream, peer, place)) = accepted else { continue };
            let stream = Guarded::new(stream, peer, self.limits.max_header_bytes, self.refusals.clone())
                .with_patience(self.limits.header_read_timeout)
                .with_unread_timeout(self.limits.unread_timeout);
            let (service, http, limits) = (self.service.clone(), self.http.clone(), self.limits);
            let (stop, cut) = (stop.clone(), cut.clone());
            tasks.spawn(async move {
                // `run_until_cancelled` would hold the connection twice.
                let connection = pin!(converse(&http, stream, peer, service, &place, limits, stop));
                tokio::select! {
                    biased;
                    () = connection => {}
                    () = cut.cancelled() => {}
                }
            });
        }
        drop(self.tcp);
        tasks.close();
        tasks.wait().await;
    }

    async fn accept(&self, trouble: &mut Trouble) -> Option<(TcpStream, SocketAddr, ConnectionPlace)> {
        let (stream, peer) = match self.tcp.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                self.refused(&error, trouble).await;
                return None;
            }
        };
        trouble.pause = Duration::ZERO;
        // Events must not wait for a full packet.
        let _ = stream.set_nodelay(true);
        if self.connections.is_full() && trouble.is_to_be_told() {
            let ListenLimits { max_connections, max_connections_setting, .. } = self.limits;
            tracing::warn!(
                max_connections,
                "all connections that {max_connections_setting} allows are open: idle ones give way to new ones"
            );
        }
        Some((stream, peer, self.connections.place().await))
    }

    /// A connection could not be accepted. What the peer did concerns nobody else; where the process is short of something,
    /// to try again at once would only burn the processor.
    async fn refused(&self, error: &io::Error, trouble: &mut Trouble) {
        if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted) {
            return;
        }
        if trouble.is_to_be_told() {
            tracing::warn!(%error, "a connection could not be accepted; if it says too many open files, raise the hard limit (ulimit -Hn, LimitNOFILE=)");
        }
        self.connections.make_room();
        trouble.pause = (trouble.pause * 2).clamp(ACCEPT_PAUSE, MAX_ACCEPT_PAUSE);
        tokio::time::sleep(trouble.pause).await;
    }
}

/// Trouble of a listener with accepting.
#[derive(Default)]
struct Trouble {
    pause: Duration,
    told_at: Option<Instant>,
}

impl Trouble {
    /// Returns true at the first time, and then once in [`TELL_EVERY`].
    fn is_to_be_told(&mut self) -> bool {
        let now = crate::timer::now();
        let is_due = self.told_at.is_none_or(|told| now.duration_since(told) >= TELL_EVERY);
        if is_due {
            self.told_at = Some(now);
        }
        is_due
    }
}

/// Serves one connection; told to stop, idle for too long, or in another's way, it ends after the exchange it is at.
async fn converse<S: Serve>(
    http: &auto::Builder<Streams>,
    stream: Guarded<TcpStream>,
    peer: SocketAddr,
    service: Arc<S>,
    place: &ConnectionPlace,
    limits: ListenLimits,
    stop: CancellationToken,
) {
    let activity = &place.connection;
    let call = service_fn(|request: Request<hyper::body::Incoming>| {
        let (service, in_hand) = (service.clone(), activity.begin());
        // Boxed, so that it is gone while the answer streams: hyper keeps the room for it as long as the connection.
        Box::pin(async move {
            let request = request.map(|body| in_hand.receive(body));
            let response = Handed::over(service.serve(peer, request).await);
            Ok::<_, Infallible>(response.map(|body| in_hand.until_end_of(body)))
        })
    });
    let connection = http.serve_connection(TokioIo::new(stream), call);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = activity.idle_for(limits.keep_alive, limits.header_read_timeout) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(END_LIMIT, connection).await.unwrap_or(Ok(()))
        }
        is_serving = activity.told_to_give_way() => {
            if is_serving {
                connection.as_mut().graceful_shutdown();
                connection.await
            } else {
                Ok(())
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %crate::upstream::causes(error.as_ref()), "a downstream connection ended");
    }
}
