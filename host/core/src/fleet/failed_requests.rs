//! Requests that failed lately, and where: one that fails alike at two backends is itself to blame.

use std::collections::HashMap;
use std::time::Duration;

use super::health::may_be_requests;
use crate::outcome::{Kind, Outcome};
use crate::time::Timestamp;

/// Time for which a failed request is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// Time for which new requests are compared with one that failed at one backend only.
const COMPARED_FOR: Duration = Duration::from_secs(60);

/// Requests remembered; beyond it the one that failed first is dropped.
const MAX_REQUESTS: usize = 1_024;

/// Backends remembered of one request.
const MAX_PLACES: usize = 8;

/// Requests that wait for the answer that shows them to be to blame; beyond it the oldest is dropped.
const MAX_SUSPECTS: usize = 64;

/// The requests that failed lately.
#[derive(Debug, Default)]
pub(super) struct FailedRequests {
    map: HashMap<u64, FailedRequest>,
    /// Requests that failed alike at two backends, neither of which has answered another one since.
    suspects: Vec<u64>,
    /// Time until which new requests are to be compared with these.
    compared_until: Timestamp,
}

#[derive(Debug)]
struct FailedRequest {
    /// Outcome of its last failure.
    kind: Kind,
    status: Option<u16>,
    /// The backends, by their slots, that it failed alike at.
    places: Vec<usize>,
    failed_at: Timestamp,
}

/// The verdict on a failure, by comparison with the earlier ones of the same request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// It failed alike at another backend, so that it is to blame.
    pub(super) is_blamed: bool,
    /// The slots of those other backends, when this is the failure that shows it.
    pub(super) cleared: Vec<usize>,
}

impl FailedRequests {
    /// Records a failure and compares it.
    pub(super) fn failed(&mut self, now: Timestamp, request: u64, slot: usize, outcome: &Outcome) -> Comparison {
        if request == 0 || !may_be_requests(outcome.kind) {
            return Comparison::default();
        }
        self.make_room(now, request);
        let is_alike = |known: &FailedRequest| known.kind == outcome.kind && known.status == outcome.status;
        let fresh = || FailedRequest { kind: outcome.kind, status: outcome.status, places: Vec::new(), failed_at: now };
        let known = self.map.entry(request).or_insert_with(fresh);
        if !is_alike(known) || now.since(known.failed_at) >= REMEMBERED_FOR {
            *known = fresh();
        }
        known.failed_at = now;
        let was_blamed = known.places.len() > 1;
        if !known.places.contains(&slot) && known.places.len() < MAX_PLACES {
            known.places.push(slot);
        }
        let is_blamed = known.places.len() > 1;
        let compared_for = if is_blamed { REMEMBERED_FOR } else { COMPARED_FOR };
        self.compared_until = self.compared_until.max(now + compared_for);
        if is_blamed && !was_blamed {
            self.suspects.truncate(MAX_SUSPECTS - 1);
            self.suspects.insert(0, request);
        }
        let others = known.places.iter().copied().filter(|place| *place != slot);
        Comparison { is_blamed, cleared: if is_blamed && !was_blamed { others.collect() } else { Vec::new() } }
    }

    /// Records that a request was answered.
    pub(super) fn answered(&mut self, request: u64) {
        if !self.map.is_empty() {
            self.map.remove(&request);
        }
    }

    /// Records that a backend, by its slot, answered a request. Returns the requests that this shows to be to blame, with the
    /// slots of the backends they failed at: they failed there alike, and there others are served.
    pub(super) fn shown_by_answer_at(&mut self, slot: usize) -> Vec<(u64, Vec<usize>)> {
        if self.suspects.is_empty() {
            return Vec::new();
        }
        let mut shown = Vec::new();
        let map = &self.map;
        self.suspects.retain(|request| {
            let Some(known) = map.get(request) else { return false };
            let is_shown = known.places.contains(&slot);
            if is_shown {
                shown.push((*request, known.places.clone()));
            }
            !is_shown
        });
        shown
    }

    /// Returns true if this request failed alike at two backends.
    pub(super) fn is_blamed(&self, now: Timestamp, request: u64) -> bool {
        let known = self.map.get(&request);
        known.is_some_and(|known| known.places.len() > 1 && now.since(known.failed_at) < REMEMBERED_FOR)
    }

