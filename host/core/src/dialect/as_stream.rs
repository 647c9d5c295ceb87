//! A whole answer told as the stream that was asked for.
//!
//! Some servers ignore `stream` and answer with JSON. A client that reads events finds none in it and takes the answer
//! for an empty one, so it is told as events: the same names, texts and usage, in as few events as the dialect allows.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::contract::Operation;

/// The stream that says what this body says; none where it is not an answer of this operation.
pub fn as_stream(operation: Operation, body: &[u8], include_usage: bool) -> Option<Bytes> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    let mut events = Events::default();
    match operation {
        Operation::Chat | Operation::Completion => choices(&mut events, &mut answer, include_usage)?,
        Operation::Message => message(&mut events, &mut answer)?,
        Operation::Response => response(&mut events, &answer)?,
        Operation::Embedding | Operation::Other => return None,
    }
    Some(events.text.into())
}

#[derive(Default)]
struct Events {
    text: String,
    sequence: u64,
}

impl Events {
    fn data(&mut self, data: &Value) {
        self.text.push_str(&format!("data: {data}\n\n"));
    }

    /// An event that is named like its `type`.
    fn named(&mut self, data: Value) {
        let name = data["type"].as_str().unwrap_or_default();
        self.text.push_str(&format!("event: {name}\ndata: {data}\n\n"));
    }

    fn numbered(&mut self, mut data: Value) {
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        self.named(data);
    }
}

fn choices(events: &mut Events, answer: &mut Value, include_usage: bool) -> Option<()> {
    let usage = answer.as_object_mut()?.remove("usage");
    if answer["object"] == "chat.completion" {
        answer["object"] = json!("chat.completion.chunk");
    }
    for choice in answer.get_mut("choices")?.as_array_mut()? {
        let choice = choice.as_object_mut()?;
        if let Some(mut message) = choice.remove("message") {
            let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
            for (index, call) in (0u64..).zip(calls.into_iter().flatten()) {
                call.as_object_mut()?.insert("index".to_owned(), index.into());
            }
            choice.insert("delta".to_owned(), message);
        }
    }
    events.data(answer);
    if let Some(usage) = usage.filter(|usage| include_usage && usage.is_object()) {
        answer["choices"] = json!([]);
        answer["usage"] = usage;
        events.data(answer);
    }
    events.text.push_str("data: [DONE]\n\n");
    Some(())
}

fn message(events: &mut Events, answer: &mut Value) -> Option<()> {
    let members = answer.as_object_mut()?;
    let blocks = members.insert("content".to_owned(), json!([]))?;
    let mut end = Map::new();
    for name in ["stop_reason", "stop_sequence"] {
        end.insert(name.to_owned(), members.insert(name.to_owned(), Value::Null).unwrap_or_default());
    }
    let usage = members.get("usage").cloned().unwrap_or_else(|| json!({}));
    events.named(json!({"type": "message_start", "message": answer}));
    for (index, block) in (0u64..).zip(blocks.as_array()?) {
        let (begin, deltas) = pieces_of(block);
        events.named(json!({"type": "content_block_start", "index": index, "content_block": begin}));
        for delta in deltas {
            events.named(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        events.named(json!({"type": "content_block_stop", "index": index}));
    }
    events.named(json!({"type": "message_delta", "delta": end, "usage": usage}));
    events.named(json!({"type": "message_stop"}));
    Some(())
}

/// How a block opens, and what is then added to it.
fn pieces_of(block: &Value) -> (Value, Vec<Value>) {
    let mut begin = block.clone();
    let mut deltas = Vec::new();
    for (member, empty, kind, delta) in [
        ("text", json!(""), "text_delta", "text"),
        ("thinking", json!(""), "thinking_delta", "thinking"),
        ("signature", json!(""), "signature_delta", "signature"),
        ("input", json!({}), "input_json_delta", "partial_json"),
    ] {
        let Some(value) = begin.get_mut(member) else { continue };
        let added = match std::mem::replace(value, empty) {
            Value::String(text) => Value::String(text),
            other => Value::String(other.to_string()),
        };
        deltas.push(json!({"type": kind, (delta): added}));
    }
    (begin, deltas)
}

fn response(events: &mut Events, answer: &Value) -> Option<()> {
    let output = answer.get("output")?.as_array()?;
    let mut begun = answer.clone();
    (begun["status"], begun["output"], begun["usage"]) = (json!("in_progress"), json!([]), Value::Null);
    events.numbered(json!({"type": "response.created", "response": begun}));
    for (index, item) in (0u64..).zip(output) {
        let mut opened = item.clone();
        for (member, empty) in [("content", json!([])), ("arguments", json!(""))] {
            if let Some(value) = opened.get_mut(member) {
                *value = empty;
            }
        }
        events.numbered(json!({"type": "response.output_item.added", "output_index": index, "item": opened}));
        let at = json!({"output_index": index, "item_id": item["id"]});
        for (part_index, part) in (0u64..).zip(item["content"].as_array().into_iter().flatten()) {
            content_part(events, &at, part_index, part);
        }
        if let Some(arguments) = item["arguments"].as_str() {
            let kind = "response.function_call_arguments";
            events.numbered(with(&at, &format!("{kind}.delta"), "delta", json!(arguments)));
            events.numbered(with(&at, &format!("{kind}.done"), "arguments", json!(arguments)));
        }
        events.numbered(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    }
    let end = if answer["status"] == "incomplete" { "response.incomplete" } else { "response.completed" };
    events.numbered(json!({"type": end, "response": answer}));
    Some(())
}

fn content_part(events: &mut Events, at: &Value, index: u64, part: &Value) {
    let mut at = at.clone();
    at["content_index"] = index.into();
    let mut opened = part.clone();
    let told = part.get("text").and_then(Value::as_str);
    if told.is_some() {
        opened["text"] = json!("");
    }
    events.numbered(with(&at, "response.content_part.added", "part", opened));
    if let Some(text) = told {
        events.numbered(with(&at, "response.output_text.delta", "delta", json!(text)));
        events.numbered(with(&at, "response.output_text.done", "text", json!(text)));
    }
    events.numbered(with(&at, "response.content_part.done", "part", part.clone()));
}

fn with(at: &Value, kind: &str, member: &str, value: Value) -> Value {
    let mut event = at.clone();
    event["type"] = json!(kind);
    event[member] = value;
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::usage::{Sight, StreamTap};
    use crate::http::sse::Reader;
    use crate::table::Dialect;

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
        (contents, tap.usage(1).output_tokens)
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
        assert_eq!(ends_well(Dialect::Openai, Operation::Chat, &stream), (1, 2));
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
        assert_eq!(ends_well(Dialect::Anthropic, Operation::Message, &stream).1, 5);
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
        assert_eq!(ends_well(Dialect::Openai, Operation::Response, &stream), (2, 4));
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
