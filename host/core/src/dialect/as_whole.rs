//! A stream told as the whole answer that was asked for.
//!
//! Some servers ignore `"stream": false` and answer with events. A client that reads JSON cannot read them, so the pieces
//! are put together: the same names, texts and usage in one body.

use bytes::Bytes;
use serde_json::Value;

use super::registry::Dialect;
use crate::contract::Operation;
use crate::http::sse::Reader;

/// The body that says what these events say; none where they are no answer of this operation.
pub fn as_whole(operation: Operation, events: Bytes) -> Option<Bytes> {
    if !operation.has_streams() {
        return None;
    }
    let mut reader = Reader::default();
    reader.push(events);
    let mut values = Vec::new();
    while let Some(event) = reader.next_event().ok()? {
        values.extend(event.data.and_then(|data| serde_json::from_slice::<Value>(data).ok()));
    }
    let answer = Dialect::of_operation(operation).format().stream(operation).join(values)?;
    Some(answer.to_string().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::dialect::as_stream::as_stream;

    fn whole(operation: Operation, events: &[Value]) -> Value {
        let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        serde_json::from_slice(&as_whole(operation, (stream + "data: [DONE]\n\n").into()).unwrap()).unwrap()
    }

    #[test]
    fn chunks_become_a_completion() {
        let chunk = |index: u64, delta: Value, finish: Value| {
            json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                "choices": [{"index": index, "delta": delta, "finish_reason": finish}]})
        };
        let call = |delta: Value| json!({"tool_calls": [delta]});
        let answer = whole(
            Operation::Chat,
            &[
                chunk(0, json!({"role": "assistant", "content": ""}), Value::Null),
                chunk(1, json!({"role": "assistant", "content": "other"}), Value::Null),
                chunk(0, json!({"content": "Hel"}), json!("null")),
                chunk(0, json!({"content": "lo"}), Value::Null),
                chunk(
                    0,
                    call(
                        json!({"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}),
                    ),
                    Value::Null,
                ),
                chunk(0, call(json!({"index": 0, "function": {"arguments": "{\"a\""}})), Value::Null),
                chunk(0, call(json!({"index": 0, "function": {"arguments": ":1}"}})), Value::Null),
                chunk(
                    0,
                    call(json!({"index": 1, "id": "u", "function": {"name": "g", "arguments": "{}"}})),
                    Value::Null,
                ),
                chunk(1, json!({}), json!("length")),
                chunk(0, json!({}), json!("tool_calls")),
                json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
            ],
        );
        assert_eq!(
            (&answer["object"], &answer["id"], &answer["created"]),
            (&json!("chat.completion"), &json!("c"), &json!(1))
        );
        assert_eq!(answer["usage"]["completion_tokens"], 2);
        assert_eq!(
            answer["choices"][1],
            json!({"index": 1, "message": {"role": "assistant", "content": "other"}, "finish_reason": "length"})
        );
        let first = &answer["choices"][0];
        assert_eq!((&first["message"]["content"], &first["finish_reason"]), (&json!("Hello"), &json!("tool_calls")));
        let calls = json!([
            {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
            {"id": "u", "function": {"name": "g", "arguments": "{}"}},
        ]);
        assert_eq!(first["message"]["tool_calls"], calls);
    }

    #[test]
    fn completions_add_up_their_texts() {
        let chunk =
            |text: &str| json!({"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": text}]});
        let answer = whole(Operation::Completion, &[chunk("a"), chunk("b")]);
        assert_eq!(answer["choices"], json!([{"index": 0, "text": "ab", "finish_reason": null}]));
    }

    #[test]
    fn events_become_a_message() {
        let message = json!({"id": "m", "type": "message", "role": "assistant", "model": "x", "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 3, "output_tokens": 1}});
        let delta = |index: u64, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        let answer = whole(
            Operation::Message,
            &[
                json!({"type": "message_start", "message": message}),
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                json!({"type": "ping"}),
                delta(0, json!({"type": "text_delta", "text": "Hel"})),
                delta(0, json!({"type": "text_delta", "text": "lo"})),
                json!({"type": "content_block_stop", "index": 0}),
                json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}}),
                delta(1, json!({"type": "input_json_delta", "partial_json": "{\"a\""})),
                delta(1, json!({"type": "input_json_delta", "partial_json": ":1}"})),
                json!({"type": "content_block_stop", "index": 1}),
                json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}),
                json!({"type": "message_stop"}),
            ],
        );
        assert_eq!(
            answer["content"],
            json!([{"type": "text", "text": "Hello"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}])
        );
        assert_eq!(
            (&answer["stop_reason"], &answer["usage"]),
            (&json!("tool_use"), &json!({"input_tokens": 3, "output_tokens": 9}))
        );
    }

    #[test]
    fn what_is_no_answer_stays_none() {
        for operation in Operation::ALL {
            for events in ["", "data: {}\n\n", "data: [DONE]\n\n", "data: {\"type\":\"message_delta\"}\n\n", ": x\n\n"]
            {
                assert_eq!(as_whole(operation, Bytes::from_static(events.as_bytes())), None, "{operation:?} {events}");
            }
        }
    }

    proptest! {
        #[test]
        fn an_answer_told_as_a_stream_is_the_same_answer_again(text in "\\PC{0,20}", thought in "\\PC{1,20}", arguments in "[a-z]{0,8}") {
            let chat = json!({
                "id": "c", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": text, "reasoning": thought,
                    "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}]}}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2},
            });
            let message = json!({
                "id": "m", "type": "message", "role": "assistant", "stop_reason": "end_turn", "stop_sequence": null, "usage": {"input_tokens": 3},
                "content": [{"type": "thinking", "thinking": thought, "signature": "s"}, {"type": "text", "text": text}],
            });
            let response = json!({"id": "r", "status": "completed", "output": [
                {"type": "message", "id": "i", "content": [{"type": "output_text", "text": text, "annotations": []}]}]});
            for (operation, answer) in [(Operation::Chat, chat), (Operation::Message, message), (Operation::Response, response)] {
                let stream = as_stream(operation, answer.to_string().as_bytes(), true).expect("it is an answer");
                let again: Value = serde_json::from_slice(&as_whole(operation, stream).expect("it is one")).unwrap();
                prop_assert_eq!(again, answer);
            }
        }

        #[test]
        fn any_events_are_put_together_or_not(events in prop::collection::vec("(data: |)\\{\"(choices|type|index)\":[\\[\\]{}0-9\"a-z_,:]{0,20}\\}", 0..6)) {
            for operation in Operation::ALL {
                as_whole(operation, events.join("\n\n").into());
            }
        }
    }
}
