//! Bounded output of a decoder.

use std::io::{self, Write};

use bytes::Bytes;

use super::DecodeError;

/// A bounded place for decoded bytes.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) bytes: Vec<u8>,
    pub(super) room: u64,
    pub(super) is_full: bool,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + data.len()) as u64 > self.room {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    pub(super) fn take(&mut self, written: io::Result<()>) -> Result<Bytes, DecodeError> {
        match written {
            _ if self.is_full => Err(DecodeError::TooLarge),
            Ok(()) => Ok(std::mem::take(&mut self.bytes).into()),
            Err(_) => Err(DecodeError::Broken),
        }
    }
}

pub(super) fn write<D: Write>(
    decoder: &mut D,
    data: &[u8],
    room: u64,
    sink: impl Fn(&mut D) -> &mut Sink,
) -> Result<Bytes, DecodeError> {
    sink(decoder).room = room;
    let written = decoder.write_all(data).and_then(|()| decoder.flush());
    sink(decoder).take(written)
}

pub(super) fn end<D>(
    decoder: &mut D,
    room: u64,
    sink: impl Fn(&mut D) -> &mut Sink,
    finish: impl Fn(&mut D) -> io::Result<()>,
) -> Result<Bytes, DecodeError> {
    sink(decoder).room = room;
    let finished = finish(decoder);
    sink(decoder).take(finished)
}
