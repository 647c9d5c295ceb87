//! Secrets in an answer that passes compressed: nothing can be replaced in it, so it ends before one is told whole.

use bytes::Bytes;
use http::HeaderMap;

use crate::http::encoding::{Decoder, Limits, Listed};
use crate::http::redact::Secrets;

/// Reads a copy of what passes.
pub(super) struct EncodedWatch {
    /// The outermost encoding first; empty once one of them cannot be undone.
    decoders: Vec<Decoder>,
    /// The end of what came, in which a secret may have begun.
    tail: Vec<u8>,
    /// Bytes of the longest secret.
    longest: usize,
}

impl EncodedWatch {
    /// A watch of the body behind this head; none where nothing is compressed, or nothing looked for.
    pub(super) fn of(headers: &HeaderMap, secrets: &Secrets) -> Option<Self> {
        let longest = secrets.spellings().map(str::len).max()?;
        let Listed::Known(encodings) = Listed::read(headers) else { return None };
        let decoders: Vec<Decoder> =
            encodings.into_iter().rev().map(|encoding| Decoder::new(encoding, Limits::of_answer())).collect();
        (!decoders.is_empty()).then_some(Self { decoders, tail: Vec::new(), longest })
    }

    /// Returns true once a secret is whole in what has come.
    pub(super) fn finds(&mut self, data: &[u8], secrets: &Secrets) -> bool {
        let mut plain = Bytes::copy_from_slice(data);
        for decoder in &mut self.decoders {
            match decoder.push(&plain) {
                Ok(decoded) => plain = decoded,
                Err(_) => {
                    self.decoders.clear();
                    return false;
                }
            }
        }
        if self.decoders.is_empty() || plain.is_empty() {
            return false;
        }
        if self.tail.is_empty() && secrets.are_in(&plain) {
            return true;
        }
        self.tail.extend_from_slice(&plain);
        let is_found = secrets.are_in(&self.tail);
        self.tail.drain(..self.tail.len().saturating_sub(self.longest));
        is_found
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http::header::{CONTENT_ENCODING, HeaderValue};

    use super::*;

    const KEY: &str = "sk-secret-of-p1-0123456789";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn watch(encodings: &'static str) -> Option<(EncodedWatch, Secrets)> {
        let secrets = Secrets::new([KEY]);
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(encodings))]);
        Some((EncodedWatch::of(&headers, &secrets)?, secrets))
    }

    #[test]
    fn a_secret_is_found_however_it_is_encoded_and_cut() {
        let filler: String = (0..20_000).map(|i| char::from(b'a' + (i * i % 23) as u8)).collect();
        let told = format!("{filler}{KEY}{filler}");
        let plain = format!("{filler}{}{filler}", &KEY[1..]);
        for cut in [1, 7, 100, 100_000] {
            for (encodings, told, plain) in [
                ("gzip", gzip(told.as_bytes()), gzip(plain.as_bytes())),
                ("deflate", deflate(told.as_bytes()), deflate(plain.as_bytes())),
                ("deflate, gzip", gzip(&deflate(told.as_bytes())), gzip(&deflate(plain.as_bytes()))),
            ] {
                let finds = |body: &[u8]| {
                    let (mut watch, secrets) = watch(encodings).unwrap();
                    body.chunks(cut).any(|piece| watch.finds(piece, &secrets))
                };
                assert!(finds(&told), "{encodings} in pieces of {cut}");
                assert!(!finds(&plain), "{encodings} in pieces of {cut}");
            }
        }
    }

    #[test]
    fn what_is_not_compressed_or_not_known_is_not_watched_and_what_is_broken_passes() {
        assert!(watch("identity").is_none() && watch("snappy").is_none());
        assert!(EncodedWatch::of(&HeaderMap::new(), &Secrets::new([KEY])).is_none());
        let (mut watch, secrets) = watch("gzip").unwrap();
        assert!(!watch.finds(b"no gzip at all", &secrets) && !watch.finds(KEY.as_bytes(), &secrets));
    }
}
