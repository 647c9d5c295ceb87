//! Links in a provider's answer that lead to the provider: they lead back through the proxy, or a client would take its key for
//! the proxy straight there.

use std::borrow::Cow;

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION};
use memchr::memmem;

use super::path;
use super::url::BaseUrl;

/// Headers whose value is one address; the last two are Azure's for long operations.
const HEADERS: [HeaderName; 4] = [
    LOCATION,
    CONTENT_LOCATION,
    HeaderName::from_static("operation-location"),
    HeaderName::from_static("azure-asyncoperation"),
];

/// Members whose address leads to the provider also where it names another host than the base URL, as behind a gateway that
/// passes answers on: `results_url` of Anthropic's batches.
const MEMBERS: [&[u8]; 1] = [b"\"results_url\""];

/// The way from addresses at a provider to those that the client is given.
#[derive(Clone, Debug)]
pub struct Links<'a> {
    base: &'a BaseUrl,
    /// `http://host:port` by which the client reached the proxy.
    origin: &'a str,
    /// Root of the API in the client's path.
    root: &'a str,
}

impl<'a> Links<'a> {
    /// Links from this base URL to this origin and root: the part of the client's path before that of the operation.
    pub fn new(base: &'a BaseUrl, origin: &'a str, root: &'a str) -> Self {
        let has_versions_only = path::behind_versions(root) == root.len();
        let last = root.rfind(|sign| sign != '/').map_or("", |end| &root[..=end]);
        let root = if has_versions_only { last.rfind('/').map_or("", |start| &last[start..]) } else { root };
        Self { base, origin, root }
    }

    /// Changes the headers that lead to the provider.
    pub fn change_headers(&self, headers: &mut HeaderMap) {
        for name in HEADERS {
            let changed = headers.get(&name).and_then(|value| self.back(value.to_str().ok()?));
            if let Some(value) = changed.and_then(|changed| HeaderValue::try_from(changed).ok()) {
                headers.insert(name, value);
            }
        }
        let links: Vec<HeaderValue> = headers.get_all(LINK).iter().map(|value| self.link_header(value)).collect();
        if !links.is_empty() {
            headers.remove(LINK);
            for link in links {
                headers.append(LINK, link);
            }
        }
    }

    /// JSON with the strings changed that are addresses at the provider; none where there is no such string.
    pub fn changed_json(&self, body: &[u8]) -> Option<Vec<u8>> {
        let mut changed: Option<Vec<u8>> = None;
        let mut copied = 0;
        let mut change = |start: usize, end: usize, address: &str| {
            let out = changed.get_or_insert_with(|| Vec::with_capacity(body.len()));
            out.extend_from_slice(&body[copied..start]);
            out.extend_from_slice(serde_json::Value::from(address).to_string().as_bytes());
            copied = end;
        };
        let mut from = 0;
        while let Some(start) = next_address(body, from) {
            let Some(end) = string_end(body, start) else { break };
            from = end;
            let Ok(address) = serde_json::from_slice::<String>(&body[start..end]) else { continue };
            let named = || MEMBERS.iter().any(|member| is_value_of(&body[..start], member));
            let back = self.back(&address).or_else(|| if named() { self.back_from_anywhere(&address) } else { None });
            if let Some(back) = back {
                change(start, end, &back);
            }
        }
        let mut out = changed?;
        out.extend_from_slice(&body[copied..]);
        Some(out)
    }

    /// The address at the proxy for one under the base URL, absolute or a path.
    fn back(&self, address: &str) -> Option<String> {
        let (rest, origin) = match address.strip_prefix('/') {
            Some(rest) if !rest.starts_with('/') => (address, ""),
            Some(_) => return None,
            None => (self.behind_authority(address)?, self.origin),
        };
        let own = rest.strip_prefix(self.base.path())?;
        if !own.is_empty() && !own.starts_with(['/', '?', '#']) {
            return None;
        }
        Some([origin, self.root, &own[path::behind(without_query(own), path::CLIENTS_VERSION)..]].concat())
    }

