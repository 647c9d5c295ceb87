//! The life of one exchange as a state machine: what happened goes in, what to do next comes out.
//!
//! ```text
//! Arrived -> Ask -> Decided -> Send -> Ended -> Ask ...
//!                          \-> Wait -> Granted | WaitOver -> Ask ...
//!                          \-> Reject
//!            Send -> Committed -> Relay -> Ended -> Finish
//!                                       \-> Broke -> Ask ... Send -> Committed -> Relay ...
//! ```
//!
//! A committed stream that breaks can be resumed: the policy is asked again, and a further attempt joins what was
//! delivered. All budgets go on; what cannot be resumed ends with [`Action::Reject`], which the client is then told
//! in-band.
//!
//! It does no IO, holds no lock and reads no clock. It keeps the budgets, and it holds the permit of the attempt under
//! way, so that whatever happens the permit goes back to the fleet exactly once.

mod alike;
mod arrival;
mod asking;
mod blame;
mod dispatching;
mod elsewhere;
mod refusing;
mod saving;
mod settling;
mod tries;
mod types;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

pub use arrival::Only;
pub use types::{Action, Budgets, Ended, Event, ExhaustedStatus, Facts};
pub use types::{Join, Reason, Refusal, Sending, StreamDefaults};

use refusing::own_shortage;

use crate::affinity::Home;
use crate::contract::{AttemptFacts, Operation};
use crate::exhaustion::Repetition;
use crate::fleet::{Fleet, Permit, Ticket};
use crate::origin::{Origin, asks_model};
use crate::outcome::{Kind, Outcome, Scope};
use crate::overdue::Bet;
use crate::record::{AttemptRecord, End};
use crate::time::Timestamp;
use crate::view::{View, Want};

#[derive(Debug)]
enum Phase {
    New,
    Asking { held: Option<Permit>, shown: Vec<Shown> },
    Waiting { ticket: Ticket, since: Timestamp },
    Sending { permit: Permit, sending: Sending },
    Relaying { permit: Permit, sending: Sending },
    Done,
}

/// State of one candidate as a query showed it; a policy that waits has turned down every open one.
#[derive(Clone, Copy, Debug)]
struct Shown {
    index: u32,
    ready: bool,
    open_to_emergency: bool,
}

/// The state machine of one exchange.
#[derive(Debug)]
pub struct Exchange {
    view: Arc<View>,
    want: Want,
    facts: Facts,
    budgets: Budgets,
    streams: StreamDefaults,
    arrived: Timestamp,
    phase: Phase,
    attempts: Vec<AttemptRecord>,
    attempt_facts: Vec<AttemptFacts>,
    /// The parts that explain the attempts, in their order.
    scopes: Vec<Scope>,
    asked: u32,
    waits: u32,
    waited: Duration,
    /// Waits that were none, because there was nothing to wait for or no room to wait; the policy is told them as waits.
    empty_waits: u32,
    /// Dispatches that somebody else was quicker to, and that were put to the policy again.
    lost_races: u32,
    queue_full: bool,
    /// An answer was committed and broke: what is sent from then on joins it.
    resuming: bool,
    /// Backends that took no prefill in this exchange.
    no_prefill: Vec<u32>,
    /// Kind of backends that are candidates.
    only: Only,
    /// Backends that are not asked again in this exchange; they are no candidates of `want`.
    left_out: Vec<u32>,
    /// Time lost in attempts that failed, which counts against the waiting time.
    lost: Duration,
    /// Begin of the last attempt: its permit may have been taken before, for a waiter.
    sent_at: Timestamp,
    /// Time in which answers were relayed, without the one under way.
    relayed: Duration,
    /// Begin of the relay under way.
    relaying_since: Option<Timestamp>,
    /// The attempt and the limit that was last noted as overdue.
    noted_overdue: Option<(usize, Bet)>,
    /// Notes for the record.
    warnings: Vec<String>,
    /// The longest wait that the policy has asked for.
    longest_hold: Option<Duration>,
    /// Number of the first attempt whose failure counts as a try: before it a resumed answer went on.
    counted_from: usize,
    /// The status that exhaustion by limits is told with.
    exhausted_status: ExhaustedStatus,
    /// The model name sent whose price counts, where it is another than that of this request.
    priced_as: Option<String>,
    /// An exchange with the same request was exhausted.
    exhausted_before: Option<Repetition>,
    /// The client says that it repeats by itself what fails.
    announces_retries: bool,
    /// It was exhausted; until then nobody can have recovered.
    exhausted_until: Option<Timestamp>,
    /// The backend that holds what the request builds on.
    home: Option<Home>,
}

impl Exchange {
    /// Returns the time until which nobody can have recovered, where the exchange ended because all were exhausted.
    pub fn exhausted_until(&self) -> Option<Timestamp> {
        self.exhausted_until
    }

    /// The request that it is for.
    pub fn origin(&self) -> &Origin {
        &self.want.origin
    }

    /// The table it was pinned to.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The model it asks for: the client's, unless the policy chose another.
    pub fn model(&self) -> &Arc<str> {
        &self.want.model
    }

    /// The attempts that have ended, oldest first.
    pub fn attempts(&self) -> &[AttemptRecord] {
        &self.attempts
    }

