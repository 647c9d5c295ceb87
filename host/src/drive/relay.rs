//! The response body: what was held back, then the rest as it comes, with backpressure; and the settling at its end.
//!
//! A stream that breaks is resumed here: the exchange walks on, comments keep the client's connection alive meanwhile,
//! and what another answer says anew follows. Where it cannot be, the client is told in-band and the connection torn.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body::{Body, Frame, SizeHint};
use pointsman_core::attempt::{Input, Output};
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::exchange::{Action, Ended};
use pointsman_core::outcome::Kind;
use tokio::time::{Instant, Sleep};

use super::attempt::UpstreamAttempt;
use super::exchange::{ExchangeResponse, ServedBy, run_until_response};
use super::live::Live;
use super::reply::{in_band, words_of};
use super::request::Asked;

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

/// An answer on its way, or the wait for one by a client that has its head.
pub struct Relay {
    state: State,
    /// What goes out next.
    held: Bytes,
    asked: Arc<Asked>,
    /// How often a waiting client gets a comment.
    keepalive: Option<Duration>,
    comment: Option<Pin<Box<Sleep>>>,
}

enum State {
    /// The exchange is on its way to an answer.
    Underway(Pin<Box<dyn Future<Output = (Box<Live>, ExchangeResponse)> + Send>>),
    /// A committed answer comes in.
    Flowing(Box<Flow>),
    /// The error event goes out: the server is given a turn to write what it has, before the body fails.
    Flush(String),
    Fail(String),
    Over,
}

/// A committed answer.
struct Flow {
    live: Box<Live>,
    attempt: Box<UpstreamAttempt>,
}

/// What a client that waits is sent; a line that begins with a colon means nothing (WHATWG, server-sent events).
const COMMENT: Bytes = Bytes::from_static(b": pointsman is waiting for an answer\n\n");

impl ProxyBody {
    /// A body that is here as a whole.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        ProxyBody::Whole(Some(bytes.into()))
    }
}

impl Relay {
    /// Relays what was held back, then the rest.
    pub fn flowing(live: Box<Live>, held: Bytes, attempt: Box<UpstreamAttempt>, keepalive: Option<Duration>) -> Self {
        let asked = live.asked().clone();
        let mut relay = Self { state: State::Over, held: Bytes::new(), asked, keepalive, comment: None };
        relay.flow(live, held, attempt);
        relay
    }

    /// Sends comments until there is an answer.
    pub fn waiting(
        running: Pin<Box<impl Future<Output = (Box<Live>, ExchangeResponse)> + Send + 'static>>,
        keepalive: Duration,
        asked: Arc<Asked>,
    ) -> Self {
        Self { state: State::Underway(running), held: COMMENT, asked, keepalive: Some(keepalive), comment: None }
    }

    fn flow(&mut self, mut live: Box<Live>, held: Bytes, attempt: Box<UpstreamAttempt>) {
        live.answers(&held, attempt.machine().delivers_events());
        self.push(held);
        self.state = State::Flowing(Box::new(Flow { live, attempt }));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            if !self.held.is_empty() {
                return Poll::Ready(Some(Ok(std::mem::take(&mut self.held))));
            }
            match std::mem::replace(&mut self.state, State::Over) {
                State::Underway(mut running) => match running.as_mut().poll(cx) {
                    Poll::Ready((live, response)) => self.arrived(live, response),
                    Poll::Pending => {
                        self.state = State::Underway(running);
                        ready!(self.poll_comment(cx));
                        self.held = COMMENT;
                    }
                },
                State::Flowing(mut flow) => match flow.attempt.poll_output(cx) {
                    Poll::Ready(output) => self.flowed(flow, output)?,
                    Poll::Pending => {
                        self.state = State::Flowing(flow);
                        return Poll::Pending;
                    }
                },
                State::Flush(text) => {
                    self.state = State::Fail(text);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Fail(text) => return Poll::Ready(Some(Err(Broken(text)))),
                State::Over => return Poll::Ready(None),
            }
        }
    }

    /// Is it time for the next comment?
    fn poll_comment(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(every) = self.keepalive else { return Poll::Pending };
        let timer = self.comment.get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
        ready!(timer.as_mut().poll(cx));
        timer.as_mut().reset(Instant::now() + every);
        Poll::Ready(())
    }

    /// What follows in the committed answer.
    fn flowed(&mut self, mut flow: Box<Flow>, output: Output) -> Result<(), Broken> {
        let (bytes, ended) = match output {
            Output::Deliver(bytes) | Output::Commit(bytes) => (bytes, None),
            Output::Ended(bytes, ended) | Output::Whole(bytes, ended) => (bytes, Some(ended)),
            Output::Wait => (Bytes::new(), None),
        };
        flow.live.answers(&bytes, flow.attempt.machine().delivers_events());
        self.held = bytes;
        match ended {
            None => self.state = State::Flowing(flow),
            Some(ended) if ended.outcome.kind == Kind::Answered => flow.live.relayed(ended),
            Some(ended) => return self.broke(*flow, ended),
        }
        Ok(())
    }

