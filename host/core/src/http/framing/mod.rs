//! Boundaries of HTTP/1 requests, found without guessing.
//!
//! A proxy that reads a request's length otherwise than its neighbour does can be made to smuggle one request inside another.
//! So a request whose framing allows two readings is refused, also where RFC 9112 would allow to repair it:
//!
//! - `Content-Length` with `Transfer-Encoding`, either of them twice, a list of lengths (RFC 9112 section 6.3);
//! - a `Transfer-Encoding` that is not exactly `chunked`, or in HTTP/1.0 (section 6.1);
//! - a line folded, or with space before the colon (sections 5.1 and 5.2);
//! - a line that ends in a bare LF, or holds a bare CR. Section 2.2 lets a server take a bare LF for a line's end; as
//!   not all do, none is taken;
//! - a chunk size that is not hexadecimal digits, then nothing or an extension; a chunk without its CRLF (section 7.1).
//!
//! The rest of a head is held to its grammar as well, so that whatever is wrong with one is found here and is told in one way.
//!
//! A request to upgrade or to CONNECT does not end the watch: whether the connection changes its protocol is the server's to
//! say, and a server that did not would leave the requests behind it unwatched.

mod chunked;
mod fault;
mod grammar;
mod head;

pub use fault::Fault;

use chunked::{chunk_size, trailer_line};
use head::Head;

/// Fields in a head or a trailer, at most; what hyper allows.
const MAX_FIELDS: usize = 100;

/// Connection preface of a client that knows the server speaks HTTP/2 (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A request that is refused, with all that follows it on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous {
    /// The fault, by its kind.
    pub what: Fault,
    /// Number of good bytes: they end before the head at fault, or before the line at fault inside a body.
    pub at: usize,
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub struct Framing {
    max_head_bytes: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was read: the HTTP/2 preface may come.
    Start,
    Head(Head),
    /// In a body of known length.
    Body {
        left_bytes: u64,
    },
    /// Before a chunk's size.
    ChunkSize,
    Chunk {
        left_bytes: u64,
    },
    /// Before the CRLF that ends a chunk.
    ChunkEnd,
    Trailer {
        left_bytes: usize,
        fields: usize,
    },
    /// The connection speaks HTTP/2.
    Off,
    Refused(Fault),
}

impl Framing {
    /// Starts reading a new connection, whose heads and trailers may have this many bytes.
    pub fn new(max_head_bytes: usize) -> Self {
        Self { max_head_bytes, state: State::Start }
    }

    /// Judges what was read, and says how many of these bytes may be handed over. The rest is a head, or a line inside
    /// a body, that is not whole: it is to be given again, with what follows it. It is never longer than the bounds.
    ///
    /// # Errors
    /// [`Ambiguous`] at the first fault, and ever after.
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, Ambiguous> {
        let mut at = 0;
        loop {
            match self.step(&bytes[at..]) {
                Ok(Some(judged)) => at += judged,
                Ok(None) => return Ok(at),
                Err(what) => {
                    self.state = State::Refused(what);
                    return Err(Ambiguous { what, at });
                }
            }
        }
    }

    /// One step: how many bytes it took, or none when it needs more than there are.
    fn step(&mut self, rest: &[u8]) -> Result<Option<usize>, Fault> {
        if rest.is_empty() {
            return Ok(None);
        }
        match &mut self.state {
            State::Start => {
                let Some(state) = first_state(rest) else { return Ok(None) };
                self.state = state;
                Ok(Some(0))
            }
            State::Head(head) => {
                let Some(end) = head.read(rest, self.max_head_bytes)? else { return Ok(None) };
                self.state = head.body();
                Ok(Some(end))
            }
            State::Body { left_bytes } => {
                let taken = skip(left_bytes, rest);
                if *left_bytes == 0 {
                    self.state = State::Head(Head::default());
                }
                Ok(Some(taken))
            }
            State::ChunkSize => {
                let Some((size, taken)) = chunk_size(rest)? else { return Ok(None) };
                self.state = match size {
                    0 => State::Trailer { left_bytes: self.max_head_bytes, fields: 0 },
                    left_bytes => State::Chunk { left_bytes },
                };
                Ok(Some(taken))
            }
            State::Chunk { left_bytes } => {
                let taken = skip(left_bytes, rest);
                if *left_bytes == 0 {
                    self.state = State::ChunkEnd;
                }
                Ok(Some(taken))
            }
            State::ChunkEnd => match rest {
                [b'\r'] => Ok(None),
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkSize;
                    Ok(Some(2))
                }
                _ => Err(Fault::ChunkEnd),
            },
            State::Trailer { left_bytes, fields } => {
                let Some((line, taken)) = trailer_line(rest, *left_bytes)? else { return Ok(None) };
                *left_bytes -= taken;
                *fields += 1;
                if line.is_empty() {
                    self.state = State::Head(Head::default());
                } else if *fields > MAX_FIELDS {
                    return Err(Fault::Trailer);
                }
                Ok(Some(taken))
            }
            State::Off => Ok(Some(rest.len())),
            State::Refused(what) => Err(*what),
        }
    }
}

