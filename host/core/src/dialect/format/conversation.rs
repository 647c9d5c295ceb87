//! A dialect's side of every translation: its requests and answers in neutral form, and back.

use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::api::Api;
use super::neutral::{Answer, News, Request};
use super::read::{LeftOut, Read};
use crate::contract::Operation;
use crate::http::sse::Event;
use crate::time::Timestamp;

/// The most tokens of an answer where the chat client did not say: Anthropic's API demands a number, and this is one
/// that even small models behind that API take.
pub const DEFAULT_MAX_TOKENS: u64 = 8_192;

/// The most tool calls of one answer.
pub(in crate::dialect) const MAX_CALLS: usize = 256;

/// One dialect's conversations. Readers are strict with requests and refuse what the target cannot take; writers can write all
/// that the neutral form holds.
pub trait Conversation: fmt::Debug + Send + Sync {
    /// The API as the target of a translation.
    fn api(&self) -> &'static Api;

    /// The operation of the contract that such a request is.
    fn operation(&self) -> Operation;

    /// The path of a request under a base URL.
    fn path(&self, model: &str, stream: bool) -> Cow<'static, str>;

    /// The beginning of an answer's id, where one has to be made up.
    fn id_prefix(&self) -> &'static str {
        "answer-"
    }

    /// Reads a request that is to be written for `target`. Fields that tune the answer and that `target` cannot take are
    /// added to `left_out`.
    ///
    /// # Errors
    /// A field that changes the meaning and that `target` cannot take, or that is malformed.
    fn read_request<'a>(&self, body: &'a [u8], target: &'static Api, left_out: &LeftOut) -> Read<Request<'a>>;

    /// Writes a neutral request in this format.
    fn write_request(&self, request: &Request<'_>) -> Bytes;

    /// Changes a written request for one backend, by its host and the name that it has for the model.
    fn adapt_request(&self, body: &Bytes, model: &str, host: &str) -> Bytes;

    /// The path of the member that says how hard to think.
    fn effort_path(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns false for a model that refuses to be told so, by the names that the providers gave it.
    fn takes_effort(&self, _model: &str) -> bool {
        true
    }

    /// Reads a whole answer for a client of `target`.
    ///
    /// # Errors
    /// It is no answer, or has something that was not asked for.
    fn read_answer<'a>(&self, body: &'a [u8], target: &'static Api) -> Read<Answer<'a>>;

    /// Writes a whole answer. `asked_model` stands in for a model that the answer does not name.
    fn write_answer(&self, answer: &Answer<'_>, asked_model: &str, now: Timestamp) -> Bytes;

    /// Reads a stream for a client of `target`.
    fn stream_reader(&self, target: &'static Api) -> Box<dyn StreamReader>;

    /// Writes a stream that begins now. `asked_model` stands in for a model that the answer does not name; `include_usage`:
    /// the client of a chat stream asked for the usage.
    fn stream_writer(&self, asked_model: &str, include_usage: bool, now: Timestamp) -> Box<dyn StreamWriter>;
}

/// Reads the events of one stream.
pub trait StreamReader: fmt::Debug + Send + Sync {
    /// Tells what an event says, in order.
    ///
    /// # Errors
    /// The event is malformed or has something that was not asked for; or `tell` failed.
    fn read<'a>(&mut self, event: &Event<'a>, tell: &mut dyn FnMut(News<'a>) -> Read<()>) -> Read<()>;
}

/// Writes the events of one stream.
pub trait StreamWriter: fmt::Debug + Send + Sync {
    /// Adds to `out` the events that say this.
    ///
    /// # Errors
    /// It cannot be said in this order.
    fn write(&mut self, news: News<'_>, out: &mut BytesMut) -> Read<()>;

    /// Returns true if the model said why it stopped.
    fn has_stopped(&self) -> bool;

    /// Adds the end that clients wait for, unless it was written or the model never said that it had finished.
    fn finish(&mut self, out: &mut BytesMut);
}

/// A body of a type of our own.
pub(in crate::dialect) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("our own types are always JSON").into()
}
