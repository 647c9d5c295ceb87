//! Faults in the log: one line for each kind and second, however many there are.

use std::sync::{Mutex, PoisonError};

use super::{Fault, FaultKind, LOG_TARGET};

/// Time of the last log line for each kind, and the number of faults since. Times are the queries'.
#[derive(Default)]
pub(super) struct FaultLog(Mutex<[Kind; FaultKind::ALL.len()]>);

#[derive(Clone, Copy, Default)]
struct Kind {
    second: u64,
    skipped: u64,
}

impl FaultLog {
    /// Tells the fault, unless one of its kind was told in this second.
    #[cold]
    pub(super) fn record(&self, revision: &str, now_ms: u64, fault: &Fault, instead: &str) {
        let Some(not_logged) = self.take(now_ms, fault.kind) else { return };
        let (kind, error) = (fault.kind.as_str(), &fault.message);
        tracing::warn!(target: LOG_TARGET, policy = revision, kind, error, not_logged, "the policy failed; {instead}");
    }

    /// Returns the number of faults of this kind left out since the last line; `None`: leave this one out too.
    fn take(&self, now_ms: u64, kind: FaultKind) -> Option<u64> {
        let second = now_ms / 1_000;
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = &mut kinds[kind as usize];
        // Questions that were put in the second before still come in; a clock that was set back counts anew.
        if kind.second.checked_sub(second).is_some_and(|earlier| earlier < 60) {
            kind.skipped += 1;
            return None;
        }
        kind.second = second;
        Some(std::mem::take(&mut kind.skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_one_line_a_second_which_counts_the_others() {
        let log = FaultLog::default();
        assert_eq!(log.take(5_000, FaultKind::Trap), Some(0));
        for ms in 5_001..5_500 {
            assert_eq!(log.take(ms, FaultKind::Trap), None);
        }
        assert_eq!(log.take(4_999, FaultKind::Trap), None, "put before, answered after");
        assert_eq!(log.take(5_999, FaultKind::Memory), Some(0), "another kind");
        assert_eq!(log.take(6_000, FaultKind::Trap), Some(500));
        assert_eq!(log.take(7_000, FaultKind::Trap), Some(0));
    }
}
