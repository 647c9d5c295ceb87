//! A stream's events: what each is to the relay, and what the whole has used.

use super::Counts;
use crate::contract::Operation;
use crate::http::json::{self, Cursor};
use crate::http::sse::Event;
use crate::record::Usage;
use crate::table::Dialect;

/// Bytes of answer text that count as one token where the provider does not count.
const BYTES_PER_TOKEN: u64 = 4;

/// What an event of a stream is to the relay.
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

/// Watches the events of one stream.
#[derive(Clone, Debug)]
pub struct StreamTap {
    format: Format,
    counts: Counts,
    /// The prompt's size is the provider's word.
    input_told: bool,
    /// The answer's size is the provider's word, and its last.
    output_told: bool,
    content_events: u64,
    content_bytes: u64,
    finished: bool,
    done: bool,
}

/// The families of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dialect) enum Format {
    /// OpenAI's chat completions and completions.
    Choices,
    /// OpenAI's Responses API.
    Responses,
    /// Anthropic's messages.
    Messages,
    /// Any other.
    Plain,
}

impl Format {
    /// The stream that such a backend answers such a request with.
    pub(in crate::dialect) const fn of(dialect: Dialect, operation: Operation) -> Self {
        match (dialect, operation) {
            (Dialect::Plain, _) => Format::Plain,
            (Dialect::Anthropic, _) | (Dialect::Openai, Operation::Message) => Format::Messages,
            (Dialect::Openai, Operation::Response) => Format::Responses,
            (Dialect::Openai, Operation::Chat | Operation::Completion | Operation::Embedding | Operation::Other) => {
                Format::Choices
            }
        }
    }
}

impl StreamTap {
    /// A tap for the stream that such a backend answers such a request with.
    pub fn new(dialect: Dialect, operation: Operation) -> Self {
        Self {
            format: Format::of(dialect, operation),
            counts: Counts::default(),
            input_told: false,
            output_told: false,
            content_events: 0,
            content_bytes: 0,
            finished: false,
            done: false,
        }
    }

    /// Looks at an event. Never allocates; reads each of its bytes at most once.
    pub fn see(&mut self, event: &Event<'_>) -> Sight {
        let Some(data) = event.data else { return Sight::Other };
        match self.format {
            Format::Choices => self.see_choices(event.name, data),
            Format::Responses => self.see_responses(event.name, data),
            Format::Messages => self.see_messages(event.name, data),
            Format::Plain => self.see_plain(event.name, data),
        }
    }

    /// Has the model said why it stopped?
    pub const fn finished(&self) -> bool {
        self.finished
    }

    /// Has the stream ended the way this dialect ends a stream? An end before that is a cut. A `plain` stream has
    /// no such way: its end is its end.
    pub const fn ended_well(&self) -> bool {
        self.done || matches!(self.format, Format::Plain)
    }

    /// Does this dialect end a stream with an event of its own?
    pub const fn has_end(&self) -> bool {
        !matches!(self.format, Format::Plain)
    }

