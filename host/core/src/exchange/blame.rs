//! The case that the request itself is to blame: its client is told what the providers say.

use super::Exchange;
use crate::contract::RowState;
use crate::fleet::Fleet;
use crate::fleet::health::may_be_requests;
use crate::outcome::Kind;
use crate::time::Timestamp;

impl Exchange {
    /// Returns true if every attempt failed because of the request: by the words of all candidates, or because it fails
    /// alike at several backends.
    pub(super) fn is_request_to_blame(&self, fleet: &Fleet, now: Timestamp) -> bool {
        let is_blamed = fleet.is_blamed(now, self.want.origin.request);
        let of_request = self.attempt_facts.iter().zip(&self.scopes).all(|(attempt, scope)| {
            // Keys that all backends refuse are keys that have expired.
            let may_be_requests = may_be_requests(attempt.outcome) && attempt.outcome != Kind::Unauthorised;
            scope.is_of_request() || is_blamed && attempt.status >= 400 && may_be_requests
        });
        let is_final = |index: u32| self.has_final_word(index) || self.is_passed_over(fleet, now, index);
        let is_unanimous = || self.whole_want().candidates.iter().all(|index| is_final(*index));
        of_request && !self.attempt_facts.is_empty() && (is_blamed || is_unanimous())
    }

    /// Returns true if the last attempt at a backend was refused for the request or the model, so that another attempt
    /// there would come to the same.
    pub(super) fn has_final_word(&self, index: u32) -> bool {
        let last = self.attempt_facts.iter().zip(&self.scopes).rfind(|(attempt, _)| attempt.backend == index);
        last.is_some_and(|(attempt, scope)| {
            scope.is_of_request() || matches!(attempt.outcome, Kind::Refused | Kind::TooLong | Kind::ModelMissing)
        })
    }

    /// Returns true if a backend was not asked although it could have been, or is taken out of service: no time changes
    /// that.
    pub(super) fn is_passed_over(&self, fleet: &Fleet, now: Timestamp, index: u32) -> bool {
        let is_asked = self.attempt_facts.iter().any(|attempt| attempt.backend == index);
        let (state, _) = fleet.state_for(now, &self.view, &self.want, index);
        !is_asked && matches!(state, RowState::Ready | RowState::Drained)
    }
}
