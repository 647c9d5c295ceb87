//! Backends of another dialect: their request is translated on the way out, their answer on the way back.
//!
//! Behind here nobody notices: the answer is read, joined, counted and delivered in the client's own dialect.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::response::Parts;
use http::uri::{InvalidUri, PathAndQuery};

use super::Attempt;
use super::piece::unreadable;
use super::request::{ClientRequest, Endpoint};
use crate::contract::Operation;
use crate::dialect::facts::BodyFacts;
use crate::dialect::headers::remove_own;
use crate::dialect::repair::{Repaired, Repairs, is_unreadable, repair};
use crate::dialect::translate::request::Translated;
use crate::dialect::translate::stream::Stream;
use crate::dialect::translate::{Answers, Translation, Untranslatable, error};
use crate::dialect::usage::{Asked as UsageAsked, StreamTap};
use crate::http::sse;
use crate::outcome::{Kind, Outcome};
use crate::record::Usage;
use crate::table::Dialect;
use crate::time::Timestamp;
use crate::view::View;

/// The way back of a translated request.
#[derive(Debug)]
pub(super) struct TranslatedAttempt {
    answers: Answers,
    left_out: Arc<[Untranslatable]>,
    request_id: String,
}

/// Translates the events of a stream as their bytes come.
#[derive(Debug)]
pub(super) struct EventTranslator {
    reader: sse::Reader,
    /// Counts what the upstream tells, of which a translation keeps only a part.
    tap: StreamTap,
    stream: Stream,
    repairs: Repairs,
}

/// Returns true if this request can be translated for backends of other dialects; false also where there are none.
///
/// # Errors
/// There are, but it cannot be translated to one of their dialects.
pub fn translatable(view: &View, request: &ClientRequest<'_>) -> Result<bool, Untranslatable> {
    if !request.body_facts.is_some_and(BodyFacts::is_object) {
        return Ok(false);
    }
    let (mut checked, mut last) = (false, None);
    for index in view.foreign(request.model, request.operation) {
        let translation = Translation::of(request.operation, view.backend(index).dialect);
        // Most have one other dialect.
        if let Some(translation) = translation.filter(|_| translation != last) {
            request.translations.check(translation, request.body, request.model)?;
            (checked, last) = (true, Some(translation));
        }
    }
    Ok(checked)
}

/// Returns true if a backend may serve this request for free.
pub fn serves_free(view: &View, request: &ClientRequest<'_>) -> bool {
    view.serves_free(request.model, request.operation, translatable(view, request) == Ok(true))
}

impl Attempt {
    /// Fields of the client's request that were left out of what is sent, or said otherwise, with the reason of each.
    pub fn left_out(&self) -> &[Untranslatable] {
        self.translated.as_ref().map_or(&[], |translated| &translated.left_out)
    }
}

impl TranslatedAttempt {
    /// The body for this backend and the way back, if the request must be translated for it.
    ///
    /// # Errors
    /// It cannot be; [`translatable`] has said so before.
    pub(super) fn new(
        request: &ClientRequest<'_>,
        endpoint: &Endpoint,
        model: &str,
    ) -> Result<Option<(Bytes, Self)>, Outcome> {
        let translation = Translation::of(request.operation, endpoint.dialect);
        let Some(translation) = translation.filter(|_| request.body_facts.is_some_and(BodyFacts::is_object)) else {
            return Ok(None);
        };
        let host = endpoint.base.authority().host();
        let refused = |why: Untranslatable| Outcome::new(Kind::Refused, why.to_string());
        let translated = request.translations.translated(translation, request.body, model, host);
        let Translated { body, answers, left_out, .. } = translated.map_err(refused)?;
        // The usage is always told, so that it can be counted; a client that did not ask for it does not see it.
        let answers = Answers { include_usage: true, ..answers };
        Ok(Some((body, Self { answers, left_out, request_id: request.id.to_owned() })))
    }

    /// Tells that the client's limit of the answer's tokens was lowered to this one.
    pub(super) fn lowered(&mut self, limit: u64) {
        let why = format!("is more than the {limit} tokens that this model takes, and was lowered to them");
        self.left_out = self.left_out.iter().cloned().chain([Untranslatable::new("max_tokens", why)]).collect();
    }

    const fn translation(&self) -> Translation {
        self.answers.translation
    }

    /// The path that it goes to, under the backend's base URL.
    ///
    /// # Errors
    /// The model's name cannot stand in a path.
    pub(super) fn path(&self) -> Result<PathAndQuery, InvalidUri> {
        let Answers { translation, stream, model, .. } = &self.answers;
        match translation.path(model, *stream) {
            Cow::Borrowed(path) => Ok(PathAndQuery::from_static(path)),
            Cow::Owned(path) => path.parse(),
        }
    }

