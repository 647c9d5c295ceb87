//! A scripted provider on a loopback port. It speaks HTTP/1.1 by hand, so that it can also speak it wrongly, and
//! remembers everything it saw.

mod conversation;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use conversation::serve;

use crate::reply::{Reply, chat};
use crate::soon;

type Script = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

/// A request as it came off the wire.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Time of its last byte.
    pub at: Instant,
    /// Number of the connection, counted from 0.
    pub connection: usize,
    /// `GET`, ...
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case, in the order of the wire.
    pub headers: Vec<(String, String)>,
    /// The body, unchunked.
    pub body: Bytes,
}

impl Seen {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the upstream was sent JSON")
    }

    fn asks_usage(&self) -> bool {
        serde_json::from_slice::<serde_json::Value>(&self.body)
            .is_ok_and(|v| v["stream_options"]["include_usage"] == true)
    }
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    connections: usize,
    hung_up: usize,
    answered: usize,
    open: usize,
    peak: usize,
    sent_bytes: u64,
}

struct Log {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Log {
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().expect("no test panics with the log in hand"));
        self.changed.send_replace(());
        result
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().expect("no test panics with the log in hand"))
    }
}

/// Describes a provider.
#[derive(Default)]
pub struct UpstreamBuilder {
    replies: Vec<Reply>,
    handler: Option<Box<Script>>,
}

/// Starts describing a provider; without a script it answers every request with a chat completion.
pub fn upstream() -> UpstreamBuilder {
    UpstreamBuilder::default()
}

impl UpstreamBuilder {
    /// The next answer; the last one given is repeated for ever.
    pub fn reply(mut self, reply: Reply) -> Self {
        self.replies.push(reply);
        self
    }

    /// The answer after that.
    pub fn then(self, reply: Reply) -> Self {
        self.reply(reply)
    }

    /// Answers by a function of the request and its number (from 0) instead.
    pub fn handler(mut self, handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        self.handler = Some(Box::new(handler));
        self
    }

    /// Begins to listen.
    pub async fn start(self) -> Upstream {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port is free");
        let addr = listener.local_addr().expect("a listener has an address");
        let log = Arc::new(Log { state: Mutex::default(), changed: watch::Sender::new(()) });
        let script: Arc<Script> = match self.handler {
            Some(handler) => handler.into(),
            None => Arc::new(scripted(self.replies)),
        };
        let server = tokio::spawn(serve(listener, script, log.clone()));
        Upstream { addr, log, server }
    }
}

fn scripted(mut replies: Vec<Reply>) -> impl Fn(&Seen, usize) -> Reply {
    if replies.is_empty() {
        replies.push(chat("hello"));
    }
    move |_, i| replies[i.min(replies.len() - 1)].clone()
}

/// A provider that is listening; dropped, it stops.
pub struct Upstream {
    addr: SocketAddr,
    log: Arc<Log>,
    server: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Upstream {
    /// Returns the address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its base URL, with the version prefix providers have.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Everything it saw so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.log.read(|s| s.seen.clone())
    }

    /// Returns the number of requests so far.
    pub fn count(&self) -> usize {
        self.log.read(|s| s.seen.len())
    }

