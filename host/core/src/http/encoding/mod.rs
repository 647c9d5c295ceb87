//! Content encodings (RFC 9110 section 8.4), undone within bounds: of a whole body, or of one that comes in pieces.

mod brotli;
mod sink;
mod zstd;

use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::header::{CONTENT_ENCODING, HeaderMap};
use thiserror::Error;

use brotli::Brotli;
use sink::{Sink, end, write};
use zstd::Zstd;

/// Encodings of one body that are undone; a body with more is not read.
const MAX_LAYERS: usize = 3;

/// Decoded bytes for each encoded one, beyond [`RATIO_FREE_BYTES`]. Text comes to 3 to 20.
const MAX_RATIO: u64 = 200;

/// Decoded bytes to which no ratio applies: short repetitive texts shrink to almost nothing.
const RATIO_FREE_BYTES: u64 = 4 << 20;

/// Decoded bytes of one piece of an answer.
const MAX_PIECE_BYTES: u64 = 64 << 20;

vocabulary! {
    /// An encoding that can be undone.
    pub enum Encoding {
        /// RFC 1952, one member or several.
        Gzip = "gzip",
        /// RFC 1950; or RFC 1951 alone, which some call by the same name.
        Deflate = "deflate",
        /// RFC 8878, one frame or several.
        Zstd = "zstd",
        /// RFC 7932, one stream.
        Brotli = "br",
    }
}

/// Encodings that a head lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// In the order in which they were applied; `identity` is none.
    Known(Vec<Encoding>),
    /// One of them is unknown, or there are too many.
    Unknown(String),
}

impl Listed {
    /// Reads the header `content-encoding`, all values of it.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut known = Vec::new();
        for value in headers.get_all(CONTENT_ENCODING) {
            let Ok(text) = value.to_str() else { return Listed::Unknown("?".to_owned()) };
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                match Encoding::named(name) {
                    Some(encoding) if known.len() < MAX_LAYERS => known.push(encoding),
                    None if name.eq_ignore_ascii_case("identity") => {}
                    Some(_) | None => return Listed::Unknown(name.chars().take(40).collect()),
                }
            }
        }
        Listed::Known(known)
    }
}

impl Encoding {
    fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Self::parse(name.strip_prefix("x-").unwrap_or(&name))
    }

    /// The encoding that these first bytes are the mark of; none for one without a mark.
    pub fn sniff(body: &[u8]) -> Option<Self> {
        match body {
            [0x1f, 0x8b, 0x08, ..] => Some(Encoding::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Encoding::Zstd),
            _ => None,
        }
    }
}

/// Bounds of the decoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole body.
    total: u64,
    /// Bytes of one piece.
    piece: u64,
}

impl Limits {
    /// Limits of a request, whose body is at most so large.
    pub const fn of_request(max_bytes: u64) -> Self {
        Self { total: max_bytes, piece: max_bytes }
    }

    /// Limits of an answer, which may flow for as long as it likes.
    pub const fn of_answer() -> Self {
        Self { total: u64::MAX, piece: MAX_PIECE_BYTES }
    }
}

/// The reason why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It is not what its encoding says, or it is cut.
    #[error("it is not what its content-encoding says, or it is cut")]
    Broken,
    /// It is larger than allowed, or far larger than what was sent.
    #[error("decoded it is far larger than what was sent")]
    TooLarge,
}

/// Decodes a whole body.
///
/// # Errors
/// It is broken or too large.
pub fn decode(encoding: Encoding, body: &[u8], limits: Limits) -> Result<Bytes, DecodeError> {
    let mut decoder = Decoder::new(encoding, limits);
    let mut plain = decoder.push(body)?;
    let rest = decoder.finish()?;
    if !rest.is_empty() {
        plain = [plain, rest].concat().into();
    }
    Ok(plain)
}

/// Decodes a body piece by piece.
pub struct Decoder {
    codec: Codec,
    limits: Limits,
    encoded: u64,
    decoded: u64,
}

enum Codec {
    Gzip(MultiGzDecoder<Sink>),
    /// The first byte tells the two kinds of `deflate` apart.
    Deflate,
    Zlib(ZlibDecoder<Sink>),
    Raw(DeflateDecoder<Sink>),
    Zstd(Box<Zstd>),
    Brotli(Box<Brotli>),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("encoded", &self.encoded)
            .field("decoded", &self.decoded)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder for a body that begins.
    pub fn new(encoding: Encoding, limits: Limits) -> Self {
        let codec = match encoding {
            Encoding::Gzip => Codec::Gzip(MultiGzDecoder::new(Sink::default())),
            Encoding::Deflate => Codec::Deflate,
            Encoding::Zstd => Codec::Zstd(Box::default()),
            Encoding::Brotli => Codec::Brotli(Box::default()),
        };
        Self { codec, limits, encoded: 0, decoded: 0 }
    }

