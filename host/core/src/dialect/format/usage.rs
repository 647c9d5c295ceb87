//! Sums over an answer: token counts, events, bytes of content.

use super::WireFormat;
use super::ends::Ends;
use super::opened::Opened;
use crate::http::json::{self, Cursor};
use crate::usage::Usage;

/// The token counts of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Tokens of the prompt, without those that stand beside it.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// Tokens of the prompt that came from a cache and are part of `input`.
    pub cached: u64,
    /// Tokens that came from a cache and stand beside the input (Anthropic).
    pub cache_read: u64,
    /// Tokens that were written to a cache and stand beside the input (Anthropic).
    pub cache_written: u64,
}

impl Counts {
    /// Reads a usage object by the names in use: takes over what it says and leaves what it does not.
    pub fn read(&mut self, usage: &[u8]) {
        for (key, value) in json::members(usage) {
            let slot = match key {
                b"prompt_tokens" | b"input_tokens" => &mut self.input,
                b"completion_tokens" | b"output_tokens" => &mut self.output,
                b"cache_read_input_tokens" => &mut self.cache_read,
                b"cache_creation_input_tokens" => &mut self.cache_written,
                // DeepSeek's.
                b"prompt_cache_hit_tokens" => &mut self.cached,
                b"prompt_tokens_details" | b"input_tokens_details" => {
                    if let Some(cached) = json::member(value, "cached_tokens").and_then(json::count) {
                        self.cached = cached;
                    }
                    continue;
                }
                _ => continue,
            };
            if let Some(count) = json::count(value) {
                *slot = count;
            }
        }
    }

    pub(in crate::dialect) fn usage(&self) -> Usage {
        Usage {
            input_tokens: self.input.saturating_add(self.cache_read).saturating_add(self.cache_written),
            output_tokens: self.output,
            cached_input_tokens: self.cached.saturating_add(self.cache_read),
            estimated: false,
        }
    }
}

/// Kind of an event of a stream, for the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It carries text, a tool call or anything else a user would miss.
    Content,
    /// It says why the answer ends.
    Finish,
    /// It carries the usage and nothing else (`stream_options.include_usage`): for us, if the client did not ask.
    UsageOnly,
    /// It ends the stream as it should end.
    Done,
    /// It is an error; `classify_event` says which.
    Error,
    /// Roles, pings, comments, progress.
    Other,
}

/// Sums over the events of one stream.
#[derive(Clone, Debug)]
pub struct Tally {
    pub(in crate::dialect) counts: Counts,
    /// The prompt's size is the provider's word.
    pub(in crate::dialect) is_input_known: bool,
    /// The answer's size is the provider's word, and its last.
    pub(in crate::dialect) is_output_known: bool,
    pub(in crate::dialect) content_events: u64,
    pub(in crate::dialect) content_bytes: u64,
    pub(in crate::dialect) finished: bool,
    /// The finish reason explains an answer without content.
    pub(in crate::dialect) explains_empty: bool,
    pub(in crate::dialect) done: bool,
    /// Ends of the choices, where a stream has several.
    pub(in crate::dialect) ends: Ends,
    /// The last event before the end came: usage of an answer that had finished.
    pub(in crate::dialect) has_told_all: bool,
    /// What an error event of ours must agree with, in streams that number their events.
    pub(in crate::dialect) opened: Opened,
    format: &'static dyn WireFormat,
}

impl Tally {
    /// A tally of no events, of a stream in this format.
    pub(in crate::dialect) fn new(format: &'static dyn WireFormat) -> Self {
        Self {
            counts: Counts::default(),
            is_input_known: false,
            is_output_known: false,
            content_events: 0,
            content_bytes: 0,
            finished: false,
            explains_empty: false,
            done: false,
            ends: Ends::default(),
            has_told_all: false,
            opened: Opened::default(),
            format,
        }
    }

    /// Counts an event with so many bytes of content. More content withdraws a finish reason that came before it.
    pub fn content(&mut self, bytes: usize) -> Sight {
        self.content_events += 1;
        self.finished = false;
        self.content_bytes += bytes as u64;
        Sight::Content
    }

    /// The model said why it stopped.
    pub fn finish(&mut self) -> Sight {
        self.finished = true;
        Sight::Finish
    }

    /// Sees an event of one choice of several.
    pub(in crate::dialect) fn choice(&mut self, index: u64, has_content: bool, has_ended: bool) {
        self.ends.see(index, has_content, has_ended);
    }

    /// The stream's own end.
    pub fn end(&mut self) -> Sight {
        self.done = true;
        Sight::Done
    }

    /// Reads the usage of the whole answer.
    pub fn read_usage(&mut self, usage: &[u8]) {
        self.format.read_usage(usage, &mut self.counts);
        self.is_input_known = true;
        self.is_output_known = true;
    }

    /// Reads a usage that tells only the prompt's size for certain.
    pub fn read_input_usage(&mut self, usage: &[u8]) {
        self.format.read_usage(usage, &mut self.counts);
        self.is_input_known = true;
    }
}

/// Bytes of content in the delta that comes next.
pub(in crate::dialect) fn content_bytes(at: &mut Cursor<'_>) -> usize {
    if !at.enter(b'{') {
        at.value();
        return 0;
    }
    let mut bytes = 0;
    while let Some(name) = at.name() {
        let value = at.value();
        if !matches!(name, b"role" | b"type" | b"index") {
            bytes += filled_length(value);
        }
    }
    bytes
}

/// Bytes of a value without its quotes; at least one when it holds anything.
pub(in crate::dialect) fn filled_length(value: &[u8]) -> usize {
    if json::is_filled(value) { value.len().saturating_sub(2).max(1) } else { 0 }
}
