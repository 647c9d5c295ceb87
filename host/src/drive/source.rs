//! The body of an upstream's answer, read step by step: bytes that may go on, a failure, or the end.
//!
//! Streams are read by the event (`drive/events.rs`); everything else goes on as it comes.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pointsman_core::contract::Operation;
use pointsman_core::dialect::resume::Joiner;
use pointsman_core::dialect::usage::BodyTap;
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::record::Usage;
use pointsman_core::table::Dialect;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::events::Events;
use super::foreign::Rewriter;
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

/// How long an upstream may take to end a response whose last event has been read, or to say more after the model has
/// said why it stopped.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How a body is read.
#[derive(Debug)]
enum Reading {
    /// A stream of events.
    Events(Box<Events>),
    /// JSON, or anything else that has no parts.
    Whole(BodyTap),
}

/// A body being read, its time limits, and the connection it comes on.
pub struct Source {
    body: Option<Incoming>,
    lease: Option<Lease>,
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
    /// The dialect it is read in: the backend's, or the client's where it is translated.
    pub dialect: Dialect,
    /// What was asked.
    pub operation: Operation,
    /// Is it a stream of events whose end is known? Else its bytes are passed on as they come.
    pub events: bool,
    /// Keep the usage chunk from the client, who did not ask for it.
    pub hide_usage: bool,
    /// Keeps in mind what is delivered, and joins it to what was.
    pub joiner: Option<Joiner>,
    /// Translates its events.
    pub rewriter: Option<Rewriter>,
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
        let Expected { dialect, operation, events, hide_usage, joiner, rewriter, idle, total_at, cut } = expected;
        let reading = if events {
            Reading::Events(Box::new(Events::new(dialect, operation, hide_usage, joiner, rewriter)))
        } else {
            Reading::Whole(BodyTap::new(dialect))
        };
        let last = Instant::now();
        Self {
            body: Some(body),
            lease: Some(lease),
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
                Poll::Pending => return self.poll_timer(cx).map(|outcome| self.broke(outcome)),
            };
            self.last = Instant::now();
            let step = match frame {
                None => self.at_end(),
                // An upstream that never pauses never lets the timer look.
                Some(Ok(_)) if self.last >= self.total_at => Some(self.broke(too_long())),
                Some(Err(error)) => Some(self.broke(broken(&error))),
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
                return Poll::Ready(too_long());
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
            Reading::Events(events) => {
                let was_finished = events.finished();
                let step = events.take(data);
                if events.finished() && !was_finished {
                    // The answer is whole; for the formalities nobody waits as long as for a model that thinks.
                    self.idle = self.idle.min(END_PATIENCE);
                    self.timer = None;
                }
                step
            }
        }
    }

    /// The body broke off or fell silent. An answer that is whole but for its last formality is whole.
    fn broke(&mut self, outcome: Outcome) -> Step {
        match &mut self.reading {
            Reading::Events(events) if events.finished() && is_break(outcome.kind) => {
                let step = events.end();
                (self.body, self.lease, self.ended) = (None, None, true);
                step
            }
            Reading::Events(_) | Reading::Whole(_) => Step::Failed(Bytes::new(), outcome),
        }
    }

    fn at_end(&mut self) -> Option<Step> {
        if self.ended {
            return Some(Step::End);
        }
        let step = match &mut self.reading {
            Reading::Whole(_) => Step::End,
            Reading::Events(events) => events.end(),
        };
        self.end();
        Some(step)
    }

    /// The stream's last event has been read. What may still come is only how HTTP ends it.
    fn has_said_all(&self) -> bool {
        match &self.reading {
            Reading::Events(events) => events.has_said_all(),
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
            Reading::Events(events) => events.content_events(),
            Reading::Whole(_) => 0,
        }
    }

    /// Has the model of a stream said why it stopped? (It may be an answer without any content.)
    pub fn finished(&self) -> bool {
        match &self.reading {
            Reading::Events(events) => events.finished(),
            Reading::Whole(_) => self.ended,
        }
    }

    /// Is it read by the event?
    pub fn is_events(&self) -> bool {
        matches!(self.reading, Reading::Events(_))
    }

    /// What was delivered of the stream, and how it joins what was delivered before.
    pub fn joiner(&self) -> Option<&Joiner> {
        match &self.reading {
            Reading::Events(events) => events.joiner(),
            Reading::Whole(_) => None,
        }
    }

    /// What was used so far.
    pub fn usage(&self, prompt_tokens: u32) -> Usage {
        match &self.reading {
            Reading::Events(events) => events.usage(prompt_tokens),
            Reading::Whole(tap) => tap.usage().unwrap_or_default(),
        }
    }
}

/// Did the connection, the upstream or its time give way, rather than say what is wrong?
fn is_break(kind: Kind) -> bool {
    matches!(kind, Kind::Cut | Kind::Stalled | Kind::Malformed | Kind::TimedOut)
}

fn too_long() -> Outcome {
    Outcome::new(Kind::TimedOut, "the attempt took longer than its total time limit")
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
