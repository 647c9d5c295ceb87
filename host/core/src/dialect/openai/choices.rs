//! Streams of chat completions and completions.

use serde_json::{Value, json};

use super::join_choices::join;
use super::resume_choices::ChoicesParts;
use crate::dialect::format::{
    self, Delta, EventWriter, Finish, Resumable, Sight, StreamFormat, Tally, filled_length, is_error, is_failed_status,
    says_something,
};
use crate::http::json::{self, Cursor};

/// Streams of chunks with `choices`.
#[derive(Debug)]
pub(super) struct Choices;

/// Members of a chunk that are read.
#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    content: usize,
    finish: bool,
    /// Some choice is in it.
    choices: bool,
    usage: bool,
    failed: bool,
}

impl StreamFormat for Choices {
    fn see(&self, tally: &mut Tally, name: Option<&[u8]>, data: &[u8]) -> Sight {
        if data.trim_ascii() == b"[DONE]" {
            return tally.end();
        }
        if name == Some(b"error") {
            return Sight::Error;
        }
        let chunk = read_chunk(tally, data);
        if chunk.failed || (!chunk.choices && !chunk.usage && is_error(data)) {
            return Sight::Error;
        }
        let sight = match (chunk.content, chunk.finish) {
            (1.., _) => tally.content(chunk.content),
            (0, true) => Sight::Finish,
            (0, false) if chunk.usage && !chunk.choices => Sight::UsageOnly,
            (0, false) => Sight::Other,
        };
        tally.finished = tally.ends.all_ended();
        let is_last = sight == Sight::UsageOnly && tally.counts.output > 0;
        tally.has_told_all = tally.finished && (tally.has_told_all || is_last);
        sight
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

    fn join(&self, events: Vec<Value>) -> Option<Value> {
        join(events)
    }

    fn resumable(&self) -> Option<&'static dyn Resumable> {
        Some(&ChoicesParts)
    }
}

fn read_chunk(tally: &mut Tally, data: &[u8]) -> Chunk {
    let mut chunk = Chunk::default();
    let mut at = Cursor::new(data);
    at.enter(b'{');
    while let Some(name) = at.name() {
        match name {
            b"service_tier" => tally.counts.served_in(at.value()),
            b"choices" if at.enter(b'[') => {
                let mut position = 0;
                while at.has_element() {
                    chunk.choices = true;
                    read_choice(&mut at, position, tally, &mut chunk);
                    position += 1;
                }
            }
            b"usage" => {
                let value = at.value();
                if value.first() == Some(&b'{') {
                    chunk.usage = true;
                    tally.read_usage(value);
                }
            }
            b"x_groq" => {
                if let Some(value) = json::member(at.value(), "usage") {
                    tally.read_usage(value);
                }
            }
            b"error" => chunk.failed |= says_something(at.value()),
            b"base_resp" => chunk.failed |= is_failed_status(at.value()),
            _ => {
                at.value();
            }
        }
    }
    chunk
}

/// Reads the choice of a chunk that comes next; any filled member of the delta but its role is content, so that
/// reasoning, tool calls, refusals and members that are added later count.
fn read_choice(at: &mut Cursor<'_>, position: u64, tally: &mut Tally, chunk: &mut Chunk) {
    if !at.enter(b'{') {
        at.value();
        return;
    }
    let (mut index, mut bytes, mut finish, mut explains_empty) = (position, 0, Finish::None, false);
    while let Some(name) = at.name() {
        match name {
            b"delta" | b"message" => {
                let delta = Delta::read(at);
                bytes += delta.content_bytes;
                chunk.failed |= delta.is_failed;
            }
            b"text" => bytes += filled_length(at.value()),
            b"finish_reason" => {
                let value = at.value();
                finish = Finish::read(value);
                explains_empty = finish == Finish::Complete && format::explains_empty(value);
            }
            b"index" => index = json::count(at.value()).unwrap_or(position),
            // Moonshot's place.
            b"usage" => tally.read_usage(at.value()),
            b"error" => chunk.failed |= says_something(at.value()),
            _ => {
                at.value();
            }
        }
    }
    tally.explains_empty |= explains_empty;
    chunk.content += bytes;
    chunk.finish |= finish == Finish::Complete;
    chunk.failed |= finish == Finish::Failed;
    tally.choice(index, bytes > 0, finish == Finish::Complete);
}
