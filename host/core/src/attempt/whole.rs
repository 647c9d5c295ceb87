//! Answers in one piece: held until they are complete, so that a cut one can still be tried elsewhere.

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};

use super::events::not_resumed;
use super::gate::MAX_HELD_BYTES;
use super::reading::Reading;
use super::translated::TranslatedAttempt;
use super::{Attempt, Output};
use crate::dialect::as_stream::as_stream;
use crate::dialect::classify::{WholeAnswer, classify_beginning, classify_whole};
use crate::dialect::repair::repair_body;
use crate::dialect::resume::{Emit, Joiner, Unfit};
use crate::http::sse;
use crate::outcome::{Kind, Outcome};
use crate::record::Usage;
use crate::time::Timestamp;

/// A whole answer up to this size is held until it is complete.
pub(super) const MAX_WHOLE_BYTES: usize = 1024 * 1024;

impl Attempt {
    pub(super) fn whole_bytes(&mut self, now: Timestamp, data: Bytes, is_last: bool, as_stream: bool) -> Output {
        let piece = self.reading.read(data);
        self.held.push(piece.bytes);
        if is_last {
            return self.whole(now, as_stream);
        }
        if self.held.len() > MAX_WHOLE_BYTES && self.translated.is_none() {
            if as_stream && self.must_join() {
                let text = "the upstream answered with a body too long to be joined";
                return self.ended(Bytes::new(), Outcome::new(Kind::NotResumed, text), Usage::default());
            }
            let held = self.held.take();
            let outcome = self.judge_beginning(now, &held);
            self.held.push(held);
            self.packed = None;
            return match outcome.kind {
                Kind::Answered => self.commit(),
                _ => self.ended(Bytes::new(), outcome, Usage::default()),
            };
        }
        if self.held.len() > MAX_HELD_BYTES {
            let outcome = Outcome::new(Kind::Malformed, "the upstream's answer is too long to be translated");
            return self.ended(Bytes::new(), outcome, Usage::default());
        }
        Output::Wait
    }

    /// Takes the end of an answer that is no stream; `as_stream`: its client wants one.
    pub(super) fn whole(&mut self, now: Timestamp, as_stream: bool) -> Output {
        let mut body = self.held.take();
        let mut is_same = self.translated.is_none() && !as_stream;
        let mut outcome = self.judge(now, &body);
        if outcome.kind == Kind::Malformed
            && let Some(mended) = repair_body(&body)
        {
            (body, outcome) = self.mended(now, mended.into());
            is_same = false;
        }
        if outcome.kind != Kind::Answered {
            if self.refuses_addition(&body) {
                return self.send_again();
            }
            return self.ended(Bytes::new(), outcome, Usage::default());
        }
        let usage = self.usage();
        let body = self.translate_whole(now, body).and_then(|body| match as_stream {
            true => self.whole_as_stream(&body),
            false => Ok(body),
        });
        match body {
            Ok(body) => {
                let body = self.as_it_came(body, is_same);
                let ended = self.close(outcome, usage);
                Output::Whole(body, ended)
            }
            Err(failed) => self.ended(Bytes::new(), failed, usage),
        }
    }

    /// An answer that was mended; its length is another one, and it is judged anew.
    fn mended(&mut self, now: Timestamp, body: Bytes) -> (Bytes, Outcome) {
        if let Some(head) = &mut self.head {
            head.headers.remove(CONTENT_LENGTH);
        }
        let outcome = self.judge(now, &body);
        if outcome.kind != Kind::Answered {
            return (body, outcome);
        }
        self.body_repairs.mended += 1;
        (body, Outcome { message: "the answer's JSON mended".to_owned(), ..outcome })
    }

    fn judge(&self, now: Timestamp, body: &[u8]) -> Outcome {
        let answer = self.judged(body);
        answer.map_or_else(|| Outcome::answered(self.status), |answer| classify_whole(self.dialect, &answer, now))
    }

    /// Judges an answer that is too long to be held until its end.
    fn judge_beginning(&self, now: Timestamp, body: &[u8]) -> Outcome {
        let answer = self.judged(body);
        answer.map_or_else(|| Outcome::answered(self.status), |answer| classify_beginning(self.dialect, &answer, now))
    }

    /// An answer as it is judged; none where nothing is known of its shape.
    fn judged<'a>(&'a self, body: &'a [u8]) -> Option<WholeAnswer<'a>> {
        match (&self.reading, &self.head) {
            (Reading::Digest(_), _) | (_, None) => None,
            // What is stored may be the record of a failure.
            _ if !self.asks_model() && self.shape_path.is_none() => None,
            (Reading::Events(_) | Reading::Body(_), Some(head)) => Some(WholeAnswer {
                operation: self.translated.as_ref().map_or(self.asked.operation, TranslatedAttempt::operation),
                path: self.shape_path.as_deref().unwrap_or_default(),
                may_be_empty: self.may_be_empty(),
                status: self.status,
                headers: &head.headers,
                body,
            }),
        }
    }

    fn translate_whole(&mut self, now: Timestamp, body: Bytes) -> Result<Bytes, Outcome> {
        match (&self.translated, &mut self.head) {
            (Some(translated), Some(head)) if head.status.is_success() => {
                translated.whole(&mut head.headers, &body, now)
            }
            (Some(_) | None, _) => Ok(body),
        }
    }

    /// The answer told as the stream that was asked for; one that resumes, less what was delivered.
    fn whole_as_stream(&mut self, body: &[u8]) -> Result<Bytes, Outcome> {
        let stream = as_stream(self.asked.operation, body, self.asked.include_usage).ok_or_else(|| {
            let text = "the upstream answered a request for a stream with JSON that is no answer";
            Outcome::new(Kind::Malformed, text)
        })?;
        self.told_as_stream = true;
        if let Some(head) = &mut self.head {
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        }
        match self.joiner.take().filter(|joiner| !joiner.is_first()) {
            Some(joiner) => join_whole(joiner, stream),
            None => Ok(stream),
        }
    }
}

/// Returns the new part of a whole answer, written as a stream.
fn join_whole(mut joiner: Joiner, stream: Bytes) -> Result<Bytes, Outcome> {
    let mut reader = sse::Reader::default();
    reader.push(stream);
    let mut new = BytesMut::new();
    let too_long = |error: sse::TooLong| Outcome::new(Kind::Malformed, error.to_string());
    while let Some(event) = reader.next_event().map_err(too_long)? {
        match joiner.take(&event).map_err(not_resumed)? {
            Emit::AsReceived => new.extend_from_slice(event.raw),
            Emit::Instead(bytes) => new.extend_from_slice(&bytes),
            Emit::Nothing => {}
        }
    }
    if joiner.has_joined() { Ok(new.freeze()) } else { Err(not_resumed(Unfit::Shorter)) }
}
