//! Events that are not strict JSON: mended where what was meant is plain, left out where they carry nothing, and known as
//! a break where a text would be lost with them.
//!
//! Seen from servers that write JSON or events by hand: line ends and control characters inside strings, `NaN` and
//! `-Infinity` among numbers, escapes that JSON does not have, two events without the blank line between them, an error page or
//! a bare JSON error in the middle of a stream.

use std::mem;

use serde::de::IgnoredAny;

use crate::http::json;
use crate::http::sse::{Event, is_nonsense};

/// Result of looking at an event that no client could read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// These events are what it means.
    Events(Vec<u8>),
    /// It carries nothing that a user would miss.
    LeftOut,
    /// It carries a text, in a form that cannot be read.
    Lost,
}

/// Counts of what was mended in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Number of events that were mended.
    pub mended: u32,
    /// Events that carried nothing and were left out.
    pub left_out: u32,
}

/// OpenAI's number for the logarithm of a probability of nothing.
const NO_PROBABILITY: &[u8] = b"-9999.0";

/// The most places in one event at which it is tried whether another begins.
const MAX_TRIES: usize = 64;

/// Members that hold an answer's text in some dialect.
const TEXTS: &[&[u8]] = &[
    b"content",
    b"text",
    b"delta",
    b"arguments",
    b"thinking",
    b"partial_json",
    b"reasoning",
    b"reasoning_content",
    b"refusal",
];

impl Repairs {
    /// The sentence about them in records; none where there were none.
    pub fn sentence(&self) -> Option<String> {
        let events = |n: u32| if n == 1 { "1 event".to_owned() } else { format!("{n} events") };
        match (self.mended, self.left_out) {
            (0, 0) => None,
            (mended, 0) => Some(format!("{} of the stream mended", events(mended))),
            (0, left_out) => Some(format!("{} of the stream left out", events(left_out))),
            (mended, left_out) => {
                Some(format!("{} of the stream mended, {} left out", events(mended), events(left_out)))
            }
        }
    }

    /// Adds those of another part of the stream.
    pub const fn add(&mut self, other: Repairs) {
        self.mended = self.mended.saturating_add(other.mended);
        self.left_out = self.left_out.saturating_add(other.left_out);
    }
}

/// Returns true for an event that a client of an LLM API would fail to read, or pass over though something stands in it: its
/// data is not JSON, or it has no data but a name, or lines that are neither fields nor comments.
pub fn is_unreadable(event: &Event<'_>) -> bool {
    match event.data {
        Some(data) => is_nonsense(event) || event.name != Some(b"error") && is_scalar(data),
        None => {
            event.name.is_some_and(|name| !is_failure(name))
                || lines(event.raw).any(|line| !line.is_empty() && field(line).is_none())
        }
    }
}

