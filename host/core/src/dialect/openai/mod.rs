//! OpenAI's API and everything compatible with it.

mod chat;
mod choices;
mod errors;
mod responses;
mod resume_choices;
mod resume_responses;

use bytes::Bytes;
use serde_json::{Value, json};

use super::format::{Conversation, StreamFormat, WireFormat, append_to_prompt, with_assistant_message};
use crate::contract::Operation;
use crate::http::sse::Event;

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

    /// `/rerank` is an addition of compatible servers.
    fn idempotent_paths(&self) -> &'static [&'static str] {
        &[
            "/audio/speech",
            "/audio/transcriptions",
            "/audio/translations",
            "/images/edits",
            "/images/generations",
            "/images/variations",
            "/moderations",
            "/rerank",
            "/responses/input_tokens",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;

    fn event(name: Option<&'static str>, data: &'static str) -> Event<'static> {
        Event { raw: b"", name: name.map(str::as_bytes), data: Some(data.as_bytes()) }
    }

    #[test]
    fn only_its_own_operations_are_taken_as_they_are() {
        let taken = Operation::ALL.map(|operation| Openai.takes(operation));
        assert_eq!(taken, [true, true, true, false, true, true]);
        assert!(Openai.has_usage_option(Operation::Chat) && !Openai.has_usage_option(Operation::Response));
    }

    #[test]
    fn an_error_is_found_wherever_a_stream_may_have_it() {
        for (event, error) in [
            (event(None, r#"{"error":{"code":1}}"#), Some(r#"{"error":{"code":1}}"#)),
            (event(Some("error"), "boom"), Some("boom")),
            (event(Some("response.failed"), r#"{"response":{"a":1}}"#), Some(r#"{"a":1}"#)),
            (event(None, r#"{"type":"response.failed","response":{"error":{}}}"#), Some(r#"{"error":{}}"#)),
            (event(None, r#"{"error":null,"choices":[{}]}"#), None),
            (event(None, "[DONE]"), None),
        ] {
            assert_eq!(Openai.error_in_event(&event), error.map(str::as_bytes), "{event:?}");
        }
    }

    #[test]
    fn the_responses_api_has_errors_of_its_own_shape() {
        let body = || Openai.error_body("t", Some("c"), "m", "id");
        assert_eq!(Openai.error_event(Operation::Chat, body()), format!("data: {}\n\n", body()));
        let event = Openai.error_event(Operation::Response, body());
        assert!(event.starts_with(b"event: error\ndata: ") && event.windows(14).any(|w| w == b"\"type\":\"error\""));
    }

    #[test]
    fn new_servers_of_openai_get_the_new_name_of_the_limit() {
        let conversation = Dialect::OPENAI.format().conversation().unwrap();
        let body = Bytes::from_static(br#"{"model":"a","max_tokens":5}"#);
        for (host, expected) in [
            ("api.openai.com", r#"{"model":"b","max_completion_tokens":5}"#),
            ("openai.com", r#"{"model":"b","max_completion_tokens":5}"#),
            ("notopenai.com", r#"{"model":"b","max_tokens":5}"#),
        ] {
            assert_eq!(conversation.adapt_request(&body, "b", host), expected, "{host}");
        }
    }
}
