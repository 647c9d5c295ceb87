//! The way to a backend: a forward proxy, the authorities that are trusted, and the certificate that is shown.

use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::overlay::Env;
use super::secret::Secret;

/// The way to a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outbound {
    /// The proxy that its connections go through; none: they are direct.
    pub proxy: Option<ForwardProxy>,
    /// Authorities that its certificate may be of; none: the machine's.
    pub authorities: Option<Arc<[CertificateDer<'static>]>>,
    /// The certificate shown to it.
    pub identity: Option<Arc<Identity>>,
}

/// The scheme of a SOCKS5 proxy, by any of its names.
const SOCKS: &str = "socks5";

/// A forward proxy (RFC 9110, section 3.7), or one that speaks SOCKS5 (RFC 1928).
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardProxy {
    /// `http`, `https` or `socks5`, host and port.
    pub uri: Uri,
    /// User name and password, where it asks for them: `USER:PASSWORD`.
    pub login: Option<Secret>,
}

/// A client certificate with its private key.
#[derive(Debug, PartialEq)]
pub struct Identity {
    /// The certificate and those that it was signed with.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key, which is not printed.
    pub key: PrivateKeyDer<'static>,
}

/// The reason why a text is no proxy's URL, as the rest of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadProxy {
    #[error("is not a URL such as http://proxy.example.com:3128")]
    Syntax,
    #[error("has a scheme other than http, https and socks5")]
    Scheme,
}

impl ForwardProxy {
    /// Returns true if it speaks SOCKS5.
    pub fn is_socks(&self) -> bool {
        self.uri.scheme_str() == Some(SOCKS)
    }

    /// The URL of its own address, `http` or `https`: TCP, and TLS to the proxy itself.
    pub fn address(&self) -> Uri {
        if !self.is_socks() {
            return self.uri.clone();
        }
        let mut parts = self.uri.clone().into_parts();
        parts.scheme = Some(Scheme::HTTP);
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Reads `http://[USER:PASSWORD@]HOST[:PORT]`; without a scheme it is http, without a port 80, 443 or 1080. SOCKS5 has
    /// several names: that the proxy resolves names (`socks5h`) is always so here.
    pub(super) fn parse(text: &str) -> Result<Self, BadProxy> {
        let text = text.trim().trim_matches(['"', '\'', ' ']);
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let scheme = match &*scheme.to_ascii_lowercase() {
            "http" => "http",
            "https" => "https",
            "socks5" | "socks5h" | "socks" => SOCKS,
            _ => return Err(BadProxy::Scheme),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(percent_decoded(login)), host),
            None => (None, authority),
        };
        let host = match host.rsplit_once(':') {
            Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() => host.to_owned(),
            _ => {
                let port = match scheme {
                    "https" => 443,
                    SOCKS => 1080,
                    _ => 80,
                };
                format!("{host}:{port}")
            }
        };
        let uri = format!("{scheme}://{host}/").parse::<Uri>().map_err(|_| BadProxy::Syntax)?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(BadProxy::Syntax);
        }
        Ok(Self { uri, login: login.map(Secret::new) })
    }
}

/// The variable that names the proxy for an address, with its value; none where there is none, or `NO_PROXY` lists the
/// host. Names in small letters count before those in capitals, as in curl.
pub(super) fn from_environment(env: &dyn Env, base_url: &Uri) -> Option<(String, String)> {
    let is_https = base_url.scheme_str() == Some("https");
    let names: &[&str] = if is_https {
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else {
        &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
    };
    let set = |name: &&str| env.var(name).filter(|value| !value.trim().is_empty()).map(|v| ((*name).to_owned(), v));
    let found = names.iter().find_map(set)?;
    let exceptions = ["no_proxy", "NO_PROXY"].iter().find_map(set).map(|(_, list)| list).unwrap_or_default();
    (!is_excepted(&exceptions, base_url)).then_some(found)
}

/// Returns true if a list such as `localhost,.corp.example,10.0.0.0/8,[::1]:8443,*` has the address: names with all that is
/// below them, with or without a port, addresses and networks.
fn is_excepted(list: &str, base_url: &Uri) -> bool {
    let host = base_url.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    let port = base_url.port_u16().unwrap_or(if base_url.scheme_str() == Some("https") { 443 } else { 80 });
    let matches = |entry: &str| {
        let entry = entry.trim().to_ascii_lowercase();
        let (name, entry_port) = split_port(&entry);
        if entry_port.is_some_and(|wanted| wanted != port) {
            return false;
        }
        let name = name.trim_matches(['[', ']']);
        let domain = name.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.');
        match host.parse::<std::net::IpAddr>() {
            _ if name == "*" => true,
            _ if domain.is_empty() => false,
            Ok(ip) => name.parse() == Ok(ip) || is_in_network(ip, name),
            Err(_) => host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
        }
    };
    list.split([',', ' ']).any(matches)
}

/// The name of an entry, and its port where it has one.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        // A bare IPv6 address is full of colons.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        Some(_) | None => (entry, None),
    }
}

