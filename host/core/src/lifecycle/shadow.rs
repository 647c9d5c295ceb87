//! Results of a shadow policy, which is asked the questions of the policy in force without being carried out.

use crate::divergence::Divergence;

/// The result of asking the shadow policy, compared with the decision in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowResult {
    /// The same decision.
    Same,
    /// Another backend that was as good; counts as no difference.
    Tie,
    /// The same backend with other terms.
    Terms,
    /// Another backend of the same lane.
    Backend,
    /// Another lane.
    Lane,
    /// One waits, the other sends.
    Wait,
    /// One rejects, the other does not.
    Reject,
    /// It failed.
    Fault,
}

impl ShadowResult {
    /// Every result.
    pub const ALL: [ShadowResult; 8] = [
        ShadowResult::Same,
        ShadowResult::Tie,
        ShadowResult::Terms,
        ShadowResult::Backend,
        ShadowResult::Lane,
        ShadowResult::Wait,
        ShadowResult::Reject,
        ShadowResult::Fault,
    ];

    /// True unless the shadow decided the same or chose another backend that was as good.
    pub const fn is_different(self) -> bool {
        !matches!(self, ShadowResult::Same | ShadowResult::Tie)
    }

    /// The name in the API and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            ShadowResult::Same => Divergence::Same.as_str(),
            ShadowResult::Tie => Divergence::Tie.as_str(),
            ShadowResult::Terms => Divergence::Terms.as_str(),
            ShadowResult::Backend => Divergence::Backend.as_str(),
            ShadowResult::Lane => Divergence::Lane.as_str(),
            ShadowResult::Wait => Divergence::Wait.as_str(),
            ShadowResult::Reject => Divergence::Reject.as_str(),
            ShadowResult::Fault => "fault",
        }
    }
}

impl From<Divergence> for ShadowResult {
    fn from(divergence: Divergence) -> Self {
        match divergence {
            Divergence::Same => ShadowResult::Same,
            Divergence::Tie => ShadowResult::Tie,
            Divergence::Terms => ShadowResult::Terms,
            Divergence::Backend => ShadowResult::Backend,
            Divergence::Lane => ShadowResult::Lane,
            Divergence::Wait => ShadowResult::Wait,
            Divergence::Reject => ShadowResult::Reject,
        }
    }
}

/// The reason why a question was not put to the shadow policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowDrop {
    /// The queue was full.
    Queue,
    /// Its share of a processor was used up.
    Share,
    /// The configuration had just changed: the exchange and the shadow had different tables.
    Table,
    /// All instances of policies were in use; no other gives up one for it.
    Busy,
}

impl ShadowDrop {
    /// Every reason.
    pub const ALL: [ShadowDrop; 4] = [ShadowDrop::Queue, ShadowDrop::Share, ShadowDrop::Table, ShadowDrop::Busy];

    /// The name in the API and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            ShadowDrop::Queue => "queue",
            ShadowDrop::Share => "share",
            ShadowDrop::Table => "table",
            ShadowDrop::Busy => "busy",
        }
    }
}
