//! Any HTTP API: no models, no usage, statuses only. Requests and answers pass unread.

use bytes::Bytes;
use serde_json::{Value, json};

use super::format::{ErrorDetails, Sight, StreamFormat, Tally, Told, WireFormat, by_status};
use crate::contract::Operation;
use crate::http::sse::Event;
use crate::outcome::{Kind, Scope};

/// Any HTTP API, of whose bodies nothing is known.
#[derive(Debug)]
pub(super) struct Plain;

/// Streams of events whose data is not read.
#[derive(Debug)]
struct AnyEvents;

impl WireFormat for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn operations(&self) -> &'static [(&'static str, Operation)] {
        &[]
    }

    fn is_opaque(&self) -> bool {
        true
    }

    fn takes(&self, _operation: Operation) -> bool {
        true
    }

    fn stream(&self, _operation: Operation) -> &'static dyn StreamFormat {
        &AnyEvents
    }

    fn error_kind(&self, status: u16, _details: &ErrorDetails<'_>, _is_dated: bool) -> Kind {
        by_status(status)
    }

    fn error_scope(&self, kind: Kind, _status: u16, _details: &ErrorDetails<'_>) -> Scope {
        kind.usual_scope()
    }

    fn error_in_event<'a>(&self, event: &Event<'a>) -> Option<&'a [u8]> {
        event.data.filter(|_| event.name == Some(b"error"))
    }

    fn error_body(&self, kind: &str, _code: Option<&str>, message: &str, request_id: &str) -> Value {
        json!({"error": {"message": message, "type": kind, "request_id": request_id}})
    }

    fn error_event(&self, _operation: Operation, body: Value, _told: &Told<'_>) -> Bytes {
        format!("event: error\ndata: {body}\n\n").into()
    }
}

impl StreamFormat for AnyEvents {
    fn see(&self, tally: &mut Tally, name: Option<&[u8]>, data: &[u8]) -> Sight {
        match name {
            Some(b"error") => Sight::Error,
            Some(_) | None if data.is_empty() => Sight::Other,
            Some(_) | None => tally.content(data.len()),
        }
    }

    fn is_opaque(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_taken_and_nothing_is_read() {
        assert!(Operation::ALL.into_iter().all(|o| Plain.takes(o) && !Plain.reads_usage(o)));
        assert!(Plain.is_opaque() && Plain.stream(Operation::Chat).is_opaque() && Plain.conversation().is_none());
    }

    #[test]
    fn the_status_is_all_that_is_known_of_an_error() {
        let details = Plain.error_details(br#"{"error":{"code":"insufficient_quota"}}"#);
        assert_eq!(Plain.error_kind(429, &details, false), Kind::RateLimited);
    }
}
