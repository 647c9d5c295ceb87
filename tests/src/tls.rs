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
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A listening provider with TLS; answers every request with a chat completion.
pub struct TlsUpstream {
    addr: SocketAddr,
    certificate: tempfile::NamedTempFile,
    client: Option<(tempfile::NamedTempFile, tempfile::NamedTempFile)>,
    versions: Arc<Mutex<Vec<http::Version>>>,
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

fn file(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file can be made");
    std::fs::write(file.path(), content).expect("the file can be written");
    file
}

async fn start(alpn: &[&str], asks_certificate: bool) -> TlsUpstream {
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
    let versions = Arc::<Mutex<Vec<http::Version>>>::default();
    let server = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), versions.clone()));
    TlsUpstream { addr, certificate, client, versions, server }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, versions: Arc<Mutex<Vec<http::Version>>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (acceptor, versions) = (acceptor.clone(), versions.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else {
                return;
            };
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                versions.lock().expect("no test panics with the list in hand").push(request.version());
                async { Ok::<_, Infallible>(answer()) }
            });
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok();
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
