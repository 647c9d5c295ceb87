//! Answers that a client has stopped taking: they are ended after a time, as each may hold a backend's slot.
//!
//! Over HTTP/1 a client that does not read is seen at the socket (`guard.rs`). Over HTTP/2 it closes the window of one
//! stream and the socket goes on; hyper then does not ask for more of the body, so nothing in the body could look at a
//! clock. So the time is kept around the stream's task: hyper makes one for each request, and dropping it resets that
//! stream alone and settles its exchange.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::Sleep;

tokio::task_local! {
    /// The stream in whose task we are.
    static CURRENT: Arc<Handing>;
}

/// Runs the tasks of HTTP/2 streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    limit: Duration,
}

impl Streams {
    /// A stream whose client takes nothing of its answer for `limit` is reset.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let handing = Arc::default();
        tokio::spawn(Watched { stream: Some(Box::pin(stream)), handing, limit: self.limit, unread: None });
    }
}

/// Progress of handing over a body; touched only by the stream's own task.
#[derive(Debug, Default)]
struct Handing {
    /// The head counts as one.
    pieces: AtomicU32,
    /// The client must take the last piece before hyper comes for the next.
    is_out: AtomicBool,
}

impl Handing {
    fn handed_over(&self) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        self.is_out.store(true, Ordering::Relaxed);
    }

    fn asked_for_more(&self) {
        self.is_out.store(false, Ordering::Relaxed);
    }

    /// The piece that the client has not taken.
    fn untaken(&self) -> Option<u32> {
        self.is_out.load(Ordering::Relaxed).then(|| self.pieces.load(Ordering::Relaxed))
    }
}

/// A stream's task under watch.
struct Watched<F> {
    stream: Option<Pin<Box<F>>>,
    handing: Arc<Handing>,
    limit: Duration,
    /// Set while the client takes nothing: which piece, and until when.
    unread: Option<(u32, Pin<Box<Sleep>>)>,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else { return Poll::Ready(()) };
        let polled = CURRENT.sync_scope(this.handing.clone(), || stream.as_mut().poll(cx));
        if polled.is_ready() {
            return polled;
        }
        let Some(piece) = this.handing.untaken() else {
            this.unread = None;
            return Poll::Pending;
        };
        if this.unread.as_ref().is_none_or(|(untaken, _)| *untaken != piece) {
            this.unread = Some((piece, Box::pin(tokio::time::sleep(this.limit))));
        }
        if let Some((_, timer)) = &mut this.unread {
            ready!(timer.as_mut().poll(cx));
        }
        tracing::debug!(limit = ?this.limit, "an HTTP/2 client has stopped reading; its stream is reset");
        this.stream = None;
        Poll::Ready(())
    }
}

/// A body whose handing over is watched, where it is part of an HTTP/2 stream.
pub(super) struct Handed<B> {
    body: B,
    handing: Option<Arc<Handing>>,
}

impl<B> Handed<B> {
    /// The body of an answer that goes out on the stream whose task this is called in.
    pub(super) fn over(answer: Response<B>) -> Response<Self> {
        let handing = CURRENT.try_with(Arc::clone).ok();
        if let Some(handing) = &handing {
            handing.handed_over();
        }
        answer.map(|body| Self { body, handing })
    }
}

impl<B: Body + Unpin> Body for Handed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        if let Some(handing) = &this.handing {
            handing.asked_for_more();
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let (Some(handing), Some(Ok(_))) = (&this.handing, &frame) {
            handing.handed_over();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::Waker;

    use bytes::Bytes;
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    /// A body that gives what its upstream sends.
    struct Pieces(mpsc::Receiver<()>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(cx).map(|piece| piece.map(|()| Ok(Frame::data(Bytes::from_static(b"piece")))))
        }
    }

    /// A stream's task as hyper makes them: it comes for the next piece when the client has taken the last.
    struct Stream {
        upstream: mpsc::Sender<()>,
        client: mpsc::Sender<()>,
        task: Watched<Pin<Box<dyn Future<Output = ()> + Send>>>,
    }

    fn stream(limit: Duration) -> Stream {
        let (upstream, sent) = mpsc::channel(8);
        let (client, mut taken) = mpsc::channel(8);
        let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let mut body = Handed::over(Response::new(Pieces(sent))).into_body();
            while taken.recv().await.is_some() {
                body.frame().await;
            }
        });
        Stream {
            upstream,
            client,
            task: Watched { stream: Some(Box::pin(task)), handing: Arc::default(), limit, unread: None },
        }
    }

    impl Stream {
        /// Goes on as far as it can; until when the client has time to take what it was handed.
        fn until(&mut self) -> Option<Instant> {
            let polled = Pin::new(&mut self.task).poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            self.task.unread.as_ref().map(|(_, timer)| timer.deadline())
        }
    }

    #[tokio::test]
    async fn the_clients_time_begins_anew_with_each_piece_and_only_then() {
        let mut stream = stream(Duration::from_secs(120));
        let head = stream.until().expect("it has its head to take");
        assert_eq!(stream.until(), Some(head), "to be looked at is not to take something");
        stream.client.send(()).await.unwrap();
        assert_eq!(stream.until(), None, "now the upstream has nothing to give");
        let mut before = head;
        for _ in 0..3 {
            stream.upstream.send(()).await.unwrap();
            let until = stream.until().expect("it has a piece to take");
            assert!(until > before);
            // It takes this one, and the next is there.
            stream.upstream.send(()).await.unwrap();
            stream.client.send(()).await.unwrap();
            before = stream.until().expect("it has the next to take");
            assert!(before > until);
            stream.client.send(()).await.unwrap();
            assert_eq!(stream.until(), None);
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_let_go() {
        const LIMIT: Duration = Duration::from_millis(50);
        let Stream { upstream, client: _client, task } = stream(LIMIT);
        let began = crate::timer::now();
        task.await;
        assert!(began.elapsed() >= LIMIT);
        assert!(upstream.is_closed(), "its body is dropped with it");
    }
}