/// Returns true for data that is neither an object nor a list nor the end: no event of any dialect is.
fn is_scalar(data: &[u8]) -> bool {
    !matches!(data.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Returns true for a name that says by itself that the answer failed.
fn is_failure(name: &[u8]) -> bool {
    [&b"error"[..], b"fail"].iter().any(|word| memchr::memmem::find(name, word).is_some())
}

/// Mends a body in one piece that is not strict JSON, with the slips of [`repair`] and a byte order mark; `None` where it is
/// JSON as it came, or means none.
pub fn repair_body(body: &[u8]) -> Option<Vec<u8>> {
    let bare = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let is_whole = |body| serde_json::from_slice::<IgnoredAny>(body).is_ok();
    if is_whole(body) {
        return None;
    }
    if is_whole(bare) { Some(bare.to_vec()) } else { mended(bare) }
}

/// Looks at an event that is [unreadable](is_unreadable).
pub fn repair(event: &Event<'_>) -> Repaired {
    let mut events = Events::default();
    for line in lines(event.raw) {
        match field(line) {
            Some((b"data", value)) => events.data(value),
            Some((b"event", value)) => events.name(value),
            Some(_) => {}
            None => events.stray(line),
        }
    }
    events.flush();
    match events {
        Events { lost: true, .. } => Repaired::Lost,
        Events { written, .. } if written.is_empty() => Repaired::LeftOut,
        Events { written, .. } => Repaired::Events(written),
    }
}

/// Events being put together again out of lines.
#[derive(Default)]
struct Events {
    name: Vec<u8>,
    data: Option<Vec<u8>>,
    written: Vec<u8>,
    lost: bool,
    tries: usize,
}

impl Events {
    fn name(&mut self, name: &[u8]) {
        if self.data.is_some() {
            self.flush();
        }
        self.name = name.to_vec();
    }

    /// Data that follows a whole value is another event's.
    fn data(&mut self, value: &[u8]) {
        let may_begin = matches!(value.first(), Some(b'{' | b'[')) && self.tries < MAX_TRIES;
        if let Some(data) = self.data.as_deref().filter(|_| may_begin) {
            self.tries += 1;
            if is_whole(data) || mended(data).is_some() {
                self.flush();
            }
        }
        self.join(value);
    }

    /// A line that is no field goes on with a string that a line end cut, or is JSON without its field's name.
    fn stray(&mut self, line: &[u8]) {
        if self.data.is_some() || line.starts_with(b"{") {
            self.join(line);
        }
    }

    fn join(&mut self, more: &[u8]) {
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(more);
            }
            None => self.data = Some(more.to_vec()),
        }
    }

    fn flush(&mut self) {
        let (name, data) = (mem::take(&mut self.name), self.data.take());
        let Some(data) = data else { return };
        if data.trim_ascii() == b"\"[DONE]\"" {
            return self.written.extend_from_slice(b"data: [DONE]\n\n");
        }
        let whole = if is_whole(&data) { Some(data.clone()) } else { mended(&data) };
        match whole {
            Some(whole) if is_scalar(&whole) => {}
            Some(whole) => self.write(&name, &whole),
            None => match values_of(&data) {
                Some(values) => values.into_iter().for_each(|value| self.write(&name, value)),
                None => self.lost |= carries_text(&data),
            },
        }
    }

    fn write(&mut self, name: &[u8], whole: &[u8]) {
        if !name.is_empty() {
            self.written.extend_from_slice(b"event: ");
            self.written.extend_from_slice(name);
            self.written.push(b'\n');
        }
        for line in whole.split(|b| *b == b'\n') {
            self.written.extend_from_slice(b"data: ");
            self.written.extend_from_slice(line);
            self.written.push(b'\n');
        }
        self.written.push(b'\n');
    }
}

fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    raw.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The field's name and value; an empty name for a comment; none for what is no field.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line);
    let (name, value) = colon.map_or((line, &line[line.len()..]), |at| (&line[..at], &line[at + 1..]));
    let known = matches!(name, b"" | b"data" | b"event" | b"id" | b"retry");
    known.then(|| (name, value.strip_prefix(b" ").unwrap_or(value)))
}

fn is_whole(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]" || serde_json::from_slice::<IgnoredAny>(data).is_ok()
}

/// The objects that stand in this text one behind the other, with or without `data:` between them; `None` where it is anything
/// else.
fn values_of(data: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut values, mut rest) = (Vec::new(), data.trim_ascii());
    while !rest.is_empty() {
        if values.len() == MAX_TRIES || rest.first() != Some(&b'{') {
            return None;
        }
        let mut stream = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        stream.next()?.ok()?;
        let (value, behind) = rest.split_at(stream.byte_offset());
        values.push(value);
        let behind = behind.trim_ascii_start();
        rest = behind.strip_prefix(b"data:").unwrap_or(behind).trim_ascii_start();
        if rest.starts_with(b"[DONE]") {
            values.push(b"[DONE]");
            rest = &rest[b"[DONE]".len()..];
        }
    }
    Some(values)
}