    /// Returns true if a request failed lately, so that a new one has to be compared; also where it was answered elsewhere
    /// since, because its way to where it failed is still closed.
    pub(super) fn any(&self, now: Timestamp) -> bool {
        now < self.compared_until
    }

    fn make_room(&mut self, now: Timestamp, request: u64) {
        if self.map.len() < MAX_REQUESTS || self.map.contains_key(&request) {
            return;
        }
        self.map.retain(|_, known| now.since(known.failed_at) < REMEMBERED_FOR);
        if self.map.len() >= MAX_REQUESTS
            && let Some(oldest) = self.map.iter().min_by_key(|(_, known)| known.failed_at).map(|(request, _)| *request)
        {
            self.map.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    fn failed(kind: Kind, status: u16) -> Outcome {
        Outcome { status: Some(status), ..Outcome::new(kind, "") }
    }

    #[test]
    fn the_second_backend_that_fails_alike_shows_it_once() {
        let mut requests = FailedRequests::default();
        let error = failed(Kind::ServerError, 500);
        assert_eq!(requests.failed(at(0), 7, 0, &error), Comparison::default());
        assert_eq!(requests.failed(at(1), 7, 0, &error), Comparison::default(), "the same backend again");
        assert_eq!(requests.failed(at(2), 8, 1, &error), Comparison::default(), "another request");
        let shown = requests.failed(at(3), 7, 1, &error);
        assert_eq!(shown, Comparison { is_blamed: true, cleared: vec![0] });
        assert_eq!(requests.failed(at(4), 7, 0, &error), Comparison { is_blamed: true, cleared: vec![] });
        assert!(requests.is_blamed(at(5), 7) && !requests.is_blamed(at(5), 8));
        requests.answered(7);
        assert!(!requests.is_blamed(at(6), 7));
    }

    #[test]
    fn an_answer_of_either_backend_shows_a_request_to_be_to_blame_once() {
        let mut requests = FailedRequests::default();
        let error = failed(Kind::ServerError, 500);
        requests.failed(at(0), 7, 0, &error);
        assert!(requests.shown_by_answer_at(0).is_empty(), "it failed at one backend only");
        requests.failed(at(1), 7, 1, &error);
        assert!(requests.shown_by_answer_at(2).is_empty(), "it was not tried there");
        assert_eq!(requests.shown_by_answer_at(1), [(7, vec![0, 1])]);
        assert!(requests.shown_by_answer_at(0).is_empty(), "it is known");
    }

    #[test]
    fn failures_that_differ_or_that_no_request_causes_show_nothing() {
        let mut requests = FailedRequests::default();
        requests.failed(at(0), 7, 0, &failed(Kind::ServerError, 500));
        assert!(!requests.failed(at(1), 7, 1, &failed(Kind::ServerError, 502)).is_blamed);
        assert!(!requests.failed(at(2), 7, 2, &failed(Kind::Unauthorised, 401)).is_blamed);
        for kind in [Kind::RateLimited, Kind::Overloaded, Kind::ConnectFailed, Kind::ModelMissing] {
            for slot in 0..3 {
                assert!(!requests.failed(at(3), 9, slot, &failed(kind, 429)).is_blamed, "{kind:?}");
            }
        }
        for slot in 0..3 {
            assert!(!requests.failed(at(4), 0, slot, &failed(Kind::ServerError, 500)).is_blamed, "unknown");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_in_number_and_time() {
        let mut requests = FailedRequests::default();
        let error = failed(Kind::ServerError, 500);
        for request in 1..3_000 {
            requests.failed(at(request), request, 0, &error);
        }
        assert_eq!(requests.map.len(), MAX_REQUESTS);
        assert!(requests.failed(at(3_000), 2_999, 1, &error).is_blamed);
        assert!(!requests.failed(at(3_000), 1, 1, &error).is_blamed, "the oldest are forgotten");
        assert!(requests.any(at(4_000)) && !requests.any(at(400_000)));
        assert!(!requests.failed(at(400_000), 2_998, 1, &error).is_blamed);
    }
}
