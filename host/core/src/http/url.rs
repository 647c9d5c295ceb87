//! URL of a request: the backend's base URL with the path of the operation and the query behind it.

use std::borrow::Cow;

use http::Uri;
use http::uri::{Authority, InvalidUri, PathAndQuery, Scheme};
use thiserror::Error;

use super::path;

/// A backend's base URL, checked once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    /// Without a slash at its end; empty for the root.
    path: String,
    version: Version,
}

/// Place of the API's version in a base URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Missing,
    /// Its last segment is a version, or it is that of a deployment, which has none.
    AtEnd,
    /// A version stands before its last segment.
    Above,
}

/// The root of the API in a client's path, which the base takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientRoot {
    /// The path is none of a known API.
    Opaque,
    /// A version is known, and no operation: bytes before the rest.
    Version(usize),
    /// Bytes before the path of a known operation.
    Operation(usize),
}

/// The operator's fault: not a base URL.
#[derive(Debug, Error)]
pub enum BadBase {
    /// Not a URL at all.
    #[error("not a URL: {0}")]
    Syntax(#[from] InvalidUri),
    /// The scheme is another than http or https, or missing.
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
        let path = path.path().trim_end_matches('/').to_owned();
        let last = path.rsplit('/').next().unwrap_or_default();
        let version = if path::is_version(last) || has_deployment(&path) {
            Version::AtEnd
        } else if path.split('/').any(path::is_version) {
            Version::Above
        } else {
            Version::Missing
        };
        Ok(Self { scheme, authority, path, version })
    }

    /// Returns the scheme, http or https.
    pub const fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Returns host and port.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The path, without a slash at its end; empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns true for the root of one deployment, as Azure has it: `/openai/deployments/NAME`.
    pub fn is_deployment(&self) -> bool {
        has_deployment(&self.path)
    }

    /// The URL that a request goes to: the base is the root of the API, so it takes the place of the root that the client was
    /// given. The rest of the path and the query are kept byte for byte.
    ///
    /// - A version of the base replaces any versions of the client's; a base without one gets the client's, or for an
    ///   operation [`path::CLIENTS_VERSION`].
    /// - Further segments of the client's root (`/openai/v1`, `/v1beta/openai`, a deployment) are replaced where the base ends in
    ///   a version, which makes it a whole root, and where the base ends in them. They are kept under any other base, which may
    ///   be a gateway's.
    /// - `/messages` under a base with a version further up keeps its `/v1`, which Anthropic's SDK adds to any base.
    ///
    /// # Errors
    /// [`BadPath`].
    pub fn join(&self, path: &str, query: Option<&str>, root: ClientRoot) -> Result<Uri, BadPath> {
        let path = checked(path)?;
        let (root, rest) = match root {
            ClientRoot::Opaque => ("", self.without_version(path)),
            ClientRoot::Version(at) => self.behind_version(path.split_at(at)),
            ClientRoot::Operation(at) => {
                let (root, own) = path.split_at(at);
                let own = own.trim_end_matches('/');
                (self.kept_root(root, own), own)
            }
        };
        self.with_path([root, rest], query)
    }

    /// The URL of this path behind the base, as a template gives it.
    ///
    /// # Errors
    /// [`BadPath`].
    pub fn join_expanded(&self, path: &str, query: Option<&str>) -> Result<Uri, BadPath> {
        self.with_path(["", checked(path)?], query)
    }

    fn with_path(&self, path: [&str; 2], query: Option<&str>) -> Result<Uri, BadPath> {
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        let mut text = [self.path.as_str(), path[0], path[1], mark, query].concat();
        if !text.starts_with('/') {
            text.insert(0, '/');
        }
        let joined = PathAndQuery::from_maybe_shared(bytes::Bytes::from(text)).map_err(|_| BadPath::Invalid)?;
        let built = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(joined);
        built.build().map_err(|_| BadPath::Invalid)
    }

