//! Load over kept connections: as fast as answers come, at a fixed rate whatever the answers do, and as streams.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::upstream::{self, LONG, Pace};

/// The key that requests carry.
pub(crate) const CLIENT_KEY: &str = "bench-client-key";

/// Length of the usual body, bytes.
pub(crate) const BODY: usize = 1_024;

/// A chat request with a body of this length; with a pace it asks for a stream.
pub(crate) fn request(pace: Option<Pace>, length: usize) -> Vec<u8> {
    let streaming = pace.is_some();
    let user = pace.map_or("nobody", |pace| pace.name);
    let frame = |text: &str| {
        format!(
            "{{\"model\":\"m\",\"user\":\"{user}\",\"stream\":{streaming},\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}"
        )
    };
    let text: String = "words of a prompt ".chars().cycle().take(length - frame("").len()).collect();
    let body = frame(&text);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {CLIENT_KEY}\r\nuser-agent: bench/1\r\n\
         accept: application/json\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

/// One kept connection.
struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
}

impl Connection {
    async fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(addr).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, input: Vec::with_capacity(16 << 10) })
    }

    /// Sends the request and reads the whole answer, which must be a 200.
    async fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.socket.write_all(request).await?;
        self.input.clear();
        while !self.is_whole()? {
            self.read().await?;
        }
        Ok(())
    }

    /// Sends the request and reads the stream that answers it, event by event.
    async fn stream(&mut self, request: &[u8]) -> anyhow::Result<Streamed> {
        let (began, mut streamed) = (Instant::now(), Streamed::new()?);
        self.socket.write_all(request).await?;
        self.input.clear();
        let mut read = 0;
        while !self.is_whole()? {
            self.read().await?;
            let now = upstream::now_ns();
            while let Some(end) = memchr::memmem::find(&self.input[read..], b"\n\n") {
                if let Some(sent) = upstream::sent_ns(&self.input[read..read + end]) {
                    if streamed.events == 0 {
                        streamed.first.saturating_record(began.elapsed().as_nanos() as u64);
                    }
                    streamed.events += 1;
                    streamed.transit.saturating_record(now.saturating_sub(sent));
                }
                read += end + 2;
            }
        }
        Ok(streamed)
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        if self.socket.read_buf(&mut self.input).await? == 0 {
            bail!("the proxy hung up after {:?}", String::from_utf8_lossy(&self.input));
        }
        Ok(())
    }

    fn is_whole(&self) -> anyhow::Result<bool> {
        let Some((head, _)) = crate::wire::message(&self.input) else { return Ok(false) };
        if !self.input.starts_with(b"HTTP/1.1 200") {
            bail!("not a 200: {}", String::from_utf8_lossy(&self.input));
        }
        Ok(match crate::wire::content_length(&self.input[..head]) {
            Some(length) => self.input.len() >= head + length,
            None => self.input.ends_with(b"0\r\n\r\n"),
        })
    }
}

/// Result of a run with fixed work.
pub(crate) struct Throughput {
    /// Requests answered.
    pub requests: u64,
    /// Duration of the run.
    pub elapsed: Duration,
}

/// `connections` clients, each asking with a body of this length again as soon as it is answered.
pub(crate) async fn closed(
    addr: SocketAddr,
    connections: usize,
    body: usize,
    length: Duration,
) -> anyhow::Result<Throughput> {
    let request = Rc::new(request(None, body));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let request = request.clone();
        clients.spawn_local(async move {
            let mut connection = Connection::open(addr).await?;
            let mut answered = 0;
            while began.elapsed() < length {
                connection.ask(&request).await?;
                answered += 1;
            }
            anyhow::Ok(answered)
        });
    }
    let mut requests = 0;
    while let Some(answered) = clients.join_next().await {
        requests += answered??;
    }
    Ok(Throughput { requests, elapsed: began.elapsed() })
}

