//! A stream of one API as a stream of another, event by event.
//!
//! Pure: one upstream event in, the bytes of any number of downstream events out. Nothing is held back but what the
//! client's API wants in another order.

use bytes::BytesMut;

use super::{Answers, LongNames, MadeUpIds, StreamReader, StreamWriter, Translation, Untranslatable, error};
use crate::dialect::classify::classify_event;
use crate::dialect::format::neutral::News;
pub use crate::dialect::format::write_event;
use crate::http::sse::Event;
use crate::time::Timestamp;

/// Translator of one stream, event by event.
#[derive(Debug)]
pub struct Stream {
    translation: Translation,
    ids: MadeUpIds,
    names: LongNames,
    /// The model said why it stopped, as its last word so far.
    is_over: bool,
    /// Its usage was told after that.
    has_told_all: bool,
    reader: Box<dyn StreamReader>,
    writer: Box<dyn StreamWriter>,
}

impl Stream {
    pub(super) fn new(answers: &Answers, now: Timestamp) -> Self {
        let translation = answers.translation;
        let (backend, client) = (translation.target(), translation.source());
        let (reader, writer) =
            (backend.stream_reader(client.api()), client.stream_writer(&answers.model, answers.include_usage, now));
        Self {
            translation,
            ids: answers.ids,
            names: answers.names.clone(),
            is_over: false,
            has_told_all: false,
            reader,
            writer,
        }
    }

    /// Adds to `out` what this event is in the client's API; an error event too, after which no other may come. An error behind
    /// the finish reason takes nothing from the answer, and is left out.
    ///
    /// # Errors
    /// [`Untranslatable`]: the upstream's fault, or something that was not asked for. The stream is broken then.
    pub fn event(&mut self, event: &Event<'_>, out: &mut BytesMut) -> Result<(), Untranslatable> {
        if let (Some(data), Some(outcome)) = (event.data, classify_event(self.translation.upstream().0, event)) {
            if self.finished() {
                return Ok(());
            }
            out.extend_from_slice(&error::event(self.translation, &outcome, data));
            return Ok(());
        }
        let Self { translation, ids, names, is_over, has_told_all, reader, writer } = self;
        let prefix = translation.source().id_prefix();
        reader.read(event, &mut |news| {
            match &news {
                News::Stop(_) => *is_over = true,
                // More of the answer withdraws a finish reason that came before it.
                News::Text(text) => *is_over &= text.is_empty(),
                News::Call { .. } | News::Input { .. } => *is_over = false,
                News::Start(_) | News::CallEnd { .. } | News::Ping | News::End => {}
                News::Usage(told) => *has_told_all = *is_over && told.output > 0,
            }
            writer.write(names.restored(ids.filled(news, prefix)), out)
        })
    }

    /// Returns true once the model has given its finish reason. Only formal events follow.
    pub fn finished(&self) -> bool {
        self.is_over && self.writer.has_stopped()
    }

    /// Returns true once the usage was told after the finish reason: nothing but the stream's own end is missing.
    pub fn has_told_all(&self) -> bool {
        self.finished() && self.has_told_all
    }

    /// Adds the end that the client waits for, when the upstream's body ended without its own; nothing when it has
    /// been written, or when the model never said that it had finished.
    pub fn finish(&mut self, out: &mut BytesMut) {
        if self.is_over {
            self.writer.finish(out);
        }
    }
}
