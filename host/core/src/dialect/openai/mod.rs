//! OpenAI's API and everything compatible with it.

mod chat;
mod choices;
mod errors;
mod join_choices;
mod media;
mod responses;
mod resume_choices;
mod resume_responses;
mod shape;

use bytes::Bytes;
use serde_json::{Value, json};

use super::format::{Conversation, Shown, StreamFormat, Told, WireFormat, append_to_prompt, with_assistant_message};
use crate::contract::Operation;
use crate::http::sse::Event;

/// First segments behind the version, of OpenAI's API reference.
const COLLECTIONS: &[&str] = &[
    "assistants",
    "audio",
    "batches",
    "chat",
    "chatkit",
    "completions",
    "containers",
    "conversations",
    "evals",
    "files",
    "fine-tunes",
    "fine_tuning",
    "graders",
    "images",
    "models",
    "organization",
    "projects",
    "realtime",
    "responses",
    "skills",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
];

/// Format of OpenAI's API and its imitators.
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
            ("/responses/input_tokens", Operation::InputTokens),
            ("/images/generations", Operation::Image),
            ("/images/edits", Operation::Image),
            ("/images/variations", Operation::Image),
            ("/audio/speech", Operation::Audio),
            ("/audio/transcriptions", Operation::Audio),
            ("/audio/translations", Operation::Audio),
            ("/moderations", Operation::Moderation),
            ("/rerank", Operation::Rerank),
            ("/score", Operation::Rerank),
        ]
    }

    fn collections(&self) -> Option<(Operation, &'static [&'static str])> {
        Some((Operation::Stored, COLLECTIONS))
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
            Operation::Audio | Operation::Image => &media::Media,
            _ => &choices::Choices,
        }
    }

    fn prefill(&self, operation: Operation, body: &Bytes, text: &str, can: &dyn Fn(&str) -> bool) -> Option<Bytes> {
        if operation == Operation::Chat {
            with_assistant_message(body, text, can)
        } else if operation == Operation::Completion {
            append_to_prompt(body, text)
        } else {
            None
        }
    }

    fn conversation(&self) -> Option<&'static dyn Conversation> {
        Some(&chat::ChatCompletions)
    }

    fn is_shaped(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        shape::SHAPED.iter().any(|end| path.ends_with(end))
    }

    fn shows<'a>(&self, operation: Operation, path: &str, body: &'a [u8]) -> Shown<'a> {
        shape::shown(operation, path, body)
    }

    fn error_in_event<'a>(&self, event: &Event<'a>) -> Option<&'a [u8]> {
        errors::in_event(event)
    }

    fn error_body(&self, kind: &str, code: Option<&str>, message: &str, _request_id: &str) -> Value {
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
    }

    fn token_count(&self, operation: Operation, tokens: u32) -> Option<Value> {
        let count = || json!({"object": "response.input_tokens", "input_tokens": tokens});
        (operation == Operation::InputTokens).then(count)
    }

    /// OpenAI's SDKs raise on an `error` member in `data`; a stream of the Responses API ends with `response.failed`, in
    /// which everything else is as it was told before.
    fn error_event(&self, operation: Operation, body: Value, told: &Told<'_>) -> Bytes {
        if operation != Operation::Response {
            return format!("data: {body}\n\n").into();
        }
        let event = json!({
            "type": "response.failed",
            "sequence_number": told.next_sequence(),
            "response": responses::failed(&body["error"], told),
        });
        format!("event: response.failed\ndata: {event}\n\n").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::dialect::format::Opened;

    fn event(name: Option<&'static str>, data: &'static str) -> Event<'static> {
        Event { raw: b"", name: name.map(str::as_bytes), data: Some(data.as_bytes()) }
    }

    #[test]
    fn only_its_own_operations_are_taken_as_they_are() {
        let not_taken: Vec<Operation> =
            Operation::ALL.into_iter().filter(|operation| !Openai.takes(*operation)).collect();
        let others = [Operation::Message, Operation::CountTokens, Operation::AnthropicOther, Operation::Plain];
        assert_eq!(not_taken, others);
        assert!(Openai.has_usage_option(Operation::Chat) && !Openai.has_usage_option(Operation::Response));
    }

    #[test]
    fn an_error_is_found_wherever_a_stream_may_have_it() {
        for (event, error) in [
            (event(None, r#"{"error":{"code":1}}"#), Some(r#"{"error":{"code":1}}"#)),
            (event(Some("error"), "boom"), Some("boom")),
            (event(Some("response.failed"), r#"{"response":{"a":1}}"#), Some(r#"{"a":1}"#)),
            (event(None, r#"{"type":"response.failed","response":{"error":{}}}"#), Some(r#"{"error":{}}"#)),
            (
                event(None, r#"{"error":{"code":1},"choices":[{"delta":{"content":"half"}}]}"#),
                Some(r#"{"error":{"code":1},"choices":[{"delta":{"content":"half"}}]}"#),
            ),
            (
                event(None, r#"{"choices":[{"delta":{},"finish_reason":"error"}]}"#),
                Some(r#"{"delta":{},"finish_reason":"error"}"#),
            ),
            (event(None, r#"{"choices":[{"error":{"code":1}}]}"#), Some(r#"{"error":{"code":1}}"#)),
            (event(None, r#"{"detail":"m"}"#), Some(r#"{"detail":"m"}"#)),
            (event(None, r#"{"code":7,"message":"m","data":null}"#), Some(r#"{"code":7,"message":"m","data":null}"#)),
            (
                event(None, r#"{"type":"response.completed","response":{"status":"failed"}}"#),
                Some(r#"{"status":"failed"}"#),
            ),
            (
                event(None, r#"{"type":"response.error","error":{"message":"m"}}"#),
                Some(r#"{"type":"response.error","error":{"message":"m"}}"#),
            ),
            (event(None, r#"{"error":null,"choices":[{}]}"#), None),
            (event(None, r#"{"type":"response.output_text.delta","delta":"an \"error\""}"#), None),
            (event(None, r#"{"type":"response.created","response":{"status":"in_progress","error":null}}"#), None),
            (event(None, "[DONE]"), None),
        ] {
            assert_eq!(Openai.error_in_event(&event), error.map(str::as_bytes), "{event:?}");
        }
    }

    #[test]
    fn a_response_fails_in_the_names_that_were_told() {
        let body = || Openai.error_body("t", Some("c"), "m", "id");
        let none = Opened::default();
        let told = |opened| Told { request_id: "r-1", model: "asked", now_s: 7, opened };
        assert_eq!(Openai.error_event(Operation::Chat, body(), &told(&none)), format!("data: {}\n\n", body()));
        let read = |event: Bytes| -> Value {
            let data = event.strip_prefix(b"event: response.failed\ndata: ").expect("its name");
            serde_json::from_slice(data).expect("JSON")
        };
        let event = read(Openai.error_event(Operation::Response, body(), &told(&none)));
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!("response.failed"), &json!(0)));
        let response = &event["response"];
        assert_eq!(
            (&response["id"], &response["created_at"], &response["model"]),
            (&json!("resp_r-1"), &json!(7), &json!("asked"))
        );
        let opened = Opened {
            response: Some(br#"{"id":"x","model":"n","status":"in_progress","output":[]}"#[..].into()),
            sequence: Some(4),
        };
        let event = read(Openai.error_event(Operation::Response, body(), &told(&opened)));
        assert_eq!(
            (&event["sequence_number"], &event["response"]["id"], &event["response"]["model"]),
            (&json!(5), &json!("x"), &json!("n"))
        );
        assert_eq!(
            (&event["response"]["status"], &event["response"]["error"]),
            (&json!("failed"), &json!({"code": "c", "message": "m"}))
        );
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
