//! A made-up dialect, to prove that one is a folder and a line: `proxy-under-test` adds it when [`VARIABLE`] is set.
//!
//! It is as unlike the others as it can be: the model and the wish for a stream stand in the path (`/models/NAME:generate`,
//! `/models/NAME:generateStream`), the key in a header of its own, and errors are problems.

mod conversation;
mod stream;

use bytes::Bytes;
use http::HeaderName;
use pointsman_core::contract::Operation;
use pointsman_core::dialect::envelope::{ErrorKind, Told};
use pointsman_core::dialect::message::ErrorDetails;
use pointsman_core::dialect::translate::Conversation;
use pointsman_core::dialect::usage::Counts;
use pointsman_core::dialect::{StreamFormat, WireFormat, classify};
use pointsman_core::http::sse::Event;
use pointsman_core::outcome::Kind;
use serde_json::{Value, json};

/// The environment variable that adds the dialect.
pub const VARIABLE: &str = "TEST_MADE_UP_DIALECT";

/// The dialects to add.
pub static DIALECTS: &[&dyn WireFormat] = &[&MadeUp];

/// The dialect `made-up`.
#[derive(Debug)]
struct MadeUp;

impl WireFormat for MadeUp {
    fn name(&self) -> &'static str {
        "made-up"
    }

    /// The contract has no word for its one operation, so its own clients ask for `other`.
    fn operations(&self) -> &'static [(&'static str, Operation)] {
        &[]
    }

    fn reads_usage(&self, _operation: Operation) -> bool {
        true
    }

    fn key_header(&self) -> HeaderName {
        HeaderName::from_static("x-made-up-key")
    }

    fn key_prefix(&self) -> &'static str {
        "key="
    }

    fn usage_member(&self) -> &'static [u8] {
        b"tokens"
    }

    fn read_usage(&self, usage: &[u8], counts: &mut Counts) {
        let tokens: Value = serde_json::from_slice(usage).unwrap_or_default();
        counts.input = tokens["heard"].as_u64().unwrap_or(0);
        counts.output = tokens["said"].as_u64().unwrap_or(0);
    }

    fn stream(&self, _operation: Operation) -> &'static dyn StreamFormat {
        &stream::Utterances
    }

    fn conversation(&self) -> Option<&'static dyn Conversation> {
        Some(&conversation::Talk)
    }

    fn error_mark(&self) -> &'static [u8] {
        b"\"problem\""
    }

    fn is_error(&self, body: &[u8]) -> bool {
        serde_json::from_slice::<Value>(body).is_ok_and(|body| body["problem"].is_object())
    }

    fn error_details<'a>(&self, body: &'a [u8]) -> ErrorDetails<'a> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let word = |member: &str| body["problem"][member].as_str().unwrap_or_default().to_owned().into();
        ErrorDetails { message: word("why"), kind: word("what"), code: word("what") }
    }

    fn error_kind(&self, status: u16, details: &ErrorDetails<'_>, _is_dated: bool) -> Kind {
        if details.kind == "hoarse" { Kind::Overloaded } else { classify::by_status(status) }
    }

    fn error_in_event<'a>(&self, event: &Event<'a>) -> Option<&'a [u8]> {
        event.data.filter(|_| event.name == Some(b"problem"))
    }

    fn error_type(&self, kind: ErrorKind) -> &'static str {
        kind.as_str()
    }

    fn translated_error(&self, kind: Kind, _status: u16) -> (&'static str, Option<&'static str>) {
        (kind.as_str(), None)
    }

    fn error_body(&self, kind: &str, _code: Option<&str>, message: &str, _request_id: &str) -> Value {
        json!({"problem": {"what": kind, "why": message}})
    }

    fn error_event(&self, _operation: Operation, body: Value, _told: &Told<'_>) -> Bytes {
        format!("event: problem\ndata: {body}\n\n").into()
    }
}
