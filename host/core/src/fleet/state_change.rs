//! Changes of a backend's state that an operator should hear of, and how many of them are reported.

use std::sync::Arc;
use std::time::Duration;

use crate::outcome::Kind;
use crate::time::Timestamp;

/// A backend (or a model on it) without an answer for this long, from its first failure to the end of its cooldown, is
/// reported; shorter cooldowns are the daily life of rate-limited keys.
pub const REPORTED_OUTAGE: Duration = Duration::from_secs(5);

/// Changes reported of one backend within [`REPORT_WINDOW`]; the others are counted.
pub const MAX_REPORTS: u32 = 6;

/// The time that [`MAX_REPORTS`] is for.
pub const REPORT_WINDOW: Duration = Duration::from_secs(60);

/// A change of a backend's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Time of the change.
    pub at: Timestamp,
    /// Id of the backend.
    pub backend: Arc<str>,
    /// The model it is about, as it is named to the backend; none: the whole backend, or one of its operations.
    pub model: Option<Arc<str>>,
    /// The operation it is about; none: all of them.
    pub operation: Option<Arc<str>>,
    /// The new state, with its cause.
    pub change: Change,
    /// Changes of this backend that were not reported since the last one that was.
    pub left_out: u32,
}

/// A change of a backend's state, with its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its key is refused, its credit is used up, or it does not have the model: a retry before `until` is pointless.
    Excluded {
        /// The end of the exclusion.
        until: Timestamp,
        /// The outcome that caused it.
        reason: Kind,
    },
    /// It has failed for longer than [`REPORTED_OUTAGE`], or will not be used for that long.
    Cooling {
        /// The end of the cooldown.
        until: Timestamp,
        /// The outcome that caused it.
        reason: Kind,
        /// Failures since the last answer.
        failures: u32,
    },
    /// It answered again after a reported cooldown or exclusion.
    Back {
        /// From the first failure to this answer.
        after: Duration,
    },
    /// The operator ended its cooldowns, or gave it another key or address; the next attempt is a probe.
    Cleared,
    /// The operator took it out of service.
    Drained,
    /// The operator put it back into service.
    Resumed,
}

impl Change {
    /// Name in logs and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Change::Excluded { .. } => "excluded",
            Change::Cooling { .. } => "cooling",
            Change::Back { .. } => "back",
            Change::Cleared => "cleared",
            Change::Drained => "drained",
            Change::Resumed => "resumed",
        }
    }

    /// The outcome behind it, and the end of what it began.
    pub const fn cooldown(self) -> Option<(Timestamp, Kind)> {
        match self {
            Change::Excluded { until, reason } | Change::Cooling { until, reason, .. } => Some((until, reason)),
            Change::Back { .. } | Change::Cleared | Change::Drained | Change::Resumed => None,
        }
    }
}

/// Limits what is reported of one backend: a flapping one does not flood the log. The newest change that was left out is
/// reported when the window is over, so that the last report is never out of date for longer than that.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    window_began: Timestamp,
    reported: u32,
    left_out: u32,
    newest_left_out: Option<StateChange>,
}

impl Reporter {
    /// The change, if it may be reported now.
    pub(crate) fn report(&mut self, change: StateChange) -> Option<StateChange> {
        if change.at.since(self.window_began) >= REPORT_WINDOW {
            self.window_began = change.at;
            self.reported = 0;
        }
        if self.reported >= MAX_REPORTS {
            self.left_out = self.left_out.saturating_add(1);
            self.newest_left_out = Some(change);
            return None;
        }
        self.reported += 1;
        self.newest_left_out = None;
        Some(StateChange { left_out: std::mem::take(&mut self.left_out), ..change })
    }

    /// The newest change that was left out, once the window is over.
    pub(crate) fn overdue(&mut self, now: Timestamp) -> Option<StateChange> {
        if now.since(self.window_began) < REPORT_WINDOW {
            return None;
        }
        let newest = self.newest_left_out.take()?;
        self.left_out -= 1;
        self.window_began = now;
        self.reported = 1;
        Some(StateChange { left_out: std::mem::take(&mut self.left_out), ..newest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(ms: u64, change: Change) -> StateChange {
        StateChange {
            at: Timestamp::from_millis(1_700_000_000_000 + ms),
            backend: "a".into(),
            model: None,
            operation: None,
            change,
            left_out: 0,
        }
    }

    #[test]
    fn a_flapping_backend_is_reported_so_often_a_minute_and_its_last_state_in_the_end() {
        let mut reporter = Reporter::default();
        let flap = |i: u64| if i.is_multiple_of(2) { Change::Drained } else { Change::Resumed };
        let reported = (0..100).filter_map(|i| reporter.report(change(i * 100, flap(i)))).count();
        assert_eq!(reported, MAX_REPORTS as usize);
        let last = change(9_900, flap(99));
        assert_eq!(reporter.overdue(last.at + Duration::from_secs(50)), None, "the window is not over");
        let told = reporter.overdue(last.at + REPORT_WINDOW).expect("the window is over");
        assert_eq!((told.change, told.left_out), (Change::Resumed, 93));
        assert_eq!(reporter.overdue(last.at + REPORT_WINDOW * 2), None, "it is reported once");
    }

    #[test]
    fn a_change_in_the_next_window_brings_the_count_with_it() {
        let mut reporter = Reporter::default();
        for i in 0..8 {
            reporter.report(change(i, Change::Drained));
        }
        let told = reporter.report(change(60_000, Change::Resumed)).expect("a new window");
        assert_eq!((told.change, told.left_out), (Change::Resumed, 2));
        assert_eq!(reporter.overdue(told.at + REPORT_WINDOW), None, "nothing newer was left out");
    }
}
