//! An event taken apart: the texts it adds to and the structure it makes, each of which can be kept, cut or dropped.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

/// The reason why a stream cannot be continued, or another answer cannot continue it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// It carries something that is neither text nor a tool call.
    #[error("it carries more than text and tool calls")]
    NotText,
    /// An event could not be read.
    #[error("one of its events could not be read")]
    Unreadable,
    /// More was delivered than is kept in mind.
    #[error("it is longer than what is kept of a stream")]
    TooLong,
    /// The streams of this dialect are not known.
    #[error("streams of this kind are passed on unread")]
    Unknown,
    /// The other answer says something else.
    #[error("the next answer goes another way than the one that was begun")]
    Differs,
    /// The other answer ends earlier.
    #[error("the next answer ends before what was already delivered")]
    Shorter,
}

/// A part of an event.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Adds to a text; what is added to one channel is one text.
    Text {
        /// Channel that the text belongs to, such as a choice or a block.
        channel: &'a str,
        /// Text that is added to the channel.
        text: &'a str,
    },
    /// Opens, names or closes something.
    Mark(&'a str),
    /// Structure that one provider sends and another leaves out; it is not to be repeated.
    Note(&'a str),
    /// Says why this choice of the answer ends, or that it ended; 0 where answers have one.
    End(u64),
}

impl Part<'_> {
    /// The choice that it belongs to: several answers to one request are told in one stream, each with an end of its own.
    pub(in crate::dialect) fn choice(&self) -> u64 {
        match self {
            Part::Text { channel: name, .. } | Part::Mark(name) | Part::Note(name) => choice_of(name),
            Part::End(choice) => *choice,
        }
    }
}

/// The choice that a name of [`in_choice`] belongs to; 0 for any other.
pub(in crate::dialect) fn choice_of(name: &str) -> u64 {
    let number = |rest: &str| rest.split_once('/').and_then(|(choice, _)| choice.parse().ok());
    name.strip_prefix('#').and_then(number).unwrap_or(0)
}

/// The name of a channel or mark of this choice.
pub(in crate::dialect) fn in_choice(choice: u64, name: &str) -> Cow<'_, str> {
    if choice == 0 { name.into() } else { format!("#{choice}/{name}").into() }
}

/// Treatment of a part of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The part stays as it is.
    Keep,
    /// The text loses so many bytes at its beginning.
    From(usize),
    /// Another text stands in its place.
    Instead(String),
    /// The part is left out.
    Drop,
}

/// Contents of an event whose parts were gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::dialect) struct Walked {
    pub(in crate::dialect) parts: usize,
    /// Those that stay, in whole or in part.
    pub(in crate::dialect) kept: usize,
}

/// Puts the parts of one event to a judge, and changes the event by its verdicts.
pub struct Walker<'j> {
    judge: &'j mut dyn FnMut(Part<'_>) -> Result<Verdict, Unfit>,
    walked: Walked,
    was_cut: bool,
}

impl<'j> Walker<'j> {
    pub(in crate::dialect) fn new(judge: &'j mut dyn FnMut(Part<'_>) -> Result<Verdict, Unfit>) -> Self {
        Self { judge, walked: Walked::default(), was_cut: false }
    }

    pub(in crate::dialect) const fn walked(&self) -> Walked {
        self.walked
    }

    /// Returns true if a text of this event was shortened, so that what is told about it elsewhere no longer fits.
    pub const fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// Puts a part without a text; whether it stays.
    ///
    /// # Errors
    /// The answer cannot continue what was delivered.
    pub fn put(&mut self, part: Part<'_>) -> Result<bool, Unfit> {
        self.walked.parts += 1;
        let stays = (self.judge)(part)? != Verdict::Drop;
        self.walked.kept += usize::from(stays);
        Ok(stays)
    }

    /// Puts a piece of the text of this channel, and leaves of it what is new.
    ///
    /// # Errors
    /// The answer cannot continue what was delivered.
    pub fn text(&mut self, channel: &str, text: &mut String) -> Result<(), Unfit> {
        if text.is_empty() {
            return Ok(());
        }
        self.walked.parts += 1;
        match (self.judge)(Part::Text { channel, text })? {
            Verdict::Keep => self.walked.kept += 1,
            Verdict::From(at) => {
                text.drain(..at);
                self.walked.kept += 1;
                self.was_cut = true;
            }
            Verdict::Instead(other) => {
                *text = other;
                self.walked.kept += 1;
                self.was_cut = true;
            }
            Verdict::Drop => text.clear(),
        }
        Ok(())
    }
}

/// The names by which the client knows the answer and its pieces.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The `id` of the answer.
    pub id: Option<Value>,
    /// Member `created` of the stream's events.
    pub created: Option<Value>,
    /// Sequence number of the last event, in streams that number them.
    pub sequence: Option<u64>,
    /// Items' `id` and `call_id`, by output index.
    pub items: BTreeMap<u64, (Value, Value)>,
}

/// Returns true if a value holds anything: not null, not false, not empty.
pub(in crate::dialect) fn is_filled(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(yes) => *yes,
        Value::Number(_) => true,
    }
}

/// Puts the known name in the place of the other answer's, where it has one.
pub(in crate::dialect) fn restore(value: &mut Value, member: &str, known: Option<&Value>) {
    if let (Some(known), Some(other)) = (known.filter(|k| !k.is_null()), value.get_mut(member)) {
        *other = known.clone();
    }
}