/// The state behind the first bytes of a connection; none while they may become the preface of HTTP/2.
fn first_state(rest: &[u8]) -> Option<State> {
    let common = rest.len().min(HTTP2_PREFACE.len());
    if rest[..common] != HTTP2_PREFACE[..common] {
        Some(State::Head(Head::default()))
    } else {
        (common == HTTP2_PREFACE.len()).then_some(State::Off)
    }
}

/// Takes what there is of the bytes left.
fn skip(left_bytes: &mut u64, rest: &[u8]) -> usize {
    let taken = usize::try_from(*left_bytes).map_or(rest.len(), |left| left.min(rest.len()));
    *left_bytes -= taken as u64;
    taken
}

#[cfg(test)]
mod tests {
    use super::chunked::MAX_CHUNK_LINE_BYTES;
    use super::*;
    use proptest::prelude::*;

    const MAX_HEAD_BYTES: usize = 2_048;

    /// Number of good bytes, and the fault that ended them.
    type Verdict = (usize, Option<Fault>);

    /// Gives the bytes in pieces, as a reader would: what is not judged is given again.
    fn judge<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Verdict {
        let mut framing = Framing::new(MAX_HEAD_BYTES);
        let (mut good, mut held) = (0, Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            match framing.push(&held) {
                Ok(judged) => {
                    good += judged;
                    held.drain(..judged);
                    assert!(held.len() <= MAX_HEAD_BYTES, "held {}", held.len());
                }
                Err(Ambiguous { what, at }) => {
                    assert_eq!(
                        framing.push(b"GET / HTTP/1.1\r\n\r\n"),
                        Err(Ambiguous { what, at: 0 }),
                        "it stays refused"
                    );
                    return (good + at, Some(what));
                }
            }
        }
        (good, None)
    }

    fn whole(bytes: &[u8]) -> Verdict {
        judge(std::iter::once(bytes))
    }

