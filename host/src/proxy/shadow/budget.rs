//! Time budget of the shadow: a share of one processor, measured by its own running time.

use std::time::Duration;

/// Running time that may be saved up while nothing is asked.
const MAX_SAVED: Duration = Duration::from_millis(10);

/// An account of running time, in seconds; what was run beyond it is a debt.
#[derive(Debug)]
pub(super) struct Budget {
    share: f64,
    saved: f64,
}

impl Budget {
    /// A full account that is paid this share of the time that passes, above 0 and at most 1.
    pub(super) fn new(share: f64) -> Self {
        Self { share, saved: MAX_SAVED.as_secs_f64() }
    }

    /// So much time has passed, and so much of it was spent running. Answers how long to pause before more is.
    pub(super) fn settle(&mut self, passed: Duration, ran: Duration) -> Option<Duration> {
        let earned = passed.as_secs_f64() * self.share;
        self.saved = (self.saved + earned - ran.as_secs_f64()).min(MAX_SAVED.as_secs_f64());
        (self.saved < 0.0).then(|| Duration::from_secs_f64(-self.saved / self.share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_runs_for_its_share_whatever_a_question_costs() {
        for (share, cost) in [(0.1, MS * 6), (0.01, MS / 10), (0.5, MS * 700), (1.0, MS)] {
            let mut budget = Budget::new(share);
            let (mut passed, mut ran) = (Duration::ZERO, Duration::ZERO);
            while passed < MS * 600_000 {
                let pause = budget.settle(cost, cost).unwrap_or_default();
                budget.settle(pause, Duration::ZERO);
                passed += cost + pause;
                ran += cost;
            }
            let used = ran.as_secs_f64() / passed.as_secs_f64();
            assert!(used <= share * 1.02 && used >= share * 0.98, "{used} of {share}");
        }
    }

    #[test]
    fn a_rest_saves_up_for_a_moment_only() {
        let mut budget = Budget::new(0.1);
        assert_eq!(budget.settle(MS * 3_600_000, Duration::ZERO), None);
        assert_eq!(budget.settle(MS * 10, MS * 10), None);
        assert!(budget.settle(MS * 10, MS * 10).is_some_and(|pause| pause > MS * 75));
    }
}
