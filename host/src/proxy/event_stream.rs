//! Event streams: how they are recognised, and the event that ends one with an error.

use bytes::Bytes;
use pointsman_core::dialect::Dialect;
use pointsman_core::dialect::envelope::{Envelope, ErrorKind};

use super::request::ProxyRequest;

/// Returns true if this content type is that of server-sent events, in any letter case (RFC 9110, section 8.3.1).
pub(super) fn is_event_stream(content_type: &http::HeaderValue) -> bool {
    let name = b"text/event-stream";
    content_type.as_bytes().trim_ascii_start().get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

/// The event that a client's SDK takes for an error, for one that has its head already.
pub(super) fn in_band(request: &ProxyRequest, kind: ErrorKind, kind_override: Option<&str>, message: &str) -> Bytes {
    let error = Envelope { kind, kind_override, message, request_id: &request.id };
    error.stream_event(Dialect::of_operation(request.operation), request.operation)
}
