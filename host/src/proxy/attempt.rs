//! One attempt on a connection: feeds core's state machine from the socket and the timer, and says what comes of it.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use pointsman_core::attempt::{Attempt, BodyKind, Input, Output};
use pointsman_core::dialect::resume::Transcript;
use pointsman_core::exchange::Sending;
use pointsman_core::memory_budget::Holder;
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::time::Timestamp;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::answer_memory::AnswerMemory;
use super::in_flight::InFlight;
use super::large_bodies;
use super::memory::{Grant, SharedMemory};
use super::offload_blocking::offload_blocking;
use super::request::ProxyRequest;
use super::snapshot::Target;
use crate::upstream::{Answer, Lease, Reuse, SendError};

/// The longest time for an upstream to end a response that nobody waits for any more.
const END_LIMIT: Duration = Duration::from_secs(2);

/// An attempt, its connection and its timer.
pub struct UpstreamAttempt {
    attempt: Attempt,
    request: Arc<ProxyRequest>,
    started: Timestamp,
    /// The same moment on the clock of the timers.
    started_at: Instant,
    body: Option<Incoming>,
    /// Given back where the body was read to its end; dropped, it closes the connection.
    lease: Option<Lease>,
    /// Made when there is first something to wait for; most whole answers are there at once.
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes of the answer so far.
    received: usize,
    /// Memory for what is held of the answer.
    memory: AnswerMemory,
    /// It was not sent, or not received, for want of something of our own; the reason.
    own_shortage: Option<String>,
    budget: Arc<SharedMemory>,
    shutdown: CancellationToken,
    shutting_down: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl UpstreamAttempt {
    /// Sends the request and runs the attempt until its commit or its end; one that resumes joins what was `told`.
    pub async fn begin(
        in_flight: &mut InFlight,
        target: &Target,
        sending: &Sending,
        told: Option<&Transcript>,
    ) -> (Box<Self>, Output) {
        let turn = large_bodies::turn(in_flight.request().body.len()).await;
        let mut begun = turn.run(|| Box::new(Self::new(in_flight, target, sending, told)));
        let mut output = begun.send(in_flight, target, sending).await;
        loop {
            output = match output {
                Output::Wait => std::future::poll_fn(|cx| begun.poll_output(in_flight, cx)).await,
                Output::SendAgain => {
                    (begun.body, begun.lease) = (None, None);
                    let request = in_flight.request().client_request();
                    begun.attempt.leave_out(&request, &target.endpoint, &sending.model);
                    begun.send(in_flight, target, sending).await
                }
                Output::Commit(_) | Output::Deliver(_) | Output::Whole(..) | Output::Ended(..) => break,
            };
        }
        if begun.attempt.has_left_out() && !matches!(output, Output::Ended(..)) {
            target.endpoint.additions.remember_refusal(&sending.model, &begun.attempt);
        }
        (begun, output)
    }

    /// Sends the request, and puts the response head into the attempt, or what came in its place.
    async fn send(&mut self, in_flight: &mut InFlight, target: &Target, sending: &Sending) -> Output {
        let input = self.await_head(in_flight, target, sending).await;
        let output = self.step(input);
        if self.body.is_none() && self.attempt.status() != 0 {
            // A head that is not to be trusted has no status: its connection is closed.
            self.give_back();
        }
        let (requests, tokens) = self.attempt.limits_left();
        if requests.is_some() || tokens.is_some() {
            in_flight.learn(requests, tokens);
        }
        output
    }

    fn new(in_flight: &InFlight, target: &Target, sending: &Sending, told: Option<&Transcript>) -> Self {
        let (started, started_at) = (in_flight.proxy().clock.now(), crate::timer::now());
        let capabilities = &in_flight.snapshot().view.backend(sending.backend).capabilities;
        let request = in_flight.request().clone();
        request.abandoned.is_written.store(false, Ordering::Relaxed);
        let asked = request.client_request();
        Self {
            attempt: Attempt::new(started, &asked, &target.endpoint, capabilities, sending, told),
            request,
            started,
            started_at,
            body: None,
            lease: None,
            timer: None,
            received: 0,
            memory: AnswerMemory::default(),
            own_shortage: None,
            budget: in_flight.proxy().memory.clone(),
            shutdown: in_flight.proxy().cut.clone(),
            shutting_down: None,
        }
    }

    /// Sends the request and waits for the head, at most until a time limit passes that ends the attempt, or the drain ends.
    async fn await_head(&mut self, in_flight: &mut InFlight, target: &Target, sending: &Sending) -> Input {
        let request = in_flight.request().clone();
        let sent = {
            let mut sent = std::pin::pin!(send(&request, target, sending, &self.attempt));
            let mut limit = self.attempt.wake_at();
            loop {
                let answered = self.shutdown.run_until_cancelled(&mut sent);
                match tokio::time::timeout_at(self.instant(limit), answered).await {
                    Ok(Some(sent)) => break Some(sent),
                    Ok(None) => return Input::ShuttingDown,
                    Err(_) => match self.attempt.overdue(self.now()).and_then(|late| in_flight.overdue(late, true)) {
                        Some(until) => limit = until.min(self.attempt.total_at()),
                        None => break None,
                    },
                }
            }
        };
        match sent {
            Some(Ok(answer)) => self.head(answer),
            Some(Err(NotSent::Failed(outcome))) => Input::SendFailed(outcome),
            Some(Err(NotSent::OwnShortage(reason))) => {
                self.own_shortage = Some(reason.clone());
                Input::SendFailed(Outcome::new(Kind::ConnectFailed, reason))
            }
            None => Input::Timer,
        }
    }

    /// Polls for the next output; there is none after the end. A time limit that has passed ends the attempt only where
    /// the exchange knows somebody else.
    pub fn poll_output(&mut self, in_flight: &mut InFlight, cx: &mut Context<'_>) -> Poll<Output> {
        loop {
            let input = ready!(self.poll_input(cx));
            if matches!(input, Input::Timer)
                && let Some(overdue) = self.attempt.overdue(self.now())
                && let Some(until) = in_flight.overdue(overdue, self.attempt.transcript().is_some())
            {
                self.attempt.put_off(until);
                continue;
            }
            match self.step(input) {
                Output::Wait => {}
                output @ (Output::Commit(_)
                | Output::Deliver(_)
                | Output::Whole(..)
                | Output::Ended(..)
                | Output::SendAgain) => return Poll::Ready(output),
            }
        }
    }

    /// Returns the reason why there is no answer, where that is a shortage of our own.
    pub fn take_own_shortage(&mut self) -> Option<String> {
        self.own_shortage.take()
    }

    /// The state machine, to look at.
    pub const fn machine(&self) -> &Attempt {
        &self.attempt
    }

    /// The state machine, for what it keeps.
    pub const fn machine_mut(&mut self) -> &mut Attempt {
        &mut self.attempt
    }

    /// Steps the machine with this input; returns what to do next.
    pub fn step(&mut self, input: Input) -> Output {
        let now = self.now();
        let is_last = match &input {
            Input::LastBytes(data) => {
                self.received += data.len();
                true
            }
            Input::Bytes(data) => {
                self.received += data.len();
                false
            }
            Input::End => true,
            Input::Head(..)
            | Input::SendFailed(_)
            | Input::Digest(_)
            | Input::Broken(_)
            | Input::Timer
            | Input::ShuttingDown
            | Input::NoMemory
            | Input::ClientGone => false,
        };
        // A whole answer is judged, and translated, at its end.
        if is_last && large_bodies::is_large(self.received) && !self.attempt.is_committed() {
            return offload_blocking(|| self.attempt.step(now, input));
        }
        let output = self.attempt.step(now, input);
        if self.memory.covers(self.attempt.held_bytes()) { output } else { self.hold_more(now, output) }
    }

    /// Takes memory for what is held beyond what was taken; where there is none, the attempt ends.
    fn hold_more(&mut self, now: Timestamp, output: Output) -> Output {
        let bytes = match output {
            Output::Wait => Bytes::new(),
            Output::Deliver(bytes) => bytes,
            // What goes on is looked at with the next bytes.
            output @ (Output::Commit(_) | Output::Whole(..) | Output::Ended(..) | Output::SendAgain) => return output,
        };
        let holder = self.request.memory.as_ref().map_or(&Holder::Operator, Grant::holder);
        if self.memory.cover(self.attempt.held_bytes(), &self.budget, holder).is_ok() {
            return if bytes.is_empty() { Output::Wait } else { Output::Deliver(bytes) };
        }
        self.budget.count_refusal();
        if !self.attempt.is_committed() {
            let text = "there is no memory to hold its answer beside those of others (server.memory_budget_mb)";
            self.own_shortage = Some(text.to_owned());
        }
        match self.attempt.step(now, Input::NoMemory) {
            Output::Ended(last, ended) if !bytes.is_empty() => {
                Output::Ended([&bytes[..], &last[..]].concat().into(), ended)
            }
            output => output,
        }
    }

    fn now(&self) -> Timestamp {
        self.started + self.started_at.elapsed()
    }

    fn instant(&self, at: Timestamp) -> Instant {
        self.started_at + at.since(self.started)
    }

    fn head(&mut self, answer: Answer) -> Input {
        let (head, body) = answer.response.into_parts();
        self.lease = Some(answer.lease);
        if body.is_end_stream() {
            return Input::Head(head, BodyKind::Empty);
        }
        self.body = Some(body);
        Input::Head(head, BodyKind::Bytes)
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(Input::End) };
            let polled = match &mut self.lease {
                Some(lease) => lease.poll_frame(body, cx),
                None => Pin::new(&mut *body).poll_frame(cx),
            };
            let frame = match polled {
                Poll::Ready(frame) => frame,
                Poll::Pending if self.attempt.has_said_all() => {
                    self.leave_the_end();
                    return Poll::Ready(Input::End);
                }
                Poll::Pending => return self.poll_timer(cx),
            };
            let input = match frame {
                None => {
                    self.give_back();
                    Input::End
                }
                Some(Err(error)) => Input::Broken(broken(&error)),
                Some(Ok(frame)) => match frame.into_data() {
                    // A server does not ask for more once the announced length is out, so the end is told with the last bytes.
                    Ok(data) if body.is_end_stream() => {
                        self.give_back();
                        Input::LastBytes(data)
                    }
                    Ok(data) => Input::Bytes(data),
                    // Trailers say nothing that a client of an LLM API reads, and HTTP/1.1 seldom carries them.
                    Err(_) => continue,
                },
            };
            return Poll::Ready(input);
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        let shutdown = &self.shutdown;
        let shutting_down = self.shutting_down.get_or_insert_with(|| Box::pin(shutdown.clone().cancelled_owned()));
        if shutting_down.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Input::ShuttingDown);
        }
        let wake_at = self.instant(self.attempt.wake_at());
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wake_at)));
        // Bytes move the deadline; to set the timer anew for each of them would cost more than to let it ring early.
        if timer.is_elapsed() || timer.deadline() > wake_at {
            timer.as_mut().reset(wake_at);
        }
        timer.as_mut().poll(cx).map(|()| Input::Timer)
    }

    /// The client need not wait for an upstream that forgets to end its response. The connection is kept if it does.
    fn leave_the_end(&mut self) {
        if let (Some(mut body), Some(mut lease)) = (self.body.take(), self.lease.take()) {
            tokio::spawn(tokio::time::timeout(END_LIMIT, async move {
                // Bytes behind the last event are nobody's.
                while let Some(Ok(_)) = lease.frame(&mut body).await {}
                if body.is_end_stream() {
                    lease.give_back();
                }
            }));
        }
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

/// Dropped before its end, its client has gone away; what was written is charged all the same.
impl Drop for UpstreamAttempt {
    fn drop(&mut self) {
        if self.request.abandoned.is_written.load(Ordering::Relaxed)
            && let Output::Ended(_, ended) = self.step(Input::ClientGone)
        {
            let _ = self.request.abandoned.usage.set(ended.usage);
        }
    }
}

/// Sends the request and waits for the head.
///
/// A kept connection that the upstream closed just when it was used again says nothing about the upstream (RFC 9112
/// section 9.5): a request that changes nothing there is sent once more on a fresh one.
async fn send(
    request: &ProxyRequest,
    target: &Target,
    sending: &Sending,
    attempt: &Attempt,
) -> Result<Answer, NotSent> {
    let client = request.client_request();
    let build = || attempt.request(&client, &target.endpoint, &sending.model).map(|request| request.map(Full::new));
    let connect = sending.timeouts.connect;
    let build = || build().map_err(NotSent::Failed);
    let written = &request.abandoned.is_written;
    match target.origin.send(build()?, connect, Reuse::Kept, written).await {
        Err(SendError::Reset { reused: true, .. }) if request.is_idempotent() => {
            target.origin.send(build()?, connect, Reuse::Fresh, written).await.map_err(NotSent::by)
        }
        sent => sent.map_err(NotSent::by),
    }
}

/// The reason why there is no response.
enum NotSent {
    /// The attempt failed before it was committed.
    Failed(Outcome),
    /// There was nothing to send it with.
    OwnShortage(String),
}

impl NotSent {
    fn by(error: SendError) -> Self {
        let text = error.to_string();
        let kind = match error {
            SendError::Connect { .. } | SendError::ConnectTimeout { .. } => Kind::ConnectFailed,
            SendError::Reset { .. } => Kind::Reset,
            SendError::Malformed(_) => Kind::Malformed,
            SendError::OwnShortage(_) => return Self::OwnShortage(text),
        };
        Self::Failed(Outcome::new(kind, text))
    }
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
