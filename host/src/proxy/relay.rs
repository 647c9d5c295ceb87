//! The response body: what was held back, then the rest as it comes, with backpressure; it settles the exchange at its end.
//!
//! A stream that breaks is resumed here: the exchange runs on, comments keep the client's connection alive meanwhile,
//! and the new part of another answer follows. Where it cannot be, the dialect's own error event ends the stream, and the
//! body ends in order after it: a torn connection would hide the event from many clients. A body that is no stream of
//! events has no place for an error, and is torn.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pointsman_core::attempt::{Input, Output};
use pointsman_core::dialect::envelope::{ErrorKind, Opened};
use pointsman_core::exchange::{Action, Ended};
use pointsman_core::http::headers::has_content_type;
use pointsman_core::outcome::Kind;
use pointsman_core::time::Timestamp;
use tokio::time::Sleep;

use super::attempt::UpstreamAttempt;
use super::event_stream::{StreamError, in_band};
use super::exchange::{ExchangeResponse, run_until_response};
use super::in_flight::InFlight;
use super::refusal::words_of;
use super::request::ProxyRequest;
use super::served_by::ServedBy;

/// The body of every response that the proxy gives.
pub enum ProxyBody {
    /// A body that is complete.
    Whole(Option<Bytes>),
    /// A body that is relayed as it comes.
    Relay(Box<Relay>),
}

/// An answer that broke after its first byte went out; the client must see that it is incomplete.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's answer broke: {0}")]
pub struct Broken(String);

/// A committed answer that is relayed, or the wait for one by a client that has its head.
pub struct Relay {
    state: State,
    /// The bytes that go out next.
    held: Bytes,
    request: Arc<ProxyRequest>,
    /// Time between two comments to a waiting client.
    keepalive: Option<Duration>,
    comment: Option<Pin<Box<Sleep>>>,
    /// Names and numbers of the stream that the client has.
    opened: Opened,
}

enum State {
    /// The exchange runs until there is a response.
    Underway(Pin<Box<dyn Future<Output = (Box<InFlight>, ExchangeResponse)> + Send>>),
    /// A committed answer is relayed.
    Flowing(Box<Flow>),
    Over,
}

/// A committed answer.
struct Flow {
    in_flight: Box<InFlight>,
    attempt: Box<UpstreamAttempt>,
}

/// The comment sent to a client that waits; a line that begins with a colon means nothing (WHATWG, server-sent events).
const COMMENT: Bytes = Bytes::from_static(b": pointsman is waiting for an answer\n\n");

impl ProxyBody {
    /// A complete body.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        ProxyBody::Whole(Some(bytes.into()))
    }
}

impl Relay {
    /// Relays what was held back, then the rest.
    pub fn flowing(
        in_flight: Box<InFlight>,
        held: Bytes,
        attempt: Box<UpstreamAttempt>,
        keepalive: Option<Duration>,
    ) -> Self {
        let request = in_flight.request().clone();
        let opened = Opened::default();
        let mut relay = Self { state: State::Over, held: Bytes::new(), request, keepalive, comment: None, opened };
        relay.flow(in_flight, held, attempt);
        relay
    }

    /// Sends comments until there is an answer.
    pub fn waiting(
        running: Pin<Box<impl Future<Output = (Box<InFlight>, ExchangeResponse)> + Send + 'static>>,
        keepalive: Duration,
        request: Arc<ProxyRequest>,
    ) -> Self {
        let (state, keepalive, opened) = (State::Underway(running), Some(keepalive), Opened::default());
        Self { state, held: COMMENT, request, keepalive, comment: None, opened }
    }

