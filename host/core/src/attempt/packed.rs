//! Answers that come compressed: they are read as a copy, judged like any other, and passed on as they came where they may be.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue};
use http::response::Parts;

use bytes::Bytes;

use super::Attempt;
use super::head::{BodyKind, is_json};
use super::held::Held;
use super::whole::MAX_WHOLE_BYTES;
use crate::http::encoding::{Decoder, Encoding, Limits, Listed};
use crate::http::headers::has_content_type;
use crate::outcome::{Kind, Outcome};

/// The compressed bytes of an answer in one piece, and the headers that belong to them.
#[derive(Debug)]
pub(super) struct Packed {
    bytes: Held,
    encoding: HeaderValue,
    length: Option<HeaderValue>,
}

impl Attempt {
    /// Takes the encoding off the head of an answer that must be read: a question's, one that is translated or joined, one whose
    /// links lead to the provider, or a refusal. Any other is passed on as it came, and read as a copy for its usage. Zstandard gives a stream's events only
    /// at its end.
    pub(super) fn unpack(&mut self, head: &mut Parts, body: BodyKind) {
        let has_links = self.has_links() && is_json(head);
        let must_read = self.translated.is_some() || self.must_join() || has_links || head.status.as_u16() >= 400;
        let Listed::Known(encodings) = Listed::read(&head.headers) else { return };
        let &[encoding] = &encodings[..] else { return };
        let is_stream = has_content_type(&head.headers, "text/event-stream");
        let may_read = self.asks_model() && !(is_stream && encoding == Encoding::Zstd);
        if !(must_read || may_read) || body != BodyKind::Bytes || self.dialect.is_opaque() {
            return;
        }
        let encoding_header = head.headers.remove(CONTENT_ENCODING);
        let length = head.headers.remove(CONTENT_LENGTH);
        self.decoder = Some(Decoder::new(encoding, Limits::of_answer()));
        if let Some(encoding) = encoding_header.filter(|_| !must_read && !is_stream) {
            self.packed = Some(Packed { bytes: Held::default(), encoding, length });
        }
    }

    /// The answer's bytes, with their encoding undone where it is known.
    pub(super) fn decoded(&mut self, data: Bytes) -> Result<Bytes, Outcome> {
        let Some(decoder) = &mut self.decoder else { return Ok(data) };
        let plain = decoder.push(&data).map_err(|why| {
            self.decoder = None;
            Outcome::new(Kind::Malformed, format!("the upstream's answer cannot be read: {why}"))
        })?;
        if let Some(packed) = &mut self.packed {
            packed.bytes.push(data);
            if packed.bytes.len() > MAX_WHOLE_BYTES {
                self.packed = None;
            }
        }
        Ok(plain)
    }

    /// The answer as it came, for a client that gets just that; else this body. What was mended, or has the backend's secrets in
    /// it, goes out plain.
    pub(super) fn as_it_came(&mut self, body: Bytes, is_same: bool) -> Bytes {
        let Some(Packed { mut bytes, encoding, length }) = self.packed.take() else { return body };
        // One whose end was cut off could be read all the same, but not by every client.
        let is_whole = self.decoder.take().is_some_and(|decoder| decoder.finish().is_ok_and(|rest| rest.is_empty()));
        let may_pass = is_same && is_whole && !self.leaving.secrets().are_in(&body);
        let (Some(head), true) = (&mut self.head, may_pass) else { return body };
        head.headers.insert(CONTENT_ENCODING, encoding);
        if let Some(length) = length {
            head.headers.insert(CONTENT_LENGTH, length);
        }
        bytes.take()
    }
}
