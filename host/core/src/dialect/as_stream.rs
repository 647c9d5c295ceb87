//! A whole answer told as the stream that was asked for.
//!
//! Some servers ignore `stream` and answer with JSON. A client that reads events finds none in it and takes the answer
//! for an empty one, so it is told as events: the same names, texts and usage, in as few events as the dialect allows.

use bytes::Bytes;
use serde_json::Value;

pub use super::format::EventWriter;
use super::registry::Dialect;
use crate::contract::Operation;

/// The stream that says what this body says; none where it is not an answer of this operation.
pub fn as_stream(operation: Operation, body: &[u8], include_usage: bool) -> Option<Bytes> {
    if !operation.has_streams() {
        return None;
    }
    let answer: Value = serde_json::from_slice(body).ok()?;
    let mut events = EventWriter::default();
    Dialect::of_operation(operation).format().stream(operation).split(answer, include_usage, &mut events)?;
    Some(events.into_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::usage::{Asked, Sight, StreamTap};
    use crate::http::sse::Reader;

    fn datas(stream: &Bytes) -> Vec<Value> {
        let text = String::from_utf8(stream.to_vec()).unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap_or(json!(data))).collect()
    }

    fn ends_well(dialect: Dialect, operation: Operation, stream: &Bytes) -> (u64, u64) {
        let mut tap = StreamTap::new(dialect, operation);
        let mut reader = Reader::default();
        reader.push(stream.clone());
        let mut contents = 0;
        while let Some(event) = reader.next_event().unwrap() {
            contents += u64::from(tap.see(&event) == Sight::Content);
        }
        assert!(tap.finished() && tap.ended_well());
        (contents, tap.usage(&Asked::default()).output_tokens)
    }

    #[test]
    fn a_chat_completion_is_one_chunk() {
        let body = json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": "hi", "tool_calls": [
                {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        });
        let stream = as_stream(Operation::Chat, body.to_string().as_bytes(), true).unwrap();
        let events = datas(&stream);
        assert_eq!((&events[0]["object"], &events[0]["id"]), (&json!("chat.completion.chunk"), &json!("c")));
        let delta = &events[0]["choices"][0]["delta"];
        assert_eq!((&delta["content"], &delta["tool_calls"][0]["index"]), (&json!("hi"), &json!(0)));
        assert_eq!(events[0]["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!((&events[1]["choices"], &events[1]["usage"]["completion_tokens"]), (&json!([]), &json!(2)));
        assert_eq!(ends_well(Dialect::OPENAI, Operation::Chat, &stream), (1, 2));
        let silent = as_stream(Operation::Chat, body.to_string().as_bytes(), false).unwrap();
        assert!(datas(&silent).iter().all(|event| event.get("usage").is_none()));
    }

    #[test]
    fn a_message_is_opened_told_and_closed() {
        let body = json!({
            "id": "msg", "type": "message", "role": "assistant", "stop_reason": "tool_use", "usage": {"input_tokens": 3, "output_tokens": 5},
            "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "hi"},
                        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
        });
        let stream = as_stream(Operation::Message, body.to_string().as_bytes(), false).unwrap();
        let events = datas(&stream);
        assert_eq!(
            (&events[0]["message"]["content"], &events[0]["message"]["stop_reason"]),
            (&json!([]), &Value::Null)
        );
        let told = |kind: &str, member: &str| {
            events.iter().find(|e| e["delta"]["type"] == kind).unwrap()["delta"][member].clone()
        };
        assert_eq!((told("text_delta", "text"), told("thinking_delta", "thinking")), (json!("hi"), json!("hm")));
        assert_eq!(told("input_json_delta", "partial_json"), "{\"a\":1}");
        assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
        assert_eq!(ends_well(Dialect::ANTHROPIC, Operation::Message, &stream).1, 5);
    }

    #[test]
    fn a_response_is_told_in_its_events() {
        let body = json!({
            "id": "resp", "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 4},
            "output": [{"type": "message", "id": "i", "content": [{"type": "output_text", "text": "hi", "annotations": []}]},
                       {"type": "function_call", "id": "j", "call_id": "c", "name": "f", "arguments": "{}"}],
        });
        let stream = as_stream(Operation::Response, body.to_string().as_bytes(), false).unwrap();
        let events = datas(&stream);
        assert!(events.iter().zip(0u64..).all(|(event, at)| event["sequence_number"] == at));
        assert_eq!(events.last().unwrap()["response"], body);
        assert_eq!(ends_well(Dialect::OPENAI, Operation::Response, &stream), (2, 4));
    }

    #[test]
    fn what_is_not_such_an_answer_is_no_stream() {
        for operation in Operation::ALL {
            for body in ["", "[]", "{}", "7", "{\"choices\":7}", "{\"content\":7}", "{\"choices\":[7]}"] {
                assert_eq!(as_stream(operation, body.as_bytes(), true), None, "{operation:?} {body}");
            }
        }
    }
}