    fn flow(&mut self, mut in_flight: Box<InFlight>, held: Bytes, attempt: Box<UpstreamAttempt>) {
        in_flight.learns(&held);
        in_flight.answers(&held, attempt.machine().delivers_events());
        self.push(held);
        self.state = State::Flowing(Box::new(Flow { in_flight, attempt }));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            if !self.held.is_empty() {
                return Poll::Ready(Some(Ok(std::mem::take(&mut self.held))));
            }
            match std::mem::replace(&mut self.state, State::Over) {
                State::Underway(mut running) => match running.as_mut().poll(cx) {
                    Poll::Ready((in_flight, response)) => self.arrived(in_flight, response),
                    Poll::Pending => {
                        self.state = State::Underway(running);
                        ready!(self.poll_comment(cx));
                        self.held = COMMENT;
                    }
                },
                State::Flowing(mut flow) => match flow.attempt.poll_output(&mut flow.in_flight, cx) {
                    Poll::Ready(output) => self.flowed(flow, output)?,
                    Poll::Pending => {
                        self.state = State::Flowing(flow);
                        return Poll::Pending;
                    }
                },
                State::Over => return Poll::Ready(None),
            }
        }
    }

    /// Ready when the next comment is due.
    fn poll_comment(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(every) = self.keepalive else { return Poll::Pending };
        let timer = self.comment.get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
        ready!(timer.as_mut().poll(cx));
        timer.as_mut().reset(crate::timer::now() + every);
        Poll::Ready(())
    }

    /// Handles an output of the committed attempt.
    fn flowed(&mut self, mut flow: Box<Flow>, output: Output) -> Result<(), Broken> {
        let (bytes, ended) = match output {
            Output::Deliver(bytes) | Output::Commit(bytes) => (bytes, None),
            Output::Ended(bytes, ended) | Output::Whole(bytes, ended) => (bytes, Some(ended)),
            Output::Wait | Output::SendAgain => (Bytes::new(), None),
        };
        flow.in_flight.learns(&bytes);
        if ended.is_some() {
            flow.in_flight.repaired(flow.attempt.machine().repairs());
        }
        flow.in_flight.answers(&bytes, flow.attempt.machine().delivers_events());
        self.held = bytes;
        match ended {
            None => self.state = State::Flowing(flow),
            Some(ended) if ended.outcome.kind == Kind::Answered => flow.in_flight.relayed(ended),
            Some(ended) => return self.broke(*flow, ended),
        }
        Ok(())
    }

    /// Resumes a committed answer that broke off; else ends it with an error event, where the body is a stream of events, and
    /// aborts the connection where it is none.
    fn broke(&mut self, flow: Flow, ended: Ended) -> Result<(), Broken> {
        let Flow { mut in_flight, attempt } = flow;
        let text = ended.outcome.message.clone();
        self.opened.go_on(attempt.machine().opened());
        let now = in_flight.proxy().clock.now();
        let told = attempt.machine().transcript().cloned();
        let action = match told {
            Some(_) => in_flight.broke_off(ended),
            None => {
                in_flight.relayed(ended);
                in_flight.broke();
                return self.send_broken_event(attempt.machine().delivers_events(), text, now);
            }
        };
        match action {
            Action::Finish(_) => {
                in_flight.broke();
                self.send_broken_event(attempt.machine().delivers_events(), text, now)
            }
            action => {
                self.comment = None;
                self.state = State::Underway(Box::pin(run_until_response(in_flight, action, told)));
                Ok(())
            }
        }
    }

    fn send_broken_event(&mut self, has_events: bool, text: String, now: Timestamp) -> Result<(), Broken> {
        if !has_events {
            return Err(Broken(text));
        }
        let message = format!("The answer broke off: {text}");
        let error = StreamError { kind: ErrorKind::StreamBroken, kind_override: None, message: &message };
        self.push(in_band(&self.request, &error, &self.opened, now));
        Ok(())
    }

    fn push(&mut self, bytes: Bytes) {
        self.held = if self.held.is_empty() { bytes } else { [&self.held[..], &bytes[..]].concat().into() };
    }

    /// Handles the exchange's response: one that goes on in this body, or an error event.
    fn arrived(&mut self, mut in_flight: Box<InFlight>, response: ExchangeResponse) {
        self.comment = None;
        match response {
            ExchangeResponse::Streaming(served_by, _, held, attempt) if attempt.machine().delivers_events() => {
                self.announce_backend(&in_flight, &served_by);
                self.flow(in_flight, held, attempt);
            }
            ExchangeResponse::Whole(served_by, head, body) if has_content_type(&head.headers, "text/event-stream") => {
                self.announce_backend(&in_flight, &served_by);
                self.push(body);
            }
            ExchangeResponse::Streaming(served_by, ..) | ExchangeResponse::Whole(served_by, ..) => {
                let text = format!("{} did not answer with a stream", served_by.backend);
                self.send_error_event(&mut in_flight, ErrorKind::StreamBroken, None, &text);
            }
            ExchangeResponse::Refusal(_) => {
                let last = in_flight.exchange().attempts().last();
                let (kind, text) = last.map_or((ErrorKind::InvalidRequest, String::new()), |last| {
                    (ErrorKind::of_refusal(last.outcome), last.message.clone())
                });
                self.send_error_event(&mut in_flight, kind, None, &text);
            }
            ExchangeResponse::Error(why) => {
                let (kind, _, own_kind) = words_of(&why.reason);
                self.send_error_event(&mut in_flight, kind, own_kind, &why.message);
            }
            ExchangeResponse::Nothing if in_flight.proxy().cut.is_cancelled() => {
                self.send_error_event(&mut in_flight, ErrorKind::ShuttingDown, None, "Pointsman is shutting down");
            }
            ExchangeResponse::Nothing => {
                self.send_error_event(
                    &mut in_flight,
                    ErrorKind::Internal,
                    None,
                    "Pointsman lost track of this exchange",
                );
            }
        }
    }

    /// Names the backend in a comment, since the head is out already.
    fn announce_backend(&mut self, in_flight: &InFlight, served_by: &ServedBy) {
        let verb = if in_flight.exchange().is_resuming() { "resumed" } else { "answered" };
        self.push(format!(": pointsman {verb} by {}\n\n", served_by.backend).into());
    }

    fn send_error_event(&mut self, in_flight: &mut InFlight, kind: ErrorKind, own_kind: Option<&str>, text: &str) {
        let now = in_flight.proxy().clock.now();
        let broken = format!("The answer broke off, and could not be resumed: {text}");
        let error = if in_flight.exchange().is_resuming() {
            StreamError { kind: ErrorKind::StreamBroken, kind_override: None, message: &broken }
        } else {
            StreamError { kind, kind_override: own_kind, message: text }
        };
        let event = in_band(&self.request, &error, &self.opened, now);
        in_flight.error_event_sent(text);
        self.push(event);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let State::Flowing(flow) = &mut self.state
            && let Output::Ended(_, ended) = flow.attempt.step(Input::ClientGone)
        {
            flow.in_flight.relayed(ended);
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
            ProxyBody::Relay(relay) => relay.held.is_empty() && matches!(relay.state, State::Over),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ProxyBody::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            ProxyBody::Relay(_) => SizeHint::default(),
        }
    }
}