    /// What a stream whose model had finished lacks when it just stops: the end that its clients wait for.
    pub const fn missing_end(&self) -> &'static [u8] {
        match self.format {
            Format::Choices => b"data: [DONE]\n\n",
            Format::Messages => b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            // A response's last event is its finish; plain streams have no end of their own.
            Format::Responses | Format::Plain => b"",
        }
    }

    /// Events that carried content so far.
    pub const fn content_events(&self) -> u64 {
        self.content_events
    }

    /// What was used so far: as told; estimated where the stream did not get to tell it and content has flowed.
    pub fn usage(&self, prompt_tokens_estimate: u32) -> Usage {
        let mut usage = self.counts.usage();
        if self.format == Format::Plain || (self.content_events == 0 && !self.input_told && !self.output_told) {
            return usage;
        }
        if !self.input_told {
            usage.input_tokens = u64::from(prompt_tokens_estimate);
            usage.estimated = true;
        }
        if !self.output_told {
            // Most providers send a token an event; some bundle, and then the text's length says more.
            let seen = self.content_events.max(self.content_bytes.div_ceil(BYTES_PER_TOKEN));
            usage.output_tokens = usage.output_tokens.max(seen);
            usage.estimated = true;
        }
        usage
    }

    fn content(&mut self, bytes: usize) -> Sight {
        self.content_events += 1;
        self.content_bytes += bytes as u64;
        Sight::Content
    }

    fn told(&mut self, usage: &[u8]) {
        self.counts.read(usage);
        self.input_told = true;
        self.output_told = true;
    }

    fn see_choices(&mut self, name: Option<&[u8]>, data: &[u8]) -> Sight {
        if data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return Sight::Done;
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
                        self.told(value);
                    }
                }
                b"error" => error = json::is_filled(at.value()),
                _ => {
                    at.value();
                }
            }
        }
        self.finished |= finish;
        match (error, content, finish) {
            (true, 0, _) => Sight::Error,
            (_, 1.., _) => self.content(content),
            (false, 0, true) => Sight::Finish,
            (false, 0, false) if usage && !choices => Sight::UsageOnly,
            (false, 0, false) => Sight::Other,
        }
    }

    fn see_responses(&mut self, name: Option<&[u8]>, data: &[u8]) -> Sight {
        let kind = name.or_else(|| json::member(data, "type").and_then(json::raw_str)).unwrap_or_default();
        match kind {
            b"response.completed" | b"response.incomplete" => {
                if let Some(usage) = json::member(data, "response").and_then(|r| json::member(r, "usage")) {
                    self.told(usage);
                }
                self.finished = true;
                self.done = true;
                Sight::Done
            }
            b"response.failed" | b"error" => Sight::Error,
            _ if kind.ends_with(b".delta") => match json::member(data, "delta") {
                Some(delta) if json::is_filled(delta) => self.content(delta.len().saturating_sub(2)),
                Some(_) | None => Sight::Other,
            },
            _ if data.trim_ascii() == b"[DONE]" => {
                self.done = true;
                Sight::Done
            }
            _ => Sight::Other,
        }
    }

    fn see_messages(&mut self, name: Option<&[u8]>, data: &[u8]) -> Sight {
        let kind = name.or_else(|| json::member(data, "type").and_then(json::raw_str)).unwrap_or_default();
        match kind {
            b"content_block_delta" => {
                let bytes = json::member(data, "delta").map_or(0, |delta| filled_bytes(&mut Cursor::new(delta)));
                if bytes > 0 { self.content(bytes) } else { Sight::Other }
            }
            b"content_block_start" => {
                // A tool call is news by its name alone; a block of text begins empty.
                let block = json::member(data, "content_block").unwrap_or_default();
                if json::member(block, "name").is_some() { self.content(0) } else { Sight::Other }
            }
            b"message_start" => {
                if let Some(usage) = json::member(data, "message").and_then(|m| json::member(m, "usage")) {
                    self.counts.read(usage);
                    self.input_told = true;
                }
                Sight::Other
            }
            b"message_delta" => {
                if let Some(usage) = json::member(data, "usage") {
                    self.told(usage);
                }
                self.finished = true;
                Sight::Finish
            }
            b"message_stop" => {
                self.done = true;
                Sight::Done
            }
            b"error" => Sight::Error,
            _ => Sight::Other,
        }
    }

    fn see_plain(&mut self, name: Option<&[u8]>, data: &[u8]) -> Sight {
        match name {
            Some(b"error") => Sight::Error,
            Some(_) | None if data.is_empty() => Sight::Other,
            Some(_) | None => self.content(data.len()),
        }
    }
}

/// Bytes of content in one choice of a chunk; any filled member of the delta but its role is content, so that
/// reasoning, tool calls, refusals and what is invented next year count.
fn choice_content(at: &mut Cursor<'_>, finish: &mut bool) -> usize {
    if !at.enter(b'{') {
        at.value();
        return 0;
    }
    let mut bytes = 0;
    while let Some(name) = at.name() {
        match name {
            b"delta" | b"message" => bytes += filled_bytes(at),
            b"text" => bytes += length(at.value()),
            b"finish_reason" => *finish |= json::is_filled(at.value()),
            _ => {
                at.value();
            }
        }
    }
    bytes
}

fn filled_bytes(at: &mut Cursor<'_>) -> usize {
    if !at.enter(b'{') {
        at.value();
        return 0;
    }
    let mut bytes = 0;
    while let Some(name) = at.name() {
        let value = at.value();
        if !matches!(name, b"role" | b"type" | b"index") {
            bytes += length(value);
        }
    }
    bytes
}

