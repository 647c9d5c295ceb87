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

mod types;
mod words;

use std::sync::Arc;
use std::time::Duration;

pub use types::{Action, Budgets, Ended, Event, Facts, Join, Reason, Refusal, Sending, StreamDefaults};

use crate::contract::{
    AttemptFacts, Column, Decision, Dispatch, Hold, Query, Rejection, RequestFacts, Resume, RowState, STRIDE,
};
use crate::fleet::{Fleet, Permit, Report};
use crate::outcome::{Kind, Outcome};
use crate::queue::Ticket;
use crate::rank::Rank;
use crate::record::{AttemptRecord, End};
use crate::table::{Lane, Timeouts};
use crate::time::{Timestamp, millis_u32};
use crate::view::{View, Want};
use words::why_no_room;

#[derive(Debug)]
enum Phase {
    New,
    Asking { held: Option<Permit>, shown: Vec<Shown> },
    Waiting { ticket: Ticket, since: Timestamp },
    Sending { permit: Permit, sending: Sending },
    Relaying { permit: Permit, sending: Sending },
    Done,
}

/// What a query showed of one candidate; a policy that says wait has turned down what was open.
#[derive(Clone, Copy, Debug)]
struct Shown {
    index: u32,
    ready: bool,
    open_to_emergency: bool,
}

/// One exchange.
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
}

