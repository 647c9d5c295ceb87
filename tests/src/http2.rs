//! An HTTP/2 client that takes of its answers only what a test wants it to.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Request, StatusCode};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::soon;

/// A connection whose streams take `window` bytes each, and more when told to.
pub struct Narrow {
    sender: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

impl Narrow {
    /// Connects.
    pub async fn open(addr: SocketAddr, window: u32) -> Self {
        let tcp = TcpStream::connect(addr).await.expect("the proxy listens");
        let mut http = h2::client::Builder::new();
        let (sender, connection) =
            http.initial_window_size(window).handshake::<_, Bytes>(tcp).await.expect("it speaks HTTP/2");
        let connection = tokio::spawn(async move {
            connection.await.ok();
        });
        Self { sender, connection }
    }

    /// Asks for this path, and waits for the head of the answer.
    pub async fn get(&mut self, path: &str) -> (StatusCode, NarrowStream) {
        let request = Request::get(format!("http://localhost{path}")).body(()).expect("a request");
        let mut sender = soon("room for a stream", self.sender.clone().ready()).await.expect("the connection is there");
        let (answer, _) = sender.send_request(request, true).expect("a request can be sent");
        let answer = soon("the answer's head", answer).await.expect("an answer");
        (answer.status(), NarrowStream(answer.into_body()))
    }

    /// Asks for a streamed chat, and waits for the head of the answer.
    pub async fn chat_stream(&mut self) -> NarrowStream {
        let question = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true});
        let request = Request::post("http://proxy/v1/chat/completions").header("content-type", "application/json");
        let request = request.body(()).expect("a request");
        let mut sender = soon("room for a stream", self.sender.clone().ready()).await.expect("the connection is there");
        let (answer, mut body) = sender.send_request(request, false).expect("a request can be sent");
        body.send_data(question.to_string().into(), true).expect("its body too");
        let answer = soon("the answer's head", answer).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        NarrowStream(answer.into_body())
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// One answer.
pub struct NarrowStream(RecvStream);

impl NarrowStream {
    /// Returns the number of bytes that were sent without the client asking for more, and the reset by the proxy;
    /// `None`: it ended in order.
    pub async fn untaken(mut self) -> (usize, Option<Reason>) {
        let mut came = 0;
        loop {
            match soon("the end of the stream", self.0.data()).await {
                Some(Ok(piece)) => came += piece.len(),
                Some(Err(error)) => return (came, Some(error.reason().expect("the stream was reset"))),
                None => return (came, None),
            }
        }
    }

    /// All of it, taken as it comes; what broke it off, if something did.
    pub async fn taken(mut self) -> (String, Option<h2::Error>) {
        let mut text = Vec::new();
        loop {
            match soon("the next piece", self.0.data()).await {
                Some(Ok(piece)) => {
                    text.extend_from_slice(&piece);
                    self.0.flow_control().release_capacity(piece.len()).expect("it was taken");
                }
                Some(Err(error)) => return (String::from_utf8_lossy(&text).into_owned(), Some(error)),
                None => return (String::from_utf8_lossy(&text).into_owned(), None),
            }
        }
    }
}
