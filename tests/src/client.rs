//! Clients: one that speaks properly, and one that sends whatever bytes a test gives it.

use std::net::SocketAddr;
use std::sync::Once;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{PATIENCE, soon, within};

/// A request on its way to a proxy.
pub struct Request {
    builder: reqwest::RequestBuilder,
    patience: Duration,
}

impl Request {
    pub(crate) fn new(http: &reqwest::Client, method: Method, url: String) -> Self {
        Self { builder: http.request(method, url), patience: PATIENCE }
    }

    /// Adds a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.map(|b| b.header(name, value))
    }

    /// With a bearer token.
    pub fn bearer(self, key: &str) -> Self {
        self.map(|b| b.bearer_auth(key))
    }

    /// With this JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.map(|b| b.header("content-type", "application/json").body(body.to_string()))
    }

    /// With these bytes as body.
    pub fn body(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.map(|b| b.header("content-type", content_type).body(reqwest::Body::from(body.into())))
    }

    /// Waits so long for each thing that should happen, instead of [`PATIENCE`].
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    fn map(self, f: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> Self {
        Self { builder: f(self.builder), ..self }
    }

    /// Sends it and reads the whole answer.
    pub async fn send(self) -> Answer {
        let response = within(self.patience, "an answer", self.builder.send()).await.expect("the proxy answers");
        let (status, headers, version) = (response.status(), response.headers().clone(), response.version());
        let body = within(self.patience, "the whole answer", response.bytes()).await;
        Answer { status, headers, version, body: body.as_ref().cloned().unwrap_or_default(), broken: body.is_err() }
    }

    /// Sends it and gives the head and the events as they come.
    pub async fn stream(self) -> EventStream {
        let response = within(self.patience, "a response head", self.builder.send()).await.expect("the proxy answers");
        let (status, headers) = (response.status(), response.headers().clone());
        let chunks = response.bytes_stream().boxed();
        EventStream {
            status,
            headers,
            chunks,
            patience: self.patience,
            buffer: BytesMut::new(),
            ended: false,
            broken: false,
        }
    }

    /// Sends it and tells only whether anything came back.
    pub async fn try_send(self) -> Result<StatusCode, reqwest::Error> {
        self.builder.send().await.map(|r| r.status())
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The HTTP version it came in.
    pub version: http::Version,
    /// The body, as far as it came.
    pub body: Bytes,
    /// True if the connection broke inside the body.
    pub broken: bool,
}

impl Answer {
    /// A header's text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        text_of(&self.headers, name)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in {} {:?}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the text of a chat completion.
    pub fn says(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// One event of a stream, with the time it came.
#[derive(Clone, Debug)]
pub struct Event {
    /// Time of its last byte.
    pub at: Instant,
    /// The lines as they came, without the blank line.
    pub text: String,
}

impl Event {
    /// The data field; empty for a comment.
    pub fn data(&self) -> &str {
        self.text.lines().find_map(|l| l.strip_prefix("data:")).map(str::trim).unwrap_or_default()
    }

    /// The data field as JSON; null when it is not.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.data()).unwrap_or(Value::Null)
    }

    /// The text that a chat chunk adds.
    pub fn content(&self) -> String {
        self.json()["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
    }
}

/// The events of one answer.
pub struct EventStream {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    patience: Duration,
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    buffer: BytesMut,
    ended: bool,
    broken: bool,
}

impl EventStream {
    /// A header's text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        text_of(&self.headers, name)
    }

    /// The next event; none at the end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\n\n") {
                let text = String::from_utf8_lossy(&self.buffer.split_to(end + 2)[..end]).into_owned();
                return Some(Event { at: Instant::now(), text });
            }
            match within(self.patience, "the next event", self.chunks.next()).await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(_)) => {
                    self.broken = true;
                    return None;
                }
                None => {
                    self.ended = true;
                    return None;
                }
            }
        }
    }

    /// All events to the end.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// Returns the rest of the body as text, for an answer that is no stream.
    pub async fn text(&mut self) -> String {
        while let Some(Ok(chunk)) = within(self.patience, "the rest of the body", self.chunks.next()).await {
            self.buffer.extend_from_slice(&chunk);
        }
        String::from_utf8_lossy(&self.buffer.split()).into_owned()
    }

    /// Returns true if it ended with complete framing.
    pub fn ended_in_order(&self) -> bool {
        self.ended && !self.broken
    }
}

/// A connection over which a test writes its own HTTP.
pub struct RawConnection(TcpStream);

impl RawConnection {
    /// Connects.
    pub async fn open(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.expect("the proxy listens"))
    }

    /// Writes these bytes; a peer that hung up is no error here.
    pub async fn write(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.write_all(bytes).await.ok();
        self
    }

    /// Reads one whole answer with a content-length, or everything until the peer closes.
    pub async fn answer(&mut self) -> String {
        let mut got = Vec::new();
        let read = async {
            while !whole(&got) {
                if !matches!(self.0.read_buf(&mut got).await, Ok(n) if n > 0) {
                    break;
                }
            }
        };
        soon("a raw answer", read).await;
        String::from_utf8_lossy(&got).into_owned()
    }

    /// Reads until at least `n` bytes have come, and gives them.
    pub async fn read_at_least(&mut self, n: usize) -> Vec<u8> {
        let mut got = Vec::with_capacity(n);
        while got.len() < n {
            let read = soon("more bytes", self.0.read_buf(&mut got)).await;
            assert!(matches!(read, Ok(r) if r > 0), "the proxy closed after {} bytes", got.len());
        }
        got
    }

    /// Reads everything until the peer closes.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        soon("the end", self.0.read_to_end(&mut got)).await.ok();
        got
    }
}

fn whole(got: &[u8]) -> bool {
    let text = String::from_utf8_lossy(got).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:")).and_then(|v| v.trim().parse().ok());
    length.is_some_and(|n: usize| body.len() >= n)
}

/// A client without proxies, redirects or a time limit of its own.
pub(crate) fn http_client() -> reqwest::Client {
    built(plain())
}

/// The same, speaking HTTP/2 without being asked.
pub(crate) fn http2_client() -> reqwest::Client {
    built(plain().http2_prior_knowledge())
}

fn plain() -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().ok();
    });
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_idle_timeout(Duration::from_secs(60))
}

fn built(builder: reqwest::ClientBuilder) -> reqwest::Client {
    builder.build().expect("a plain client can be built")
}
