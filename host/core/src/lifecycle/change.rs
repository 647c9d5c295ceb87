//! A change of the policy in force, and the intention behind it.

use super::history::{End, Incoming, Origin, Source};

/// The number of an intention; a newer one has a larger number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Intent(pub(super) u64);

/// A policy that was compiled and found good, to be put in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Number of the intention behind it.
    pub intent: Intent,
    /// Component, origin and settings of the policy.
    pub incoming: Incoming,
    /// The reason why the policy before it ends.
    pub end: End,
    /// The same in a sentence.
    pub why: String,
    /// True for a revision from the history: it says nothing about the content of the configured source.
    pub is_kept: bool,
    /// A sentence for the operator that stays visible while this policy is in force.
    pub warning: Option<String>,
    /// The verdict of the promotion that ends with it; none: it is not the candidate.
    pub verdict: Option<String>,
}

impl Change {
    /// A new component that replaces the policy in force.
    pub fn to(intent: Intent, incoming: Incoming, why: String) -> Self {
        Self { intent, incoming, end: End::Replaced, why, is_kept: false, warning: None, verdict: None }
    }

    /// The content of the configured source after this change; none: as before.
    pub(super) fn source(&self) -> Option<Source> {
        let file = match &self.incoming.origin {
            Origin::Embedded => None,
            Origin::File(file) => Some(file.clone()),
            Origin::Upload => return None,
        };
        (!self.is_kept).then_some(Source { file, hash: self.incoming.hash })
    }
}

/// The policy is not put in force: a newer intention has been meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {by} came into force meanwhile, by a newer request; send this one again if it is still wanted")]
pub struct Superseded {
    /// Name of the revision in force.
    pub by: String,
}
