//! A body that is no stream: its usage and the length of its texts, caught as they go by, so that nothing need be held back
//! for them.

use bytes::Bytes;

use super::plausible::{Asked, Flowed, usage};
use super::{BYTES_PER_TOKEN, StreamTap};
use crate::contract::Operation;
use crate::dialect::format::Counts;
use crate::dialect::registry::Dialect;
use crate::http::encoding::{Decoder, Encoding, Limits};
use crate::http::sse::Reader;
use crate::usage::{ServiceTier, Usage};

/// The longest `usage` object that is read, in bytes.
const MAX_USAGE_BYTES: usize = 4 * 1024;

/// Most usages are no longer than this.
const USUAL_USAGE_BYTES: usize = 256;

/// The longest name of a member that is told from others, in bytes.
const MAX_NAME_BYTES: usize = 24;

/// Top-level members that hold an answer's texts.
const TEXTS: [&[u8]; 7] = [b"choices", b"content", b"output", b"message", b"response", b"text", b"results"];

/// Members whose strings are no text of an answer.
const NO_TEXTS: [&[u8]; 14] = [
    b"role",
    b"type",
    b"id",
    b"object",
    b"index",
    b"model",
    b"status",
    b"name",
    b"call_id",
    b"finish_reason",
    b"stop_reason",
    b"native_finish_reason",
    b"signature",
    b"token",
];

/// Watches a JSON body go by in chunks for its usage and its texts' length, keeping nothing else.
#[derive(Debug)]
pub struct BodyTap {
    dialect: Dialect,
    /// The name of the member that holds the usage.
    usage_member: &'static [u8],
    /// Undoes the encoding of what goes by.
    decoder: Option<Box<Decoder>>,
    /// Reads what goes by as a stream of events.
    events: Option<Box<(Reader, StreamTap)>>,
    at: Position,
    depth: u32,
    /// The top-level member that goes by.
    within: Within,
    /// The last string, as far as it is short.
    string: Name,
    /// Length of the whole string, bytes.
    string_bytes: u64,
    /// The name that the value which goes by has.
    name: Name,
    /// The value that begins is the usage.
    wanted: bool,
    kept: Vec<u8>,
    /// The usage kept stands at the top.
    is_top: bool,
    /// Depth of the usage that is being kept.
    keeping: Option<u32>,
    text_bytes: u64,
    bytes: u64,
    service_tier: Option<ServiceTier>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Between,
    InString,
    AfterBackslash,
    /// Not a JSON object, or its end is past.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Choices,
    /// Another member that holds texts.
    Texts,
    Groq,
    Other,
}

/// A short text; one that is too long is equal to none.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    bytes: [u8; MAX_NAME_BYTES],
    length: usize,
}

impl Name {
    fn push(&mut self, text: &[u8]) {
        let end = self.length.saturating_add(text.len());
        if let Some(free) = self.bytes.get_mut(self.length..end) {
            free.copy_from_slice(text);
        }
        self.length = end;
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The usage of an answer that is no text and tells none.
fn unsaid(asked: &Asked<'_>) -> Usage {
    usage(&Counts::default(), true, Flowed { tokens: asked.made_tokens.into(), bytes: 0 }, asked)
}

impl BodyTap {
    /// A tap; for a dialect whose answers pass unread one that sees nothing.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            usage_member: dialect.format().usage_member(),
            decoder: None,
            events: None,
            at: if dialect.is_opaque() { Position::Over } else { Position::Between },
            depth: 0,
            within: Within::Other,
            string: Name::default(),
            string_bytes: 0,
            name: Name::default(),
            wanted: false,
            kept: Vec::new(),
            is_top: false,
            keeping: None,
            text_bytes: 0,
            bytes: 0,
            service_tier: None,
        }
    }

    /// A tap for a body that goes by in this encoding, which is undone in a copy; `events`: it is a stream of events.
    pub fn encoded(dialect: Dialect, operation: Operation, encoding: Encoding, events: bool) -> Self {
        let decoder = (!dialect.is_opaque()).then(|| Box::new(Decoder::new(encoding, Limits::of_answer())));
        let events = events.then(|| Box::new((Reader::default(), StreamTap::new(dialect, operation))));
        Self { decoder, events, ..Self::new(dialect) }
    }

