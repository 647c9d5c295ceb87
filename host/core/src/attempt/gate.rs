//! The commit gate of streams: what came is held back until it may go downstream.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;

use super::events::not_resumed;
use super::form::{Form, MAX_EVENTS_BYTES};
use super::piece::Piece;
use super::{Attempt, Output, Phase};
use crate::contract::Commit;
use crate::dialect::classify::empty_answer;
use crate::dialect::resume::Unfit;
use crate::outcome::{Kind, Outcome};
use crate::record::Usage;
use crate::time::Timestamp;

/// The most of a stream that is held back for the commit gate; then it is committed, whatever the gate says.
pub(super) const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

impl Attempt {
    /// Holds a stream that begins back until the commit gate opens.
    pub(super) fn gate_stream(&mut self) -> Output {
        self.phase = Phase::Gated;
        self.deadlines.await_first_token();
        if let Some(head) = &mut self.head {
            // Events may be left out, or an error added.
            head.headers.remove(CONTENT_LENGTH);
        }
        self.hold(Bytes::new())
    }

    pub(super) fn hold(&mut self, bytes: Bytes) -> Output {
        self.held.push(bytes);
        if self.form == Form::Json {
            return if self.held.len() > MAX_EVENTS_BYTES { self.too_long_to_join() } else { Output::Wait };
        }
        if self.is_open() || self.held.len() > MAX_HELD_BYTES { self.commit() } else { Output::Wait }
    }

    pub(super) fn commit(&mut self) -> Output {
        self.phase = Phase::Relaying;
        self.body = Ok(Bytes::new());
        self.deadlines.committed();
        Output::Commit(self.held.take())
    }

    /// A stream ended while it was held back.
    pub(super) fn gated_end(&mut self, now: Timestamp) -> Output {
        let Piece { bytes, failed } = self.reading.end();
        self.note_first_token(now);
        if let Some(outcome) = failed {
            let usage = self.usage();
            return self.ended(Bytes::new(), outcome, usage);
        }
        if !self.reading.has_joined() {
            let usage = self.usage();
            return self.ended(Bytes::new(), not_resumed(Unfit::Shorter), usage);
        }
        if self.first_token.is_none() && !self.reading.is_finished() {
            let empty = Outcome::new(Kind::Malformed, "the stream ended without an answer in it");
            return self.ended(Bytes::new(), empty, Usage::default());
        }
        if !self.has_answer() {
            return self.ended(Bytes::new(), empty_answer(), Usage::default());
        }
        self.held.push(bytes);
        let usage = self.usage();
        let held = self.held.take();
        let told = if self.form == Form::Json { self.stream_as_whole(held) } else { Ok(held) };
        match told {
            Ok(told) => {
                let ended = self.close(self.answered(), usage);
                Output::Whole(told, ended)
            }
            Err(failed) => self.ended(Bytes::new(), failed, usage),
        }
    }

    /// Returns true if the stream has something in it, or need not have.
    fn has_answer(&self) -> bool {
        self.may_be_empty() || self.reading.has_answer()
    }

    fn is_open(&self) -> bool {
        if self.reading.resumes() {
            // Held until it says something new.
            return self.reading.has_joined();
        }
        // An empty answer is held: its usage, which may follow, says whether it is one.
        let is_finished = self.reading.is_finished() && self.has_answer();
        let contents = self.reading.content_events();
        match self.commit {
            Commit::Headers => true,
            Commit::FirstContent => contents > 0 || is_finished,
            Commit::Tokens(n) => contents >= u64::from(n) || is_finished,
            // Only the end of the body opens it.
            Commit::Complete => false,
        }
    }
}
