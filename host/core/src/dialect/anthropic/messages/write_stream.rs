//! Writes the events of Anthropic's streams: one block after the other, each begun and ended.
//!
//! Chat chunks need not keep to one tool call at a time. A call that begins before the one under way is complete is held
//! back until the answer ends, and so is all that comes after it.

use bytes::BytesMut;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::call_id::call_id;
use super::write_answer::{stop_reason, usage};
use crate::dialect::format::neutral::{Head, News, Stop, Usage};
use crate::dialect::format::{Read, StreamWriter, Untranslatable, write_event};

/// The most that is kept of tool calls, in bytes of their input and of text that came among them.
const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// A stream that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    model: String,
    /// Number of blocks that were begun.
    blocks: usize,
    open: Open,
    held: Vec<Held>,
    kept_bytes: usize,
    stop: Option<Stop<'static>>,
    usage: Usage,
    ended: bool,
}

/// Block of the answer that is open.
#[derive(Debug)]
enum Open {
    Nothing,
    Text,
    Call { number: usize, input: String },
}

/// Content that waits for the open block to end.
#[derive(Debug)]
enum Held {
    Text(String),
    Call { number: usize, id: String, name: String, input: String },
}

impl Writer {
    pub(super) fn new(asked_model: &str) -> Self {
        Self {
            model: asked_model.to_owned(),
            blocks: 0,
            open: Open::Nothing,
            held: Vec::new(),
            kept_bytes: 0,
            stop: None,
            usage: Usage::default(),
            ended: false,
        }
    }
}

impl StreamWriter for Writer {
    fn write(&mut self, news: News<'_>, out: &mut BytesMut) -> Read<()> {
        match news {
            News::Start(head) => self.start(&head, out),
            News::Text(text) => return self.text(&text, out),
            News::Call { number, id, name } => return self.call(number, &id, &name, out),
            News::Input { number, json } => return self.input(number, &json, out),
            News::CallEnd { .. } => {}
            News::Stop(stop) => {
                self.release(out);
                self.stop = Some(owned(stop));
            }
            News::Usage(usage) => self.usage = usage,
            News::Ping => write_event(Some("ping"), &json!({"type": "ping"}), out),
            News::End => self.finish(out),
        }
        Ok(())
    }

    fn has_stopped(&self) -> bool {
        self.stop.is_some()
    }

    fn finish(&mut self, out: &mut BytesMut) {
        let Some(stop) = &self.stop else { return };
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let (reason, sequence) = stop_reason(stop);
        let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
        let usage = usage(&self.usage);
        write_event(Some("message_delta"), &json!({"type": "message_delta", "delta": delta, "usage": usage}), out);
        write_event(Some("message_stop"), &json!({"type": "message_stop"}), out);
    }
}

impl Writer {
    fn start(&mut self, head: &Head<'_>, out: &mut BytesMut) {
        let model = if head.model.is_empty() { &self.model } else { &*head.model };
        // The chat stream tells the usage at its end, and so do we.
        let message = json!({
            "id": head.id, "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage(&Usage::default()),
        });
        write_event(Some("message_start"), &json!({"type": "message_start", "message": message}), out);
    }

    fn text(&mut self, text: &str, out: &mut BytesMut) -> Read<()> {
        if !self.held.is_empty() || !self.is_complete() {
            self.keep(text.len())?;
            match self.held.last_mut() {
                Some(Held::Text(held)) => held.push_str(text),
                Some(Held::Call { .. }) | None => self.held.push(Held::Text(text.to_owned())),
            }
            return Ok(());
        }
        if !matches!(self.open, Open::Text) {
            self.close(out);
            self.begin(json!({"type": "text", "text": ""}), out);
            self.open = Open::Text;
        }
        self.delta(json!({"type": "text_delta", "text": text}), out);
        Ok(())
    }

    fn call(&mut self, number: usize, id: &str, name: &str, out: &mut BytesMut) -> Read<()> {
        if !self.held.is_empty() || !self.is_complete() {
            let (id, name) = (id.to_owned(), name.to_owned());
            self.keep(id.len() + name.len())?;
            self.held.push(Held::Call { number, id, name, input: String::new() });
            return Ok(());
        }
        self.begin_call(number, id, name, out);
        Ok(())
    }

    fn begin_call(&mut self, number: usize, id: &str, name: &str, out: &mut BytesMut) {
        self.close(out);
        self.begin(json!({"type": "tool_use", "id": call_id(id), "name": name, "input": {}}), out);
        self.open = Open::Call { number, input: String::new() };
    }

    fn input(&mut self, number: usize, piece: &str, out: &mut BytesMut) -> Read<()> {
        self.keep(piece.len())?;
        for held in &mut self.held {
            if let Held::Call { number: of, input, .. } = held
                && *of == number
            {
                input.push_str(piece);
                return Ok(());
            }
        }
        match &mut self.open {
            Open::Call { number: of, input } if *of == number => {
                input.push_str(piece);
                self.delta(json!({"type": "input_json_delta", "partial_json": piece}), out);
                Ok(())
            }
            Open::Call { .. } | Open::Text | Open::Nothing => {
                Err(Untranslatable::new("tool_calls", "goes on with a call whose input was complete"))
            }
        }
    }

    /// Returns true if the open block may end. A call whose input is not complete JSON has more to come.
    fn is_complete(&self) -> bool {
        match &self.open {
            Open::Nothing | Open::Text => true,
            Open::Call { input, .. } => serde_json::from_str::<IgnoredAny>(input).is_ok(),
        }
    }

    /// Ends the block under way, then writes what was held back.
    fn release(&mut self, out: &mut BytesMut) {
        self.close(out);
        for held in std::mem::take(&mut self.held) {
            match held {
                Held::Text(text) => {
                    self.begin(json!({"type": "text", "text": ""}), out);
                    self.open = Open::Text;
                    self.delta(json!({"type": "text_delta", "text": text}), out);
                }
                Held::Call { number, id, name, input } => {
                    self.begin_call(number, &id, &name, out);
                    if !input.is_empty() {
                        self.delta(json!({"type": "input_json_delta", "partial_json": input}), out);
                    }
                }
            }
            self.close(out);
        }
    }

    fn begin(&mut self, block: Value, out: &mut BytesMut) {
        let event = json!({"type": "content_block_start", "index": self.blocks, "content_block": block});
        write_event(Some("content_block_start"), &event, out);
        self.blocks += 1;
    }

    fn delta(&self, delta: Value, out: &mut BytesMut) {
        let event = json!({"type": "content_block_delta", "index": self.blocks - 1, "delta": delta});
        write_event(Some("content_block_delta"), &event, out);
    }

    fn close(&mut self, out: &mut BytesMut) {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => {}
            Open::Text | Open::Call { .. } => {
                let event = json!({"type": "content_block_stop", "index": self.blocks - 1});
                write_event(Some("content_block_stop"), &event, out);
            }
        }
    }

    fn keep(&mut self, bytes: usize) -> Read<()> {
        self.kept_bytes += bytes;
        if self.kept_bytes > MAX_HELD_BYTES {
            return Err(Untranslatable::new("tool_calls", "is longer than 4 MiB"));
        }
        Ok(())
    }
}

fn owned(stop: Stop<'_>) -> Stop<'static> {
    match stop {
        Stop::End => Stop::End,
        Stop::Sequence(sequence) => Stop::Sequence(sequence.into_owned().into()),
        Stop::Length => Stop::Length,
        Stop::Calls => Stop::Calls,
        Stop::Refusal => Stop::Refusal,
    }
}
