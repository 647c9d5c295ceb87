//! The body of an upstream's answer, read step by step: bytes that may go on, a failure, or the end.
//!
//! Streams are read by the event: only whole events go on, so that the usage chunk nobody asked for can be left out and
//! an error event is seen before it is relayed. Everything else goes on as it comes.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pointsman_core::contract::Operation;
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::record::Usage;
use pointsman_core::table::Dialect;
use pointsman_core::wire::classify::classify_event;
use pointsman_core::wire::sse;
use pointsman_core::wire::usage::{BodyTap, Sight, StreamTap};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::upstream::Lease;

/// One step of a body.
#[derive(Debug)]
pub enum Step {
    /// These bytes may go on.
    Bytes(Bytes),
    /// These last bytes may go on, then this happened.
    Failed(Bytes, Outcome),
    /// It ended as it should.
    End,
}

/// How long an upstream may take to end a response whose last event has been read.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How a body is read.
#[derive(Debug)]
enum Reading {
    /// A stream of events.
    Events { reader: sse::Reader, tap: StreamTap, hide_usage: bool },
    /// JSON, or anything else that has no parts.
    Whole(BodyTap),
}

/// A body being read, its time limits, and the connection it comes on.
pub struct Source {
    body: Option<Incoming>,
    lease: Option<Lease>,
    dialect: Dialect,
    reading: Reading,
    ended: bool,
    idle: Duration,
    total_at: Instant,
    last: Instant,
    /// Made when there is first something to wait for; most whole answers are there at once.
    timer: Option<Pin<Box<Sleep>>>,
    cut: CancellationToken,
    cutting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// What a source is told about the answer it reads.
pub struct Expected {
    /// The backend's dialect.
    pub dialect: Dialect,
    /// What was asked.
    pub operation: Operation,
    /// Is it a stream of events whose end is known? Else its bytes are passed on as they come.
    pub events: bool,
    /// Keep the usage chunk from the client, who did not ask for it.
    pub hide_usage: bool,
    /// The longest silence.
    pub idle: Duration,
    /// When the whole attempt must be over.
    pub total_at: Instant,
    /// The process ends, and what is under way with it.
    pub cut: CancellationToken,
}

impl Source {
    /// Begins to read.
    pub fn new(body: Incoming, lease: Lease, expected: Expected) -> Self {
        let Expected { dialect, operation, events, hide_usage, idle, total_at, cut } = expected;
        let reading = if events {
            let tap = StreamTap::new(dialect, operation);
            Reading::Events { reader: sse::Reader::default(), tap, hide_usage }
        } else {
            Reading::Whole(BodyTap::new(dialect))
        };
        let last = Instant::now();
        Self {
            body: Some(body),
            lease: Some(lease),
            dialect,
            reading,
            ended: false,
            idle,
            total_at,
            last,
            timer: None,
            cut,
            cutting: None,
        }
    }

    /// The next step. After [`Step::Failed`] and [`Step::End`] there is none.
    pub fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(Step::End) };
            let frame = match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending if self.has_said_all() => {
                    self.end_without_waiting();
                    return Poll::Ready(Step::End);
                }
                Poll::Pending => return self.poll_timer(cx).map(|o| Step::Failed(Bytes::new(), o)),
            };
            self.last = Instant::now();
            let step = match frame {
                None => self.at_end(),
                Some(Err(error)) => Some(Step::Failed(Bytes::new(), broken(&error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.take(data),
                    // Trailers say nothing that a client of an LLM API reads, and HTTP/1.1 seldom carries them.
                    Err(_) => None,
                },
            };
            if let Some(step) = step {
                return Poll::Ready(step);
            }
        }
    }

    /// The next step, as a future.
    pub async fn step(&mut self) -> Step {
        std::future::poll_fn(|cx| self.poll_step(cx)).await
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let cut = &self.cut;
        let cutting = self.cutting.get_or_insert_with(|| Box::pin(cut.clone().cancelled_owned()));
        if cutting.as_mut().poll(cx).is_ready() {
            // Nobody's fault: no backend is to suffer for it.
            return Poll::Ready(Outcome::new(Kind::ClientGone, "Pointsman is shutting down"));
        }
        let first = self.total_at.min(self.last + self.idle);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first)));
        loop {
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.total_at {
                return Poll::Ready(Outcome::new(Kind::TimedOut, "the attempt took longer than its total time limit"));
            }
            if now >= self.last + self.idle {
                let silence = format!("the stream was silent for {:?} (timeouts.idle_ms)", self.idle);
                return Poll::Ready(Outcome::new(Kind::Stalled, silence));
            }
            // Bytes came since it was set; setting it anew for each of them would cost more.
            let next = self.total_at.min(self.last + self.idle);
            timer.as_mut().reset(next);
        }
    }

    fn take(&mut self, data: Bytes) -> Option<Step> {
        match &mut self.reading {
            Reading::Whole(tap) => {
                tap.push(&data);
                if self.body.as_ref().is_some_and(Incoming::is_end_stream) {
                    self.end();
                }
                (!data.is_empty()).then_some(Step::Bytes(data))
            }
            Reading::Events { reader, tap, hide_usage } => {
                reader.push(data);
                events(reader, tap, *hide_usage, self.dialect)
            }
        }
    }

    fn at_end(&mut self) -> Option<Step> {
        if self.ended {
            return Some(Step::End);
        }
        let step = match &mut self.reading {
            Reading::Whole(_) => Step::End,
            Reading::Events { reader, tap, .. } => end_of_events(reader, tap, self.dialect),
        };
        self.end();
        Some(step)
    }

    /// The stream's last event has been read. What may still come is only how HTTP ends it.
    fn has_said_all(&self) -> bool {
        match &self.reading {
            Reading::Events { tap, .. } => tap.ended_well() && tap.has_end(),
            Reading::Whole(_) => false,
        }
    }

    /// The client need not wait for an upstream that forgets to end its response. The connection is kept if it does.
    fn end_without_waiting(&mut self) {
        self.ended = true;
        if let (Some(mut body), Some(lease)) = (self.body.take(), self.lease.take()) {
            tokio::spawn(tokio::time::timeout(END_PATIENCE, async move {
                // Bytes behind the last event are nobody's.
                while let Some(Ok(_)) = body.frame().await {}
                if body.is_end_stream() {
                    lease.give_back();
                }
            }));
        }
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// Has the body, which is not read by the event, ended with the bytes read so far? A server does not ask for
    /// more once the announced length is out, so the end must be seen with the last bytes.
    pub fn has_ended(&self) -> bool {
        self.ended && !self.is_events()
    }

    /// Content events so far; 0 for what is not a stream.
    pub fn content_events(&self) -> u64 {
        match &self.reading {
            Reading::Events { tap, .. } => tap.content_events(),
            Reading::Whole(_) => 0,
        }
    }

    /// Has the model of a stream said why it stopped? (It may be an answer without any content.)
    pub fn finished(&self) -> bool {
        match &self.reading {
            Reading::Events { tap, .. } => tap.finished(),
            Reading::Whole(_) => self.ended,
        }
    }

    /// Is it read by the event?
    pub fn is_events(&self) -> bool {
        matches!(self.reading, Reading::Events { .. })
    }

    /// What was used so far.
    pub fn usage(&self, prompt_tokens: u32) -> Usage {
        match &self.reading {
            Reading::Events { tap, .. } => tap.usage(prompt_tokens),
            Reading::Whole(tap) => tap.usage().unwrap_or_default(),
        }
    }
}

