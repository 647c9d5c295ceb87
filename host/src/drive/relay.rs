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
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::exchange::{Action, Ended};
use pointsman_core::outcome::Outcome;
use tokio::time::{Instant, Sleep};

use super::attempt::Begun;
use super::course::{Answerer, Course, Found, walk};
use super::live::{Live, client_gone};
use super::reply::{in_band, words_of};
use super::request::Asked;
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
    Underway(Pin<Box<dyn Future<Output = Course> + Send>>),
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
    source: Source,
    first_byte: Duration,
    first_token: Option<Duration>,
    started: Instant,
    status: u16,
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
    pub fn flowing(live: Box<Live>, begun: Begun, status: u16, keepalive: Option<Duration>) -> Self {
        let asked = live.asked().clone();
        let (held, flow) = Flow::new(live, begun, status);
        Self { state: State::Flowing(flow), held, asked, keepalive, comment: None }
    }

    /// Sends comments until there is an answer.
    pub fn waiting(
        course: Pin<Box<impl Future<Output = Course> + Send + 'static>>,
        keepalive: Duration,
        asked: Arc<Asked>,
    ) -> Self {
        Self { state: State::Underway(course), held: COMMENT, asked, keepalive: Some(keepalive), comment: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            if !self.held.is_empty() {
                return Poll::Ready(Some(Ok(std::mem::take(&mut self.held))));
            }
            match std::mem::replace(&mut self.state, State::Over) {
                State::Underway(mut course) => match course.as_mut().poll(cx) {
                    Poll::Ready(course) => self.arrived(course),
                    Poll::Pending => {
                        self.state = State::Underway(course);
                        ready!(self.poll_comment(cx));
                        self.held = COMMENT;
                    }
                },
                State::Flowing(mut flow) => match flow.source.poll_step(cx) {
                    Poll::Ready(step) => self.flowed(flow, step)?,
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

    /// A step of the committed answer.
    fn flowed(&mut self, mut flow: Box<Flow>, step: Step) -> Result<(), Broken> {
        flow.note_first_token();
        match step {
            Step::Bytes(bytes) => {
                flow.live.answers(&bytes, flow.source.is_events());
                self.held = bytes;
                if flow.source.has_ended() {
                    flow.settle(Outcome::answered(flow.status));
                } else {
                    self.state = State::Flowing(flow);
                }
                Ok(())
            }
            Step::End => {
                flow.settle(Outcome::answered(flow.status));
                Ok(())
            }
            Step::Failed(bytes, outcome) => {
                flow.live.answers(&bytes, flow.source.is_events());
                self.held = bytes;
                self.broke(*flow, outcome)
            }
        }
    }

    /// The committed answer broke off: it is resumed, or the client is told in-band where there is a way to, and in any
    /// case by the end of the connection.
    fn broke(&mut self, mut flow: Flow, outcome: Outcome) -> Result<(), Broken> {
        let outcome = flow.live.censored(outcome);
        let text = outcome.message.clone();
        let told = flow.source.joiner().map(|joiner| joiner.told().clone()).filter(|told| told.unfit().is_none());
        let action = match told.is_some() {
            true => flow.live.broke_off(flow.ended(outcome)),
            false => {
                flow.settle(outcome);
                flow.live.broke();
                return self.tell_broken(flow.source.is_events(), text);
            }
        };
        match action {
            Action::Finish(_) => {
                flow.live.broke();
                self.tell_broken(flow.source.is_events(), text)
            }
            action => {
                self.comment = None;
                self.state = State::Underway(Box::pin(walk(flow.live, action, told)));
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

    /// The way led to an answer that goes on in this body, or to none.
    fn arrived(&mut self, course: Course) {
        let Course { mut live, found } = course;
        self.comment = None;
        match found {
            Found::Begun(answerer, head, begun) if begun.source.is_events() => {
                self.introduce(&live, &answerer);
                let (held, flow) = Flow::new(live, *begun, head.status.as_u16());
                self.push(held);
                self.state = State::Flowing(flow);
            }
            Found::Whole(answerer, head, body) if head.headers.get(CONTENT_TYPE).is_some_and(is_event_stream) => {
                self.introduce(&live, &answerer);
                self.push(body);
            }
            Found::Begun(answerer, ..) | Found::Whole(answerer, ..) => {
                let text = format!("{} did not answer with a stream", answerer.backend);
                self.tell_in_band(&mut live, ErrorKind::StreamBroken, None, &text);
            }
            Found::Refusal(_) => {
                let last = live.exchange().attempts().last().map_or_else(String::new, |a| a.message.clone());
                self.tell_in_band(&mut live, ErrorKind::InvalidRequest, None, &last);
            }
            Found::Error(why) => {
                let (kind, _, own_kind) = words_of(&why.reason);
                self.tell_in_band(&mut live, kind, own_kind, &why.message);
            }
            Found::Nothing if live.proxy().cut.is_cancelled() => {
                self.tell_in_band(&mut live, ErrorKind::ShuttingDown, None, "Pointsman is shutting down");
            }
            Found::Nothing => {
                self.tell_in_band(&mut live, ErrorKind::Internal, None, "Pointsman lost track of this exchange");
            }
        }
    }

    /// The head is out and cannot say who answers; a comment can.
    fn introduce(&mut self, live: &Live, answerer: &Answerer) {
        let verb = if live.exchange().is_resuming() { "resumed" } else { "answered" };
        self.push(format!(": pointsman {verb} by {}\n\n", answerer.backend).into());
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

impl Flow {
    fn new(live: Box<Live>, begun: Begun, status: u16) -> (Bytes, Box<Self>) {
        let Begun { source, held, first_byte, first_token, started } = begun;
        let mut live = live;
        live.answers(&held, source.is_events());
        (held, Box::new(Self { live, source, first_byte, first_token, started, status }))
    }

    fn note_first_token(&mut self) {
        if self.first_token.is_none() && self.source.content_events() > 0 {
            self.first_token = Some(self.started.elapsed());
        }
    }

    fn ended(&self, outcome: Outcome) -> Ended {
        let usage = self.source.usage(self.live.asked().prompt_tokens);
        Ended { outcome, usage, first_byte: Some(self.first_byte), first_token: self.first_token }
    }

    fn settle(&mut self, outcome: Outcome) {
        let ended = self.ended(outcome);
        self.live.relayed(ended);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let State::Flowing(flow) = &mut self.state
            && !flow.live.is_done()
        {
            let usage = flow.source.usage(flow.live.asked().prompt_tokens);
            flow.live.relayed(client_gone(usage, Some(flow.first_byte), flow.first_token));
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
