//! What we add to a request on our own account, and take back where a backend refuses it: the wish for a stream's usage.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use memchr::memmem;

use super::request::{ClientRequest, Endpoint};
use super::{Attempt, Output, Phase};
use crate::dialect::classify::BODY_PREFIX_BYTES;
use crate::dialect::splice::without_stream_options;

/// The most models that are remembered of one backend; beyond them each new one is asked with the addition first.
const MAX_MODELS: usize = 1_024;

/// The wish for a stream's usage (`stream_options`) at one backend: the operator's word, or what was learned.
#[derive(Debug, Default)]
pub struct Additions {
    /// The setting `stream_options`; without it the backend's refusals are learned from.
    setting: Option<bool>,
    has_refused: AtomicBool,
    refused_by: Mutex<BTreeSet<String>>,
}

/// The addition in the request of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Addition {
    /// None, or none that may be taken back.
    #[default]
    None,
    /// It was added.
    Sent,
    /// It was refused, and the request sent again without it.
    LeftOut,
}

/// The names of the addition, in a refusal that speaks of it.
const NAMES: [&[u8]; 3] = [b"stream_options", b"include_usage", b"streamOptions"];

/// Words of a refusal that speaks of a member that the server does not know, but does not name it.
const UNKNOWN_MEMBER: [&[u8]; 9] = [
    b"extra fields",
    b"extra inputs",
    b"extra_forbidden",
    b"additional properties",
    b"unknown field",
    b"unknown parameter",
    b"unrecognized",
    b"unexpected field",
    b"unsupported parameter",
];

impl Additions {
    /// Additions under this setting, with nothing learned yet.
    pub fn new(setting: Option<bool>) -> Self {
        Self { setting, ..Self::default() }
    }

    /// Returns the setting.
    pub const fn setting(&self) -> Option<bool> {
        self.setting
    }

    /// Returns true if the usage of this model's streams may be asked for.
    pub(super) fn may_ask_usage(&self, model: &str) -> bool {
        match self.setting {
            Some(setting) => setting,
            None if !self.has_refused.load(Ordering::Relaxed) => true,
            None => !self.refused_by.lock().unwrap_or_else(PoisonError::into_inner).contains(model),
        }
    }

    /// Remembers that this model's streams are answered only without the addition.
    pub fn remember_refusal(&self, model: &str) {
        let mut refused_by = self.refused_by.lock().unwrap_or_else(PoisonError::into_inner);
        if refused_by.len() < MAX_MODELS {
            refused_by.insert(model.to_owned());
            self.has_refused.store(true, Ordering::Relaxed);
        }
    }
}

impl Attempt {
    /// Returns true if this refusal, or error in place of an answer, is of an addition of ours.
    pub(super) fn refuses_addition(&self, refusal: &[u8]) -> bool {
        if self.addition != Addition::Sent || self.is_committed() {
            return false;
        }
        let text = refusal[..refusal.len().min(BODY_PREFIX_BYTES)].to_ascii_lowercase();
        let says = |word: &[u8]| memmem::find(&text, &word.to_ascii_lowercase()).is_some();
        let is_client_error = matches!(self.status, 400 | 422);
        NAMES.into_iter().any(says)
            || is_client_error && (text.trim_ascii().is_empty() || UNKNOWN_MEMBER.into_iter().any(says))
    }

    /// Returns true while the request may have to be sent once more.
    pub(super) fn may_send_again(&self) -> bool {
        self.addition == Addition::Sent
    }

    /// Asks for the request to be sent once more, without the addition.
    pub(super) fn send_again(&mut self) -> Output {
        self.addition = Addition::LeftOut;
        self.phase = Phase::Sending;
        self.head = None;
        self.held.take();
        if let Some(joiner) = self.reading.take_joiner() {
            self.joiner = Some(joiner);
        }
        self.deadlines.sent_again();
        Output::SendAgain
    }

    /// Prepares the request for being sent again, after [`Output::SendAgain`].
    pub fn leave_out(&mut self, request: &ClientRequest<'_>, endpoint: &Endpoint, model: &str) {
        let sent = std::mem::replace(&mut self.body, Ok(Bytes::new()));
        self.body = match request.body_facts {
            Some(facts) if self.translated.is_none() && !self.prefilled => {
                Ok(request.changed(request.body, facts, endpoint.dialect, model, false))
            }
            Some(_) | None => sent.map(|body| without_stream_options(&body)),
        };
    }

    /// Returns true if the request was sent again without an addition.
    pub fn has_left_out(&self) -> bool {
        self.addition == Addition::LeftOut
    }
}
