//! Bytes held back before the commit.

use bytes::{Bytes, BytesMut};

/// Bytes held back; the common single piece is never copied.
#[derive(Debug, Default)]
pub(super) struct Held {
    first: Bytes,
    rest: BytesMut,
}

impl Held {
    pub(super) fn push(&mut self, bytes: Bytes) {
        if self.first.is_empty() {
            self.first = bytes;
        } else if !bytes.is_empty() {
            if self.rest.is_empty() {
                self.rest.extend_from_slice(&self.first);
            }
            self.rest.extend_from_slice(&bytes);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.first.len().max(self.rest.len())
    }

    /// All of them; none are left.
    pub(super) fn take(&mut self) -> Bytes {
        let Self { first, rest } = std::mem::take(self);
        if rest.is_empty() { first } else { rest.freeze() }
    }
}
