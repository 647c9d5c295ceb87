//! A recorded question beside what a component answers to it now: the same, or in what they differ.

use std::fmt;

use pointsman_core::contract::{Decision, Dispatch};
use pointsman_core::divergence::is_tie;
use pointsman_core::journal::{Failed, Question, StateUse};
use pointsman_core::table::{Lane, Table};
use pointsman_engine::{Fault, FaultKind, Heard, is_of_the_moment};

/// A question put to the revision that decided it, beside the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exactness {
    /// Decision, notes and uses of `state` are the same.
    Same,
    /// It failed then, and fails in the same way.
    FailedAgain,
    /// Something is not the same.
    Differs,
    /// It cannot be said: it was, or is, a matter of time.
    Timed,
    /// It cannot be said: more uses of `state` were made than are recorded.
    TooMuchState,
}

/// Difference of another component's answer to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Divergence {
    /// The lanes of both decisions, which differ.
    Lane(Lane, Lane),
    /// To another backend of the same lane.
    Backend(Lane),
    /// To another backend of the same lane that was as good: chance may have chosen. No difference.
    Tie(Lane),
    /// For another model, to the same backend.
    Model(Lane),
    /// It waited, and would be sent.
    WaitToSend(Lane),
    /// It was sent, and would wait.
    SendToWait(Lane),
    /// It was refused, and would not be.
    RejectTo(Action),
    /// It was not refused, and would be.
    ToReject(Action),
    /// It would wait for another lane, or for another time.
    Wait,
    /// It would be refused in other words.
    Rejection,
    /// To the same place with other limits, commit gate or resume mode.
    Terms(Lane),
    /// The component fails, and the default policy would decide.
    Fails(FaultKind),
    /// The decision is the same, the notes are not.
    Notes,
}

impl Divergence {
    /// Returns true if the exchange would go on differently. Other notes, and another equivalent backend, change
    /// nothing.
    pub const fn is_different(self) -> bool {
        !matches!(self, Divergence::Notes | Divergence::Tie(_))
    }
}

/// Effect of a decision that is not a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The decision sends an attempt in this lane.
    Send(Lane),
    /// The decision waits.
    Wait,
}

/// Compares the same revision's answer with the recorded one.
pub fn exactness(question: &Question, heard: &Heard) -> Exactness {
    if question.state.last() == Some(&StateUse::TooMany) {
        return Exactness::TooMuchState;
    }
    if question.fault.as_ref().is_some_and(was_of_the_moment) || ran_out_of_time(heard) {
        return Exactness::Timed;
    }
    let same = |it: bool, found| if it { found } else { Exactness::Differs };
    let same_state = question.state == heard.state;
    match (&question.fault, &heard.answer) {
        (None, Ok(now)) => {
            same(*now == question.decision && heard.notes == question.notes && same_state, Exactness::Same)
        }
        (Some(then), Err(now)) => {
            let same_kind = then.kind == now.kind.as_str();
            same(same_kind && heard.notes == own_notes(question) && same_state, Exactness::FailedAgain)
        }
        (None, Err(_)) | (Some(_), Ok(_)) => Exactness::Differs,
    }
}

/// Compares another component's answer with the recorded one; `None` without a difference, or when its time was over,
/// which means nothing here.
pub fn divergence(question: &Question, heard: &Heard, table: &Table) -> Option<Divergence> {
    match &heard.answer {
        Err(fault) if is_timed(fault) => None,
        Err(fault) => Some(Divergence::Fails(fault.kind)),
        Ok(now) if is_tie(&question.query, table, &question.decision, now) => {
            sent(now).map(|(lane, _)| Divergence::Tie(lane))
        }
        Ok(now) => of_decisions(&question.decision, now).or_else(|| {
            // Of a fault the notes are the host's and the twin's.
            let same = question.fault.is_some() || heard.notes == question.notes;
            (!same).then_some(Divergence::Notes)
        }),
    }
}

/// Compares another instance's answer to the same question; `None` when they cannot be compared.
pub fn same_again(heard: &Heard, other: &Heard) -> Option<bool> {
    if ran_out_of_time(heard) || ran_out_of_time(other) || heard.state.last() == Some(&StateUse::TooMany) {
        return None;
    }
    let same_answer = match (&heard.answer, &other.answer) {
        (Ok(one), Ok(other)) => one == other,
        // Addresses in a message may be others.
        (Err(one), Err(other)) => one.kind == other.kind,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    };
    Some(same_answer && heard.notes == other.notes && heard.state == other.state)
}

