//! What is counted of the shadow policy.

use std::fmt;
use std::time::Duration;

use pointsman_core::divergence::Divergence;

use super::cells::Count;
use super::exposition::Page;

/// What asking the shadow came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowResult {
    /// It decided the same.
    Same,
    /// Another backend that was as good; no difference.
    Tie,
    /// The same way, on other terms.
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

    /// Would the shadow have done something else?
    pub const fn is_different(self) -> bool {
        !matches!(self, ShadowResult::Same | ShadowResult::Tie)
    }

    /// The word for it.
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

/// Why the shadow was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowDrop {
    /// As many questions as may were waiting.
    Queue,
    /// It had used up its share of a processor.
    Share,
    /// The configuration had just changed: the exchange and the shadow had different tables.
    Table,
    /// All instances of policies were in use; no other gives up one for it.
    Busy,
}

impl ShadowDrop {
    /// Every reason.
    pub const ALL: [ShadowDrop; 4] = [ShadowDrop::Queue, ShadowDrop::Share, ShadowDrop::Table, ShadowDrop::Busy];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ShadowDrop::Queue => "queue",
            ShadowDrop::Share => "share",
            ShadowDrop::Table => "table",
            ShadowDrop::Busy => "busy",
        }
    }
}

/// The counts of all shadows there were.
#[derive(Debug, Default)]
pub(super) struct ShadowCounts {
    results: [Count; ShadowResult::ALL.len()],
    drops: [Count; ShadowDrop::ALL.len()],
    ran_nanos: Count,
}

impl ShadowCounts {
    pub(super) fn asked(&self, result: ShadowResult) {
        self.results[result as usize].add(1);
    }

    pub(super) fn dropped(&self, why: ShadowDrop) {
        self.drops[why as usize].add(1);
    }

    pub(super) fn ran(&self, time: Duration) {
        self.ran_nanos.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counters(
            "pointsman_policy_shadow_decisions",
            "Decisions of the shadow, by how they differ from what was done",
            |series| {
                let mut all = ShadowResult::ALL.iter().zip(&self.results);
                all.try_for_each(|(result, count)| series.counter(&[("result", result.as_str())], count.get()))
            },
        )?;
        page.counters("pointsman_policy_shadow_dropped", "Questions that the shadow was not asked", |series| {
            let mut all = ShadowDrop::ALL.iter().zip(&self.drops);
            all.try_for_each(|(why, count)| series.counter(&[("why", why.as_str())], count.get()))
        })?;
        page.counters("pointsman_policy_shadow_seconds", "Running time of the shadow", |series| {
            series.counter(&[], self.ran_nanos.get() as f64 / 1e9)
        })
    }
}