    /// The same for an address at any host.
    fn back_from_anywhere(&self, address: &str) -> Option<String> {
        let (_, rest) = address.split_once("://")?;
        let own = &rest[rest.find('/')?..];
        Some([self.origin, self.root, &own[path::behind(without_query(own), path::CLIENTS_VERSION)..]].concat())
    }

    /// The part of an address that follows the base URL's host; none: it is at another host.
    fn behind_authority<'b>(&self, address: &'b str) -> Option<&'b str> {
        let (scheme, rest) = address.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let port = |authority: &str, scheme: &str| {
            let usual = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
            authority.strip_suffix(usual).unwrap_or(authority).to_ascii_lowercase()
        };
        let own = port(self.base.authority().as_str(), self.base.scheme().as_str());
        (port(&rest[..end], scheme) == own).then_some(&rest[end..])
    }

    fn link_header(&self, value: &HeaderValue) -> HeaderValue {
        let Ok(text) = value.to_str() else { return value.clone() };
        let mut out = String::with_capacity(text.len());
        for (number, part) in text.split('<').enumerate() {
            if number > 0 {
                out.push('<');
            }
            match part.split_once('>') {
                Some((address, behind)) if number > 0 => {
                    let back: Cow<'_, str> = self.back(address).map_or(Cow::Borrowed(address), Cow::Owned);
                    out.push_str(&back);
                    out.push('>');
                    out.push_str(behind);
                }
                Some(_) | None => out.push_str(part),
            }
        }
        HeaderValue::try_from(out).unwrap_or_else(|_| value.clone())
    }
}

fn without_query(own: &str) -> &str {
    own.split(['?', '#']).next().unwrap_or_default()
}

/// The next string of JSON that begins as an address, from its opening quote; slashes may be escaped.
fn next_address(body: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + memmem::find(&body[from..], b"\"http")?;
        let rest = &body[at + 5..];
        let rest = rest.strip_prefix(b"s").unwrap_or(rest);
        if rest.starts_with(b"://") || rest.starts_with(b":\\/\\/") {
            return Some(at);
        }
        from = at + 5;
    }
}

/// The end of a string, behind its closing quote.
fn string_end(body: &[u8], start: usize) -> Option<usize> {
    let end = super::json::skip_string(body, start);
    (body.get(end - 1) == Some(&b'"') && end > start + 1).then_some(end)
}

