//! Conversations as chat completions.

mod read_answer;
mod read_request;
mod read_stream;
mod read_turns;
mod write_answer;
mod write_request;
mod write_stream;

use std::borrow::Cow;

use bytes::Bytes;

use crate::contract::Operation;
use crate::dialect::format::edit::{rename_member, with_model};
use crate::dialect::format::neutral::{Answer, Request};
use crate::dialect::format::read::Field;
use crate::dialect::format::{Api, Conversation, LeftOut, Read, StreamReader, StreamWriter, json};
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct ChatCompletions;

/// The length of `user` is what OpenAI's own 400 says; other servers take up to 128.
static API: Api = Api {
    name: "OpenAI's chat completions API",
    max_stop_sequences: 4,
    takes_blank_stop_sequences: true,
    max_temperature: 2.0,
    takes_late_instructions: true,
    continues_the_assistant: false,
    takes_empty_messages: true,
    takes_pictures_in_results: false,
    has_json_mode: true,
    takes_top_p_beside_temperature: true,
    needs_tools_beside_calls: false,
    max_tool_name_chars: 64,
    max_user_chars: 64,
    pictures: None,
};

/// Hosts whose servers refuse `max_tokens` for their newer models. Most others know no other name.
const OWN_HOSTS: [&str; 2] = ["openai.com", "openai.azure.com"];

/// Parts of the names of models that do not reason, or not at will: OpenAI and Groq refuse a `reasoning_effort` for theirs.
const NO_EFFORT: [&str; 12] = [
    "gpt-4",
    "gpt-3",
    "chatgpt",
    "llama",
    "mistral",
    "mixtral",
    "codestral",
    "ministral",
    "gemma",
    "qwen2",
    "command-",
    "phi-",
];

impl Conversation for ChatCompletions {
    fn api(&self) -> &'static Api {
        &API
    }

    fn operation(&self) -> Operation {
        Operation::Chat
    }

    fn path(&self, _model: &str, _stream: bool) -> Cow<'static, str> {
        "/v1/chat/completions".into()
    }

    fn id_prefix(&self) -> &'static str {
        "chatcmpl-"
    }

    fn read_request<'a>(&self, body: &'a [u8], target: &'static Api, left_out: &LeftOut) -> Read<Request<'a>> {
        read_request::read(Field::request(body, target, left_out)?)
    }

    fn write_request(&self, request: &Request<'_>) -> Bytes {
        json(&write_request::write(request))
    }

    fn adapt_request(&self, body: &Bytes, model: &str, host: &str) -> Bytes {
        let body = with_model(body, model);
        let is_own = |own: &str| host.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if OWN_HOSTS.into_iter().any(is_own) {
            rename_member(&body, "max_tokens", "max_completion_tokens")
        } else {
            body
        }
    }

    fn effort_path(&self) -> &'static [&'static str] {
        &["reasoning_effort"]
    }

    fn takes_effort(&self, model: &str) -> bool {
        let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
        !NO_EFFORT.iter().any(|part| name.contains(part))
    }

    fn read_answer<'a>(&self, body: &'a [u8], target: &'static Api) -> Read<Answer<'a>> {
        read_answer::read(body, target)
    }

    fn write_answer(&self, answer: &Answer<'_>, asked_model: &str, now: Timestamp) -> Bytes {
        json(&write_answer::write(answer, asked_model, now))
    }

    fn stream_reader(&self, target: &'static Api) -> Box<dyn StreamReader> {
        Box::new(read_stream::Reader::new(target))
    }

    fn stream_writer(&self, asked_model: &str, include_usage: bool, now: Timestamp) -> Box<dyn StreamWriter> {
        Box::new(write_stream::Writer::new(asked_model, include_usage, now))
    }
}
