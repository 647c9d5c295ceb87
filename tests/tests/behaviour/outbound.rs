//! The way to a provider: forward proxies, private authorities, client certificates. No key is shown to a proxy.

use pointsman_tests::{
    Backend, backend, bytes, chat, forward_proxy, json, proxy, tls_upstream, tls_upstream_for, upstream,
};
use serde_json::json as value;

const KEY: &str = "sk-never-in-the-clear-1";

fn at(id: &str, url: &str) -> Backend {
    backend(id).set("base_url", url).set("api_key", KEY)
}

#[tokio::test]
async fn an_https_provider_is_reached_through_a_tunnel_in_which_no_key_is_seen() {
    let up = tls_upstream(&["h2", "http/1.1"]).await;
    let gate = forward_proxy(200).await;
    let one = at("p1", &up.url()).set("ca_file", up.certificate().display().to_string());
    let proxy = proxy!().backend(one).env("HTTPS_PROXY", &gate.url_with_login("user:pass%21")).start().await;
    assert_eq!(proxy.chat().send().await.says(), "over TLS");
    let head = &gate.heads()[0];
    assert!(head.starts_with("CONNECT localhost:"), "{head}");
    assert!(head.contains("\r\nproxy-authorization: Basic dXNlcjpwYXNzIQ==\r\n"), "{head}");
    assert_eq!(gate.heads().len(), 1);
    assert!(!gate.has_seen(KEY) && !gate.has_seen("/v1/chat/completions"));
    assert_eq!(up.versions(), [http::Version::HTTP_2], "what was agreed inside the tunnel");
    assert_eq!(proxy.told(KEY) + proxy.told("pass!"), 0);
}

#[tokio::test]
async fn exceptions_and_none_lead_past_the_proxy() {
    let up = tls_upstream(&["http/1.1"]).await;
    let gate = forward_proxy(200).await;
    let ca = up.certificate().display().to_string();
    let excepted = proxy!().backend(at("p1", &up.url()).set("ca_file", ca.as_str()));
    let excepted = excepted.env("HTTPS_PROXY", &gate.url()).env("NO_PROXY", "example.com,localhost").start().await;
    assert_eq!(excepted.chat().send().await.says(), "over TLS");
    let none = at("p1", &up.url()).set("ca_file", ca.as_str()).set("proxy", "none");
    let none = proxy!().backend(none).env("HTTPS_PROXY", &gate.url()).start().await;
    assert_eq!(none.chat().send().await.says(), "over TLS");
    assert!(gate.heads().is_empty(), "{:?}", gate.heads());
}

#[tokio::test]
async fn a_backends_own_proxy_goes_before_the_environments() {
    let up = tls_upstream(&["http/1.1"]).await;
    let (own, common) = (forward_proxy(200).await, forward_proxy(200).await);
    let one = at("p1", &up.url()).set("ca_file", up.certificate().display().to_string()).set("proxy", own.url());
    let proxy = proxy!().backend(one).env("HTTPS_PROXY", &common.url()).start().await;
    assert_eq!(proxy.chat().send().await.says(), "over TLS");
    assert_eq!((own.heads().len(), common.heads().len()), (1, 0));
}

#[tokio::test]
async fn a_key_over_plain_http_goes_to_a_proxy_only_where_the_backend_says_so() {
    let up = upstream().reply(chat("directly")).start().await;
    let gate = forward_proxy(200).await;
    let url = up.url();
    let plain = proxy!().backend(at("p1", &url)).env("HTTP_PROXY", &gate.url()).env("http_proxy", &gate.url());
    let plain = plain.start().await;
    assert_eq!(plain.chat().send().await.says(), "directly");
    assert!(gate.heads().is_empty(), "{:?}", gate.heads());
    let said = proxy!().backend(at("p1", "http://model.example/v1").set("proxy", gate.url())).start().await;
    assert_eq!(said.chat().send().await.says(), "by way of the proxy");
    let head = &gate.heads()[0];
    assert!(head.starts_with("POST http://model.example/v1/chat/completions HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: model.example\r\n"), "{head}");
}

#[tokio::test]
async fn a_refused_tunnel_is_a_failed_connection_that_says_why() {
    let gate = forward_proxy(407).await;
    let fallback = upstream().reply(chat("from elsewhere")).start().await;
    let proxy = proxy!()
        .backend(at("p1", "https://model.example/v1").set("proxy", gate.url()))
        .backend(backend("f1").fallback(&fallback))
        .setting("primary_wait_ms", 0)
        .start()
        .await;
    assert_eq!(proxy.chat().send().await.says(), "from elsewhere");
    let rows = proxy.wait_rows(1, "SELECT outcome, message FROM attempts WHERE backend = 'p1'").await;
    assert_eq!(rows[0]["outcome"], "connect_failed");
    assert!(rows[0]["message"].as_str().unwrap().contains("asks for a user and password (407)"), "{rows:?}");
}

