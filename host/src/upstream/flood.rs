//! A connection whose upstream may not talk without saying something: what comes beside answers is bounded.
//!
//! Over HTTP/1 that is what comes before the head of the final response: informational responses (RFC 9110 section 15.2)
//! without end, or a head that never ends. Over HTTP/2 it is every frame but DATA, which alone flow control bounds (RFC 9113
//! section 5.2).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may come before the head of a response, and on an HTTP/2 connection beside DATA: more than any head, with
/// the beginning of a body that came along.
const ALLOWED_BYTES: u64 = 1 << 20;

/// Bytes of an HTTP/2 frame's head (RFC 9113 section 4.1).
const FRAME_HEAD_BYTES: usize = 9;

/// The type of the frames that carry bodies.
const DATA: u8 = 0;

/// Bytes that a connection may still bring.
#[derive(Clone, Debug)]
pub(super) struct Allowance(Arc<AtomicU64>);

/// Allowance while a body is read, of which there is no limit here.
const UNLIMITED: u64 = u64::MAX;

impl Allowance {
    /// A response is waited for.
    pub(super) fn begin(&self) {
        self.0.store(ALLOWED_BYTES, Ordering::Relaxed);
    }

    /// Its head is there; the body has bounds of its own.
    pub(super) fn answered(&self) {
        self.0.store(UNLIMITED, Ordering::Relaxed);
    }

    /// A body has come as well, beside which as much may come again.
    fn add(&self, bytes: u64) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_add(bytes).min(ALLOWED_BYTES), Ordering::Relaxed);
    }

    fn spend(&self, bytes: u64) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed);
        if left == UNLIMITED {
            return Ok(());
        }
        match left.checked_sub(bytes) {
            Some(left) => {
                self.0.store(left, Ordering::Relaxed);
                Ok(())
            }
            None => {
                let message = format!("the upstream sent {ALLOWED_BYTES} bytes and no answer among them");
                Err(io::Error::new(io::ErrorKind::InvalidData, message))
            }
        }
    }
}

/// A connection that is read within an allowance.
#[derive(Debug)]
pub(super) struct Bounded<IO> {
    io: IO,
    allowance: Allowance,
    frames: Option<Frames>,
}

impl<IO> Bounded<IO> {
    /// Bounds a connection that was just made; HTTP/2 was agreed on, or not.
    pub(super) fn new(io: IO, is_http2: bool) -> Self {
        let allowance = Allowance(Arc::new(AtomicU64::new(ALLOWED_BYTES)));
        Self { io, allowance, frames: is_http2.then(Frames::default) }
    }

    /// The allowance.
    pub(super) fn allowance(&self) -> Allowance {
        self.allowance.clone()
    }
}

/// Position in a sequence of HTTP/2 frames.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
    payload_left: usize,
}

impl Frames {
    /// Returns how many of these bytes are of DATA, and how many of other frames.
    fn count(&mut self, mut bytes: &[u8]) -> (u64, u64) {
        let (mut data, mut other) = (0, 0);
        while !bytes.is_empty() {
            if self.payload_left == 0 && self.head_bytes == FRAME_HEAD_BYTES {
                self.head_bytes = 0;
            }
            if self.head_bytes < FRAME_HEAD_BYTES {
                let taken = bytes.len().min(FRAME_HEAD_BYTES - self.head_bytes);
                let (part, rest) = bytes.split_at(taken);
                self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(part);
                self.head_bytes += taken;
                bytes = rest;
                other += taken as u64;
                if self.head_bytes == FRAME_HEAD_BYTES {
                    let [a, b, c, ..] = self.head;
                    self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                }
                continue;
            }
            let taken = bytes.len().min(self.payload_left);
            self.payload_left -= taken;
            bytes = &bytes[taken..];
            match self.head[3] {
                DATA => data += taken as u64,
                _ => other += taken as u64,
            }
        }
        (data, other)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Bounded<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        let read = &out.filled()[before..];
        let this = &mut *self;
        let beside = match &mut this.frames {
            None => read.len() as u64,
            Some(frames) => {
                let (data, other) = frames.count(read);
                this.allowance.add(data);
                other
            }
        };
        Poll::Ready(this.allowance.spend(beside))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Bounded<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn read(io: &mut Bounded<&[u8]>) -> io::Result<usize> {
        let mut out = [0; 8_192];
        io.read(&mut out).await
    }

    /// Reads to the end, or the error; returns the bytes that came.
    async fn read_all(io: &mut Bounded<&[u8]>) -> (u64, Option<io::ErrorKind>) {
        let mut came = 0;
        loop {
            match read(io).await {
                Ok(0) => return (came, None),
                Ok(n) => came += n as u64,
                Err(error) => return (came, Some(error.kind())),
            }
        }
    }

    #[tokio::test]
    async fn what_comes_before_a_head_is_bounded_and_its_body_is_not() {
        let flood = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000);
        let mut io = Bounded::new(&flood[..], false);
        let (came, end) = read_all(&mut io).await;
        assert!(came <= ALLOWED_BYTES && end == Some(io::ErrorKind::InvalidData), "{came}");
        let body = vec![b'x'; 3 * ALLOWED_BYTES as usize];
        let mut io = Bounded::new(&body[..], false);
        io.allowance().answered();
        assert_eq!(read_all(&mut io).await, (3 * ALLOWED_BYTES, None));
        io.io = &body;
        io.allowance().begin();
        assert!(read_all(&mut io).await.1.is_some(), "the next answer is waited for");
    }

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        [vec![a, b, c, kind, 0, 0, 0, 0, 1], vec![7; length]].concat()
    }

    #[tokio::test]
    async fn frames_without_data_are_bounded_however_they_are_cut() {
        for cut in [1, 5, 9, 10, 4_096] {
            let mut frames = Frames::default();
            let sent = [frame(1, 100), frame(DATA, 0), frame(DATA, 70_000), frame(6, 8), frame(DATA, 3)].concat();
            let counted = sent.chunks(cut).map(|piece| frames.count(piece));
            let sum = counted.fold((0, 0), |sum, (data, other)| (sum.0 + data, sum.1 + other));
            assert_eq!(sum, (70_003, 108 + 5 * 9), "in pieces of {cut}");
        }
        let pings = frame(6, 8).repeat(100_000);
        assert!(read_all(&mut Bounded::new(&pings[..], true)).await.1.is_some());
        let answers = [frame(1, 100), frame(DATA, 16_000)].concat().repeat(1_000);
        assert_eq!(read_all(&mut Bounded::new(&answers[..], true)).await, (answers.len() as u64, None));
    }
}
