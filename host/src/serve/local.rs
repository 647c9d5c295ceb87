//! Requests that are answered here and reach no provider: OPTIONS, protocol upgrades, signs of life, paths of no API.
//!
//! A path belongs to a provider if it is an operation of a dialect, or stands under a version (`/v1/something-new`) and is none
//! that scanners and load balancers ask for everywhere (`/v1/health`, `/v1/wp-login.php`). What is neither may only be meant for a backend of the dialect `plain`: where one is configured every such path is forwarded to
//! it, `/` and `/health` included; else it is answered here.

use http::header::{CONTENT_TYPE, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use pointsman_core::contract::Operation;
use pointsman_core::denial::Denial;
use pointsman_core::dialect::ApiPath;
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::text::beginning;

use super::door::Door;
use crate::proxy::{OwnError, ProxyBody, Reply, Snapshot};

/// Bytes of a path that are shown.
const SHOWN_BYTES: usize = 80;

/// Protocols that a client may offer to upgrade to and that are never taken up; a server may ignore them (RFC 9110 section 7.8).
/// Java's HTTP client offers the first with every request.
const IGNORED_UPGRADES: [&str; 3] = ["h2c", "h2", "tls"];

/// The answer to an OPTIONS request; which paths and methods a provider has is its own affair, and it is not asked.
pub(super) fn options(head: &Parts, snapshot: &Snapshot) -> Option<Reply> {
    if head.method != Method::OPTIONS {
        return None;
    }
    let mut reply = Response::new(ProxyBody::Whole(None));
    *reply.status_mut() = StatusCode::NO_CONTENT;
    *reply.headers_mut() = snapshot.config.server.allowed_origins.answer_options(&head.headers);
    Some(reply)
}

/// The answer to a path of no API that nobody could be asked for: to a sign of life, which needs no key.
pub(super) fn sign_of_life(head: &Parts, operation: Operation, snapshot: &Snapshot) -> Option<Reply> {
    let is_asked = head.method == Method::GET || head.method == Method::HEAD;
    if operation != Operation::Plain || !is_asked || has_plain_backend(snapshot) {
        return None;
    }
    ApiPath::is_sign_of_life(head.uri.path()).then(|| {
        let mut reply = Response::new(ProxyBody::whole("Pointsman is running\n"));
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        reply
    })
}

/// Refuses what no provider could be asked for: a protocol upgrade, or a path of no API.
pub(super) fn refused(head: &Parts, operation: Operation, snapshot: &Snapshot, door: &Door<'_>) -> Option<Reply> {
    if let Some(protocol) = upgrade(head) {
        let message = format!(
            "Pointsman does not forward the upgrade to {protocol:?}, only HTTP requests; let the client use HTTP and event streams"
        );
        // By this status Codex goes on over HTTP, and does not try again.
        let status = Some(StatusCode::UPGRADE_REQUIRED);
        let error = OwnError { status, ..OwnError::new(ErrorKind::InvalidRequest, &message) };
        let mut reply = door.deny_with(Denial::BadRequest, &error);
        reply.headers_mut().insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
        return Some(reply);
    }
    if operation != Operation::Plain || has_plain_backend(snapshot) {
        return None;
    }
    let message = format!(
        "{:?} is no path of an API that is served here; clients' base URL is this address with /v1 behind it",
        beginning(head.uri.path(), SHOWN_BYTES)
    );
    Some(door.deny(Denial::NoSuchPath, ErrorKind::NotFound, &message))
}

fn has_plain_backend(snapshot: &Snapshot) -> bool {
    snapshot.config.backends.iter().any(|backend| backend.backend.dialect.is_opaque())
}

/// The protocol that the client insists on.
fn upgrade(head: &Parts) -> Option<&str> {
    let offered = head.headers.get(UPGRADE)?.to_str().unwrap_or("?");
    let is_ignored = |protocol: &str| {
        let name = protocol.split('/').next().unwrap_or_default();
        IGNORED_UPGRADES.iter().any(|ignored| name.eq_ignore_ascii_case(ignored)) || name.eq_ignore_ascii_case("http")
    };
    offered.split(',').map(str::trim).find(|protocol| !protocol.is_empty() && !is_ignored(protocol))
}
