//! Cross-origin requests of pages in a browser (the Fetch standard, "CORS protocol"): origins that may send them, and the
//! headers that tell the browser so.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, HeaderMap,
    HeaderName, HeaderValue, VARY,
};
use http::uri::Authority;

/// Methods that are forwarded.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Time for which a browser need not ask again; browsers cap it, Chrome at two hours.
const MAX_AGE: Duration = Duration::from_secs(7_200);

/// Asked by a page on a public address before it reaches a private one (the Private Network Access draft).
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Origins whose pages may send requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<Origin>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Exact(String),
    /// Text before and after a `*`.
    Pattern(String, String),
}

impl AllowedOrigins {
    /// These origins, each `scheme://host[:port]` in any letter case, with one `*` for any text, or `*` for all; the
    /// first that is none as an error.
    ///
    /// # Errors
    /// The place and the text of one that is no origin.
    pub fn parse<'a>(origins: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, String)> {
        let one = |(at, text): (usize, &str)| Origin::parse(text).ok_or_else(|| (at, text.to_owned()));
        origins.into_iter().enumerate().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Returns true if pages of this origin may send requests.
    pub fn allow(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.allow_text(&origin.to_ascii_lowercase()))
    }

    /// Returns true if pages of this origin, in lower case, may send requests.
    pub(super) fn allow_text(&self, origin: &str) -> bool {
        self.0.iter().any(|allowed| match allowed {
            Origin::Exact(text) => text == origin,
            Origin::Pattern(before, after) => {
                origin.strip_prefix(before.as_str()).is_some_and(|rest| rest.ends_with(after.as_str()))
            }
        })
    }

    /// Returns true if an origin of this name and port is allowed, with or without TLS.
    pub(super) fn allow_host(&self, name: &Authority) -> bool {
        if self.0.is_empty() || name.as_str().contains('@') {
            return false;
        }
        let host = name.host().trim_end_matches('.').to_ascii_lowercase();
        ["http", "https"].into_iter().any(|scheme| {
            let is_default = matches!((scheme, name.port_u16()), (_, None) | ("http", Some(80)) | ("https", Some(443)));
            let port = name.port_u16().filter(|_| !is_default);
            self.allow_text(&format!("{scheme}://{host}{}", port.map(|port| format!(":{port}")).unwrap_or_default()))
        })
    }

    /// Headers of the answer to an OPTIONS request, which may be a browser's question before a request.
    pub fn answer_options(&self, request: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ALLOW, METHODS);
        let Some(origin) = request.get(http::header::ORIGIN) else { return headers };
        self.apply(Some(origin), &mut headers);
        if !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            return headers;
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        if request.contains_key(REQUEST_PRIVATE_NETWORK) {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE.as_secs()));
        headers
    }

    /// Adds to an answer what lets a page of this origin read it, if it may.
    pub fn apply(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        // A shared cache must not hand the answer for one origin to another.
        answer.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin.filter(|origin| self.allow(origin)) {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        }
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches('/').to_ascii_lowercase();
        if text == "null" {
            return Some(Origin::Exact(text));
        }
        let rest = text.split_once("://").map(|(_, rest)| rest);
        let is_origin =
            text == "*" || rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@']));
        if !is_origin || text.contains(char::is_whitespace) {
            return None;
        }
        match text.split_once('*') {
            None => Some(Origin::Exact(text)),
            Some((_, after)) if after.contains('*') => None,
            Some((before, after)) => Some(Origin::Pattern(before.to_owned(), after.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::ORIGIN;

    use super::*;

    fn allowed(origins: &[&str]) -> AllowedOrigins {
        AllowedOrigins::parse(origins.iter().copied()).unwrap()
    }

    fn request(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (ORIGIN, HeaderValue::from_static(origin)),
            (ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("authorization, x-stainless-os")),
            (REQUEST_PRIVATE_NETWORK, HeaderValue::from_static("true")),
        ])
    }

    #[test]
    fn an_origin_is_allowed_by_name_by_pattern_or_with_all() {
        let some = allowed(&["https://App.example/", "http://localhost:*", "https://*.example.org", "null"]);
        for (origin, is_allowed) in [
            ("https://app.example", true),
            ("https://APP.example", true),
            ("http://app.example", false),
            ("https://app.example.evil", false),
            ("http://localhost:3000", true),
            ("http://localhost.evil", false),
            ("https://a.example.org", true),
            ("https://example.org", false),
            ("null", true),
        ] {
            assert_eq!(some.allow(&HeaderValue::from_static(origin)), is_allowed, "{origin}");
        }
        assert!(allowed(&["*"]).allow(&HeaderValue::from_static("https://any")));
        assert!(!AllowedOrigins::default().allow(&HeaderValue::from_static("https://any")));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in ["app.example", "https://a/b", "", "https://", "https://*.*", "https://a b"] {
            assert_eq!(AllowedOrigins::parse(["*", text]), Err((1, text.to_owned())));
        }
    }

    #[test]
    fn a_browser_that_asks_is_told_what_its_page_may_send() {
        let headers = allowed(&["https://app.example"]).answer_options(&request("https://app.example"));
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "authorization, x-stainless-os");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], METHODS);
        assert_eq!(
            (&headers[ALLOW_PRIVATE_NETWORK], &headers[VARY]),
            (&"true".parse().unwrap(), &"origin".parse().unwrap())
        );
        let foreign = allowed(&["https://app.example"]).answer_options(&request("https://evil.example"));
        assert!(!foreign.keys().any(|name| name.as_str().starts_with("access-control")), "{foreign:?}");
        assert_eq!((foreign.get(VARY).is_some(), &foreign[ALLOW]), (true, &METHODS));
        let none = AllowedOrigins::default().answer_options(&request("https://app.example"));
        assert_eq!(none.len(), 1, "{none:?}");
    }
}
