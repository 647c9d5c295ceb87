//! Access to a listener that asks for no key.
//!
//! Whoever reaches it uses the operator's keys, so it must not be reached by pages of other sites through the browser of somebody
//! who can: neither by a request across sites (the Fetch standard sends simple ones without asking first), nor under a name
//! that the site points here (DNS rebinding). Programs send none of the headers by which a browser is told.
//!
//! A browser says which site a page is of where the target is encrypted or this machine (W3C, Fetch Metadata Request Headers,
//! section 3). One that says nothing came over plain HTTP, where no certificate has proved that the name is the proxy's own.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderMap, HeaderValue, ORIGIN, REFERER, USER_AGENT};
use http::uri::{Authority, Uri};

use super::cors::AllowedOrigins;
use super::site::{SEC_FETCH_SITE, asked_authority, names_this_machine};

/// Reach of a listener's address: this machine, or others too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// This machine only: other names than its own were pointed here.
    Loopback,
    /// A network, where it may have any name.
    Open,
}

impl Exposure {
    /// The reach of a listener at this address.
    pub fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() { Exposure::Loopback } else { Exposure::Open }
    }
}

/// The reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A page of another site sent it.
    ForeignPage {
        /// Origin of the page; none: the browser did not tell it.
        origin: Option<String>,
    },
    /// It asks under a name that another site may have pointed here.
    ForeignHost {
        /// The name, with its port.
        host: String,
    },
}

/// Returns the reason why a listener that asks for no key refuses the request; none: it is served.
pub fn refused(uri: &Uri, headers: &HeaderMap, exposure: Exposure, allowed: &AllowedOrigins) -> Option<Refused> {
    let page = Page::of(uri, headers, allowed);
    if let Page::Foreign(origin) = page {
        return Some(Refused::ForeignPage { origin });
    }
    match exposure {
        Exposure::Loopback => foreign_host(uri, headers, allowed),
        Exposure::Open if page == Page::OverPlainHttp => {
            foreign_host(uri, headers, allowed).filter(|_| !headers.contains_key(SEC_FETCH_SITE))
        }
        Exposure::Open => None,
    }
}

/// The page that sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Page {
    /// A program, the operator himself, a page that the proxy's own origin serves over TLS, or one of an allowed origin.
    Welcome,
    /// The page's site has the name under which the proxy was asked, or the browser does not tell it. Without TLS nobody has
    /// proved that the name is the proxy's own.
    OverPlainHttp,
    /// A page of another site; the origin that it names, if it names one.
    Foreign(Option<String>),
}

impl Page {
    fn of(uri: &Uri, headers: &HeaderMap, allowed: &AllowedOrigins) -> Self {
        let told = told_origins(headers);
        let foreign = || Page::Foreign(told.first().cloned());
        if !told.is_empty() && told.iter().all(|origin| allowed.allow_text(origin)) {
            return Page::Welcome;
        }
        let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
        // "none": the user typed the address, or an extension that he let do so sent it.
        if sites.any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none")) {
            return foreign();
        }
        if told.is_empty() {
            // A page can keep its browser from telling it (`referrerPolicy: "no-referrer"`).
            return if is_browser(headers) { Page::OverPlainHttp } else { Page::Welcome };
        }
        let sent_by_an_extension = headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "none");
        let asked = asked_authority(uri, headers);
        let mut page = Page::Welcome;
        for origin in &told {
            match origin.split_once("://") {
                Some((scheme @ ("http" | "https"), authority)) => {
                    if !asked.as_ref().is_some_and(|asked| is_same(scheme, authority, asked)) {
                        return foreign();
                    }
                    if scheme == "http" {
                        page = Page::OverPlainHttp;
                    }
                }
                Some((scheme, _)) if sent_by_an_extension && scheme != "file" => {}
                _ => return foreign(),
            }
        }
        page
    }
}

