//! Additions to a request on our own account, taken back where a backend refuses them: the wish for a stream's usage, and
//! the limit of an answer's tokens that Anthropic's API demands of clients whose own API does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Attempt;

/// The most models that are remembered of one backend; beyond them each new one is asked with the addition first.
const MAX_MODELS: usize = 1_024;

/// Additions to the requests of one backend: the operator's word, or what was learned.
#[derive(Debug, Default)]
pub struct Additions {
    /// The setting `stream_options`; without it the backend's refusals are learned from.
    setting: Option<bool>,
    has_refused: AtomicBool,
    refused: Mutex<Refused>,
}

/// Additions that a backend refuses, by the model sent.
#[derive(Debug, Default)]
struct Refused {
    usage: BTreeSet<String>,
    /// The most tokens of an answer that a model takes as a limit.
    max_tokens: BTreeMap<String, u64>,
}

/// The additions in the request of one attempt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Added {
    /// The wish for a stream's usage.
    pub(super) usage: Addition,
    /// The limit of the answer's tokens.
    pub(super) max_tokens: Addition,
    /// The limit in the request.
    pub(super) limit: u64,
    /// The limit was refused because of this prompt's length: it says nothing about other requests.
    pub(super) is_of_prompt: bool,
    /// The limit is the client's, who is told that it was lowered.
    pub(super) is_clients: bool,
}

/// An addition in the request of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Addition {
    /// None, or none that may be taken back.
    #[default]
    None,
    /// It was added to the request that was sent.
    Sent,
    /// It was refused, and the request sent again without it.
    LeftOut,
}

impl Additions {
    /// Additions under this setting, with nothing learned yet.
    pub fn new(setting: Option<bool>) -> Self {
        Self { setting, ..Self::default() }
    }

    /// Returns the setting `stream_options` of the backend; none: refusals are learned.
    pub const fn setting(&self) -> Option<bool> {
        self.setting
    }

    /// Returns true if the usage of this model's streams may be asked for.
    pub(super) fn may_ask_usage(&self, model: &str) -> bool {
        self.setting.unwrap_or_else(|| self.learned(|refused| !refused.usage.contains(model)).unwrap_or(true))
    }

    /// Returns the most tokens that this model takes as a limit, if it refused more.
    pub(super) fn max_tokens(&self, model: &str) -> Option<u64> {
        self.learned(|refused| refused.max_tokens.get(model).copied())?
    }

    /// Looks at what was refused; `None`: nothing was, and nothing is locked.
    fn learned<R>(&self, look: impl FnOnce(&Refused) -> R) -> Option<R> {
        let has_refused = self.has_refused.load(Ordering::Relaxed);
        has_refused.then(|| look(&self.refused.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Remembers what an attempt left out before this model answered it.
    pub fn remember_refusal(&self, model: &str, attempt: &Attempt) {
        let Added { usage, max_tokens, limit, is_of_prompt, .. } = attempt.added;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if usage == Addition::LeftOut && refused.usage.len() < MAX_MODELS {
            refused.usage.insert(model.to_owned());
        }
        if max_tokens == Addition::LeftOut && !is_of_prompt && refused.max_tokens.len() < MAX_MODELS {
            refused.max_tokens.insert(model.to_owned(), limit);
        }
        self.has_refused.store(true, Ordering::Relaxed);
    }
}
