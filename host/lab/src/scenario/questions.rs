//! `[[request.question]]`: what a policy was asked in a recorded exchange, and what followed.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_config::KeyPath;
use pointsman_core::contract::{BackendRow, COLUMNS, Column, NONE, RowState};
use pointsman_core::outcome::Kind;

use super::check::Check;
use super::raw::{RawCell, RawQuestion, RawSeed, RawStateValue};
use super::syntax::{DECISION, Expected};
use crate::story::Decided;
use crate::world::{RecordedAttempt, RecordedQuestion, Then};

/// Largest number of recorded questions of one request.
const MAX_QUESTIONS: usize = 1_000;

/// The word for a number that there is not: no limit, no time known.
pub const NO_NUMBER: &str = "none";

/// Syntax of the step after a decision.
const THEN: &str = "\"send BACKEND\", \"wait\", \"ask\" (the policy is asked again at once) or \"end\"";

impl Check<'_, '_, '_> {
    pub(super) fn questions(&mut self, request: &KeyPath, raw: Vec<RawQuestion>) -> Vec<RecordedQuestion> {
        let list = request.key("question");
        if raw.len() > MAX_QUESTIONS {
            self.complaints.error(&list, format!("{} questions are more than {MAX_QUESTIONS}", raw.len()));
        }
        raw.into_iter().enumerate().filter_map(|(i, raw)| self.question(&list.index(i), raw)).collect()
    }

    /// Recorded questions tell of one exchange, and nothing of others beside it.
    pub(super) fn only_one_is_recorded(&mut self, requests: &[super::Request]) {
        let is_recorded = |request: &super::Request| !request.questions.is_empty();
        let all: u32 = requests.iter().fold(0, |sum, request| sum.saturating_add(request.times));
        if all > 1
            && let Some(i) = requests.iter().position(is_recorded)
        {
            let at = KeyPath::of("request").index(i).key("question");
            let problem = self.complaints.error(&at, "recorded questions go with a scenario of one request");
            problem.help("take the [[request.question]] out, or the other requests");
        }
    }

    fn question(&mut self, at: &KeyPath, raw: RawQuestion) -> Option<RecordedQuestion> {
        let asked_at = self.duration(at, "at", raw.at.as_deref(), Duration::ZERO);
        let seed = self.question_seed(at, raw.seed.as_ref());
        let rows = self.rows(&at.key("seen"), &raw.seen);
        let state = raw.state.iter().filter_map(|(key, value)| self.state_value(&at.key("state").key(key), key, value));
        let state = state.collect();
        let decided = self.decided(&at.key("decided"), raw.decided.as_deref());
        let then = self.then(at, &raw);
        let terms = raw.terms.unwrap_or_default();
        Some(RecordedQuestion { at: asked_at, seed, rows, state, decided: decided?, terms, then: then? })
    }

    fn question_seed(&mut self, at: &KeyPath, raw: Option<&RawSeed>) -> u64 {
        match raw {
            None => 0,
            Some(RawSeed::Number(number)) => *number,
            Some(RawSeed::Text(text)) => self.seed_of(&at.key("seed"), text),
        }
    }

    fn state_value(&mut self, at: &KeyPath, key: &str, value: &RawStateValue) -> Option<(String, Option<i64>)> {
        match value {
            RawStateValue::Number(number) => Some((key.to_owned(), Some(*number))),
            RawStateValue::Text(text) if text == NO_NUMBER => Some((key.to_owned(), None)),
            RawStateValue::Text(text) => {
                let problem = self.complaints.error(at, format!("{text:?} is no number"));
                problem.help(format!("write what the policy found, or \"{NO_NUMBER}\""));
                None
            }
        }
    }

    fn decided(&mut self, at: &KeyPath, text: Option<&str>) -> Option<Decided> {
        let decided = match text.and_then(Expected::parse) {
            Some(Expected::One(pattern)) => pattern.decided(),
            Some(Expected::Any) | None => None,
        };
        if decided.is_none() && !self.complaints.is_told(at) {
            let problem = self.complaints.error(at, "`decided` is one decision, a rejection with its status");
            problem.help(format!("write {DECISION}"));
        }
        decided
    }

    fn then(&mut self, at: &KeyPath, raw: &RawQuestion) -> Option<Then> {
        let from = self.duration(at, "from", raw.from.as_deref(), Duration::ZERO);
        let mut time =
            |key: &str, text: Option<&str>| text.map(|text| self.duration(at, key, Some(text), Duration::ZERO));
        let (until, committed) = (time("until", raw.until.as_deref()), time("committed", raw.committed.as_deref()));
        let words: Vec<&str> = raw.then.as_deref().unwrap_or_default().split_whitespace().collect();
        match words.as_slice() {
            ["send", backend] => {
                let backend = self.index(&at.key("then"), backend)?;
                let outcome = raw.outcome.as_deref().and_then(|word| self.outcome(&at.key("outcome"), word));
                let status = raw.status.unwrap_or(0);
                Some(Then::Send(RecordedAttempt { backend, from, committed, until, outcome, status }))
            }
            ["wait"] => {
                let granted = match raw.granted.as_deref() {
                    Some(backend) => Some(self.index(&at.key("granted"), backend)?),
                    None => None,
                };
                Some(Then::Wait { from, until, granted })
            }
            ["ask"] => Some(Then::Ask),
            ["end"] => Some(Then::End),
            _ => {
                if !self.complaints.is_told(&at.key("then")) {
                    let problem = self.complaints.error(&at.key("then"), "`then` says what followed the decision");
                    problem.help(format!("write {THEN}"));
                }
                None
            }
        }
    }

    fn outcome(&mut self, at: &KeyPath, word: &str) -> Option<Kind> {
        let found = Kind::parse(word);
        if found.is_none() {
            self.unknown(at, "outcome", word, &Kind::ALL.map(Kind::as_str));
        }
        found
    }

    fn index(&mut self, at: &KeyPath, backend: &str) -> Option<u32> {
        let found = (0..).zip(&self.table.backends).find(|(_, b)| *b.id == *backend).map(|(index, _)| index);
        if found.is_none() {
            self.unknown(at, "backend", backend, &self.backends());
        }
        found
    }

    fn rows(&mut self, at: &KeyPath, seen: &BTreeMap<String, BTreeMap<String, RawCell>>) -> Vec<BackendRow> {
        let mut rows = vec![BackendRow::UNSUITED; self.table.backends.len()];
        for (backend, cells) in seen {
            let at = at.key(backend);
            let Some(index) = self.index(&at, backend) else { continue };
            let row = &mut rows[index as usize];
            *row = USUAL;
            for (name, cell) in cells {
                let at = at.key(name);
                let Some(column) = Column::named(name) else {
                    self.unknown(&at, "column", name, &COLUMNS);
                    continue;
                };
                row.put(column, self.cell(&at, column, cell));
            }
        }
        rows
    }

    fn cell(&mut self, at: &KeyPath, column: Column, cell: &RawCell) -> u32 {
        let text = match cell {
            RawCell::Number(number) => return *number,
            RawCell::Text(text) if text == NO_NUMBER => return NONE,
            RawCell::Text(text) => text.as_str(),
        };
        if column == Column::State {
            let state = RowState::parse(text);
            let state = state.unwrap_or_else(|| {
                self.unknown(at, "state", text, &RowState::ALL.map(RowState::as_str));
                RowState::Unsuited
            });
            return state as u32;
        }
        if column == Column::CooldownReason {
            return self.outcome(at, text).map_or(0, Kind::index);
        }
        self.complaints.error(at, format!("{text:?} is no number")).help(format!("write a number or \"{NO_NUMBER}\""));
        0
    }
}

/// A backend that is ready, also for emergencies, and has no limits, of which nothing is known: columns that are not written
/// are as in it.
pub const USUAL: BackendRow = BackendRow::UNSUITED
    .with(Column::State, RowState::Ready as u32)
    .with(Column::RequestsLeft, NONE)
    .with(Column::TokensLeft, NONE)
    .with(Column::ConcurrencyLeft, NONE);