    /// Decodes the next piece, as far as it can be.
    ///
    /// # Errors
    /// It is broken or too large; nothing more can be decoded then.
    pub fn push(&mut self, data: &[u8]) -> Result<Bytes, DecodeError> {
        if data.is_empty() {
            return Ok(Bytes::new());
        }
        self.encoded += data.len() as u64;
        if let Codec::Deflate = self.codec {
            // RFC 1950 section 2.2: the low half of a zlib stream's first byte is 8.
            let is_zlib = data[0] & 0x0f == 8 && data[0] >> 4 <= 7;
            self.codec = match is_zlib {
                true => Codec::Zlib(ZlibDecoder::new(Sink::default())),
                false => Codec::Raw(DeflateDecoder::new(Sink::default())),
            };
        }
        let room = self.room();
        let written = match &mut self.codec {
            Codec::Gzip(decoder) => write(decoder, data, room, MultiGzDecoder::get_mut),
            Codec::Deflate => Ok(Bytes::new()),
            Codec::Zlib(decoder) => write(decoder, data, room, ZlibDecoder::get_mut),
            Codec::Raw(decoder) => write(decoder, data, room, DeflateDecoder::get_mut),
            Codec::Zstd(decoder) => decoder.push(data, room),
            Codec::Brotli(decoder) => decoder.push(data, room),
        };
        let plain = written?;
        self.decoded += plain.len() as u64;
        Ok(plain)
    }

    /// The body is over: its last bytes.
    ///
    /// # Errors
    /// It is cut, or too large.
    pub fn finish(mut self) -> Result<Bytes, DecodeError> {
        let room = self.room();
        match &mut self.codec {
            Codec::Gzip(decoder) => end(decoder, room, MultiGzDecoder::get_mut, MultiGzDecoder::try_finish),
            Codec::Deflate => Err(DecodeError::Broken),
            Codec::Zlib(decoder) => end(decoder, room, ZlibDecoder::get_mut, ZlibDecoder::try_finish),
            Codec::Raw(decoder) => end(decoder, room, DeflateDecoder::get_mut, DeflateDecoder::try_finish),
            Codec::Zstd(decoder) => decoder.finish(),
            Codec::Brotli(decoder) => decoder.finish(),
        }
    }

    /// Bytes that the next piece may come to.
    fn room(&self) -> u64 {
        let by_ratio = self.encoded.saturating_mul(MAX_RATIO).max(RATIO_FREE_BYTES);
        self.limits.total.min(by_ratio).saturating_sub(self.decoded).min(self.limits.piece)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::zstd::ZSTD_MAGIC;
    use super::*;

    const ANSWER: Limits = Limits::of_answer();

    /// Encodes, for tests.
    pub(crate) fn encoded(encoding: Encoding, plain: &[u8]) -> Vec<u8> {
        let level = Compression::default();
        match encoding {
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zstd => compress_to_vec(plain, CompressionLevel::Fastest),
            Encoding::Brotli => stored_in_brotli(plain),
        }
    }

    /// Uncompressed meta-blocks (RFC 7932 section 9.2) in a window of 64 KiB.
    fn stored_in_brotli(plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, chunk) in plain.chunks(1 << 16).enumerate() {
            let length = chunk.len() as u32 - 1;
            // The stream's own first bit stands before the first block.
            let header = if i == 0 { length << 4 | 1 << 20 } else { length << 3 | 1 << 19 };
            out.extend_from_slice(&header.to_le_bytes()[..3]);
            out.extend_from_slice(chunk);
        }
        out.push(if plain.is_empty() { 0b110 } else { 0b11 });
        out
    }

