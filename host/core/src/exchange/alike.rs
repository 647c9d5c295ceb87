//! What all backends say alike: where there is such a thing, it is what the client is told.

use super::Exchange;
use crate::contract::{AttemptFacts, Operation, RowState};
use crate::fleet::Fleet;
use crate::outcome::Kind;
use crate::time::Timestamp;

/// Answer of a candidate to a request: by its last attempt in this exchange, else by its cooldown or limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// The backend refuses the request.
    Refused,
    /// It does not have the model.
    ModelMissing,
    /// It refuses the key, with this status; 0: not known any more.
    KeyRefused(u16),
    /// A limit is reached, its own or ours.
    Limit,
    /// It breaks, not for the first time.
    Breaks,
    /// It is taken out of service.
    Drained,
    /// Nothing yet, or nothing that tells others anything.
    Nothing,
}

/// A statement that all candidates make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InCommon {
    /// Every one that could be asked has refused the request.
    Refusal,
    /// Those that work do not have the model, and the others are not known to have it.
    ModelMissing,
    /// Every key is refused, with this status; 0: with different ones, or not known any more.
    KeysRefused(u16),
    /// Every one is at a limit.
    Limits,
    Nothing,
}

impl Exchange {
    /// Finds what all candidates have in common.
    pub(super) fn in_common(&self, fleet: &Fleet, now: Timestamp) -> InCommon {
        if self.is_refused_by_all(fleet, now) {
            return InCommon::Refusal;
        }
        if self.is_model_missing(fleet, now) {
            return InCommon::ModelMissing;
        }
        let mut all =
            self.whole_want().candidates.iter().map(|&index| self.said(fleet, now, index)).collect::<Vec<_>>();
        all.retain(|said| *said != Said::Drained);
        all.dedup();
        match all[..] {
            [Said::KeyRefused(status)] => InCommon::KeysRefused(status),
            [] => InCommon::Nothing,
            _ if all.iter().all(|said| matches!(said, Said::KeyRefused(_))) => {
                all.retain(|said| *said != Said::KeyRefused(0));
                all.dedup();
                match all[..] {
                    [Said::KeyRefused(status)] => InCommon::KeysRefused(status),
                    _ => InCommon::KeysRefused(0),
                }
            }
            [Said::Limit] => InCommon::Limits,
            _ => InCommon::Nothing,
        }
    }

    /// Some have refused the request in this exchange, and all others have before, or do not have the model.
    fn is_refused_by_all(&self, fleet: &Fleet, now: Timestamp) -> bool {
        let refused = |a: &AttemptFacts| matches!(a.outcome, Kind::Refused | Kind::TooLong | Kind::ModelMissing);
        let is_final = |&index: &u32| {
            matches!(self.said(fleet, now, index), Said::Refused | Said::ModelMissing)
                || self.is_passed_over(fleet, now, index)
        };
        self.attempt_facts.iter().any(refused) && self.whole_want().candidates.iter().all(is_final)
    }

    /// Some have said that they do not have the model; of the others, which all break, none is known to have it.
    fn is_model_missing(&self, fleet: &Fleet, now: Timestamp) -> bool {
        // Over its budget a client has not asked those that cost money; a stream that broke was begun by one that has it.
        if self.only.free || self.resuming {
            return false;
        }
        let model = &self.want.model;
        let mut is_missing = false;
        for &index in self.whole_want().candidates.iter() {
            match self.said(fleet, now, index) {
                Said::ModelMissing => is_missing = true,
                Said::Breaks
                    if !self.view.backend(index).names(model) && !fleet.has_served(&self.view, index, model) => {}
                Said::Breaks | Said::Refused | Said::KeyRefused(_) | Said::Limit | Said::Drained | Said::Nothing => {
                    return false;
                }
            }
        }
        is_missing
    }

    /// Leaves out backends that break, where those that work do not have the model: to ask them again would find out nothing.
    pub(super) fn leave_out_breaking(&mut self, fleet: &Fleet, now: Timestamp) {
        if self.is_model_missing(fleet, now) {
            let breaks = |index: &u32| self.said(fleet, now, *index) == Said::Breaks;
            let breaking: Vec<u32> = self.want.candidates.iter().copied().filter(breaks).collect();
            breaking.into_iter().for_each(|index| self.leave_out(index));
        }
    }

    /// An upstream has said in this exchange that it does not have the model.
    pub(super) fn is_told_missing(&self) -> bool {
        self.attempt_facts
            .iter()
            .any(|a| a.outcome == Kind::ModelMissing || a.outcome == Kind::Refused && a.status == 404)
    }

    fn said(&self, fleet: &Fleet, now: Timestamp, index: u32) -> Said {
        let last = self.attempt_facts.iter().rfind(|attempt| attempt.backend == index);
        if let Some(last) = last {
            return match said_by(last.outcome, last.status) {
                // Some say no more than the status.
                Said::Refused if last.status == 404 && self.facts.operation != Operation::Other => Said::ModelMissing,
                Said::Breaks if !self.breaks_again(fleet, now, index) => Said::Nothing,
                said => said,
            };
        }
        match fleet.state_for(now, &self.view, &self.want, index) {
            (RowState::Cooling, Some((_, reason))) => match said_by(reason, 0) {
                Said::Breaks if !self.breaks_again(fleet, now, index) => Said::Nothing,
                said => said,
            },
            (RowState::Throttled, _) => Said::Limit,
            (RowState::Drained, _) => Said::Drained,
            // Its limit is over, or not: that is about to be found out.
            (RowState::Ready | RowState::Probing, _)
                if fleet
                    .last_failure(now, &self.view, &self.want, index)
                    .is_some_and(|(kind, _)| kind == Kind::RateLimited) =>
            {
                Said::Limit
            }
            (RowState::Ready | RowState::Cooling | RowState::Probing | RowState::Unsuited, _) => Said::Nothing,
        }
    }

    /// Returns true if a backend has failed more than once, in this exchange or since its last answer; one failure may be a
    /// hiccup.
    fn breaks_again(&self, fleet: &Fleet, now: Timestamp, index: u32) -> bool {
        let here = self.attempt_facts.iter().filter(|attempt| attempt.backend == index);
        let before = u32::from(self.exhausted_before.is_some());
        let failures = fleet.last_failure(now, &self.view, &self.want, index).map_or(0, |(_, failures)| failures);
        failures.max(here.count() as u32) + before > 1
    }
}

fn said_by(kind: Kind, status: u16) -> Said {
    match kind {
        Kind::Refused | Kind::TooLong => Said::Refused,
        Kind::ModelMissing => Said::ModelMissing,
        Kind::Unauthorised => Said::KeyRefused(status),
        Kind::RateLimited => Said::Limit,
        Kind::OutOfCredit if status == 429 => Said::Limit,
        Kind::Overloaded
        | Kind::ServerError
        | Kind::ConnectFailed
        | Kind::Reset
        | Kind::TimedOut
        | Kind::Cut
        | Kind::Stalled
        | Kind::Malformed => Said::Breaks,
        // Without credit it may have the model all the same.
        Kind::OutOfCredit | Kind::Answered | Kind::ClientGone | Kind::NotResumed => Said::Nothing,
    }
}