/// This text with the usual slips mended, if it is JSON then: control characters and unknown escapes inside strings, and
/// numbers that JSON does not have.
fn mended(data: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len() + 16);
    let mut at = 0;
    while let Some(byte) = data.get(at) {
        match byte {
            b'"' => at = mend_string(data, at, &mut out),
            b'N' | b'I' | b'-' => at = mend_number(data, at, &mut out),
            b'\n' | b'\r' => {
                out.push(b' ');
                at += 1;
            }
            byte => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    serde_json::from_slice::<IgnoredAny>(&out).is_ok().then_some(out)
}

/// Writes the string that begins here; returns the place behind it.
fn mend_string(data: &[u8], open: usize, out: &mut Vec<u8>) -> usize {
    out.push(b'"');
    let mut at = open + 1;
    while let Some(byte) = data.get(at) {
        at += 1;
        match (byte, data.get(at)) {
            (b'"', _) => {
                out.push(b'"');
                return at;
            }
            (b'\\', Some(escaped)) => {
                if !matches!(escaped, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u') {
                    out.push(b'\\');
                }
                out.push(b'\\');
                if *escaped >= b' ' {
                    out.push(*escaped);
                    at += 1;
                }
            }
            (b'\n', _) => out.extend_from_slice(b"\\n"),
            (b'\r', _) => out.extend_from_slice(b"\\r"),
            (b'\t', _) => out.extend_from_slice(b"\\t"),
            (control @ 0..b' ', _) => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
            (byte, _) => out.push(*byte),
        }
    }
    at
}

/// Writes the number that begins here, or one that stands for it; returns the place behind it.
fn mend_number(data: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    for (word, number) in
        [(&b"NaN"[..], &b"null"[..]), (b"-NaN", b"null"), (b"Infinity", b"null"), (b"-Infinity", NO_PROBABILITY)]
    {
        if data[at..].starts_with(word) {
            out.extend_from_slice(number);
            return at + word.len();
        }
    }
    out.push(data[at]);
    at + 1
}

/// Returns true if some member that holds text in one of the dialects is filled here, or may be.
fn carries_text(data: &[u8]) -> bool {
    let mut rest = data;
    while let Some(at) = memchr::memchr2(b'"', b'\'', rest) {
        let quote = rest[at];
        rest = &rest[at + 1..];
        let Some(name) = TEXTS.iter().find(|name| rest.starts_with(name) && rest.get(name.len()) == Some(&quote))
        else {
            continue;
        };
        let behind = &rest[name.len() + 1..];
        let value = &behind[json::skip_space(behind, 0)..];
        let Some(value) = value.strip_prefix(b":") else { continue };
        match &value[json::skip_space(value, 0)..] {
            // Cut right there: what came is not known.
            [] | [b'"' | b'\''] => return true,
            [open @ (b'"' | b'\''), next, ..] if next != open => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::http::sse::Reader;

    fn repaired(stream: &[u8]) -> Repaired {
        let mut reader = Reader::default();
        reader.push(Bytes::copy_from_slice(stream));
        let event = reader.next_event().unwrap().expect("a whole event");
        assert!(is_unreadable(&event), "{}", String::from_utf8_lossy(stream));
        repair(&event)
    }

    fn events(text: &str) -> Repaired {
        Repaired::Events(text.as_bytes().to_vec())
    }

    #[test]
    fn slips_are_mended() {
        for (given, meant) in [
            ("data: {\"content\":\"a\nb\"}\n\n", "data: {\"content\":\"a\\nb\"}\n\n"),
            ("data: {\"content\":\"a\u{1}\tb\"}\n\n", "data: {\"content\":\"a\\u0001\\tb\"}\n\n"),
            ("data: {\"content\":\"C:\\dir\"}\n\n", "data: {\"content\":\"C:\\\\dir\"}\n\n"),
            (
                "data: {\"text\":\"a\",\"p\":-Infinity,\"q\":[NaN,1]}\n\n",
                "data: {\"text\":\"a\",\"p\":-9999.0,\"q\":[null,1]}\n\n",
            ),
            ("data: {\"a\":1}\ndata: {\"b\":2}\n\n", "data: {\"a\":1}\n\ndata: {\"b\":2}\n\n"),
            ("data: {\"a\":1}{\"b\":2}\n\n", "data: {\"a\":1}\n\ndata: {\"b\":2}\n\n"),
            (
                "data: {\"a\":1}data: {\"b\":2}data: [DONE]\n\n",
                "data: {\"a\":1}\n\ndata: {\"b\":2}\n\ndata: [DONE]\n\n",
            ),
            ("data: \"[DONE]\"\n\n", "data: [DONE]\n\n"),
            ("data: {\"a\":1}\ndata: [DONE]\n\n", "data: {\"a\":1}\n\ndata: [DONE]\n\n"),
            (
                "event: x\ndata: {\"a\":1}\nevent: y\ndata: {\"b\":2}\n\n",
                "event: x\ndata: {\"a\":1}\n\nevent: y\ndata: {\"b\":2}\n\n",
            ),
            ("{\"error\":{\"message\":\"m\"}}\n\n", "data: {\"error\":{\"message\":\"m\"}}\n\n"),
        ] {
            assert_eq!(repaired(given.as_bytes()), events(meant), "{given}");
        }
    }

    #[test]
    fn what_carries_nothing_is_left_out_and_a_text_is_not() {
        for nothing in [
            "data: {nonsense\n\n",
            "data: {\"choices\": [{]}\n\n",
            "data: hello\n\n",
            "data: 7\n\n",
            "data: \"alive\"\n\n",
            "event: heartbeat\ndata: null\n\n",
            "<html>\n<p>502</p>\n\n",
            "data: {\"content\":\"\"\n\n",
            "event: message_stop\n\n",
            "event: ping\nid: 3\n\n",
        ] {
            assert_eq!(repaired(nothing.as_bytes()), Repaired::LeftOut, "{nothing}");
        }
        for text in [
            "data: {\"choices\": [{\"delta\": {\"content\": \"x\n\n",
            "data: {'choices': [{'delta': {'content': 'x'}}]}\n\n",
            "data: {\"delta\":\"x\n\n",
            "data: {\"content\":\"\n\n",
        ] {
            assert_eq!(repaired(text.as_bytes()), Repaired::Lost, "{text}");
        }
    }

    #[test]
    fn a_body_is_mended_where_it_has_to_be() {
        for (given, meant) in [
            ("{\"a\":[NaN,-Infinity,Infinity]}", Some("{\"a\":[null,-9999.0,null]}")),
            ("{\"a\":\"x\ny\tz\u{1}\"}", Some("{\"a\":\"x\\ny\\tz\\u0001\"}")),
            ("\u{feff}{\"a\":1}", Some("{\"a\":1}")),
            ("{\"a\": \"NaN\"}", None),
            ("{\"a\": \"cut", None),
            ("{\"a\": 1", None),
            ("no JSON", None),
            ("", None),
        ] {
            assert_eq!(repair_body(given.as_bytes()).as_deref(), meant.map(str::as_bytes), "{given}");
        }
    }

    proptest! {
        #[test]
        fn a_text_with_any_control_characters_comes_through(text in "[ -~\u{1}-\u{9}\n\u{e9}]{1,40}") {
            // Written by hand: only quotes and backslashes are escaped.
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let stream = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{escaped}\"}}}}]}}\n\n");
            let mut reader = Reader::default();
            reader.push(stream.into());
            let event = reader.next_event().unwrap().expect("a whole event");
            if text.contains("\n\n") || text.contains("\ndata") || text.contains("\nevent") || text.contains("\nid")
                || text.contains("\nretry") || text.contains("\n:") || !is_nonsense(&event) {
                return Ok(());
            }
            let Repaired::Events(events) = repair(&event) else { panic!("{event:?}") };
            let data = events.strip_prefix(b"data: ").unwrap().trim_ascii_end();
            let read: serde_json::Value = serde_json::from_slice(data).unwrap();
            prop_assert_eq!(read["choices"][0]["delta"]["content"].as_str(), Some(&*text));
        }

        #[test]
        fn anything_is_repaired_or_not(bytes in "(data: |event: |\\{\"content\":\"|\n|\r|:|x|\\}|\\\\|\"|-Infinity|NaN){0,24}") {
            let event = Event { raw: bytes.as_bytes(), name: None, data: Some(bytes.as_bytes()) };
            if let Repaired::Events(events) = repair(&event) {
                let mut reader = Reader::default();
                reader.push(events.into());
                while let Some(event) = reader.next_event().unwrap() {
                    prop_assert!(!is_nonsense(&event), "{:?}", event);
                }
                prop_assert_eq!(reader.unfinished_bytes(), 0);
            }
        }
    }
}
