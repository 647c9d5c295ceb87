//! Headers that cross the proxy in either direction, and headers that are added.
//!
//! Never upstream: what belongs to the client's connection (RFC 9110, section 7.6.1), its credentials and cookies, and
//! our own `x-pointsman-*`. Never downstream: what belongs to the upstream's connection, what speaks of its origin (cookies,
//! CORS, security policies, other addresses), what names the account behind the key, and `x-pointsman-*` it might forge.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// Our own headers begin so.
pub const OWN_PREFIX: &str = "x-pointsman-";

/// The headers of a client's request that go to a backend, with room for two more.
pub fn end_to_end(client: &HeaderMap) -> HeaderMap {
    let named = Named::by(client);
    let mut out = HeaderMap::with_capacity(client.len() + 2);
    for (name, value) in client {
        if !is_hop_by_hop(name) && !stays_with_the_client(name) && !named.contains(name) {
            out.append(name, value.clone());
        }
    }
    out
}

/// Returns true for a client's header that may go to a backend, as far as its name tells.
pub fn is_forwarded(name: &HeaderName) -> bool {
    !is_hop_by_hop(name) && !stays_with_the_client(name)
}

/// Returns true if the content type begins with this, in any letter case (RFC 9110, section 8.3.1).
pub fn has_content_type(headers: &HeaderMap, prefix: &str) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.trim_start().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Takes out of an upstream's headers what must not reach the client. `x-ratelimit-*`, `retry-after`,
/// `content-encoding` and the rest stay as they are. `content-length` stays too, because the body passes unchanged;
/// whoever changes the body (hides an event) takes it out.
pub fn downstream(upstream: &mut HeaderMap) {
    let named = Named::by(upstream);
    let unwanted = |name: &HeaderName| {
        is_hop_by_hop(name)
            || is_of_origin(name.as_str())
            || is_of_account(name.as_str())
            || REQUEST_IDS[..TAKEN_OVER].contains(&name.as_str())
            || name.as_str().starts_with(OWN_PREFIX)
            || named.contains(name)
    };
    let found: Vec<HeaderName> = upstream.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in found {
        upstream.remove(name);
    }
}

/// Headers in which providers and the gateways before them tell their id of a request, the most telling first.
const REQUEST_IDS: [&str; 16] = [
    "x-request-id",
    "request-id",
    "apim-request-id",
    "x-ms-request-id",
    "x-amzn-requestid",
    "x-amzn-request-id",
    "x-amz-request-id",
    "nvcf-reqid",
    "x-goog-request-id",
    "x-generation-id",
    "x-siliconcloud-trace-id",
    "mistral-correlation-id",
    "x-correlation-id",
    "x-trace-id",
    "x-litellm-call-id",
    "cf-ray",
];

/// Number of those, from the first, under which a client reads the id that we gave its request.
const TAKEN_OVER: usize = 2;

/// A longer id is none.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The id that the provider gave a request: what its support asks for.
pub fn request_id(upstream: &HeaderMap) -> Option<&str> {
    // The answer's headers are fewer than the names, and to look for each name would hash it.
    let known = upstream.iter().filter_map(|(name, value)| {
        let rank = REQUEST_IDS.iter().position(|known| *known == name.as_str())?;
        let id = value.to_str().ok()?.trim();
        (!id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES).then_some((rank, id))
    });
    known.min_by_key(|(rank, _)| *rank).map(|(_, id)| id)
}

