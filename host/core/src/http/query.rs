//! Queries of request targets: parameters that a backend's operator adds, and credentials that stay here.

use std::borrow::Cow;
use std::fmt;

use http::uri::PathAndQuery;

/// Parameters that a backend gets with every request, ready to be sent. Their values may be secret, so they are not printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OwnQuery {
    /// Each encoded as `name=value`, with the length of the name.
    pairs: Vec<(String, usize)>,
    /// Values that may be secret.
    secrets: Vec<String>,
}

impl OwnQuery {
    /// These parameters, which are encoded here. Those that are named like a credential are secret.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut own = Self::default();
        for (name, value) in pairs {
            if is_named_like_secret(name) {
                own.keep_secret(value);
            }
            let name = encoded(name, "");
            own.pairs.push((format!("{name}={}", encoded(value, "")), name.len()));
        }
        own
    }

    /// A value of one of them is secret under whatever name.
    pub fn keep_secret(&mut self, value: &str) {
        if !self.secrets.iter().any(|known| known == value) {
            self.secrets.push(value.to_owned());
        }
    }

    /// The values that may be secret.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().map(String::as_str)
    }

    /// A request's query with these parameters in it; they replace the client's own of the same names.
    pub fn merge<'a>(&self, asked: Option<&'a str>) -> Option<Cow<'a, str>> {
        if self.pairs.is_empty() {
            return asked.map(Cow::Borrowed);
        }
        let is_own = |name: &str| self.pairs.iter().any(|(pair, length)| pair[..*length] == *name);
        let asked = asked.unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !is_own(split(pair).0));
        let all: Vec<&str> = asked.chain(self.pairs.iter().map(|(pair, _)| pair.as_str())).collect();
        Some(Cow::Owned(all.join("&")))
    }
}

impl fmt::Debug for OwnQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs.iter().map(|(pair, length)| &pair[..*length])).finish()
    }
}

/// Names that clients give to a credential in a query, without their hyphens and underscores.
const CREDENTIALS: [&str; 9] = [
    "accesstoken",
    "apikey",
    "authorization",
    "authtoken",
    "bearer",
    "bearertoken",
    "subscriptionkey",
    "xapikey",
    "xgoogapikey",
];

/// The same, of names that an API of no known dialect may use for something else.
const LIKELY_CREDENTIALS: [&str; 2] = ["key", "token"];

/// Words in the names of parameters that hold a secret.
const SECRET_WORDS: [&str; 7] = ["key", "token", "secret", "sig", "auth", "password", "credential"];

fn is_named_like_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word)) || name == "code"
}

/// The target without parameters that hold a credential: of the client, so that it leaves as little as its headers do.
/// `is_api`: the path is one of an API that has no parameter `key` or `token`. `is_client_key` knows the values that are
/// credentials under any name.
pub fn without_credentials(target: PathAndQuery, is_api: bool, is_client_key: impl Fn(&str) -> bool) -> PathAndQuery {
    let Some(query) = target.query().filter(|query| !query.is_empty()) else { return target };
    let is_credential = |pair: &&str| {
        let (name, value) = split(pair);
        let name: String = decoded(name).to_ascii_lowercase().replace(['-', '_'], "");
        let is_named = CREDENTIALS.contains(&&*name) || is_api && LIKELY_CREDENTIALS.contains(&&*name);
        is_named || !value.is_empty() && is_client_key(&decoded(value))
    };
    if !query.split('&').any(|pair| is_credential(&pair)) {
        return target;
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_credential(pair)).collect();
    let text = match kept.is_empty() {
        true => target.path().to_owned(),
        false => format!("{}?{}", target.path(), kept.join("&")),
    };
    // A part of a valid target is one.
    text.parse().unwrap_or(target)
}

fn split(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// Text as it may stand in a path or query: letters, digits, `-._~` and these signs as they are, all else in percent-encoding
/// (RFC 3986, section 2.1).
pub(super) fn encoded(text: &str, kept: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let sign = char::from(byte);
        if sign.is_ascii_alphanumeric() || "-._~".contains(sign) || kept.contains(sign) {
            out.push(sign);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Text without percent-encoding; what is no UTF-8 stays as it is.
pub fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = |at: usize| char::from(*rest.get(at)?).to_digit(16);
        match (byte, hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &rest[3..];
            }
            _ => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scrubbed(target: &str, is_api: bool) -> String {
        without_credentials(target.parse().unwrap(), is_api, |value| value == "pm-secret+1").to_string()
    }

    #[test]
    fn own_parameters_join_the_clients_and_replace_those_of_their_names() {
        let own = OwnQuery::new([("api-version", "2024-10-21"), ("a b", "x&y")]);
        for (asked, merged) in [
            (None, "api-version=2024-10-21&a%20b=x%26y"),
            (Some(""), "api-version=2024-10-21&a%20b=x%26y"),
            (Some("after=f&api-version=1"), "after=f&api-version=2024-10-21&a%20b=x%26y"),
        ] {
            assert_eq!(own.merge(asked).as_deref(), Some(merged));
        }
        assert_eq!(OwnQuery::default().merge(Some("a=1&&b")).as_deref(), Some("a=1&&b"));
        assert_eq!(OwnQuery::default().merge(None), None);
        assert_eq!(format!("{:?}", OwnQuery::new([("key", "secret")])), r#"["key"]"#);
    }

    #[test]
    fn credentials_are_taken_out_by_their_names_and_by_their_values() {
        for (target, left) in [
            ("/v1/x?key=secret", "/v1/x"),
            ("/v1/x?a=1&key=secret&b=2", "/v1/x?a=1&b=2"),
            ("/v1/x?API_KEY=secret&api-key=secret&apiKey=secret&access_token=s&token=s", "/v1/x"),
            ("/v1/x?x-goog-api-key=s&limit=3", "/v1/x?limit=3"),
            ("/v1/x?%6Bey=secret", "/v1/x"),
            ("/v1/x?auth=pm-secret%2B1&limit=3", "/v1/x?limit=3"),
            ("/v1/x?after=f&page_token=t&monkey=1", "/v1/x?after=f&page_token=t&monkey=1"),
            ("/v1/x?", "/v1/x?"),
            ("/v1/x", "/v1/x"),
        ] {
            assert_eq!(scrubbed(target, true), left, "{target}");
        }
        assert_eq!(scrubbed("/store?key=name&token=t", false), "/store?key=name&token=t");
        assert_eq!(scrubbed("/store?key=pm-secret%2b1&api_key=k&a", false), "/store?a");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(text in "\\PC{0,12}") {
            let plain = encoded(&text, "");
            prop_assert_eq!(decoded(&plain), text);
        }

        #[test]
        fn no_credential_is_left_and_nothing_else_is_lost(
            pairs in prop::collection::vec((prop::sample::select(vec!["key", "a", "Api-Key", "limit", "token"]), "[a-z]{1,4}"), 0..6)
        ) {
            let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let left = scrubbed(&format!("/v1/x?{}", query.join("&")), true);
            let kept: Vec<String> = query.into_iter().filter(|pair| pair.starts_with("a=") || pair.starts_with("limit=")).collect();
            prop_assert!(left.ends_with(&kept.join("&")) && !left.contains("key=") && !left.contains("token="), "{}", left);
        }
    }
}
