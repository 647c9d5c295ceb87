//! A request's body as it is read and forwarded: its encoding undone, a byte order mark removed, its label corrected.
//!
//! A body that a model is asked with is read whatever was done to it on the way, because its model decides where it goes and
//! what it costs. What is forwarded is what was read, so that the name can be changed and every provider understands it. A
//! request that asks no model keeps its bytes.

use std::char::decode_utf16;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use thiserror::Error;

use super::facts::{Ambiguous, BodyFacts, is_json};
use super::splice::with_model;
use crate::contract::Operation;
use crate::http::encoding::{DecodeError, Encoding, Limits, Listed, decode};
use crate::http::json;
use crate::text::MAX_NAME_BYTES;

/// A body that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestBody {
    /// Bytes to forward, decoded.
    pub body: Bytes,
    /// Facts that were read in these bytes.
    pub facts: BodyFacts,
    /// The reason why a body that is there has no facts.
    pub unread: Option<Unread>,
    is_decoded: bool,
    is_relabelled: bool,
}

/// The reason why a body was not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unread {
    /// Its `content-encoding`, this one, is unknown.
    #[error("its content-encoding {0:?} is not known here (gzip, deflate, zstd and br are)")]
    Encoding(String),
    /// It is no JSON object and no form.
    #[error("it is neither a JSON object nor a form")]
    Form,
}

/// The client's fault: the body cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    /// A member stands twice.
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    /// The model's name is longer than any.
    #[error(
        "\"model\" is longer than {MAX_NAME_BYTES} bytes, and no model has such a name; send one of GET /v1/models"
    )]
    LongModel,
    /// The body is not what its encoding says.
    #[error("the body is not valid {0}")]
    Undecodable(&'static str),
    /// Decoded it is too large.
    #[error("the decoded body is larger than {0} bytes, or far larger than what was sent")]
    TooLarge(u64),
}

impl RequestBody {
    /// Reads a body of at most `max_bytes` decoded bytes. One that no model is asked with passes as it came where it cannot
    /// be decoded within that, and one of no dialect's API in any case.
    ///
    /// # Errors
    /// A member that matters stands twice, or, where a model is asked, the encoding is broken or the decoded body too large.
    pub fn read(body: Bytes, headers: &HeaderMap, operation: Operation, max_bytes: u64) -> Result<Self, BodyError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if operation == Operation::Plain {
            // Whatever stands there twice may well do so.
            let facts = BodyFacts::read(&body, content_type).unwrap_or_default();
            let unread = (!facts.is_read()).then_some(Unread::Form);
            return Ok(Self { body, facts, unread, ..Self::default() });
        }
        let asks_model = operation.is_question();
        let plain = match decoded(&body, headers, max_bytes) {
            Ok(Ok(plain)) => plain,
            Ok(Err(unread)) => return Ok(Self { body, unread: Some(unread), ..Self::default() }),
            Err(error) if asks_model => return Err(error),
            Err(_) => return Ok(Self { body, unread: Some(Unread::Form), ..Self::default() }),
        };
        let is_decoded = plain.as_ptr() != body.as_ptr() || plain.len() != body.len() || lists_encoding(headers);
        let (text, is_transcoded) = without_mark(plain);
        let facts = BodyFacts::read(&text, content_type)?;
        if !facts.is_read() {
            return Ok(Self { body, unread: Some(Unread::Form), ..Self::default() });
        }
        if !asks_model && facts.model.is_none() {
            let is_changed = is_decoded || is_transcoded || text.len() != body.len();
            let facts = if is_changed { BodyFacts::default() } else { facts };
            return Ok(Self { body, facts, ..Self::default() });
        }
        let is_mislabelled = content_type.is_some_and(|label| !is_json(label)) && facts.is_object();
        Ok(Self { body: text, facts, unread: None, is_decoded, is_relabelled: is_transcoded || is_mislabelled })
    }

    /// Names the model that only the path names, as Azure's deployments do, in the body too, which is where others look for it.
    /// A body that is no JSON object and no form stays as it is.
    pub fn name_model(&mut self, model: &str, headers: &HeaderMap) {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let Some(body) = with_model(&self.body, &self.facts, model, content_type) else { return };
        if let Ok(facts) = BodyFacts::read(&body, content_type) {
            (self.body, self.facts) = (body, facts);
        }
    }

    /// Makes the head say what the body is now.
    pub fn relabel(&self, headers: &mut HeaderMap) {
        if self.is_decoded {
            headers.remove(CONTENT_ENCODING);
        }
        if self.is_relabelled {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
    }
}

fn lists_encoding(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_ENCODING)
}