/// Returns true for a header that is about the provider's origin: a client would apply it to ours.
fn is_of_origin(name: &str) -> bool {
    const PREFIXES: [&str; 6] =
        ["access-control-", "content-security-policy", "cross-origin-", "cf-", "x-amz-cf-", "sec-websocket-"];
    matches!(
        name,
        "set-cookie"
            | "set-cookie2"
            | "alt-svc"
            | "strict-transport-security"
            | "public-key-pins"
            | "public-key-pins-report-only"
            | "expect-ct"
            | "nel"
            | "report-to"
            | "reporting-endpoints"
            | "clear-site-data"
            | "origin-agent-cluster"
            | "accept-ch"
            | "critical-ch"
            | "permissions-policy"
            | "feature-policy"
            | "referrer-policy"
            | "timing-allow-origin"
            | "x-frame-options"
            | "x-xss-protection"
            | "x-permitted-cross-domain-policies"
            | "service-worker-allowed"
            | "sourcemap"
            | "refresh"
            | "www-authenticate"
            | "authentication-info"
            | "server"
            | "via"
            | "x-powered-by"
            | "x-served-by"
            | "x-cache"
            | "x-cache-hits"
            | "x-timer"
            | "x-envoy-upstream-service-time"
            | "x-envoy-decorator-operation"
    ) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Returns true for a header that names the account behind the backend's key: an organisation, project, user and the
/// like. What is left of limits is no name, whatever it is counted by.
fn is_of_account(name: &str) -> bool {
    let is_name = |word: &str| {
        matches!(
            word,
            "account"
                | "billing"
                | "customer"
                | "org"
                | "organisation"
                | "organization"
                | "owner"
                | "project"
                | "subscription"
                | "team"
                | "tenant"
                | "user"
                | "username"
                | "userid"
                | "workspace"
        )
    };
    name.split(['-', '_']).any(is_name) && !name.contains("ratelimit")
}

/// RFC 9110, section 7.6.1, with the names older software still uses.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || *name == TE
        || *name == TRAILER
        || *name == UPGRADE
        || matches!(name.as_str(), "keep-alive" | "http2-settings")
        || name.as_str().starts_with("proxy-")
}

/// Returns true for headers that are meant for the proxy only.
fn stays_with_the_client(name: &HeaderName) -> bool {
    *name == HOST
        || *name == CONTENT_LENGTH
        || *name == EXPECT
        || *name == AUTHORIZATION
        || *name == COOKIE
        || *name == FORWARDED
        || matches!(name.as_str(), "x-api-key" | "api-key" | "x-goog-api-key" | "x-real-ip")
        || name.as_str().starts_with("x-forwarded-")
        || name.as_str().starts_with(OWN_PREFIX)
}

/// The names that `connection` lists, which go no further either.
struct Named(Option<String>);

impl Named {
    fn by(headers: &HeaderMap) -> Self {
        let mut names = String::new();
        for value in headers.get_all(CONNECTION) {
            // The usual two name no header that is not taken out anyway.
            match value.to_str() {
                Ok(list) if !list.eq_ignore_ascii_case("keep-alive") && !list.eq_ignore_ascii_case("close") => {
                    names.push_str(list);
                    names.push(',');
                }
                Ok(_) | Err(_) => {}
            }
        }
        Self((!names.is_empty()).then_some(names))
    }

    /// Names that the message itself cannot do without are not obeyed: `connection: content-type` is an attack.
    fn contains(&self, name: &HeaderName) -> bool {
        let Some(names) = &self.0 else { return false };
        let end_to_end = matches!(
            name.as_str(),
            "content-type"
                | "content-length"
                | "content-encoding"
                | "cache-control"
                | "retry-after"
                | "anthropic-version"
        );
        !end_to_end && names.split(',').any(|listed| listed.trim().eq_ignore_ascii_case(name.as_str()))
    }
}

