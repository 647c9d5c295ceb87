//! A provider that costs next to nothing: fixed answers, one write each, in the load generator's own thread.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Timing of a stream's events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Content events of a stream, each its own write.
    pub events: usize,
    /// Time between two of them.
    pub gap: Duration,
}

/// Starts the provider on this thread's local set; a request whose body holds `"stream":true` gets a stream.
pub(crate) async fn start(pace: Pace) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let addr = listener.local_addr()?;
    tokio::task::spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).ok();
            tokio::task::spawn_local(converse(socket, pace));
        }
    });
    Ok(addr)
}

async fn converse(mut socket: TcpStream, pace: Pace) -> Option<()> {
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
        let streaming = memchr::memmem::find(&input[head..head + length], b"\"stream\":true").is_some();
        input.drain(..head + length);
        if streaming {
            stream(&mut socket, pace).await?;
        } else {
            socket.write_all(&whole).await.ok()?;
        }
    }
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
    let event = chunk(
        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\
         \"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n",
    );
    let mut ticks = tokio::time::interval(pace.gap.max(Duration::from_millis(1)));
    for _ in 0..pace.events {
        ticks.tick().await;
        socket.write_all(&event).await.ok()?;
    }
    socket.write_all(&[chunk("data: [DONE]\n\n"), b"0\r\n\r\n".to_vec()].concat()).await.ok()
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}
