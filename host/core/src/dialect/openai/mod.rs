//! OpenAI's API and everything compatible with it.

mod chat;
mod choices;
mod errors;
mod responses;
mod resume_choices;
mod resume_responses;

pub(super) use errors::{own_type, translated};

use bytes::Bytes;
use serde_json::{Value, json};

use super::envelope::ErrorKind;
use super::format::{StreamFormat, WireFormat};
use super::resume::{append_to_prompt, with_assistant_message};
use super::translate::Conversation;
use crate::contract::Operation;
use crate::http::sse::Event;
use crate::outcome::Kind;

/// The dialect `openai`.
#[derive(Debug)]
pub(super) struct Openai;

impl WireFormat for Openai {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn operations(&self) -> &'static [(&'static str, Operation)] {
        &[
            ("/chat/completions", Operation::Chat),
            ("/completions", Operation::Completion),
            ("/responses", Operation::Response),
            ("/embeddings", Operation::Embedding),
        ]
    }

    fn own_header_prefix(&self) -> Option<&'static str> {
        Some("openai-")
    }

    fn has_usage_option(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Chat | Operation::Completion)
    }

    fn stream(&self, operation: Operation) -> &'static dyn StreamFormat {
        match operation {
            Operation::Response => &responses::Responses,
            Operation::Chat | Operation::Completion | Operation::Message | Operation::Embedding | Operation::Other => {
                &choices::Choices
            }
        }
    }

    fn prefill(&self, operation: Operation, body: &Bytes, text: &str, can: &dyn Fn(&str) -> bool) -> Option<Bytes> {
        match operation {
            Operation::Chat => with_assistant_message(body, text, can),
            Operation::Completion => append_to_prompt(body, text),
            Operation::Message | Operation::Response | Operation::Embedding | Operation::Other => None,
        }
    }

    fn conversation(&self) -> Option<&'static dyn Conversation> {
        Some(&chat::ChatCompletions)
    }

    fn error_in_event<'a>(&self, event: &Event<'a>) -> Option<&'a [u8]> {
        errors::in_event(event)
    }

    fn error_type(&self, kind: ErrorKind) -> &'static str {
        own_type(kind)
    }

    fn translated_error(&self, kind: Kind, status: u16) -> (&'static str, Option<&'static str>) {
        translated(kind, status)
    }

    fn error_body(&self, kind: &str, code: Option<&str>, message: &str, _request_id: &str) -> Value {
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
    }

    /// OpenAI's SDKs raise on an `error` member in `data`; the Responses API names the event `error` and repeats the
    /// fields at the top.
    fn error_event(&self, operation: Operation, mut body: Value) -> Bytes {
        if operation != Operation::Response {
            return format!("data: {body}\n\n").into();
        }
        for member in ["message", "code", "param"] {
            body[member] = body["error"][member].clone();
        }
        body["type"] = json!("error");
        format!("event: error\ndata: {body}\n\n").into()
    }
}