/// Returns the origins that a browser tells of the page, in lower case: each `Origin`, else that of `Referer`, which a program
/// may send for another reason.
fn told_origins(headers: &HeaderMap) -> Vec<String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let origins: Vec<String> = headers.get_all(ORIGIN).iter().map(text).collect();
    if !origins.is_empty() {
        return origins;
    }
    let Some(referer) = headers.get(REFERER).filter(|_| is_browser(headers)) else { return Vec::new() };
    let referer = text(referer);
    let origin = referer.split_once("://").map(|(scheme, rest)| {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        format!("{scheme}://{}", &rest[..end])
    });
    vec![origin.unwrap_or(referer)]
}

/// Every browser's user agent begins so; where the target is neither encrypted nor this machine it sends no `Sec-Fetch-Site`.
fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(SEC_FETCH_SITE)
        || headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
}

/// Returns true if a page's authority and the one that was asked are the same, ports that are left out included.
fn is_same(scheme: &str, page: &str, asked: &Authority) -> bool {
    let Ok(page) = page.parse::<Authority>() else { return false };
    let default = if scheme == "https" { 443 } else { 80 };
    page.host().eq_ignore_ascii_case(asked.host())
        && page.port_u16().unwrap_or(default) == asked.port_u16().unwrap_or(default)
}

/// Returns the first name under which the client asks that another site may have pointed here. A request without any name is
/// no browser's.
fn foreign_host(uri: &Uri, headers: &HeaderMap, allowed: &AllowedOrigins) -> Option<Refused> {
    let is_foreign = |name: &Authority| !(cannot_be_rebound(name) || allowed.allow_host(name));
    if let Some(name) = uri.authority().filter(|name| is_foreign(name)) {
        return Some(Refused::ForeignHost { host: name.to_string() });
    }
    let mut hosts = headers.get_all(HOST).iter().filter(|host| !host.is_empty() && !is_an_address(host));
    let foreign = hosts.find(|host| Authority::try_from(host.as_bytes()).map_or(true, |name| is_foreign(&name)))?;
    Some(Refused::ForeignHost { host: String::from_utf8_lossy(foreign.as_bytes()).into_owned() })
}

/// Returns true for an IP address with or without a port, as most clients send it.
fn is_an_address(host: &HeaderValue) -> bool {
    let text = host.to_str().unwrap_or_default();
    text.parse::<SocketAddr>().is_ok() || text.parse::<IpAddr>().is_ok()
}

/// Top-level domains that the public DNS does not have.
const PRIVATE_DOMAINS: [&str; 6] = ["internal", "localdomain", "local", "lan", "home", "corp"];

