//! The event that ends a stream with an error.

use bytes::Bytes;
use pointsman_core::dialect::Dialect;
use pointsman_core::dialect::envelope::{Envelope, ErrorKind};

use super::request::ProxyRequest;

/// The event that a client's SDK takes for an error, for one that has its head already.
pub(super) fn in_band(request: &ProxyRequest, kind: ErrorKind, kind_override: Option<&str>, message: &str) -> Bytes {
    let error = Envelope { kind, kind_override, message, request_id: &request.id };
    error.stream_event(Dialect::of_operation(request.operation), request.operation)
}
