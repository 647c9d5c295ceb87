//! Changes that were refused.

use crate::time::Timestamp;

use super::component::Hash;

/// The way on which a change was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// The configured source holds it.
    Source,
    /// It was uploaded to the operator's API.
    Upload,
    /// The operator or the fault breaker goes back to it.
    Rollback,
}

/// A refused change; what was in force before stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Time of the refusal.
    pub at: Timestamp,
    /// The file, `upload` or `rollback`.
    pub source: String,
    /// The reason, and what to do.
    pub error: String,
}

/// The refusals that still stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    /// The content of the policy file, where it is refused, and the reason.
    pub(super) content: Option<(Hash, String)>,
    /// The latest error about the configured source; it is not repeated.
    pub(super) source_error: Option<String>,
    pub(super) policy: Option<(Requested, Refusal)>,
    pub(super) config: Option<Refusal>,
    /// Warnings about the configuration file that were logged.
    pub(super) warnings: Vec<String>,
}

impl Refusals {
    /// Another policy is in force: nothing about policies is refused any more.
    pub(super) fn settle(&mut self, now: Timestamp, warning: Option<String>) {
        self.policy = warning.map(|error| {
            let source = "rollback".to_owned();
            (Requested::Rollback, Refusal { at: now, source, error })
        });
        self.source_error = None;
        self.content = None;
    }

    pub(super) fn forget_requests(&mut self) {
        self.policy.take_if(|(requested, _)| *requested != Requested::Source);
    }

    /// The source holds what is in force or known. True where it had been refused.
    pub(super) fn source_is_good(&mut self) -> bool {
        self.content = None;
        self.policy.take_if(|(requested, _)| *requested == Requested::Source);
        self.source_error.take().is_some()
    }

    pub(super) fn refuse_content(&mut self, hash: Hash, why: &str) {
        self.content = Some((hash, why.to_owned()));
    }

    /// The reason why this content of the source was refused before.
    pub(super) fn of_content(&self, hash: Hash) -> Option<&str> {
        self.content.as_ref().filter(|(known, _)| *known == hash).map(|(_, why)| why.as_str())
    }
}
