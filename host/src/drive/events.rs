//! A stream read by the event: only whole events go on, so that the usage chunk nobody asked for can be left out and an
//! error event is seen before it is relayed.
//!
//! An event that is not JSON is left out, because a client's SDK would stop at it. Of an answer that resumes another one
//! goes on what is new.

use bytes::{Bytes, BytesMut};
use pointsman_core::contract::Operation;
use pointsman_core::dialect::classify::classify_event;
use pointsman_core::dialect::resume::{Emit, Joiner, Unfit};
use pointsman_core::dialect::usage::{Sight, StreamTap};
use pointsman_core::http::sse;
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::record::Usage;
use pointsman_core::table::Dialect;

use super::foreign::Rewriter;
use super::source::Step;

/// A stream of events being read.
#[derive(Debug)]
pub struct Events {
    reader: sse::Reader,
    tap: StreamTap,
    /// What is kept in mind for a resume, and how a resumed one joins; none where nothing is to be resumed.
    joiner: Option<Joiner>,
    /// Translates what comes before anything else looks at it; none where the backend speaks the client's dialect.
    rewriter: Option<Rewriter>,
    dialect: Dialect,
    hide_usage: bool,
    /// Must its data be JSON?
    is_json: bool,
}

impl Events {
    /// Begins to read a stream of this dialect.
    pub fn new(
        dialect: Dialect,
        operation: Operation,
        hide_usage: bool,
        joiner: Option<Joiner>,
        rewriter: Option<Rewriter>,
    ) -> Self {
        let tap = StreamTap::new(dialect, operation);
        let (reader, is_json) = (sse::Reader::default(), !dialect.is_opaque());
        Self { reader, tap, joiner, rewriter, dialect, hide_usage, is_json }
    }

    /// Takes bytes as they came; answers what of them goes on.
    pub fn take(&mut self, data: Bytes) -> Option<Step> {
        let failed = self.push(data);
        let step = self.read();
        match failed {
            Some(outcome) => Some(then_failed(step, outcome)),
            None => step,
        }
    }

    /// Has its last event been read, so that only HTTP's own end may come?
    pub fn has_said_all(&self) -> bool {
        self.tap.ended_well() && self.tap.has_end()
    }

    /// Content events so far.
    pub fn content_events(&self) -> u64 {
        self.tap.content_events()
    }

    /// What was delivered of it, and how it joins what was delivered before.
    pub fn joiner(&self) -> Option<&Joiner> {
        self.joiner.as_ref()
    }

    /// What was used so far.
    pub fn usage(&self, prompt_tokens: u32) -> Usage {
        self.tap.usage(prompt_tokens)
    }

    /// Puts them before the reader; answers why they cannot be translated.
    fn push(&mut self, data: Bytes) -> Option<Outcome> {
        let Some(rewriter) = &mut self.rewriter else {
            self.reader.push(data);
            return None;
        };
        let (translated, failed) = rewriter.push(data);
        self.reader.push(translated);
        failed
    }

    /// Has the model said why it stopped?
    pub fn finished(&self) -> bool {
        self.tap.finished() || self.rewriter.as_ref().is_some_and(Rewriter::finished)
    }

