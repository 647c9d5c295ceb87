//! The delivered part of one stream.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::contract::Operation;
use crate::dialect::format::{Names, Part, Resumable, Unfit, Verdict, Walker, choice_of};
use crate::dialect::registry::Dialect;
use crate::http::json;
use crate::http::sse::Event;

/// The most text kept of one stream, in bytes; a longer one cannot be resumed.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// Texts, marks, notes and items of one stream together; one of more pieces cannot be resumed.
const MAX_PIECES: usize = 4_096;

/// Bytes of answer text that count as one token where nobody counted.
const BYTES_PER_TOKEN: u64 = 4;

/// The delivered part of one stream: its texts, its structure, and the names it used.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// None where the stream passes unread.
    pub(super) format: Option<&'static dyn Resumable>,
    /// Channels and their texts, in the order of their first words.
    pub(super) texts: Vec<(String, String)>,
    pub(super) marks: BTreeSet<String>,
    pub(super) notes: BTreeSet<String>,
    pub(super) names: Names,
    /// Choices that have ended.
    pub(super) ended: BTreeSet<u64>,
    text_bytes: usize,
    text_events: u64,
    has_begun: bool,
    unfit: Option<Unfit>,
}

impl Transcript {
    /// Creates the transcript of a stream in this dialect for this operation, with nothing delivered.
    pub fn new(dialect: Dialect, operation: Operation) -> Self {
        let format = dialect.format().stream(operation).resumable();
        Self {
            format,
            texts: Vec::new(),
            marks: BTreeSet::new(),
            notes: BTreeSet::new(),
            names: Names::default(),
            ended: BTreeSet::new(),
            text_bytes: 0,
            text_events: 0,
            has_begun: false,
            unfit: format.is_none().then_some(Unfit::Unknown),
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

    /// Returns true once an event was delivered.
    pub const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Returns the reason why nothing can continue it, if so.
    pub const fn unfit(&self) -> Option<Unfit> {
        self.unfit
    }

    /// The last sequence number that was delivered.
    pub const fn sequence(&self) -> Option<u64> {
        self.names.sequence
    }

    /// Returns the bytes of text that were delivered.
    pub const fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// About so many tokens were delivered.
    pub fn tokens(&self) -> u64 {
        self.text_events.max((self.text_bytes as u64).div_ceil(BYTES_PER_TOKEN))
    }

    /// The one text that was delivered, when there is nothing else that an assistant's message cannot hold.
    pub(super) fn only_text(&self) -> Option<&str> {
        let format = self.format?;
        let [(name, text)] = &self.texts[..] else { return None };
        let is_open_text = self.marks.iter().all(|mark| format.prefill_mark() == Some(mark));
        (format.prefill_channels().contains(&&**name) && is_open_text).then_some(text)
    }

    /// The choices that something was delivered of and that have not ended.
    pub(super) fn open_choices(&self) -> impl Iterator<Item = u64> {
        let names = self.texts.iter().map(|(name, _)| name).chain(&self.marks);
        names.map(|name| choice_of(name)).filter(|choice| !self.ended.contains(choice))
    }

    pub(super) fn see_value(&mut self, event: &mut Value) {
        self.has_begun = true;
        let Some(format) = self.format else { return };
        format.learn_names(&mut self.names, event);
        let mut seen = Vec::new();
        let mut judge = |part: Part<'_>| {
            seen.push(match part {
                Part::Text { channel, text } => Owned::Text(channel.to_owned(), text.to_owned()),
                Part::Mark(mark) => Owned::Mark(mark.to_owned()),
                Part::Note(note) => Owned::Note(note.to_owned()),
                Part::End(choice) => Owned::End(choice),
            });
            Ok(Verdict::Keep)
        };
        let walked = format.walk(&mut Walker::new(&mut judge), event);
        self.unfit = self.unfit.or(walked.err());
        for part in seen {
            match part {
                Owned::Text(channel, text) => self.add(&channel, &text),
                Owned::Mark(mark) => _ = self.marks.insert(mark),
                Owned::Note(note) => _ = self.notes.insert(note),
                Owned::End(choice) => _ = self.ended.insert(choice),
            }
        }
        let pieces = self.texts.len() + self.marks.len() + self.notes.len() + self.ended.len() + self.names.items.len();
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

    /// The most common event by far: a piece of the main text and nothing else. Read without a tree; false when it is
    /// another event.
    fn see_text(&mut self, data: &[u8]) -> bool {
        if !self.has_begun {
            return false;
        }
        let is_role_known = self.notes.contains("role");
        let Some((channel, raw)) = self.format.and_then(|format| format.only_text(data, is_role_known)) else {
            return false;
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
    End(u64),
}
