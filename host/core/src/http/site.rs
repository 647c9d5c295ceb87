//! Requests that a browser sends on behalf of a page: which site the page is of, and under which name it reached us.
//!
//! A page of any site can make a browser send requests to this machine, and one that points its own name at 127.0.0.1 (DNS
//! rebinding) can even read the answers. Only the browser's own headers tell: `Sec-Fetch-Site` (W3C, Fetch Metadata Request
//! Headers), `Origin` (RFC 6454 section 7), `Referer` and `Host` (RFC 9110 sections 10.1.3 and 7.2).

use std::net::IpAddr;

use http::header::{HOST, HeaderMap, HeaderName, ORIGIN, REFERER};
use http::uri::{Authority, Uri};

pub(super) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Returns the name and port under which the client asked: the authority of the target (HTTP/2, absolute form), else the one
/// `Host`; none when there is none, several, or it is malformed.
pub fn asked_authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    if let Some(authority) = uri.authority() {
        return Some(authority.clone());
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        _ => None,
    }
}

/// Returns true for `localhost`, names below it (RFC 6761 section 6.3) and IP addresses: names that no DNS answer of another
/// site can point here.
pub fn names_this_machine(authority: &Authority) -> bool {
    let name = authority.host().trim_end_matches('.');
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_localhost = |name: &str| name.eq_ignore_ascii_case("localhost");
    is_localhost(name)
        || name.rsplit_once('.').is_some_and(|(_, last)| is_localhost(last))
        || bare.parse::<IpAddr>().is_ok()
}

/// Returns true if a browser sent the request.
pub fn is_from_a_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(SEC_FETCH_SITE) || headers.contains_key(ORIGIN)
}

/// Returns true if a browser sent the request for a page of another site than `authority`'s.
pub fn is_cross_site(headers: &HeaderMap, authority: Option<&Authority>) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        // "none": the user typed the address.
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let page = headers.get(ORIGIN).or_else(|| headers.get(REFERER));
    let Some(page) = page else { return false };
    let page = Uri::try_from(page.as_bytes()).ok().filter(|page| matches!(page.scheme_str(), Some("http" | "https")));
    // A page without an origin (`null`) is nobody's; a request without a name has no page.
    page.as_ref().and_then(Uri::authority).is_none_or(|page| Some(page) != authority)
}

/// Returns true if the browser opens the answer as a page of its own, as after a click on a link.
pub fn is_navigation(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), HeaderValue::from_str(v).unwrap())).collect()
    }

    fn cross_site(pairs: &[(&str, &str)]) -> bool {
        let headers = headers(pairs);
        is_cross_site(&headers, asked_authority(&Uri::from_static("/"), &headers).as_ref())
    }

    #[test]
    fn a_page_of_another_site_is_told_by_any_of_its_headers() {
        let host = ("host", "127.0.0.1:8080");
        for page in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", "http://127.0.0.1:9999"),
            ("origin", "null"),
            ("origin", "file://127.0.0.1:8080"),
            ("referer", "https://evil.example/page"),
            ("referer", "no address"),
        ] {
            assert!(cross_site(&[host, page]), "{page:?}");
        }
        assert!(cross_site(&[("origin", "http://127.0.0.1:8080")]), "there is no page without a name");
        assert!(cross_site(&[host, host, ("origin", "http://127.0.0.1:8080")]), "two names are none");
    }

    #[test]
    fn programs_own_pages_and_typed_addresses_are_none() {
        let host = ("host", "127.0.0.1:8080");
        assert!(!cross_site(&[host]));
        for own in [
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
            ("origin", "http://127.0.0.1:8080"),
            ("origin", "https://127.0.0.1:8080"),
            ("referer", "http://127.0.0.1:8080/any?thing"),
        ] {
            assert!(!cross_site(&[host, own]), "{own:?}");
        }
    }

    #[test]
    fn only_names_that_cannot_be_rebound_are_this_machine() {
        let is_ours = |text: &str| names_this_machine(&text.parse().unwrap());
        for ours in
            ["localhost", "LOCALHOST:80", "localhost.", "a.localhost:1", "127.0.0.1:8080", "[::1]:8080", "10.0.0.7"]
        {
            assert!(is_ours(ours), "{ours}");
        }
        for other in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "evillocalhost"] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn the_target_says_the_name_before_host_does() {
        let uri = Uri::from_static("http://a.example/v1");
        assert_eq!(asked_authority(&uri, &headers(&[("host", "b.example")])).unwrap(), "a.example");
        assert_eq!(
            asked_authority(&Uri::from_static("/"), &headers(&[("host", "b.example:1")])).unwrap(),
            "b.example:1"
        );
        assert!(asked_authority(&Uri::from_static("/"), &headers(&[("host", "a b")])).is_none());
    }
}