/// Users and passwords are no part of a Host (RFC 9110 section 7.2), and a port is a number.
fn is_well_formed(name: &Authority) -> bool {
    let port = name.as_str().strip_prefix(name.host());
    port.is_some_and(|port| port.trim_start_matches(':').bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns the setting of `[server] allowed_origins` that lets requests for this host in, where one does.
pub fn origin_for(host: &str) -> Option<String> {
    let name: Authority = host.trim().parse().ok()?;
    let bare = name.host().trim_end_matches('.').to_ascii_lowercase();
    if !is_well_formed(&name) || bare.is_empty() || bare.contains('*') {
        return None;
    }
    let port = name.port_u16().filter(|port| *port != 80).map(|port| format!(":{port}")).unwrap_or_default();
    let origin = format!("http://{bare}{port}");
    let allowed = AllowedOrigins::parse([origin.as_str()]).ok()?;
    (allowed.allow_host(&name)).then_some(origin)
}

/// Returns true for names that no DNS answer of another site can point here: this machine's and IP addresses, also abbreviated
/// ones (`127.1`; the URL standard takes every name that ends in a number for an address), names without a dot, and names in
/// domains that are kept for private use, such as `host.docker.internal`, by which a container reaches this machine, and
/// `nas.local` (multicast DNS, RFC 6762 section 3). Appendix G there has the other ones, which the root does not delegate.
fn cannot_be_rebound(name: &Authority) -> bool {
    if !is_well_formed(name) {
        return false;
    }
    if names_this_machine(name) {
        return true;
    }
    let host = name.host().trim_end_matches('.');
    let Some((_, last)) = host.rsplit_once('.') else { return !host.is_empty() && !host.starts_with('[') };
    last.bytes().all(|byte| byte.is_ascii_digit())
        || PRIVATE_DOMAINS.iter().any(|private| last.eq_ignore_ascii_case(private))
        || host.get(host.len().saturating_sub(10)..).is_some_and(|end| end.eq_ignore_ascii_case(".home.arpa"))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    const MOZILLA: (&str, &str) = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0");

    fn asked(exposure: Exposure, allowed: &[&str], target: &str, pairs: &[(&str, &str)]) -> Option<Refused> {
        let name = |text: &str| text.parse::<HeaderName>().unwrap();
        let headers = pairs.iter().map(|(n, v)| (name(n), HeaderValue::from_str(v).unwrap()));
        let mut all = HeaderMap::new();
        headers.for_each(|(name, value)| {
            all.append(name, value);
        });
        let allowed = AllowedOrigins::parse(allowed.iter().copied()).unwrap();
        refused(&target.parse().unwrap(), &all, exposure, &allowed)
    }

    fn on_loopback(pairs: &[(&str, &str)]) -> Option<Refused> {
        asked(Exposure::Loopback, &[], "/v1/models", pairs)
    }

    fn on_a_network(pairs: &[(&str, &str)]) -> Option<Refused> {
        asked(Exposure::Open, &[], "/v1/models", pairs)
    }

    fn is_page(refused: Option<Refused>) -> bool {
        matches!(refused, Some(Refused::ForeignPage { .. }))
    }

    fn is_host(refused: Option<Refused>) -> bool {
        matches!(refused, Some(Refused::ForeignHost { .. }))
    }

    #[test]
    fn loopback_answers_to_names_that_nobody_else_can_point_here() {
        for ours in [
            "127.0.0.1:8080",
            "127.1",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
            "localhost",
            "LocalHost.:80",
            "api.localhost:8080",
            "localhost.localdomain",
            "0.0.0.0:8080",
            "192.168.1.5:8080",
            "host.docker.internal:8080",
            "host.containers.internal",
            "pointsman:8080",
            "pi.home.arpa",
            "nas.local",
            "nas.LAN.:8080",
            "pointsman.default.svc.cluster.local:8080",
            "",
        ] {
            assert_eq!(on_loopback(&[("host", ours)]), None, "{ours}");
        }
        assert_eq!(on_loopback(&[]), None, "HTTP/1.0 may leave it out, and browsers never do");
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8080",
            "127.0.0.1.nip.io",
            "evillocalhost.com",
            "internal.example",
            "home.arpa.evil.example",
            "nothome.arpa.example",
            "local.example",
            "nas.lan.example",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "localhost:8080.evil.example",
            "a b",
            "[::1",
            "127.0.0.1:8080, evil.example",
        ] {
            assert!(is_host(on_loopback(&[("host", foreign)])), "{foreign}");
            for program in [("user-agent", "OpenAI/Python 2.1.0"), ("user-agent", "curl/8.5.0"), ("accept", "*/*")] {
                let asked = on_a_network(&[("host", foreign), program]);
                assert_eq!(asked, None, "{foreign} may be the name of a network's machine");
            }
            assert!(is_host(on_a_network(&[("host", foreign), MOZILLA])), "{foreign} may be a page's own name");
        }
    }

    #[test]
    fn every_name_of_a_request_must_be_ours() {
        let both = [("host", "127.0.0.1:8080"), ("host", "evil.example")];
        assert!(is_host(on_loopback(&both)));
        for (target, host) in [
            ("http://evil.example/v1/models", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080/v1/models", "evil.example"),
            ("https://evil.example/v1/models", "evil.example"),
        ] {
            assert!(is_host(asked(Exposure::Loopback, &[], target, &[("host", host)])), "{target}");
        }
        assert_eq!(asked(Exposure::Loopback, &[], "http://localhost:8080/v1", &[("host", "localhost:8080")]), None);
        assert_eq!(asked(Exposure::Loopback, &[], "http://localhost:8080/v1", &[]), None, "HTTP/2 has no Host");
    }

    #[test]
    fn a_page_of_another_site_is_refused_everywhere() {
        for page in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", ""),
            ("origin", "file://"),
            ("origin", "http://localhost:3000"),
            ("origin", "https://127.0.0.1:8081"),
            ("origin", "chrome-extension://abcdef"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "anything"),
        ] {
            let pairs = [("host", "127.0.0.1:8080"), page];
            assert!(is_page(on_loopback(&pairs)), "{page:?}");
            assert!(is_page(on_a_network(&pairs)), "{page:?}");
        }
        let host = ("host", "127.0.0.1:8080");
        let own = ("origin", "http://127.0.0.1:8080");
        for more in [
            [("sec-fetch-site", "none"), ("origin", "https://evil.example")],
            [("sec-fetch-site", "same-origin"), ("origin", "null")],
            [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            [own, ("origin", "https://evil.example")],
            [("origin", "https://evil.example"), own],
            [("referer", "https://evil.example/page"), MOZILLA],
            [("referer", "http://127.0.0.1:8080.evil.example/"), MOZILLA],
        ] {
            assert!(is_page(on_loopback(&[host, more[0], more[1]])), "{more:?}");
            assert!(is_page(on_a_network(&[host, more[0], more[1]])), "{more:?}");
        }
    }

    #[test]
    fn programs_typed_addresses_and_own_pages_are_served() {
        let host = ("host", "127.0.0.1:8080");
        for welcome in [
            // Node's fetch sends this, and nothing else of a browser's.
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-site", "none"),
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://127.0.0.1:8080"),
            // Programs name their own page for attribution.
            ("referer", "https://app.example/"),
            ("http-referer", "https://app.example/"),
            MOZILLA,
        ] {
            assert_eq!(on_loopback(&[host, welcome]), None, "{welcome:?}");
            assert_eq!(on_a_network(&[host, welcome]), None, "{welcome:?}");
        }
        let extension = [host, ("sec-fetch-site", "none"), ("origin", "chrome-extension://abcdef")];
        assert_eq!(on_loopback(&extension), None, "the browser says that the user let it");
        assert_eq!(on_loopback(&[("host", "localhost"), ("origin", "http://localhost:80")]), None);
        assert_eq!(on_a_network(&[("host", "app.example"), ("origin", "https://app.example")]), None, "behind TLS");
    }

    #[test]
    fn on_a_network_a_page_proves_its_name_by_tls_only() {
        let page = ("origin", "http://evil.example:8080");
        assert!(is_host(on_a_network(&[("host", "evil.example:8080"), page])));
        let read = [("host", "evil.example:8080"), ("referer", "http://evil.example:8080/x"), MOZILLA];
        assert!(is_host(on_a_network(&read)));
        let silent = [("host", "evil.example:8080"), MOZILLA];
        assert!(is_host(on_a_network(&silent)), "a page can have no Referer sent");
        let http2 = asked(Exposure::Open, &[], "http://evil.example:8080/v1/files", &[MOZILLA]);
        assert!(is_host(http2));
        assert_eq!(
            asked(Exposure::Open, &["http://evil.example:8080"], "/v1/files", &silent),
            None,
            "the operator's own"
        );
        let typed = ("sec-fetch-site", "none");
        assert_eq!(
            on_a_network(&[("host", "app.example"), MOZILLA, typed]),
            None,
            "only behind TLS a browser tells that"
        );
        for private in
            ["nas:8080", "nas.local:8080", "10.0.0.7:8080", "[fd00::7]:8080", "host.docker.internal", "pi.lan"]
        {
            assert_eq!(on_a_network(&[("host", private), MOZILLA]), None, "{private}");
        }
        assert_eq!(on_a_network(&[("host", "nas:8080"), ("origin", "http://nas:8080")]), None);
        assert_eq!(on_a_network(&[("host", "10.0.0.7:8080"), ("origin", "http://10.0.0.7:8080")]), None);
    }

    #[test]
    fn an_allowed_origin_may_send_requests_and_be_asked_for() {
        let allowed = ["https://app.example", "http://llm.example:8080", "tauri://localhost"];
        let ask = |exposure, pairs: &[(&str, &str)]| asked(exposure, &allowed, "/v1/chat/completions", pairs);
        for exposure in [Exposure::Loopback, Exposure::Open] {
            for page in [
                &[("host", "localhost:8080"), ("sec-fetch-site", "cross-site"), ("origin", "https://app.example")][..],
                &[("host", "localhost:8080"), ("origin", "HTTPS://App.example")],
                &[("host", "localhost:8080"), ("origin", "tauri://localhost")],
                &[("host", "localhost:8080"), ("sec-fetch-site", "cross-site"), ("referer", "https://app.example/x")],
                &[("host", "app.example"), ("origin", "https://app.example")],
                &[("host", "app.example:443")],
                &[("host", "APP.example.")],
                &[("host", "llm.example:8080"), ("origin", "http://llm.example:8080")],
            ] {
                assert_eq!(ask(exposure, page), None, "{page:?}");
            }
            let two = [("host", "localhost"), ("origin", "https://app.example"), ("origin", "https://evil.example")];
            assert!(is_page(ask(exposure, &two)));
            assert!(is_page(ask(exposure, &[("host", "localhost"), ("origin", "https://app.example.evil.example")])));
        }
        assert!(is_host(ask(Exposure::Loopback, &[("host", "app.example:8080")])), "the port belongs to an origin");
        let all = asked(Exposure::Loopback, &["*"], "/", &[("host", "any.example"), ("origin", "null")]);
        assert_eq!(all, None, "* is all");
    }

    #[test]
    fn an_origin_is_suggested_only_where_it_lets_the_host_in() {
        for (host, origin) in [
            ("evil.example", "http://evil.example"),
            ("LLM.Example.:8080", "http://llm.example:8080"),
            (" llm.example ", "http://llm.example"),
            ("llm.example:80", "http://llm.example"),
            ("llm.example:443", "http://llm.example:443"),
        ] {
            assert_eq!(origin_for(host).as_deref(), Some(origin), "{host:?}");
            let refused = asked(Exposure::Loopback, &[origin], "/", &[("host", host.trim())]);
            assert_eq!(refused, None, "{host:?}");
        }
        for none in [
            "",
            "a b",
            "127.0.0.1:8080, evil.example",
            "me@evil.example",
            "*.example",
            "localhost:8080.evil.example",
            "[::1",
            ".",
            "a/b",
            "\u{e4}",
        ] {
            assert_eq!(origin_for(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn every_suggestion_parses_and_lets_in(host in "[a-zA-Z0-9 .:@*\\[\\],-]{0,24}") {
            if let Some(origin) = origin_for(&host) {
                prop_assert_eq!(asked(Exposure::Loopback, &[&origin], "/", &[("host", host.trim())]), None);
            }
        }

        #[test]
        fn no_name_below_a_public_domain_is_taken_for_ours(
            labels in "([a-z0-9-]{1,12}\\.){1,4}",
            domain in "(com|net|io|example|dev|xyz)",
            port in prop::option::of(1u16..),
        ) {
            let host = format!("{labels}{domain}{}", port.map(|port| format!(":{port}")).unwrap_or_default());
            prop_assert!(is_host(on_loopback(&[("host", &host)])));
        }

        #[test]
        fn only_the_very_same_origin_is_a_page_of_ours(
            scheme in "(http|https|file|data|moz-extension)", host in "[a-z0-9.\\[\\]:@-]{0,24}"
        ) {
            let origin = format!("{scheme}://{host}");
            let served = on_a_network(&[("host", "127.0.0.1:8080"), ("origin", &origin)]).is_none();
            let is_web = scheme.starts_with("http");
            prop_assert_eq!(served, is_web && host == "127.0.0.1:8080");
        }

        #[test]
        fn any_bytes_get_an_answer(host in prop::collection::vec(32u8..=255, 0..40), origin in prop::collection::vec(32u8..=255, 0..40)) {
            let mut headers = HeaderMap::new();
            for (name, value) in [(HOST, host), (ORIGIN, origin)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            for exposure in [Exposure::Loopback, Exposure::Open] {
                refused(&Uri::from_static("/"), &headers, exposure, &AllowedOrigins::default());
            }
        }
    }
}
