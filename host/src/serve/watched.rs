//! A downstream connection whose bytes are looked at on their way to the HTTP parser.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use pointsman_core::wire::framing::Framing;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was found on a connection, for the service that answers its requests.
#[derive(Clone, Debug, Default)]
pub struct Verdict(Arc<AtomicBool>);

impl Verdict {
    /// Has a request's framing been ambiguous? Then no request of the connection is to be trusted.
    pub fn is_ambiguous(&self) -> bool {
        // The bytes are read by the same task that answers them.
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that is followed by [`Framing`].
pub struct Watched<S> {
    io: S,
    framing: Framing,
    verdict: Verdict,
}

impl<S> Watched<S> {
    /// Watches a connection from its first byte.
    pub fn new(io: S) -> Self {
        Self { io, framing: Framing::default(), verdict: Verdict::default() }
    }

    /// Where the verdict will be told.
    pub fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if read.is_ready() && this.framing.see(&buf.filled()[before..]) {
            this.verdict.0.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
