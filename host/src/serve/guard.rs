//! Refuses ambiguous HTTP/1 requests before the HTTP library, which would repair them in silence, reads them.
//!
//! The guard stands between a connection and hyper. Good bytes pass as they came. In place of a request at fault, and of
//! all that follows it, hyper is handed one request of the guard's own, the *stand-in*, which names the fault. The service
//! answers it as it answers any error: in order behind the requests before it, with a body, counted and logged; and as the
//! stand-in asks to close the connection, hyper closes it. A client that sends a stand-in itself is told of a fault it has
//! not made, and nothing else comes of it.
//!
//! A fault inside a body comes too late for that, as its head was handed over. There the connection fails to be read, and
//! hyper tells the service that the body broke off.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use pointsman_core::http::framing::{Ambiguous, Fault, Framing};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The method of a stand-in; its path is the fault's code.
const STAND_IN: &str = "POINTSMAN-REFUSED";

/// Bytes read at a time behind a head that is not whole.
const READ_BYTES: usize = 8_192;

/// Bytes of a refused request that are thrown away before its connection is closed. Closing with bytes unread would reset
/// the connection, and the client might never read why.
const MAX_DISCARDED_BYTES: usize = 1_048_576;

/// The fault that a request stands in for. The service asks this first, before it looks at keys or paths, and answers
/// with the fault's message: 431 for [`Fault::HeadTooLarge`] and [`Fault::TooManyFields`], else 400.
pub(super) fn refused<B>(request: &Request<B>) -> Option<Fault> {
    if request.method().as_str() != STAND_IN {
        return None;
    }
    let code = request.uri().path().strip_prefix('/')?;
    Fault::parse(code)
}

fn stand_in(fault: Fault) -> String {
    format!("{STAND_IN} /{} HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n", fault.as_str())
}

/// A downstream connection whose requests have one reading each.
#[derive(Debug)]
pub(super) struct Guarded<IO> {
    io: IO,
    peer: SocketAddr,
    framing: Framing,
    held: Held,
    end: Option<End>,
    refusals: Arc<AtomicU64>,
    patience: Option<Patience>,
    unread_timeout: Option<Duration>,
    /// Set while the client takes nothing of what is written.
    unread: Option<Pin<Box<Sleep>>>,
}

/// Time limit for a request's head. Hyper's own limit does not apply to a head that is buffered here until it is
/// complete.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes have been handed over; from then on hyper minds the time between requests.
    has_begun: bool,
}

/// Bytes read and not yet handed over: first those that were checked, then those that were not.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    given: usize,
    good: usize,
}

/// The reason why reading has ended.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The client has sent all it wanted to.
    Closed,
    /// A request was refused for its framing.
    Refused(Fault),
}

impl<IO> Guarded<IO> {
    /// Guards a fresh connection, whose request heads may have this many bytes. Refused requests are added to `refusals`.
    pub(super) fn new(io: IO, peer: SocketAddr, max_head_bytes: usize, refusals: Arc<AtomicU64>) -> Self {
        Self {
            io,
            peer,
            framing: Framing::new(max_head_bytes),
            held: Held::default(),
            end: None,
            refusals,
            patience: None,
            unread_timeout: None,
            unread: None,
        }
    }

    /// The connection's first head, and the rest of any head, must come within this time.
    pub(super) fn with_patience(mut self, limit: Duration) -> Self {
        self.patience = Some(Patience { limit, timer: None, has_begun: false });
        self
    }

    /// A client that takes nothing of what is written for this long is gone: it would hold a backend's slot for ever.
    pub(super) fn with_unread_timeout(mut self, limit: Duration) -> Self {
        self.unread_timeout = Some(limit);
        self
    }

