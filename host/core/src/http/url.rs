//! URL of a request: the backend's base URL with the client's path and query behind it.

use std::borrow::Cow;

use http::Uri;
use http::uri::{Authority, InvalidUri, PathAndQuery, Scheme};
use thiserror::Error;

/// A backend's base URL, checked once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    /// Without a slash at its end; empty for the root.
    path: String,
}

/// The operator's fault: not a base URL.
#[derive(Debug, Error)]
pub enum BadBase {
    /// Not a URL at all.
    #[error("not a URL: {0}")]
    Syntax(#[from] InvalidUri),
    /// Another scheme, or none.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// There is something that cannot be a part of it.
    #[error("must not have a user, a password or a query; write the key into `api_key`")]
    Extra,
}

/// The client's fault: a path that cannot be forwarded. Answer 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadPath {
    /// `.` or `..` segments, encoded or not: they could leave the base path.
    #[error("the path has a \".\" or \"..\" segment; send the path it stands for")]
    Dots,
    /// `OPTIONS *` and `CONNECT` have no path.
    #[error("the request has no path to forward")]
    None,
    /// Joined, the two are no longer a path.
    #[error("the path is not one that can be forwarded")]
    Invalid,
}

impl BaseUrl {
    /// Checks a base URL.
    ///
    /// # Errors
    /// [`BadBase`].
    pub fn parse(text: &str) -> Result<Self, BadBase> {
        let parts = text.trim().parse::<Uri>()?.into_parts();
        let scheme = parts.scheme.filter(|s| *s == Scheme::HTTP || *s == Scheme::HTTPS).ok_or(BadBase::Scheme)?;
        let authority = parts.authority.ok_or(BadBase::Scheme)?;
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        if authority.as_str().contains('@') || path.query().is_some() {
            return Err(BadBase::Extra);
        }
        Ok(Self { scheme, authority, path: path.path().trim_end_matches('/').to_owned() })
    }

    /// The scheme.
    pub const fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Host and port.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The URL that a request goes to. The client's path and query are kept byte for byte, but for the version segment at the
    /// path's beginning: it goes where the base has a version (`v1`, `v1beta`) of its own. At the base's end, that is any `/v1` and
    /// the same version; further up, `/v1` but for `/v1/messages`, which Anthropic's SDK adds to any base.
    ///
    /// # Errors
    /// [`BadPath`].
    pub fn join(&self, request: &Uri) -> Result<Uri, BadPath> {
        let asked = request.path_and_query().ok_or(BadPath::None)?;
        if !asked.path().starts_with('/') {
            return Err(BadPath::None);
        }
        if has_dots(asked.path()) {
            return Err(BadPath::Dots);
        }
        let rest = self.without_version(asked);
        let joined = if self.path.is_empty() {
            asked.clone()
        } else {
            let text = [self.path.as_str(), rest].concat();
            PathAndQuery::from_maybe_shared(bytes::Bytes::from(text)).map_err(|_| BadPath::Invalid)?
        };
        let built = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(joined);
        built.build().map_err(|_| BadPath::Invalid)
    }

    /// The asked path and query without its first segment, if the base has that version or another in its place.
    fn without_version<'a>(&self, asked: &'a PathAndQuery) -> &'a str {
        let whole = asked.as_str();
        let last = self.path.rsplit('/').next().unwrap_or_default();
        let without = |version: &str| {
            // The bare `/v1` is the base itself.
            whole[1..].strip_prefix(version).filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        };
        let rest = if is_version(last) {
            without(last).or_else(|| without(CLIENTS_VERSION))
        } else if self.path.split('/').any(is_version) {
            without(CLIENTS_VERSION).filter(|rest| !is_messages(rest))
        } else {
            None
        };
        rest.unwrap_or(whole)
    }
}

/// The version that clients send.
const CLIENTS_VERSION: &str = "v1";

