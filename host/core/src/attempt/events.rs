//! A stream read by the event: only whole events go on, so that the usage chunk nobody asked for can be left out and an
//! error event is seen before it is delivered.
//!
//! An event that is not JSON is mended, because a client's SDK would stop at it; one that carries nothing is left out, and one
//! whose text cannot be read is a break. Of an answer that resumes another one goes on what is new.

use bytes::{Bytes, BytesMut};

use super::piece::{Piece, cut_short, unreadable};
use super::translated::EventTranslator;
use super::unasked_usage::without_null_usage;
use crate::contract::Operation;
use crate::dialect::classify::classify_event;
use crate::dialect::envelope::Opened;
use crate::dialect::repair::{Repaired, Repairs, is_unreadable, repair};
use crate::dialect::resume::{Emit, Joiner, Unfit};
use crate::dialect::usage::{Asked as UsageAsked, Sight, StreamTap};
use crate::http::sse;
use crate::outcome::{Kind, Outcome};
use crate::record::Usage;
use crate::table::Dialect;

/// A stream of events being read.
#[derive(Debug)]
pub(super) struct EventReader {
    reader: sse::Reader,
    judge: Judge,
    /// Translates what comes before anything else looks at it; none where the backend speaks the client's dialect.
    translator: Option<EventTranslator>,
    /// Must its data be JSON?
    is_json: bool,
    is_untouched: bool,
    repairs: Repairs,
}

/// Judges whole events, one after the other.
#[derive(Debug)]
struct Judge {
    tap: StreamTap,
    /// Remembers what is delivered, and joins it to what was; none where nothing is to be resumed.
    joiner: Option<Joiner>,
    dialect: Dialect,
    hide_usage: bool,
}

/// The request whose answer is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) operation: Operation,
    /// Answers asked for at once.
    pub(super) answers: u32,
    /// The usage chunk is left out: the client did not ask for it.
    pub(super) hide_usage: bool,
}

impl EventReader {
    /// A reader for a stream of this dialect.
    pub(super) fn new(
        dialect: Dialect,
        expected: Expected,
        joiner: Option<Joiner>,
        translator: Option<EventTranslator>,
    ) -> Self {
        let tap = StreamTap::new(dialect, expected.operation).expecting(expected.answers);
        let judge = Judge { tap, joiner, dialect, hide_usage: expected.hide_usage };
        let (reader, is_json) = (sse::Reader::default(), !dialect.is_opaque());
        Self { reader, judge, translator, is_json, is_untouched: true, repairs: Repairs::default() }
    }

    /// Bytes of an event that is not whole, and of the text that is kept.
    pub(super) fn held_bytes(&self) -> usize {
        let kept = self.judge.joiner.as_ref().map_or(0, |joiner| joiner.told().text_bytes());
        self.reader.unfinished_bytes() + kept
    }

    /// Returns true if no byte has come.
    pub(super) const fn is_untouched(&self) -> bool {
        self.is_untouched
    }

    /// Takes the state of joining, for another way to read the answer.
    pub(super) fn take_joiner(&mut self) -> Option<Joiner> {
        self.judge.joiner.take()
    }

    /// Takes bytes as they came; answers what of them goes on.
    pub(super) fn read(&mut self, data: Bytes) -> Piece {
        self.is_untouched &= data.is_empty();
        let failed = self.push(data);
        let piece = self.read_events();
        Piece { failed: piece.failed.or(failed), ..piece }
    }

    /// Returns true once its last event was read, so that only the end of the body may come.
    pub(super) fn has_said_all(&self) -> bool {
        self.judge.tap.ended_well() && self.judge.tap.has_end()
    }

    /// Returns true once nothing but the stream's own end is missing.
    pub(super) fn has_told_all(&self) -> bool {
        let translated = || self.translator.as_ref().is_some_and(EventTranslator::has_told_all);
        self.judge.tap.has_told_all() || translated()
    }

    /// Returns true if it has content, or its provider counted tokens of it.
    pub(super) fn has_answer(&self) -> bool {
        self.judge.tap.has_answer()
    }

    /// Returns the number of content events so far.
    pub(super) fn content_events(&self) -> u64 {
        self.judge.tap.content_events()
    }

    /// Returns the transcript and the state of joining.
    pub(super) fn joiner(&self) -> Option<&Joiner> {
        self.judge.joiner.as_ref()
    }

    /// Returns the usage so far.
    pub(super) fn usage(&self, asked: &UsageAsked<'_>) -> Usage {
        let upstreams = self.translator.as_ref().and_then(|translator| translator.usage(asked));
        upstreams.unwrap_or_else(|| self.judge.tap.usage(asked))
    }

    /// Returns true once the model has given its finish reason, or the stream its own end.
    pub(super) fn is_finished(&self) -> bool {
        let translated = || self.translator.as_ref().is_some_and(EventTranslator::is_finished);
        self.judge.tap.finished() || self.has_said_all() || translated()
    }

    /// Returns the repairs so far.
    pub(super) fn repairs(&self) -> Repairs {
        let mut repairs = self.repairs;
        if let Some(translator) = &self.translator {
            repairs.add(translator.repairs());
        }
        repairs
    }