    /// A tap for a stream of events whose end cannot be told from a cut.
    pub fn of_events(dialect: Dialect, operation: Operation) -> Self {
        let events = (!dialect.is_opaque()).then(|| Box::new((Reader::default(), StreamTap::new(dialect, operation))));
        Self { events, ..Self::new(dialect) }
    }

    /// A tap for a body that cannot be read: all of it is taken for text.
    pub fn unreadable(dialect: Dialect) -> Self {
        Self { at: Position::Over, depth: 1, ..Self::new(dialect) }
    }

    /// Looks at the body's next bytes.
    pub fn push(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        match &mut self.decoder {
            None if self.events.is_some() && self.at != Position::Over => self.look_at(Bytes::copy_from_slice(chunk)),
            None => self.look(chunk),
            Some(_) if self.at == Position::Over => {}
            Some(decoder) => match decoder.push(chunk) {
                Ok(plain) => self.look_at(plain),
                Err(_) => self.at = Position::Over,
            },
        }
    }

    fn look_at(&mut self, plain: Bytes) {
        let Some((reader, tap)) = self.events.as_deref_mut() else { return self.look(&plain) };
        reader.push(plain);
        loop {
            match reader.next_event() {
                Ok(Some(event)) => {
                    tap.see(&event);
                }
                Ok(None) => break,
                Err(_) => {
                    self.at = Position::Over;
                    break;
                }
            }
        }
        reader.take();
    }

    fn look(&mut self, chunk: &[u8]) {
        let mut i = 0;
        while i < chunk.len() {
            i = match self.at {
                Position::Over => return,
                Position::Between => self.between(chunk, i),
                Position::InString => self.in_string(chunk, i),
                Position::AfterBackslash => {
                    self.keep(&chunk[i..=i]);
                    // No name that is looked for has an escape.
                    self.string.length = usize::MAX;
                    self.string_bytes += 1;
                    self.at = Position::InString;
                    i + 1
                }
            };
        }
    }

    /// Returns the number of bytes that were read.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The usage that the body told, or that its texts come to where it told none that can be believed. `is_answer`: it is a
    /// model's answer, which has used something.
    pub fn usage(&self, asked: &Asked<'_>, is_answer: bool) -> Usage {
        if let Some((_, tap)) = self.events.as_deref() {
            let told = tap.usage(asked);
            return if told.total() > 0 || !is_answer { told } else { unsaid(asked) };
        }
        let asked = &Asked { service_tier: self.service_tier.or(asked.service_tier), ..*asked };
        let counts = self.counts();
        if self.dialect.is_opaque() || counts.is_none() && !is_answer {
            return Usage::default();
        }
        // What cannot be read is taken for text.
        let bytes = if self.at == Position::Over && self.depth > 0 { self.bytes } else { self.text_bytes };
        let flowed = match is_answer {
            true => Flowed { tokens: bytes.div_ceil(BYTES_PER_TOKEN).max(asked.made_tokens.into()), bytes },
            false => Flowed::default(),
        };
        usage(&counts.unwrap_or_default(), true, flowed, asked)
    }

    /// The counts the body told; none when it told none (yet).
    pub fn counts(&self) -> Option<Counts> {
        if self.keeping.is_some() || self.kept.is_empty() {
            return None;
        }
        let mut counts = Counts::default();
        self.dialect.format().read_usage(&self.kept, &mut counts);
        Some(counts)
    }

    fn between(&mut self, chunk: &[u8], i: usize) -> usize {
        let byte = chunk[i];
        match byte {
            b'"' => {
                (self.string, self.string_bytes) = (Name::default(), 0);
                self.at = Position::InString;
            }
            b':' => self.named(),
            b'{' | b'[' => self.opened(byte),
            b'}' | b']' => {
                self.value_ended();
                self.depth = self.depth.saturating_sub(1);
                self.keep(&chunk[i..=i]);
                if self.keeping.is_some_and(|depth| self.depth <= depth) {
                    self.keeping = None;
                }
                if self.depth == 0 {
                    self.at = Position::Over;
                }
                return i + 1;
            }
            b',' => {
                self.value_ended();
                self.wanted = false;
            }
            _ => {}
        }
        self.keep(&chunk[i..=i]);
        i + 1
    }

