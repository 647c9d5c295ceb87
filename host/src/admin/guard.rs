//! Access control of the admin listener.
//!
//! - With a token: whoever presents it. Without: loopback peers, and only under a name that no DNS answer can point here
//!   (a web page may otherwise rebind its own name to 127.0.0.1 and read everything).
//! - A browser's request that changes something must come from our own console (`Origin`).
//! - `/healthz` and `/readyz` say nothing worth hiding and are asked by probes that carry no token; the console's page
//!   is the same for everyone and asks for the token itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{AdminState, failure};

/// Token that operators present; only its digest is kept, and the comparison takes constant time.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// The token of this text.
    pub fn new(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    fn matches(&self, presented: &str) -> bool {
        self.0.ct_eq(&Self::new(presented).0).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Lets a request through or answers it.
pub(super) async fn check(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    match refusal(&state, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

pub(super) fn refusal(state: &AdminState, request: &Request) -> Option<Response> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let headers = request.headers();
    if !matches!(*request.method(), Method::GET | Method::HEAD) && comes_from_another_site(headers) {
        return Some(failure(StatusCode::FORBIDDEN, "a page of another site may not do this"));
    }
    match &state.token {
        Some(token) => {
            let open = matches!(request.uri().path(), "/" | "/healthz" | "/readyz");
            let known = open || bearer(headers).is_some_and(|presented| token.matches(presented));
            (!known).then(unauthorised)
        }
        None => without_token(peer, headers, request.uri().path()),
    }
}

fn without_token(peer: Option<IpAddr>, headers: &HeaderMap, path: &str) -> Option<Response> {
    if matches!(path, "/healthz" | "/readyz") {
        return None;
    }
    if !peer.is_some_and(|ip| ip.to_canonical().is_loopback()) {
        let message = "without [admin] token only this machine is answered; set a token to be reached from elsewhere";
        return Some(failure(StatusCode::FORBIDDEN, message));
    }
    if !names_this_machine(headers) {
        let message =
            "without [admin] token this listener answers to `localhost` or an IP address only, not to other names";
        return Some(failure(StatusCode::FORBIDDEN, message));
    }
    None
}

fn unauthorised() -> Response {
    let mut response =
        failure(StatusCode::UNAUTHORIZED, "send `Authorization: Bearer` with the configured [admin] token");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Exactly one `Host` that is `localhost` or an address.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Only browsers send `Origin`; ours is the `Host` the page was loaded from.
fn comes_from_another_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let Some(host) = headers.get(HOST) else {
        return true;
    };
    let ours = |scheme: &[u8]| origin.as_bytes().strip_prefix(scheme) == Some(host.as_bytes());
    !ours(b"http://") && !ours(b"https://")
}