    /// The one request it saw.
    ///
    /// # Panics
    /// When it saw none or several.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "the upstream saw {} requests", seen.len());
        seen.into_iter().next().expect("there is one")
    }

    /// Returns the number of connections that were opened.
    pub fn connections(&self) -> usize {
        self.log.read(|s| s.connections)
    }

    /// Returns the number of peers that disconnected before their answer was complete.
    pub fn hung_up(&self) -> usize {
        self.log.read(|s| s.hung_up)
    }

    /// Returns the number of requests under way.
    pub fn open(&self) -> usize {
        self.log.read(|s| s.open)
    }

    /// The most requests that were in hand at the same time.
    pub fn peak(&self) -> usize {
        self.log.read(|s| s.peak)
    }

    /// Body bytes that were handed to the socket.
    pub fn sent_bytes(&self) -> u64 {
        self.log.read(|s| s.sent_bytes)
    }

    /// Waits until `n` requests have been seen.
    pub async fn wait_seen(&self, n: usize) {
        self.wait(&format!("{n} requests"), |s| s.seen.len() >= n).await;
    }

    /// Waits until `n` peers went away before their answer was whole.
    pub async fn wait_hung_up(&self, n: usize) {
        self.wait(&format!("{n} peers gone"), |s| s.hung_up >= n).await;
    }

    /// Waits until `n` answers have been sent whole.
    pub async fn wait_answered(&self, n: usize) {
        self.wait(&format!("{n} answers"), |s| s.answered >= n).await;
    }

    /// Waits until no byte has been accepted from this upstream for `quiet`, and tells how many were.
    pub async fn wait_stuck(&self, quiet: Duration) -> u64 {
        let mut changed = self.log.changed.subscribe();
        while let Ok(Ok(())) = tokio::time::timeout(quiet, changed.changed()).await {}
        self.sent_bytes()
    }

    async fn wait(&self, what: &str, done: impl Fn(&State) -> bool) {
        let mut changed = self.log.changed.subscribe();
        let reached = async {
            while !self.log.read(&done) {
                changed.changed().await.expect("the log lives as long as the upstream");
            }
        };
        soon(what, reached).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Request, http_client};
    use crate::reply::{Gate, raw, silence, status, tokens};

    fn post(up: &Upstream) -> Request {
        let url = format!("{}/chat/completions", up.url());
        Request::new(&http_client(), http::Method::POST, url).json(&serde_json::json!({"model": "m"}))
    }

    #[tokio::test]
    async fn the_script_is_followed_and_its_last_answer_repeated() {
        let up = upstream().reply(status(429).retry_after(2)).then(chat("hi")).start().await;
        let refused = post(&up).send().await;
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "2"));
        assert_eq!(post(&up).send().await.says(), "hi");
        assert_eq!(post(&up).send().await.says(), "hi");
        let seen = up.seen();
        assert_eq!((seen.len(), seen[0].target.as_str()), (3, "/v1/chat/completions"));
        assert_eq!(seen[0].json()["model"], "m");
    }

    #[tokio::test]
    async fn a_gate_holds_each_event_back() {
        let gate = Gate::new();
        let up = upstream().reply(tokens(3).gated(&gate)).start().await;
        gate.pass(1);
        let mut stream = post(&up).stream().await;
        assert_eq!(stream.next().await.unwrap().content(), "t0 ");
        gate.pass(1);
        assert_eq!(stream.next().await.unwrap().content(), "t1 ");
        gate.open();
        assert_eq!(stream.rest().await.last().unwrap().data(), "[DONE]");
        assert!(stream.ended_in_order());
    }

    #[tokio::test]
    async fn cuts_stalls_and_ends_are_seen_by_the_peer() {
        for reply in [tokens(5).cut_after(2), tokens(5).end_after(2), chat("x").end_after(0)] {
            let up = upstream().reply(reply).start().await;
            let mut stream = post(&up).stream().await;
            assert!(stream.rest().await.len() <= 2);
            assert!(!stream.ended_in_order());
        }
        let up = upstream().reply(raw("garbage\r\n\r\n")).start().await;
        assert!(post(&up).try_send().await.is_err());
        let up = upstream().reply(chat("").reset_before_head()).start().await;
        assert!(post(&up).try_send().await.is_err());
    }

    #[tokio::test]
    async fn a_peer_that_goes_away_is_noticed() {
        let up = upstream().reply(silence()).start().await;
        let request = tokio::spawn(post(&up).try_send());
        up.wait_seen(1).await;
        assert_eq!((up.hung_up(), up.open()), (0, 1));
        request.abort();
        up.wait_hung_up(1).await;
        assert_eq!(up.open(), 0);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_noticed() {
        let piece = vec![b'x'; 1 << 20];
        let mut reply = crate::bytes("text/plain", piece.clone());
        for _ in 0..100 {
            reply = reply.and_bytes(piece.clone());
        }
        let up = upstream().reply(reply).start().await;
        let mut peer = crate::RawConnection::open(up.addr()).await;
        peer.write(b"GET /x HTTP/1.1\r\n\r\n").await.read_at_least(1).await;
        let stuck = up.wait_stuck(Duration::from_millis(200)).await;
        assert!(stuck < 50 << 20, "{stuck}");
        assert!(peer.read_at_least(101 << 20).await.len() >= 101 << 20);
    }
}
