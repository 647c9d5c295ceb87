//! The world outside, learned from the journal: what each backend would have made of a request at a time.
//!
//! For an attempt at a moment, the model asks in this order: was the backend out ([`outages`])? Was it over its limit
//! ([`limits`])? Else the attempt meets the fate of one that was made near that moment, neighbours together
//! ([`series`]), as long as its own answer is ([`pace`], [`length`]).

pub(super) mod length;
pub(super) mod limits;
pub(super) mod outages;
pub(super) mod pace;
pub(super) mod series;

use pointsman_core::outcome::Kind;
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;

use length::Lengths;
use limits::{Counts, Gauge, Limit};
use series::Series;

use super::past::{Past, Try};

/// A model of all backends, learned from a journal.
pub struct Model {
    /// In the order of the table.
    pub backends: Vec<BackendModel>,
    /// Attempts at all backends together, for backends without any.
    pub of_all: Series,
    /// Lengths of prompts and answers.
    pub lengths: Lengths,
}

/// A model of one backend.
pub struct BackendModel {
    /// Attempts at the whole backend.
    pub whole: Series,
    /// Attempts at models with enough of their own, by the number of the model.
    pub of_models: Vec<(u16, Series)>,
    /// Limits learned from its 429s.
    pub limits: Limits,
    /// The most requests that it answered within a minute.
    pub busiest_minute: u64,
    /// Number of recorded attempts that the model was learned from.
    pub tries: usize,
    /// Number of attempts that one of our own time limits ended.
    pub timed_out: usize,
}

/// The limits of a backend.
#[derive(Clone, Debug, PartialEq)]
pub enum Limits {
    /// No 429 was recorded, so its limits are unknown.
    Unseen,
    /// One for all its models.
    Shared(Limit),
    /// One for each of these models.
    OfModels(Vec<(u16, Limit)>),
}

/// A model with so many attempts at a backend is looked at by itself.
const MIN_TRIES: usize = 100;

impl Model {
    /// Learns from all that is recorded.
    pub fn learn(past: &Past) -> Self {
        let backends: Vec<BackendModel> = past.tries.iter().map(|tries| BackendModel::learn(tries)).collect();
        let mut all: Vec<Try> = past.tries.iter().flatten().copied().collect();
        all.sort_by_key(|tried| tried.sent);
        // Whose failures they were is not asked of somebody else.
        let answered = all.into_iter().filter(|t| t.kind == Kind::Answered);
        Self { backends, of_all: Series::learn(answered), lengths: Lengths::learn(&past.arrivals) }
    }

    /// Ids of the backends that the table has and that no attempt was made at.
    pub fn unknown<'a>(&self, table: &'a Table) -> Vec<&'a str> {
        let unknown = self.backends.iter().zip(&table.backends).filter(|(place, _)| place.tries == 0);
        unknown.map(|(_, backend)| &*backend.id).collect()
    }
}

impl BackendModel {
    fn learn(tries: &[Try]) -> Self {
        let models = models_of(tries);
        let (limits, explained) = learn_limits(tries, &models);
        let left = |model: Option<u16>| {
            let is_left = move |(t, explained): &(&Try, &bool)| !**explained && model.is_none_or(|m| t.model == m);
            tries.iter().zip(&explained).filter(is_left).map(|(t, _)| *t).collect::<Vec<_>>()
        };
        let refused: Vec<Try> = tries.iter().zip(&explained).filter(|(_, e)| **e).map(|(t, _)| *t).collect();
        let series = |model: Option<u16>| {
            let refused = refused.iter().filter(|t| model.is_none_or(|m| t.model == m)).copied().collect();
            Series { refused, ..Series::learn(left(model).into_iter()) }
        };
        let of_models = if models.len() > 1 { models } else { Vec::new() };
        Self {
            whole: series(None),
            of_models: of_models.into_iter().map(|model| (model, series(Some(model)))).collect(),
            limits,
            busiest_minute: busiest_minute(tries),
            tries: tries.len(),
            timed_out: tries.iter().filter(|t| t.kind == Kind::TimedOut).count(),
        }
    }

    /// Returns the attempts that stand for a model at this backend.
    pub fn of(&self, model: Option<u16>) -> &Series {
        let own = self.of_models.iter().find(|(known, _)| Some(*known) == model);
        own.map_or(&self.whole, |(_, series)| series)
    }
}

/// The models with enough to say.
fn models_of(tries: &[Try]) -> Vec<u16> {
    let mut counts = std::collections::BTreeMap::<u16, usize>::new();
    tries.iter().for_each(|t| *counts.entry(t.model).or_default() += 1);
    counts.into_iter().filter(|(_, count)| *count >= MIN_TRIES).map(|(model, _)| model).collect()
}