/// Returns true if these headers say that their client repeats by itself what fails, as the official SDKs do: they number each
/// try, from 0.
pub fn announces_retries(headers: &HeaderMap) -> bool {
    headers.contains_key("x-stainless-retry-count")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn up(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        end_to_end(&map(pairs))
    }

    #[test]
    fn hop_by_hop_headers_go_no_further() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "proxy-authenticate",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "te",
        ] {
            let pairs = [(name, "x"), ("accept", "*/*")];
            assert_eq!(up(&pairs), map(&[("accept", "*/*")]), "{name}");
            let mut down = map(&pairs);
            downstream(&mut down);
            assert_eq!(down, map(&[("accept", "*/*")]), "{name}");
        }
    }

    #[test]
    fn what_connection_names_goes_no_further() {
        let pairs = [("connection", "close, X-Hop , x-hop-2"), ("x-hop", "1"), ("x-hop-2", "2"), ("x-end", "3")];
        assert_eq!(up(&pairs), map(&[("x-end", "3")]));
        let pairs = [("connection", "content-type, x-hop"), ("x-hop", "1"), ("content-type", "a/b")];
        assert_eq!(up(&pairs), map(&[("content-type", "a/b")]));
    }

    #[test]
    fn a_clients_credentials_and_address_never_leave() {
        for name in [
            "authorization",
            "x-api-key",
            "api-key",
            "x-goog-api-key",
            "cookie",
            "host",
            "content-length",
            "expect",
            "forwarded",
            "x-forwarded-for",
            "x-real-ip",
            "x-pointsman-session",
            "x-pointsman-label-team",
        ] {
            assert!(!up(&[(name, "secret")]).contains_key(name), "{name}");
        }
    }

    #[test]
    fn te_stays_here_because_trailers_are_not_passed_on() {
        assert_eq!(up(&[("te", "gzip;q=0.5, trailers")]), map(&[]));
    }

    #[test]
    fn an_upstreams_limits_pass_and_its_cookies_do_not() {
        let mut down = map(&[
            ("x-ratelimit-remaining-requests", "1"),
            ("retry-after", "2"),
            ("content-length", "3"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
            ("x-pointsman-backend", "forged"),
            ("access-control-allow-origin", "*"),
            ("openai-processing-ms", "5"),
            ("vary", "a"),
            ("vary", "b"),
        ]);
        downstream(&mut down);
        let expected = [
            ("x-ratelimit-remaining-requests", "1"),
            ("retry-after", "2"),
            ("content-length", "3"),
            ("openai-processing-ms", "5"),
            ("vary", "a"),
            ("vary", "b"),
        ];
        assert_eq!(down, map(&expected));
    }

    #[test]
    fn an_upstreams_origin_and_account_stay_here_and_its_limits_do_not() {
        for name in [
            "alt-svc",
            "strict-transport-security",
            "access-control-allow-origin",
            "content-security-policy",
            "cross-origin-opener-policy",
            "cf-cache-status",
            "www-authenticate",
            "server",
            "via",
            "x-request-id",
            "request-id",
            "openai-organization",
            "openai-project",
            "anthropic-organization-id",
            "x-goog-user-project",
            "x-ms-tenant-id",
            "x-account-id",
        ] {
            let mut down = map(&[(name, "x"), ("content-type", "a/b")]);
            downstream(&mut down);
            assert_eq!(down, map(&[("content-type", "a/b")]), "{name}");
        }
        for name in [
            "x-ratelimit-limit-project-tokens",
            "anthropic-ratelimit-tokens-remaining",
            "openai-version",
            "openai-model",
            "location",
            "etag",
            "x-should-retry",
        ] {
            let mut down = map(&[(name, "x")]);
            downstream(&mut down);
            assert_eq!(down, map(&[(name, "x")]), "{name}");
        }
    }

    #[test]
    fn a_providers_request_id_is_found_by_whatever_name_it_has() {
        for (pairs, id) in [
            (&[("x-request-id", "a"), ("cf-ray", "b")][..], Some("a")),
            (&[("cf-ray", "b"), ("request-id", " req_1 ")], Some("req_1")),
            (&[("apim-request-id", "az")], Some("az")),
            (&[("nvcf-reqid", "nv")], Some("nv")),
            (&[("x-request-id", ""), ("x-amzn-requestid", "aws")], Some("aws")),
            (&[("x-id", "c")], None),
        ] {
            assert_eq!(request_id(&map(pairs)), id, "{pairs:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_bound_to_a_connection_or_secret_ever_passes(
            names in prop::collection::vec(prop::sample::select(vec![
                "connection", "keep-alive", "te", "upgrade", "transfer-encoding", "proxy-x", "authorization", "x-api-key",
                "cookie", "x-pointsman-a", "accept", "content-type", "x-a", "x-b", "host",
            ]), 0..12),
            listed in "[xab, -]{0,12}",
        ) {
            let mut client = HeaderMap::new();
            for name in &names {
                let value = if *name == "connection" { listed.as_str() } else { "v" };
                client.append(HeaderName::from_static(name), value.parse().unwrap());
            }
            let sent = end_to_end(&client);
            for name in sent.keys() {
                prop_assert!(["accept", "content-type", "x-a", "x-b"].contains(&name.as_str()), "{}", name);
                let hop = names.contains(&"connection") && listed.split(',').any(|l| l.trim() == name.as_str());
                prop_assert!(!hop, "{}", name);
                prop_assert_eq!(sent.get_all(name).iter().count(), client.get_all(name).iter().count());
            }
            let mut down = client.clone();
            downstream(&mut down);
            for name in ["connection", "keep-alive", "te", "upgrade", "transfer-encoding", "proxy-x", "x-pointsman-a"] {
                prop_assert!(!down.contains_key(name));
            }
        }
    }
}
