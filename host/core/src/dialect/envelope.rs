//! The errors we ourselves tell a client, in the words its SDK understands.

use bytes::Bytes;
use serde_json::Value;

pub use super::format::{ErrorKind, Opened, Told};
use super::registry::Dialect;
use crate::contract::Operation;

/// The content type of every error body.
pub const CONTENT_TYPE: &str = "application/json";

/// An error of ours, written in a client's dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Kind of error.
    pub kind: ErrorKind,
    /// In place of the kind's own `type` and `code`: a policy's rejection has its own.
    pub kind_override: Option<&'a str>,
    /// Message to the client: cause, event, advice.
    pub message: &'a str,
    /// The request's id, as in `x-request-id`.
    pub request_id: &'a str,
}

impl Envelope<'_> {
    /// Returns the body in this dialect.
    pub fn body(&self, dialect: Dialect) -> Bytes {
        self.value(dialect).to_string().into()
    }

    /// The event that ends a broken stream, so that no client takes it for a whole answer.
    pub fn stream_event(&self, dialect: Dialect, operation: Operation, told: &Told<'_>) -> Bytes {
        dialect.format().error_event(operation, self.value(dialect), told)
    }

    fn value(&self, dialect: Dialect) -> Value {
        let format = dialect.format();
        let kind = self.kind_override.unwrap_or_else(|| format.error_type(self.kind));
        let code = self.kind_override.unwrap_or(self.kind.as_str());
        format.error_body(kind, Some(code), self.message, self.request_id)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::classify::classify_event;
    use crate::http::sse::Reader;

    const EXHAUSTED: Envelope<'static> = Envelope {
        kind: ErrorKind::AllPoolsExhausted,
        kind_override: None,
        message: "no \"backend\"\nis left",
        request_id: "req-1",
    };

    fn parsed(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn each_dialect_has_its_own_body() {
        assert_eq!(
            parsed(&EXHAUSTED.body(Dialect::OPENAI)),
            json!({"error": {"message": "no \"backend\"\nis left", "type": "AllPoolsExhausted", "param": null, "code": "all_pools_exhausted"}})
        );
        assert_eq!(
            parsed(&EXHAUSTED.body(Dialect::ANTHROPIC)),
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "no \"backend\"\nis left"}, "request_id": "req-1"})
        );
        assert_eq!(parsed(&EXHAUSTED.body(Dialect::PLAIN))["error"]["request_id"], "req-1");
    }

    #[test]
    fn a_policys_own_type_takes_the_place_of_ours() {
        let rejection = Envelope { kind_override: Some("no_service_at_night"), ..EXHAUSTED };
        let openai = parsed(&rejection.body(Dialect::OPENAI));
        assert_eq!(openai["error"]["type"], "no_service_at_night");
        assert_eq!(openai["error"]["code"], "no_service_at_night", "nothing was exhausted");
        assert_eq!(parsed(&rejection.body(Dialect::ANTHROPIC))["error"]["type"], "no_service_at_night");
    }

    #[test]
    fn the_stream_event_is_one_event_that_reads_as_an_error() {
        for (dialect, operation, name) in [
            (Dialect::OPENAI, Operation::Chat, None),
            (Dialect::OPENAI, Operation::Response, Some(&b"response.failed"[..])),
            (Dialect::ANTHROPIC, Operation::Message, Some(b"error")),
            (Dialect::PLAIN, Operation::Other, Some(b"error")),
        ] {
            let mut reader = Reader::default();
            let told = Told { request_id: "req-1", model: "m", now_s: 1, opened: &Opened::default() };
            reader.push(EXHAUSTED.stream_event(dialect, operation, &told));
            let event = reader.next_event().unwrap().unwrap();
            assert_eq!(event.name, name);
            let data = parsed(event.data.unwrap());
            assert!(data["error"].is_object() || data["response"]["error"].is_object());
            assert!(classify_event(dialect, &event).is_some());
            assert_eq!(reader.unfinished_bytes(), 0);
        }
    }

    #[test]
    fn statuses_are_those_of_the_interface() {
        let statuses = ErrorKind::ALL.map(ErrorKind::status);
        assert_eq!(statuses, [503, 400, 413, 431, 401, 403, 404, 404, 429, 429, 504, 502, 502, 503, 503, 500]);
    }
}
