//! Connections in the task of whoever uses them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use pointsman_config::Outbound;
use tokio::runtime::Handle;

use super::{Answer, Connector, Origin, Reuse};

const CONNECT: Duration = Duration::from_secs(30);

/// An upstream on a thread of its own, so that every task of the runtime is one of ours.
struct Upstream {
    addr: SocketAddr,
    thread: JoinHandle<()>,
}

/// Serves so many connections, one after the other.
fn upstream(connections: usize, serve: impl Fn(TcpStream) + Send + 'static) -> Upstream {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            serve(stream);
        }
    });
    Upstream { addr, thread }
}

/// Reads a request with a body of 5 bytes; false at the end of the connection.
fn read_request(stream: &TcpStream) -> bool {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line).unwrap() {
            0 => return false,
            _ if line == "\r\n" => break,
            _ => {}
        }
    }
    reader.read_exact(&mut [0; 5]).is_ok()
}

fn origin(upstream: &Upstream) -> Origin {
    let uri = format!("http://{}", upstream.addr).parse().unwrap();
    Origin::new(&uri, &Outbound::default(), &Connector::with_native_roots(8)).unwrap()
}

async fn send(origin: &Origin) -> Answer {
    let request = Request::post("/v1/x").body(Full::new(Bytes::from_static(b"hello"))).unwrap();
    origin.send(request, CONNECT, Reuse::Kept, &AtomicBool::default()).await.unwrap()
}

/// Reads the answer to its end and gives its connection back.
async fn read(answer: Answer) -> Vec<u8> {
    let (mut body, mut lease) = (answer.response.into_body(), answer.lease);
    let mut read = Vec::new();
    while let Some(frame) = lease.frame(&mut body).await {
        read.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
    }
    lease.give_back();
    read
}

const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes";

#[tokio::test]
async fn a_connection_has_no_task_and_serves_one_request_after_the_other() {
    let up = upstream(1, |mut stream| {
        while read_request(&stream) {
            stream.write_all(WHOLE).unwrap();
        }
    });
    let origin = origin(&up);
    let alive = || Handle::current().metrics().num_alive_tasks();
    for n in 0..20 {
        let answer = send(&origin).await;
        // From the first on one task looks at those that are kept, if any is.
        assert!(alive() <= usize::from(n > 0));
        assert_eq!(read(answer).await, b"yes");
    }
    assert_eq!(alive(), 1);
    drop(origin);
    up.thread.join().unwrap();
}

#[tokio::test]
async fn an_event_wakes_its_reader_once() {
    const EVENTS: usize = 50;
    let (go, gate) = mpsc::channel::<()>();
    let up = upstream(1, move |mut stream| {
        assert!(read_request(&stream));
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        while gate.recv().is_ok() {
            stream.write_all(b"6\r\nevent\n\r\n").unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let Answer { response, mut lease } = send(&origin(&up)).await;
    let mut body = response.into_body();
    let mut polls = 0;
    for _ in 0..EVENTS {
        let mut is_asked_for = false;
        let frame = std::future::poll_fn(|cx| {
            polls += 1;
            let polled = lease.poll_frame(&mut body, cx);
            // Only now does it come, so that each is waited for.
            if !std::mem::replace(&mut is_asked_for, true) {
                assert!(polled.is_pending());
                go.send(()).unwrap();
            }
            polled
        });
        assert_eq!(frame.await.unwrap().unwrap().into_data().unwrap(), "event\n");
    }
    assert!(polls <= 2 * EVENTS + 2, "{polls} polls: asked for, and there");
    drop(go);
    assert!(lease.frame(&mut body).await.is_none());
    up.thread.join().unwrap();
}

#[tokio::test]
async fn a_kept_connection_that_its_upstream_closes_is_closed_and_another_is_made() {
    let (closed, seen) = mpsc::channel();
    let up = upstream(2, move |mut stream| {
        assert!(read_request(&stream));
        stream.write_all(WHOLE).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "it is closed, and nothing more is sent on it");
        closed.send(()).unwrap();
    });
    let origin = origin(&up);
    for _ in 0..2 {
        assert_eq!(read(send(&origin).await).await, b"yes");
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while seen.try_recv().is_err() {
            ticks.tick().await;
        }
    }
    up.thread.join().unwrap();
}

#[tokio::test]
async fn an_answer_that_is_abandoned_closes_its_connection_at_once() {
    let up = upstream(1, |mut stream| {
        assert!(read_request(&stream));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nbegun").unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    });
    let answer = send(&origin(&up)).await;
    drop(answer);
    // Nothing is polled any more.
    up.thread.join().unwrap();
}

#[tokio::test]
async fn a_large_request_is_written_while_its_head_is_waited_for() {
    const LENGTH: usize = 8 << 20;
    let up = upstream(1, |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        std::io::copy(&mut reader.take(LENGTH as u64), &mut std::io::sink()).unwrap();
        stream.write_all(WHOLE).unwrap();
    });
    let request = Request::post("/v1/x").body(Full::new(Bytes::from(vec![b'x'; LENGTH]))).unwrap();
    let answer = origin(&up).send(request, CONNECT, Reuse::Kept, &AtomicBool::default()).await.unwrap();
    assert_eq!(read(answer).await, b"yes");
    up.thread.join().unwrap();
}