/// `per_second` requests, each begun at its time whether or not others are answered; latencies in nanoseconds count
/// from the time a request should have been sent, so a stalled proxy cannot hide what it delays.
pub(crate) async fn open(addr: SocketAddr, per_second: u32, length: Duration) -> anyhow::Result<Histogram<u64>> {
    const CONNECTIONS: usize = 64;
    let request = Rc::new(request(None, BODY));
    let due = Rc::new(RefCell::new(VecDeque::new()));
    let (wake, over) = (Rc::new(Notify::new()), Rc::new(Cell::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(addr).await?;
        connection.ask(&request).await?;
        let (request, due, wake, over) = (request.clone(), due.clone(), wake.clone(), over.clone());
        clients.spawn_local(async move {
            let mut latencies = Histogram::<u64>::new_with_bounds(100, 60_000_000_000, 3)?;
            loop {
                let next: Option<Instant> = due.borrow_mut().pop_front();
                match next {
                    Some(at) => {
                        connection.ask(&request).await?;
                        latencies.saturating_record(at.elapsed().as_nanos() as u64);
                    }
                    None if over.get() => return anyhow::Ok(latencies),
                    None => wake.notified().await,
                }
            }
        });
    }
    let gap = Duration::from_secs(1) / per_second;
    let (began, mut next) = (Instant::now(), Instant::now());
    while began.elapsed() < length {
        // Timers are a millisecond coarse: this thread has its core for itself and looks at the clock instead.
        tokio::task::yield_now().await;
        while next <= Instant::now() {
            due.borrow_mut().push_back(next);
            wake.notify_one();
            next += gap;
        }
    }
    over.set(true);
    wake.notify_waiters();
    let mut all = Histogram::<u64>::new_with_bounds(100, 60_000_000_000, 3)?;
    while let Some(latencies) = clients.join_next().await {
        wake.notify_waiters();
        all.add(latencies??).context("histograms have the same bounds")?;
    }
    Ok(all)
}

/// Times of streams, in nanoseconds.
pub(crate) struct Streamed {
    /// Content events that came.
    pub events: u64,
    /// From the request to the first event.
    pub first: Histogram<u64>,
    /// From an event's writing to its reading.
    pub transit: Histogram<u64>,
}

impl Streamed {
    fn new() -> anyhow::Result<Self> {
        let times = || Histogram::<u64>::new_with_bounds(100, 60_000_000_000, 3);
        Ok(Self { events: 0, first: times()?, transit: times()? })
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.events += other.events;
        self.first.add(&other.first)?;
        self.transit.add(&other.transit)?;
        Ok(())
    }
}

/// `count` streams at a time, read to their end.
pub(crate) async fn streams(addr: SocketAddr, count: usize, pace: Pace) -> anyhow::Result<Streamed> {
    let request = Rc::new(request(Some(pace), BODY));
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let request = request.clone();
        clients.spawn_local(async move { Connection::open(addr).await?.stream(&request).await });
    }
    let mut all = Streamed::new()?;
    while let Some(done) = clients.join_next().await {
        all.add(&done??)?;
    }
    Ok(all)
}

/// Opens `count` streams, and keeps them all once each has had its first event, until `meanwhile` is done.
pub(crate) async fn held<T>(addr: SocketAddr, count: usize, meanwhile: impl FnOnce() -> T) -> anyhow::Result<T> {
    let request = request(Some(LONG), BODY);
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = Connection::open(addr).await?;
        connection.socket.write_all(&request).await?;
        open.push(connection);
    }
    for connection in &mut open {
        while memchr::memmem::find(&connection.input, b"data: ").is_none() {
            connection.read().await?;
        }
    }
    Ok(meanwhile())
}

/// Opens `count` connections, has one request answered on each, and keeps them until `meanwhile` is done.
pub(crate) async fn idle<T>(addr: SocketAddr, count: usize, meanwhile: impl FnOnce() -> T) -> anyhow::Result<T> {
    let request = request(None, BODY);
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = Connection::open(addr).await?;
        connection.ask(&request).await?;
        open.push(connection);
    }
    Ok(meanwhile())
}