    fn in_pieces(encoding: Encoding, body: &[u8], piece: usize) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = Decoder::new(encoding, ANSWER);
        let mut plain = Vec::new();
        for chunk in body.chunks(piece) {
            plain.extend_from_slice(&decoder.push(chunk)?);
        }
        plain.extend_from_slice(&decoder.finish()?);
        Ok(plain)
    }

    #[test]
    fn a_heads_list_is_read_in_order() {
        let listed = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            Listed::read(&headers)
        };
        assert_eq!(listed(&[]), Listed::Known(Vec::new()));
        assert_eq!(listed(&["Identity"]), Listed::Known(Vec::new()));
        assert_eq!(
            listed(&["zstd, x-GZip", "br"]),
            Listed::Known(vec![Encoding::Zstd, Encoding::Gzip, Encoding::Brotli])
        );
        assert_eq!(listed(&["gzip,compress"]), Listed::Unknown("compress".to_owned()));
        assert_eq!(listed(&["gzip,gzip,gzip,gzip"]), Listed::Unknown("gzip".to_owned()));
    }

    #[test]
    fn what_other_programs_made_is_read() {
        let text = format!(
            "{{\"model\":\"a\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}",
            "the same words again and again, ".repeat(40)
        );
        let brotli = b"\x1b\x36\x05\x20\x1c\x07\x76\x8c\xb3\x81\xe6\x20\xbc\xcd\x57\x92\xb5\xc8\x5e\xd8\xd6\xea\xea\x6b\x10\x11\x16\x1d\x3a\x39\x60\xfd\xf7\x7d\x41\x98\x1d\x13\x88\x08\x73\x1b\x03\xc7\xd6\x12\x11\x9a\x4d\x6c\xd7\x5d\xfa\x01\x59\x7a\xc6\xa2\x38\xb5\x83\x5a\x9d\xaf\xa2\x9a\xe7\x43\x91\xd7\x24\x56\x56\x01";
        assert_eq!(in_pieces(Encoding::Brotli, brotli, 7).unwrap(), text.as_bytes());
        let zstd = b"\x28\xb5\x2f\xfd\x04\x68\x55\x02\x00\x12\x85\x0f\x11\xb0\xeb\x2c\xdb\x7a\xe3\x91\x04\x6a\x7d\x4d\x32\x0d\x34\x45\x79\x54\x51\xc4\x27\x20\x6a\x53\x9d\x2d\x9b\x4d\xd8\x7a\xc9\x69\x3b\xd9\xb4\xeb\x9b\xe2\xa6\xd6\x38\x38\xe3\x76\xd7\x33\x5a\xec\x30\xe8\x9b\xcb\x76\x73\x3a\xf8\x5e\x8f\x98\xac\x74\x18\x02\x00\xdd\x0c\xf5\x71\x29\x56\xce\xeb\x6e\xff\xad";
        assert_eq!(in_pieces(Encoding::Zstd, zstd, 7).unwrap(), text.as_bytes());
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::best());
        raw.write_all(text.as_bytes()).unwrap();
        assert_eq!(in_pieces(Encoding::Deflate, &raw.finish().unwrap(), 7).unwrap(), text.as_bytes());
    }

    #[test]
    fn several_members_and_frames_are_one_body() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let two = [encoded(encoding, b"one "), encoded(encoding, b"two")].concat();
            for piece in [1, 5, 1_000] {
                assert_eq!(in_pieces(encoding, &two, piece).unwrap(), b"one two", "{encoding:?}");
            }
        }
        let skipped = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &encoded(Encoding::Zstd, b"x")].concat();
        assert_eq!(in_pieces(Encoding::Zstd, &skipped, 2).unwrap(), b"x");
    }

    #[test]
    fn a_flushed_piece_comes_out_at_once() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let mut decoder = Decoder::new(Encoding::Gzip, ANSWER);
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            encoder.write_all(event.as_bytes()).unwrap();
            encoder.flush().unwrap();
            let piece = std::mem::take(encoder.get_mut());
            assert_eq!(decoder.push(&piece).unwrap(), event);
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_its_bounds() {
        let blocks = 1_000u32;
        // Blocks of one repeated byte: 4 bytes for 128 KiB each.
        let mut bomb = [&ZSTD_MAGIC[..], &[0, 0x38]].concat();
        for _ in 0..blocks {
            bomb.extend_from_slice(&((128u32 << 10) << 3 | 1 << 1).to_le_bytes()[..3]);
            bomb.push(b'x');
        }
        let limits = Limits::of_request(1 << 30);
        assert_eq!(decode(Encoding::Zstd, &bomb, limits), Err(DecodeError::TooLarge), "by its ratio");
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let bomb = encoded(encoding, &vec![0; 32 << 20]);
            assert_eq!(decode(encoding, &bomb, limits), Err(DecodeError::TooLarge), "{encoding:?}");
            assert_eq!(in_pieces(encoding, &bomb, 1_000), Err(DecodeError::TooLarge));
        }
        for encoding in Encoding::ALL {
            let plain = vec![7; 100_000];
            let body = encoded(encoding, &plain);
            assert_eq!(decode(encoding, &body, Limits::of_request(99_999)), Err(DecodeError::TooLarge), "{encoding:?}");
            assert_eq!(decode(encoding, &body, Limits::of_request(100_000)).unwrap(), plain, "{encoding:?}");
        }
    }

    #[test]
    fn what_is_cut_or_followed_by_something_is_broken() {
        for encoding in [Encoding::Gzip, Encoding::Zstd, Encoding::Brotli] {
            let body = encoded(encoding, b"some text that is long enough");
            assert_eq!(decode(encoding, &body[..body.len() - 1], ANSWER), Err(DecodeError::Broken), "{encoding:?}");
            let more = [&body[..], b"more than that"].concat();
            assert_eq!(decode(encoding, &more, ANSWER), Err(DecodeError::Broken), "{encoding:?}");
        }
        assert!(decode(Encoding::Deflate, b"", ANSWER).is_err());
    }

    proptest! {
        #[test]
        fn any_text_comes_back_in_any_pieces(
            text in "\\PC{0,40}", times in 1usize..400, piece in 1usize..300, encoding in prop::sample::select(Encoding::ALL.to_vec()),
        ) {
            let plain = text.repeat(times).into_bytes();
            let body = encoded(encoding, &plain);
            prop_assert_eq!(in_pieces(encoding, &body, piece).unwrap(), plain);
        }

        #[test]
        fn nothing_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
            for encoding in Encoding::ALL {
                let _ = in_pieces(encoding, &body, piece);
                let framed = [&ZSTD_MAGIC[..], &body].concat();
                let _ = in_pieces(Encoding::Zstd, &framed, piece);
            }
        }
    }
}
