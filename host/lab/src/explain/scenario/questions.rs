//! Every recorded question, and what followed it, as `[[request.question]]`.

use std::collections::BTreeSet;
use std::time::Duration;

use pointsman_core::contract::{BackendRow, Column, NONE, Query, RowState};
use pointsman_core::divergence;
use pointsman_core::journal::{Happened, Question, StateUse, Step};
use pointsman_core::outcome::Kind;
use pointsman_core::time::Timestamp;
use pointsman_store::{AttemptRow, Journaled};
use toml::Value;

use super::span;
use super::toml::{Toml, inline, quoted_key};
use crate::scenario::{NO_NUMBER, USUAL};
use crate::story::Decided;

/// Writes the recorded questions of an exchange.
pub(super) fn questions(text: &mut Toml, journaled: &Journaled) {
    let steps = &journaled.trail.steps;
    let asked: Vec<usize> = (0..steps.len()).filter(|i| matches!(steps[*i].what, Happened::Asked(_))).collect();
    let mut attempts = journaled.exchange.attempts.iter();
    let mut known = BTreeSet::new();
    let mut before = Duration::ZERO;
    for (number, place) in asked.iter().enumerate() {
        let Happened::Asked(question) = &steps[*place].what else { continue };
        let next = asked.get(number + 1).copied();
        let after = &steps[place + 1..next.unwrap_or(steps.len())];
        let sent = after.iter().filter(|step| matches!(step.what, Happened::Sent { .. })).count();
        let then = Followed { after, attempt: attempts.clone().next(), is_asked_again: next.is_some() };
        // What was sent without a question that was kept has an attempt too.
        attempts.by_ref().take(sent).for_each(drop);
        text.blank();
        text.line("[[request.question]]");
        text.put("at", span(asked_at(journaled, &question.query, before)));
        text.put("seed", format!("{:#018x}", question.query.seed));
        state(text, &question.state, &mut known);
        text.put("decided", Decided::of(&question.decision, &journaled.setup.table).to_string());
        let terms = divergence::terms(&question.decision);
        text.put_if("terms", terms.clone(), !terms.is_empty());
        then.write(text, journaled);
        seen(text, journaled, question);
        before = after.last().map_or(steps[*place].at, |step| step.at);
    }
}

/// The step after a question.
struct Followed<'a> {
    /// Up to the next question.
    after: &'a [Step],
    /// The attempt, if one was sent.
    attempt: Option<&'a AttemptRow>,
    is_asked_again: bool,
}

impl Followed<'_> {
    fn write(&self, text: &mut Toml, journaled: &Journaled) {
        let name = |index: u32| journaled.setup.table.backends.get(index as usize).map(|b| b.id.to_string());
        let first = self.after.iter().find(|step| matches!(step.what, Happened::Sent { .. } | Happened::Waits { .. }));
        match first.map(|step| (step.at, &step.what)) {
            Some((from, Happened::Sent { backend, .. })) => {
                text.put("then", format!("send {}", name(*backend).unwrap_or_default()));
                text.put("from", span(from));
                self.attempt(text);
            }
            Some((from, Happened::Waits { .. })) => {
                text.put("then", "wait");
                text.put("from", span(from));
                let ended = self.after.iter().find_map(|step| match step.what {
                    Happened::Waited { granted } => Some((step.at, granted)),
                    Happened::Asked(_)
                    | Happened::Waits { .. }
                    | Happened::Sent { .. }
                    | Happened::Committed
                    | Happened::Ended => None,
                });
                if let Some((until, granted)) = ended {
                    text.put("until", span(until));
                    granted.and_then(name).into_iter().for_each(|name| text.put("granted", name));
                }
            }
            Some(_) | None => text.put("then", if self.is_asked_again { "ask" } else { "end" }),
        }
    }

    fn attempt(&self, text: &mut Toml) {
        let when = |is_it: fn(&Happened) -> bool| self.after.iter().find(|step| is_it(&step.what)).map(|step| step.at);
        if let Some(committed) = when(|what| *what == Happened::Committed) {
            text.put("committed", span(committed));
        }
        let Some(until) = when(|what| *what == Happened::Ended) else { return };
        text.put("until", span(until));
        let Some(attempt) = self.attempt else { return };
        if Kind::parse(&attempt.outcome).is_some() {
            text.put("outcome", attempt.outcome.clone());
        }
        text.put_if("status", i64::from(attempt.status), attempt.status > 0);
    }
}

