//! Writes a chat completion.

use serde::Serialize;
use serde_json::{Value, json};

use super::write_request::{CallOut, call};
use crate::dialect::format::neutral::{Answer, Stop, Usage};
use crate::time::Timestamp;

#[derive(Serialize)]
pub(super) struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice<'a>; 1],
    usage: Value,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tool_calls: Vec<CallOut<'a>>,
}

pub(super) fn write<'a>(answer: &'a Answer<'a>, asked_model: &'a str, now: Timestamp) -> Completion<'a> {
    let tool_calls = answer.calls.iter().map(call).collect();
    let message = Message { role: "assistant", content: answer.text.as_deref(), refusal: None, tool_calls };
    let finish_reason = finish_reason(&answer.stop);
    Completion {
        id: &answer.head.id,
        object: "chat.completion",
        created: now.as_millis() / 1_000,
        model: if answer.head.model.is_empty() { asked_model } else { &answer.head.model },
        choices: [Choice { index: 0, message, logprobs: None, finish_reason }],
        usage: usage(&answer.usage),
    }
}

pub(super) const fn finish_reason(stop: &Stop<'_>) -> &'static str {
    match stop {
        Stop::End | Stop::Sequence(_) => "stop",
        Stop::Length => "length",
        Stop::Calls => "tool_calls",
        Stop::Refusal => "content_filter",
    }
}

pub(super) fn usage(usage: &Usage) -> Value {
    let mut value = json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input.saturating_add(usage.output),
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    });
    if usage.written > 0 {
        value["prompt_tokens_details"]["cache_write_tokens"] = json!(usage.written);
    }
    if let Some(reasoning) = usage.reasoning {
        value["completion_tokens_details"] = json!({"reasoning_tokens": reasoning});
    }
    value
}
