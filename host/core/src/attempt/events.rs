//! A stream read by the event: only whole events go on, so that the usage chunk nobody asked for can be left out and an
//! error event is seen before it is delivered.
//!
//! An event that is not JSON is left out, because a client's SDK would stop at it. Of an answer that resumes another one
//! goes on what is new.

use bytes::{Bytes, BytesMut};

use super::piece::{Piece, cut_short};
use super::translated::EventTranslator;
use crate::contract::Operation;
use crate::dialect::classify::classify_event;
use crate::dialect::resume::{Emit, Joiner, Unfit};
use crate::dialect::usage::{Sight, StreamTap};
use crate::http::sse;
use crate::outcome::{Kind, Outcome};
use crate::record::Usage;
use crate::table::Dialect;

/// A stream of events being read.
#[derive(Debug)]
pub(super) struct EventReader {
    reader: sse::Reader,
    tap: StreamTap,
    /// Remembers what is delivered, and joins it to what was; none where nothing is to be resumed.
    joiner: Option<Joiner>,
    /// Translates what comes before anything else looks at it; none where the backend speaks the client's dialect.
    translator: Option<EventTranslator>,
    dialect: Dialect,
    hide_usage: bool,
    /// Must its data be JSON?
    is_json: bool,
}

impl EventReader {
    /// A reader for a stream of this dialect; `hide_usage` leaves out the usage chunk that the client did not ask for.
    pub(super) fn new(
        dialect: Dialect,
        operation: Operation,
        hide_usage: bool,
        joiner: Option<Joiner>,
        translator: Option<EventTranslator>,
    ) -> Self {
        let tap = StreamTap::new(dialect, operation);
        let (reader, is_json) = (sse::Reader::default(), !dialect.is_opaque());
        Self { reader, tap, joiner, translator, dialect, hide_usage, is_json }
    }

    /// Takes bytes as they came; answers what of them goes on.
    pub(super) fn read(&mut self, data: Bytes) -> Piece {
        let failed = self.push(data);
        let piece = self.read_events();
        Piece { failed: piece.failed.or(failed), ..piece }
    }

    /// Returns true once its last event was read, so that only the end of the body may come.
    pub(super) fn has_said_all(&self) -> bool {
        self.tap.ended_well() && self.tap.has_end()
    }

    /// Content events so far.
    pub(super) fn content_events(&self) -> u64 {
        self.tap.content_events()
    }

    /// Returns the transcript and the state of joining.
    pub(super) fn joiner(&self) -> Option<&Joiner> {
        self.joiner.as_ref()
    }

    /// Returns the usage so far.
    pub(super) fn usage(&self, prompt_tokens: u32) -> Usage {
        self.tap.usage(prompt_tokens)
    }

    /// Returns true once the model has given its finish reason.
    pub(super) fn is_finished(&self) -> bool {
        self.tap.finished() || self.translator.as_ref().is_some_and(EventTranslator::is_finished)
    }

    /// Puts them before the reader; answers why they cannot be translated.
    fn push(&mut self, data: Bytes) -> Option<Outcome> {
        let Some(translator) = &mut self.translator else {
            self.reader.push(data);
            return None;
        };
        let (translated, failed) = translator.push(data);
        self.reader.push(translated);
        failed
    }