/// Bytes of a value without its quotes; at least one when it holds anything.
fn length(value: &[u8]) -> usize {
    if json::is_filled(value) { value.len().saturating_sub(2).max(1) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event<'a>(name: Option<&'a str>, data: &'a str) -> Event<'a> {
        Event { raw: b"", name: name.map(str::as_bytes), data: Some(data.as_bytes()) }
    }

    fn told(input: u64, output: u64, cached: u64) -> Usage {
        Usage { input_tokens: input, output_tokens: output, cached_input_tokens: cached, estimated: false }
    }

    const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
    const HELLO: &str =
        r#"{"id":"c","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}],"usage":null}"#;
    const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    const USED: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4}}}"#;

    #[test]
    fn a_chat_stream_is_seen_event_by_event() {
        let mut tap = StreamTap::new(Dialect::Openai, Operation::Chat);
        let sights: Vec<Sight> = [ROLE, HELLO, STOP, USED, "[DONE]"].map(|d| tap.see(&event(None, d))).to_vec();
        assert_eq!(sights, [Sight::Other, Sight::Content, Sight::Finish, Sight::UsageOnly, Sight::Done]);
        assert!(tap.finished() && tap.ended_well());
        assert_eq!(tap.usage(77), told(9, 2, 4));
    }

    #[test]
    fn anything_a_user_would_miss_is_content() {
        let mut tap = StreamTap::new(Dialect::Openai, Operation::Chat);
        for (data, sight) in [
            (r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#, Sight::Content),
            (r#"{"choices":[{"delta":{"content": "x"}}]}"#, Sight::Content),
            (r#"{"choices":[{"delta":{"content":null,"tool_calls":[{"index":0}]}}]}"#, Sight::Content),
            (r#"{"choices":[{"delta":{"content":null,"tool_calls":[]}}]}"#, Sight::Other),
            (r#"{"choices":[{"delta":{"refusal":"no"}}]}"#, Sight::Content),
            (r#"{"choices":[{"text":"x","finish_reason":"length"}]}"#, Sight::Content),
            (r#"{"choices":[{"text":"","finish_reason":null}]}"#, Sight::Other),
            (
                r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#,
                Sight::Content,
            ),
            (r#"{"choices":[],"prompt_filter_results":[{}]}"#, Sight::Other),
            (r#"{"error":{"message":"x"},"choices":[]}"#, Sight::Error),
            ("not json", Sight::Other),
            ("", Sight::Other),
            ("{", Sight::Other),
        ] {
            assert_eq!(tap.see(&event(None, data)), sight, "{data}");
        }
        assert!(tap.finished() && !tap.ended_well());
        assert_eq!(tap.see(&Event { raw: b": ping\n\n", name: None, data: None }), Sight::Other);
    }

    #[test]
    fn a_cut_stream_is_estimated_from_what_flowed() {
        let mut tap = StreamTap::new(Dialect::Openai, Operation::Chat);
        assert_eq!(tap.usage(50), Usage::default());
        for _ in 0..10 {
            tap.see(&event(None, HELLO));
        }
        let usage = tap.usage(50);
        assert_eq!(usage, Usage { input_tokens: 50, output_tokens: 13, cached_input_tokens: 0, estimated: true });
    }

    #[test]
    fn a_message_stream_counts_its_prompt_at_the_start_and_its_answer_at_the_end() {
        let mut tap = StreamTap::new(Dialect::Anthropic, Operation::Message);
        let start = r#"{"type":"message_start","message":{"id":"m","usage":{"input_tokens":10,"cache_creation_input_tokens":3,"cache_read_input_tokens":5,"output_tokens":1}}}"#;
        let block = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
        let tool = r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#;
        let delta = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"#;
        for (name, data, sight) in [
            ("message_start", start, Sight::Other),
            ("content_block_start", block, Sight::Other),
            ("ping", r#"{"type":"ping"}"#, Sight::Other),
            ("content_block_delta", delta, Sight::Content),
            ("content_block_start", tool, Sight::Content),
        ] {
            assert_eq!(tap.see(&event(Some(name), data)), sight, "{name}");
        }
        assert_eq!(tap.see(&event(None, delta)), Sight::Content);
        let cut = tap.usage(99);
        assert_eq!((cut.input_tokens, cut.output_tokens, cut.cached_input_tokens, cut.estimated), (18, 3, 5, true));
        let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}"#;
        assert_eq!(tap.see(&event(Some("message_delta"), end)), Sight::Finish);
        assert!(!tap.ended_well());
        assert_eq!(tap.see(&event(Some("message_stop"), r#"{"type":"message_stop"}"#)), Sight::Done);
        assert!(tap.ended_well());
        assert_eq!(tap.usage(99), told(18, 15, 5));
        assert_eq!(tap.see(&event(Some("error"), "{}")), Sight::Error);
    }

    #[test]
    fn a_responses_stream_ends_with_its_usage() {
        let mut tap = StreamTap::new(Dialect::Openai, Operation::Response);
        let completed = r#"{"type":"response.completed","response":{"output":[{"a":[1]}],"usage":{"input_tokens":8,"input_tokens_details":{"cached_tokens":2},"output_tokens":5}}}"#;
        for (name, data, sight) in [
            ("response.created", r#"{"type":"response.created","response":{"usage":null}}"#, Sight::Other),
            ("response.output_text.delta", r#"{"type":"response.output_text.delta","delta":"Hi"}"#, Sight::Content),
            ("response.function_call_arguments.delta", r#"{"delta":"{"}"#, Sight::Content),
            ("response.output_text.delta", r#"{"delta":""}"#, Sight::Other),
            ("response.completed", completed, Sight::Done),
        ] {
            assert_eq!(tap.see(&event(Some(name), data)), sight, "{name}");
        }
        assert!(tap.finished() && tap.ended_well());
        assert_eq!(tap.usage(1), told(8, 5, 2));
        assert_eq!(tap.see(&event(None, r#"{"type":"response.failed"}"#)), Sight::Error);
    }

    #[test]
    fn a_plain_stream_has_content_and_no_usage() {
        let mut tap = StreamTap::new(Dialect::Plain, Operation::Other);
        assert_eq!(tap.see(&event(None, "tick")), Sight::Content);
        assert_eq!(tap.see(&event(Some("error"), "tick")), Sight::Error);
        assert!(tap.ended_well());
        assert_eq!(tap.usage(5), Usage::default());
    }
}
