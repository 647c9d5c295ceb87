//! The track of a recorded exchange: what its policy was asked and what followed, question by question.
//!
//! While the decisions are those that were recorded, core's own `Exchange` is shown what was recorded and gets what was
//! recorded, at the recorded times. From the first other decision on, the world goes on by itself, from what the question
//! before that decision showed of the backends.

use std::time::Duration;

use pointsman_core::contract::{BackendRow, Column, Decision, NONE, RowState};
use pointsman_core::divergence;
use pointsman_core::exchange::Action;
use pointsman_core::fleet::InitialState;
use pointsman_core::fleet::Observed;
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::table::{Backend, Table};
use pointsman_core::time::Timestamp;

use super::attempt::AttemptResult;
use crate::story::Decided;

/// A wait may be shorter than the policy's limit by this and count as recorded: timers are late.
const TIMER_SLACK: Duration = Duration::from_millis(50);

/// A recorded question; times are from time 0 of the world.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedQuestion {
    /// Time of the question.
    pub at: Duration,
    /// Seed of its query.
    pub seed: u64,
    /// Rows that it showed of the backends, in the table's order.
    pub rows: Vec<BackendRow>,
    /// Values that the policy found in `state`, by key; `None`: no value.
    pub state: Vec<(String, Option<i64>)>,
    /// The decision; a backend is named where the policy named one.
    pub decided: Decided,
    /// Time limits, commit and resume that the decision set, as [`divergence::terms`] writes them.
    pub terms: String,
    /// The step that followed the question.
    pub then: Then,
}

/// The step after a recorded decision; times are from time 0 of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// An attempt.
    Send(RecordedAttempt),
    /// A wait.
    Wait {
        /// Time at which it began.
        from: Duration,
        /// Its end; none: the client left first.
        until: Option<Duration>,
        /// The backend whose capacity ended it; none: its time was up.
        granted: Option<u32>,
    },
    /// The policy was asked again at once: another request was quicker, or there was nothing to wait for.
    Ask,
    /// The exchange ended.
    End,
}

/// A recorded attempt; times are from time 0 of the world.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedAttempt {
    /// The backend.
    pub backend: u32,
    /// Time of sending.
    pub from: Duration,
    /// Time when its first byte went downstream; `None`: never.
    pub committed: Option<Duration>,
    /// Time of its end; `None`: the client left first.
    pub until: Option<Duration>,
    /// As what; none: as the backend's script has it.
    pub outcome: Option<Kind>,
    /// Its HTTP status; 0: none.
    pub status: u16,
}

/// The recorded questions of the world's only exchange, and how far it has come.
pub(super) struct Track {
    start: Timestamp,
    questions: Vec<RecordedQuestion>,
    /// The question that is being, or was last, answered.
    current: usize,
    /// The question that comes next, if one comes.
    expected: Option<usize>,
}

/// The recorded moment that an exchange is about to meet.
pub(super) struct Moment {
    pub at: Timestamp,
    pub observed: Observed,
}

impl Track {
    /// A track of these questions; none where there are none.
    pub(super) fn new(start: Timestamp, questions: &[RecordedQuestion]) -> Option<Self> {
        (!questions.is_empty()).then(|| Self { start, questions: questions.to_vec(), current: 0, expected: Some(0) })
    }

    fn question(&self) -> &RecordedQuestion {
        &self.questions[self.current]
    }

    /// The question that comes with the next step, if one was recorded.
    pub(super) fn upcoming(&self) -> Option<Moment> {
        let question = self.questions.get(self.expected?)?;
        Some(Moment { at: self.start + question.at, observed: shows(question, None, false) })
    }

    /// An attempt or a wait is over.
    pub(super) fn ended(&mut self) {
        self.expected = Some(self.current + 1).filter(|next| *next < self.questions.len());
    }

    /// The question was answered; the moment in which what was recorded follows. None: it is not the recorded question, or
    /// another decision than the recorded one.
    pub(super) fn decided(&mut self, decision: &Decision, table: &Table) -> Option<Moment> {
        self.current = self.expected.take()?;
        let question = self.question();
        if !question.is_answered_by(decision, table) {
            return None;
        }
        let at = |from: Duration| self.start + from;
        match &question.then {
            Then::Send(attempt) => {
                Some(Moment { at: at(attempt.from), observed: shows(question, Some(attempt.backend), false) })
            }
            Then::Wait { from, .. } => Some(Moment { at: at(*from), observed: shows(question, None, true) }),
            Then::End => Some(Moment { at: at(question.at), observed: shows(question, None, false) }),
            Then::Ask => {
                self.ended();
                self.upcoming()
            }
        }
    }

    /// Returns true if this action is the recorded next step.
    pub(super) fn is_followed_by(&self, action: &Action) -> bool {
        match (&self.question().then, action) {
            (Then::Send(attempt), Action::Send(sending)) => attempt.backend == sending.backend,
            (Then::Wait { .. }, Action::Wait { .. }) | (Then::Ask, Action::Ask(_)) => true,
            (Then::End, Action::PassOn | Action::Reject(_) | Action::Finish(_)) => true,
            (Then::Send(_) | Then::Wait { .. } | Then::Ask | Then::End, _) => false,
        }
    }

    /// Returns the recorded length of the wait that begins `now`, where the policy allows it `max`; `None`: not as
    /// recorded.
    pub(super) fn waits(&self, now: Timestamp, max: Duration) -> Option<Duration> {
        let Then::Wait { until, granted, .. } = &self.question().then else { return None };
        let Some(until) = until else { return Some(max) };
        let lasted = (self.start + *until).since(now);
        let is_as_recorded = match granted {
            Some(_) => lasted <= max + TIMER_SLACK,
            None => lasted.abs_diff(max) <= TIMER_SLACK,
        };
        is_as_recorded.then_some(lasted)
    }

