//! Streams of messages.

use serde_json::{Map, Value, json};

use super::join::join;
use super::resume::MessageParts;
use crate::dialect::format::{
    Delta, EventWriter, Finish, Resumable, Sight, StreamFormat, Tally, explains_empty, is_error, says_something,
};
use crate::http::json::{self, Cursor};

/// Events from `message_start` to `message_stop`.
#[derive(Debug)]
pub(super) struct MessageEvents;

impl StreamFormat for MessageEvents {
    fn see(&self, tally: &mut Tally, name: Option<&[u8]>, data: &[u8]) -> Sight {
        if name == Some(b"error") {
            return Sight::Error;
        }
        // Some servers name all their events alike, or none.
        let kind = json::member(data, "type").and_then(json::raw_str).or(name).unwrap_or_default();
        match kind {
            b"content_block_delta" => {
                let delta = json::member(data, "delta").unwrap_or_default();
                match Delta::read(&mut Cursor::new(delta)) {
                    Delta { is_failed: true, .. } => Sight::Error,
                    Delta { content_bytes: 0, .. } => Sight::Other,
                    Delta { content_bytes, .. } => tally.content(content_bytes),
                }
            }
            b"content_block_start" => {
                // A tool call is news by its name alone; a block of text begins empty.
                let block = json::member(data, "content_block").unwrap_or_default();
                if json::member(block, "name").is_some() { tally.content(0) } else { Sight::Other }
            }
            b"message_start" => {
                if let Some(usage) = json::member(data, "message").and_then(|m| json::member(m, "usage")) {
                    tally.read_input_usage(usage);
                }
                Sight::Other
            }
            b"message_delta" => {
                if let Some(usage) = json::member(data, "usage") {
                    tally.read_usage(usage);
                }
                let reason = json::member(data, "delta").and_then(|delta| json::member(delta, "stop_reason"));
                let reason = reason.unwrap_or_default();
                match Finish::read(reason) {
                    Finish::Complete => {
                        tally.explains_empty |= explains_empty(reason);
                        tally.finish()
                    }
                    Finish::Failed => Sight::Error,
                    Finish::None => Sight::Other,
                }
            }
            b"message_stop" if json::member(data, "error").is_some_and(says_something) => Sight::Error,
            b"message_stop" => tally.end(),
            b"content_block_stop" | b"ping" => Sight::Other,
            _ if is_error(data) => Sight::Error,
            _ => Sight::Other,
        }
    }

    fn missing_end(&self) -> &'static [u8] {
        b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
    }

    fn split(&self, mut answer: Value, _include_usage: bool, events: &mut EventWriter) -> Option<()> {
        let members = answer.as_object_mut()?;
        let blocks = members.insert("content".to_owned(), json!([]))?;
        let mut end = Map::new();
        for name in ["stop_reason", "stop_sequence"] {
            end.insert(name.to_owned(), members.insert(name.to_owned(), Value::Null).unwrap_or_default());
        }
        let usage = members.get("usage").cloned().unwrap_or_else(|| json!({}));
        events.named(&json!({"type": "message_start", "message": answer}));
        for (index, block) in (0u64..).zip(blocks.as_array()?) {
            let (begin, deltas) = pieces_of(block);
            events.named(&json!({"type": "content_block_start", "index": index, "content_block": begin}));
            for delta in deltas {
                events.named(&json!({"type": "content_block_delta", "index": index, "delta": delta}));
            }
            events.named(&json!({"type": "content_block_stop", "index": index}));
        }
        events.named(&json!({"type": "message_delta", "delta": end, "usage": usage}));
        events.named(&json!({"type": "message_stop"}));
        Some(())
    }

    fn join(&self, events: Vec<Value>) -> Option<Value> {
        join(events)
    }

    fn resumable(&self) -> Option<&'static dyn Resumable> {
        Some(&MessageParts)
    }
}

/// A block as it opens, and the deltas that are then added to it.
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
