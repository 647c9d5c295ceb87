//! Finds request heads in a connection's bytes whose framing can be read in two ways.
//!
//! HTTP parsers forgive `Content-Length` beside `Transfer-Encoding`, and the same length told twice; RFC 9112 section 6.3
//! calls both a likely attempt at smuggling, because the next proxy may forgive differently. By the time the parser
//! hands a head over it has tidied the evidence away, so it is looked for in the bytes.

/// The longest line that is kept; of a header we only need the name, of the two that matter the value too.
const MAX_LINE_BYTES: usize = 256;

/// Follows the requests of one HTTP/1.1 connection, piece by piece, however they are cut.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    line: Vec<u8>,
    lengths: u32,
    length: u64,
    encoded: bool,
    ambiguous: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a request line; empty lines may come first.
    #[default]
    RequestLine,
    Headers,
    /// So many bytes of a body are to come.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk are to come, and then the end of its line.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// Not ours to follow: HTTP/2, or something the parser will refuse.
    Off,
}

impl Framing {
    /// Looks at the next bytes; true when a head so far was ambiguous. It stays true.
    pub fn see(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && self.state != State::Off {
            bytes = match self.state {
                State::Body(left) => self.skip(bytes, left, State::Body, State::RequestLine),
                State::Chunk(left) => self.skip(bytes, left, State::Chunk, State::ChunkEnd),
                State::RequestLine | State::Headers | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    self.take_line(bytes)
                }
                State::Off => return self.ambiguous,
            };
        }
        self.ambiguous
    }

    fn skip<'a>(&mut self, bytes: &'a [u8], left: u64, more: fn(u64) -> State, then: State) -> &'a [u8] {
        let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.state = if n as u64 == left { then } else { more(left - n as u64) };
        &bytes[n..]
    }

    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = memchr::memchr(b'\n', bytes);
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        let Some(end) = end else { return &[] };
        let mut line = std::mem::take(&mut self.line);
        self.state = self.after(line.trim_ascii_end());
        line.clear();
        self.line = line;
        &bytes[end + 1..]
    }

    /// The state after this line.
    fn after(&mut self, line: &[u8]) -> State {
        match self.state {
            State::RequestLine if line.is_empty() => State::RequestLine,
            State::RequestLine if line.starts_with(b"PRI * HTTP/2") => State::Off,
            State::RequestLine => {
                (self.lengths, self.length, self.encoded) = (0, 0, false);
                State::Headers
            }
            State::Headers if line.is_empty() => self.after_head(),
            State::Headers => self.header(line),
            State::ChunkSize => {
                chunk_size(line).map_or(State::Off, |n| if n == 0 { State::Trailers } else { State::Chunk(n) })
            }
            State::ChunkEnd => State::ChunkSize,
            State::Trailers if line.is_empty() => State::RequestLine,
            State::Trailers => State::Trailers,
            State::Body(_) | State::Chunk(_) | State::Off => self.state,
        }
    }

    fn header(&mut self, line: &[u8]) -> State {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = (line[..colon].trim_ascii(), line.get(colon + 1..).unwrap_or_default().trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            match std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()) {
                Some(length) => self.length = length,
                // The parser refuses it, unless an encoding makes it look away.
                None => self.lengths += 1,
            }
        }
        State::Headers
    }

    fn after_head(&mut self) -> State {
        if self.lengths > 1 || (self.lengths == 1 && self.encoded) {
            self.ambiguous = true;
            return State::Off;
        }
        match (self.encoded, self.length) {
            (true, _) => State::ChunkSize,
            (false, 0) => State::RequestLine,
            (false, length) => State::Body(length),
        }
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|b| *b == b';').next()?.trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLEAR: &[&str] = &[
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 64\r\n\r\nX / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n12",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ];

    const AMBIGUOUS: &[&str] = &[
        "POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\nhost: x\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\ntransfer-encoding: chunked\ncontent-length: nonsense\n\n",
        "POST / HTTP/1.1\r\ncontent-length: 5, 5\r\n\r\nhello",
    ];

    fn verdict(pieces: &[&[u8]]) -> bool {
        let mut framing = Framing::default();
        pieces.iter().fold(false, |_, piece| framing.see(piece))
    }

    #[test]
    fn only_ambiguous_heads_are_found() {
        for clear in CLEAR {
            assert!(!verdict(&[clear.as_bytes()]), "{clear}");
        }
        for ambiguous in AMBIGUOUS {
            assert!(verdict(&[ambiguous.as_bytes()]), "{ambiguous}");
        }
    }

    #[test]
    fn a_later_request_of_the_connection_is_found_too() {
        for clear in &CLEAR[..3] {
            for ambiguous in AMBIGUOUS {
                assert!(verdict(&[clear.as_bytes(), b"\r\n", ambiguous.as_bytes()]), "{clear}{ambiguous}");
            }
        }
    }

    #[test]
    fn a_long_header_costs_no_memory() {
        let mut framing = Framing::default();
        framing.see(b"GET / HTTP/1.1\r\nx: ");
        for _ in 0..1_000 {
            framing.see(&[b'y'; 1_000]);
        }
        assert!(framing.line.capacity() <= 2 * MAX_LINE_BYTES);
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_verdict_is_the_same(
            first in 0..3_usize, second in 0..AMBIGUOUS.len(), cuts in prop::collection::vec(1..40_usize, 0..12)
        ) {
            let whole = [CLEAR[first], AMBIGUOUS[second]].concat().into_bytes();
            let mut rest = &whole[..];
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert!(verdict(&pieces));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            verdict(&[&bytes]);
        }
    }
}
