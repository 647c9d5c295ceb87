//! Results of a shadow policy, which is asked the questions of the policy in force without being carried out.

use crate::divergence::Divergence;

vocabulary! {
    /// The result of asking the shadow policy, compared with the decision in force.
    pub enum ShadowResult {
        /// The same decision.
        Same = "same",
        /// Another backend that was as good; counts as no difference.
        Tie = "tie",
        /// The same backend with other terms.
        Terms = "terms",
        /// Another backend of the same lane.
        Backend = "backend",
        /// Another lane.
        Lane = "lane",
        /// One waits, the other sends.
        Wait = "wait",
        /// One rejects, the other does not.
        Reject = "reject",
        /// The shadow failed to decide.
        Fault = "fault",
    }
}

impl ShadowResult {
    /// True unless the shadow decided the same or chose another backend that was as good.
    pub const fn is_different(self) -> bool {
        !matches!(self, ShadowResult::Same | ShadowResult::Tie)
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

vocabulary! {
    /// The reason why a question was not put to the shadow policy.
    pub enum ShadowDrop {
        /// The queue of questions was full.
        Queue = "queue",
        /// Its share of a processor was used up.
        Share = "share",
        /// The configuration had just changed: the exchange and the shadow had different tables.
        Table = "table",
        /// All instances of policies were in use; no other gives up one for it.
        Busy = "busy",
    }
}