    /// The last string was a name.
    fn named(&mut self) {
        self.string_bytes = 0;
        self.name = self.string;
        let name = self.name.text();
        if self.depth == 1 {
            self.within = match name {
                b"choices" => Within::Choices,
                b"x_groq" => Within::Groq,
                name if TEXTS.contains(&name) => Within::Texts,
                _ => Within::Other,
            };
        }
        let is_place = match (self.depth, self.within) {
            (1, _) => true,
            (2, Within::Groq) | (3, Within::Choices) => !self.is_top,
            _ => false,
        };
        self.wanted = is_place && name == self.usage_member;
    }

    /// The last string was a value.
    fn value_ended(&mut self) {
        if self.depth == 1 && self.name.text() == b"service_tier" {
            self.service_tier = ServiceTier::told(self.string.text());
        }
        let is_text = matches!(self.within, Within::Choices | Within::Texts) && !NO_TEXTS.contains(&self.name.text());
        if is_text && self.keeping.is_none() {
            self.text_bytes += self.string_bytes;
        }
        self.string_bytes = 0;
    }

    fn opened(&mut self, byte: u8) {
        if self.depth == 0 && byte == b'[' {
            self.at = Position::Over;
        }
        if self.wanted && byte == b'{' {
            self.kept.clear();
            self.kept.reserve(USUAL_USAGE_BYTES);
            self.keeping = Some(self.depth);
            self.is_top |= self.depth == 1;
        }
        self.wanted = false;
        self.depth = self.depth.saturating_add(1);
    }

