//! Writes an answer of Anthropic's messages API.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value, json};

use super::call_id::call_id;
use crate::dialect::format::neutral::{Answer, Json, Stop, Usage};

#[derive(Serialize)]
pub(super) struct Message<'a> {
    id: &'a str,
    r#type: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<Block<'a>>,
    stop_reason: &'static str,
    stop_sequence: Option<&'a str>,
    usage: Value,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text { text: &'a str },
    ToolUse { id: Cow<'a, str>, name: &'a str, input: &'a Json<'a> },
}

pub(super) fn write<'a>(answer: &'a Answer<'a>, asked_model: &'a str) -> Message<'a> {
    let text = answer.text.as_deref().filter(|text| !text.is_empty()).map(|text| Block::Text { text });
    let calls = answer.calls.iter().map(|c| Block::ToolUse { id: call_id(&c.id), name: &c.name, input: &c.input });
    let (stop_reason, stop_sequence) = stop_reason(&answer.stop);
    Message {
        id: &answer.head.id,
        r#type: "message",
        role: "assistant",
        model: if answer.head.model.is_empty() { asked_model } else { &answer.head.model },
        content: text.into_iter().chain(calls).collect(),
        stop_reason,
        stop_sequence,
        usage: usage(&answer.usage),
    }
}

/// The reason, and the stop sequence where that is it.
pub(super) fn stop_reason<'a>(stop: &'a Stop<'_>) -> (&'static str, Option<&'a str>) {
    match stop {
        Stop::End => ("end_turn", None),
        Stop::Sequence(sequence) => ("stop_sequence", Some(sequence)),
        Stop::Length => ("max_tokens", None),
        Stop::Calls => ("tool_use", None),
        Stop::Refusal => ("refusal", None),
    }
}

pub(super) fn usage(usage: &Usage) -> Value {
    let mut value = json!({
        "input_tokens": usage.input.saturating_sub(usage.cached).saturating_sub(usage.written),
        "cache_creation_input_tokens": usage.written,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    });
    if let Some(thinking) = usage.reasoning {
        value["output_tokens_details"] = json!({"thinking_tokens": thinking});
    }
    value
}
