//! Turns what happens to an exchange into its story, one event at a time.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Decision, Query};
use pointsman_core::exchange::Join;
use pointsman_core::journal::StateUse;
use pointsman_core::suited::Unsuited;
use pointsman_core::table::{Backend, Lane, Table};

use super::{
    BackendSnapshot, Choice, Cost, Decided, Ended, Moment, Outcome, Story, end_text, in_words, passed_over, state_use,
};

/// Tells an exchange as it goes.
#[derive(Clone, Debug)]
pub struct Teller {
    /// The story of what was told so far.
    pub story: Story,
    /// The model asked for.
    model: String,
    waiting_since: Duration,
    was_asked: bool,
    /// The latest question, until its decision has led to something.
    open: Option<Open>,
    attempts: usize,
    cost: Cost,
}

/// A decision that has not led to anything yet.
#[derive(Clone, Debug)]
struct Open {
    standings: Vec<BackendSnapshot>,
    decided: Option<Decision>,
}

/// A decision of the policy, and what came with it.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The decision.
    pub decision: &'a Decision,
    /// Notes of the policy.
    pub notes: &'a [String],
    /// Kind and message of the fault, when the native fallback decided.
    pub fault: Option<(&'a str, &'a str)>,
    /// Every use of `state` on the way.
    pub state: &'a [StateUse],
    /// Duration of the decision, where it was measured.
    pub took: Option<Duration>,
}

impl Teller {
    /// An exchange for `model` arrived at `at`.
    pub fn new(title: String, model: &str, at: Duration) -> Self {
        Self {
            story: Story { title, moments: vec![(at, Moment::Arrived)] },
            model: model.to_owned(),
            waiting_since: at,
            was_asked: false,
            open: None,
            attempts: 0,
            cost: Cost::default(),
        }
    }

    /// Tells of a question to the policy, `at` after the arrival.
    pub fn asked(&mut self, at: Duration, table: &Table, query: &Query) {
        self.not_had(at, table);
        let standings = BackendSnapshot::all(query, table);
        if !std::mem::replace(&mut self.was_asked, true) {
            self.unsuited(at, table, query, &standings);
        }
        self.tell(at, Moment::Asked(standings.clone()));
        self.open = Some(Open { standings, decided: None });
    }

    /// The backends that are no candidates: they stay so, and are told once.
    fn unsuited(&mut self, at: Duration, table: &Table, query: &Query, standings: &[BackendSnapshot]) {
        let operation = query.request.operation;
        let why = |(index, backend): (u32, &Backend)| {
            let is_candidate = standings.iter().any(|standing| standing.index == index);
            let why = Unsuited::of(table, backend, &self.model, operation, true).filter(|_| !is_candidate)?;
            Some((backend.id.clone(), why.told(backend, operation)))
        };
        let others: Vec<_> = (0..).zip(&table.backends).filter_map(why).collect();
        if !others.is_empty() {
            self.tell(at, Moment::Unsuited(others));
        }
    }

    /// It answered; what was decided, with the table's names.
    pub fn answered(&mut self, at: Duration, table: &Table, answered: Answered<'_>) -> Decided {
        if !answered.state.is_empty() {
            self.tell(at, Moment::State(answered.state.iter().map(state_use).collect()));
        }
        if let Some((kind, message)) = answered.fault {
            self.tell(at, Moment::Fault(format!("{kind}: {message}")));
        }
        for note in answered.notes {
            self.tell(at, Moment::Noted(note.clone()));
        }
        let decided = Decided::of(answered.decision, table);
        if let Some(model) = &decided.model {
            self.model.clone_from(model);
        }
        let took = answered.took.map_or(String::new(), |took| format!(", in {} us", took.as_micros()));
        self.tell(at, Moment::Decided(format!("{decided}{}{took}", terms(answered.decision))));
        if let Some(open) = &mut self.open {
            open.decided = Some(answered.decision.clone());
        }
        if let Some(choice) = choice(answered.decision) {
            self.others(at, table, choice);
        }
        decided
    }

    /// Tells of an attempt that is sent.
    pub fn sent(&mut self, at: Duration, table: &Table, sent: Sent<'_>) {
        let chosen_by_host =
            self.open.as_ref().and_then(|open| open.decided.as_ref()).is_some_and(|d| choice(d).is_none());
        if chosen_by_host {
            self.others(at, table, Choice::Backend { index: sent.backend, lane: sent.lane, by_host: true });
        }
        self.open = None;
        let Some(backend) = table.backends.get(sent.backend as usize) else { return };
        let Sent { lane, model, probe, join, .. } = sent;
        self.tell(at, Moment::Sent { backend: backend.id.clone(), lane, model: model.to_owned(), probe, join });
    }

    /// The answer's first byte went downstream.
    pub fn committed(&mut self, at: Duration) {
        self.tell(at, Moment::Committed);
    }