/// Returns true if an address is in a network `ADDRESS/BITS`.
fn is_in_network(ip: std::net::IpAddr, network: &str) -> bool {
    use std::net::IpAddr;
    let Some((base, bits)) = network.split_once('/') else { return false };
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let same = |a: u128, b: u128, width: u32| bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0);
    match (ip, base) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn percent_decoded(text: &str) -> String {
    pointsman_core::http::url::percent_decoded(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Vars(Vec<(&'static str, &'static str)>);

    impl Env for Vars {
        fn var(&self, name: &str) -> Option<String> {
            self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        }

        fn names(&self) -> Vec<String> {
            self.0.iter().map(|(name, _)| (*name).to_owned()).collect()
        }
    }

    fn chosen(vars: &[(&'static str, &'static str)], url: &str) -> Option<String> {
        from_environment(&Vars(vars.to_vec()), &url.parse().unwrap()).map(|(_, value)| value)
    }

    #[test]
    fn a_proxy_is_read_with_its_login_and_port() {
        for (text, uri, login) in [
            ("http://p:3128", "http://p:3128/", None),
            (" p:3128 ", "http://p:3128/", None),
            ("https://p", "https://p:443/", None),
            ("http://p/", "http://p:80/", None),
            ("http://us%40er:pa%3Ass@p:1/x", "http://p:1/", Some("us@er:pa:ss")),
            ("http://[::1]:3128", "http://[::1]:3128/", None),
            ("\"http://p:3128\"", "http://p:3128/", None),
            ("socks5://p", "socks5://p:1080/", None),
            ("SOCKS5H://u:p%20w@p:9", "socks5://p:9/", Some("u:p w")),
            ("socks://p:9", "socks5://p:9/", None),
        ] {
            let proxy = ForwardProxy::parse(text).unwrap();
            assert_eq!(proxy.uri, uri, "{text}");
            assert_eq!(proxy.login.as_ref().map(Secret::expose), login, "{text}");
        }
        let socks = ForwardProxy::parse("socks5://p:1080").unwrap();
        assert_eq!((socks.is_socks(), socks.address()), (true, "http://p:1080/".parse().unwrap()));
        for unknown in ["socks4://p:1080", "ftp://p"] {
            assert_eq!(ForwardProxy::parse(unknown), Err(BadProxy::Scheme), "{unknown}");
        }
        for nonsense in ["", "http://", "http://a b"] {
            assert_eq!(ForwardProxy::parse(nonsense), Err(BadProxy::Syntax), "{nonsense}");
        }
    }

    #[test]
    fn the_environments_proxy_is_that_of_the_scheme() {
        let vars = [("HTTPS_PROXY", "s"), ("HTTP_PROXY", "p"), ("https_proxy", "small")];
        assert_eq!(chosen(&vars, "https://h/v1").as_deref(), Some("small"));
        assert_eq!(chosen(&vars, "http://h/v1").as_deref(), Some("p"));
        assert_eq!(chosen(&[("ALL_PROXY", "a")], "https://h").as_deref(), Some("a"));
        assert_eq!(chosen(&[("HTTPS_PROXY", " ")], "https://h"), None);
        assert_eq!(chosen(&[("HTTP_PROXY", "p")], "https://h"), None);
    }

    #[test]
    fn exceptions_are_names_addresses_and_networks() {
        let excepted =
            |list: &'static str, url: &str| chosen(&[("HTTPS_PROXY", "p"), ("NO_PROXY", list)], url).is_none();
        for (list, url) in [
            ("*", "https://h"),
            ("h", "https://h/v1"),
            ("H.example", "https://h.example."),
            ("example.com", "https://a.b.example.com"),
            (".example.com", "https://a.example.com"),
            ("*.example.com", "https://a.example.com"),
            ("a, b", "https://b"),
            ("a b", "https://b"),
            ("h:8443", "https://h:8443"),
            ("h:443", "https://h"),
            ("10.0.0.0/8", "https://10.1.2.3"),
            ("127.0.0.1", "https://127.0.0.1:9"),
            ("::1", "https://[::1]:9"),
            ("[::1]:9", "https://[::1]:9"),
            ("fd00::/8", "https://[fd00::5]"),
        ] {
            assert!(excepted(list, url), "{list} {url}");
        }
        for (list, url) in [
            ("", "https://h"),
            (",", "https://h"),
            ("ample.com", "https://example.com"),
            ("h:80", "https://h"),
            ("10.0.0.0/8", "https://11.0.0.1"),
            ("10.0.0.0/33", "https://10.0.0.1"),
            ("a.example.com", "https://example.com"),
        ] {
            assert!(!excepted(list, url), "{list} {url}");
        }
    }
}