#[tokio::test]
async fn a_socks_proxy_opens_tunnels_and_sees_no_key() {
    let up = tls_upstream(&["http/1.1"]).await;
    let gate = forward_proxy(200).await;
    let one = || at("p1", &up.url()).set("ca_file", up.certificate().display().to_string());
    let proxy = proxy!().backend(one()).env("ALL_PROXY", &gate.socks_url("user:pass%21")).start().await;
    assert_eq!(proxy.chat().send().await.says(), "over TLS");
    let heads = gate.heads();
    assert!(heads.len() == 1 && heads[0].starts_with("SOCKS5 user:pass! localhost:"), "{heads:?}");
    assert!(!gate.has_seen(KEY));
    assert_eq!(proxy.told(KEY) + proxy.told("pass!"), 0);
    let own = one().set("proxy", gate.socks_url("").replace("socks5:", "socks5h:"));
    let own = proxy!().backend(own).start().await;
    assert_eq!(own.chat().send().await.says(), "over TLS");
    assert!(gate.heads()[1].starts_with("SOCKS5  localhost:"), "{:?}", gate.heads());
    let plain = upstream().reply(chat("in a tunnel")).start().await;
    let said = at("p1", &plain.url()).set("proxy", gate.socks_url(""));
    let said = proxy!().backend(said).start().await;
    assert_eq!(said.chat().send().await.says(), "in a tunnel");
    assert_eq!(gate.heads().len(), 3, "plain HTTP goes through it where the backend says so");
    let environments = proxy!().backend(at("p1", &plain.url())).env("ALL_PROXY", &gate.socks_url("")).start().await;
    assert_eq!(environments.chat().send().await.says(), "in a tunnel");
    assert_eq!(gate.heads().len(), 3, "and goes past the environment's, which would read its key");
}

#[tokio::test]
async fn a_socks_proxy_that_refuses_says_why() {
    let gate = forward_proxy(403).await;
    let one = at("p1", "https://model.example/v1").set("proxy", gate.socks_url(""));
    let proxy = proxy!().backend(one).setting("primary_wait_ms", 0).start().await;
    proxy.chat().send().await;
    let rows = proxy.wait_rows(1, "SELECT outcome, message FROM attempts WHERE backend = 'p1'").await;
    assert_eq!(rows[0]["outcome"], "connect_failed");
    let message = rows[0]["message"].as_str().unwrap();
    assert!(message.contains("refuses a tunnel to model.example:443 (not allowed by its rules)"), "{message}");
}

#[tokio::test]
async fn discovery_takes_the_same_way_as_traffic() {
    let up = tls_upstream(&["http/1.1"]).await;
    let gate = forward_proxy(200).await;
    let one = at("p1", &up.url()).set("ca_file", up.certificate().display().to_string()).set("proxy", gate.url());
    let proxy = proxy!().backend(one).start().await;
    assert_eq!(proxy.get("/v1/models").send().await.status, 200);
    assert_eq!((gate.heads().len(), up.versions().len()), (1, 1));
    assert_eq!(proxy.chat().send().await.says(), "over TLS");
    assert_eq!(gate.heads().len(), 1, "the tunnel that discovery made is used again");
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_its_backend_names_it_and_nowhere_else() {
    let up = tls_upstream(&["http/1.1"]).await;
    let trusting = at("p1", &up.url()).set("ca_file", up.certificate().display().to_string());
    let proxy = proxy!().backend(trusting).start().await;
    assert_eq!(proxy.chat().send().await.says(), "over TLS");
    let stranger = proxy!().backend(at("p1", &up.url())).set("limits.max_attempts", 1).start().await;
    assert_eq!(stranger.chat().send().await.status, 503);
    assert_eq!(up.versions().len(), 1);
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_the_backend_that_has_one() {
    let up = tls_upstream_for(&["http/1.1"]).await;
    let (certificate, key) = up.client_certificate();
    let plain = at("p1", &up.url()).set("ca_file", up.certificate().display().to_string());
    let showing = plain.clone().set("client_cert", certificate.display().to_string());
    let showing = showing.set("client_key", key.display().to_string());
    let proxy = proxy!().backend(showing).start().await;
    assert_eq!(proxy.chat().send().await.says(), "over TLS");
    let without = proxy!().backend(plain).set("limits.max_attempts", 1).start().await;
    assert_eq!(without.chat().send().await.status, 503);
    assert_eq!(up.versions().len(), 1);
}

#[tokio::test]
async fn a_list_of_models_without_an_end_is_left_and_the_others_are_told() {
    let page: ::bytes::Bytes = "{\"id\":\"x\"},".repeat(100_000).into();
    let endless = upstream().handler(move |_, _| {
        (0..64).fold(bytes("application/json", "{\"data\":["), |reply, _| reply.and_bytes(page.clone()))
    });
    let endless = endless.start().await;
    let good = upstream().reply(json(value!({"data": [{"id": "llama"}]}))).start().await;
    let proxy = proxy!().backend(backend("p1").primary(&endless)).backend(backend("p2").primary(&good)).start().await;
    let before = proxy.resident_kib();
    let listed = proxy.get("/v1/models").send().await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} KiB for a list of 80 MB");
}
