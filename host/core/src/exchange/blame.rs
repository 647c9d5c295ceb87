//! The case that the request itself is to blame: its client is told what the providers say.

use super::Exchange;
use crate::fleet::Fleet;
use crate::fleet::health::may_be_requests;
use crate::time::Timestamp;

impl Exchange {
    /// Returns true if every attempt failed because of the request: by the words of the refusal, or because it fails alike
    /// at several backends.
    pub(super) fn is_request_to_blame(&self, fleet: &Fleet, now: Timestamp) -> bool {
        let is_blamed = fleet.is_blamed(now, self.want.origin.request);
        let of_request = self.attempt_facts.iter().zip(&self.scopes).all(|(attempt, scope)| {
            scope.is_of_request() || is_blamed && attempt.status >= 400 && may_be_requests(attempt.outcome)
        });
        of_request && !self.attempt_facts.is_empty()
    }
}
