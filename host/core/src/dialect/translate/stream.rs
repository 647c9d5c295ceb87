//! A stream of one API as a stream of the other, event by event.
//!
//! Pure: one upstream event in, the bytes of any number of downstream events out. Nothing is held back but what the
//! client's API wants in another order.

use bytes::BytesMut;

use super::error;
use super::{Answers, Untranslatable, Way};
use crate::dialect::anthropic::messages::{read_stream as from_messages, write_stream as to_messages};
use crate::dialect::classify::classify_event;
use crate::dialect::openai::chat::{read_stream as from_chat, write_stream as to_chat};
use crate::http::sse::Event;
use crate::time::Timestamp;

/// The most tool calls of one answer.
pub(in crate::dialect) const MAX_CALLS: usize = 256;

/// Translates one stream.
#[derive(Clone, Debug)]
pub struct Stream(Inner);

#[derive(Clone, Debug)]
enum Inner {
    ToChat(from_messages::Reader, to_chat::Writer),
    ToMessages(from_chat::Reader, to_messages::Writer),
}

impl Stream {
    pub(in crate::dialect) fn new(answers: &Answers, now: Timestamp) -> Self {
        Self(match answers.way {
            Way::ChatToMessages => Inner::ToChat(from_messages::Reader::default(), to_chat::Writer::new(answers, now)),
            Way::MessagesToChat => {
                Inner::ToMessages(from_chat::Reader::default(), to_messages::Writer::new(&answers.model))
            }
        })
    }

    /// Adds to `out` what this event is in the client's API; an error event too, after which no other may come.
    ///
    /// # Errors
    /// [`Untranslatable`]: the upstream's fault, or something that was not asked for. The stream is broken then.
    pub fn event(&mut self, event: &Event<'_>, out: &mut BytesMut) -> Result<(), Untranslatable> {
        let way = match self.0 {
            Inner::ToChat(..) => Way::ChatToMessages,
            Inner::ToMessages(..) => Way::MessagesToChat,
        };
        if let (Some(data), Some(outcome)) = (event.data, classify_event(way.upstream().0, event)) {
            out.extend_from_slice(&error::event(way, &outcome, data));
            return Ok(());
        }
        match &mut self.0 {
            Inner::ToChat(reader, writer) => reader.read(event, |news| writer.write(news, out)),
            Inner::ToMessages(reader, writer) => reader.read(event, |news| writer.write(news, out)),
        }
    }

    /// Has the model said why it stopped? What follows is formalities.
    pub const fn finished(&self) -> bool {
        match &self.0 {
            Inner::ToChat(_, writer) => writer.stopped(),
            Inner::ToMessages(_, writer) => writer.stopped(),
        }
    }

    /// Adds the end that the client waits for, when the upstream's body ended without its own; nothing when it has
    /// been written, or when the model never said that it had finished.
    pub fn finish(&mut self, out: &mut BytesMut) {
        match &mut self.0 {
            Inner::ToChat(_, writer) => writer.finish(out),
            Inner::ToMessages(_, writer) => writer.finish(out),
        }
    }
}

/// One event's bytes.
pub(in crate::dialect) fn sse(name: Option<&str>, data: &serde_json::Value, out: &mut BytesMut) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\n");
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data.to_string().as_bytes());
    out.extend_from_slice(b"\n\n");
}
