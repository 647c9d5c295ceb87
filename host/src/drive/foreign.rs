//! Backends of another dialect: their request is translated on the way out, their answer on the way back.
//!
//! Behind here nobody notices: the answer is read, joined, counted and relayed in the client's own dialect.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::response::Parts;
use http::uri::{InvalidUri, PathAndQuery};
use pointsman_core::dialect::headers::remove_own;
use pointsman_core::dialect::translate::request::Translated;
use pointsman_core::dialect::translate::stream::Stream;
use pointsman_core::dialect::translate::{Answers, Translation, Untranslatable, error};
use pointsman_core::http::sse;
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;

use super::request::Asked;
use super::snapshot::Target;

/// A translated request, and the way back.
pub struct Foreign {
    /// The body for the backend.
    pub body: Bytes,
    answers: Answers,
}

/// Translates the events of a stream as their bytes come.
#[derive(Debug)]
pub struct Rewriter {
    reader: sse::Reader,
    stream: Stream,
}

/// May this request go to backends of other dialects? False also where there are none for it.
///
/// # Errors
/// There are, but it cannot be translated to one of their dialects.
pub fn may_cross(view: &View, asked: &Asked) -> Result<bool, Untranslatable> {
    if asked.body_facts.is_none() {
        return Ok(false);
    }
    let (mut checked, mut last) = (false, None);
    for index in view.foreign(&asked.model, asked.operation) {
        let translation = Translation::of(asked.operation, view.backend(index).dialect);
        // Most have one other dialect.
        if let Some(translation) = translation.filter(|_| translation != last) {
            asked.translations.check(translation, &asked.body, &asked.model)?;
            (checked, last) = (true, Some(translation));
        }
    }
    Ok(checked)
}

/// Is there a backend that may serve this request for nothing?
pub fn serves_free(view: &View, asked: &Asked) -> bool {
    view.serves_free(&asked.model, asked.operation, may_cross(view, asked) == Ok(true))
}

impl Foreign {
    /// The request for this backend, if it must be translated for it.
    ///
    /// # Errors
    /// It cannot be; [`may_cross`] has said so before.
    pub fn of(asked: &Asked, target: &Target, model: &str) -> Result<Option<Self>, Outcome> {
        let translation = Translation::of(asked.operation, target.dialect).filter(|_| asked.body_facts.is_some());
        let Some(translation) = translation else { return Ok(None) };
        let host = target.base.authority().host();
        let refused = |why: Untranslatable| Outcome::new(Kind::Refused, why.to_string());
        let translated = asked.translations.translated(translation, &asked.body, model, host);
        let Translated { body, answers } = translated.map_err(refused)?;
        // The usage is always told, so that it can be counted; a client that did not ask for it does not see it.
        Ok(Some(Self { body, answers: Answers { include_usage: true, ..answers } }))
    }

    /// The way it is translated.
    pub const fn translation(&self) -> Translation {
        self.answers.translation
    }

    /// Where it goes, under the backend's base URL.
    ///
    /// # Errors
    /// The model's name cannot stand in a path.
    pub fn path(&self) -> Result<PathAndQuery, InvalidUri> {
        let Answers { translation, stream, model, .. } = &self.answers;
        match translation.path(model, *stream) {
            Cow::Borrowed(path) => Ok(PathAndQuery::from_static(path)),
            Cow::Owned(path) => path.parse(),
        }
    }

    /// Takes out of the client's headers those that speak of its own API.
    pub fn clean(&self, headers: &mut HeaderMap) {
        remove_own(headers, self.translation().downstream());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }

    /// A whole answer in the client's dialect.
    ///
    /// # Errors
    /// It says what was not asked for, or it is no answer.
    pub fn whole(&self, head: &mut Parts, body: &[u8], now: Timestamp) -> Result<Bytes, Outcome> {
        head.headers.remove(CONTENT_LENGTH);
        self.answers.whole(body, now).map_err(|why| untranslatable(&why))
    }

    /// A refusal in the client's dialect.
    pub fn refusal(&self, head: &mut Parts, body: &[u8], request_id: &str) -> Bytes {
        let (status, body) = error::refusal(self.translation(), head.status.as_u16(), body, request_id);
        head.status = StatusCode::from_u16(status).unwrap_or(head.status);
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(CONTENT_ENCODING);
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        body
    }

    /// A translator for a stream that begins now.
    pub fn rewriter(&self, now: Timestamp) -> Rewriter {
        Rewriter { reader: sse::Reader::default(), stream: self.answers.stream(now) }
    }
}

impl Rewriter {
    /// The events that these bytes complete, translated; and why no more can be.
    pub fn push(&mut self, data: Bytes) -> (Bytes, Option<Outcome>) {
        let mut out = BytesMut::new();
        self.reader.push(data);
        let failed = loop {
            match self.reader.next_event() {
                // A client's SDK would stop at it; here it is passed over as in a stream that is not translated.
                Ok(Some(event)) if sse::is_nonsense(&event) => {}
                Ok(Some(event)) => {
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

    /// What an upstream whose body ended left out: the blank line of its last event, and the stream's own end.
    pub fn finish(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        if let Ok(Some(event)) = self.reader.finish()
            && !sse::is_nonsense(&event)
        {
            // What cannot be translated has no end after it, and so the stream counts as cut.
            let _ = self.stream.event(&event, &mut out);
        }
        self.stream.finish(&mut out);
        out.freeze()
    }

    /// Has the model said why it stopped?
    pub fn finished(&self) -> bool {
        self.stream.finished()
    }
}

fn untranslatable(why: &Untranslatable) -> Outcome {
    Outcome::new(Kind::Malformed, format!("the upstream's answer cannot be translated: {why}"))
}
