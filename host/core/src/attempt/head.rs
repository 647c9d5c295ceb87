//! The response head: whether it can be trusted, and how the body behind it is read.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, LOCATION, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderName, StatusCode};

use super::encoded_watch::EncodedWatch;
use super::events::{EventReader, Expected};
use super::reading::Reading;
use super::request::Asked;
use super::{Attempt, Output, Phase};
use crate::contract::Operation;
use crate::dialect::usage::BodyTap;
use crate::http::encoding::Listed;
use crate::http::headers::{has_content_type, request_id};
use crate::http::retry_after::RateHints;
use crate::outcome::{Kind, Outcome};
use crate::record::Usage;
use crate::table::Dialect;
use crate::time::Timestamp;

/// Units left of a limit, and the time of its reset; `None`: the head has no such header.
pub type LimitLeft = Option<(u32, Timestamp)>;

/// Kind of the body, known with the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// A body of bytes follows.
    Bytes,
    /// Nothing follows: its framing says that it is empty.
    Empty,
    /// Digested pieces follow, of a stream where one was asked for and can be told from a cut.
    Digest,
}

impl Attempt {
    pub(super) fn head(&mut self, now: Timestamp, head: Parts, body: BodyKind) -> Output {
        if self.phase != Phase::Sending {
            return Output::Wait;
        }
        if let Some(outcome) = untrustworthy(&head) {
            return self.fail_unanswered(outcome);
        }
        self.first_byte = Some(now.since(self.deadlines.started()));
        self.deadlines.head_came(now);
        self.status = head.status.as_u16();
        self.limits_left = limits_left(&head.headers, now);
        let secrets = self.leaving.secrets();
        self.upstream_id = request_id(&head.headers).filter(|id| !secrets.are_in(id.as_bytes())).map(Into::into);
        if !self.may_send_again() {
            self.body = Ok(Bytes::new());
        }
        if let Some(outcome) = self.redirected(&head) {
            return self.fail_unanswered(outcome);
        }
        let mut head = head;
        self.unpack(&mut head, body);
        self.watch = EncodedWatch::of(&head.headers, self.leaving.secrets()).map(Box::new);
        let encoded = is_encoded(&head.headers);
        let is_stream = self.is_stream(&head, body, encoded);
        if body == BodyKind::Empty && self.status < 400 && !is_stream {
            return self.empty(head);
        }
        let is_readable = body == BodyKind::Bytes && !encoded && !self.dialect.is_opaque();
        let is_held =
            self.asks_model() || is_readable && (self.shape_path.is_some() || self.has_links()) && is_json(&head);
        // By its beginning, and not by its label, an answer is told to be a stream or none.
        let may_be_either = is_readable && self.asked.operation.has_streams() && head.status.is_success();
        self.head = Some(head);
        self.read_body(body, is_stream);
        if self.status >= 400 {
            self.phase = Phase::Refusal;
            self.deadlines.await_refusal(now);
            return if body == BodyKind::Empty { self.refused(now, true) } else { Output::Wait };
        }
        if is_stream && body == BodyKind::Digest {
            return self.gate_stream();
        }
        if is_stream && (self.asked.streaming || self.dialect.is_opaque()) {
            return self.begin_labelled_events(now);
        }
        if may_be_either && self.asks_model() {
            self.phase = Phase::Undecided;
            return Output::Wait;
        }
        if self.must_join() {
            let text = "the upstream did not answer with a stream";
            return self.fail_unanswered(Outcome::new(Kind::NotResumed, text));
        }
        if is_held && !encoded {
            self.phase = Phase::Whole { as_stream: false };
            return Output::Wait;
        }
        if self.translated.is_some() {
            let text = "the upstream compressed its answer unasked, so it cannot be translated";
            return self.fail_unanswered(Outcome::new(Kind::Malformed, text));
        }
        self.commit()
    }

    /// A model's answer is never a redirection: the base URL names another place than the API's, and the client's own key would be
    /// taken there.
    fn redirected(&self, head: &Parts) -> Option<Outcome> {
        let leads_elsewhere = head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED;
        if !leads_elsewhere || !self.asks_model() || self.dialect.is_opaque() {
            return None;
        }
        let place = head.headers.get(LOCATION).and_then(|place| place.to_str().ok()).unwrap_or("another place");
        let text = format!("the upstream redirects to {place}; base_url must name the place itself");
        Some(Outcome { status: Some(self.status), ..Outcome::new(Kind::Malformed, text) })
    }

    /// A stream by its label, in the form that was asked for; one that passes unread is what it says.
    fn begin_labelled_events(&mut self, now: Timestamp) -> Output {
        self.read_events(now);
        self.gate_stream()
    }

    /// Returns true if the answer is about stored things, so that its links and ids are read.
    pub(super) fn has_links(&self) -> bool {
        self.asked.operation.is_about_stored_things()
    }