impl Exchange {
    /// An exchange that has arrived at `now`.
    pub fn new(
        now: Timestamp,
        view: Arc<View>,
        model: &Arc<str>,
        facts: Facts,
        budgets: Budgets,
        streams: StreamDefaults,
    ) -> Self {
        let answer = if facts.max_tokens > 0 { facts.max_tokens.min(ANSWER_TOKENS) } else { ANSWER_TOKENS };
        let tokens = facts.prompt_tokens.saturating_add(answer);
        let rank = Rank::newcomer(facts.priority);
        let want = Want { rank, ..wanted(&view, model, &facts, tokens) };
        Self {
            view,
            want,
            facts,
            budgets,
            streams,
            arrived: now,
            phase: Phase::New,
            attempts: Vec::new(),
            attempt_facts: Vec::new(),
            asked: 0,
            waits: 0,
            waited: Duration::ZERO,
            empty_waits: 0,
            lost_races: 0,
            queue_full: false,
            resuming: false,
            no_prefill: Vec::new(),
        }
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

    /// Was an answer begun that broke, so that whatever comes must join it?
    pub fn is_resuming(&self) -> bool {
        self.resuming
    }

    /// Is it over?
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
                self.phase = Phase::Relaying { permit, sending };
                Action::Relay
            }
            (Phase::Sending { permit, sending }, Event::Ended(ended)) => {
                let kind = self.settle(fleet, now, permit, sending, ended);
                self.after_attempt(fleet, now, kind)
            }
            (Phase::Relaying { permit, sending }, Event::Ended(ended)) => {
                match self.settle(fleet, now, permit, sending, ended) {
                    Kind::Answered => Action::Finish(End::Delivered),
                    Kind::ClientGone => Action::Finish(End::ClientGone),
                    _ => Action::Finish(End::Broken),
                }
            }
            (Phase::Relaying { permit, sending }, Event::Broke(ended)) => {
                let resume = sending.resume;
                let kind = self.settle(fleet, now, permit, sending, ended);
                self.broke(fleet, now, kind, resume)
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
                | Event::Broke(_),
            ) => self.abandon(fleet, now, phase),
        }
    }

    fn arrive(&mut self, fleet: &mut Fleet, now: Timestamp) -> Action {
        if self.want.candidates.is_empty() {
            return Action::Reject(self.no_such_model());
        }
        self.ask(fleet, now, None)
    }

    fn ask(&mut self, fleet: &mut Fleet, now: Timestamp, held: Option<Permit>) -> Action {
        if now.since(self.arrived) >= self.budgets.max_total {
            self.give_up_permit(fleet, held);
            return Action::Reject(self.out_of_time());
        }
        // Each question follows the arrival, an attempt, a wait, an empty wait or a lost race, and each of these has its
        // own bound; the sum is a second lock on the same door.
        let b = &self.budgets;
        let most = [b.max_attempts, b.max_waits, MAX_EMPTY_WAITS, MAX_LOST_RACES, 1];
        if self.asked >= most.into_iter().fold(0, u32::saturating_add) {
            self.give_up_permit(fleet, held);
            return self.exhausted(fleet, now);
        }
        self.asked += 1;
        let query = self.query(fleet, now, held.as_ref());
        let shown = self.shown(&query.rows);
        self.phase = Phase::Asking { held, shown };
        Action::Ask(query)
    }

    fn shown(&self, rows: &[u32]) -> Vec<Shown> {
        let number = |index: u32, column: Column| rows[index as usize * STRIDE + column as usize];
        let one = |&index: &u32| Shown {
            index,
            ready: number(index, Column::State) == RowState::Ready as u32,
            open_to_emergency: number(index, Column::EmergencyMs) == 0,
        };
        self.want.candidates.iter().map(one).collect()
    }

    fn query(&self, fleet: &mut Fleet, now: Timestamp, held: Option<&Permit>) -> Query {
        let spent = now.since(self.arrived);
        let f = &self.facts;
        Query {
            now_ms: now.as_millis(),
            seed: fleet.seed(),
            request: RequestFacts {
                model: self.view.model_index(&self.want.model),
                operation: f.operation,
                client: f.client,
                streaming: f.streaming,
                priority: f.priority,
                prompt_tokens: f.prompt_tokens,
                max_tokens: f.max_tokens,
                session: f.session,
                elapsed_ms: millis_u32(spent),
                remaining_ms: millis_u32(self.budgets.max_total.saturating_sub(spent)),
            },
            attempts: self.attempt_facts.clone(),
            waits: self.waits + self.empty_waits,
            waited_ms: millis_u32(self.waited),
            rows: fleet.rows(now, &self.view, &self.want, held),
        }
    }

    fn decided(
        &mut self,
        fleet: &mut Fleet,
        now: Timestamp,
        held: Option<Permit>,
        shown: &[Shown],
        decision: Decision,
    ) -> Action {
        match decision {
            Decision::Primary(dispatch) => self.dispatch(fleet, now, held, Lane::Primary, dispatch),
            Decision::Fallback(dispatch) => self.dispatch(fleet, now, held, Lane::Fallback, dispatch),
            Decision::Emergency(dispatch) => self.dispatch(fleet, now, held, Lane::Emergency, dispatch),
            Decision::Wait(hold) => {
                self.give_up_permit(fleet, held);
                self.policy_wait(fleet, now, hold, shown)
            }
            Decision::Reject(rejection) => {
                self.give_up_permit(fleet, held);
                self.rejected(fleet, now, rejection)
            }
        }
    }

    fn dispatch(
        &mut self,
        fleet: &mut Fleet,
        now: Timestamp,
        held: Option<Permit>,
        lane: Lane,
        dispatch: Dispatch,
    ) -> Action {
        if self.attempts.len() as u32 >= self.budgets.max_attempts {
            self.give_up_permit(fleet, held);
            return self.exhausted(fleet, now);
        }
        let held = match dispatch.model {
            Some(model) if self.ask_for(model) => {
                self.give_up_permit(fleet, held);
                None
            }
            Some(_) | None => held,
        };
        let fits = |p: &Permit| p.lane == lane && dispatch.backend.is_none_or(|b| b == p.backend);
        let held = match held {
            Some(permit) if !fleet.holds_good(now, &permit) => {
                fleet.refund(permit);
                None
            }
            Some(permit) if fits(&permit) => return self.send(now, permit, dispatch),
            // The same slot in another lane: it has to come free first.
            Some(permit) if dispatch.backend == Some(permit.backend) => {
                fleet.refund(permit);
                None
            }
            other => other,
        };
        match fleet.acquire(now, &self.view, &self.want, lane, dispatch.backend) {
            Ok(permit) => {
                self.give_up_permit(fleet, held);
                self.send(now, permit, dispatch)
            }
            // Somebody else was quicker: the policy may know another way.
            Err(_) if self.lost_races < MAX_LOST_RACES => {
                self.lost_races += 1;
                self.ask(fleet, now, held)
            }
            // Or it wants what is not to be had: the host makes it a wait.
            Err(_) => {
                self.give_up_permit(fleet, held);
                let want = self.want.clone();
                self.wait(fleet, now, Hold { max: DENIED_WAIT, lane }, &want)
            }
        }
    }

    /// From now on the exchange is for another model of the table; its place in line stays. False where that changes
    /// nothing: it is the same, or nobody serves it for this kind of request.
    fn ask_for(&mut self, model: u32) -> bool {
        let Some(model) = self.view.table.models.get(model as usize).filter(|m| **m != *self.want.model) else {
            return false;
        };
        let want = wanted(&self.view, &Arc::from(model.as_str()), &self.facts, self.want.tokens);
        if want.candidates.is_empty() {
            return false;
        }
        self.want = Want { rank: self.want.rank, ..want };
        true
    }

    fn send(&mut self, now: Timestamp, permit: Permit, dispatch: Dispatch) -> Action {
        let backend = self.view.backend(permit.backend);
        let left = self.budgets.max_total.saturating_sub(now.since(self.arrived));
        let t = backend.timeouts;
        let sending = Sending {
            backend: permit.backend,
            lane: permit.lane,
            model: backend.sent_model(&self.want.model).unwrap_or_else(|| self.want.model.to_string()),
            timeouts: Timeouts {
                connect: t.connect,
                first_byte: dispatch.first_byte.unwrap_or(t.first_byte),
                first_token: dispatch.first_token.unwrap_or(t.first_token),
                idle: dispatch.idle.unwrap_or(t.idle),
                total: dispatch.total.unwrap_or(t.total).min(left),
            },
            commit: dispatch.commit.unwrap_or(self.streams.commit),
            resume: dispatch.resume.unwrap_or(self.streams.resume),
            join: self.resuming.then(|| self.join(permit.backend, dispatch.resume)),
        };
        self.phase = Phase::Sending { permit, sending: sending.clone() };
        Action::Send(sending)
    }

    /// How an attempt at this backend continues what was delivered. A backend that cannot be prefilled never is.
    fn join(&self, backend: u32, resume: Option<Resume>) -> Join {
        let is_able = self.view.backend(backend).capabilities.get(PREFILL).copied().unwrap_or(false);
        match resume.unwrap_or(self.streams.resume) {
            Resume::Prefill if is_able && !self.no_prefill.contains(&backend) => Join::Prefill,
            Resume::Prefill | Resume::Splice | Resume::None => Join::Splice,
        }
    }

    /// A wait of the policy's own is for others than those it was shown as open and turned down: else it would be
    /// granted one of them at once, again and again.
    fn policy_wait(&mut self, fleet: &mut Fleet, now: Timestamp, hold: Hold, shown: &[Shown]) -> Action {
        let turned_down = |s: &Shown| match hold.lane {
            Lane::Primary | Lane::Fallback => s.ready,
            Lane::Emergency => s.open_to_emergency,
        };
        let left = shown.iter().filter(|s| hold.lane.admits(self.view.backend(s.index).tier) && !turned_down(s));
        let candidates: Arc<[u32]> = left.map(|s| s.index).collect();
        if candidates.is_empty() {
            return self.empty_wait(fleet, now);
        }
        let want = Want { candidates, ..self.want.clone() };
        self.wait(fleet, now, hold, &want)
    }

    fn wait(&mut self, fleet: &mut Fleet, now: Timestamp, hold: Hold, want: &Want) -> Action {
        let left = self.budgets.max_wait.saturating_sub(self.waited);
        let time_left = self.budgets.max_total.saturating_sub(now.since(self.arrived));
        if self.waits >= self.budgets.max_waits || left.is_zero() {
            return self.empty_wait(fleet, now);
        }
        match fleet.join(&self.view, want, hold.lane) {
            Some(ticket) => {
                self.queue_full = false;
                self.want.rank = ticket.rank();
                self.phase = Phase::Waiting { ticket, since: now };
                Action::Wait { ticket, max: hold.max.min(left).min(time_left) }
            }
            None => {
                self.queue_full = true;
                self.empty_wait(fleet, now)
            }
        }
    }

    /// A wait that cannot be is over at once. The policy sees its waits grow, and goes on to what it does without.
    fn empty_wait(&mut self, fleet: &mut Fleet, now: Timestamp) -> Action {
        if self.empty_waits >= MAX_EMPTY_WAITS {
            return self.exhausted(fleet, now);
        }
        self.empty_waits += 1;
        self.ask(fleet, now, None)
    }

    fn wait_ended(&mut self, now: Timestamp, since: Timestamp) {
        self.waits += 1;
        self.waited += now.since(since);
    }

    fn settle(&mut self, fleet: &mut Fleet, now: Timestamp, permit: Permit, sending: Sending, ended: Ended) -> Kind {
        let Ended { outcome, usage, first_byte, first_token } = ended;
        let used = usage.input_tokens.saturating_add(usage.output_tokens);
        // Who answered without a word about usage has used something; who did not answer has used nothing.
        let known = used > 0 || !matches!(outcome.kind, Kind::Answered | Kind::Cut | Kind::Stalled | Kind::ClientGone);
        let tokens_used = known.then(|| u32::try_from(used).unwrap_or(u32::MAX));
        let sent_at = permit.taken_at;
        fleet.settle(now, permit, Report { outcome: &outcome, first_token, tokens_used });
        let backend = self.view.backend(sending.backend);
        let kind = outcome.kind;
        if kind == Kind::NotResumed && sending.join == Some(Join::Prefill) {
            self.no_prefill.push(sending.backend);
        }
        self.attempt_facts.push(AttemptFacts {
            backend: sending.backend,
            lane: sending.lane,
            outcome: kind,
            status: outcome.status.unwrap_or(0),
            elapsed_ms: millis_u32(now.since(sent_at)),
            waits_before: self.waits + self.empty_waits,
        });
        self.attempts.push(AttemptRecord {
            backend: backend.id.clone(),
            lane: sending.lane,
            started: sent_at,
            elapsed: now.since(sent_at),
            first_byte,
            first_token,
            outcome: kind,
            status: outcome.status.unwrap_or(0),
            retry_after: outcome.retry_after,
            message: outcome.message,
            usage,
            cost_usd: usage.cost_usd(backend.price(&sending.model)),
            model_sent: sending.model,
        });
        kind
    }

    fn after_attempt(&mut self, fleet: &mut Fleet, now: Timestamp, kind: Kind) -> Action {
        match kind {
            Kind::Answered => Action::Finish(End::Delivered),
            Kind::ClientGone => Action::Finish(End::ClientGone),
            // No other try can succeed: what the upstream said is what the client gets.
            Kind::Refused if !self.resuming => Action::PassOn,
            Kind::Refused
            | Kind::RateLimited
            | Kind::OutOfCredit
            | Kind::Overloaded
            | Kind::ServerError
            | Kind::TooLong
            | Kind::ModelMissing
            | Kind::Unauthorised
            | Kind::ConnectFailed
            | Kind::Reset
            | Kind::TimedOut
            | Kind::Cut
            | Kind::Stalled
            | Kind::Malformed
            | Kind::NotResumed => self.ask(fleet, now, None),
        }
    }

    /// A committed answer broke off and could be continued.
    fn broke(&mut self, fleet: &mut Fleet, now: Timestamp, kind: Kind, resume: Resume) -> Action {
        match kind {
            Kind::Answered => Action::Finish(End::Delivered),
            Kind::ClientGone => Action::Finish(End::ClientGone),
            // A verdict on the request: to go on elsewhere would be to get around it.
            Kind::Refused | Kind::TooLong => Action::Finish(End::Broken),
            Kind::RateLimited
            | Kind::OutOfCredit
            | Kind::Overloaded
            | Kind::ServerError
            | Kind::ModelMissing
            | Kind::Unauthorised
            | Kind::ConnectFailed
            | Kind::Reset
            | Kind::TimedOut
            | Kind::Cut
            | Kind::Stalled
            | Kind::Malformed
            | Kind::NotResumed => match resume {
                Resume::None => Action::Finish(End::Broken),
                Resume::Splice | Resume::Prefill => {
                    self.resuming = true;
                    self.ask(fleet, now, None)
                }
            },
        }
    }

    fn rejected(&mut self, fleet: &mut Fleet, now: Timestamp, rejection: Rejection) -> Action {
        if rejection.status == 0 {
            return self.exhausted(fleet, now);
        }
        Action::Reject(Refusal {
            reason: Reason::Policy { status: rejection.status, kind: rejection.kind },
            message: rejection.message,
            retry_after: rejection.retry_after,
        })
    }

    /// Everything was tried. When every upstream refused the request itself, its refusal explains more than our words.
    fn exhausted(&mut self, fleet: &Fleet, now: Timestamp) -> Action {
        let refused = |a: &AttemptFacts| matches!(a.outcome, Kind::Refused | Kind::TooLong | Kind::ModelMissing);
        if !self.resuming && !self.attempt_facts.is_empty() && self.attempt_facts.iter().all(refused) {
            return Action::PassOn;
        }
        let (reason, message) = match self.queue_full {
            true => (Reason::QueueFull, why_no_room(fleet)),
            false => (Reason::Exhausted, self.why_exhausted(fleet, now)),
        };
        Action::Reject(Refusal { reason, message, retry_after: Some(self.recovery(fleet, now)) })
    }

    fn abandon(&mut self, fleet: &mut Fleet, now: Timestamp, phase: Phase) -> Action {
        match phase {
            Phase::New | Phase::Done => {}
            Phase::Asking { held, .. } => self.give_up_permit(fleet, held),
            Phase::Waiting { ticket, since } => {
                fleet.leave(ticket);
                self.wait_ended(now, since);
            }
            Phase::Sending { permit, sending } | Phase::Relaying { permit, sending } => {
                let gone = Outcome::new(Kind::ClientGone, "the client went away");
                self.settle(fleet, now, permit, sending, Ended::failed(gone));
            }
        }
        Action::Finish(End::ClientGone)
    }

    fn give_up_permit(&mut self, fleet: &mut Fleet, permit: Option<Permit>) {
        if let Some(permit) = permit {
            fleet.refund(permit);
        }
    }
}

/// The capability of a backend that can continue an answer that is put into its mouth.
const PREFILL: &str = "prefill";

/// What a token limit is charged for an answer before it is known.
const ANSWER_TOKENS: u32 = 1_024;

/// Waits of one exchange that are over at once. They cost a policy call each, and no time.
const MAX_EMPTY_WAITS: u32 = 64;

/// Dispatches of one exchange that could not be had and are put to the policy again.
const MAX_LOST_RACES: u32 = 3;

/// How long a dispatch that could not be had waits for its lane after that.
const DENIED_WAIT: Duration = Duration::from_secs(5);

/// What an exchange with these facts needs of a backend.
fn wanted(view: &View, model: &Arc<str>, facts: &Facts, tokens: u32) -> Want {
    if facts.crosses {
        view.want_across(model, facts.operation, tokens)
    } else {
        view.want(model, facts.operation, tokens)
    }
}