    /// Hands out the attempts for the record.
    pub fn take_attempts(&mut self) -> Vec<AttemptRecord> {
        std::mem::take(&mut self.attempts)
    }

    /// Waits so far, and their time together.
    pub fn waits(&self) -> (u32, Duration) {
        (self.waits, self.waited)
    }

    /// The attempt under way, if there is one.
    pub fn sending(&self) -> Option<&Sending> {
        match &self.phase {
            Phase::Sending { sending, .. } | Phase::Relaying { sending, .. } => Some(sending),
            Phase::New | Phase::Asking { .. } | Phase::Waiting { .. } | Phase::Done => None,
        }
    }

    /// The permit of the attempt under way.
    pub fn permit(&self) -> Option<&Permit> {
        match &self.phase {
            Phase::Sending { permit, .. } | Phase::Relaying { permit, .. } => Some(permit),
            Phase::New | Phase::Asking { .. } | Phase::Waiting { .. } | Phase::Done => None,
        }
    }

    /// Returns true if an answer broke off after its first bytes were delivered, so that the next one must join it.
    pub fn is_resuming(&self) -> bool {
        self.resuming
    }

    /// Returns true after the last action.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Takes what happened, answers what to do. An event that does not belong to the phase is a mistake of the driver:
    /// whatever it carried is given back, and the exchange ends.
    pub fn step(&mut self, fleet: &mut Fleet, now: Timestamp, event: Event) -> Action {
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        match (phase, event) {
            (Phase::New, Event::Arrived) => self.arrive(fleet, now),
            (Phase::Asking { held, shown }, Event::Decided(decision)) => {
                self.decided(fleet, now, held, &shown, decision)
            }
            (Phase::Waiting { since, .. }, Event::Granted(permit)) => {
                self.wait_ended(now, since);
                self.ask(fleet, now, Some(permit))
            }
            (Phase::Waiting { ticket, since }, Event::WaitOver) => {
                fleet.leave(ticket);
                self.wait_ended(now, since);
                self.ask(fleet, now, None)
            }
            (Phase::Sending { permit, sending }, Event::Committed) => {
                self.relaying_since = Some(now);
                // How long the rest of the answer takes says nothing about the backend's health.
                fleet.return_probe(&permit);
                self.phase = Phase::Relaying { permit, sending };
                Action::Relay
            }
            (Phase::Sending { permit, sending }, Event::Ended(ended)) => {
                self.attempt_ended(fleet, now, (permit, sending), ended)
            }
            (Phase::Relaying { permit, sending }, Event::Ended(ended)) => {
                self.delivered(fleet, now, (permit, sending), ended)
            }
            (Phase::Relaying { permit, sending }, Event::Broke(ended)) => {
                self.relay_ended(now);
                let resume = sending.resume;
                let kind = self.settle(fleet, now, (permit, sending), ended, true);
                self.broke(fleet, now, kind, resume)
            }
            (Phase::Sending { permit, .. }, Event::NotSent(message)) => {
                fleet.refund(permit);
                Action::Reject(own_shortage(message))
            }
            (phase, Event::ClientGone) => self.abandon(fleet, now, phase),
            (phase, Event::Granted(permit)) => {
                fleet.refund(permit);
                self.abandon(fleet, now, phase)
            }
            (
                phase,
                Event::Arrived
                | Event::Decided(_)
                | Event::WaitOver
                | Event::Committed
                | Event::Ended(_)
                | Event::Broke(_)
                | Event::NotSent(_),
            ) => self.abandon(fleet, now, phase),
        }
    }

    fn attempt_ended(&mut self, fleet: &mut Fleet, now: Timestamp, attempt: (Permit, Sending), ended: Ended) -> Action {
        self.lost += now.since(self.sent_at);
        let is_final = is_final(&ended.outcome, self.facts.operation);
        let kind = self.settle(fleet, now, attempt, ended, false);
        self.after_attempt(fleet, now, kind, is_final)
    }

    fn delivered(&mut self, fleet: &mut Fleet, now: Timestamp, attempt: (Permit, Sending), ended: Ended) -> Action {
        self.relay_ended(now);
        let kind = self.settle(fleet, now, attempt, ended, true);
        let gone = if kind == Kind::ClientGone { End::ClientGone } else { End::Broken };
        Action::Finish(if kind == Kind::Answered { End::Delivered } else { gone })
    }

    fn give_up_permit(&mut self, fleet: &mut Fleet, permit: Option<Permit>) {
        if let Some(permit) = permit {
            fleet.refund(permit);
        }
    }
}

/// Returns true if a refusal is about the request, so that no other backend is asked to get around it; false where it may
/// be peculiar to the backend: an endpoint, a feature or a size that it does not have, or a host that takes no such request.
/// For a question every status may be, but those that judge its content.
fn is_final(outcome: &Outcome, operation: Operation) -> bool {
    let is_peculiar = match outcome.status.unwrap_or(0) {
        300..400 | 404 | 405 | 407 | 411 | 413 | 414 | 421 | 426 | 431 | 451 => true,
        400 | 403 | 422 => false,
        401..500 => asks_model(operation),
        _ => false,
    };
    outcome.kind == Kind::Refused && !is_peculiar && !outcome.scope.may_differ_elsewhere()
}
