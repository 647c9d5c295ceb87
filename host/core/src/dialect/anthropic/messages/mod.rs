//! Conversations as messages.

mod call_id;
mod read_answer;
mod read_request;
mod read_stream;
mod read_tools;
mod read_turns;
mod write_answer;
mod write_request;
mod write_stream;

use std::borrow::Cow;

use bytes::Bytes;

use crate::contract::Operation;
use crate::dialect::format::edit::with_model;
use crate::dialect::format::neutral::{Answer, Request};
use crate::dialect::format::read::Field;
use crate::dialect::format::{Api, Conversation, LeftOut, Read, StreamReader, StreamWriter, json};
use crate::time::Timestamp;

/// Conversations of the messages API.
#[derive(Debug)]
pub(super) struct Messages;

static API: Api = Api {
    name: "Anthropic's messages API",
    max_stop_sequences: usize::MAX,
    takes_blank_stop_sequences: false,
    max_temperature: 1.0,
    takes_late_instructions: false,
    continues_the_assistant: true,
    takes_empty_messages: false,
    takes_pictures_in_results: true,
    has_json_mode: false,
    takes_top_p_beside_temperature: false,
    needs_tools_beside_calls: true,
    max_tool_name_chars: 128,
    max_user_chars: 256,
    pictures: Some((&["image/jpeg", "image/png", "image/gif", "image/webp"], "JPEG, PNG, GIF or WebP")),
};

/// Parts of the names of models that came before `output_config.effort`, and refuse it.
const NO_EFFORT: [&str; 10] = [
    "claude-2",
    "claude-3",
    "claude-instant",
    "claude-haiku-4",
    "claude-sonnet-4-0",
    "claude-sonnet-4-2",
    "claude-sonnet-4-5",
    "claude-opus-4-0",
    "claude-opus-4-1",
    "claude-opus-4-2",
];

impl Conversation for Messages {
    fn api(&self) -> &'static Api {
        &API
    }

    fn operation(&self) -> Operation {
        Operation::Message
    }

    fn path(&self, _model: &str, _stream: bool) -> Cow<'static, str> {
        "/v1/messages".into()
    }

    fn id_prefix(&self) -> &'static str {
        "msg_"
    }

    fn read_request<'a>(&self, body: &'a [u8], target: &'static Api, left_out: &LeftOut) -> Read<Request<'a>> {
        read_request::read(Field::request(body, target, left_out)?)
    }

    fn write_request(&self, request: &Request<'_>) -> Bytes {
        json(&write_request::write(request))
    }

    fn adapt_request(&self, body: &Bytes, model: &str, _host: &str) -> Bytes {
        with_model(body, model)
    }

    fn effort_path(&self) -> &'static [&'static str] {
        &["output_config", "effort"]
    }

    fn takes_effort(&self, model: &str) -> bool {
        !NO_EFFORT.iter().any(|part| model.contains(part))
    }

    fn read_answer<'a>(&self, body: &'a [u8], target: &'static Api) -> Read<Answer<'a>> {
        read_answer::read(body, target)
    }

    fn write_answer(&self, answer: &Answer<'_>, asked_model: &str, _now: Timestamp) -> Bytes {
        json(&write_answer::write(answer, asked_model))
    }

    fn stream_reader(&self, target: &'static Api) -> Box<dyn StreamReader> {
        Box::new(read_stream::Reader::new(target))
    }

    fn stream_writer(&self, asked_model: &str, _include_usage: bool, _now: Timestamp) -> Box<dyn StreamWriter> {
        Box::new(write_stream::Writer::new(asked_model))
    }
}