    /// Looks at every whole event; answers their bytes, less what the client must not see.
    fn read(&mut self) -> Option<Step> {
        let mut kept: Option<BytesMut> = None;
        loop {
            let event = match self.reader.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(too_long) => {
                    let outcome = Outcome::new(Kind::Malformed, too_long.to_string());
                    return Some(Step::Failed(joined(kept, self.reader.take()), outcome));
                }
            };
            if self.is_json && sse::is_nonsense(&event) {
                kept.get_or_insert_default().extend_from_slice(&self.reader.take_without_last());
                continue;
            }
            let was_finished = self.tap.finished();
            let emit = match self.tap.see(&event) {
                // The model has said why it stopped: what goes wrong after that takes nothing from the answer.
                Sight::Error if was_finished => Ok(Emit::Nothing),
                Sight::Error => {
                    let outcome = error_in(self.dialect, &event);
                    return Some(Step::Failed(joined(kept, self.reader.take_before_last()), outcome));
                }
                Sight::UsageOnly if self.hide_usage => Ok(Emit::Nothing),
                Sight::UsageOnly | Sight::Content | Sight::Finish | Sight::Done | Sight::Other => {
                    self.joiner.as_mut().map_or(Ok(Emit::AsReceived), |joiner| joiner.take(&event))
                }
            };
            match emit {
                Ok(Emit::AsReceived) => {}
                Ok(Emit::Nothing) => kept.get_or_insert_default().extend_from_slice(&self.reader.take_without_last()),
                Ok(Emit::Instead(bytes)) => {
                    let kept = kept.get_or_insert_default();
                    kept.extend_from_slice(&self.reader.take_without_last());
                    kept.extend_from_slice(&bytes);
                }
                Err(unfit) => {
                    let outcome = not_resumed(unfit);
                    return Some(Step::Failed(joined(kept, self.reader.take_before_last()), outcome));
                }
            }
        }
        let bytes = joined(kept, self.reader.take());
        (!bytes.is_empty()).then_some(Step::Bytes(bytes))
    }

    /// The body is over. Was the answer whole? What the dialect needs to end is added where the model had finished; a
    /// stream that ends before that was cut, however politely.
    pub fn end(&mut self) -> Step {
        let mut last = BytesMut::new();
        if let Some(rewriter) = &mut self.rewriter {
            self.reader.push(rewriter.finish());
            match self.read() {
                Some(Step::Bytes(bytes)) => last.extend_from_slice(&bytes),
                Some(other @ (Step::Failed(..) | Step::End)) => return other,
                None => {}
            }
        }
        if let Ok(Some(event)) = self.reader.finish()
            && !(self.is_json && sse::is_nonsense(&event))
        {
            let was_finished = self.tap.finished();
            let is_error = self.tap.see(&event) == Sight::Error;
            if is_error && !was_finished {
                return Step::Failed(last.freeze(), error_in(self.dialect, &event));
            }
            if !is_error && (self.tap.finished() || self.tap.ended_well()) {
                match self.joiner.as_mut().map_or(Ok(Emit::AsReceived), |joiner| joiner.take(&event)) {
                    Ok(Emit::AsReceived) => {
                        last.extend_from_slice(event.raw.trim_ascii_end());
                        last.extend_from_slice(b"\n\n");
                    }
                    Ok(Emit::Instead(bytes)) => last.extend_from_slice(&bytes),
                    Ok(Emit::Nothing) => {}
                    Err(unfit) => return Step::Failed(last.freeze(), not_resumed(unfit)),
                }
            }
        }
        if !self.tap.ended_well() {
            if !self.tap.finished() {
                let cut = "the upstream ended the stream before the answer was complete";
                return Step::Failed(last.freeze(), Outcome::new(Kind::Cut, cut));
            }
            last.extend_from_slice(self.tap.missing_end());
        }
        if last.is_empty() { Step::End } else { Step::Bytes(last.freeze()) }
    }
}

/// What could be read goes on, then it is over.
fn then_failed(step: Option<Step>, outcome: Outcome) -> Step {
    match step {
        Some(Step::Bytes(bytes)) => Step::Failed(bytes, outcome),
        Some(failed @ Step::Failed(..)) => failed,
        Some(Step::End) | None => Step::Failed(Bytes::new(), outcome),
    }
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

fn error_in(dialect: Dialect, event: &sse::Event<'_>) -> Outcome {
    let unknown = || Outcome::new(Kind::ServerError, "the upstream sent an error inside its stream");
    classify_event(dialect, event).unwrap_or_else(unknown)
}

/// Why the answer of an attempt to resume is not relayed.
pub fn not_resumed(why: Unfit) -> Outcome {
    Outcome::new(Kind::NotResumed, why.to_string())
}
