//! Responses: an upstream's with our headers on it, and errors of our own in the client's dialect.

use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use pointsman_core::dialect::Dialect;
use pointsman_core::dialect::envelope::{self, Envelope, ErrorKind};
use pointsman_core::exchange::Refusal;
use pointsman_core::http::headers;

use super::in_flight::InFlight;
use super::refusal::words_of;
use super::relay::ProxyBody;
use super::request::ProxyRequest;
use super::served_by::ServedBy;
use super::snapshot::Snapshot;

/// A response to a client.
pub type Reply = Response<ProxyBody>;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The id that the provider gave the request.
const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-pointsman-upstream-request-id");
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const LANE: HeaderName = HeaderName::from_static("x-pointsman-lane");
const BACKEND: HeaderName = HeaderName::from_static("x-pointsman-backend");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-pointsman-attempts");
const WAITED_MS: HeaderName = HeaderName::from_static("x-pointsman-waited-ms");
const MODEL: HeaderName = HeaderName::from_static("x-pointsman-model");
const LEFT_OUT: HeaderName = HeaderName::from_static("x-pointsman-left-out");
const POLICY: HeaderName = HeaderName::from_static("x-pointsman-policy");

/// An upstream's response on its way to the client. `attempts` counts the one that answered.
pub(super) fn of_upstream(
    in_flight: &InFlight,
    mut head: Parts,
    served_by: &ServedBy,
    attempts: u64,
    body: ProxyBody,
) -> Reply {
    let upstream_id = headers::request_id(&head.headers).and_then(|id| HeaderValue::from_str(id).ok());
    headers::downstream(&mut head.headers);
    if let Some(id) = upstream_id {
        head.headers.insert(UPSTREAM_REQUEST_ID, id);
    }
    if matches!(&body, ProxyBody::Whole(Some(bytes)) if !bytes.is_empty()) {
        // Framed anew by its own length.
        head.headers.remove(CONTENT_LENGTH);
    }
    head.extensions.clear();
    head.version = http::Version::default();
    own_headers(in_flight, &mut head.headers, attempts);
    head.headers.insert(LANE, HeaderValue::from_static(served_by.lane.as_str()));
    insert(&mut head.headers, BACKEND, &served_by.backend);
    if let Some(left_out) = &served_by.left_out {
        head.headers.insert(LEFT_OUT, left_out.clone());
    }
    if *in_flight.exchange().model() != in_flight.request().model {
        insert(&mut head.headers, MODEL, in_flight.exchange().model());
    }
    Response::from_parts(head, body)
}

/// The head that goes out before there is an answer, to a client that waits for a stream: without backend and attempts,
/// which are not known yet.
pub(super) fn early(snapshot: &Snapshot, request: &ProxyRequest, body: ProxyBody) -> Reply {
    let mut reply = Response::new(body);
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    insert_request_id(headers, request.client_dialect(), &request.id);
    headers.insert(POLICY, snapshot.policy_header.clone());
    reply
}

/// An error of the exchange, in the client's dialect, with its attempts and waits in headers.
pub(super) fn of_refusal(in_flight: &InFlight, refusal: &Refusal) -> Reply {
    let (kind, status, own_kind) = words_of(&refusal.reason);
    let request = in_flight.request();
    let error = OwnError {
        kind,
        status: StatusCode::from_u16(status).ok(),
        own_kind,
        message: &refusal.message,
        retry_after: refusal.retry_after,
    };
    let mut reply = error.reply(request.client_dialect(), &request.id);
    own_headers(in_flight, reply.headers_mut(), in_flight.exchange().attempts().len() as u64);
    reply
}

/// An answer of our own to this exchange.
pub(super) fn own_json(in_flight: &InFlight, body: &serde_json::Value) -> Reply {
    let mut reply = Response::new(ProxyBody::whole(body.to_string()));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    own_headers(in_flight, headers, in_flight.exchange().attempts().len() as u64);
    reply
}

/// An error of our own.
pub struct OwnError<'a> {
    /// Kind of the error, which its status follows from.
    pub kind: ErrorKind,
    /// Another status than the kind's.
    pub status: Option<StatusCode>,
    /// Another `type` than the kind's.
    pub own_kind: Option<&'a str>,
    /// Message to the client, which says what to do.
    pub message: &'a str,
    /// Time after which the client may retry.
    pub retry_after: Option<Duration>,
}

impl<'a> OwnError<'a> {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: &'a str) -> Self {
        Self { kind, status: None, own_kind: None, message, retry_after: None }
    }

    /// Returns the response in this dialect.
    pub fn reply(&self, dialect: Dialect, request_id: &str) -> Reply {
        let envelope = Envelope { kind: self.kind, kind_override: self.own_kind, message: self.message, request_id };
        let mut reply = Response::new(ProxyBody::whole(envelope.body(dialect)));
        let own_status = StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *reply.status_mut() = self.status.unwrap_or(own_status);
        let headers = reply.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(envelope::CONTENT_TYPE));
        match (self.kind.should_retry(), self.retry_after) {
            (true, _) => headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("true")),
            // Not beside a Retry-After: a client cannot be told to come again then, and not to come again.
            (false, Some(_)) => None,
            (false, None) => headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false")),
        };
        if let Some(retry_after) = self.retry_after {
            // RFC 9110 section 10.2.3: whole seconds; rounded up, so that nobody comes too early.
            headers.insert(RETRY_AFTER, HeaderValue::from(retry_after.as_millis().div_ceil(1_000) as u64));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(retry_after.as_millis() as u64));
        }
        insert_request_id(headers, dialect, request_id);
        reply
    }
}

fn own_headers(in_flight: &InFlight, headers: &mut HeaderMap, attempts: u64) {
    let (_, waited) = in_flight.exchange().waits();
    insert_request_id(headers, in_flight.request().client_dialect(), &in_flight.request().id);
    headers.insert(ATTEMPTS, number(attempts));
    headers.insert(WAITED_MS, number(waited.as_millis() as u64));
    headers.insert(POLICY, in_flight.snapshot().policy_header.clone());
}

/// Our id of a request, as every client finds it and as those of this dialect look for it.
pub fn insert_request_id(headers: &mut HeaderMap, dialect: Dialect, id: &str) {
    let Ok(id) = HeaderValue::from_str(id) else { return };
    if let Some(name) = dialect.format().request_id_header() {
        headers.insert(name, id.clone());
    }
    headers.insert(X_REQUEST_ID, id);
}

/// A number as a header; 0 and 1, the most common, need no allocation.
fn number(n: u64) -> HeaderValue {
    match n {
        0 => HeaderValue::from_static("0"),
        1 => HeaderValue::from_static("1"),
        _ => HeaderValue::from(n),
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