/// The body without its encodings; or the reason why they cannot be undone.
fn decoded(body: &Bytes, headers: &HeaderMap, max_bytes: u64) -> Result<Result<Bytes, Unread>, BodyError> {
    let encodings = match Listed::read(headers) {
        Listed::Unknown(name) => return Ok(Err(Unread::Encoding(name))),
        // A client that compresses and does not say so is found by the first bytes, which no text begins with.
        Listed::Known(encodings) if encodings.is_empty() => Encoding::sniff(body).into_iter().collect(),
        Listed::Known(encodings) => encodings,
    };
    let mut plain = body.clone();
    for encoding in encodings.into_iter().rev() {
        plain = match decode(encoding, &plain, Limits::of_request(max_bytes)) {
            Ok(plain) => plain,
            Err(DecodeError::TooLarge) => return Err(BodyError::TooLarge(max_bytes)),
            // One that says so and does not compress is found by its first byte.
            Err(DecodeError::Broken) if is_plain_json(&plain) => plain,
            Err(DecodeError::Broken) if lists_encoding(headers) => {
                return Err(BodyError::Undecodable(encoding.as_str()));
            }
            Err(DecodeError::Broken) => plain,
        };
    }
    Ok(Ok(plain))
}

fn is_plain_json(body: &[u8]) -> bool {
    let text = body.strip_prefix(UTF8_MARK).unwrap_or(body);
    text.get(json::skip_space(text, 0)) == Some(&b'{')
}

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text without a byte order mark, which JSON must not have (RFC 8259 section 8.1), and in UTF-8; true if it was in
/// another encoding.
fn without_mark(text: Bytes) -> (Bytes, bool) {
    if text.starts_with(UTF8_MARK) {
        return (text.slice(UTF8_MARK.len()..), false);
    }
    let unit: fn([u8; 2]) -> u16 = match text.get(..2) {
        Some([0xff, 0xfe] | [b'{', 0]) => u16::from_le_bytes,
        Some([0xfe, 0xff] | [0, b'{']) => u16::from_be_bytes,
        _ => return (text, false),
    };
    let (units, rest) = text.as_chunks::<2>();
    let units = units.iter().map(|pair| unit(*pair));
    let units = units.skip_while(|unit| *unit == 0xfeff);
    match decode_utf16(units).collect::<Result<String, _>>() {
        Ok(transcoded) if rest.is_empty() => (transcoded.into(), true),
        Ok(_) | Err(_) => (text, false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::encoding::tests::encoded;

    const JSON: &[u8] = br#"{"model":"a","messages":[]}"#;
    const MAX: u64 = 1 << 20;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn label(head: &HeaderMap) -> &str {
        head["content-type"].to_str().unwrap()
    }

    /// The body and the head that are forwarded.
    fn forwarded(
        body: &[u8],
        pairs: &[(&'static str, &'static str)],
        operation: Operation,
    ) -> (RequestBody, HeaderMap) {
        let mut head = headers(pairs);
        let read = RequestBody::read(Bytes::copy_from_slice(body), &head, operation, MAX).unwrap();
        read.relabel(&mut head);
        (read, head)
    }

    #[test]
    fn every_encoding_is_undone_and_named_no_more() {
        for (name, encoding) in [
            ("gzip", Encoding::Gzip),
            ("x-gzip", Encoding::Gzip),
            ("GZIP", Encoding::Gzip),
            ("deflate", Encoding::Deflate),
            ("zstd", Encoding::Zstd),
            ("br", Encoding::Brotli),
        ] {
            let json = [("content-type", "application/json"), ("content-encoding", name)];
            let (read, head) = forwarded(&encoded(encoding, JSON), &json, Operation::Chat);
            assert_eq!((&read.body[..], read.facts.model.as_deref()), (JSON, Some("a")), "{name}");
            assert_eq!(head, headers(&json[..1]), "{name}");
        }
        let twice = encoded(Encoding::Gzip, &encoded(Encoding::Zstd, JSON));
        let (read, head) = forwarded(&twice, &[("content-encoding", "zstd, gzip")], Operation::Chat);
        assert_eq!((&read.body[..], head.len()), (JSON, 0));
        let (read, head) = forwarded(JSON, &[("content-encoding", "identity")], Operation::Chat);
        assert_eq!((&read.body[..], head.len()), (JSON, 0));
    }

    #[test]
    fn an_encoding_that_is_not_said_or_said_wrongly_is_found_out() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let (read, head) =
                forwarded(&encoded(encoding, JSON), &[("content-type", "application/json")], Operation::Chat);
            assert_eq!((&read.body[..], head.len()), (JSON, 1), "{encoding:?}");
        }
        let (read, head) = forwarded(JSON, &[("content-encoding", "gzip")], Operation::Chat);
        assert_eq!((&read.body[..], head.len()), (JSON, 0));
    }

    #[test]
    fn a_broken_or_monstrous_body_is_refused() {
        let read = |body: &[u8], name: &'static str| {
            RequestBody::read(
                Bytes::copy_from_slice(body),
                &headers(&[("content-encoding", name)]),
                Operation::Chat,
                MAX,
            )
        };
        let whole = encoded(Encoding::Gzip, JSON);
        assert_eq!(read(&whole[..whole.len() - 9], "gzip"), Err(BodyError::Undecodable("gzip")));
        assert_eq!(read(b"nonsense", "zstd"), Err(BodyError::Undecodable("zstd")));
        let bomb = encoded(Encoding::Gzip, &vec![b' '; 2 << 20]);
        assert_eq!(read(&bomb, "gzip"), Err(BodyError::TooLarge(MAX)));
        let unknown = read(JSON, "aws-chunked").unwrap();
        assert_eq!((unknown.unread, &unknown.body[..]), (Some(Unread::Encoding("aws-chunked".into())), JSON));
    }

    #[test]
    fn a_mark_goes_and_utf_16_becomes_utf_8() {
        let text = std::str::from_utf8(JSON).unwrap();
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (body, content_type) in [
            ([UTF8_MARK, JSON].concat(), "application/json"),
            ([b"\xff\xfe", &le[..]].concat(), "application/json; charset=utf-16"),
            ([b"\xfe\xff", &be[..]].concat(), "text/plain"),
            (le.clone(), "application/json"),
            (be.clone(), "application/json"),
        ] {
            let (read, head) = forwarded(&body, &[("content-type", content_type)], Operation::Chat);
            assert_eq!((&read.body[..], label(&head)), (JSON, "application/json"), "{content_type}");
        }
        let (odd, _) = forwarded(&[b"\xff\xfe", &le[..], b"x"].concat(), &[], Operation::Chat);
        assert_eq!(odd.unread, Some(Unread::Form));
    }

    #[test]
    fn json_under_another_label_is_relabelled() {
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "text/plain;charset=UTF-8"] {
            let (read, head) = forwarded(JSON, &[("content-type", content_type)], Operation::Chat);
            assert_eq!((read.facts.model.as_deref(), label(&head)), (Some("a"), "application/json"));
        }
        let (_, head) = forwarded(JSON, &[("content-type", "application/vnd.x+json")], Operation::Chat);
        assert_eq!(head["content-type"], "application/vnd.x+json");
    }

    #[test]
    fn a_request_that_asks_no_model_keeps_its_bytes_and_labels() {
        let file = br#"{"custom_id":"1"}"#;
        let packed = encoded(Encoding::Gzip, file);
        let pairs = [("content-type", "text/plain"), ("content-encoding", "gzip")];
        let (read, head) = forwarded(&packed, &pairs, Operation::Stored);
        assert_eq!((&read.body[..], head), (&packed[..], headers(&pairs)));
        assert!(!read.facts.is_read() && read.unread.is_none());
        let (read, _) = forwarded(&encoded(Encoding::Gzip, JSON), &pairs, Operation::Stored);
        assert_eq!(read.body, JSON, "where it names a model, it asks one");
    }

    #[test]
    fn what_asks_no_model_passes_though_it_cannot_be_decoded() {
        let bomb = encoded(Encoding::Gzip, &vec![b' '; 2 << 20]);
        let cut = &bomb[..bomb.len() - 9];
        let twice = br#"{"model":"a","model":"b"}"#;
        let pairs = [("content-type", "text/plain"), ("content-encoding", "gzip")];
        for (body, operation) in [
            (&bomb[..], Operation::Stored),
            (cut, Operation::Other),
            (&bomb, Operation::Plain),
            (&encoded(Encoding::Gzip, JSON), Operation::Plain),
            (JSON, Operation::Plain),
            (twice, Operation::Plain),
            (&[UTF8_MARK, JSON].concat(), Operation::Plain),
        ] {
            let (read, head) = forwarded(body, &pairs, operation);
            assert_eq!((&read.body[..], head), (body, headers(&pairs)), "{operation:?}");
        }
        let read = |operation| RequestBody::read(Bytes::from_static(twice), &HeaderMap::new(), operation, MAX);
        assert!(read(Operation::Stored).is_err(), "it would be renamed by the one and read by the other");
    }

    #[test]
    fn what_is_neither_json_nor_a_form_is_passed_unread() {
        for body in [&b"\0\x01\x02"[..], b"[1]", b"{\"model\":\"a\"", b"model=a"] {
            let (read, _) = forwarded(body, &[("content-type", "application/json")], Operation::Chat);
            assert_eq!((read.unread, &read.body[..]), (Some(Unread::Form), body));
        }
        assert_eq!(forwarded(b"", &[("content-encoding", "gzip")], Operation::Chat).0, RequestBody::default());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), name in prop::sample::select(vec!["gzip", "deflate", "zstd", "br", "x"])) {
            let _ = RequestBody::read(body.into(), &headers(&[("content-encoding", name)]), Operation::Chat, MAX);
        }
    }
}
