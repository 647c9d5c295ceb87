//! A stream's events: what each is to the relay, and what the whole has used.

use super::BYTES_PER_TOKEN;
use super::plausible::{Asked, Flowed, usage};
use crate::contract::Operation;
use crate::dialect::format::{Opened, Sight, StreamFormat, Tally};
use crate::dialect::registry::Dialect;
use crate::http::sse::Event;
use crate::usage::Usage;

/// Watches the events of one stream.
#[derive(Clone, Debug)]
pub struct StreamTap {
    format: &'static dyn StreamFormat,
    tally: Tally,
}

impl StreamTap {
    /// A tap for the stream that such a backend answers such a request with.
    pub fn new(dialect: Dialect, operation: Operation) -> Self {
        let format = dialect.format();
        Self { format: format.stream(operation), tally: Tally::new(format) }
    }

    /// The same for a request of so many answers at once.
    pub fn expecting(mut self, answers: u32) -> Self {
        self.tally.ends.expect(answers);
        self
    }

    /// Looks at an event. Allocates at most once a stream; reads each of its bytes at most twice.
    pub fn see(&mut self, event: &Event<'_>) -> Sight {
        match event.data {
            Some(data) => self.format.see(&mut self.tally, event.name, data),
            None if event.name == Some(b"error") => Sight::Error,
            None => Sight::Other,
        }
    }

    /// Returns the names and numbers of the stream so far, where an error event must agree with them.
    pub fn opened(&self) -> &Opened {
        &self.tally.opened
    }

    /// Returns true once all that comes before the stream's own end has come: the answer was finished, and its usage told
    /// after that.
    pub const fn has_told_all(&self) -> bool {
        self.tally.has_told_all
    }

    /// Returns true if it has content, its provider counted tokens of it, or its finish reason explains why it has none.
    pub const fn has_answer(&self) -> bool {
        self.tally.content_events > 0 || self.tally.counts.output > 0 || self.tally.explains_empty
    }

    /// Returns true once the model has given its finish reason, of every choice and as its last word.
    pub const fn finished(&self) -> bool {
        self.tally.finished
    }

    /// Returns true if the stream has ended with the dialect's end event. An end without it is a cut. A stream that
    /// passes unread has no end event, and always ends well.
    pub fn ended_well(&self) -> bool {
        self.tally.done || self.format.is_opaque()
    }

    /// Returns true if streams of this dialect end with an event of their own.
    pub fn has_end(&self) -> bool {
        !self.format.is_opaque()
    }

