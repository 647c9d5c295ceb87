//! What was delivered of one stream.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::parts::{Part, Unfit, Verdict, walk};
use crate::contract::Operation;
use crate::dialect::usage::Format;
use crate::http::json::{self, Cursor};
use crate::http::sse::Event;
use crate::table::Dialect;

/// The most text kept of one stream, in bytes; a longer one cannot be resumed.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// Texts, marks, notes and items of one stream together; one of more pieces cannot be resumed.
const MAX_PIECES: usize = 4_096;

/// Bytes of answer text that count as one token where nobody counted.
const BYTES_PER_TOKEN: u64 = 4;

/// What was delivered of one stream: its texts, its structure, and the names it gave to things.
#[derive(Clone, Debug)]
pub struct Transcript {
    pub(super) format: Format,
    /// Channels and their texts, in the order of their first words.
    pub(super) texts: Vec<(String, String)>,
    pub(super) marks: BTreeSet<String>,
    pub(super) notes: BTreeSet<String>,
    pub(super) names: Names,
    text_bytes: usize,
    text_events: u64,
    has_begun: bool,
    unfit: Option<Unfit>,
}

/// What the client calls the answer and its pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// The `id` of the answer, and its `created`.
    pub(super) id: Option<Value>,
    pub(super) created: Option<Value>,
    /// Responses: the last sequence number.
    pub(super) sequence: Option<u64>,
    /// Responses: items' `id` and `call_id`, by output index.
    pub(super) items: BTreeMap<u64, (Value, Value)>,
}

impl Transcript {
    /// Of a stream that such a backend answers such a request with; nothing was delivered yet.
    pub fn new(dialect: Dialect, operation: Operation) -> Self {
        let format = Format::of(dialect, operation);
        Self {
            format,
            texts: Vec::new(),
            marks: BTreeSet::new(),
            notes: BTreeSet::new(),
            names: Names::default(),
            text_bytes: 0,
            text_events: 0,
            has_begun: false,
            unfit: (format == Format::Plain).then_some(Unfit::Unknown),
        }
    }

    /// Remembers an event that is delivered.
    pub fn see(&mut self, event: &Event<'_>) {
        let Some(data) = event.data else { return };
        if self.unfit.is_some() || data.trim_ascii() == b"[DONE]" || self.see_text(data) {
            return;
        }
        match serde_json::from_slice(data) {
            Ok(mut value) => self.see_value(&mut value),
            Err(_) => self.unfit = Some(Unfit::Unreadable),
        }
    }

    /// Was any event delivered?
    pub const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Why nothing can continue it; none when something can.
    pub const fn unfit(&self) -> Option<Unfit> {
        self.unfit
    }

    /// Bytes of text delivered.
    pub const fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// About so many tokens were delivered.
    pub fn tokens(&self) -> u64 {
        self.text_events.max((self.text_bytes as u64).div_ceil(BYTES_PER_TOKEN))
    }

    /// The one text that was delivered, when there is nothing else that an assistant's message cannot hold.
    pub(super) fn only_text(&self) -> Option<&str> {
        let channel = match self.format {
            Format::Choices => ["content", "text"].as_slice(),
            Format::Messages => &["0/text"],
            Format::Responses | Format::Plain => return None,
        };
        let [(name, text)] = &self.texts[..] else { return None };
        let is_open_text = self.marks.iter().all(|mark| mark == "start/0/text/");
        (channel.contains(&&**name) && is_open_text).then_some(text)
    }

    pub(super) fn see_value(&mut self, event: &mut Value) {
        self.has_begun = true;
        self.learn_names(event);
        let mut seen = Vec::new();
        let walked = walk(self.format, event, &mut |part| {
            seen.push(match part {
                Part::Text { channel, text } => Owned::Text(channel.to_owned(), text.to_owned()),
                Part::Mark(mark) => Owned::Mark(mark.to_owned()),
                Part::Note(note) => Owned::Note(note.to_owned()),
                Part::End => return Ok(Verdict::Keep),
            });
            Ok(Verdict::Keep)
        });
        self.unfit = self.unfit.or(walked.err());
        for part in seen {
            match part {
                Owned::Text(channel, text) => self.add(&channel, &text),
                Owned::Mark(mark) => _ = self.marks.insert(mark),
                Owned::Note(note) => _ = self.notes.insert(note),
            }
        }
        let pieces = self.texts.len() + self.marks.len() + self.notes.len() + self.names.items.len();
        if pieces > MAX_PIECES {
            self.unfit = Some(Unfit::TooLong);
            (self.texts, self.marks, self.notes, self.names) = Default::default();
        }
    }