    /// Returns the names and numbers that the client has of this stream.
    pub(super) fn opened(&self) -> Opened {
        let seen = self.judge.tap.opened();
        match self.judge.joiner.as_ref().filter(|joiner| !joiner.is_first()) {
            // It was delivered in the names and numbers of the first.
            Some(joiner) => Opened { response: None, sequence: joiner.told().sequence() },
            None => seen.clone(),
        }
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
            if self.is_json && is_unreadable(&event) {
                let repaired = repair(&event);
                let kept = kept.get_or_insert_default();
                kept.extend_from_slice(&self.reader.take_without_last());
                if let Err(failed) = self.judge.mended(repaired, &mut self.repairs, kept) {
                    return Piece { bytes: kept.split().freeze(), failed: Some(failed) };
                }
                continue;
            }
            match self.judge.emit(&event) {
                Ok(Emit::AsReceived) => {}
                Ok(Emit::Nothing) => kept.get_or_insert_default().extend_from_slice(&self.reader.take_without_last()),
                Ok(Emit::Instead(bytes)) => {
                    let kept = kept.get_or_insert_default();
                    kept.extend_from_slice(&self.reader.take_without_last());
                    kept.extend_from_slice(&bytes);
                }
                Err(failed) => {
                    return Piece { bytes: joined(kept, self.reader.take_before_last()), failed: Some(failed) };
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
            let (translated, lost) = translator.finish();
            self.reader.push(translated);
            let piece = self.read_events();
            last.extend_from_slice(&piece.bytes);
            if let Some(failed) = piece.failed.or(lost) {
                return Piece { bytes: last.freeze(), failed: Some(failed) };
            }
        }
        if let Some(outcome) = self.read_unfinished(&mut last) {
            return Piece { bytes: last.freeze(), failed: Some(outcome) };
        }
        let tap = &self.judge.tap;
        let mut failed = None;
        if !tap.ended_well() {
            if tap.finished() {
                last.extend_from_slice(tap.missing_end());
            } else {
                failed = Some(cut_short());
            }
        }
        Piece { bytes: last.freeze(), failed }
    }

    /// Looks at an event whose blank line never came: sloppy servers end their last one so.
    fn read_unfinished(&mut self, last: &mut BytesMut) -> Option<Outcome> {
        let event = self.reader.finish().ok()??;
        if self.is_json && is_unreadable(&event) {
            return match repair(&event) {
                // A text that was begun and never ended.
                Repaired::Lost => Some(cut_short()),
                Repaired::LeftOut => None,
                repaired @ Repaired::Events(_) => self.judge.mended(repaired, &mut self.repairs, last).err(),
            };
        }
        let emit = match self.judge.emit(&event) {
            Ok(emit) => emit,
            Err(failed) => return Some(failed),
        };
        match emit {
            // Half an event; data that can be read is a whole one, and was told as such.
            Emit::AsReceived if event.data.is_none() && !self.judge.is_over() => {}
            Emit::AsReceived => {
                last.extend_from_slice(event.raw.trim_ascii_end());
                last.extend_from_slice(b"\n\n");
            }
            Emit::Instead(bytes) => last.extend_from_slice(&bytes),
            Emit::Nothing => {}
        }
        None
    }
}

impl Judge {
    /// Looks at an event; answers what of it goes on, or the end of the answer that it is.
    fn emit(&mut self, event: &sse::Event<'_>) -> Result<Emit, Outcome> {
        let was_over = self.is_over();
        let emit = match self.tap.see(event) {
            // The model has said why it stopped: what goes wrong after that takes nothing from the answer.
            Sight::Error if was_over => Ok(Emit::Nothing),
            Sight::Error => Err(error_in(self.dialect, event)),
            Sight::UsageOnly if self.hide_usage => Ok(Emit::Nothing),
            Sight::UsageOnly | Sight::Content | Sight::Finish | Sight::Done | Sight::Other => {
                self.joiner.as_mut().map_or(Ok(Emit::AsReceived), |joiner| joiner.take(event)).map_err(not_resumed)
            }
        };
        if self.hide_usage { emit.map(|emit| without_unasked_usage(emit, event.raw)) } else { emit }
    }

    /// Looks at the events that an unreadable one means, and adds to `out` what of them goes on.
    fn mended(&mut self, repaired: Repaired, repairs: &mut Repairs, out: &mut BytesMut) -> Result<(), Outcome> {
        let events = match repaired {
            Repaired::Events(events) => events,
            Repaired::LeftOut => {
                repairs.left_out += 1;
                return Ok(());
            }
            Repaired::Lost if self.is_over() => {
                repairs.left_out += 1;
                return Ok(());
            }
            Repaired::Lost => return Err(unreadable()),
        };
        repairs.mended += 1;
        let mut reader = sse::Reader::default();
        reader.push(events.into());
        while let Ok(Some(event)) = reader.next_event() {
            match self.emit(&event)? {
                Emit::AsReceived => out.extend_from_slice(event.raw),
                Emit::Instead(bytes) => out.extend_from_slice(&bytes),
                Emit::Nothing => {}
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.tap.finished() || self.tap.ended_well()
    }
}

/// Form of an event for a client that did not ask for the usage.
fn without_unasked_usage(emit: Emit, raw: &[u8]) -> Emit {
    let told = match &emit {
        Emit::AsReceived => without_null_usage(raw),
        Emit::Instead(bytes) => without_null_usage(bytes),
        Emit::Nothing => None,
    };
    told.map_or(emit, Emit::Instead)
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
    if event.data.is_some_and(|data| data.trim_ascii() == b"[DONE]") {
        return cut_short();
    }
    let unknown = || Outcome::new(Kind::ServerError, "the upstream sent an error inside its stream");
    classify_event(dialect, event).unwrap_or_else(unknown)
}

/// The outcome of an attempt to resume whose answer is not delivered.
pub(super) fn not_resumed(why: Unfit) -> Outcome {
    Outcome::new(Kind::NotResumed, why.to_string())
}
