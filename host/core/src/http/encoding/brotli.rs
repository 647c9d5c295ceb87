//! A stream of brotli (RFC 7932).

use std::io::Write;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::Bytes;

use super::DecodeError;
use super::sink::Sink;

/// A stream of brotli.
pub(super) struct Brotli {
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    is_over: bool,
    total: usize,
}

impl Default for Brotli {
    fn default() -> Self {
        let state = BrotliState::new(StandardAlloc::default(), StandardAlloc::default(), StandardAlloc::default());
        Self { state, is_over: false, total: 0 }
    }
}

impl Brotli {
    pub(super) fn push(&mut self, data: &[u8], room: u64) -> Result<Bytes, DecodeError> {
        const BUFFER_BYTES: usize = 16 << 10;
        let mut sink = Sink { room, ..Sink::default() };
        let mut buffer = [0; BUFFER_BYTES];
        let (mut left, mut read) = (data.len(), 0);
        while !self.is_over {
            let (mut free, mut filled) = (buffer.len(), 0);
            let result = BrotliDecompressStream(
                &mut left,
                &mut read,
                data,
                &mut free,
                &mut filled,
                &mut buffer,
                &mut self.total,
                &mut self.state,
            );
            sink.write_all(&buffer[..filled]).map_err(|_| DecodeError::TooLarge)?;
            match result {
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::NeedsMoreInput => break,
                BrotliResult::ResultSuccess => self.is_over = true,
                BrotliResult::ResultFailure => return Err(DecodeError::Broken),
            }
        }
        if self.is_over && left > 0 { Err(DecodeError::Broken) } else { Ok(sink.bytes.into()) }
    }

    pub(super) fn finish(&self) -> Result<Bytes, DecodeError> {
        if self.is_over { Ok(Bytes::new()) } else { Err(DecodeError::Broken) }
    }
}