    fn add(&mut self, channel: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        self.text_bytes += text.len();
        self.text_events += 1;
        if self.text_bytes > MAX_TEXT_BYTES {
            self.unfit = Some(Unfit::TooLong);
            self.texts.clear();
            return;
        }
        match self.texts.iter_mut().find(|(name, _)| name == channel) {
            Some((_, known)) => known.push_str(text),
            None => self.texts.push((channel.to_owned(), text.to_owned())),
        }
    }

    fn learn_names(&mut self, event: &Value) {
        match self.format {
            Format::Choices => {
                self.names.id = self.names.id.take().or_else(|| event.get("id").cloned());
                self.names.created = self.names.created.take().or_else(|| event.get("created").cloned());
            }
            Format::Responses => {
                self.names.sequence = event["sequence_number"].as_u64().or(self.names.sequence);
                self.names.id = self.names.id.take().or_else(|| event.get("response")?.get("id").cloned());
                if let (Some(index), Some(item)) = (event["output_index"].as_u64(), event.get("item")) {
                    let names = || (short(&item["id"]), short(&item["call_id"]));
                    self.names.items.entry(index).or_insert_with(names);
                }
            }
            Format::Messages | Format::Plain => {}
        }
    }

    /// The most common event by far: a piece of the main text and nothing else. Read without a tree; false when it is
    /// another event.
    fn see_text(&mut self, data: &[u8]) -> bool {
        if !self.has_begun {
            return false;
        }
        let (channel, raw): (Cow<'static, str>, &[u8]) = match self.format {
            Format::Choices => match text_of_choice(data, self.notes.contains("role")) {
                Some((name, raw)) => (name.into(), raw),
                None => return false,
            },
            Format::Messages => match text_of_block(data) {
                Some((0, raw)) => ("0/text".into(), raw),
                Some((index, raw)) => (format!("{index}/text").into(), raw),
                None => return false,
            },
            Format::Responses | Format::Plain => return false,
        };
        let Some(inner) = json::raw_str(raw) else { return false };
        if inner.contains(&b'\\') {
            let Ok(text) = serde_json::from_slice::<String>(raw) else { return false };
            self.add(&channel, &text);
        } else {
            let Ok(text) = std::str::from_utf8(inner) else { return false };
            self.add(&channel, text);
        }
        true
    }
}

enum Owned {
    Text(String, String),
    Mark(String),
    Note(String),
}

/// The raw text of a chunk whose only choice, the first, carries nothing but text. Nothing is read twice.
fn text_of_choice(data: &[u8], role_told: bool) -> Option<(&'static str, &[u8])> {
    let mut at = Cursor::new(data);
    if !at.enter(b'{') {
        return None;
    }
    while let Some(name) = at.name() {
        if name != b"choices" {
            at.value();
            continue;
        }
        let is_open = at.enter(b'[') && at.has_element() && at.enter(b'{');
        let found = if is_open { text_of_members(&mut at, role_told)? } else { return None };
        return if at.has_element() { None } else { Some(found) };
    }
    None
}

/// The same of one choice, whose members come next.
fn text_of_members<'a>(at: &mut Cursor<'a>, role_told: bool) -> Option<(&'static str, &'a [u8])> {
    let mut found = None;
    while let Some(name) = at.name() {
        if name == b"delta" && at.enter(b'{') {
            while let Some(name) = at.name() {
                let value = at.value();
                match name {
                    _ if !json::is_filled(value) => {}
                    b"content" if value[0] == b'"' && found.is_none() => found = Some(("content", value)),
                    b"role" if role_told => {}
                    _ => return None,
                }
            }
            continue;
        }
        let value = at.value();
        match name {
            b"index" if value != b"0" => return None,
            b"finish_reason" if json::is_filled(value) => return None,
            b"text" if json::is_filled(value) && found.replace(("text", value)).is_some() => return None,
            _ => {}
        }
    }
    found
}

/// The block's index and the raw text of an Anthropic text delta.
fn text_of_block(data: &[u8]) -> Option<(u64, &[u8])> {
    let (mut index, mut text) = (None, None);
    let mut at = Cursor::new(data);
    if !at.enter(b'{') {
        return None;
    }
    while let Some(name) = at.name() {
        if name == b"delta" && at.enter(b'{') {
            while let Some(name) = at.name() {
                let value = at.value();
                match name {
                    b"type" if value == b"\"text_delta\"" => {}
                    b"text" if value.first() == Some(&b'"') => text = Some(value),
                    _ => return None,
                }
            }
            continue;
        }
        let value = at.value();
        match name {
            b"type" if value != b"\"content_block_delta\"" => return None,
            b"index" => index = json::count(value),
            _ => {}
        }
    }
    Some((index?, text?))
}

/// A name, unless it is longer than names are.
fn short(name: &Value) -> Value {
    const MAX_NAME_BYTES: usize = 256;
    if name.as_str().is_some_and(|name| name.len() <= MAX_NAME_BYTES) { name.clone() } else { Value::Null }
}
