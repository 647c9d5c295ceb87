//! Selection of the exchanges that the journal keeps.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pointsman_core::journal::Trail;
use pointsman_core::record::{End, ExchangeRecord};
use pointsman_core::table::Lane;
use pointsman_store::{Bodies, JournalPart};

use super::request::ProxyRequest;
use super::snapshot::Snapshot;

/// Returns true if this exchange is followed. Health checks are not.
pub(super) fn is_kept(snapshot: &Snapshot, request: &ProxyRequest) -> bool {
    snapshot.config.journal.sample > 0.0 && request.pinned.is_none()
}

/// Returns the journal's part of an exchange that has ended: of a random sample, and of unusual ones.
pub(super) fn part(
    trail: Box<Trail>,
    bodies: Option<Box<Bodies>>,
    snapshot: &Snapshot,
    record: &ExchangeRecord,
) -> Option<Box<JournalPart>> {
    // No policy was asked: the record says all there is.
    if record.denied.is_some() {
        return None;
    }
    let sampled = draw(&record.id) < snapshot.config.journal.sample;
    let keep = sampled || !is_ordinary(record);
    keep.then(|| Box::new(JournalPart { trail, setup: Arc::clone(&snapshot.setup), sampled, bodies }))
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