    /// One piece, every byte alone, and every way to cut in two.
    fn verdict(bytes: &[u8]) -> Verdict {
        let verdict = whole(bytes);
        assert_eq!(judge(bytes.chunks(1)), verdict, "byte by byte: {}", bytes.escape_ascii());
        for cut in 1..bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(judge([a, b].into_iter()), verdict, "cut at {cut}: {}", bytes.escape_ascii());
        }
        verdict
    }

    fn accepted(bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        assert_eq!(verdict(bytes), (bytes.len(), None), "{}", bytes.escape_ascii());
    }

    /// Refused, whether it is the first request or comes behind a good one; which stays good.
    fn refused(bytes: impl AsRef<[u8]>, what: Fault) {
        let bytes = bytes.as_ref();
        let (good, found) = verdict(bytes);
        assert_eq!(found, Some(what), "{}", bytes.escape_ascii());
        assert!(what.in_body() || good == 0, "{good} bytes of {} were good", bytes.escape_ascii());
        let before = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
        assert_eq!(verdict(&[before, bytes].concat()), (before.len() + good, Some(what)));
    }

    fn head(fields: &str) -> String {
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{fields}\r\n")
    }

    fn chunked(body: &str) -> String {
        head("transfer-encoding: chunked\r\n") + body
    }

    #[test]
    fn requests_follow_each_other() {
        accepted(head(""));
        accepted(head("content-length: 5\r\n") + "hello" + &head("") + &chunked("5\r\nhello\r\n0\r\n\r\n") + &head(""));
        accepted("\r\n\r\nGET / HTTP/1.0\r\nA:\r\nb:\t \"\u{e9}\"\t\r\n\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\n");
        accepted("CONNECT x:443 HTTP/1.1\r\n\r\nGET http://x/y?z HTTP/1.1\r\n\r\nGET /{\"a\"}|^ HTTP/1.1\r\n\r\n");
        accepted(head("CONTENT-LENGTH:\t 005 \t\r\n") + "hello" + &head("Content-Length: 0\r\n"));
        accepted(head("Transfer-Encoding:  Chunked \r\n") + "00A;n=v\r\n0123456789\r\n0 ;x\r\nchecksum: y\r\n\r\n");
        accepted(head("content-length-x: 1\r\nx-transfer-encoding: gzip\r\nte: trailers\r\n"));
    }

    #[test]
    fn a_body_is_not_looked_at() {
        let smuggled = "GET / HTTP/1.1\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n";
        accepted(head(&format!("content-length: {}\r\n", smuggled.len())) + smuggled + &head(""));
        accepted(chunked(&format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len())) + &head(""));
    }

    #[test]
    fn two_readings_of_the_length_are_refused() {
        use Fault::{BothLengths, ContentLength, ContentLengthTwice, TransferEncoding};
        for (fields, what) in [
            ("content-length: 5\r\ntransfer-encoding: chunked\r\n", BothLengths),
            ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", BothLengths),
            ("Transfer-Encoding: chunked\r\nx: y\r\ncontent-length: 0\r\n", BothLengths),
            ("content-length: 5\r\ntransfer-encoding: identity\r\n", BothLengths),
            ("content-length: 5\r\ncontent-length: 6\r\n", ContentLengthTwice),
            ("content-length: 5\r\nx: y\r\nContent-Length: 5\r\n", ContentLengthTwice),
            ("content-length: 0\r\ncontent-length: 0\r\n", ContentLengthTwice),
            ("content-length: 5, 5\r\n", ContentLength),
            ("content-length: 5,\r\n", ContentLength),
            ("content-length: 5 5\r\n", ContentLength),
            ("content-length:\r\n", ContentLength),
            ("content-length: +5\r\n", ContentLength),
            ("content-length: -1\r\n", ContentLength),
            ("content-length: 0x5\r\n", ContentLength),
            ("content-length: 5.0\r\n", ContentLength),
            ("content-length: \"5\"\r\n", ContentLength),
            ("content-length: \u{a0}5\r\n", ContentLength),
            ("content-length: 9223372036854775808\r\n", ContentLength),
            ("content-length: 18446744073709551621\r\n", ContentLength),
            ("transfer-encoding: xchunked\r\n", TransferEncoding),
            ("transfer-encoding: chunked, identity\r\n", TransferEncoding),
            ("transfer-encoding: identity, chunked\r\n", TransferEncoding),
            ("transfer-encoding: gzip, chunked\r\n", TransferEncoding),
            ("transfer-encoding: chunked, chunked\r\n", TransferEncoding),
            ("transfer-encoding: chunked,\r\n", TransferEncoding),
            ("transfer-encoding: chunked;q=1\r\n", TransferEncoding),
            ("transfer-encoding: \"chunked\"\r\n", TransferEncoding),
            ("transfer-encoding: identity\r\n", TransferEncoding),
            ("transfer-encoding:\r\n", TransferEncoding),
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", TransferEncoding),
            ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", TransferEncoding),
        ] {
            refused(head(fields), what);
        }
        refused("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", TransferEncoding);
    }

    #[test]
    fn a_line_that_can_be_read_in_two_ways_is_refused() {
        use Fault::{FieldName, FieldValue, Fold, LineEnd};
        for (fields, what) in [
            ("content-length : 5\r\n", FieldName),
            ("transfer-encoding\t: chunked\r\n", FieldName),
            ("content\u{0}-length: 5\r\n", FieldName),
            ("content length: 5\r\n", FieldName),
            ("(x): y\r\n", FieldName),
            (": y\r\n", FieldName),
            ("no colon\r\n", FieldName),
            ("x: a\r\n b\r\n", Fold),
            ("x: a\r\n\tcontent-length: 5\r\n", Fold),
            (" \r\n", Fold),
            ("transfer-encoding:\r\n chunked\r\n", Fault::TransferEncoding),
            ("transfer-encoding: \u{b}chunked\r\n", FieldValue),
            ("transfer-encoding: chunked\u{0}\r\n", FieldValue),
            ("x: a\u{7f}\r\n", FieldValue),
            ("x: y\n", LineEnd),
            ("x: y\ncontent-length: 5\r\n", LineEnd),
            ("x: y\rcontent-length: 5\r\n", LineEnd),
            ("x: y\r\r\n", LineEnd),
            ("x\ry: z\r\n", LineEnd),
            ("no colon\r\r\n", LineEnd),
            ("\n", LineEnd),
        ] {
            refused(head(fields), what);
        }
        refused("GET / HTTP/1.1\nhost: x\n\n", LineEnd);
        refused("GET / HTTP/1.1\r\nhost: x\r\n\n", LineEnd);
        refused("GET /\r HTTP/1.1\r\n\r\n", LineEnd);
        refused("\rGET / HTTP/1.1\r\n\r\n", LineEnd);
        refused("\n", LineEnd);
    }

    #[test]
    fn a_first_line_that_is_none_is_refused_as_soon_as_it_shows() {
        for line in [
            "complete nonsense\r\n",
            "GET  / HTTP/1.1\r\n",
            "GET /  HTTP/1.1\r\n",
            "GET / x HTTP/1.1\r\n",
            "GET /\tx HTTP/1.1\r\n",
            "GET HTTP/1.1\r\n",
            "GET /\r\n",
            "G@T / HTTP/1.1\r\n",
            " GET / HTTP/1.1\r\n",
            "GET / http/1.1\r\n",
            "GET / HTTP/1.1 \r\n",
            "GET / HTTP/1.10\r\n",
            "GET /\u{0} HTTP/1.1\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            refused(line, Fault::RequestLine);
        }
        for version in ["9.9", "2.0", "1.2", "0.9"] {
            refused(format!("GET / HTTP/{version}\r\n"), Fault::Version);
        }
    }

    #[test]
    fn chunks_are_what_they_say() {
        for body in [
            "zz\r\n",
            "\r\n",
            "-5\r\n",
            "+5\r\n",
            " 5\r\nhello",
            "5 \r\nhello",
            "5\nhello",
            "0x5\r\nhello",
            "5\rx\r\n",
            "5;\rx\r\n",
            "5;a=\u{0}\r\n",
            "5 5\r\n",
            "5,5\r\n",
            "8000000000000000\r\n",
            "10000000000000005\r\nhello",
            "5\u{b}\r\nhello",
        ] {
            refused(chunked(body), Fault::ChunkSize);
            refused(chunked(&format!("3\r\nabc\r\n{body}")), Fault::ChunkSize);
        }
        refused(chunked(&format!("5;{}\r\n", "x".repeat(MAX_CHUNK_LINE_BYTES))), Fault::ChunkSize);
        accepted(chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(MAX_CHUNK_LINE_BYTES - 4))));
        for body in ["5\r\nhello\n0\r\n\r\n", "5\r\nhello!\r\n", "5\r\nhello\r0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n"] {
            refused(chunked(body), Fault::ChunkEnd);
        }
        for trailer in [
            "x\r\n",
            "x : y\r\n",
            "x: y\n\r\n",
            "x: y\r\n z\r\n",
            "\n",
            "content-length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
        ] {
            refused(chunked(&format!("0\r\n{trailer}")), Fault::Trailer);
        }
        refused(chunked(&format!("0\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEAD_BYTES))), Fault::Trailer);
        refused(chunked(&format!("0\r\n{}\r\n", "x:\r\n".repeat(MAX_FIELDS + 1))), Fault::Trailer);
        accepted(chunked(&format!("0\r\n{}\r\n", "x:\r\n".repeat(MAX_FIELDS))));
    }

    #[test]
    fn a_head_has_bounds() {
        let room = MAX_HEAD_BYTES - head("x: \r\n").len();
        accepted(head(&format!("x: {}\r\n", "y".repeat(room))));
        refused(head(&format!("x: {}\r\n", "y".repeat(room + 1))), Fault::HeadTooLarge);
        refused("a".repeat(MAX_HEAD_BYTES + 1), Fault::HeadTooLarge);
        refused("\r\n".repeat(MAX_HEAD_BYTES), Fault::HeadTooLarge);
        // Bad in two ways: found by fuzzing, where a byte at a time showed the one, and the whole line the other.
        refused(format!("\u{16}{}\r\n", "a".repeat(MAX_HEAD_BYTES)), Fault::RequestLine);
        for empty_lines in MAX_HEAD_BYTES / 2 - 2..MAX_HEAD_BYTES / 2 + 2 {
            let empty = "\r\n".repeat(empty_lines);
            for line in ["\u{16}\r\n", "\u{16}", "\n", "GET / HTTP/1.1\r\n"] {
                verdict(format!("{empty}{line}").as_bytes());
                verdict(format!("\n{empty}{line}").as_bytes());
            }
        }
        accepted(head(&"x:\r\n".repeat(MAX_FIELDS - 1)));
        refused(head(&"x:\r\n".repeat(MAX_FIELDS)), Fault::TooManyFields);
    }

    #[test]
    fn http2_ends_the_watch_and_a_request_to_upgrade_does_not() {
        let frames = [&HTTP2_PREFACE[..], b"\0\0\x12\x04\0\n\n"].concat();
        accepted(&frames);
        refused(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Fault::Version);
        let twice = head("content-length: 5\r\ncontent-length: 5\r\n");
        for first in ["GET / HTTP/1.1\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", "CONNECT x:1 HTTP/1.1\r\n\r\n"] {
            let verdict = verdict((first.to_owned() + &twice).as_bytes());
            assert_eq!(verdict, (first.len(), Some(Fault::ContentLengthTwice)));
        }
    }

    #[test]
    fn faults_have_words_of_their_own() {
        let codes: std::collections::HashSet<_> = Fault::ALL.map(Fault::as_str).into();
        assert_eq!(codes.len(), Fault::ALL.len());
        assert!(Fault::TooManyFields.message().contains(&MAX_FIELDS.to_string()));
    }

    prop_compose! {
        fn fields()(fields in prop::collection::vec(("x-[a-z0-9!#$%&'*+.^_`|~-]{0,20}", "[ \t]{0,2}[!-~][ -~\t]{0,40}"), 0..8)) -> String {
            fields.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect()
        }
    }

    prop_compose! {
        fn request()(
            method in "[A-Z]{1,7}",
            target in "/[a-zA-Z0-9/._~?=&%-]{0,40}",
            before in fields(),
            after in fields(),
            body in prop::option::of(prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..4)),
            chunked in any::<bool>(),
            extension in prop::option::of("[a-z0-9=\"; ]{0,12}"),
            trailer in fields(),
        ) -> Vec<u8> {
            let mut bytes = format!("{method} {target} HTTP/1.1\r\n{before}").into_bytes();
            let extension = extension.map(|words| format!(";{words}")).unwrap_or_default();
            match body {
                None => bytes.extend(format!("{after}\r\n").bytes()),
                Some(parts) if chunked => {
                    bytes.extend(format!("Transfer-Encoding: chunked\r\n{after}\r\n").bytes());
                    for part in parts {
                        bytes.extend(format!("{:X}{extension}\r\n", part.len()).bytes());
                        bytes.extend(part);
                        bytes.extend(b"\r\n");
                    }
                    bytes.extend(format!("0{extension}\r\n{trailer}\r\n").bytes());
                }
                Some(parts) => {
                    let body = parts.concat();
                    bytes.extend(format!("Content-Length: {}\r\n{after}\r\n", body.len()).bytes());
                    bytes.extend(body);
                }
            }
            bytes
        }
    }

    /// The bytes cut at these places, wherever they fall.
    fn cut<'a>(bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = bytes;
        let mut sizes = sizes.iter().cycle();
        std::iter::from_fn(move || {
            let size = (*sizes.next()?).min(rest.len());
            let (piece, after) = rest.split_at(size);
            rest = after;
            (!piece.is_empty()).then_some(piece)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(20_260_801), ..ProptestConfig::default() })]

        #[test]
        fn well_formed_pipelines_are_never_refused(
            requests in prop::collection::vec(request(), 1..6),
            sizes in prop::collection::vec(1usize..200, 1..8),
        ) {
            let bytes = requests.concat();
            prop_assert_eq!(whole(&bytes), (bytes.len(), None));
            prop_assert_eq!(judge(cut(&bytes, &sizes)), (bytes.len(), None));
        }

        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            requests in prop::collection::vec(request(), 1..4),
            changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"\r\n :;,\t\0a0\xff".to_vec())), 1..4),
            sizes in prop::collection::vec(1usize..100, 1..8),
        ) {
            let mut bytes = requests.concat();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            prop_assert_eq!(judge(cut(&bytes, &sizes)), whole(&bytes));
        }
    }
}
