//! Writes chat completion chunks.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::write_answer::{finish_reason, usage};
use crate::dialect::format::neutral::{Head, News, Usage};
use crate::dialect::format::{Read, StreamWriter, write_event};
use crate::time::Timestamp;

/// A stream that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    id: String,
    model: String,
    created: u64,
    include_usage: bool,
    usage: Usage,
    /// For each tool call, true once some of its input was written.
    inputs: Vec<bool>,
    stopped: bool,
    ended: bool,
}

impl Writer {
    pub(super) fn new(asked_model: &str, include_usage: bool, now: Timestamp) -> Self {
        Self {
            id: String::new(),
            model: asked_model.to_owned(),
            created: now.as_millis() / 1_000,
            include_usage,
            usage: Usage::default(),
            inputs: Vec::new(),
            stopped: false,
            ended: false,
        }
    }
}

impl StreamWriter for Writer {
    fn write(&mut self, news: News<'_>, out: &mut BytesMut) -> Read<()> {
        match news {
            News::Start(Head { id, model }) => {
                self.id = id.into_owned();
                if !model.is_empty() {
                    self.model = model.into_owned();
                }
                self.delta(json!({"role": "assistant", "content": ""}), out);
            }
            News::Text(text) if text.is_empty() => {}
            News::Text(text) => self.delta(json!({"content": text}), out),
            News::Call { number, id, name } => {
                self.inputs.push(false);
                let function = json!({"name": name, "arguments": ""});
                let call = json!({"index": number, "id": id, "type": "function", "function": function});
                self.delta(json!({"tool_calls": [call]}), out);
            }
            News::Input { number, json } => self.input(number, &json, out),
            // No input at all is an empty object.
            News::CallEnd { number } if self.inputs.get(number) == Some(&false) => self.input(number, "{}", out),
            News::CallEnd { .. } => {}
            News::Stop(stop) => {
                self.stopped = true;
                self.chunk(
                    json!([{
                        "index": 0, "delta": {}, "logprobs": null, "finish_reason": finish_reason(&stop),
                    }]),
                    out,
                );
            }
            News::Usage(usage) => self.usage = usage,
            News::Ping => out.extend_from_slice(b": ping\n\n"),
            News::End => self.end(out),
        }
        Ok(())
    }

    fn has_stopped(&self) -> bool {
        self.stopped
    }

    fn finish(&mut self, out: &mut BytesMut) {
        if self.stopped {
            self.end(out);
        }
    }
}

impl Writer {
    fn end(&mut self, out: &mut BytesMut) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if self.include_usage {
            let mut chunk = self.skeleton(json!([]));
            chunk["usage"] = usage(&self.usage);
            write_event(None, &chunk, out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn input(&mut self, number: usize, piece: &str, out: &mut BytesMut) {
        if piece.is_empty() {
            return;
        }
        if let Some(written) = self.inputs.get_mut(number) {
            *written = true;
        }
        self.delta(json!({"tool_calls": [{"index": number, "function": {"arguments": piece}}]}), out);
    }

    fn delta(&self, delta: Value, out: &mut BytesMut) {
        self.chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]), out);
    }

    /// A chunk that is not the usage's says so, but only to who asked for the usage.
    fn chunk(&self, choices: Value, out: &mut BytesMut) {
        let mut chunk = self.skeleton(choices);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        write_event(None, &chunk, out);
    }

    fn skeleton(&self, choices: Value) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": choices,
        })
    }
}