    /// Says so, once, and puts the stand-in behind the good bytes.
    fn refuse(&mut self, fault: Fault) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(peer = %self.peer, fault = fault.as_str(), "a request was refused: {}", fault.message());
        self.end = Some(End::Refused(fault));
        if !fault.in_body() {
            self.held.bytes.extend_from_slice(stand_in(fault).as_bytes());
        }
        self.held.good = self.held.bytes.len();
    }

    /// Reads into the caller's buffer, where nothing is held: all of it is good, but for a request that is not whole or
    /// is refused. Says whether there is something for the caller.
    fn poll_straight(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>>
    where
        IO: AsyncRead + Unpin,
    {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        let read = &out.filled()[before..];
        if read.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let good = match self.framing.push(read) {
            Ok(good) => {
                self.held.bytes.extend_from_slice(&read[good..]);
                good
            }
            Err(Ambiguous { what, at }) => {
                self.refuse(what);
                at
            }
        };
        out.set_filled(before + good);
        Poll::Ready(Ok(good > 0))
    }

    /// Reads what follows a request that is not whole.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        IO: AsyncRead + Unpin,
    {
        let before = self.held.bytes.len();
        self.held.bytes.resize(before + READ_BYTES, 0);
        let mut more = ReadBuf::new(&mut self.held.bytes[before..]);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut more).map_ok(|()| more.filled().len());
        self.held.bytes.truncate(before + if let Poll::Ready(Ok(read)) = read { read } else { 0 });
        if ready!(read)? == 0 {
            self.end = Some(End::Closed);
            self.held.good = before;
            return Poll::Ready(Ok(()));
        }
        match self.framing.push(&self.held.bytes) {
            Ok(good) => self.held.good = good,
            Err(Ambiguous { what, at }) => {
                self.held.bytes.truncate(at);
                self.refuse(what);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Held {
    /// Hands over what may be. Says whether there was something.
    fn hand_over(&mut self, out: &mut ReadBuf<'_>) -> bool {
        let ready = &self.bytes[self.given..self.good];
        let taken = ready.len().min(out.remaining());
        out.put_slice(&ready[..taken]);
        self.given += taken;
        if taken > 0 && self.given == self.good {
            // An idle connection keeps no buffer.
            *self = Self { bytes: self.bytes.split_off(self.good), given: 0, good: 0 };
        }
        taken > 0
    }
}

impl<IO: AsyncRead + Unpin> Guarded<IO> {
    fn poll_good(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if out.remaining() == 0 || self.held.hand_over(out) {
                return Poll::Ready(Ok(()));
            }
            match self.end {
                Some(End::Closed) => return Poll::Ready(Ok(())),
                Some(End::Refused(fault)) if fault.in_body() => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault.message())));
                }
                // Nobody is to be woken: hyper has the stand-in, answers it and closes.
                Some(End::Refused(_)) => return Poll::Pending,
                None if self.held.bytes.is_empty() => {
                    if ready!(self.poll_straight(cx, out))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                None => ready!(self.poll_more(cx))?,
            }
        }
    }

    /// Nothing came. Has the client's time for its head run out?
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let holds_a_part = self.end.is_none() && !self.held.bytes.is_empty();
        let Some(patience) = &mut self.patience else { return Poll::Pending };
        if patience.has_begun && !holds_a_part {
            return Poll::Pending;
        }
        let limit = patience.limit;
        let timer = patience.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the request's head took too long")))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Guarded<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = this.poll_good(cx, out);
        if polled.is_pending() {
            return this.poll_patience(cx);
        }
        if let Some(patience) = &mut this.patience {
            patience.timer = None;
            patience.has_begun = true;
        }
        polled
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.mind_unread(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.mind_unread(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        if let Some(End::Refused(_)) = self.end {
            self.discard(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO> Guarded<IO> {
    fn mind_unread(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.unread = None;
            return written;
        }
        let Some(limit) = self.unread_timeout else { return Poll::Pending };
        let timer = self.unread.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client has stopped reading")))
    }
}

impl<IO: AsyncRead + Unpin> Guarded<IO> {
    /// Throws away what the client has sent so far, without waiting for more.
    fn discard(&mut self, cx: &mut Context<'_>) {
        let mut scratch = [0; READ_BYTES];
        for _ in 0..MAX_DISCARDED_BYTES / READ_BYTES {
            let mut read = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                Poll::Ready(_) | Poll::Pending => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use bytes::Bytes;
    use http::{Response, StatusCode, Version};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const MAX_HEAD_BYTES: usize = 16_384;
    const GOOD: &str = "POST /good HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";

    /// A server whose service tells the body's length, and keeps what it was asked.
    struct Server {
        addr: SocketAddr,
        asked: Arc<Mutex<Vec<String>>>,
        refusals: Arc<AtomicU64>,
    }

    async fn server() -> Server {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = tcp.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let refusals = Arc::new(AtomicU64::new(0));
        let server = Server { addr, asked: asked.clone(), refusals: refusals.clone() };
        tokio::spawn(async move {
            while let Ok((stream, peer)) = tcp.accept().await {
                let guarded = TokioIo::new(Guarded::new(stream, peer, MAX_HEAD_BYTES, refusals.clone()));
                let asked = asked.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, asked.clone()));
                    let mut http = auto::Builder::new(TokioExecutor::new());
                    http.http1().max_buf_size(MAX_HEAD_BYTES);
                    let _ = http.serve_connection(guarded, service).await;
                });
            }
        });
        server
    }

    type Answer = Result<Response<Full<Bytes>>, Infallible>;

    async fn answer(request: Request<Incoming>, asked: Arc<Mutex<Vec<String>>>) -> Answer {
        let (status, said) = match refused(&request) {
            Some(Fault::HeadTooLarge | Fault::TooManyFields) => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too large".into())
            }
            Some(fault) => (StatusCode::BAD_REQUEST, fault.as_str().to_owned()),
            None => {
                let line = format!("{} {}", request.method(), request.uri());
                let version = request.version();
                match request.into_body().collect().await {
                    Ok(body) => {
                        let body = body.to_bytes();
                        let sum = body.iter().fold(0u64, |sum, &b| sum.wrapping_mul(31).wrapping_add(u64::from(b)));
                        asked.lock().unwrap().push(line.clone());
                        (StatusCode::OK, format!("[{line} {version:?} {} {sum:x}]", body.len()))
                    }
                    Err(_) => (StatusCode::BAD_REQUEST, "broken body".into()),
                }
            }
        };
        Ok(Response::builder().status(status).body(Full::from(said)).unwrap())
    }

    impl Server {
        /// Sends the bytes and reads to the connection's end, which comes without being asked for.
        async fn last_words(&self, bytes: impl AsRef<[u8]>) -> String {
            let mut tcp = TcpStream::connect(self.addr).await.unwrap();
            tcp.write_all(bytes.as_ref()).await.unwrap();
            let mut said = String::new();
            tcp.read_to_string(&mut said).await.unwrap();
            said
        }

        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut self.asked.lock().unwrap())
        }

        /// Refused alone, behind a good request, and byte by byte; with a body, and never seen by the service.
        async fn refuses(&self, bytes: &str, status: &str, said: &str) {
            let before = self.refusals.load(Ordering::Relaxed);
            let alone = self.last_words(bytes).await;
            assert!(alone.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes:?}: {alone}");
            assert!(alone.contains("connection: close\r\n") && alone.ends_with(said), "{bytes:?}: {alone}");
            assert_eq!(self.asked(), [""; 0], "{bytes:?}");
            let behind = self.last_words(format!("{GOOD}{bytes}{GOOD}")).await;
            assert_eq!(behind.matches("\r\ndate: ").count(), 2, "{bytes:?}: {behind}");
            assert!(behind.starts_with("HTTP/1.1 200 ") && behind.ends_with(said), "{bytes:?}: {behind}");
            assert_eq!(self.asked(), ["POST /good"], "{bytes:?}");
            assert_eq!(self.refusals.load(Ordering::Relaxed), before + 2);
        }
    }

    #[tokio::test]
    async fn ambiguous_requests_are_refused_and_never_reach_the_service() {
        let server = server().await;
        for (fields, said) in [
            ("content-length: 5\r\ntransfer-encoding: chunked\r\n", "both_lengths"),
            ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "both_lengths"),
            ("content-length: 5\r\ncontent-length: 5\r\n", "content_length_twice"),
            ("content-length: 5\r\ncontent-length: 6\r\n", "content_length_twice"),
            ("content-length: 5, 5\r\n", "content_length"),
            ("content-length : 5\r\n", "field_name"),
            ("transfer-encoding: chunked, identity\r\n", "transfer_encoding"),
            ("transfer-encoding: xchunked\r\n", "transfer_encoding"),
            ("x: y\r\n content-length: 5\r\n", "fold"),
            ("x: y\ncontent-length: 5\r\n", "line_end"),
            ("x: y\rcontent-length: 5\r\n", "line_end"),
            ("x: \0\r\n", "field_value"),
        ] {
            let request =
                format!("POST /bad HTTP/1.1\r\nhost: x\r\n{fields}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n");
            server.refuses(&request, "400", said).await;
        }
        server.refuses("GET /bad HTTP/1.1\nhost: x\n\n", "400", "line_end").await;
        server.refuses("GET /bad HTTP/9.9\r\nhost: x\r\n\r\n", "400", "version").await;
        server.refuses("complete nonsense\r\n\r\n", "400", "request_line").await;
        let long = format!("GET /bad HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2 * MAX_HEAD_BYTES));
        server.refuses(&long, "431", "too large").await;
        let many = format!("GET /bad HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101));
        server.refuses(&many, "431", "too large").await;
    }

    #[tokio::test]
    async fn what_a_refused_client_has_sent_is_thrown_away_before_the_connection_is_closed() {
        let (mut client, io) = tokio::io::duplex(100_000);
        let head = "POST /bad HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n";
        client.write_all((head.to_owned() + &"x".repeat(60_000)).as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut guarded = Guarded::new(io, ([127, 0, 0, 1], 1).into(), MAX_HEAD_BYTES, Arc::default());
        let mut out = [0; 1_024];
        let read = guarded.read(&mut out).await.unwrap();
        assert_eq!(&out[..read], stand_in(Fault::ContentLengthTwice).as_bytes());
        guarded.shutdown().await.unwrap();
        assert_eq!(guarded.io.read(&mut out).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_fault_inside_a_body_breaks_it_off() {
        let server = server().await;
        for body in
            ["zz\r\nhello\r\n0\r\n\r\n", "5\r\nhello!\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n", "0\r\nx : y\r\n\r\n"]
        {
            let request =
                format!("{GOOD}POST /bad HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n{body}{GOOD}");
            let said = server.last_words(request).await;
            assert!(said.starts_with("HTTP/1.1 200 "), "{body:?}: {said}");
            assert!(said.contains("HTTP/1.1 400 ") && said.ends_with("broken body"), "{body:?}: {said}");
            assert_eq!(server.asked(), ["POST /good"], "{body:?}");
        }
        assert_eq!(server.refusals.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn large_bodies_pass_intact() {
        let server = server().await;
        let body: String = (0..400_000u64).map(|i| char::from(b'a' + (i * i % 23) as u8)).collect();
        let sum = body.bytes().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(b)));
        let mut requests = format!("POST /a HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        requests += "POST /b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut rest = body.as_str();
        for size in (1..).step_by(977) {
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            requests += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
            rest = after;
            if chunk.is_empty() {
                break;
            }
        }
        requests += "POST /c HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let said = server.last_words(requests).await;
        for path in ["/a", "/b"] {
            assert!(said.contains(&format!("[POST {path} HTTP/1.1 {} {sum:x}]", body.len())), "{said}");
        }
        assert!(said.ends_with("[POST /c HTTP/1.1 0 0]"), "{said}");
        assert_eq!(server.refusals.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn http2_with_prior_knowledge_passes() {
        let server = server().await;
        let tcp = TcpStream::connect(server.addr).await.unwrap();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..3 {
            let request: Request<Full<Bytes>> =
                Request::post("http://x/h2").version(Version::HTTP_2).body(Full::from("hello".repeat(20_000))).unwrap();
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(body.starts_with(b"[POST http://x/h2 HTTP/2.0 100000 "), "{body:?}");
        }
    }

    /// Small pipes and small buffers cut the bytes everywhere.
    async fn through(bytes: &[u8], pipe_bytes: usize, out_bytes: usize) -> Vec<u8> {
        let (mut client, io): (DuplexStream, DuplexStream) = tokio::io::duplex(pipe_bytes);
        let mut guarded = Guarded::new(io, ([127, 0, 0, 1], 1).into(), MAX_HEAD_BYTES, Arc::default());
        let send = async {
            // Behind a fault nothing is read; the sender is left where it stands.
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            std::future::pending::<Vec<u8>>().await
        };
        let receive = async {
            let mut got = Vec::new();
            let mut out = vec![0; out_bytes];
            loop {
                match guarded.read(&mut out).await.unwrap() {
                    0 => return got,
                    n => got.extend_from_slice(&out[..n]),
                }
                if got.ends_with(stand_in(Fault::BothLengths).as_bytes()) {
                    return got;
                }
            }
        };
        tokio::select! {
            got = send => got,
            got = receive => got,
        }
    }

    #[tokio::test]
    async fn however_it_is_cut_what_passes_is_the_same() {
        let good =
            format!("{GOOD}POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\na: b\r\n\r\n{GOOD}");
        let unfinished = format!("{good}GET / HTTP/1.1\r\nhost");
        let bad = format!("{good}POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n");
        for pipe_bytes in [1, 2, 7, 24, 61, 4_096] {
            for out_bytes in [1, 3, 24, 8_192] {
                assert_eq!(through(good.as_bytes(), pipe_bytes, out_bytes).await, good.as_bytes());
                assert_eq!(through(unfinished.as_bytes(), pipe_bytes, out_bytes).await, unfinished.as_bytes());
                let expected = good.clone() + &stand_in(Fault::BothLengths);
                assert_eq!(through(bad.as_bytes(), pipe_bytes, out_bytes).await, expected.as_bytes());
            }
        }
    }

    #[test]
    fn a_stand_in_says_what_it_stands_for() {
        for fault in Fault::ALL {
            let line = stand_in(fault);
            let path = line.split(' ').nth(1).unwrap();
            assert_eq!(refused(&Request::builder().method(STAND_IN).uri(path).body(()).unwrap()), Some(fault));
            assert_eq!(refused(&Request::post(path).body(()).unwrap()), None);
        }
        assert_eq!(refused(&Request::builder().method(STAND_IN).uri("/other").body(()).unwrap()), None);
    }
}