    /// Looks at every whole event; answers their bytes, less what the client must not see.
    fn read_events(&mut self) -> Piece {
        let mut kept: Option<BytesMut> = None;
        loop {
            let event = match self.reader.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(too_long) => {
                    let outcome = Outcome::new(Kind::Malformed, too_long.to_string());
                    return Piece { bytes: joined(kept, self.reader.take()), failed: Some(outcome) };
                }
            };
            if self.is_json && sse::is_nonsense(&event) {
                kept.get_or_insert_default().extend_from_slice(&self.reader.take_without_last());
                continue;
            }
            let was_finished = self.tap.finished();
            let emit = match self.tap.see(&event) {
                // The model has said why it stopped: what goes wrong after that takes nothing from the answer.
                Sight::Error if was_finished => Ok(Emit::Nothing),
                Sight::Error => {
                    let failed = Some(error_in(self.dialect, &event));
                    return Piece { bytes: joined(kept, self.reader.take_before_last()), failed };
                }
                Sight::UsageOnly if self.hide_usage => Ok(Emit::Nothing),
                Sight::UsageOnly | Sight::Content | Sight::Finish | Sight::Done | Sight::Other => {
                    self.joiner.as_mut().map_or(Ok(Emit::AsReceived), |joiner| joiner.take(&event))
                }
            };
            match emit {
                Ok(Emit::AsReceived) => {}
                Ok(Emit::Nothing) => kept.get_or_insert_default().extend_from_slice(&self.reader.take_without_last()),
                Ok(Emit::Instead(bytes)) => {
                    let kept = kept.get_or_insert_default();
                    kept.extend_from_slice(&self.reader.take_without_last());
                    kept.extend_from_slice(&bytes);
                }
                Err(unfit) => {
                    let failed = Some(not_resumed(unfit));
                    return Piece { bytes: joined(kept, self.reader.take_before_last()), failed };
                }
            }
        }
        Piece { bytes: joined(kept, self.reader.take()), failed: None }
    }

    /// The body is over. Was the answer whole? The end that the dialect lacks is added where the model had finished; a
    /// stream that ends before that was cut.
    pub(super) fn end(&mut self) -> Piece {
        let mut last = BytesMut::new();
        if let Some(translator) = &mut self.translator {
            self.reader.push(translator.finish());
            let piece = self.read_events();
            if piece.failed.is_some() {
                return piece;
            }
            last.extend_from_slice(&piece.bytes);
        }
        if let Some(outcome) = self.read_unfinished(&mut last) {
            return Piece { bytes: last.freeze(), failed: Some(outcome) };
        }
        let mut failed = None;
        if !self.tap.ended_well() {
            if self.tap.finished() {
                last.extend_from_slice(self.tap.missing_end());
            } else {
                failed = Some(cut_short());
            }
        }
        Piece { bytes: last.freeze(), failed }
    }

    /// Looks at an event whose blank line never came: sloppy servers end their last one so.
    fn read_unfinished(&mut self, last: &mut BytesMut) -> Option<Outcome> {
        let event = self.reader.finish().ok()??;
        if self.is_json && sse::is_nonsense(&event) {
            return None;
        }
        let was_finished = self.tap.finished();
        let is_error = self.tap.see(&event) == Sight::Error;
        if is_error {
            return (!was_finished).then(|| error_in(self.dialect, &event));
        }
        if !self.tap.finished() && !self.tap.ended_well() {
            return None;
        }
        match self.joiner.as_mut().map_or(Ok(Emit::AsReceived), |joiner| joiner.take(&event)) {
            Ok(Emit::AsReceived) => {
                last.extend_from_slice(event.raw.trim_ascii_end());
                last.extend_from_slice(b"\n\n");
            }
            Ok(Emit::Instead(bytes)) => last.extend_from_slice(&bytes),
            Ok(Emit::Nothing) => {}
            Err(unfit) => return Some(not_resumed(unfit)),
        }
        None
    }
}

fn joined(kept: Option<BytesMut>, rest: Bytes) -> Bytes {
    match kept {
        None => rest,
        Some(mut kept) => {
            kept.extend_from_slice(&rest);
            kept.freeze()
        }
    }
}

fn error_in(dialect: Dialect, event: &sse::Event<'_>) -> Outcome {
    let unknown = || Outcome::new(Kind::ServerError, "the upstream sent an error inside its stream");
    classify_event(dialect, event).unwrap_or_else(unknown)
}

/// The outcome of an attempt to resume whose answer is not delivered.
pub(super) fn not_resumed(why: Unfit) -> Outcome {
    Outcome::new(Kind::NotResumed, why.to_string())
}
