//! Reads an answer of Anthropic's messages API.

use std::borrow::Cow;

use super::read_turns::call_under;
use crate::dialect::format::neutral::{Answer, Stop, Usage};
use crate::dialect::format::read::{Field, Object, head};
use crate::dialect::format::{Api, Read};

pub(super) fn read<'a>(body: &'a [u8], target: &'static Api) -> Read<Answer<'a>> {
    let mut message = Field::body(body, target)?.object()?;
    let (mut texts, mut calls) = (Vec::new(), Vec::new());
    for block in message.need("content")?.list()? {
        let mut block = block.object()?;
        let kind = block.need("type")?;
        match &*kind.text()? {
            "text" => texts.push(block.need("text")?.text()?),
            "tool_use" => {
                // Some servers give it no id.
                let id = block.take("id").map(|f| f.text()).transpose()?.unwrap_or_default();
                calls.push(call_under(&mut block, id)?);
            }
            "thinking" | "redacted_thinking" => {}
            _ => return Err(kind.no_counterpart()),
        }
    }
    let text = match texts.len() {
        0 => Some(Cow::Borrowed("")).filter(|_| calls.is_empty()),
        1 => texts.pop(),
        _ => Some(texts.concat().into()),
    };
    let reason = message.take("stop_reason").filter(Field::is_reason).map(|f| f.text()).transpose()?;
    let sequence = message.take("stop_sequence").map(|f| f.text()).transpose()?;
    let mut counts = Usage::default();
    if let Some(told) = message.take("usage") {
        counts = usage(told.object()?, counts);
    }
    Ok(Answer { head: head(&mut message), text, calls, stop: stop(reason.as_deref(), sequence), usage: counts })
}

pub(super) fn stop<'a>(reason: Option<&str>, sequence: Option<Cow<'a, str>>) -> Stop<'a> {
    match reason {
        Some("end_turn") | None => Stop::End,
        Some("stop_sequence") => sequence.map_or(Stop::End, Stop::Sequence),
        Some("tool_use") => Stop::Calls,
        Some("refusal") => Stop::Refusal,
        // max_tokens, model_context_window_exceeded, pause_turn; and what is not known is not known to be complete.
        Some(_) => Stop::Length,
    }
}

/// Reads the usage of this object; missing numbers keep their earlier values.
pub(super) fn usage(mut told: Object<'_>, before: Usage) -> Usage {
    let mut count = |name| told.take(name).and_then(|f| f.count().ok());
    let uncached = before.input.saturating_sub(before.cached).saturating_sub(before.written);
    let cached = count("cache_read_input_tokens").unwrap_or(before.cached);
    let written = count("cache_creation_input_tokens").unwrap_or(before.written);
    let input = count("input_tokens").unwrap_or(uncached).saturating_add(cached).saturating_add(written);
    let output = count("output_tokens").unwrap_or(before.output);
    let details = told.take("output_tokens_details").and_then(|f| f.object().ok());
    let thought = details.and_then(|mut d| d.take("thinking_tokens")).and_then(|f| f.count().ok());
    Usage { input, cached, written, output, reasoning: thought.or(before.reasoning) }
}
