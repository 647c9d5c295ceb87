//! The form of an answer: events or one body, told by what comes and not by its label, and given in the form that was asked
//! for.
//!
//! Servers label streams `text/plain`, `application/json`, `application/octet-stream` or not at all, answer a request
//! for a stream with JSON, and one for JSON with a stream.

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};

use super::reading::Reading;
use super::{Attempt, Output, Phase};
use crate::dialect::as_whole::as_whole;
use crate::dialect::usage::BodyTap;
use crate::http::headers::has_content_type;
use crate::outcome::{Kind, Outcome};
use crate::record::Usage;
use crate::time::Timestamp;

/// The most events that are held to be put together into one body, in bytes.
pub(super) const MAX_EVENTS_BYTES: usize = 16 * 1024 * 1024;

/// The form in which the client wants the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    AsItComes,
    /// One body of JSON, made of the events that come.
    Json,
}

/// The form of bytes at the beginning of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// Too few bytes have come to tell.
    Unknown,
    Events,
    Other,
}

impl Attempt {
    /// The first bytes of an answer whose form is not known; they are held until it is.
    pub(super) fn first_bytes(&mut self, now: Timestamp, data: Bytes, is_last: bool) -> Output {
        self.held.push(data);
        let held = self.held.take();
        match beginning_of(&held, is_last) {
            Beginning::Unknown => {
                self.held.push(held);
                Output::Wait
            }
            Beginning::Events => {
                let opened = self.begin_events(now);
                debug_assert!(matches!(opened, Output::Wait | Output::Commit(_)), "a stream begins with its gate");
                self.events_held(now, opened, held)
            }
            Beginning::Other if self.must_join() && !matches!(held.trim_ascii_start().first(), Some(b'{' | b'[')) => {
                let text = "the upstream did not answer with a stream";
                self.fail_unanswered(Outcome::new(Kind::NotResumed, text))
            }
            Beginning::Other => self.begin_body(now, held, is_last),
        }
    }

    /// Reads the bytes that told the form, behind what the opening of the gate came to.
    fn events_held(&mut self, now: Timestamp, opened: Output, held: Bytes) -> Output {
        let piece = self.reading.read(held);
        match (opened, self.pass(now, piece)) {
            // A gate that opens with the head has nothing to hold back; what came with it goes out with the head.
            (Output::Commit(_), Output::Deliver(bytes)) => Output::Commit(bytes),
            (Output::Commit(_), Output::Ended(_, ended)) => Output::Ended(Bytes::new(), ended),
            (Output::Commit(none), Output::Wait) => Output::Commit(none),
            (_, passed) => passed,
        }
    }

    /// A stream begins, under whatever label.
    pub(super) fn begin_events(&mut self, now: Timestamp) -> Output {
        self.packed = None;
        self.read_events(now);
        let label = if self.asked.streaming { "text/event-stream" } else { "application/json" };
        if let Some(head) = self.head.as_mut().filter(|head| !has_content_type(&head.headers, label)) {
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(label));
        }
        if !self.asked.streaming {
            self.form = Form::Json;
        }
        self.gate_stream()
    }

    /// A body in one piece begins with these bytes.
    pub(super) fn begin_body(&mut self, now: Timestamp, data: Bytes, is_last: bool) -> Output {
        if let Some(joiner) = self.reading.take_joiner() {
            self.joiner = Some(joiner);
        }
        self.reading = Reading::Body(BodyTap::new(self.dialect));
        self.deadlines.head_came(now);
        let as_stream = self.asked.streaming;
        self.phase = Phase::Whole { as_stream };
        self.whole_bytes(now, data, is_last, as_stream)
    }

    /// Returns true if a body that is labelled as a stream begins like JSON: then it is.
    pub(super) fn is_mislabelled_json(&self, data: &[u8]) -> bool {
        !self.dialect.is_opaque()
            && self.reading.is_untouched()
            && matches!(data.trim_ascii_start().first(), Some(b'{' | b'['))
    }

    /// The events of a whole stream, put together for a client that asked for one body.
    pub(super) fn stream_as_whole(&mut self, events: Bytes) -> Result<Bytes, Outcome> {
        if let Some(head) = &mut self.head {
            head.headers.remove(CONTENT_LENGTH);
        }
        as_whole(self.asked.operation, events).ok_or_else(|| {
            let text = "the upstream answered a request for JSON with a stream that cannot be put together";
            Outcome::new(Kind::Malformed, text)
        })
    }

    pub(super) fn too_long_to_join(&mut self) -> Output {
        let text = "the upstream answered a request for JSON with a stream too long to be put together";
        self.ended(Bytes::new(), Outcome::new(Kind::Malformed, text), Usage::default())
    }
}

/// The form of a body that begins with these bytes. A stream begins with a field or a comment, and with nothing else that a
/// body may begin with.
fn beginning_of(held: &[u8], is_last: bool) -> Beginning {
    const FIELDS: [&[u8]; 4] = [b"data", b"event", b"id", b"retry"];
    let bare = held.strip_prefix(b"\xef\xbb\xbf").unwrap_or(held).trim_ascii_start();
    let is_field = |name: &&[u8]| bare.strip_prefix(*name).is_some_and(|rest| rest.first() == Some(&b':'));
    let may_be_field = |name: &&[u8]| bare.len() <= name.len() && name.starts_with(bare);
    match bare.first() {
        Some(b':') => Beginning::Events,
        Some(_) if FIELDS.iter().any(is_field) => Beginning::Events,
        // A BOM may be cut as well.
        Some(_) | None if !is_last && (FIELDS.iter().any(may_be_field) || b"\xef\xbb\xbf".starts_with(bare)) => {
            Beginning::Unknown
        }
        Some(_) | None => Beginning::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_known_by_its_beginning() {
        for events in ["data: x", "data:x", "\n\nevent: x", ": ping", "id: 1", "retry: 3", "\u{feff}data: x"] {
            assert_eq!(beginning_of(events.as_bytes(), false), Beginning::Events, "{events}");
        }
        for other in ["{", "[", "<html>", "datax", "database", "null", "d:", "event "] {
            assert_eq!(beginning_of(other.as_bytes(), false), Beginning::Other, "{other}");
        }
        for few in ["", "\n", "d", "data", "ev", "re"] {
            assert_eq!(beginning_of(few.as_bytes(), false), Beginning::Unknown, "{few}");
            assert_eq!(beginning_of(few.as_bytes(), true), Beginning::Other, "{few}");
        }
        assert_eq!(beginning_of(b"\xef\xbb", false), Beginning::Unknown);
    }
}
