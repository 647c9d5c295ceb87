//! Answers without bytes: what a simulation says of a body in place of making and reading it.

use super::piece::{Piece, cut_short};
use crate::record::Usage;

/// Summary of a part of a body, in place of its bytes. Pieces in quick succession may be one digest, with the time of
/// the last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Digest {
    /// Number of content events.
    pub contents: u64,
    /// Something of it is new to a client that has the beginning of the answer already; of use to an attempt that
    /// resumes.
    pub is_new: bool,
    /// The model said why it stopped.
    pub is_finish: bool,
    /// The provider told the usage.
    pub usage: Option<Usage>,
}

/// A prompt's tokens as a backend counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptCount {
    /// Tokens of the whole prompt.
    pub tokens: u32,
    /// Those that it had cached.
    pub cached: u32,
}

/// All that was digested of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digested {
    pub(super) contents: u64,
    pub(super) is_finished: bool,
    pub(super) has_joined: bool,
    pub(super) resumes: bool,
    /// True for a stream; known with the head.
    pub(super) is_stream: bool,
    usage: Option<Usage>,
    /// None: usage is not known in this dialect.
    prompt: Option<PromptCount>,
}

impl Digested {
    pub(super) const fn new(resumes: bool, prompt: Option<PromptCount>) -> Self {
        let (is_finished, has_joined) = (false, !resumes);
        Self { contents: 0, is_finished, has_joined, resumes, is_stream: false, usage: None, prompt }
    }

    pub(super) fn add(&mut self, digest: Digest) {
        self.contents += digest.contents;
        self.is_finished |= digest.is_finish;
        self.has_joined |= digest.is_new;
        self.usage = digest.usage.or(self.usage);
    }

    /// The model has finished, and the usage was told.
    pub(super) const fn has_told_all(&self) -> bool {
        self.is_finished && self.usage.is_some()
    }

    pub(super) fn end(&self) -> Piece {
        let failed = (self.is_stream && !self.is_finished).then(cut_short);
        Piece { failed, ..Piece::default() }
    }

    /// As the provider told it; else counted.
    pub(super) fn usage(&self) -> Usage {
        match (self.usage, self.prompt) {
            (Some(usage), _) => usage,
            (None, Some(prompt)) if self.contents > 0 => Usage {
                input_tokens: prompt.tokens.into(),
                output_tokens: self.contents,
                cached_input_tokens: prompt.cached.into(),
                estimated: true,
                ..Usage::NONE
            },
            (None, Some(_) | None) => Usage::default(),
        }
    }
}
