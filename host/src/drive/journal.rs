//! Which exchanges the journal keeps.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pointsman_core::journal::Trail;
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::table::Lane;

use super::request::Asked;
use super::snapshot::Snapshot;
use crate::store::JournalPart;

/// Is this one followed? A health check is nobody's request.
pub(super) fn is_kept(snapshot: &Snapshot, asked: &Asked) -> bool {
    snapshot.config.journal.sample > 0.0 && asked.only.is_none()
}

/// What is kept of an exchange that has ended: all of a sample by chance, and those beside it that one may ask about.
pub(super) fn part(trail: Box<Trail>, snapshot: &Snapshot, record: &ExchangeRecord) -> Option<Box<JournalPart>> {
    let sampled = draw(&record.id) < snapshot.config.journal.sample;
    let keep = sampled || !is_ordinary(record);
    keep.then(|| Box::new(JournalPart { trail, setup: Arc::clone(&snapshot.setup), sampled }))
}

/// Answered by the first primary asked, without a wait or a fault?
fn is_ordinary(record: &ExchangeRecord) -> bool {
    record.end == End::Delivered
        && record.lane == Some(Lane::Primary)
        && record.attempts.len() == 1
        && record.waits == 0
        && record.policy_faults == 0
}

/// 0..1, the same for the same request.
fn draw(request_id: &str) -> f64 {
    let mut hasher = DefaultHasher::new();
    request_id.hash(&mut hasher);
    hasher.finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_requests_is_drawn() {
        let drawn = (0..10_000).filter(|n| draw(&format!("req_{n:x}")) < 0.25).count();
        assert!((2_300..2_700).contains(&drawn), "{drawn}");
    }
}
