//! The response body: what was held back, then the rest as it comes, with backpressure; and the settling at its end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pointsman_core::exchange::Ended;
use pointsman_core::outcome::Outcome;
use pointsman_core::wire::envelope::{self, Envelope, ErrorKind};
use tokio::time::Instant;

use super::attempt::Begun;
use super::live::{Live, client_gone};
use super::source::{Source, Step};

/// The body of every response that the proxy gives.
pub enum ProxyBody {
    /// Here as a whole.
    Whole(Option<Bytes>),
    /// To come.
    Relay(Box<Relay>),
}

/// The answer broke after its first byte had gone out; the client must see that it is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's answer broke: {0}")]
pub struct Broken(String);

/// A committed answer on its way.
pub struct Relay {
    live: Live,
    source: Source,
    held: Bytes,
    first_byte: Duration,
    first_token: Option<Duration>,
    started: Instant,
    status: u16,
    last_words: LastWords,
}

/// How a broken answer is ended: the error event goes out, then the connection is torn down.
enum LastWords {
    NotYet,
    /// The server is given a turn to write what it has, before the body fails.
    Flush(String),
    Fail(String),
    Over,
}

impl ProxyBody {
    /// A body that is here as a whole.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        ProxyBody::Whole(Some(bytes.into()))
    }
}

impl Relay {
    /// Relays what was held back, then the rest.
    pub fn new(live: Live, begun: Begun, status: u16) -> Self {
        let Begun { source, held, first_byte, first_token, started } = begun;
        Self { live, source, held, first_byte, first_token, started, status, last_words: LastWords::NotYet }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if !self.held.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.held))));
        }
        match std::mem::replace(&mut self.last_words, LastWords::Over) {
            LastWords::NotYet => {}
            LastWords::Flush(text) => {
                self.last_words = LastWords::Fail(text);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            LastWords::Fail(text) => return Poll::Ready(Some(Err(Broken(text)))),
            LastWords::Over => return Poll::Ready(None),
        }
        let step = match self.source.poll_step(cx) {
            Poll::Ready(step) => step,
            Poll::Pending => {
                self.last_words = LastWords::NotYet;
                return Poll::Pending;
            }
        };
        if self.first_token.is_none() && self.source.content_events() > 0 {
            self.first_token = Some(self.started.elapsed());
        }
        Poll::Ready(match step {
            Step::Bytes(bytes) => {
                if self.source.has_ended() {
                    self.settle(Outcome::answered(self.status));
                } else {
                    self.last_words = LastWords::NotYet;
                }
                Some(Ok(bytes))
            }
            Step::End => {
                self.settle(Outcome::answered(self.status));
                None
            }
            Step::Failed(bytes, outcome) => Some(self.broke(bytes, outcome)),
        })
    }

    /// The client is told in-band where there is a way to, and in any case by the end of the connection.
    fn broke(&mut self, bytes: Bytes, outcome: Outcome) -> Result<Bytes, Broken> {
        let text = outcome.message.clone();
        let event = self.source.is_events().then(|| {
            let asked = self.live.asked();
            let message = format!("The answer broke off: {text}");
            let error = Envelope {
                kind: ErrorKind::StreamBroken,
                kind_override: None,
                message: &message,
                request_id: &asked.id,
            };
            error.stream_event(envelope::dialect_of(asked.operation), asked.operation)
        });
        self.settle(outcome);
        self.live.broke();
        match event {
            Some(event) => {
                self.last_words = LastWords::Flush(text);
                Ok([&bytes[..], &event[..]].concat().into())
            }
            None => Err(Broken(text)),
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        let usage = self.source.usage(self.live.asked().prompt_tokens);
        let (first_byte, first_token) = (Some(self.first_byte), self.first_token);
        self.live.relayed(Ended { outcome, usage, first_byte, first_token });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !self.live.is_done() {
            let usage = self.source.usage(self.live.asked().prompt_tokens);
            self.live.relayed(client_gone(usage, Some(self.first_byte), self.first_token));
        }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            ProxyBody::Whole(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            ProxyBody::Relay(relay) => relay.poll(cx).map(|step| step.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ProxyBody::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            ProxyBody::Relay(relay) => relay.held.is_empty() && matches!(relay.last_words, LastWords::Over),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ProxyBody::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            ProxyBody::Relay(_) => SizeHint::default(),
        }
    }
}
