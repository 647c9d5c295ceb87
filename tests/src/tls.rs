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

    /// The HTTP versions of the requests it saw.
    pub fn versions(&self) -> Vec<http::Version> {
        self.versions.lock().expect("no test panics with the list in hand").clone()
    }
}

/// Starts a provider with TLS that offers these protocols by ALPN (`h2`, `http/1.1`).
pub async fn tls_upstream(alpn: &[&str]) -> TlsUpstream {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
    let certificate = tempfile::NamedTempFile::new().expect("a file can be made");
    std::fs::write(certificate.path(), made.cert.pem()).expect("the file can be written");

    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the default versions are supported")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("the certificate fits its key");
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();

    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port is free");
    let addr = listener.local_addr().expect("a listener has an address");
    let versions = Arc::<Mutex<Vec<http::Version>>>::default();
    let server = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), versions.clone()));
    TlsUpstream { addr, certificate, versions, server }
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
