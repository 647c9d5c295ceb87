//! The event that ends a stream with an error.

use bytes::Bytes;
use pointsman_core::dialect::Dialect;
use pointsman_core::dialect::envelope::{Envelope, ErrorKind, Opened, Told};
use pointsman_core::time::Timestamp;

use super::request::ProxyRequest;

/// The error that ends a stream.
pub(super) struct StreamError<'a> {
    /// Its kind.
    pub(super) kind: ErrorKind,
    /// In place of the kind's own words.
    pub(super) kind_override: Option<&'a str>,
    /// The message.
    pub(super) message: &'a str,
}

/// The event that a client's SDK takes for an error, for one that has the head, and maybe the beginning, of its stream.
pub(super) fn in_band(request: &ProxyRequest, error: &StreamError<'_>, opened: &Opened, now: Timestamp) -> Bytes {
    let StreamError { kind, kind_override, message } = *error;
    let envelope = Envelope { kind, kind_override, message, request_id: &request.id };
    let told = Told { request_id: &request.id, model: &request.model, now_s: now.as_millis() / 1_000, opened };
    envelope.stream_event(Dialect::of_operation(request.operation), request.operation, &told)
}
