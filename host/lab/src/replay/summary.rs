//! Counts and examples of a replay.

use indexmap::IndexMap;
use pointsman_core::contract::Decision;
use pointsman_core::journal::Question;
use pointsman_core::table::Table;
use pointsman_engine::{Fault, Heard};
use pointsman_store::ExchangeRow;

use super::compare::{Divergence, Exactness, first_other_use};
use super::describe::{of_decision, of_state, on_one_line};

/// QuestionRef of a question in the journal.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct QuestionRef {
    /// The request id of its exchange.
    pub exchange: String,
    /// Time when the exchange arrived.
    pub started: String,
    /// The model asked for.
    pub model: String,
    /// Number of the question in its exchange, from 1.
    pub question: u32,
}

/// Two answers to the same question.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// Exchange and number of the question.
    #[serde(flatten)]
    pub place: QuestionRef,
    /// The answer that was expected: the recorded one.
    pub recorded: Said,
    /// The answer of the replayed component.
    pub now: Said,
    /// First difference in the use of `state`, in words; `None` without one.
    pub state: Option<String>,
}

/// A decision and its notes in words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Said {
    /// The decision, or the fault.
    pub decision: String,
    /// Notes that came with it.
    pub notes: Vec<String>,
}

/// A revision's own questions, put to it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exact {
    /// Exchanges whose decisions were compared.
    pub exchanges: u64,
    /// Questions it was asked again.
    pub questions: u64,
    /// Number of these that were answered differently.
    pub differing: u64,
    /// The first difference, as an example.
    pub first: Option<Difference>,
    /// Failed then and now, in the same way.
    pub failed_again: u64,
    /// Not compared, because time decided.
    pub timed: u64,
    /// Not compared, because not all uses of `state` are recorded.
    pub too_much_state: u64,
}

/// Another revision's questions, put to a candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diverging {
    /// Exchanges, and how many there were of each recorded revision.
    pub exchanges: u64,
    /// The recorded revisions, with their exchanges.
    pub recorded: IndexMap<String, u64>,
    /// Questions asked; what follows the first other decision of an exchange is not.
    pub questions: u64,
    /// Exchanges with a divergence, those that are but a tie not among them.
    pub differing: u64,
    /// Exchanges in which it would have chosen nothing but other backends that were as good.
    pub ties: u64,
    /// The divergences by kind, as they were met.
    pub groups: IndexMap<Divergence, Group>,
    /// Questions for which `state` gave answers that were not recorded.
    pub unrecorded: u64,
    /// Questions not compared, because the candidate's time was over.
    pub timed: u64,
}

/// Divergences of one kind, counted, with examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Number of exchanges that diverge in this way.
    pub exchanges: u64,
    /// The first divergences, as examples.
    pub examples: Vec<Difference>,
}

/// A component's questions, each put to an instance that was never asked anything, beside one that remembers all before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgetful {
    /// Number of questions that were asked.
    pub questions: u64,
    /// Number of these that were answered differently.
    pub differing: u64,
    /// The first of them, with the exchange's number; the remembering instance's answer stands as the recorded one.
    pub first: Option<(u64, Difference)>,
}

impl QuestionRef {
    /// Builds the place of a question, counted from 0.
    pub fn new(exchange: &ExchangeRow, question: usize) -> Self {
        Self {
            exchange: exchange.id.clone(),
            started: exchange.started.clone(),
            model: on_one_line(&exchange.model),
            question: u32::try_from(question + 1).unwrap_or(u32::MAX),
        }
    }
}

impl Said {
    fn new(answer: Result<&Decision, &Fault>, notes: &[String], table: &Table) -> Self {
        let decision = match answer {
            Ok(decision) => of_decision(decision, table),
            Err(fault) => on_one_line(&fault.to_string()),
        };
        Self { decision, notes: notes.iter().map(|note| on_one_line(note)).collect() }
    }

    /// Describes the recorded answer.
    pub fn recorded(question: &Question, table: &Table) -> Self {
        let said = Self::new(Ok(&question.decision), &question.notes, table);
        match &question.fault {
            Some(fault) => Self { decision: format!("policy fault ({})", fault.kind), ..said },
            None => said,
        }
    }

    /// Describes the answer heard now.
    pub fn heard(heard: &Heard, table: &Table) -> Self {
        Self::new(heard.answer.as_ref(), &heard.notes, table)
    }
}

impl Difference {
    /// Between the record and an answer.
    pub fn new(place: QuestionRef, question: &Question, heard: &Heard, table: &Table) -> Self {
        let in_words = |(number, then, now): (usize, Option<_>, Option<_>)| {
            let (then, now) = (of_state(then.as_ref()), of_state(now.as_ref()));
            format!("use {number} of `state`: recorded {then}; now {now}")
        };
        Self {
            place,
            recorded: Said::recorded(question, table),
            now: Said::heard(heard, table),
            state: first_other_use(question, heard).map(in_words),
        }
    }
}

impl Exact {
    /// Counts one more question and its exactness.
    pub fn add(&mut self, exactness: Exactness, difference: impl FnOnce() -> Difference) {
        self.questions += 1;
        match exactness {
            Exactness::Same => {}
            Exactness::FailedAgain => self.failed_again += 1,
            Exactness::Timed => self.timed += 1,
            Exactness::TooMuchState => self.too_much_state += 1,
            Exactness::Differs => {
                self.differing += 1;
                self.first.get_or_insert_with(difference);
            }
        }
    }
}

impl Diverging {
    /// One more exchange of this revision.
    pub fn add(&mut self, recorded: &str) {
        self.exchanges += 1;
        match self.recorded.get_mut(recorded) {
            Some(exchanges) => *exchanges += 1,
            None => drop(self.recorded.insert(recorded.to_owned(), 1)),
        }
    }

    /// Counts an exchange that diverges, and keeps it as one of at most `examples`.
    pub fn diverged(&mut self, divergence: Divergence, examples: usize, example: impl FnOnce() -> Difference) {
        match divergence {
            Divergence::Tie(_) => self.ties += 1,
            _ => self.differing += 1,
        }
        let group = self.groups.entry(divergence).or_default();
        group.exchanges += 1;
        if group.examples.len() < examples {
            group.examples.push(example());
        }
    }

    /// The groups, the largest first.
    pub fn by_size(&self) -> Vec<(&Divergence, &Group)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.exchanges));
        groups
    }
}

impl Forgetful {
    /// One more question; `difference` when it was answered otherwise.
    pub fn add(&mut self, number: u64, difference: Option<impl FnOnce() -> Difference>) {
        self.questions += 1;
        let Some(difference) = difference else { return };
        self.differing += 1;
        if self.first.as_ref().is_none_or(|(first, _)| number < *first) {
            self.first = Some((number, difference()));
        }
    }

    /// Adds the findings of another thread.
    pub fn join(&mut self, other: Forgetful) {
        self.questions += other.questions;
        self.differing += other.differing;
        self.first = [self.first.take(), other.first].into_iter().flatten().min_by_key(|(number, _)| *number);
    }
}