fn is_value_of(before: &[u8], member: &[u8]) -> bool {
    let before = before.trim_ascii_end();
    before.strip_suffix(b":").is_some_and(|before| before.trim_ascii_end().ends_with(member))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base(text: &str) -> BaseUrl {
        BaseUrl::parse(text).unwrap()
    }

    fn back(base_url: &str, root: &str, address: &str) -> Option<String> {
        Links::new(&base(base_url), "http://pm:8080", root).back(address)
    }

    #[test]
    fn an_address_under_the_base_becomes_one_of_the_proxy() {
        for (base, root, address, link) in [
            (
                "https://h",
                "/v1",
                "https://h/v1/messages/batches/b/results",
                "http://pm:8080/v1/messages/batches/b/results",
            ),
            ("https://h/v1", "/v1", "https://h/v1/files?after=f", "http://pm:8080/v1/files?after=f"),
            ("https://h/v1", "", "https://h/v1/files", "http://pm:8080/files"),
            ("https://h/v1", "//v1", "https://h/v1/files", "http://pm:8080/v1/files"),
            ("https://h/v1", "/v1/v1", "https://h/v1/files", "http://pm:8080/v1/files"),
            ("https://h/api/paas/v4", "/v1", "https://H:443/api/paas/v4/files", "http://pm:8080/v1/files"),
            ("http://h:9/v1", "/v1", "http://h:9/v1/files#x", "http://pm:8080/v1/files#x"),
            ("https://h/openai/v1", "/openai/v1", "https://h/openai/v1/files", "http://pm:8080/openai/v1/files"),
            ("https://h/v1", "/v1", "/v1/files/f", "/v1/files/f"),
            ("https://h/api/paas/v4", "/v1", "/api/paas/v4/files", "/v1/files"),
        ] {
            assert_eq!(back(base, root, address).as_deref(), Some(link), "{base} {address}");
        }
    }

    #[test]
    fn an_address_elsewhere_is_left_alone() {
        for address in [
            "https://cdn.example/x.png",
            "https://h.evil/v1/files",
            "https://h:8443/v1/files",
            "https://h/other/files",
            "https://h/v10/files",
            "ftp://h/v1/files",
            "//h/v1/files",
            "files",
        ] {
            assert_eq!(back("https://h/v1", "/v1", address), None, "{address}");
        }
    }

    #[test]
    fn addresses_in_headers_are_changed() {
        let base = base("https://h/v1");
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static("https://h/v1/files/f"));
        headers.insert("operation-location", HeaderValue::from_static("https://h/v1/operations/o"));
        let links = "<https://h/v1/files?after=f>; rel=\"next\", <https://elsewhere/x>; rel=\"help\"";
        headers.insert(LINK, HeaderValue::from_static(links));
        Links::new(&base, "http://pm", "/v1").change_headers(&mut headers);
        assert_eq!(
            (&headers[LOCATION], &headers["operation-location"]),
            (&HeaderValue::from_static("http://pm/v1/files/f"), &HeaderValue::from_static("http://pm/v1/operations/o"),)
        );
        let changed = "<http://pm/v1/files?after=f>; rel=\"next\", <https://elsewhere/x>; rel=\"help\"";
        assert_eq!(headers[LINK], changed);
    }

    #[test]
    fn addresses_in_json_are_changed_and_every_other_byte_stays() {
        let base = base("https://api.anthropic.com");
        let links = Links::new(&base, "http://pm", "/v1");
        let body =
            r#"{ "id":"b", "results_url" : "https://api.anthropic.com/v1/messages/batches/b/results","n":1.0e0}"#;
        let changed = links.changed_json(body.as_bytes()).unwrap();
        let expected = body.replace("https://api.anthropic.com/v1", "http://pm/v1");
        assert_eq!(String::from_utf8(changed).unwrap(), expected);
        let escaped = br#"{"next":"https:\/\/api.anthropic.com\/v1\/files?page=2","image":"https://cdn/x","a":["https://api.anthropic.com/v1/x"]}"#;
        let changed = links.changed_json(escaped).unwrap();
        let expected = r#"{"next":"http://pm/v1/files?page=2","image":"https://cdn/x","a":["http://pm/v1/x"]}"#;
        assert_eq!(String::from_utf8(changed).unwrap(), expected);
        for body in [
            r#"{"text":"see https://api.anthropic.com/v1/x"}"#,
            r#"{"a":"http"}"#,
            r#"{"a":"https://api.anthropic.com/v1"#,
            "",
        ] {
            assert_eq!(links.changed_json(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn a_results_url_leads_back_from_any_host() {
        let base = base("http://127.0.0.1:9/v1");
        let body = br#"{"results_url":"https://api.anthropic.com/v1/messages/batches/b/results","u":"https://api.anthropic.com/v1/x"}"#;
        let changed = Links::new(&base, "http://pm", "/v1").changed_json(body).unwrap();
        let expected =
            r#"{"results_url":"http://pm/v1/messages/batches/b/results","u":"https://api.anthropic.com/v1/x"}"#;
        assert_eq!(String::from_utf8(changed).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(body in "[\"\\\\a:/{}]{0,20}(\"https?:(//|\\\\\\\\/)h[/a-z\"\\\\]{0,20}){0,3}") {
            let base = base("https://h/v1");
            Links::new(&base, "http://pm", "/v1").changed_json(body.as_bytes());
        }
    }
}
