//! Anthropic's API.

mod errors;
mod join;
mod messages;
mod resume;
mod shape;
mod stream;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::format::{
    Conversation, ErrorKind, ListedModel, Shown, StreamFormat, Told, WireFormat, with_assistant_message,
};
use crate::contract::Operation;
use crate::http::sse::Event;
use crate::outcome::Kind;
use crate::rfc3339::Rfc3339;
use crate::time::Timestamp;

const VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// Anthropic refuses requests without a version; this one is used when the client names none.
const DEFAULT_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// Format of Anthropic's API.
#[derive(Debug)]
pub(super) struct Anthropic;

impl WireFormat for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn operations(&self) -> &'static [(&'static str, Operation)] {
        &[("/messages", Operation::Message), ("/messages/count_tokens", Operation::CountTokens)]
    }

    /// First segments of Anthropic's API reference.
    fn collections(&self) -> Option<(Operation, &'static [&'static str])> {
        Some((
            Operation::AnthropicOther,
            &[
                "messages",
                "complete",
                "files",
                "models",
                "organizations",
                "skills",
                "agents",
                "environments",
                "sessions",
            ],
        ))
    }

    /// Returns true for its own operations only: an operation that no dialect knows may be an addition of an imitator of OpenAI.
    fn takes(&self, operation: Operation) -> bool {
        self.owns(operation)
    }

    fn key_header(&self) -> HeaderName {
        HeaderName::from_static("x-api-key")
    }

    fn key_prefix(&self) -> &'static str {
        ""
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        headers.entry(VERSION).or_insert(DEFAULT_VERSION);
    }

    fn own_header_prefix(&self) -> Option<&'static str> {
        Some("anthropic-")
    }

    fn is_spoken_by(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(VERSION)
    }

    /// Anthropic's SDKs show it as `_request_id`.
    fn request_id_header(&self) -> Option<HeaderName> {
        Some(HeaderName::from_static("request-id"))
    }

    fn stream(&self, _operation: Operation) -> &'static dyn StreamFormat {
        &stream::MessageEvents
    }

    fn prefill(&self, operation: Operation, body: &Bytes, text: &str, can: &dyn Fn(&str) -> bool) -> Option<Bytes> {
        if operation == Operation::Message { with_assistant_message(body, text, can) } else { None }
    }

    fn conversation(&self) -> Option<&'static dyn Conversation> {
        Some(&messages::Messages)
    }

    fn is_shaped(&self, path: &str) -> bool {
        path.trim_end_matches('/').ends_with(shape::COUNT_TOKENS)
    }

    fn shows<'a>(&self, operation: Operation, path: &str, body: &'a [u8]) -> Shown<'a> {
        shape::shown(operation, path, body)
    }

    fn error_in_event<'a>(&self, event: &Event<'a>) -> Option<&'a [u8]> {
        errors::in_event(event)
    }

    fn error_type(&self, kind: ErrorKind) -> &'static str {
        errors::own_type(kind)
    }

    fn translated_error(&self, kind: Kind, status: u16) -> (&'static str, Option<&'static str>) {
        (errors::translated(kind, status), None)
    }

    fn overloaded_status(&self) -> u16 {
        529
    }

    fn error_body(&self, kind: &str, _code: Option<&str>, message: &str, request_id: &str) -> Value {
        json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})
    }

    /// Anthropic's SDKs raise on `event: error`.
    fn error_event(&self, _operation: Operation, body: Value, _told: &Told<'_>) -> Bytes {
        format!("event: error\ndata: {body}\n\n").into()
    }

    fn token_count(&self, operation: Operation, tokens: u32) -> Option<Value> {
        (operation == Operation::CountTokens).then(|| json!({"input_tokens": tokens}))
    }

    fn model_entry(&self, model: &ListedModel) -> Value {
        let ListedModel { id, created, owner: _, display_name } = model;
        let created = Rfc3339(Timestamp::from_millis(created.unwrap_or(0).saturating_mul(1_000))).to_string();
        let created = created.replace(".000Z", "Z");
        json!({"type": "model", "id": id, "display_name": display_name.as_ref().unwrap_or(id), "created_at": created})
    }

    fn model_list(&self, models: &[ListedModel], entries: Vec<Value>) -> Value {
        let id = |model: Option<&ListedModel>| model.map(|model| model.id.clone());
        json!({"data": entries, "has_more": false, "first_id": id(models.first()), "last_id": id(models.last())})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::format::Opened;

    #[test]
    fn the_version_is_the_clients_or_ours() {
        let mut headers = HeaderMap::new();
        assert!(!Anthropic.is_spoken_by(&headers));
        Anthropic.add_headers(&mut headers);
        assert!(Anthropic.is_spoken_by(&headers) && headers[VERSION] == DEFAULT_VERSION);
        headers.insert(VERSION, HeaderValue::from_static("2099-01-01"));
        Anthropic.add_headers(&mut headers);
        assert_eq!(headers[VERSION], "2099-01-01");
    }

    #[test]
    fn only_messages_are_taken_as_they_are() {
        let taken: Vec<Operation> =
            Operation::ALL.into_iter().filter(|operation| Anthropic.takes(*operation)).collect();
        assert_eq!(taken, [Operation::Message, Operation::CountTokens, Operation::AnthropicOther]);
        assert_eq!((Anthropic.key_header().as_str(), Anthropic.key_prefix()), ("x-api-key", ""));
    }

    #[test]
    fn an_error_is_found_by_its_name_or_its_shape() {
        let found = |name: Option<&'static str>, data: &'static str| {
            let event = Event { raw: b"", name: name.map(str::as_bytes), data: Some(data.as_bytes()) };
            Anthropic.error_in_event(&event).is_some()
        };
        assert!(found(Some("error"), "{}") && found(None, r#"{"type":"error","error":{"type":"overloaded_error"}}"#));
        assert!(!found(Some("content_block_delta"), r#"{"delta":{"text":"\"error\""}}"#));
    }

    #[test]
    fn an_error_has_a_name_and_no_code() {
        let body = Anthropic.error_body("t", Some("c"), "m", "id");
        assert_eq!(body, json!({"type": "error", "error": {"type": "t", "message": "m"}, "request_id": "id"}));
        let told = Told { request_id: "id", model: "m", now_s: 1, opened: &Opened::default() };
        assert!(Anthropic.error_event(Operation::Message, body, &told).starts_with(b"event: error\ndata: "));
        assert_eq!(Anthropic.translated_error(Kind::Overloaded, 529), ("overloaded_error", None));
    }
}