    /// The part of the client's root that is kept before the path of a known operation.
    fn kept_root<'a>(&self, root: &'a str, own: &str) -> &'a str {
        const VERSION: &str = "/v1";
        // What the client was told may begin as the base does: `/openai` of both stands once.
        let root = match root.strip_prefix(self.path.as_str()) {
            Some(rest) if self.version == Version::Missing && (rest.is_empty() || rest.starts_with('/')) => rest,
            Some(_) | None => root,
        };
        let has_versions_only = path::behind_versions(root) == root.len();
        match self.version {
            Version::Missing if !has_versions_only => root,
            Version::Missing => last_segment_of(root).unwrap_or(VERSION),
            Version::Above if has_versions_only && is_messages(own) => VERSION,
            Version::AtEnd | Version::Above if has_versions_only => "",
            Version::AtEnd => "",
            Version::Above if self.path.ends_with(root) || self.ends_with_providers(root) => "",
            Version::Above => &root[path::behind(root, path::CLIENTS_VERSION)..],
        }
    }

    /// Returns true if the base ends in what a root has beside its versions: `/v1beta/openai` and `/openai/v1`.
    fn ends_with_providers(&self, root: &str) -> bool {
        let is_word = |segment: &&str| !segment.is_empty() && !path::is_version(segment);
        let mut own = self.path.rsplit('/').filter(is_word);
        root.rsplit('/').filter(is_word).all(|segment| own.next() == Some(segment))
    }

    /// The part that is kept of a path whose operation is not known, split behind the clients' version.
    fn behind_version<'a>(&self, (root, rest): (&'a str, &'a str)) -> (&'static str, &'a str) {
        if self.version == Version::Missing {
            let has_version = root.contains(path::CLIENTS_VERSION);
            return (if has_version { "/v1" } else { "" }, rest);
        }
        let own = self.last_segment();
        let without_own =
            rest.strip_prefix('/').and_then(|rest| rest.strip_prefix(own)).filter(|_| path::is_version(own));
        ("", without_own.filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(rest))
    }

    /// The asked path without its first segment, if the base has that version or another in its place.
    fn without_version<'a>(&self, whole: &'a str) -> &'a str {
        let without = |version: &str| {
            // The bare `/v1` is the base itself.
            whole[1..].strip_prefix(version).filter(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let last = self.last_segment();
        let rest = if path::is_version(last) {
            without(last).or_else(|| without(path::CLIENTS_VERSION))
        } else if self.version == Version::Above {
            without(path::CLIENTS_VERSION).filter(|rest| !is_messages(rest))
        } else {
            None
        };
        rest.unwrap_or(whole)
    }

    fn last_segment(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// A path that can be forwarded.
fn checked(path: &str) -> Result<&str, BadPath> {
    if !path.starts_with('/') {
        return Err(BadPath::None);
    }
    if has_dots(path) { Err(BadPath::Dots) } else { Ok(path) }
}

/// The last segment that is not empty, with the slash before it.
fn last_segment_of(root: &str) -> Option<&str> {
    let root = root.trim_end_matches('/');
    root.rfind('/').map(|start| &root[start..])
}

/// `/messages` and what is below it.
fn is_messages(path: &str) -> bool {
    path.strip_prefix("/messages").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns true for the root of one deployment (`/openai/deployments/NAME`), which has no version in its path.
fn has_deployment(path: &str) -> bool {
    path.split('/').any(|segment| segment == "deployments")
}

/// Any segment that a server may take for `.` or `..`, be its dots or slashes encoded.
pub fn has_dots(path: &str) -> bool {
    // No path of an LLM API has a dot segment, an encoded slash beside one, or a backslash.
    if memchr::memchr3(b'.', b'%', b'\\', path.as_bytes()).is_none() {
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

    fn joined(base: &str, asked: &str, root: impl Fn(&str) -> ClientRoot) -> Result<String, BadPath> {
        let uri = asked.parse::<Uri>().unwrap();
        let asked = uri.path_and_query().ok_or(BadPath::None)?;
        BaseUrl::parse(base).unwrap().join(asked.path(), asked.query(), root(asked.path())).map(|uri| uri.to_string())
    }

    /// A path whose operation is not known.
    fn join(base: &str, asked: &str) -> Result<String, BadPath> {
        joined(base, asked, |asked| ClientRoot::Version(path::behind(asked, "v1")))
    }

    /// The path of this operation.
    fn join_operation(base: &str, asked: &str, own: &str) -> Result<String, BadPath> {
        joined(base, asked, |asked| ClientRoot::Operation(asked.find(own).unwrap()))
    }

    #[test]
    fn the_root_of_the_api_is_the_bases_in_every_spelling() {
        for asked in [
            "/v1/chat/completions",
            "/chat/completions",
            "//v1/chat/completions",
            "/v1//chat/completions",
            "/v1/v1/chat/completions",
            "/v1/chat/completions/",
            "//chat/completions",
            "/v4/chat/completions",
        ] {
            for (base, root) in [
                ("https://h/v1", "/v1"),
                ("https://h/v1/", "/v1"),
                ("https://h/v1//", "/v1"),
                ("https://h/api/paas/v4", "/api/paas/v4"),
                ("https://h/api/v3", "/api/v3"),
                ("https://h/v1beta/openai", "/v1beta/openai"),
                ("https://h/openai/deployments/gpt-4o", "/openai/deployments/gpt-4o"),
                ("https://h/openai/deployments/v1", "/openai/deployments/v1"),
            ] {
                let url = format!("https://h{root}/chat/completions");
                assert_eq!(join_operation(base, asked, "/chat").as_deref(), Ok(url.as_str()), "{base} + {asked}");
            }
            if asked != "/v4/chat/completions" {
                for (base, root) in [("https://h", "/v1"), ("https://h/", "/v1"), ("https://h/api", "/api/v1")] {
                    let url = format!("https://h{root}/chat/completions");
                    assert_eq!(join_operation(base, asked, "/chat").as_deref(), Ok(url.as_str()), "{base} + {asked}");
                }
            }
        }
        assert_eq!(join_operation("https://h", "/v4/chat", "/chat").as_deref(), Ok("https://h/v4/chat"));
    }

    #[test]
    fn a_client_may_be_told_the_root_of_another_provider() {
        for (base, asked, url) in [
            ("https://h/openai/v1", "/openai/v1/chat", "https://h/openai/v1/chat"),
            ("https://h/v1", "/openai/v1/chat", "https://h/v1/chat"),
            ("https://h/v1", "/openai/deployments/gpt/chat?api-version=1", "https://h/v1/chat?api-version=1"),
            ("https://h/v1", "/v1beta/openai/chat", "https://h/v1/chat"),
            ("https://h/v1", "/openai/chat", "https://h/v1/chat"),
            ("https://h/v1", "/v1/openai/chat", "https://h/v1/chat"),
            ("https://h/api/paas/v4", "/api/openai/v1/chat", "https://h/api/paas/v4/chat"),
            ("https://h/v1beta/openai", "/openai/v1/chat", "https://h/v1beta/openai/chat"),
            ("https://h/v1beta/openai", "/v1/openai/chat", "https://h/v1beta/openai/chat"),
            ("https://h/v1/acc/gw/openai", "/openai/v1/chat", "https://h/v1/acc/gw/openai/chat"),
            ("https://h/v1beta/openai", "/v1beta/openai/chat", "https://h/v1beta/openai/chat"),
            ("https://h/gateway", "/openai/chat", "https://h/gateway/openai/chat"),
            ("https://h/openai", "/openai/chat", "https://h/openai/v1/chat"),
            ("https://h/openai", "/openai/v1/chat", "https://h/openai/v1/chat"),
            ("https://h/openai", "/openai/deployments/gpt/chat", "https://h/openai/deployments/gpt/chat"),
            ("https://h/open", "/openai/v1/chat", "https://h/open/openai/v1/chat"),
            ("https://h/v1/account/gateway", "/openai/chat", "https://h/v1/account/gateway/openai/chat"),
            ("https://h/v1/account/gateway", "/v1/openai/chat", "https://h/v1/account/gateway/openai/chat"),
        ] {
            assert_eq!(join_operation(base, asked, "/chat").as_deref(), Ok(url), "{base} + {asked}");
        }
    }

    #[test]
    fn messages_keep_their_version_under_a_base_that_has_one_further_up() {
        for (base, asked, url) in [
            ("https://h/v1/acc/gw/anthropic", "/v1/messages", "https://h/v1/acc/gw/anthropic/v1/messages"),
            ("https://h/v1/acc/gw/a", "/v1/messages/batches?x", "https://h/v1/acc/gw/a/v1/messages/batches?x"),
            ("https://h/v1/acc/gw/a", "/messages", "https://h/v1/acc/gw/a/v1/messages"),
            ("https://h/api/paas/v4", "/v1/messages", "https://h/api/paas/v4/messages"),
            ("https://h", "/messages", "https://h/v1/messages"),
            ("https://h/anthropic", "/v1/messages", "https://h/anthropic/v1/messages"),
        ] {
            assert_eq!(join_operation(base, asked, "/messages").as_deref(), Ok(url), "{base} + {asked}");
        }
    }

    #[test]
    fn a_path_of_no_api_is_kept_but_for_a_version_that_both_have() {
        for (base, asked, url) in [
            ("http://h/v1", "/", "http://h/v1/"),
            ("http://h/v1", "/v1?x=1", "http://h/v1?x=1"),
            ("http://h/v1", "/v1", "http://h/v1"),
            ("http://h", "//a//b/", "http://h//a//b/"),
            ("http://h/v2", "/v2/x", "http://h/v2/x"),
        ] {
            assert_eq!(joined(base, asked, |_| ClientRoot::Opaque).as_deref(), Ok(url), "{base} + {asked}");
        }
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
            ("https://h/v1beta/openai", "/v1/chat/completions", "https://h/v1beta/openai/chat/completions"),
            ("https://h/v1beta/openai/", "/v1/models?a=1", "https://h/v1beta/openai/models?a=1"),
            ("https://h/v1beta/openai", "/chat/completions", "https://h/v1beta/openai/chat/completions"),
            ("https://h/v1beta/openai", "/v1", "https://h/v1beta/openai"),
            ("https://h/v1beta/openai", "/v10/x", "https://h/v1beta/openai/v10/x"),
            ("https://h/v1/acc/gw/a", "/v1/messages_x", "https://h/v1/acc/gw/a/messages_x"),
            ("https://h/openai/v1", "/v1beta/x", "https://h/openai/v1/v1beta/x"),
            ("https://h/vision/openai", "/v1/x", "https://h/vision/openai/v1/x"),
            ("http://h/v1", "/v1beta/x", "http://h/v1/v1beta/x"),
            ("http://h/v1", "/v1?x=1", "http://h/v1?x=1"),
            ("http://h/v1", "/v1", "http://h/v1"),
            ("http://h/openai", "/openai/x", "http://h/openai/openai/x"),
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
            let asked = uri.path_and_query().unwrap();
            let roots = [ClientRoot::Opaque, ClientRoot::Version(path::behind(uri.path(), "v1")), ClientRoot::Operation(path::behind_versions(uri.path()))];
            for root in roots {
                let Ok(joined) = BaseUrl::parse("http://h/api/v1").unwrap().join(asked.path(), asked.query(), root) else { continue };
                prop_assert!(joined.path().starts_with("/api/v1"));
                prop_assert_eq!(joined.authority().unwrap().as_str(), "h");
                prop_assert!(!joined.path().split('/').any(|s| s == ".."));
                prop_assert_eq!(joined.query(), uri.query());
            }
        }
    }
}
