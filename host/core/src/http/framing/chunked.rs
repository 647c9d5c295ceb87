//! A body in chunks, and the trailer behind it (RFC 9112 section 7.1).

use memchr::memchr;

use super::fault::Fault;
use super::grammar::{field, framing_field, number, trim};

/// Bytes of a line with a chunk's size and extensions, at most.
pub(super) const MAX_CHUNK_LINE_BYTES: usize = 1_024;

/// A chunk's size and the bytes of its line, once that is whole (RFC 9112 section 7.1).
pub(super) fn chunk_size(rest: &[u8]) -> Result<Option<(u64, usize)>, Fault> {
    if !rest[0].is_ascii_hexdigit() {
        return Err(Fault::ChunkSize);
    }
    let Some(lf) = memchr(b'\n', &rest[..rest.len().min(MAX_CHUNK_LINE_BYTES)]) else {
        return if rest.len() < MAX_CHUNK_LINE_BYTES { Ok(None) } else { Err(Fault::ChunkSize) };
    };
    let line = rest[..lf].strip_suffix(b"\r").ok_or(Fault::ChunkSize)?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let extension = &line[digits..];
    let well_formed = match trim(extension) {
        [] => extension.is_empty(),
        [b';', words @ ..] => words.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f)),
        _ => false,
    };
    let size = number(&line[..digits], 16).filter(|_| well_formed).ok_or(Fault::ChunkSize)?;
    Ok(Some((size, lf + 1)))
}

/// A line of the trailer and its bytes, once it is whole (RFC 9112 section 7.1.2).
pub(super) fn trailer_line(rest: &[u8], left_bytes: usize) -> Result<Option<(&[u8], usize)>, Fault> {
    let Some(lf) = memchr(b'\n', &rest[..rest.len().min(left_bytes)]) else {
        return if rest.len() < left_bytes { Ok(None) } else { Err(Fault::Trailer) };
    };
    let line = rest[..lf].strip_suffix(b"\r").ok_or(Fault::Trailer)?;
    if !line.is_empty() {
        let (name, _) = field(line).map_err(|_| Fault::Trailer)?;
        if framing_field(name).is_some() {
            return Err(Fault::Trailer);
        }
    }
    Ok(Some((line, lf + 1)))
}
