//! The scenario, played with the recorded decisions, beside what was recorded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Column, Decision, Query, Rejection};
use pointsman_core::journal::{Question, Trail};
use pointsman_core::record::End;
use pointsman_core::table::Table;

use super::Retold;
use crate::lab::scenario::Scenario;
use crate::lab::story::Standing;
use crate::lab::trial::Trial;
use crate::policy::{Texts, Verdict};
use crate::store::Journaled;

/// Times that differ by less count as the same: sockets and threads have their share in every recorded one.
const NEARLY: Duration = Duration::from_millis(50);

/// What is not as it was recorded, in sentences.
pub(super) fn differences(journaled: &Journaled, retold: &Retold, text: &str) -> Vec<String> {
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
    if recorded.len() != asked.len() && !is_cut_short(&journaled.trail, retold) {
        told.push(format!("The policy was asked {} times; here it is asked {} times.", recorded.len(), asked.len()));
    }
    if let Some(played) = trial.exchanges.first() {
        let was: Vec<&str> = journaled.exchange.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
        let is: Vec<&str> = played.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
        if was != is && !is_cut_short(&journaled.trail, retold) {
            told.push(format!("The attempts came to [{}]; here they come to [{}].", was.join(", "), is.join(", ")));
        }
    }
    told
}

/// What comes after is not known.
fn is_cut_short(trail: &Trail, retold: &Retold) -> bool {
    trail.left_out > 0 || retold.ended.end == End::ClientGone
}

/// What the policy saw at a question, and what it sees here.
fn question(number: usize, was: &Query, is: &Query, table: &Table) -> Vec<String> {
    let (was, is) = (Standing::all(was, table), Standing::all(is, table));
    let mut told = Vec::new();
    for before in &was {
        let Some(now) = is.iter().find(|standing| standing.index == before.index) else {
            told.push(format!("Question {number}: {} could serve the request; here it cannot.", before.backend));
            continue;
        };
        if differ(before, now) {
            let (backend, is) = (&before.backend, now.condition());
            told.push(format!(
                "Question {number}: the policy saw that {backend} {}; here it {is}.",
                before.condition()
            ));
        }
        let in_flight = [before, now].map(|standing| standing.number(Column::InFlight));
        if in_flight[0] != in_flight[1] {
            let [then, here] = in_flight;
            told.push(format!(
                "Question {number}: {} had {then} attempts under way; here it has {here}.",
                before.backend
            ));
        }
        if let Some(queued @ 1..) = Some(before.number(Column::Queued)).filter(|n| *n != now.number(Column::Queued)) {
            told.push(format!("Question {number}: {queued} others waited for {}; here nobody does.", before.backend));
        }
    }
    told
}

fn differ(was: &Standing, is: &Standing) -> bool {
    let cooldown = |standing: &Standing| Duration::from_millis(standing.number(Column::CooldownMs).into());
    was.state() != is.state()
        || was.reason() != is.reason()
        || cooldown(was).abs_diff(cooldown(is)) > NEARLY.max(cooldown(was) / 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_of_time_are_none() {
        use pointsman_core::contract::{RowState, STRIDE};
        use pointsman_core::table::Tier;
        let cools = |ms| {
            let mut row = [0; STRIDE];
            row[Column::State as usize] = RowState::Cooling as u32;
            row[Column::CooldownMs as usize] = ms;
            Standing::read(&"a".into(), Tier::Primary, 0, &row).unwrap()
        };
        assert!(!differ(&cools(2_000), &cools(1_960)) && differ(&cools(2_000), &cools(1_500)));
    }
}