    /// Returns the end event that a stream lacks that just stopped after its finish reason.
    pub fn missing_end(&self) -> &'static [u8] {
        self.format.missing_end()
    }

    /// Returns true once the provider has told of tokens.
    pub const fn is_told(&self) -> bool {
        self.tally.is_told
    }

    /// Events that carried content so far.
    pub const fn content_events(&self) -> u64 {
        self.tally.content_events
    }

    /// Returns the usage so far: as told, or estimated where content has come and what the stream tells cannot be.
    pub fn usage(&self, asked: &Asked<'_>) -> Usage {
        let tally = &self.tally;
        if self.format.is_opaque() || tally.content_events == 0 && !tally.is_told {
            return Usage::default();
        }
        // Most providers send a token an event; some bundle, and then the text's length says more.
        let tokens = tally.content_events.max(tally.content_bytes.div_ceil(BYTES_PER_TOKEN));
        usage(&tally.counts, tally.is_output_final, Flowed { tokens, bytes: tally.content_bytes }, asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event<'a>(name: Option<&'a str>, data: &'a str) -> Event<'a> {
        Event { raw: b"", name: name.map(str::as_bytes), data: Some(data.as_bytes()) }
    }

    fn told(input: u64, output: u64, cached: u64) -> Usage {
        Usage { input_tokens: input, output_tokens: output, cached_input_tokens: cached, ..Usage::default() }
    }

    fn asked(prompt_tokens: u32) -> Asked<'static> {
        Asked { prompt_tokens, ..Asked::default() }
    }

    const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
    const HELLO: &str =
        r#"{"id":"c","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}],"usage":null}"#;
    const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    const USED: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4}}}"#;

    #[test]
    fn a_chat_stream_is_seen_event_by_event() {
        let mut tap = StreamTap::new(Dialect::OPENAI, Operation::Chat);
        let sights: Vec<Sight> = [ROLE, HELLO, STOP, USED, "[DONE]"].map(|d| tap.see(&event(None, d))).to_vec();
        assert_eq!(sights, [Sight::Other, Sight::Content, Sight::Finish, Sight::UsageOnly, Sight::Done]);
        assert!(tap.finished() && tap.ended_well());
        assert_eq!(tap.usage(&asked(77)), told(9, 2, 4));
    }

    #[test]
    fn anything_a_user_would_miss_is_content() {
        let mut tap = StreamTap::new(Dialect::OPENAI, Operation::Chat);
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
            (r#"{"error":{"message":"x"},"choices":[{"delta":{"content":"half"}}]}"#, Sight::Error),
            (r#"{"choices":[{"delta":{"content":"half"},"finish_reason":"error"}]}"#, Sight::Error),
            (r#"{"choices":[{"error":{"code":1},"delta":{}}]}"#, Sight::Error),
            (r#"{"code":20012,"message":"x","data":null}"#, Sight::Error),
            (r#"{"detail":"x"}"#, Sight::Error),
            (r#"{"choices":null}"#, Sight::Other),
            ("not json", Sight::Other),
            ("", Sight::Other),
            ("{", Sight::Other),
        ] {
            assert_eq!(tap.see(&event(None, data)), sight, "{data}");
        }
        assert_eq!(tap.see(&event(None, STOP)), Sight::Finish);
        assert!(tap.finished() && !tap.ended_well());
        assert_eq!(tap.see(&Event { raw: b": ping\n\n", name: None, data: None }), Sight::Other);
        assert_eq!(tap.see(&Event { raw: b"event: error\n\n", name: Some(b"error"), data: None }), Sight::Error);
    }

    #[test]
    fn a_stream_is_finished_when_every_choice_is_and_nothing_follows() {
        let chunk = |index: u32, content: &str, finish: &str| {
            format!(r#"{{"choices":[{{"index":{index},"delta":{{"content":"{content}"}},"finish_reason":{finish}}}]}}"#)
        };
        let mut tap = StreamTap::new(Dialect::OPENAI, Operation::Chat).expecting(2);
        for (data, finished) in [
            (chunk(0, "a", "\"stop\""), false),
            (chunk(1, "b", "null"), false),
            (chunk(1, "", "\"null\""), false),
            (chunk(1, "", "\"stop\""), true),
            (chunk(1, "more", "null"), false),
            (chunk(1, "", "\"stop\""), true),
        ] {
            tap.see(&event(None, &data));
            assert_eq!(tap.finished(), finished, "{data}");
        }
        assert!(!tap.has_told_all());
        assert_eq!(tap.see(&event(None, USED)), Sight::UsageOnly);
        assert!(tap.has_told_all());
        let mut tap = StreamTap::new(Dialect::ANTHROPIC, Operation::Message);
        let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}"#;
        let delta = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"#;
        for (data, finished) in [(end, true), (delta, false), (end, true)] {
            tap.see(&event(None, data));
            assert_eq!(tap.finished(), finished, "{data}");
        }
        let early = r#"{"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":1}}"#;
        assert_eq!(StreamTap::new(Dialect::ANTHROPIC, Operation::Message).see(&event(None, early)), Sight::Other);
    }

    #[test]
    fn an_error_of_any_form_is_one_in_every_dialect() {
        let forms = [
            (None, r#"{"error":{"message":"m"}}"#),
            (None, r#"{"error":"m"}"#),
            (None, r#"[{"error":{"code":429,"message":"m"}}]"#),
            (None, r#"{"type":"error","message":"m"}"#),
            (None, r#"{"object":"error","message":"m"}"#),
            (None, r#"{"detail":"m"}"#),
            (None, r#"{"code":"x","message":"m"}"#),
            (None, r#"{"success":false,"errors":[{"message":"m"}]}"#),
            (Some("error"), "boom"),
            (Some("error"), "{}"),
        ];
        for (dialect, operation) in [
            (Dialect::OPENAI, Operation::Chat),
            (Dialect::OPENAI, Operation::Completion),
            (Dialect::OPENAI, Operation::Response),
            (Dialect::ANTHROPIC, Operation::Message),
        ] {
            for (name, data) in forms {
                let event = event(name, data);
                assert_eq!(StreamTap::new(dialect, operation).see(&event), Sight::Error, "{operation:?} {data}");
                assert!(dialect.format().error_in_event(&event).is_some(), "{operation:?} {data}");
            }
        }
    }

    #[test]
    fn a_responses_stream_is_numbered_and_named() {
        let mut tap = StreamTap::new(Dialect::OPENAI, Operation::Response);
        tap.see(&event(None, r#"{"type":"response.created","response":{"id":"r","error":null},"sequence_number":0}"#));
        tap.see(&event(Some("message"), r#"{"type":"response.output_text.delta","delta":"a","sequence_number":7}"#));
        assert_eq!((tap.content_events(), tap.opened().sequence), (1, Some(7)));
        assert_eq!(tap.opened().response.as_deref(), Some(&br#"{"id":"r","error":null}"#[..]));
        for failed in [
            r#"{"type":"response.failed"}"#,
            r#"{"type":"response.completed","response":{"status":"failed"}}"#,
            r#"{"type":"response.error","error":{"message":"m"}}"#,
        ] {
            assert_eq!(tap.see(&event(None, failed)), Sight::Error, "{failed}");
        }
    }

    #[test]
    fn a_finish_reason_may_explain_an_answer_without_content() {
        let chunk = |reason: &str| format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":{reason}}}]}}"#);
        let message = |reason: &str| format!(r#"{{"type":"message_delta","delta":{{"stop_reason":{reason}}}}}"#);
        for (dialect, operation, data, is_answer) in [
            (Dialect::OPENAI, Operation::Chat, chunk("\"length\""), true),
            (Dialect::OPENAI, Operation::Chat, chunk("\"content_filter\""), true),
            (Dialect::OPENAI, Operation::Chat, chunk("\"stop\""), false),
            (Dialect::OPENAI, Operation::Chat, chunk("null"), false),
            (Dialect::ANTHROPIC, Operation::Message, message("\"max_tokens\""), true),
            (Dialect::ANTHROPIC, Operation::Message, message("\"refusal\""), true),
            (Dialect::ANTHROPIC, Operation::Message, message("\"end_turn\""), false),
            (Dialect::OPENAI, Operation::Response, r#"{"type":"response.incomplete","response":{}}"#.to_owned(), true),
            (Dialect::OPENAI, Operation::Response, r#"{"type":"response.completed","response":{}}"#.to_owned(), false),
        ] {
            let mut tap = StreamTap::new(dialect, operation);
            tap.see(&event(None, &data));
            assert_eq!(tap.has_answer(), is_answer, "{data}");
        }
    }

    #[test]
    fn a_cut_stream_is_estimated_from_what_flowed() {
        let mut tap = StreamTap::new(Dialect::OPENAI, Operation::Chat);
        assert_eq!(tap.usage(&asked(50)), Usage::default());
        for _ in 0..10 {
            tap.see(&event(None, HELLO));
        }
        let usage = tap.usage(&asked(50));
        assert_eq!(usage, Usage { estimated: true, ..told(50, 13, 0) });
    }

    #[test]
    fn a_message_stream_counts_its_prompt_at_the_start_and_its_answer_at_the_end() {
        let mut tap = StreamTap::new(Dialect::ANTHROPIC, Operation::Message);
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
        let cut = tap.usage(&asked(99));
        assert_eq!((cut.input_tokens, cut.output_tokens, cut.cached_input_tokens, cut.estimated), (18, 3, 5, true));
        let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}"#;
        assert_eq!(tap.see(&event(Some("message_delta"), end)), Sight::Finish);
        assert!(!tap.ended_well());
        assert_eq!(tap.see(&event(Some("message_stop"), r#"{"type":"message_stop"}"#)), Sight::Done);
        assert!(tap.ended_well());
        assert_eq!(tap.usage(&asked(99)), Usage { cache_write_tokens: 3, ..told(18, 15, 5) });
        assert_eq!(tap.see(&event(Some("error"), "{}")), Sight::Error);
    }

    #[test]
    fn a_responses_stream_ends_with_its_usage() {
        let mut tap = StreamTap::new(Dialect::OPENAI, Operation::Response);
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
        assert_eq!(tap.usage(&asked(1)), told(8, 5, 2));
        assert_eq!(tap.see(&event(None, r#"{"type":"response.failed"}"#)), Sight::Error);
    }

    #[test]
    fn usage_is_found_wherever_a_chat_stream_has_it() {
        let finish =
            |usage: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"{usage}}}]}}"#);
        for (events, expected) in [
            (vec![finish(r#","usage":{"prompt_tokens":9,"completion_tokens":2,"cached_tokens":4}"#)], told(9, 2, 4)),
            (
                vec![
                    r#"{"choices":[],"x_groq":{"id":"r","usage":{"prompt_tokens":9,"completion_tokens":2}}}"#
                        .to_owned(),
                ],
                told(9, 2, 0),
            ),
            (vec![r#"{"x_groq":{"id":"r"},"choices":[]}"#.to_owned(), USED.to_owned()], told(9, 2, 4)),
            (vec![USED.to_owned(), r#"{"choices":[],"usage":null}"#.to_owned()], told(9, 2, 4)),
            (
                vec![r#"{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#.to_owned(), USED.to_owned()],
                told(9, 2, 4),
            ),
            (
                vec![USED.to_owned(), r#"{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#.to_owned()],
                told(9, 2, 4),
            ),
        ] {
            let mut tap = StreamTap::new(Dialect::OPENAI, Operation::Chat);
            tap.see(&event(None, HELLO));
            for data in &events {
                tap.see(&event(None, data));
            }
            assert_eq!(tap.usage(&asked(77)), expected, "{events:?}");
        }
    }

    #[test]
    fn a_message_streams_end_may_tell_nothing_or_all() {
        let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":0,"output_tokens":0}}}"#;
        let delta = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hello you"}}"#;
        for (end, expected) in [
            (r#""usage":null"#, Usage { estimated: true, ..told(7, 3, 0) }),
            (r#""usage":{"output_tokens":0}"#, Usage { estimated: true, ..told(7, 3, 0) }),
            (r#""usage":{"input_tokens":9,"output_tokens":4,"cache_read_input_tokens":2}"#, told(11, 4, 2)),
        ] {
            let mut tap = StreamTap::new(Dialect::ANTHROPIC, Operation::Message);
            let end = format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},{end}}}"#);
            for data in [start, delta, &end] {
                tap.see(&event(None, data));
            }
            assert_eq!(tap.usage(&asked(7)), expected, "{end}");
        }
    }

    #[test]
    fn a_plain_stream_has_content_and_no_usage() {
        let mut tap = StreamTap::new(Dialect::PLAIN, Operation::Other);
        assert_eq!(tap.see(&event(None, "tick")), Sight::Content);
        assert_eq!(tap.see(&event(Some("error"), "tick")), Sight::Error);
        assert!(tap.ended_well());
        assert_eq!(tap.usage(&asked(5)), Usage::default());
    }
}
