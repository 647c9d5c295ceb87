//! Counters of the shadow policy.

use std::fmt;
use std::time::Duration;

use pointsman_core::lifecycle::shadow::{ShadowDrop, ShadowResult};

use super::instruments::Count;
use super::page::Page;

/// The counts of all shadows there were.
#[derive(Debug, Default)]
pub(super) struct ShadowCounts {
    results: [Count; ShadowResult::ALL.len()],
    drops: [Count; ShadowDrop::ALL.len()],
    ran_nanos: Count,
}

impl ShadowCounts {
    pub(super) fn asked(&self, result: ShadowResult) {
        self.results[result as usize].inc();
    }

    pub(super) fn dropped(&self, why: ShadowDrop) {
        self.drops[why as usize].inc();
    }

    pub(super) fn ran(&self, time: Duration) {
        self.ran_nanos.inc_by(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
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
