//! Frames of zstd (RFC 8878).

use bytes::Bytes;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::sink::Sink;
use super::{DecodeError, MAX_PIECE_BYTES};

/// Frames of zstd, block by block: a block comes to 128 KiB at most, so that the bounds are kept.
#[derive(Default)]
pub(super) struct Zstd {
    decoder: FrameDecoder,
    /// Bytes that are not a whole block yet.
    pending: Vec<u8>,
    in_frame: bool,
    has_checksum: bool,
    sink: Sink,
}

/// A frame's first 4 bytes, and those of one to be skipped without the low half of the first (RFC 8878 section 3.1).
pub(super) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// The largest window, as RFC 9659 has it for HTTP.
const ZSTD_WINDOW_BYTES: u64 = 8 << 20;

impl Zstd {
    pub(super) fn push(&mut self, data: &[u8], room: u64) -> Result<Bytes, DecodeError> {
        self.pending.extend_from_slice(data);
        self.sink.room = room;
        self.decoder.set_max_window_size(ZSTD_WINDOW_BYTES);
        let mut used = 0;
        loop {
            let read = match self.in_frame {
                true => self.block(used)?,
                false => self.frame(used)?,
            };
            match read {
                0 => break,
                read => used += read,
            }
        }
        self.pending.drain(..used);
        Ok(std::mem::take(&mut self.sink.bytes).into())
    }

    /// Reads the head of a frame, or a frame to be skipped; answers its length, 0 while it is not whole.
    fn frame(&mut self, at: usize) -> Result<usize, DecodeError> {
        let rest = &self.pending[at..];
        let Some(magic) = rest.first_chunk::<4>() else { return Ok(0) };
        if magic[0] & 0xf0 == 0x50 && magic[1..] == ZSTD_SKIPPABLE {
            let Some(length) = rest[4..].first_chunk::<4>() else { return Ok(0) };
            let whole = (u32::from_le_bytes(*length) as usize).saturating_add(8);
            return if whole as u64 > MAX_PIECE_BYTES {
                Err(DecodeError::TooLarge)
            } else {
                Ok(if rest.len() >= whole { whole } else { 0 })
            };
        }
        if *magic != ZSTD_MAGIC {
            return Err(DecodeError::Broken);
        }
        let Some(head) = rest.get(4).map(|descriptor| zstd_head_bytes(*descriptor)) else { return Ok(0) };
        let Some(mut bytes) = rest.get(..head) else { return Ok(0) };
        self.has_checksum = rest[4] & 0b100 != 0;
        self.decoder.reset(&mut bytes).map_err(|_| DecodeError::Broken)?;
        self.in_frame = true;
        Ok(head)
    }

    /// Decodes a block, and the checksum behind the last one; answers its length, 0 while it is not whole.
    fn block(&mut self, at: usize) -> Result<usize, DecodeError> {
        let rest = &self.pending[at..];
        let Some(&[a, b, c]) = rest.first_chunk::<3>() else { return Ok(0) };
        let header = u32::from_le_bytes([a, b, c, 0]);
        let (is_last, kind, size) = (header & 1 == 1, header >> 1 & 0b11, header >> 3);
        // RFC 8878 section 3.1.1.2.2: of a block of one repeated byte only that byte is there.
        let content = if kind == 1 { 1 } else { size as usize };
        let whole = 3 + content + if is_last && self.has_checksum { 4 } else { 0 };
        let Some(mut block) = rest.get(..whole) else { return Ok(0) };
        self.decoder
            .decode_blocks(&mut block, BlockDecodingStrategy::UptoBlocks(1))
            .map_err(|_| DecodeError::Broken)?;
        if self.decoder.can_collect() as u64 + self.sink.bytes.len() as u64 > self.sink.room {
            return Err(DecodeError::TooLarge);
        }
        self.decoder.collect_to_writer(&mut self.sink).map_err(|_| DecodeError::TooLarge)?;
        self.in_frame = !is_last;
        Ok(whole)
    }

    pub(super) fn finish(&self) -> Result<Bytes, DecodeError> {
        match self.in_frame || !self.pending.is_empty() {
            true => Err(DecodeError::Broken),
            false => Ok(Bytes::new()),
        }
    }
}

/// Bytes of a frame's head, by its descriptor (RFC 8878 section 3.1.1.1).
const fn zstd_head_bytes(descriptor: u8) -> usize {
    let is_single = descriptor & 0b0010_0000 != 0;
    let dictionary = [0, 1, 2, 4][(descriptor & 0b11) as usize];
    let size = match (descriptor >> 6, is_single) {
        (0, true) => 1,
        (0, false) => 0,
        (flag, _) => 1 << flag,
    };
    5 + !is_single as usize + dictionary + size
}
