//! The provider's side of a connection: requests and scripted answers in turn.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Log, Script, Seen};
use crate::reply::{Framing, Reply, Step};

pub(super) async fn serve(listener: TcpListener, script: Arc<Script>, log: Arc<Log>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        socket.set_nodelay(true).ok();
        let id = log.update(|s| {
            s.connections += 1;
            s.connections - 1
        });
        connections.spawn(converse(socket, id, script.clone(), log.clone()));
    }
}

/// One connection: requests and answers in turn.
async fn converse(mut socket: TcpStream, connection: usize, script: Arc<Script>, log: Arc<Log>) {
    let mut input = BytesMut::new();
    while let Some(seen) = read_request(&mut socket, &mut input, connection).await {
        let number = log.update(|s| {
            s.seen.push(seen.clone());
            s.open += 1;
            s.peak = s.peak.max(s.open);
            s.seen.len() - 1
        });
        let reply = script(&seen, number);
        let end = answer(&mut socket, &mut input, &seen, reply, &log).await;
        log.update(|s| {
            s.open -= 1;
            match end {
                Ended::Whole => s.answered += 1,
                Ended::Broken => {}
                Ended::PeerGone => s.hung_up += 1,
            }
        });
        if end != Ended::Whole {
            return;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Whole,
    Broken,
    PeerGone,
}

async fn answer(socket: &mut TcpStream, input: &mut BytesMut, seen: &Seen, reply: Reply, log: &Log) -> Ended {
    let head = head_of(&reply);
    for step in &reply.before {
        if let Some(end) = perform(socket, input, step, Framing::Raw, seen, log).await {
            return end;
        }
    }
    if socket.write_all(head.as_bytes()).await.is_err() {
        return Ended::PeerGone;
    }
    for step in &reply.body {
        if let Some(end) = perform(socket, input, step, reply.framing, seen, log).await {
            return end;
        }
    }
    if reply.framing == Framing::Chunked && socket.write_all(b"0\r\n\r\n").await.is_err() {
        return Ended::PeerGone;
    }
    Ended::Whole
}

fn head_of(reply: &Reply) -> String {
    let mut head = String::new();
    if reply.framing == Framing::Raw {
        return head;
    }
    let reason = http::StatusCode::from_u16(reply.status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Odd");
    head.push_str(&format!("HTTP/1.1 {} {reason}\r\n", reply.status));
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let told = reply.headers.iter().any(|(n, _)| n == "content-length");
    match reply.framing {
        Framing::Length if !told => head.push_str(&format!("content-length: {}\r\n", reply.length())),
        Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
        Framing::Length | Framing::Raw => {}
    }
    head.push_str("\r\n");
    head
}

/// Performs one step; returns the end of the answer when this step ends it.
async fn perform(
    socket: &mut TcpStream,
    input: &mut BytesMut,
    step: &Step,
    framing: Framing,
    seen: &Seen,
    log: &Log,
) -> Option<Ended> {
    match step {
        Step::Send(bytes) => send(socket, bytes, framing, log).await,
        Step::SendIfUsageAsked(bytes) if seen.asks_usage() => send(socket, bytes, framing, log).await,
        Step::SendIfUsageAsked(_) => None,
        Step::Pause(pause) => unless_gone(socket, input, tokio::time::sleep(*pause)).await,
        Step::Await(gate) => unless_gone(socket, input, gate.await_pass()).await,
        Step::Hold => unless_gone(socket, input, std::future::pending()).await,
        Step::Fin => {
            socket.shutdown().await.ok();
            Some(Ended::Broken)
        }
        Step::Reset => {
            socket.set_zero_linger().ok();
            Some(Ended::Broken)
        }
    }
}

async fn send(socket: &mut TcpStream, bytes: &Bytes, framing: Framing, log: &Log) -> Option<Ended> {
    let wire = match framing {
        Framing::Chunked => {
            let mut chunk = BytesMut::from(format!("{:x}\r\n", bytes.len()).as_bytes());
            chunk.extend_from_slice(bytes);
            chunk.extend_from_slice(b"\r\n");
            chunk.freeze()
        }
        Framing::Length | Framing::Raw => bytes.clone(),
    };
    let mut rest = wire;
    while rest.has_remaining() {
        match socket.write(&rest).await {
            Ok(n) => {
                rest.advance(n);
                log.update(|s| s.sent_bytes += n as u64);
            }
            Err(_) => return Some(Ended::PeerGone),
        }
    }
    None
}

/// Waits for `until`, watching meanwhile whether the peer goes away.
async fn unless_gone(socket: &mut TcpStream, input: &mut BytesMut, until: impl Future<Output = ()>) -> Option<Ended> {
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => return None,
            read = socket.read_buf(input) => match read {
                Ok(0) | Err(_) => return Some(Ended::PeerGone),
                Ok(_) => {}
            },
        }
    }
}

async fn read_request(socket: &mut TcpStream, input: &mut BytesMut, connection: usize) -> Option<Seen> {
    let end = loop {
        if let Some(at) = input.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        fill(socket, input).await?;
    };
    let head = String::from_utf8_lossy(&input.split_to(end + 4)[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    let mut seen = Seen { at: Instant::now(), connection, method, target, headers, body: Bytes::new() };
    seen.body = read_body(socket, input, &seen).await?;
    seen.at = Instant::now();
    Some(seen)
}

async fn read_body(socket: &mut TcpStream, input: &mut BytesMut, seen: &Seen) -> Option<Bytes> {
    if let Some(length) = seen.header("content-length") {
        return take(socket, input, length.parse().ok()?).await;
    }
    if seen.header("transfer-encoding").is_none() {
        return Some(Bytes::new());
    }
    let mut body = BytesMut::new();
    loop {
        let line_end = loop {
            if let Some(at) = input.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            fill(socket, input).await?;
        };
        let line = input.split_to(line_end + 2);
        let size = usize::from_str_radix(std::str::from_utf8(&line[..line_end]).ok()?.trim(), 16).ok()?;
        let chunk = take(socket, input, size + 2).await?;
        if size == 0 {
            return Some(body.freeze());
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

async fn take(socket: &mut TcpStream, input: &mut BytesMut, n: usize) -> Option<Bytes> {
    while input.len() < n {
        fill(socket, input).await?;
    }
    Some(input.split_to(n).freeze())
}

async fn fill(socket: &mut TcpStream, input: &mut BytesMut) -> Option<()> {
    match socket.read_buf(input).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}
