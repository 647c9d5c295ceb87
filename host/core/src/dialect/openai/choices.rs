//! Streams of chat completions and completions.

use serde_json::{Value, json};

use super::resume_choices::ChoicesParts;
use crate::dialect::format::{EventWriter, Resumable, Sight, StreamFormat, Tally, content_bytes, filled_length};
use crate::http::json::{self, Cursor};

/// Chunks with `choices`.
#[derive(Debug)]
pub(super) struct Choices;

impl StreamFormat for Choices {
    fn see(&self, tally: &mut Tally, name: Option<&[u8]>, data: &[u8]) -> Sight {
        if data.trim_ascii() == b"[DONE]" {
            return tally.end();
        }
        if name == Some(b"error") {
            return Sight::Error;
        }
        let (mut content, mut finish, mut choices, mut usage, mut error) = (0, false, false, false, false);
        let mut at = Cursor::new(data);
        at.enter(b'{');
        while let Some(name) = at.name() {
            match name {
                b"choices" if at.enter(b'[') => {
                    while at.has_element() {
                        choices = true;
                        content += choice_content(&mut at, &mut finish);
                    }
                }
                b"usage" => {
                    let value = at.value();
                    if value.first() == Some(&b'{') {
                        usage = true;
                        tally.read_usage(value);
                    }
                }
                b"error" => error = json::is_filled(at.value()),
                _ => {
                    at.value();
                }
            }
        }
        if finish {
            tally.finish();
        }
        match (error, content, finish) {
            (true, 0, _) => Sight::Error,
            (_, 1.., _) => tally.content(content),
            (false, 0, true) => Sight::Finish,
            (false, 0, false) if usage && !choices => Sight::UsageOnly,
            (false, 0, false) => Sight::Other,
        }
    }

    fn missing_end(&self) -> &'static [u8] {
        b"data: [DONE]\n\n"
    }

    fn split(&self, mut answer: Value, include_usage: bool, events: &mut EventWriter) -> Option<()> {
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
        events.data(&answer);
        if let Some(usage) = usage.filter(|usage| include_usage && usage.is_object()) {
            answer["choices"] = json!([]);
            answer["usage"] = usage;
            events.data(&answer);
        }
        events.raw("data: [DONE]\n\n");
        Some(())
    }

    fn resumable(&self) -> Option<&'static dyn Resumable> {
        Some(&ChoicesParts)
    }
}

/// Bytes of content in one choice of a chunk; any filled member of the delta but its role is content, so that
/// reasoning, tool calls, refusals and members that are added later count.
fn choice_content(at: &mut Cursor<'_>, finish: &mut bool) -> usize {
    if !at.enter(b'{') {
        at.value();
        return 0;
    }
    let mut bytes = 0;
    while let Some(name) = at.name() {
        match name {
            b"delta" | b"message" => bytes += content_bytes(at),
            b"text" => bytes += filled_length(at.value()),
            b"finish_reason" => *finish |= json::is_filled(at.value()),
            _ => {
                at.value();
            }
        }
    }
    bytes
}
