//! The headers of a request on its way to a backend.

use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};

use super::registry::Dialect;
use crate::contract::Operation;
use crate::http::account_headers;
use crate::http::headers::end_to_end;

/// A client's headers on the way to a backend: filtered, with `key` put in where the dialect wants it.
///
/// `key` is the whole header value, ready and marked sensitive. Host and framing are the HTTP client's to write.
///
/// What belongs to the client's own credential (its organization, its project) goes no further: a provider refuses it
/// beside another's key. Only an API that is passed unread, and has no key here, gets it.
///
/// For operations whose answers we read, for usage or for links, `accept-encoding: identity` is asked for: a compressed
/// stream would have to be unpacked to see its events. Others keep what the client accepts.
pub fn upstream(client: &HeaderMap, dialect: Dialect, operation: Operation, key: Option<&HeaderValue>) -> HeaderMap {
    let format = dialect.format();
    let mut out = end_to_end(client);
    if key.is_some() || !format.is_opaque() {
        account_headers::remove(&mut out);
    }
    if format.reads_usage(operation) || operation.is_about_stored_things() && !format.is_opaque() {
        out.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    format.add_headers(&mut out);
    if let Some(key) = key {
        out.insert(format.key_header(), key.clone());
    }
    out
}

/// Removes the headers that only providers of this dialect understand.
pub fn remove_own(headers: &mut HeaderMap, dialect: Dialect) {
    let Some(prefix) = dialect.format().own_header_prefix() else { return };
    let own: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::header::AUTHORIZATION;

    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn key(text: &'static str) -> HeaderValue {
        let mut key = HeaderValue::from_static(text);
        key.set_sensitive(true);
        key
    }

    #[test]
    fn a_clients_key_never_leaves() {
        for dialect in Dialect::all() {
            let client = map(&[("authorization", "secret"), ("x-api-key", "secret"), ("cookie", "secret")]);
            let sent = upstream(&client, dialect, Operation::Chat, None);
            assert!(sent.values().all(|value| value != "secret"), "{dialect:?}");
        }
    }

    #[test]
    fn a_clients_account_never_goes_out_under_the_backends_key() {
        let client = map(&[
            ("openai-organization", "org-theirs"),
            ("openai-project", "theirs"),
            ("x-goog-user-project", "theirs"),
            ("anthropic-beta", "oauth-2025-04-20,tools-2024"),
            ("openai-beta", "assistants=v2"),
        ]);
        for dialect in [Dialect::OPENAI, Dialect::ANTHROPIC] {
            for key in [None, Some(&key("ours"))] {
                let sent = upstream(&client, dialect, Operation::Chat, key);
                assert!(sent.values().all(|value| !value.to_str().unwrap().contains("theirs")), "{sent:?}");
                assert_eq!(
                    (&sent["anthropic-beta"], &sent["openai-beta"]),
                    (&"tools-2024".parse().unwrap(), &"assistants=v2".parse().unwrap())
                );
            }
        }
        assert_eq!(upstream(&client, Dialect::PLAIN, Operation::Other, None).len(), client.len(), "no key of ours");
        assert!(
            !upstream(&client, Dialect::PLAIN, Operation::Other, Some(&key("ours"))).contains_key("openai-project")
        );
    }

    #[test]
    fn headers_of_one_providers_own_are_removed() {
        let mut headers = map(&[("openai-beta", "b"), ("anthropic-beta", "b"), ("accept", "*/*")]);
        remove_own(&mut headers, Dialect::OPENAI);
        assert_eq!(headers, map(&[("anthropic-beta", "b"), ("accept", "*/*")]));
        remove_own(&mut headers, Dialect::PLAIN);
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn the_backends_key_goes_where_its_dialect_wants_it() {
        let client = map(&[("authorization", "Bearer client"), ("x-api-key", "client"), ("anthropic-beta", "b")]);
        let sent = upstream(&client, Dialect::OPENAI, Operation::Chat, Some(&key("Bearer ours")));
        assert_eq!(sent[AUTHORIZATION], "Bearer ours");
        assert!(sent[AUTHORIZATION].is_sensitive() && !sent.contains_key("x-api-key"));
        let sent = upstream(&client, Dialect::ANTHROPIC, Operation::Message, Some(&key("ours")));
        assert_eq!(sent["x-api-key"], "ours");
        assert!(!sent.contains_key(AUTHORIZATION));
        assert_eq!(
            (&sent["anthropic-version"], &sent["anthropic-beta"]),
            (&"2023-06-01".parse().unwrap(), &"b".parse().unwrap())
        );
        let own = upstream(&map(&[("anthropic-version", "2099-01-01")]), Dialect::ANTHROPIC, Operation::Message, None);
        assert_eq!(own["anthropic-version"], "2099-01-01");
    }

    #[test]
    fn compression_is_asked_for_only_where_nothing_is_read() {
        let client = map(&[("accept-encoding", "gzip, br")]);
        let sent = |dialect, operation| upstream(&client, dialect, operation, None)[ACCEPT_ENCODING].clone();
        assert_eq!(sent(Dialect::OPENAI, Operation::Chat), "identity");
        assert_eq!(sent(Dialect::ANTHROPIC, Operation::Message), "identity");
        assert_eq!(sent(Dialect::OPENAI, Operation::Stored), "identity");
        assert_eq!(sent(Dialect::OPENAI, Operation::Other), "gzip, br");
        assert_eq!(sent(Dialect::PLAIN, Operation::Chat), "gzip, br");
    }
}