/// Looks at every whole event; answers their bytes, less what the client must not see.
fn events(reader: &mut sse::Reader, tap: &mut StreamTap, hide_usage: bool, dialect: Dialect) -> Option<Step> {
    let mut kept: Option<BytesMut> = None;
    loop {
        let event = match reader.next_event() {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(too_long) => {
                return Some(Step::Failed(
                    joined(kept, reader.take()),
                    Outcome::new(Kind::Malformed, too_long.to_string()),
                ));
            }
        };
        match tap.see(&event) {
            Sight::Error => {
                let outcome = classify_event(dialect, &event)
                    .unwrap_or_else(|| Outcome::new(Kind::ServerError, "the upstream sent an error inside its stream"));
                return Some(Step::Failed(joined(kept, reader.take_before_last()), outcome));
            }
            Sight::UsageOnly if hide_usage => {
                kept.get_or_insert_default().extend_from_slice(&reader.take_without_last());
            }
            Sight::UsageOnly | Sight::Content | Sight::Finish | Sight::Done | Sight::Other => {}
        }
    }
    let bytes = joined(kept, reader.take());
    (!bytes.is_empty()).then_some(Step::Bytes(bytes))
}

fn joined(kept: Option<BytesMut>, rest: Bytes) -> Bytes {
    match kept {
        None => rest,
        Some(mut kept) => {
            kept.extend_from_slice(&rest);
            kept.freeze()
        }
    }
}

/// The upstream closed the body in good order. Was the answer whole? What the dialect needs to end is added where the
/// model had finished; a stream that ends before that was cut, however politely.
fn end_of_events(reader: &mut sse::Reader, tap: &mut StreamTap, dialect: Dialect) -> Step {
    let mut last = BytesMut::new();
    if let Ok(Some(event)) = reader.finish() {
        if tap.see(&event) == Sight::Error {
            let outcome = classify_event(dialect, &event);
            let unknown = || Outcome::new(Kind::ServerError, "the upstream ended its stream with an error");
            return Step::Failed(Bytes::new(), outcome.unwrap_or_else(unknown));
        }
        if tap.finished() || tap.ended_well() {
            last.extend_from_slice(event.raw.trim_ascii_end());
            last.extend_from_slice(b"\n\n");
        }
    }
    if !tap.ended_well() {
        if !tap.finished() {
            let cut = "the upstream ended the stream before the answer was complete";
            return Step::Failed(Bytes::new(), Outcome::new(Kind::Cut, cut));
        }
        last.extend_from_slice(tap.missing_end());
    }
    if last.is_empty() { Step::End } else { Step::Bytes(last.freeze()) }
}

fn broken(error: &hyper::Error) -> Outcome {
    let text = crate::upstream::causes(error);
    // A chunk that is none comes as an error of the reader, not of the parser.
    let nonsense = |e: &io::Error| matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
    let from_io = error.source().and_then(|e| e.downcast_ref::<io::Error>());
    if error.is_parse() || from_io.is_some_and(nonsense) {
        Outcome::new(Kind::Malformed, format!("the upstream's body is not valid HTTP: {text}"))
    } else {
        Outcome::new(Kind::Cut, format!("the connection broke inside the answer: {text}"))
    }
}
