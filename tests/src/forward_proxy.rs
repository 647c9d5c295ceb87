//! A forward proxy on a loopback port, of HTTP and of SOCKS5, which remembers every byte that it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A listening forward proxy: it opens tunnels, and answers any other request itself with a chat completion. Dropped, it
/// stops.
pub struct ForwardProxy {
    addr: SocketAddr,
    seen: Arc<Mutex<Received>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Received {
    /// The head of each request to the proxy itself.
    heads: Vec<String>,
    /// All bytes that went to it, those in tunnels included.
    bytes: Vec<u8>,
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl ForwardProxy {
    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The URL of the SOCKS5 proxy that it also is.
    pub fn socks_url(&self, login: &str) -> String {
        format!("socks5://{login}{}{}", if login.is_empty() { "" } else { "@" }, self.addr)
    }

    /// Its URL with a user and a password in it.
    pub fn url_with_login(&self, login: &str) -> String {
        format!("http://{login}@{}", self.addr)
    }

    /// The heads of the requests to the proxy itself.
    pub fn heads(&self) -> Vec<String> {
        self.seen.lock().expect("no test panics with the log in hand").heads.clone()
    }

    /// Returns true if these words went to it, be it in a tunnel.
    pub fn has_seen(&self, words: &str) -> bool {
        let seen = self.seen.lock().expect("no test panics with the log in hand");
        seen.bytes.windows(words.len()).any(|window| window == words.as_bytes())
    }
}

/// Starts a forward proxy that answers CONNECT with this status; 200 opens the tunnel.
pub async fn forward_proxy(connect_status: u16) -> ForwardProxy {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port is free");
    let addr = listener.local_addr().expect("a listener has an address");
    let seen = Arc::<Mutex<Received>>::default();
    let log = seen.clone();
    let server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            connections.spawn(converse(socket, connect_status, log.clone()));
        }
    });
    ForwardProxy { addr, seen, server }
}

async fn converse(mut client: TcpStream, connect_status: u16, log: Arc<Mutex<Received>>) {
    let mut first = [0];
    if matches!(client.peek(&mut first).await, Ok(1)) && first[0] == 5 {
        let _ = converse_socks(client, connect_status, log).await;
        return;
    }
    loop {
        let mut input = Vec::new();
        let end = loop {
            if let Some(at) = input.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !matches!(client.read_buf(&mut input).await, Ok(n) if n > 0) {
                return;
            }
        };
        let head = String::from_utf8_lossy(&input[..end]).into_owned();
        {
            let mut seen = log.lock().expect("no test panics with the log in hand");
            seen.heads.push(head.clone());
            seen.bytes.extend_from_slice(&input);
        }
        let Some(target) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            while input.len() < end + length.unwrap_or(0) {
                if !matches!(client.read_buf(&mut input).await, Ok(n) if n > 0) {
                    return;
                }
            }
            if client.write_all(&whole_answer()).await.is_err() {
                return;
            }
            continue;
        };
        let status = format!("HTTP/1.1 {connect_status} Told\r\nx-by: the proxy\r\n\r\n");
        if client.write_all(status.as_bytes()).await.is_err() || connect_status != 200 {
            return;
        }
        let Ok(server) = TcpStream::connect(target.replace("localhost", "127.0.0.1")).await else { return };
        return relay(client, server, log).await;
    }
}

/// Opens a tunnel by SOCKS5 for a 200; refuses it by its rules for any other status. A login that is offered is asked for. The
/// head that is remembered is `SOCKS5 LOGIN HOST:PORT`.
async fn converse_socks(mut client: TcpStream, status: u16, log: Arc<Mutex<Received>>) -> std::io::Result<()> {
    let mut count = [0; 2];
    client.read_exact(&mut count).await?;
    let mut methods = vec![0; count[1].into()];
    client.read_exact(&mut methods).await?;
    let mut login = String::new();
    if methods.contains(&2) {
        client.write_all(&[5, 2]).await?;
        client.read_u8().await?;
        let user = text(&mut client).await?;
        login = format!("{user}:{}", text(&mut client).await?);
        client.write_all(&[1, 0]).await?;
    } else {
        client.write_all(&[5, 0]).await?;
    }
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    let host = match request[3] {
        1 => std::net::Ipv4Addr::from(client.read_u32().await?).to_string(),
        3 => text(&mut client).await?,
        kind => format!("an address of kind {kind}"),
    };
    let target = format!("{host}:{}", client.read_u16().await?);
    {
        let mut seen = log.lock().expect("no test panics with the log in hand");
        seen.heads.push(format!("SOCKS5 {login} {target}"));
    }
    let code = if status == 200 { 0 } else { 2 };
    client.write_all(&[5, code, 0, 1, 127, 0, 0, 1, 0, 0]).await?;
    if status == 200 {
        relay(client, TcpStream::connect(target.replace("localhost", "127.0.0.1")).await?, log).await;
    }
    Ok(())
}

/// A text behind a byte with its length.
async fn text(client: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn whole_answer() -> Vec<u8> {
    let crate::reply::Step::Send(body) = crate::chat("by way of the proxy").body.remove(0) else {
        unreachable!("a chat reply is one piece")
    };
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len())
            .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

async fn relay(client: TcpStream, server: TcpStream, log: Arc<Mutex<Received>>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let mut piece = Vec::new();
        while matches!(from_client.read_buf(&mut piece).await, Ok(n) if n > 0) {
            log.lock().expect("no test panics with the log in hand").bytes.extend_from_slice(&piece);
            if to_server.write_all(&piece).await.is_err() {
                break;
            }
            piece.clear();
        }
    };
    let down = async { tokio::io::copy(&mut from_server, &mut to_client).await.ok() };
    tokio::select! {
        () = up => {}
        _ = down => {}
    }
}
