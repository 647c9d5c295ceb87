//! Streams of the Responses API.

use serde_json::{Value, json};

use super::resume_responses::ResponseParts;
use crate::dialect::format::{EventWriter, Resumable, Sight, StreamFormat, Tally};
use crate::http::json;

/// Events named `response.*`.
#[derive(Debug)]
pub(super) struct Responses;

impl StreamFormat for Responses {
    fn see(&self, tally: &mut Tally, name: Option<&[u8]>, data: &[u8]) -> Sight {
        let kind = name.or_else(|| json::member(data, "type").and_then(json::raw_str)).unwrap_or_default();
        match kind {
            b"response.completed" | b"response.incomplete" => {
                if let Some(usage) = json::member(data, "response").and_then(|r| json::member(r, "usage")) {
                    tally.read_usage(usage);
                }
                // A response's last event is its finish.
                tally.finish();
                tally.end()
            }
            b"response.failed" | b"error" => Sight::Error,
            _ if kind.ends_with(b".delta") => match json::member(data, "delta") {
                Some(delta) if json::is_filled(delta) => tally.content(delta.len().saturating_sub(2)),
                Some(_) | None => Sight::Other,
            },
            _ if data.trim_ascii() == b"[DONE]" => tally.end(),
            _ => Sight::Other,
        }
    }

    fn split(&self, answer: Value, _include_usage: bool, events: &mut EventWriter) -> Option<()> {
        let output = answer.get("output")?.as_array()?;
        let mut begun = answer.clone();
        (begun["status"], begun["output"], begun["usage"]) = (json!("in_progress"), json!([]), Value::Null);
        events.numbered(json!({"type": "response.created", "response": begun}));
        for (index, item) in (0u64..).zip(output) {
            output_item(events, index, item);
        }
        let end = if answer["status"] == "incomplete" { "response.incomplete" } else { "response.completed" };
        events.numbered(json!({"type": end, "response": answer}));
        Some(())
    }

    fn resumable(&self) -> Option<&'static dyn Resumable> {
        Some(&ResponseParts)
    }
}

fn output_item(events: &mut EventWriter, index: u64, item: &Value) {
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

fn content_part(events: &mut EventWriter, at: &Value, index: u64, part: &Value) {
    let mut at = at.clone();
    at["content_index"] = index.into();
    let mut opened = part.clone();
    let text = part.get("text").and_then(Value::as_str);
    if text.is_some() {
        opened["text"] = json!("");
    }
    events.numbered(with(&at, "response.content_part.added", "part", opened));
    if let Some(text) = text {
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