    /// Tells of the end of an attempt.
    pub fn outcome(&mut self, at: Duration, outcome: Outcome) {
        self.attempts += 1;
        self.cost = self.cost.plus(outcome.cost);
        self.tell(at, Moment::Outcome(outcome));
    }

    /// It waits, at most so long.
    pub fn waits(&mut self, at: Duration, table: &Table, max: Duration) {
        if self.open.as_ref().and_then(|open| open.decided.as_ref()).is_some_and(|d| !matches!(d, Decision::Wait(_))) {
            self.not_had(at, table);
        }
        self.open = None;
        self.waiting_since = at;
        self.tell(at, Moment::Waits(max));
    }

    /// Tells of the end of a wait, and whose capacity was given; none: the time was up.
    pub fn waited(&mut self, at: Duration, granted: Option<Arc<str>>) {
        self.tell(at, Moment::Waited(at.saturating_sub(self.waiting_since), granted));
    }

    /// Tells of the end of the exchange, with the number of its waits and their time.
    pub fn ended(&mut self, at: Duration, ended: &Ended, waits: (u32, Duration)) {
        self.tell(at, Moment::End(end_text(ended, self.attempts, waits)));
        if self.attempts > 0 {
            self.tell(at, Moment::Cost(self.cost));
        }
    }

    /// It saved this, compared with the cheapest fallback; after its end.
    pub fn saved(&mut self, at: Duration, usd: f64, waited: bool) {
        self.tell(at, Moment::Saved { usd, waited });
    }

    fn others(&mut self, at: Duration, table: &Table, choice: Choice) {
        let Some(open) = &self.open else { return };
        let others = passed_over(&open.standings, choice, table, &self.model);
        if !others.is_empty() {
            self.tell(at, Moment::PassedOver(others));
        }
    }

    /// The decision before led to nothing.
    fn not_had(&mut self, at: Duration, table: &Table) {
        let Some(Open { standings, decided: Some(decision) }) = self.open.take() else { return };
        let name = |index: u32| table.backends.get(index as usize).map_or("?", |backend| &*backend.id);
        let of_lane = |lane: Lane, backend: Option<u32>| match backend {
            None => format!("no permit: no backend of the {} lane was free any more", lane.as_str()),
            Some(index) => {
                let was = standings.iter().find(|standing| standing.index == index).map(BackendSnapshot::condition);
                let was = was.map_or("could not serve the request".to_owned(), |was| was.replacen("is ", "was ", 1));
                format!("no permit for {}, which {was} when the policy was asked", name(index))
            }
        };
        let why = match decision {
            Decision::Primary(dispatch) => of_lane(Lane::Primary, dispatch.backend),
            Decision::Fallback(dispatch) => of_lane(Lane::Fallback, dispatch.backend),
            Decision::Emergency(dispatch) => of_lane(Lane::Emergency, dispatch.backend),
            Decision::Wait(_) => {
                "the wait was over at once: nothing to wait for, no room in the line, or no budget for it".to_owned()
            }
            Decision::Reject(_) => return,
        };
        self.tell(at, Moment::NotHad(why));
    }

    fn tell(&mut self, at: Duration, moment: Moment) {
        self.story.moments.push((at, moment));
    }
}

/// An attempt as it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// Its place in the table.
    pub backend: u32,
    /// Lane of the attempt.
    pub lane: Lane,
    /// The model name sent.
    pub model: &'a str,
    /// True for a probe after a cooldown.
    pub probe: bool,
    /// Way to continue the delivered text.
    pub join: Option<Join>,
}

/// Returns the choice of a decision; `None` where the host chooses for it.
fn choice(decision: &Decision) -> Option<Choice> {
    let backend = |lane, index: Option<u32>| index.map(|index| Choice::Backend { index, lane, by_host: false });
    match decision {
        Decision::Primary(dispatch) => backend(Lane::Primary, dispatch.backend),
        Decision::Fallback(dispatch) => backend(Lane::Fallback, dispatch.backend),
        Decision::Emergency(dispatch) => backend(Lane::Emergency, dispatch.backend),
        Decision::Wait(hold) => Some(Choice::Wait(hold.lane)),
        Decision::Reject(_) => Some(Choice::Reject),
    }
}

/// Describes the other terms of a decision.
fn terms(decision: &Decision) -> String {
    let dispatch = match decision {
        Decision::Wait(hold) => return format!(", at most {}", in_words(hold.max)),
        Decision::Reject(rejection) if rejection.message.is_empty() => return String::new(),
        Decision::Reject(rejection) => return format!(": {}", rejection.message),
        Decision::Primary(dispatch) | Decision::Fallback(dispatch) | Decision::Emergency(dispatch) => dispatch,
    };
    let limits = [
        ("first byte", dispatch.first_byte),
        ("first token", dispatch.first_token),
        ("idle", dispatch.idle),
        ("total", dispatch.total),
    ];
    let told =
        limits.iter().filter_map(|(name, limit)| limit.map(|limit| format!(", {name} within {}", in_words(limit))));
    told.collect()
}
