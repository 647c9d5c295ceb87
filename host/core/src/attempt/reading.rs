//! Reading modes of an answer's body: by events, as passing bytes, or digested.
//!
//! Every way says the same few things of a body: how much content came, whether the model has finished, whether it says
//! something new, what was used. The gate, the deadlines and the end are decided on these alone.

use bytes::Bytes;

use super::digest::{Digest, Digested};
use super::events::EventReader;
use super::piece::Piece;
use crate::dialect::envelope::Opened;
use crate::dialect::repair::Repairs;
use crate::dialect::resume::Joiner;
use crate::dialect::usage::{Asked as UsageAsked, BodyTap};
use crate::record::Usage;

/// Reader of the body, by what it turned out to be.
pub(super) enum Reading {
    /// Server-sent events.
    Events(Box<EventReader>),
    /// JSON, or anything else that has no parts.
    Body(BodyTap),
    /// Digested pieces in place of bytes, in the lab.
    Digest(Digested),
}

impl Reading {
    pub(super) fn read(&mut self, data: Bytes) -> Piece {
        match self {
            Reading::Events(events) => events.read(data),
            Reading::Body(tap) => {
                tap.push(&data);
                Piece { bytes: data, failed: None }
            }
            Reading::Digest(_) => Piece::default(),
        }
    }

    pub(super) fn digest(&mut self, digest: Digest) {
        match self {
            Reading::Digest(digested) => digested.add(digest),
            Reading::Events(_) | Reading::Body(_) => {}
        }
    }

    /// The body is over: its last bytes, and whether it was whole.
    pub(super) fn end(&mut self) -> Piece {
        match self {
            Reading::Events(events) => events.end(),
            Reading::Body(_) => Piece::default(),
            Reading::Digest(digested) => digested.end(),
        }
    }

    /// Content events so far; 0 for what is not a stream.
    pub(super) fn content_events(&self) -> u64 {
        match self {
            Reading::Events(events) => events.content_events(),
            Reading::Body(_) => 0,
            Reading::Digest(digested) => digested.contents,
        }
    }

    /// Returns true once nothing but a stream's own end is missing: the model has finished, and its usage was told.
    pub(super) fn has_told_all(&self) -> bool {
        match self {
            Reading::Events(events) => events.has_told_all(),
            Reading::Body(_) => false,
            Reading::Digest(digested) => digested.has_told_all(),
        }
    }

    /// Returns true if a stream has content, or its provider counted tokens of it.
    pub(super) fn has_answer(&self) -> bool {
        match self {
            Reading::Events(events) => events.has_answer(),
            Reading::Body(_) => false,
            Reading::Digest(digested) => digested.contents > 0 || digested.usage().output_tokens > 0,
        }
    }

    /// Bytes of a stream that are held.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Reading::Events(events) => events.held_bytes(),
            Reading::Body(_) | Reading::Digest(_) => 0,
        }
    }

    /// Returns the repairs of a stream.
    pub(super) fn repairs(&self) -> Repairs {
        match self {
            Reading::Events(events) => events.repairs(),
            Reading::Body(_) | Reading::Digest(_) => Repairs::default(),
        }
    }

    /// Returns the names and numbers that the client has of a stream.
    pub(super) fn opened(&self) -> Opened {
        match self {
            Reading::Events(events) => events.opened(),
            Reading::Body(_) | Reading::Digest(_) => Opened::default(),
        }
    }

    /// Returns true once the model of a stream has given its finish reason, perhaps without any content.
    pub(super) fn is_finished(&self) -> bool {
        match self {
            Reading::Events(events) => events.is_finished(),
            Reading::Body(_) => false,
            Reading::Digest(digested) => digested.is_finished,
        }
    }

    /// Returns true once a stream's last event was read.
    pub(super) fn has_said_all(&self) -> bool {
        match self {
            Reading::Events(events) => events.has_said_all(),
            Reading::Body(_) => false,
            Reading::Digest(digested) => digested.is_stream && digested.is_finished,
        }
    }

    /// Returns true for a stream that is read by events.
    pub(super) fn is_stream(&self) -> bool {
        match self {
            Reading::Events(_) => true,
            Reading::Body(_) => false,
            Reading::Digest(digested) => digested.is_stream,
        }
    }

    /// Returns true if it continues a delivered text.
    pub(super) fn resumes(&self) -> bool {
        match self {
            Reading::Events(events) => events.joiner().is_some_and(|joiner| !joiner.is_first()),
            Reading::Body(_) => false,
            Reading::Digest(digested) => digested.resumes,
        }
    }

    /// Returns true once it has new text, or if nothing was delivered before.
    pub(super) fn has_joined(&self) -> bool {
        match self {
            Reading::Events(events) => events.joiner().is_none_or(Joiner::has_joined),
            Reading::Body(_) => true,
            Reading::Digest(digested) => digested.has_joined,
        }
    }

    /// Returns true for a stream of which no byte has come.
    pub(super) fn is_untouched(&self) -> bool {
        match self {
            Reading::Events(events) => events.is_untouched(),
            Reading::Body(_) | Reading::Digest(_) => false,
        }
    }

    /// Takes the state of joining out of a stream that turned out to be none.
    pub(super) fn take_joiner(&mut self) -> Option<Joiner> {
        match self {
            Reading::Events(events) => events.take_joiner(),
            Reading::Body(_) | Reading::Digest(_) => None,
        }
    }

    /// Returns the transcript of a stream and the state of joining.
    pub(super) fn joiner(&self) -> Option<&Joiner> {
        match self {
            Reading::Events(events) => events.joiner(),
            Reading::Body(_) | Reading::Digest(_) => None,
        }
    }

    /// Returns the usage so far. `is_answer`: a body is a model's answer, which has used something.
    pub(super) fn usage(&self, asked: &UsageAsked<'_>, is_answer: bool) -> Usage {
        match self {
            Reading::Events(events) => events.usage(asked),
            Reading::Body(tap) => tap.usage(asked, is_answer),
            Reading::Digest(digested) => digested.usage(),
        }
    }
}
