//! New connections: TCP, directly or through a forward proxy, TLS, and which HTTP version was agreed.
//!
//! Through a proxy an `https` origin is reached by a tunnel (RFC 9110, section 9.3.6), so that the proxy sees its name and
//! nothing else. Requests to an `http` origin are handed to the proxy itself, where the configuration says so. A SOCKS5 proxy
//! opens a tunnel to either.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use http::header::{HeaderValue, PROXY_AUTHORIZATION};
use http::{HeaderMap, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use pointsman_config::secret::Secret;
use pointsman_config::{ForwardProxy, Outbound};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_service::Service;

use super::resolver::Resolver;
use super::slots::Slots;
use super::socks;

/// TCP keep-alive probes find a peer that vanished without a word.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// The largest head of a proxy's response to CONNECT, in bytes.
const MAX_PROXY_HEAD_BYTES: usize = 8 * 1024;

/// Makes connections to the origins of all backends; cheap to clone.
#[derive(Clone)]
pub struct Connector {
    tcp: Tcp,
    /// Trusts the machine's certificate store.
    machine: Arc<rustls::ClientConfig>,
    slots: Arc<Slots>,
}

/// Makes TCP connections.
type Tcp = HttpConnector<Resolver>;

/// Makes connections to one origin.
pub(super) type Route = HttpsConnector<Dialer>;

/// The stream beneath an origin's own TLS.
type Wire = MaybeHttpsStream<TokioIo<TcpStream>>;

/// The reason why a backend cannot be connected to as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum BadOutbound {
    /// None of `ca_file` can be an authority.
    #[error("ca_file holds no certificate that can be trusted")]
    Authorities,
    /// The certificate and its key do not belong together, or the key is of an unknown kind.
    #[error("client_cert and client_key cannot be used: {0}")]
    Identity(String),
}

impl Connector {
    /// A connector that trusts the machine's certificate store (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured), or
    /// Mozilla's roots where the machine has none. At most `max_connections` are open at a time.
    pub fn with_native_roots(max_connections: usize) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver::of_the_system());
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        tcp.enforce_http(false);
        Self { tcp, machine: Arc::new(tls_config()), slots: Arc::new(Slots::new(max_connections)) }
    }

    /// The slots that all its connections share.
    pub(super) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// The way to a backend.
    ///
    /// # Errors
    /// [`BadOutbound`]: its certificates cannot be used.
    pub(super) fn route(&self, outbound: &Outbound) -> Result<Route, BadOutbound> {
        let tls = self.tls(outbound)?;
        let dialer = Dialer { tcp: self.tcp.clone(), proxy: outbound.proxy.as_ref().map(|proxy| self.proxy(proxy)) };
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        Ok(https.enable_http1().enable_http2().wrap_connector(dialer))
    }

    fn tls(&self, outbound: &Outbound) -> Result<rustls::ClientConfig, BadOutbound> {
        let Outbound { authorities, identity, proxy: _ } = outbound;
        if authorities.is_none() && identity.is_none() {
            return Ok((*self.machine).clone());
        }
        let roots = match authorities {
            Some(authorities) => own_roots(authorities)?,
            None => machine_roots(),
        };
        let builder = tls_builder().with_root_certificates(roots);
        match identity {
            None => Ok(builder.with_no_client_auth()),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|error| BadOutbound::Identity(error.to_string())),
        }
    }

    fn proxy(&self, proxy: &ForwardProxy) -> ProxyDialer {
        let https = HttpsConnectorBuilder::new().with_tls_config((*self.machine).clone()).https_or_http();
        let connect = https.enable_http1().wrap_connector(self.tcp.clone());
        let uri = proxy.address();
        match proxy.is_socks() {
            true => ProxyDialer { uri, way: Way::Socks(proxy.login.clone()), connect },
            false => ProxyDialer { uri, way: Way::Http(proxy_authorization(proxy)), connect },
        }
    }
}

/// The TLS settings of clients of our own that are no backend's.
pub fn tls_config() -> rustls::ClientConfig {
    tls_builder().with_root_certificates(machine_roots()).with_no_client_auth()
}