    /// The backend whose capacity ends the wait under way.
    pub(super) fn granted(&self) -> Option<u32> {
        match &self.question().then {
            Then::Wait { granted, .. } => *granted,
            Then::Send(_) | Then::Ask | Then::End => None,
        }
    }

    /// Returns true if the recorded attempt went on for longer than to `at`.
    pub(super) fn goes_on(&self, at: Timestamp) -> bool {
        match &self.question().then {
            Then::Send(RecordedAttempt { until: Some(until), .. }) => self.start + *until > at + TIMER_SLACK,
            Then::Send(_) | Then::Wait { .. } | Then::Ask | Then::End => false,
        }
    }

    /// Returns the recorded course of the attempt that is sent `now`.
    pub(super) fn result(&self, now: Timestamp, scripted: AttemptResult) -> AttemptResult {
        let Then::Send(attempt) = &self.question().then else { return scripted };
        let Some(until) = attempt.until else { return scripted };
        let from_now = |at: Duration| (self.start + at).since(now);
        let AttemptResult { mut ended, status, limits_left, .. } = scripted;
        if let Some(kind) = attempt.outcome.filter(|kind| *kind != ended.outcome.kind) {
            ended.outcome = Outcome::new(kind, "as it was recorded");
        }
        let recorded = Some(attempt.status).filter(|status| *status > 0);
        ended.outcome.status = recorded;
        let overdue = None;
        AttemptResult {
            overdue,
            commit: attempt.committed.map(from_now),
            end: from_now(until),
            ended,
            status: recorded.unwrap_or(status),
            limits_left,
        }
    }

    /// Returns the number of questions asked.
    pub(super) fn asked(&self) -> usize {
        self.current + 1
    }

    /// Returns the state of the backends where the record is left, in the table's order.
    pub(super) fn pasts(&self, now: Timestamp, table: &Table, at_most: Duration) -> Vec<InitialState> {
        let past = |((index, backend), row): ((u32, &Backend), &BackendRow)| {
            let opens = self.opens(index).map(|at| (self.start + at).since(now));
            past_of(row, backend, opens.unwrap_or(at_most))
        };
        (0..).zip(&table.backends).zip(&self.question().rows).map(past).collect()
    }

    /// Finds when a backend was seen to take requests again after the present question.
    fn opens(&self, index: u32) -> Option<Duration> {
        self.questions[self.current..].iter().enumerate().find_map(|(later, question)| match &question.then {
            _ if later > 0 && question.rows[index as usize].is(RowState::Ready) => Some(question.at),
            Then::Wait { until, granted: Some(granted), .. } if *granted == index => *until,
            Then::Wait { .. } | Then::Send(_) | Then::Ask | Then::End => None,
        })
    }
}

fn shows(question: &RecordedQuestion, admits: Option<u32>, can_wait: bool) -> Observed {
    Observed { rows: question.rows.clone(), seed: question.seed, admits, can_wait }
}

impl RecordedQuestion {
    /// Returns true if this is the recorded decision. Naming the backend that the host had chosen counts as the same.
    fn is_answered_by(&self, decision: &Decision, table: &Table) -> bool {
        let decided = Decided::of(decision, table);
        let chosen = match &self.then {
            Then::Send(attempt) => table.backends.get(attempt.backend as usize).map(|backend| backend.id.clone()),
            Then::Wait { .. } | Then::Ask | Then::End => None,
        };
        let same_backend = decided.backend == self.decided.backend
            || (self.decided.backend.is_none() && decided.backend.is_some() && decided.backend == chosen);
        decided.what == self.decided.what
            && decided.model == self.decided.model
            && same_backend
            && divergence::terms(decision) == self.terms
    }
}

/// Derives a backend's state from the row that a question showed of it; `opens_in` is the time until it takes
/// requests again where the row does not tell.
pub fn past_of(row: &BackendRow, backend: &Backend, opens_in: Duration) -> InitialState {
    let number = |column: Column| row.number(column);
    let known = |column: Column| Some(number(column)).filter(|number| *number != NONE);
    let ms = |number: u32| Duration::from_millis(number.into());
    let is = |state: RowState| number(Column::State) == state as u32;
    let reason = Kind::ALL.get(number(Column::CooldownReason) as usize).copied().filter(|kind| *kind != Kind::Answered);
    let mut past = InitialState {
        drained: is(RowState::Drained),
        in_flight: number(Column::InFlight),
        failures: number(Column::Failures).max(1),
        emergency_in: known(Column::EmergencyMs).filter(|left| *left > 0).map(ms),
        latency: ms(number(Column::LatencyMs)),
        first_token: ms(number(Column::FirstTokenMs)),
        errors: number(Column::ErrorPermille) as f32 / 1_000.0,
        ..InitialState::default()
    };
    if is(RowState::Cooling) {
        past.cooldown = Some((ms(number(Column::CooldownMs)), reason.unwrap_or(Kind::RateLimited)));
    } else if let Some(reason) = reason {
        past.cooldown = Some((Duration::ZERO, reason));
    }
    if is(RowState::Probing) || is(RowState::Throttled) {
        past.full_for = Some(known(Column::ReadyMs).map_or(opens_in, ms));
        if number(Column::ReadyMs) == NONE
            && let Some(most) = backend.limits.max_concurrency
        {
            // A slot has come free by then.
            past.in_flight = past.in_flight.min(most.saturating_sub(1));
        }
    } else {
        past.requests_left = backend.limits.rpm.and_then(|_| known(Column::RequestsLeft));
        past.tokens_left = backend.limits.tpm.and_then(|_| known(Column::TokensLeft));
    }
    past
}