    /// The committed answer broke off: it is resumed, or the client is told in-band where there is a way to, and in any
    /// case by the end of the connection.
    fn broke(&mut self, flow: Flow, ended: Ended) -> Result<(), Broken> {
        let Flow { mut live, attempt } = flow;
        let text = ended.outcome.message.clone();
        let told = attempt.machine().transcript().cloned();
        let action = match told {
            Some(_) => live.broke_off(ended),
            None => {
                live.relayed(ended);
                live.broke();
                return self.tell_broken(attempt.machine().delivers_events(), text);
            }
        };
        match action {
            Action::Finish(_) => {
                live.broke();
                self.tell_broken(attempt.machine().delivers_events(), text)
            }
            action => {
                self.comment = None;
                self.state = State::Underway(Box::pin(run_until_response(live, action, told)));
                Ok(())
            }
        }
    }

    fn tell_broken(&mut self, has_events: bool, text: String) -> Result<(), Broken> {
        if !has_events {
            return Err(Broken(text));
        }
        let message = format!("The answer broke off: {text}");
        self.last_words(in_band(&self.asked, ErrorKind::StreamBroken, None, &message), text);
        Ok(())
    }

    fn last_words(&mut self, event: Bytes, text: String) {
        self.push(event);
        self.state = State::Flush(text);
    }

    fn push(&mut self, bytes: Bytes) {
        self.held = if self.held.is_empty() { bytes } else { [&self.held[..], &bytes[..]].concat().into() };
    }

    /// There is a response: one that goes on in this body, or none.
    fn arrived(&mut self, mut live: Box<Live>, response: ExchangeResponse) {
        self.comment = None;
        match response {
            ExchangeResponse::Streaming(served_by, _, held, attempt) if attempt.machine().delivers_events() => {
                self.introduce(&live, &served_by);
                self.flow(live, held, attempt);
            }
            ExchangeResponse::Whole(served_by, head, body)
                if head.headers.get(CONTENT_TYPE).is_some_and(is_event_stream) =>
            {
                self.introduce(&live, &served_by);
                self.push(body);
            }
            ExchangeResponse::Streaming(served_by, ..) | ExchangeResponse::Whole(served_by, ..) => {
                let text = format!("{} did not answer with a stream", served_by.backend);
                self.tell_in_band(&mut live, ErrorKind::StreamBroken, None, &text);
            }
            ExchangeResponse::Refusal(_) => {
                let last = live.exchange().attempts().last().map_or_else(String::new, |a| a.message.clone());
                self.tell_in_band(&mut live, ErrorKind::InvalidRequest, None, &last);
            }
            ExchangeResponse::Error(why) => {
                let (kind, _, own_kind) = words_of(&why.reason);
                self.tell_in_band(&mut live, kind, own_kind, &why.message);
            }
            ExchangeResponse::Nothing if live.proxy().cut.is_cancelled() => {
                self.tell_in_band(&mut live, ErrorKind::ShuttingDown, None, "Pointsman is shutting down");
            }
            ExchangeResponse::Nothing => {
                self.tell_in_band(&mut live, ErrorKind::Internal, None, "Pointsman lost track of this exchange");
            }
        }
    }

    /// The head is out and cannot say who answers; a comment can.
    fn introduce(&mut self, live: &Live, served_by: &ServedBy) {
        let verb = if live.exchange().is_resuming() { "resumed" } else { "answered" };
        self.push(format!(": pointsman {verb} by {}\n\n", served_by.backend).into());
    }

    fn tell_in_band(&mut self, live: &mut Live, kind: ErrorKind, own_kind: Option<&str>, text: &str) {
        let event = if live.exchange().is_resuming() {
            let message = format!("The answer broke off, and could not be resumed: {text}");
            in_band(&self.asked, ErrorKind::StreamBroken, None, &message)
        } else {
            in_band(&self.asked, kind, own_kind, text)
        };
        live.told_in_band(text);
        self.last_words(event, text.to_owned());
    }
}

pub(super) fn is_event_stream(content_type: &http::HeaderValue) -> bool {
    content_type.as_bytes().starts_with(b"text/event-stream")
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let State::Flowing(flow) = &mut self.state
            && let Output::Ended(_, ended) = flow.attempt.step(Input::ClientGone)
        {
            flow.live.relayed(ended);
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
