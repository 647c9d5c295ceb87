//! A provider behind TLS with a certificate of its own, speaking HTTP/1.1 or HTTP/2 as the peer chooses.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

type Versions = Arc<Mutex<Vec<http::Version>>>;

/// A listening provider with TLS; answers every request with a chat completion.
pub struct TlsUpstream {
    addr: SocketAddr,
    certificate: tempfile::NamedTempFile,
    client: Option<(tempfile::NamedTempFile, tempfile::NamedTempFile)>,
    versions: Versions,
    server: JoinHandle<()>,
}

impl Drop for TlsUpstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl TlsUpstream {
    /// Its base URL.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/v1", self.addr.port())
    }

    /// The file with its certificate, in PEM, to be trusted through `SSL_CERT_FILE`.
    pub fn certificate(&self) -> PathBuf {
        self.certificate.path().to_owned()
    }

    /// The files with the certificate that its clients must show, and with its key, in PEM.
    ///
    /// # Panics
    /// When it asks for none.
    pub fn client_certificate(&self) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.client.as_ref().expect("it asks for a certificate");
        (certificate.path().to_owned(), key.path().to_owned())
    }

    /// The HTTP versions of the requests it saw.
    pub fn versions(&self) -> Vec<http::Version> {
        self.versions.lock().expect("no test panics with the list in hand").clone()
    }
}

/// Starts a provider with TLS that offers these protocols by ALPN (`h2`, `http/1.1`).
pub async fn tls_upstream(alpn: &[&str]) -> TlsUpstream {
    start(alpn, false).await
}

/// Starts one that only answers clients that show a certificate of its own making.
pub async fn tls_upstream_for(alpn: &[&str]) -> TlsUpstream {
    start(alpn, true).await
}

/// Starts one that speaks HTTP/2 and answers every request with so many bytes of informational responses (103), and with
/// nothing else.
pub async fn flooding_http2_upstream(flood_bytes: usize) -> TlsUpstream {
    start_with(&["h2"], false, move |stream, _| async move {
        flood(stream, flood_bytes).await.ok();
    })
    .await
}

/// Frames by hand, because no server of HTTP/2 can be made to do this (RFC 9113, section 4.1; RFC 7541, section 6.2.2).
async fn flood(mut stream: TlsStream<TcpStream>, flood_bytes: usize) -> std::io::Result<()> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // ":status: 103", in a frame of HEADERS that is whole and does not end stream 1.
    const HINTS: [u8; 14] = [0, 0, 5, 1, 4, 0, 0, 0, 1, 8, 3, b'1', b'0', b'3'];
    stream.write_all(&SETTINGS).await?;
    let mut seen = Vec::new();
    // The preface of 24 bytes, then frames up to the one that asks.
    let asks = |seen: &[u8]| {
        let mut rest = seen.get(24..).unwrap_or_default();
        while let [a, b, c, kind, tail @ ..] = rest {
            if *kind == 1 {
                return true;
            }
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            rest = tail.get(5 + length..).unwrap_or_default();
        }
        false
    };
    while !asks(&seen) {
        if stream.read_buf(&mut seen).await? == 0 {
            return Ok(());
        }
    }
    let hints = HINTS.repeat(4_096);
    for _ in 0..flood_bytes.div_ceil(hints.len()) {
        stream.write_all(&hints).await?;
    }
    stream.flush().await?;
    // What it hears afterwards is of no interest.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file can be made");
    std::fs::write(file.path(), content).expect("the file can be written");
    file
}

async fn start(alpn: &[&str], asks_certificate: bool) -> TlsUpstream {
    start_with(alpn, asks_certificate, |stream, versions: Versions| async move {
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            versions.lock().expect("no test panics with the list in hand").push(request.version());
            async { Ok::<_, Infallible>(answer()) }
        });
        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
    })
    .await
}

async fn start_with<T>(
    alpn: &[&str],
    asks_certificate: bool,
    talk: impl Fn(TlsStream<TcpStream>, Versions) -> T + Clone + Send + 'static,
) -> TlsUpstream
where
    T: Future<Output = ()> + Send + 'static,
{
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
    let certificate = file(&made.cert.pem());

    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the default versions are supported");
    let (builder, client) = if asks_certificate {
        let made = rcgen::generate_simple_self_signed(["client".to_owned()]).expect("a certificate can be made");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("the certificate can be trusted");
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().expect("there is an authority");
        let files = (file(&made.cert.pem()), file(&made.signing_key.serialize_pem()));
        (builder.with_client_cert_verifier(verifier), Some(files))
    } else {
        (builder.with_no_client_auth(), None)
    };
    let mut config =
        builder.with_single_cert(vec![made.cert.der().clone()], key.into()).expect("the certificate fits its key");
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();

    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port is free");
    let addr = listener.local_addr().expect("a listener has an address");
    let versions = Versions::default();
    let server = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), versions.clone(), talk));
    TlsUpstream { addr, certificate, client, versions, server }
}

async fn serve<T: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    versions: Versions,
    talk: impl Fn(TlsStream<TcpStream>, Versions) -> T + Clone + Send + 'static,
) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (acceptor, versions, talk) = (acceptor.clone(), versions.clone(), talk.clone());
        connections.spawn(async move {
            if let Ok(stream) = acceptor.accept(socket).await {
                talk(stream, versions).await;
            }
        });
    }
}

fn answer() -> http::Response<Full<Bytes>> {
    let crate::reply::Step::Send(body) = crate::chat("over TLS").body.remove(0) else {
        unreachable!("a chat reply is one piece")
    };
    let mut response = http::Response::new(Full::new(body));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