    fn in_string(&mut self, chunk: &[u8], i: usize) -> usize {
        let rest = &chunk[i..];
        let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        self.string.push(&rest[..end]);
        self.string_bytes += end as u64;
        let Some(byte) = rest.get(end) else {
            self.keep(rest);
            return chunk.len();
        };
        self.keep(&rest[..=end]);
        self.at = if *byte == b'\\' { Position::AfterBackslash } else { Position::Between };
        i + end + 1
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.keeping.is_none() {
            return;
        }
        if self.kept.len() + bytes.len() > MAX_USAGE_BYTES {
            self.kept.clear();
            self.at = Position::Over;
            self.keeping = None;
            return;
        }
        self.kept.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(input: u64, output: u64, cached: u64) -> Usage {
        Usage { input_tokens: input, output_tokens: output, cached_input_tokens: cached, ..Usage::default() }
    }

    fn tap_of(chunks: &[&[u8]]) -> BodyTap {
        let mut tap = BodyTap::new(Dialect::OPENAI);
        for chunk in chunks {
            tap.push(chunk);
        }
        tap
    }

    fn tapped(chunks: &[&[u8]]) -> Option<Usage> {
        let tap = tap_of(chunks);
        let asked = Asked { body: b"https://example.com/long.pdf", ..Asked::default() };
        tap.counts().map(|_| tap.usage(&asked, false))
    }

    #[test]
    fn a_bodys_usage_is_its_top_level_member_only() {
        for (body, expected) in [
            (
                r#"{"choices":[{"usage":{"prompt_tokens":5}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
                Some(told(1, 2, 0)),
            ),
            (
                r#" {"usage" : {"input_tokens":7,"x":{"y":[1]},"output_tokens":2}, "z":{"usage":{}}} "#,
                Some(told(7, 2, 0)),
            ),
            (r#"{"x":"usage","y":{"input_tokens":7}}"#, None),
            (r#"{"x":"{\"usage\":{\"input_tokens\":7}}"}"#, None),
            (r#"{"usage":null,"a":{"input_tokens":7}}"#, None),
            (r#"{"usage":"none","a":{"input_tokens":7}}"#, None),
            (r#"{"usage":{"input_tokens":7"#, None),
            (r#"[{"usage":{"input_tokens":7}}]"#, None),
            ("", None),
            ("usage", None),
        ] {
            assert_eq!(tapped(&[body.as_bytes()]), expected, "{body}");
        }
        let mut plain = BodyTap::new(Dialect::PLAIN);
        plain.push(br#"{"usage":{"prompt_tokens":1}}"#);
        assert_eq!((plain.usage(&Asked::default(), true), plain.bytes()), (Usage::default(), 29));
    }

    #[test]
    fn some_providers_put_the_usage_elsewhere() {
        for (body, expected) in [
            (
                r#"{"choices":[{"index":0,"usage":{"prompt_tokens":5,"completion_tokens":2},"message":{}}]}"#,
                told(5, 2, 0),
            ),
            (r#"{"choices":[],"x_groq":{"id":"a","usage":{"prompt_tokens":5,"completion_tokens":2}}}"#, told(5, 2, 0)),
            (
                r#"{"usage":{"prompt_tokens":1,"completion_tokens":2},"x_groq":{"usage":{"prompt_tokens":5}}}"#,
                told(1, 2, 0),
            ),
        ] {
            assert_eq!(tapped(&[body.as_bytes()]), Some(expected), "{body}");
        }
        assert_eq!(tapped(&[br#"{"choices":[{"message":{"usage":{"prompt_tokens":5}}}]}"#]), None);
        assert_eq!(tapped(&[br#"{"data":[{"usage":{"prompt_tokens":5}}]}"#]), None);
    }

    #[test]
    fn an_answer_without_usage_is_estimated_by_its_texts() {
        let asked = Asked { prompt_tokens: 50, ..Asked::default() };
        for (body, tokens) in [
            (
                r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hello my dear friend"},"finish_reason":"stop"}],"usage":null}"#,
                5,
            ),
            (
                r#"{"choices":[{"message":{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]}}]}"#,
                2,
            ),
            (
                r#"{"type":"message","role":"assistant","content":[{"type":"text","text":"Hello my"},{"type":"thinking","thinking":"dear friend!","signature":"abcdefgh"}]}"#,
                5,
            ),
            (
                r#"{"object":"response","output":[{"type":"message","content":[{"type":"output_text","text":"Hello my dear friend"}]}]}"#,
                5,
            ),
            (r#"{"choices":[{"text":"Hello my dear friend"}]}"#, 5),
        ] {
            let tap = tap_of(&[body.as_bytes()]);
            let expected = Usage { estimated: true, ..told(50, tokens, 0) };
            assert_eq!(tap.usage(&asked, true), expected, "{body}");
            assert_eq!(tap.usage(&asked, false), Usage::default(), "it is no model's answer");
        }
        let vectors = tap_of(&[br#"{"object":"list","data":[{"object":"embedding","embedding":"AAAA"}]}"#]);
        assert_eq!(vectors.usage(&asked, true), Usage { estimated: true, ..told(50, 0, 0) });
    }

    #[test]
    fn a_compressed_body_is_read_as_a_copy() {
        let body = br#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
        for encoding in Encoding::ALL {
            let packed = crate::http::encoding::tests::encoded(encoding, body);
            let mut tap = BodyTap::encoded(Dialect::OPENAI, Operation::Chat, encoding, false);
            packed.chunks(7).for_each(|chunk| tap.push(chunk));
            assert_eq!(tap.usage(&Asked::default(), false), told(5, 2, 0), "{encoding:?}");
            let events = [b"data: ", &body[..], b"\n\ndata: [DONE]\n\n"].concat();
            let packed = crate::http::encoding::tests::encoded(encoding, &events);
            let mut tap = BodyTap::encoded(Dialect::OPENAI, Operation::Chat, encoding, true);
            packed.chunks(7).for_each(|chunk| tap.push(chunk));
            assert_eq!(tap.usage(&Asked::default(), true), told(5, 2, 0), "{encoding:?}");
        }
        let mut broken = BodyTap::encoded(Dialect::OPENAI, Operation::Chat, Encoding::Gzip, false);
        broken.push(b"nonsense");
        assert_eq!(broken.usage(&Asked::default(), false), Usage::default());
    }

    #[test]
    fn an_endless_usage_is_given_up() {
        let body = format!(r#"{{"usage":{{"a":"{}"}}}}"#, "x".repeat(5_000));
        assert_eq!(tapped(&[body.as_bytes()]), None);
    }

    proptest! {
        #[test]
        fn any_split_of_a_body_tells_the_same_usage(
            text in "\\PC{0,20}", input in 0u64..1_000_000, output in 0u64..1_000_000, cuts in prop::collection::vec(0usize..400, 0..8),
        ) {
            let body = serde_json::json!({
                "a": {"usage": {"prompt_tokens": 1}}, (text.as_str()): [text, {"x": "usage\\"}],
                "usage": {"prompt_tokens": input, "completion_tokens": output, "prompt_tokens_details": {"cached_tokens": 3}},
                "z": "usage",
            });
            let expected = body["usage"].is_object().then(|| told(input, output, 3));
            let body = body.to_string().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &body[w[0]..w[1]]).collect();
            prop_assert_eq!(tapped(&chunks), expected);
        }
    }
}