    fn is_stream(&self, head: &Parts, body: BodyKind, encoded: bool) -> bool {
        let known = self.asked.operation.has_streams() && head.status.is_success();
        match body {
            BodyKind::Digest => known && self.asked.streaming,
            BodyKind::Bytes | BodyKind::Empty => {
                known && !encoded && has_content_type(&head.headers, "text/event-stream")
            }
        }
    }

    fn read_body(&mut self, body: BodyKind, is_stream: bool) {
        match (body, &mut self.reading) {
            (BodyKind::Digest, Reading::Digest(digested)) => digested.is_stream = is_stream,
            // Events are translated before they are read, a whole answer is counted as it comes.
            (BodyKind::Digest | BodyKind::Bytes | BodyKind::Empty, reading) => {
                *reading = Reading::Body(match &self.head {
                    Some(head) => {
                        let Asked { operation, is_of_background, .. } = self.asked;
                        let told_as = if is_of_background { Operation::Response } else { operation };
                        body_tap(head, self.dialect, operation, told_as)
                    }
                    None => BodyTap::new(self.dialect),
                });
            }
        }
    }

    /// The body is a stream of events.
    pub(super) fn read_events(&mut self, now: Timestamp) {
        let translator = self.translated.as_ref().map(|translated| translated.event_translator(self.dialect, now));
        let Asked { operation, answers, hide_usage, .. } = self.asked;
        let expected = Expected { operation, answers, hide_usage };
        let events = EventReader::new(self.spoken, expected, self.joiner.take(), translator);
        self.reading = Reading::Events(Box::new(events));
    }

    /// HEAD, 204, 304, or an empty body: nothing is to come, and nobody will ask for it.
    fn empty(&mut self, head: Parts) -> Output {
        if self.join.is_some() {
            return self.fail_unanswered(Outcome::new(Kind::NotResumed, "the upstream answered with nothing"));
        }
        let says_something = self.asks_model() && !self.dialect.is_opaque();
        if says_something && head.status.is_success() {
            return self.fail_unanswered(Outcome::new(Kind::Malformed, "the upstream answered with an empty body"));
        }
        self.head = Some(head);
        let ended = self.close(Outcome::answered(self.status), Usage::default());
        Output::Whole(Bytes::new(), ended)
    }

    /// Returns true if an answer that is not read by events has to be joined to delivered text.
    pub(super) fn must_join(&self) -> bool {
        match (&self.joiner, &self.reading) {
            (Some(joiner), _) => !joiner.is_first(),
            (None, reading) => reading.resumes(),
        }
    }
}

pub(super) fn is_json(head: &Parts) -> bool {
    has_content_type(&head.headers, "application/json")
}

/// A tap for the body behind this head, whose events are those of the operation that it is told as; what is compressed is read as
/// a copy.
fn body_tap(head: &Parts, dialect: Dialect, operation: Operation, told_as: Operation) -> BodyTap {
    let is_events = has_content_type(&head.headers, "text/event-stream");
    match Listed::read(&head.headers) {
        // A stream whose end is known is read by its events before it is relayed.
        Listed::Known(encodings) if encodings.is_empty() && is_events && !operation.has_streams() => {
            BodyTap::of_events(dialect, told_as)
        }
        // A transcription as text or subtitles.
        Listed::Known(encodings)
            if encodings.is_empty() && operation == Operation::Audio && has_content_type(&head.headers, "text/") =>
        {
            BodyTap::unreadable(dialect)
        }
        Listed::Known(encodings) if encodings.is_empty() => BodyTap::new(dialect),
        Listed::Known(encodings) if encodings.len() == 1 => BodyTap::encoded(dialect, told_as, encodings[0], is_events),
        Listed::Known(_) | Listed::Unknown(_) => BodyTap::unreadable(dialect),
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    Listed::read(headers) != Listed::Known(Vec::new())
}

fn untrustworthy(head: &Parts) -> Option<Outcome> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let text = "the upstream switched protocols without being asked to";
        return Some(Outcome::new(Kind::Malformed, text));
    }
    if head.headers.contains_key(TRANSFER_ENCODING) && head.headers.contains_key(CONTENT_LENGTH) {
        // RFC 9112 section 6.3: both together is an error or an attack.
        let text = "the upstream's response has both Content-Length and Transfer-Encoding";
        return Some(Outcome::new(Kind::Malformed, text));
    }
    None
}

fn limits_left(headers: &HeaderMap, now: Timestamp) -> (LimitLeft, LimitLeft) {
    let tells = |name: &HeaderName| name.as_str().contains("ratelimit");
    if !headers.keys().any(tells) {
        return (None, None);
    }
    let hints = RateHints::parse(headers, now);
    (hints.requests.left_until(now), hints.tokens.left_until(now))
}
