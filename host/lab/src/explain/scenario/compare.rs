//! The scenario, played with the recorded decisions, beside what was recorded.

use std::collections::VecDeque;
use std::sync::Arc;

use pointsman_core::contract::{Column, Decision, Query, Rejection, Row};
use pointsman_core::journal::Question;
use pointsman_core::table::Table;
use pointsman_engine::{Texts, Verdict};
use pointsman_store::Journaled;

use crate::scenario::Scenario;
use crate::trial::Trial;

/// Lists the differences from the record, in sentences.
pub(super) fn differences(journaled: &Journaled, text: &str) -> Vec<String> {
    let scenario = match Scenario::parse(text, "scenario.toml") {
        Ok(scenario) => scenario,
        Err(error) => {
            let why = error.diagnostics.first().map(|d| d.to_string()).unwrap_or_default();
            return vec![format!("this file is not read as a scenario: {why}")];
        }
    };
    let mut answers: VecDeque<Decision> = journaled.trail.questions().map(|q| q.decision.clone()).collect();
    let mut asked: Vec<Query> = Vec::new();
    let trial = Trial::play(&scenario, |query: &Query, _: &Arc<Texts>| {
        asked.push(query.clone());
        Verdict::of(answers.pop_front().unwrap_or(Decision::Reject(Rejection::default())))
    });
    let table = &journaled.setup.table;
    let recorded: Vec<&Question> = journaled.trail.questions().collect();
    let mut told = Vec::new();
    for (number, (was, is)) in (1..).zip(recorded.iter().zip(&asked)) {
        told.extend(question(number, &was.query, is, table));
    }
    if journaled.trail.left_out > 0 {
        return told;
    }
    if recorded.len() != asked.len() {
        told.push(format!("The policy was asked {} times; here it is asked {} times.", recorded.len(), asked.len()));
    }
    if let Some(played) = trial.exchanges.first() {
        let was: Vec<&str> = journaled.exchange.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
        let is: Vec<&str> = played.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
        if was != is {
            told.push(format!("The attempts came to [{}]; here they come to [{}].", was.join(", "), is.join(", ")));
        }
    }
    told.extend(trial.failures.into_iter().map(|failure| format!("With the recorded decisions {failure}.")));
    told
}

/// Compares the recorded question with the one asked here.
fn question(number: usize, was: &Query, is: &Query, table: &Table) -> Option<String> {
    let parts = [
        ("the time", was.now_ms != is.now_ms),
        ("the seed", was.seed != is.seed),
        ("the request", was.request != is.request),
        ("the attempts before it", was.attempts != is.attempts),
        ("the waits before it", (was.waits, was.waited_ms) != (is.waits, is.waited_ms)),
    ];
    let parts = parts.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part.to_owned());
    // What was not recorded cannot differ.
    let differ = |was: &Row<'_>, is: &Row<'_>| {
        let mut columns = Column::ALL.into_iter().filter(|column| was.columns().have(*column));
        columns.any(|column| was.number(column) != is.number(column))
    };
    let rows = table.backends.iter().zip(was.rows.iter().zip(is.rows.iter()));
    let rows = rows.filter(|(_, (was, is))| differ(was, is)).map(|(backend, _)| format!("the row of {}", backend.id));
    let differ: Vec<String> = parts.chain(rows).collect();
    (!differ.is_empty())
        .then(|| format!("Question {number} is not as it was: {} differ from the record.", differ.join(", ")))
}
