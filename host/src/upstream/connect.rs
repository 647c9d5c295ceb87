//! New connections: TCP, TLS with the machine's trust roots, and which HTTP version was agreed.

use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;

/// Makes connections to any origin; cheap to clone.
pub type Connector = HttpsConnector<HttpConnector>;

/// TCP keep-alive probes find a peer that vanished without a word.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// A connector that trusts the machine's certificate store (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured), or
/// Mozilla's roots where the machine has none.
pub(super) fn connector() -> Connector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(TCP_KEEPALIVE));
    tcp.enforce_http(false);
    HttpsConnectorBuilder::new()
        .with_tls_config(tls_config())
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(tcp)
}

/// The TLS client configuration that everything in the process shares.
pub fn tls_config() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a certificate of the machine's store was not read");
    }
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
