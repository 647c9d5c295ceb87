//! Access control of the admin listener.
//!
//! - With a token: whoever presents it. Without: loopback peers, and only under a name that no DNS answer can point here
//!   (a web page may otherwise rebind its own name to 127.0.0.1 and read everything).
//! - A browser's request must come from our own console; a page of another site may only lead there, by a link.
//! - `/healthz` and `/readyz` say nothing worth hiding and are asked by probes that carry no token; the console's page
//!   is the same for everyone and asks for the token itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use pointsman_core::http::site;
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
    let (headers, path) = (request.headers(), request.uri().path());
    let authority = site::asked_authority(request.uri(), headers);
    let opens_console = path == "/" && *request.method() == Method::GET && site::is_navigation(headers);
    if !opens_console && site::is_cross_site(headers, authority.as_ref()) {
        return Some(failure(StatusCode::FORBIDDEN, "a page of another site may not ask this listener anything"));
    }
    match (state.token)() {
        Some(token) => {
            let open = matches!(path, "/" | "/healthz" | "/readyz");
            let known = open || bearer(headers).is_some_and(|presented| token.matches(presented));
            (!known).then(unauthorised)
        }
        None => without_token(peer, authority.as_ref(), path),
    }
}

fn without_token(peer: Option<IpAddr>, authority: Option<&Authority>, path: &str) -> Option<Response> {
    if matches!(path, "/healthz" | "/readyz") {
        return None;
    }
    if !peer.is_some_and(|ip| ip.to_canonical().is_loopback()) {
        let message = "without [admin] token only this machine is answered; set a token to be reached from elsewhere";
        return Some(failure(StatusCode::FORBIDDEN, message));
    }
    if !authority.is_some_and(site::names_this_machine) {
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
