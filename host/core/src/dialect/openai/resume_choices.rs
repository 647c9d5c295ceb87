//! Parts of chunks with `choices`, compared when another answer continues a stream.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::dialect::format::{Names, Part, Resumable, Unfit, Walker, in_choice, is_filled, restore};
use crate::http::json::{self, Cursor};

/// Chunks of chat completions and completions.
#[derive(Debug)]
pub(super) struct ChoicesParts;

impl Resumable for ChoicesParts {
    fn walk(&self, walker: &mut Walker<'_>, event: &mut Value) -> Result<(), Unfit> {
        let Some(choices) = event.get_mut("choices").and_then(Value::as_array_mut) else { return Ok(()) };
        for (position, choice) in (0u64..).zip(choices.iter_mut()) {
            let index = choice["index"].as_u64().unwrap_or(position);
            if let Some(Value::String(text)) = choice.get_mut("text") {
                walker.text(&in_choice(index, "text"), text)?;
            }
            if let Some(Value::Object(delta)) = choice.get_mut("delta") {
                delta_parts(walker, index, delta)?;
            }
            if walker.was_cut() && choice.get("logprobs").is_some() {
                choice["logprobs"] = Value::Null;
            }
            if is_filled(&choice["finish_reason"]) && !walker.put(Part::End(index))? {
                choice["finish_reason"] = Value::Null;
            }
        }
        Ok(())
    }

    fn only_text<'a>(&self, data: &'a [u8], is_role_known: bool) -> Option<(Cow<'static, str>, &'a [u8])> {
        text_of_choice(data, is_role_known).map(|(name, raw)| (name.into(), raw))
    }

    fn prefill_channels(&self) -> &'static [&'static str] {
        &["content", "text"]
    }

    fn learn_names(&self, names: &mut Names, event: &Value) {
        names.id = names.id.take().or_else(|| event.get("id").cloned());
        names.created = names.created.take().or_else(|| event.get("created").cloned());
    }

    fn restore_names(&self, names: &Names, event: &mut Value) {
        restore(event, "id", names.id.as_ref());
        restore(event, "created", names.created.as_ref());
    }

    fn usage_names(&self) -> Option<(&'static str, &'static str)> {
        Some(("completion_tokens", "prompt_tokens"))
    }
}

/// Any text member of a delta is a text of its own, so that reasoning, refusals and what is invented next year
/// are compared like the content.
fn delta_parts(walker: &mut Walker<'_>, choice: u64, delta: &mut Map<String, Value>) -> Result<(), Unfit> {
    if delta.contains_key("role") && !walker.put(Part::Note(&in_choice(choice, "role")))? {
        delta.remove("role");
    }
    for (name, value) in delta.iter_mut() {
        match value {
            _ if name == "role" => {}
            Value::String(text) => walker.text(&in_choice(choice, name), text)?,
            Value::Array(calls) if name == "tool_calls" => {
                for (position, call) in calls.iter_mut().enumerate() {
                    tool_call(walker, choice, position, call)?;
                }
                calls.retain(|call| call.get("id").is_some() || call.get("function").is_some_and(has_text));
            }
            value if is_filled(value) => return Err(Unfit::NotText),
            _ => {}
        }
    }
    if delta.get("tool_calls").is_some_and(|calls| !is_filled(calls)) {
        delta.remove("tool_calls");
    }
    Ok(())
}

fn tool_call(walker: &mut Walker<'_>, choice: u64, position: usize, call: &mut Value) -> Result<(), Unfit> {
    let index = call["index"].as_u64().unwrap_or(position as u64);
    let Value::Object(call) = call else { return Err(Unfit::NotText) };
    let mark = format!("tool/{index}");
    let channel = in_choice(choice, &mark);
    if call.get("id").is_some_and(is_filled) && !walker.put(Part::Mark(&channel))? {
        // Its id was told; the other answer's own means nothing to the client.
        call.remove("id");
        call.remove("type");
    }
    let Some(Value::Object(function)) = call.get_mut("function") else { return Ok(()) };
    for (name, value) in function.iter_mut() {
        match value {
            Value::String(text) => walker.text(&format!("{channel}/{name}"), text)?,
            value if is_filled(value) => return Err(Unfit::NotText),
            _ => {}
        }
    }
    if function.get("name").is_some_and(|name| !is_filled(name)) {
        function.remove("name");
    }
    Ok(())
}

fn has_text(function: &Value) -> bool {
    function.as_object().is_some_and(|members| members.values().any(is_filled))
}

/// The raw text of a chunk whose only choice, the first, carries nothing but text. Nothing is read twice.
fn text_of_choice(data: &[u8], role_told: bool) -> Option<(&'static str, &[u8])> {
    let mut at = Cursor::new(data);
    if !at.enter(b'{') {
        return None;
    }
    while let Some(name) = at.name() {
        if name != b"choices" {
            at.value();
            continue;
        }
        let is_open = at.enter(b'[') && at.has_element() && at.enter(b'{');
        let found = if is_open { text_of_members(&mut at, role_told)? } else { return None };
        return if at.has_element() { None } else { Some(found) };
    }
    None
}

/// The same of one choice, whose members come next.
fn text_of_members<'a>(at: &mut Cursor<'a>, role_told: bool) -> Option<(&'static str, &'a [u8])> {
    let mut found = None;
    while let Some(name) = at.name() {
        if name == b"delta" && at.enter(b'{') {
            while let Some(name) = at.name() {
                let value = at.value();
                match name {
                    _ if !json::is_filled(value) => {}
                    b"content" if value[0] == b'"' && found.is_none() => found = Some(("content", value)),
                    b"role" if role_told => {}
                    _ => return None,
                }
            }
            continue;
        }
        let value = at.value();
        match name {
            b"index" if value != b"0" => return None,
            b"finish_reason" if json::is_filled(value) => return None,
            b"text" if json::is_filled(value) && found.replace(("text", value)).is_some() => return None,
            _ => {}
        }
    }
    found
}
