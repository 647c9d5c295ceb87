//! A provider that costs next to nothing: fixed answers, one write each, in the load generator's own thread.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Timing of a stream's events, which its request names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The word for it in the request.
    pub name: &'static str,
    /// Content events of a stream, each its own write.
    pub events: usize,
    /// Time between two of them.
    pub gap: Duration,
}

/// Events that come one by one, so slowly that a thousand streams are no load.
pub(crate) const PACED: Pace = Pace { name: "paced", events: 30, gap: Duration::from_millis(100) };
/// Events without a pause.
pub(crate) const UNPACED: Pace = Pace { name: "unpaced", events: 500, gap: Duration::ZERO };
/// A stream that is held while memory is measured.
pub(crate) const LONG: Pace = Pace { name: "long", events: 600, gap: Duration::from_millis(500) };

const PACES: [Pace; 3] = [PACED, UNPACED, LONG];

/// The moment from which times in events count.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time in an event, ns; none in any other piece of a stream.
pub(crate) fn sent_ns(event: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(event, TIME.as_bytes())? + TIME.len();
    let digits = event[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&event[at..at + digits]).ok()?.parse().ok()
}

/// The time now, as events tell it, ns.
pub(crate) fn now_ns() -> u64 {
    BEGAN.elapsed().as_nanos() as u64
}

const TIME: &str = "\"sent_ns\":";

/// Starts the provider on this thread's local set; a request whose body names a pace gets a stream.
pub(crate) async fn start() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let addr = listener.local_addr()?;
    tokio::task::spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).ok();
            tokio::task::spawn_local(converse(socket));
        }
    });
    Ok(addr)
}

async fn converse(mut socket: TcpStream) -> Option<()> {
    let whole = whole_answer();
    let mut input = Vec::with_capacity(8 << 10);
    loop {
        let (head, length) = loop {
            if let Some(found) = crate::wire::message(&input) {
                break found;
            }
            read(&mut socket, &mut input).await?;
        };
        while input.len() < head + length {
            read(&mut socket, &mut input).await?;
        }
        let pace = pace(&input[head..head + length]);
        input.drain(..head + length);
        match pace {
            Some(pace) => stream(&mut socket, pace).await?,
            None => socket.write_all(&whole).await.ok()?,
        }
    }
}

/// The pace that a request names near its beginning.
fn pace(body: &[u8]) -> Option<Pace> {
    let beginning = &body[..body.len().min(100)];
    PACES.into_iter().find(|pace| {
        let word = format!("\"user\":\"{}\"", pace.name);
        memchr::memmem::find(beginning, word.as_bytes()).is_some()
    })
}

async fn read(socket: &mut TcpStream, input: &mut Vec<u8>) -> Option<()> {
    match socket.read_buf(input).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}

/// A chat completion of 1 KiB.
fn whole_answer() -> Vec<u8> {
    let frame = |text: &str| {
        format!(
            "{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"m\",\"choices\":\
             [{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}],\
             \"usage\":{{\"prompt_tokens\":200,\"completion_tokens\":180,\"total_tokens\":380}}}}"
        )
    };
    let body = frame(&"w".repeat(1_024 - frame("").len()));
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    (head + &body).into_bytes()
}

async fn stream(socket: &mut TcpStream, pace: Pace) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await.ok()?;
    let mut ticks = (!pace.gap.is_zero()).then(|| tokio::time::interval(pace.gap));
    for _ in 0..pace.events {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let event = chunk(&format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",{TIME}{},\
             \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" token\"}},\"finish_reason\":null}}]}}\n\n",
            now_ns()
        ));
        socket.write_all(&event).await.ok()?;
    }
    let last = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\
                \"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    socket.write_all(&[chunk(last), chunk("data: [DONE]\n\n"), b"0\r\n\r\n".to_vec()].concat()).await.ok()
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}
