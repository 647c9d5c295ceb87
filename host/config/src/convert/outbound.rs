//! `proxy`, `ca_file`, `client_cert` and `client_key` of a backend.

use std::sync::Arc;

use http::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Check;
use super::secrets::is_reference;
use crate::outbound::{ForwardProxy, Identity, Outbound, from_environment};
use crate::raw::RawBackend;
use crate::tree::Path;

/// The value of `proxy` that means a direct connection.
const NO_PROXY: &str = "none";

impl Check<'_, '_> {
    /// The way to a backend. `has_secrets`: a key or another secret is sent with its requests.
    pub(super) fn outbound(
        &mut self,
        at: &Path,
        raw: &RawBackend,
        base_url: &Uri,
        has_secrets: bool,
        owner: &str,
    ) -> Outbound {
        let proxy = match raw.proxy.as_deref() {
            Some(text) => self.own_proxy(&at.key("proxy"), text, base_url, has_secrets, owner),
            None => self.proxy_of_environment(at, base_url, has_secrets, owner),
        };
        let is_plain = base_url.scheme_str() == Some("http");
        for (key, value) in [("ca_file", &raw.ca_file), ("client_cert", &raw.client_cert)] {
            if value.is_some() && is_plain {
                self.warn(&at.key(key), format!("{owner}: `{key}` changes nothing, because base_url is http://"));
            }
        }
        let authorities = raw.ca_file.as_deref().and_then(|file| {
            let found = self.certificates(&at.key("ca_file"), file, owner)?;
            Some(found.into())
        });
        let identity = self.identity(at, raw, owner).map(Arc::new);
        Outbound { proxy, authorities, identity }
    }

    fn own_proxy(
        &mut self,
        at: &Path,
        text: &str,
        base_url: &Uri,
        has_secrets: bool,
        owner: &str,
    ) -> Option<ForwardProxy> {
        if text.trim().is_empty() || text.trim().eq_ignore_ascii_case(NO_PROXY) {
            return None;
        }
        let text = match is_reference(text) {
            true => self.secret(at, text, owner)?.expose().to_owned(),
            false => text.to_owned(),
        };
        let proxy = match ForwardProxy::parse(&text) {
            Ok(proxy) => proxy,
            Err(error) => {
                let problem = self.error(at, format!("{owner}: `proxy` {error}"));
                problem.help("write \"http://HOST:PORT\" or \"socks5://HOST:PORT\", \"env:NAME\" where it has a password, or \"none\"");
                return None;
            }
        };
        if has_secrets && base_url.scheme_str() == Some("http") {
            let problem = self.warn(at, format!("{owner}: the proxy reads its key, because base_url is http://"));
            problem.help("write an https:// base_url, which is tunnelled, or proxy = \"none\"");
        }
        Some(proxy)
    }

    /// A proxy that the whole machine has. A key is not shown to it: plain HTTP with one goes directly.
    fn proxy_of_environment(
        &mut self,
        at: &Path,
        base_url: &Uri,
        has_secrets: bool,
        owner: &str,
    ) -> Option<ForwardProxy> {
        let (variable, value) = from_environment(self.env, base_url)?;
        if base_url.scheme_str() == Some("http") && (has_secrets || is_this_machine(base_url)) {
            if !is_this_machine(base_url) {
                let problem = self.warn(
                    &at.key("base_url"),
                    format!("{owner} is reached without the proxy of {variable}, which would read its key"),
                );
                problem
                    .help("write an https:// base_url, or name the proxy in this [[backend]] to send it all the same");
            }
            return None;
        }
        match ForwardProxy::parse(&value) {
            Ok(proxy) => Some(proxy),
            Err(error) => {
                let message =
                    format!("{owner} is reached without a proxy: the environment variable {variable} {error}");
                self.warn(at, message).help("write proxy = \"http://HOST:PORT\" or \"none\" in this [[backend]]");
                None
            }
        }
    }

    fn identity(&mut self, at: &Path, raw: &RawBackend, owner: &str) -> Option<Identity> {
        let (cert, key) = match (raw.client_cert.as_deref(), raw.client_key.as_deref()) {
            (None, None) => return None,
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => {
                self.missing(at, "client_key", format!("{owner} has a client_cert and no client_key"), PEM_HELP);
                return None;
            }
            (None, Some(_)) => {
                self.missing(at, "client_cert", format!("{owner} has a client_key and no client_cert"), PEM_HELP);
                return None;
            }
        };
        let chain = self.certificates(&at.key("client_cert"), cert, owner);
        let at = at.key("client_key");
        let pem = match key.split_once(':') {
            Some(("env", name)) => self.read_variable(&at, name, owner)?,
            _ => self.read_file(&at, key.strip_prefix("file:").unwrap_or(key), owner)?.to_string(),
        };
        let Ok(key) = PrivateKeyDer::from_pem_slice(pem.as_bytes()) else {
            self.error(&at, format!("{owner}: there is no private key in PEM")).help(PEM_HELP);
            return None;
        };
        Some(Identity { chain: chain?, key })
    }

    fn certificates(&mut self, at: &Path, file: &str, owner: &str) -> Option<Vec<CertificateDer<'static>>> {
        let pem = self.read_file(at, file.strip_prefix("file:").unwrap_or(file), owner)?;
        match CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>() {
            Ok(found) if !found.is_empty() => Some(found),
            Ok(_) | Err(_) => {
                self.error(at, format!("{owner}: there is no certificate in PEM in {file}")).help(PEM_HELP);
                None
            }
        }
    }
}

const PEM_HELP: &str = "name a file with -----BEGIN CERTIFICATE----- or -----BEGIN PRIVATE KEY----- in it; relative paths start at the configuration's folder";

fn is_this_machine(base_url: &Uri) -> bool {
    let host = base_url.host().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}