/// Returns true if the deadline was exceeded.
pub fn ran_out_of_time(heard: &Heard) -> bool {
    heard.answer.as_ref().is_err_and(is_timed)
}

/// In what two decisions differ.
pub fn of_decisions(then: &Decision, now: &Decision) -> Option<Divergence> {
    if then == now {
        return None;
    }
    let sent = |decision: &Decision| sent(decision).map(|(lane, _)| lane);
    Some(match (then, now) {
        (Decision::Reject(_), Decision::Reject(_)) => Divergence::Rejection,
        (Decision::Wait(_), Decision::Wait(_)) => Divergence::Wait,
        (Decision::Reject(_), other) => Divergence::RejectTo(sent(other).map_or(Action::Wait, Action::Send)),
        (other, Decision::Reject(_)) => Divergence::ToReject(sent(other).map_or(Action::Wait, Action::Send)),
        (then, now) => match (self::sent(then), self::sent(now)) {
            (Some(then), Some(now)) => of_dispatches(then, now),
            (Some((lane, _)), None) => Divergence::SendToWait(lane),
            (None, Some((lane, _))) => Divergence::WaitToSend(lane),
            (None, None) => Divergence::Wait,
        },
    })
}

fn of_dispatches((then_lane, then): (Lane, &Dispatch), (lane, now): (Lane, &Dispatch)) -> Divergence {
    if then_lane != lane {
        Divergence::Lane(then_lane, lane)
    } else if then.backend != now.backend {
        Divergence::Backend(lane)
    } else if then.model != now.model {
        Divergence::Model(lane)
    } else {
        Divergence::Terms(lane)
    }
}

fn sent(decision: &Decision) -> Option<(Lane, &Dispatch)> {
    match decision {
        Decision::Primary(dispatch) => Some((Lane::Primary, dispatch)),
        Decision::Fallback(dispatch) => Some((Lane::Fallback, dispatch)),
        Decision::Emergency(dispatch) => Some((Lane::Emergency, dispatch)),
        Decision::Wait(_) | Decision::Reject(_) => None,
    }
}

/// The first use of `state` that is not as recorded: its number from 1, what was recorded, what came now.
pub fn first_other_use(question: &Question, heard: &Heard) -> Option<(usize, Option<StateUse>, Option<StateUse>)> {
    let longest = question.state.len().max(heard.state.len());
    let place = (0..longest).find(|&i| question.state.get(i) != heard.state.get(i))?;
    Some((place + 1, question.state.get(place).cloned(), heard.state.get(place).cloned()))
}

/// Returns the policy's own notes, without those of a fault, which come after them.
pub fn own_notes(question: &Question) -> &[String] {
    let of_fault = |fault: &Failed| {
        let beginning = format!("policy fault ({})", fault.kind);
        question.notes.iter().position(|note| note.starts_with(&beginning))
    };
    let end = question.fault.as_ref().and_then(of_fault).unwrap_or(question.notes.len());
    &question.notes[..end]
}

fn was_of_the_moment(fault: &Failed) -> bool {
    is_of_the_moment(&fault.kind, &fault.message)
}

fn is_timed(fault: &Fault) -> bool {
    is_of_the_moment(fault.kind.as_str(), &fault.message)
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Divergence::Lane(then, now) => write!(f, "{} -> {}", then.as_str(), now.as_str()),
            Divergence::Backend(lane) => write!(f, "another backend, {}", lane.as_str()),
            Divergence::Tie(lane) => write!(f, "another backend that was as good (tie), {}", lane.as_str()),
            Divergence::Model(lane) => write!(f, "another model, {}", lane.as_str()),
            Divergence::WaitToSend(lane) => write!(f, "wait -> {}", lane.as_str()),
            Divergence::SendToWait(lane) => write!(f, "{} -> wait", lane.as_str()),
            Divergence::RejectTo(action) => write!(f, "reject -> {action}"),
            Divergence::ToReject(action) => write!(f, "{action} -> reject"),
            Divergence::Wait => f.write_str("another wait"),
            Divergence::Rejection => f.write_str("another rejection"),
            Divergence::Terms(lane) => write!(f, "limits, commit or resume only, {}", lane.as_str()),
            Divergence::Fails(kind) => write!(f, "it fails ({})", kind.as_str()),
            Divergence::Notes => f.write_str("notes only"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Send(lane) => lane.as_str(),
            Action::Wait => "wait",
        })
    }
}