/// The limits, and which of the 429s they explain.
fn learn_limits(tries: &[Try], models: &[u16]) -> (Limits, Vec<bool>) {
    let refusals = |tries: &[Try]| tries.iter().filter(|t| t.kind == Kind::RateLimited).count();
    let shared = limits::learn(tries);
    let wrong_shared = shared.as_ref().map_or(refusals(tries), |found| found.wrong);
    let (mut apart, mut explained, mut wrong) = (Vec::new(), vec![false; tries.len()], 0);
    for model in models {
        let places: Vec<usize> = (0..tries.len()).filter(|i| tries[*i].model == *model).collect();
        let own: Vec<Try> = places.iter().map(|i| tries[*i]).collect();
        match limits::learn(&own) {
            Some(found) => {
                apart.push((*model, found.limit));
                places.iter().zip(found.explained).for_each(|(i, is_so)| explained[*i] = is_so);
                wrong += found.wrong;
            }
            None => wrong += refusals(&own),
        }
    }
    if models.len() > 1 && limits::is_clearly_less(wrong, wrong_shared) {
        return (Limits::OfModels(apart), explained);
    }
    match shared {
        Some(found) => (Limits::Shared(found.limit), found.explained),
        None => (Limits::Unseen, vec![false; tries.len()]),
    }
}

fn busiest_minute(tries: &[Try]) -> u64 {
    let mut gauge = Gauge::new(Counts::RequestsWithin(MINUTE));
    let one = |t: &Try| {
        gauge.level(t.sent);
        if t.kind != Kind::RateLimited {
            gauge.take(t.sent, t.sent, 0);
        }
        gauge.level(t.sent)
    };
    tries.iter().map(one).max().unwrap_or(0)
}

/// Resolution of the model in time.
pub(super) const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

/// Returns true if an attempt was recorded within a minute of this time.
pub(super) fn is_near(seen: &[Try], now: Timestamp) -> bool {
    let next = seen.partition_point(|t| t.sent < now);
    let near = |t: &Try| t.sent.since(now).max(now.since(t.sent)) <= MINUTE;
    seen.get(next).is_some_and(near) || next.checked_sub(1).and_then(|i| seen.get(i)).is_some_and(near)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use pointsman_core::contract::{NONE, Operation};
    use pointsman_core::exchange::Facts;

    use super::super::past::{Arrival, Own};
    use super::*;

    pub(in crate::backtest) const T0: Timestamp = Timestamp::from_millis(1_767_571_200_000);

    /// An attempt that took 300 ms for 100 tokens.
    pub(in crate::backtest) fn tried(sent: Timestamp, kind: Kind) -> Try {
        Try {
            sent,
            took: Duration::from_millis(300),
            head_ms: None,
            first_ms: None,
            kind,
            status: 0,
            retry_after_ms: None,
            prompt: 10,
            output: 100,
            stream: false,
            model: 0,
            in_flight: 0,
        }
    }

    pub(in crate::backtest) fn arrival(prompt_tokens: u32) -> Arrival {
        let facts = Facts {
            operation: Operation::Chat,
            streaming: false,
            priority: 0,
            prompt_tokens,
            max_tokens: 0,
            client: NONE,
            session: 0,
            translatable: false,
            idempotent: true,
        };
        Arrival { at: T0, model: "m".into(), facts, texts: Arc::default(), own: Own::default() }
    }

    #[test]
    fn a_limit_of_each_model_is_told_from_one_of_all() {
        let minute = Counts::RequestsWithin(MINUTE);
        let mut gauges = [Gauge::new(minute), Gauge::new(minute)];
        let mut dice = crate::dice::Dice::new(1, 1);
        let mut now = T0;
        let one = |n: u16| {
            now = now + dice.gap(Duration::from_millis(700));
            let (model, gauge) = (n % 2, &mut gauges[usize::from(n % 2)]);
            let is_refused = gauge.level(now) >= [10, 30][usize::from(model)];
            if !is_refused {
                gauge.take(now, now, 0);
            }
            Try { model, ..tried(now, if is_refused { Kind::RateLimited } else { Kind::Answered }) }
        };
        let tries: Vec<Try> = (0..2_000).map(one).collect();
        let place = BackendModel::learn(&tries);
        let Limits::OfModels(found) = &place.limits else { panic!("{:?}", place.limits) };
        let bounds = |(_, limit): &(u16, Limit)| (limit.least, limit.most);
        assert_eq!(found.iter().map(bounds).collect::<Vec<_>>(), [(10, 10), (30, 30)]);
        assert!(place.whole.outages.spells.is_empty(), "every 429 is explained");
        assert_eq!(place.of_models.len(), 2);
    }
}