    /// The operation that the backend is asked for.
    pub(super) fn operation(&self) -> Operation {
        self.translation().upstream().1
    }

    /// The dialect of the client.
    pub(super) fn downstream(&self) -> Dialect {
        self.translation().downstream()
    }

    /// Takes out of the client's headers those that speak of its own API.
    pub(super) fn clean(&self, headers: &mut HeaderMap) {
        remove_own(headers, self.downstream());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }

    /// A whole answer in the client's dialect.
    ///
    /// # Errors
    /// It says what was not asked for, or it is no answer.
    pub(super) fn whole(&self, headers: &mut HeaderMap, body: &[u8], now: Timestamp) -> Result<Bytes, Outcome> {
        headers.remove(CONTENT_LENGTH);
        self.answers.whole(body, now).map_err(|why| untranslatable(&why))
    }

    /// A refusal in the client's dialect.
    pub(super) fn refusal(&self, head: &mut Parts, body: &[u8]) -> Bytes {
        let (status, body) = error::refusal(self.translation(), head.status.as_u16(), body, &self.request_id);
        head.status = StatusCode::from_u16(status).unwrap_or(head.status);
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(CONTENT_ENCODING);
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        body
    }

    /// A translator for a stream of a backend of this dialect that begins now.
    pub(super) fn event_translator(&self, dialect: Dialect, now: Timestamp) -> EventTranslator {
        EventTranslator {
            reader: sse::Reader::default(),
            tap: StreamTap::new(dialect, self.operation()),
            stream: self.answers.stream(now),
            repairs: Repairs::default(),
        }
    }
}

impl EventTranslator {
    /// The events that these bytes complete, translated; and why no more can be.
    pub(super) fn push(&mut self, data: Bytes) -> (Bytes, Option<Outcome>) {
        let mut out = BytesMut::new();
        self.reader.push(data);
        let failed = loop {
            match self.reader.next_event() {
                Ok(Some(event)) if is_unreadable(&event) => {
                    let repaired = repair(&event);
                    if let Err(failed) = self.mended(repaired, &mut out) {
                        break Some(failed);
                    }
                }
                Ok(Some(event)) => {
                    self.tap.see(&event);
                    if let Err(why) = self.stream.event(&event, &mut out) {
                        break Some(untranslatable(&why));
                    }
                }
                Ok(None) => break None,
                Err(too_long) => break Some(Outcome::new(Kind::Malformed, too_long.to_string())),
            }
        };
        self.reader.take();
        (out.freeze(), failed)
    }

    /// Translates the events that an unreadable one means.
    fn mended(&mut self, repaired: Repaired, out: &mut BytesMut) -> Result<(), Outcome> {
        let events = match repaired {
            Repaired::Events(events) => events,
            Repaired::Lost if !self.stream.finished() => return Err(unreadable()),
            Repaired::Lost | Repaired::LeftOut => {
                self.repairs.left_out += 1;
                return Ok(());
            }
        };
        self.repairs.mended += 1;
        let mut reader = sse::Reader::default();
        reader.push(events.into());
        while let Ok(Some(event)) = reader.next_event() {
            self.tap.see(&event);
            self.stream.event(&event, out).map_err(|why| untranslatable(&why))?;
        }
        Ok(())
    }

    /// Returns the end of a stream that the upstream left out: the blank line of its last event, and the end event; and
    /// the reason why it cannot be one.
    pub(super) fn finish(&mut self) -> (Bytes, Option<Outcome>) {
        let mut out = BytesMut::new();
        let mut failed = None;
        if let Ok(Some(event)) = self.reader.finish() {
            if is_unreadable(&event) {
                let repaired = repair(&event);
                failed = self.mended(repaired, &mut out).err();
            } else {
                self.tap.see(&event);
                // What cannot be translated has no end after it, and so the stream counts as cut.
                let _ = self.stream.event(&event, &mut out);
            }
        }
        if failed.is_none() {
            self.stream.finish(&mut out);
        }
        (out.freeze(), failed)
    }

    /// Returns the usage so far, where the upstream has told any of it.
    pub(super) fn usage(&self, asked: &UsageAsked<'_>) -> Option<Usage> {
        self.tap.is_told().then(|| self.tap.usage(asked))
    }

    /// Returns the repairs so far.
    pub(super) const fn repairs(&self) -> Repairs {
        self.repairs
    }

    /// Returns true once the model has given its finish reason, and its usage after that.
    pub(super) fn has_told_all(&self) -> bool {
        self.stream.has_told_all()
    }

    /// Returns true once the model has given its finish reason.
    pub(super) fn is_finished(&self) -> bool {
        self.stream.finished()
    }
}

fn untranslatable(why: &Untranslatable) -> Outcome {
    Outcome::new(Kind::Malformed, format!("the upstream's answer cannot be translated: {why}"))
}