/// Writes the values found of each key; a missing value only where the key was set before.
fn state(text: &mut Toml, uses: &[StateUse], known: &mut BTreeSet<String>) {
    let mut found: Vec<(&str, Value)> = Vec::new();
    for used in uses {
        let (key, before) = match used {
            StateUse::Get { key, found } => (key, found.map(Some).or(known.contains(key).then_some(None))),
            StateUse::Add { key, delta, sum, .. } => (key, Some(Some(sum.saturating_sub(*delta)))),
            StateUse::Set { key, .. } => (key, None),
            StateUse::TooMany => continue,
        };
        let is_first = !found.iter().any(|(other, _)| other == key) && !is_used_before(uses, used, key);
        if let Some(before) = before.filter(|_| is_first) {
            found.push((key, before.map_or_else(|| NO_NUMBER.into(), Value::Integer)));
        }
        known.insert(key.clone());
    }
    if !found.is_empty() {
        text.line(&format!("state = {}", inline(&found)));
    }
}

/// Returns true if the key was used earlier in the same question.
fn is_used_before(uses: &[StateUse], used: &StateUse, key: &str) -> bool {
    let earlier = uses.iter().take_while(|other| !std::ptr::eq(*other, used));
    earlier.into_iter().any(|other| match other {
        StateUse::Get { key: other, .. } | StateUse::Set { key: other, .. } | StateUse::Add { key: other, .. } => {
            other == key
        }
        StateUse::TooMany => false,
    })
}

fn seen(text: &mut Toml, journaled: &Journaled, question: &Question) {
    text.line("[request.question.seen]");
    for (backend, row) in journaled.setup.table.backends.iter().zip(question.query.rows.iter()) {
        let row = row.in_current_columns();
        if row == BackendRow::UNSUITED {
            continue;
        }
        let is_written = |column: &Column| *column == Column::State || row.number(*column) != USUAL.number(*column);
        let columns = Column::ALL.into_iter().filter(is_written);
        let cells: Vec<(&str, Value)> =
            columns.map(|column| (column.as_str(), cell(column, row.number(column)))).collect();
        text.line(&format!("{} = {}", quoted_key(&backend.id), inline(&cells)));
    }
}

fn cell(column: Column, number: u32) -> Value {
    let word = if column == Column::State {
        RowState::of(number).map(RowState::as_str)
    } else if column == Column::CooldownReason {
        Kind::ALL.get(number as usize).map(|kind| kind.as_str())
    } else {
        None
    };
    let word = word.or((number == NONE).then_some(NO_NUMBER));
    word.map_or_else(|| Value::Integer(number.into()), Value::from)
}

/// Computes the time of a question from the arrival, to the microsecond: from the record just `before`, and from its
/// numbers, which are whole milliseconds.
fn asked_at(journaled: &Journaled, query: &Query, before: Duration) -> Duration {
    let arrived = journaled.trail.arrived.as_micros();
    let most = micros(journaled.setup.budgets.max_total);
    let elapsed = u64::from(query.request.elapsed_ms) * 1_000;
    let left = u64::from(query.request.remaining_ms) * 1_000;
    let now = Timestamp::from_millis(query.now_ms).as_micros();
    // Elapsed and left are rounded up, now is rounded down.
    let mut least = (elapsed + 1).saturating_sub(1_000).max(now.saturating_sub(arrived));
    let mut last = elapsed.min((now + 999).saturating_sub(arrived));
    if left > 0 {
        least = least.max(most.saturating_sub(left));
        last = last.min((most + 999).saturating_sub(left));
    }
    Duration::from_micros(if least <= last { micros(before).clamp(least, last) } else { micros(before) })
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