/// `/messages` and what is below it.
fn is_messages(path: &str) -> bool {
    path.strip_prefix("/messages").is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// `v1`, `v2`, `v1beta`, `v1alpha2`.
fn is_version(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    bytes.len() >= 2 && bytes[0] == b'v' && bytes[1].is_ascii_digit() && bytes.iter().all(u8::is_ascii_alphanumeric)
}

/// Any segment that a server may take for `.` or `..`, be its dots or slashes encoded.
pub fn has_dots(path: &str) -> bool {
    // No path of an LLM API has a dot segment, an encoded slash beside one, or a backslash.
    if !path.contains(['.', '%', '\\']) {
        return false;
    }
    let plain = path.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/");
    let plain = plain.replace("%5c", "/").replace("%5C", "/").replace('\\', "/");
    plain.split('/').any(|segment| {
        // `..;x` is a parent with a parameter to some servers.
        matches!(segment.split(';').next(), Some("." | ".."))
    })
}

/// A text with every `%XX` of it read (RFC 3986, section 2.1); one that is none, or not of UTF-8, stays as it is.
pub fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// A text as a part of a path or query: all but the unreserved characters is encoded (RFC 3986, section 2.3).
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join(base: &str, path: &str) -> Result<String, BadPath> {
        BaseUrl::parse(base).unwrap().join(&path.parse().unwrap()).map(|uri| uri.to_string())
    }

    #[test]
    fn a_version_in_both_stands_once() {
        for (base, path, joined) in [
            ("https://h/v1", "/v1/chat/completions", "https://h/v1/chat/completions"),
            ("https://h/v1/", "/v1/chat/completions", "https://h/v1/chat/completions"),
            ("https://h/api/v1", "/v1/x", "https://h/api/v1/x"),
            ("https://h/v1", "/chat/completions", "https://h/v1/chat/completions"),
            ("https://h", "/v1/chat/completions", "https://h/v1/chat/completions"),
            ("https://h:8443/", "/v1/models?limit=2", "https://h:8443/v1/models?limit=2"),
            ("http://h/v1beta", "/v1/x", "http://h/v1beta/x"),
            ("http://h/v1beta", "/v1beta/x", "http://h/v1beta/x"),
            ("https://h/api/paas/v4", "/v1/chat/completions", "https://h/api/paas/v4/chat/completions"),
            ("https://h/api/paas/v4", "/v1/messages", "https://h/api/paas/v4/messages"),
            ("https://h/v1beta/openai", "/v1/chat/completions", "https://h/v1beta/openai/chat/completions"),
            ("https://h/v1beta/openai/", "/v1/models?a=1", "https://h/v1beta/openai/models?a=1"),
            ("https://h/v1beta/openai", "/chat/completions", "https://h/v1beta/openai/chat/completions"),
            ("https://h/v1beta/openai", "/v1", "https://h/v1beta/openai"),
            ("https://h/v1beta/openai", "/v10/x", "https://h/v1beta/openai/v10/x"),
            ("https://h/v1/acc/gw/anthropic", "/v1/messages", "https://h/v1/acc/gw/anthropic/v1/messages"),
            ("https://h/v1/acc/gw/a", "/v1/messages/batches?x", "https://h/v1/acc/gw/a/v1/messages/batches?x"),
            ("https://h/v1/acc/gw/a", "/v1/messages_x", "https://h/v1/acc/gw/a/messages_x"),
            ("https://h/openai/v1", "/v1beta/x", "https://h/openai/v1/v1beta/x"),
            ("https://h/vision/openai", "/v1/x", "https://h/vision/openai/v1/x"),
            ("http://h/v1", "/v1beta/x", "http://h/v1/v1beta/x"),
            ("http://h/v1", "/v1?x=1", "http://h/v1?x=1"),
            ("http://h/v1", "/v1", "http://h/v1"),
            ("http://h/openai", "/openai/x", "http://h/openai/openai/x"),
            ("http://h/v1", "/", "http://h/v1/"),
        ] {
            assert_eq!(join(base, path).as_deref(), Ok(joined), "{base} + {path}");
        }
    }

    #[test]
    fn an_encoded_path_is_kept_byte_for_byte() {
        let path = "/v1/models/meta%2Fllama%203/a+b%C3%A9;p=1?q=%2F..%2F&r=a%20b";
        assert_eq!(join("http://h/v1", path).unwrap(), format!("http://h{path}"));
    }

    #[test]
    fn every_percent_encoding_is_read_and_nothing_else() {
        for (text, decoded) in [
            ("meta%2Fllama", "meta/llama"),
            ("meta%2fllama%3a8b", "meta/llama:8b"),
            ("a%20b+c", "a b+c"),
            ("caf%C3%A9", "café"),
            ("%61%62", "ab"),
            ("%252F", "%2F"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%FF", "%FF"),
            ("plain", "plain"),
        ] {
            assert_eq!(percent_decoded(text), decoded, "{text}");
        }
    }

    #[test]
    fn dot_segments_are_refused_however_written() {
        for path in [
            "/v1/../admin",
            "/..",
            "/.",
            "/a/./b",
            "/%2e%2e/x",
            "/.%2E/x",
            "/a%2f..%2fb",
            "/a%2F..%2F",
            "/a%5c..%5Cb",
            "/..;x/y",
        ] {
            assert_eq!(join("http://h/v1", path), Err(BadPath::Dots), "{path}");
        }
        for path in ["/a..b", "/...", "/v1/models/gpt-4.1", "/x?y=/../z"] {
            assert!(join("http://h/v1", path).is_ok(), "{path}");
        }
    }

    #[test]
    fn what_has_no_path_is_refused() {
        assert_eq!(join("http://h/v1", "*"), Err(BadPath::None));
        assert_eq!(join("http://h/v1", "example.com:443"), Err(BadPath::None));
    }

    #[test]
    fn an_absolute_request_goes_to_the_base_all_the_same() {
        assert_eq!(join("http://h/v1", "http://evil/v1/x").as_deref(), Ok("http://h/v1/x"));
    }

    #[test]
    fn a_base_url_is_http_with_nothing_but_a_path() {
        for base in ["", "h/v1", "/v1", "ftp://h", "https://user:pass@h/v1", "https://h/v1?key=1", "https://"] {
            assert!(BaseUrl::parse(base).is_err(), "{base}");
        }
        let base = BaseUrl::parse(" https://h:1/a/ ").unwrap();
        assert_eq!((base.scheme(), base.authority().as_str()), (&Scheme::HTTPS, "h:1"));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in "\\PC{0,24}") {
            let encoded = percent_encoded(&text);
            prop_assert!(encoded.is_ascii() && !encoded.contains(['/', '?', ' ']));
            prop_assert_eq!(percent_decoded(&encoded), text);
        }

        #[test]
        fn a_joined_url_stays_under_its_base(path in "/[a-z0-9./%;~_-]{0,24}", query in "[a-z=&%/.]{0,8}") {
            let Ok(uri) = format!("{path}?{query}").parse::<Uri>() else { return Ok(()) };
            if let Ok(joined) = BaseUrl::parse("http://h/api/v1").unwrap().join(&uri) {
                prop_assert!(joined.path().starts_with("/api/v1"));
                prop_assert_eq!(joined.authority().unwrap().as_str(), "h");
                prop_assert!(!joined.path().split('/').any(|s| s == ".."));
                prop_assert_eq!(joined.query(), uri.query());
            }
        }
    }
}
