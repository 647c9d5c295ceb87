//! Streams of the Responses API.

use serde_json::{Value, json};

use super::errors::{FAILED, failed_response};
use super::resume_responses::ResponseParts;
use crate::dialect::format::{
    EventWriter, Resumable, Sight, StreamFormat, Tally, Told, explains_empty, is_error, says_something,
};
use crate::http::json;

/// Streams of events that are named `response.*`.
#[derive(Debug)]
pub(super) struct Responses;

impl StreamFormat for Responses {
    fn see(&self, tally: &mut Tally, name: Option<&[u8]>, data: &[u8]) -> Sight {
        if data.trim_ascii() == b"[DONE]" {
            // It is no end of this API: without a last event of its own the answer was cut.
            return if tally.finished { tally.end() } else { Sight::Error };
        }
        let event = Members::read(data);
        // Some servers name all their events alike, or none.
        let kind = event.kind.or(name).unwrap_or_default();
        if name == Some(b"error") || kind == b"error" || FAILED.contains(&kind) {
            return Sight::Error;
        }
        if event.error.is_some_and(says_something) || !kind.starts_with(b"response.") && is_error(data) {
            return Sight::Error;
        }
        if let Some(response) = event.response {
            if failed_response(response) {
                return Sight::Error;
            }
            tally.opened.open(response);
        }
        tally.opened.sequence = event.sequence.or(tally.opened.sequence);
        match kind {
            b"response.completed" | b"response.incomplete" => {
                if let Some(usage) = event.response.and_then(|response| json::member(response, "usage")) {
                    tally.read_usage(usage);
                }
                if let Some(tier) = event.response.and_then(|response| json::member(response, "service_tier")) {
                    tally.counts.served_in(tier);
                }
                let status = event.response.and_then(|response| json::member(response, "status"));
                tally.explains_empty |= kind == b"response.incomplete" || status.is_some_and(explains_empty);
                // A response's last event is its finish.
                tally.finish();
                tally.end()
            }
            _ if kind.ends_with(b".delta") => match event.delta {
                Some(delta) if json::is_filled(delta) => tally.content(delta.len().saturating_sub(2)),
                Some(_) | None => Sight::Other,
            },
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

    /// The last event has the whole response; some servers leave out of it the items that they have told before.
    fn join(&self, events: Vec<Value>) -> Option<Value> {
        let ends =
            |event: &&Value| matches!(event["type"].as_str(), Some("response.completed" | "response.incomplete"));
        let mut response =
            events.iter().rfind(ends)?.get("response").filter(|response| response.is_object()).cloned()?;
        if response["output"].as_array().is_none_or(Vec::is_empty) {
            response["output"] = told_items(events);
        }
        Some(response)
    }

    fn resumable(&self) -> Option<&'static dyn Resumable> {
        Some(&ResponseParts)
    }
}

/// The items that these events told whole, in their order.
fn told_items(events: Vec<Value>) -> Value {
    let is_item = |event: &Value| event["type"] == "response.output_item.done" && event["item"].is_object();
    let mut told: Vec<Value> = events.into_iter().filter(is_item).collect();
    told.sort_by_key(|event| event["output_index"].as_u64());
    told.into_iter().map(|mut event| event["item"].take()).collect()
}

/// The response object of a stream that ends with this error; with made-up names where none were told.
pub(super) fn failed(error: &Value, told: &Told<'_>) -> Value {
    let mut response = told.opened.response().unwrap_or_else(|| {
        json!({
            "id": format!("resp_{}", told.request_id), "object": "response", "created_at": told.now_s,
            "model": told.model, "output": [], "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
            "instructions": null, "metadata": {}, "temperature": null, "top_p": null,
        })
    });
    response["status"] = json!("failed");
    response["error"] = json!({"code": error["code"], "message": error["message"]});
    response["incomplete_details"] = Value::Null;
    response["usage"] = Value::Null;
    response
}

/// The members of an event that matter here, as they stand.
#[derive(Default)]
struct Members<'a> {
    kind: Option<&'a [u8]>,
    delta: Option<&'a [u8]>,
    response: Option<&'a [u8]>,
    error: Option<&'a [u8]>,
    sequence: Option<u64>,
}

impl<'a> Members<'a> {
    fn read(data: &'a [u8]) -> Self {
        let mut read = Self::default();
        for (name, value) in json::members(data) {
            match name {
                b"type" => read.kind = json::raw_str(value),
                b"delta" => read.delta = Some(value),
                b"response" => read.response = Some(value),
                b"error" => read.error = Some(value),
                b"sequence_number" => read.sequence = json::count(value),
                _ => {}
            }
        }
        read
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_the_last_event_leaves_out_are_those_told_before() {
        let done = |index: u64, id: &str| json!({"type": "response.output_item.done", "output_index": index, "item": {"id": id}});
        for left_out in [json!({"id": "r", "output": []}), json!({"id": "r"}), json!({"id": "r", "output": null})] {
            let last = json!({"type": "response.completed", "response": left_out});
            let whole = Responses.join(vec![done(1, "b"), done(0, "a"), last]).expect("it ended");
            assert_eq!(whole, json!({"id": "r", "output": [{"id": "a"}, {"id": "b"}]}));
        }
        let last = json!({"type": "response.completed", "response": {"output": [{"id": "x"}]}});
        assert_eq!(Responses.join(vec![done(0, "a"), last]), Some(json!({"output": [{"id": "x"}]})));
        assert_eq!(Responses.join(vec![done(0, "a")]), None);
    }
}
