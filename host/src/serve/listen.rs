//! The downstream listener: connections in, bounded, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::guard::Guarded;
use super::service::Service;
use super::unread::{Handed, Streams};

/// After an accept that failed for want of resources, how long nothing is accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// HTTP/2 streams at a time on one connection.
const MAX_STREAMS: u32 = 256;

/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListenLimits {
    /// Connections at a time; more wait in the kernel's backlog.
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
pub(super) struct Listener {
    tcp: TcpListener,
    http: Arc<auto::Builder<Streams>>,
    permits: Arc<Semaphore>,
    service: Arc<Service>,
    limits: ListenLimits,
    refusals: Arc<AtomicU64>,
}

impl Listener {
    /// Binds the address; requests are served by `service`.
    pub(super) async fn bind(addr: SocketAddr, limits: ListenLimits, service: Service) -> io::Result<Self> {
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
            .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(Duration::from_secs(30)));
        let permits = Arc::new(Semaphore::new(limits.max_connections));
        let service = Arc::new(service);
        Ok(Self { tcp, http: Arc::new(http), permits, service, limits, refusals: Arc::default() })
    }

    /// Returns the bound address.
    pub(super) fn addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `stop`; then no connection is accepted, and those there are end after their exchange, or at once when
    /// `cut` comes. Returns when the last is gone.
    pub(super) async fn serve(self, stop: CancellationToken, cut: CancellationToken) {
        let connections = tokio_util::task::TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept() => accepted,
            };
            let Some((stream, peer, permit)) = accepted else { continue };
            let stream = Guarded::new(stream, peer, self.limits.max_header_bytes, self.refusals.clone())
                .with_patience(self.limits.header_read_timeout)
                .with_unread_timeout(self.limits.unread_timeout);
            let service = self.service.clone();
            let http = self.http.clone();
            let (stop, cut) = (stop.clone(), cut.clone());
            connections.spawn(async move {
                // `run_until_cancelled` would hold the connection twice.
                let connection = pin!(converse(&http, stream, service, stop));
                tokio::select! {
                    biased;
                    () = connection => {}
                    () = cut.cancelled() => {}
                }
                drop(permit);
            });
        }
        drop(self.tcp);
        connections.close();
        connections.wait().await;
    }

    async fn accept(&self) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        match self.tcp.accept().await {
            Ok((stream, peer)) => {
                // Events must not wait for a full packet.
                let _ = stream.set_nodelay(true);
                Some((stream, peer, permit))
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; if it says too many open files, raise the limit (ulimit -n)");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

/// Serves one connection; told to stop, it ends after the exchange it is at.
async fn converse(
    http: &auto::Builder<Streams>,
    stream: Guarded<TcpStream>,
    service: Arc<Service>,
    stop: CancellationToken,
) {
    let call = service_fn(move |request| {
        let service = service.clone();
        // Boxed, so that it is gone while the answer streams: hyper keeps the room for it as long as the connection.
        Box::pin(async move { Ok::<_, Infallible>(Handed::over(service.call(request).await)) })
    });
    let connection = http.serve_connection(TokioIo::new(stream), call);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %crate::upstream::causes(error.as_ref()), "a downstream connection ended");
    }
}
