//! The head of a request: its lines, and the length of the body that they announce.

use http::Uri;
use memchr::{memchr, memchr_iter};

use super::fault::Fault;
use super::grammar::{FramingField, TOKEN, field, framing_field, is_token, number, trim};
use super::{MAX_FIELDS, State};

/// State of reading a head. Offsets count from its beginning.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Start of the first line that was not checked.
    line: usize,
    /// Up to where a line's end was looked for.
    searched: usize,
    /// HTTP/1.1, else 1.0; none before the request line.
    http11: Option<bool>,
    fields: usize,
    length: Option<u64>,
    chunked: bool,
}

impl Head {
    /// Judges the lines that are whole; where the head ends, once it does.
    pub(super) fn read(&mut self, rest: &[u8], max_bytes: usize) -> Result<Option<usize>, Fault> {
        let from = self.searched;
        self.searched = rest.len();
        for lf in memchr_iter(b'\n', &rest[from..]).map(|lf| from + lf) {
            let line = &rest[self.line..lf];
            // Before its length, as of a line that is not whole: however it is cut, the fault is the same.
            self.begins_well(line)?;
            if lf >= max_bytes {
                return Err(Fault::HeadTooLarge);
            }
            let line = line.strip_suffix(b"\r").ok_or(Fault::LineEnd)?;
            self.line = lf + 1;
            match (self.http11, line) {
                // RFC 9112 section 2.2: empty lines before a request are ignored.
                (None, []) => {}
                (None, line) => self.http11 = Some(request_line(line)?),
                (Some(_), []) => return Ok(Some(lf + 1)),
                (Some(http11), line) => self.field(line, http11)?,
            }
        }
        if self.line < rest.len() {
            self.begins_well(&rest[self.line..])?;
        }
        if rest.len() > max_bytes { Err(Fault::HeadTooLarge) } else { Ok(None) }
    }

    /// A client that speaks another protocol altogether need not send a line's end to hear of it.
    fn begins_well(&self, line: &[u8]) -> Result<(), Fault> {
        match (self.http11, line.first()) {
            (None, Some(&first)) if first != b'\r' && !TOKEN[usize::from(first)] => Err(Fault::RequestLine),
            (None | Some(_), _) => Ok(()),
        }
    }

    fn field(&mut self, line: &[u8], http11: bool) -> Result<(), Fault> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Fault::TooManyFields);
        }
        let (name, value) = field(line)?;
        match framing_field(name) {
            Some(FramingField::ContentLength) if self.chunked => return Err(Fault::BothLengths),
            Some(FramingField::ContentLength) if self.length.is_some() => return Err(Fault::ContentLengthTwice),
            Some(FramingField::ContentLength) => {
                self.length = Some(number(trim(value), 10).ok_or(Fault::ContentLength)?)
            }
            Some(FramingField::TransferEncoding) if self.length.is_some() => return Err(Fault::BothLengths),
            Some(FramingField::TransferEncoding) => {
                if self.chunked || !http11 || !trim(value).eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::TransferEncoding);
                }
                self.chunked = true;
            }
            None => {}
        }
        Ok(())
    }

    /// Determines the body that follows the head.
    pub(super) fn body(&self) -> State {
        match self.length {
            _ if self.chunked => State::ChunkSize,
            None | Some(0) => State::Head(Head::default()),
            Some(left_bytes) => State::Body { left_bytes },
        }
    }
}

/// Checks the request line; returns true for HTTP/1.1, false for 1.0.
fn request_line(line: &[u8]) -> Result<bool, Fault> {
    if memchr(b'\r', line).is_some() {
        return Err(Fault::LineEnd);
    }
    let (words, version) = line.split_at(line.len().saturating_sub(b" HTTP/1.1".len()));
    let http11 = match version {
        b" HTTP/1.1" => true,
        b" HTTP/1.0" => false,
        [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Fault::Version);
        }
        _ => return Err(Fault::RequestLine),
    };
    let space = memchr(b' ', words).ok_or(Fault::RequestLine)?;
    let (method, target) = (&words[..space], &words[space + 1..]);
    let well_formed = is_token(method) && is_target(target);
    if well_formed { Ok(http11) } else { Err(Fault::RequestLine) }
}

/// Checks the target's characters only; the rest is left to the parser that reads it later.
fn is_target(target: &[u8]) -> bool {
    let plain_byte = |&b: &u8| b.is_ascii_alphanumeric() || b"/-._~%?=&:@+,;".contains(&b);
    let plain = target.first() == Some(&b'/') && target.iter().all(plain_byte);
    plain || (target.iter().all(u8::is_ascii_graphic) && Uri::try_from(target).is_ok())
}