/// The header by which a proxy knows who asks, marked sensitive.
pub(super) fn proxy_authorization(proxy: &ForwardProxy) -> Option<HeaderValue> {
    let login = proxy.login.as_ref()?;
    let encoded = base64::engine::general_purpose::STANDARD.encode(login.expose());
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn tls_builder() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
}

fn machine_roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a certificate of the machine's store was not read");
    }
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn own_roots(authorities: &[CertificateDer<'static>]) -> Result<rustls::RootCertStore, BadOutbound> {
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(authorities.iter().cloned());
    if added == 0 { Err(BadOutbound::Authorities) } else { Ok(roots) }
}

/// Makes the stream beneath an origin's TLS: to the origin, or to the proxy and through it.
#[derive(Clone)]
pub(super) struct Dialer {
    tcp: Tcp,
    proxy: Option<ProxyDialer>,
}

#[derive(Clone)]
struct ProxyDialer {
    uri: Uri,
    way: Way,
    connect: HttpsConnector<Tcp>,
}

/// The protocol that a proxy is asked in, and who asks.
#[derive(Clone)]
enum Way {
    Http(Option<HeaderValue>),
    Socks(Option<Secret>),
}

impl Service<Uri> for Dialer {
    type Response = Wire;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, origin: Uri) -> Self::Future {
        match &self.proxy {
            None => {
                let connecting = self.tcp.call(origin);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            Some(proxy) => {
                let mut proxy = proxy.clone();
                Box::pin(async move {
                    let wire = proxy.connect.call(proxy.uri.clone()).await?;
                    match &proxy.way {
                        Way::Socks(login) => {
                            let mut wire = TokioIo::new(wire);
                            socks::tunnel(&mut wire, &origin, login.as_ref()).await?;
                            Ok(wire.into_inner())
                        }
                        // The request itself is handed to the proxy.
                        Way::Http(_) if origin.scheme_str() != Some("https") => Ok(wire),
                        Way::Http(authorization) => Ok(tunnel(wire, &origin, authorization.as_ref()).await?),
                    }
                })
            }
        }
    }
}

/// Asks a proxy for a tunnel to the origin.
async fn tunnel(wire: Wire, origin: &Uri, authorization: Option<&HeaderValue>) -> io::Result<Wire> {
    let host = origin.host().ok_or_else(|| io::Error::other("the base URL has no host"))?;
    let target = format!("{host}:{}", origin.port_u16().unwrap_or(443));
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n").into_bytes();
    if let Some(authorization) = authorization {
        request.extend_from_slice(PROXY_AUTHORIZATION.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let mut wire = TokioIo::new(wire);
    wire.write_all(&request).await?;
    wire.flush().await?;
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        // Nothing may follow the head before we speak, so no byte of the tunnel is taken for it.
        if head.len() > MAX_PROXY_HEAD_BYTES {
            return Err(io::Error::other("the proxy's response to CONNECT has too large a head"));
        }
        match wire.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => {
                return Err(io::Error::other("the proxy closed the connection in place of a response to CONNECT"));
            }
        }
    }
    match status_of(&head) {
        Some(200..=299) => Ok(wire.into_inner()),
        Some(407) => Err(io::Error::other("the proxy asks for a user and password (407)")),
        Some(status) => Err(io::Error::other(format!("the proxy refuses a tunnel to {target} ({status})"))),
        None => Err(io::Error::other("the proxy's response to CONNECT is not HTTP")),
    }
}

fn status_of(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let (version, rest) = line.split_once(' ')?;
    version.starts_with("HTTP/1.").then(|| rest.get(..3)?.parse().ok())?
}

/// Adds `proxy-authorization` to a request that is handed to the proxy itself.
pub(super) fn add_authorization(headers: &mut HeaderMap, authorization: Option<&HeaderValue>) {
    if let Some(value) = authorization {
        headers.insert(PROXY_AUTHORIZATION, value.clone());
    }
}
