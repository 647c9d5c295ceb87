//! The world outside as it may have been, for one seed: recorded requests come in, learned answers go back.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::outcome::Kind;
use pointsman_core::time::Timestamp;

use super::model::limits::{Counts, Gauge, Limit, Says};
use super::model::pace::Pace;
use super::model::series::{Like, Series};
use super::model::{BackendModel, Limits, MINUTE, Model, is_near};
use super::past::{Arrival, Past, Try};
use super::responses::{NEVER, Responses, Wanted};
use crate::answer::{Answer, Behavior, asks_stream};
use crate::dice::Dice;
use crate::world::{Ask, Attempt, Environment};

/// The world outside, for one seed.
pub(super) struct Likely<'a> {
    past: &'a Past,
    model: &'a Model,
    seed: u64,
    next: usize,
    /// Attempts so far, by exchange.
    attempts: Vec<u8>,
    backends: Vec<Backend<'a>>,
    responses: Responses,
    /// Counts of answers by how they were found.
    pub guesses: Guesses,
}

/// Attempts that the model had to guess more for than for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guesses {
    /// Attempts in all worlds together.
    pub attempts: u64,
    /// At a backend that no recorded attempt was made at.
    pub unknown: u64,
    /// More than a minute from any that was recorded there.
    pub far: u64,
    /// More within a minute than that backend was ever seen to take, with no limit known.
    pub beyond: u64,
}

/// One backend as it may have been.
struct Backend<'a> {
    place: &'a BackendModel,
    /// Outages of the whole backend, and of its models, as they were in this world.
    spells: HashMap<Option<u16>, Vec<Range<Timestamp>>>,
    limits: Vec<(Option<u16>, Limit, u64, Gauge)>,
    minute: Gauge,
    under_way: Gauge,
}

impl<'a> Likely<'a> {
    /// The world of this seed.
    pub(super) fn new(past: &'a Past, model: &'a Model, seed: u64) -> Self {
        let backend = |(i, place)| Backend::new(place, Dice::of(&[seed, i, 11]));
        Self {
            past,
            model,
            seed,
            next: 0,
            attempts: vec![0; past.arrivals.len()],
            backends: (0..).zip(&model.backends).map(backend).collect(),
            responses: Responses::default(),
            guesses: Guesses::default(),
        }
    }

    /// The dice of one question; both policies throw the same.
    fn dice(&mut self, attempt: &Attempt<'_>) -> Dice {
        let nth = &mut self.attempts[attempt.exchange as usize];
        *nth = nth.saturating_add(1);
        Dice::of(&[self.seed, attempt.exchange, attempt.sending.backend.into(), u64::from(*nth)])
    }

    fn guess(&mut self, backend: usize, now: Timestamp) {
        let backend = &mut self.backends[backend];
        self.guesses.attempts += 1;
        let within = backend.minute.level(now) + 1;
        backend.minute.take(now, now, 0);
        let seen = &backend.place.whole;
        if backend.place.tries == 0 {
            self.guesses.unknown += 1;
        } else if ![&seen.outages.calm, &seen.outages.bad, &seen.refused].into_iter().any(|some| is_near(some, now)) {
            self.guesses.far += 1;
        }
        let is_limited = !backend.limits.is_empty();
        self.guesses.beyond += u64::from(!is_limited && within > backend.place.busiest_minute);
    }
}

impl Environment for Likely<'_> {
    fn next_request(&mut self) -> Option<(Timestamp, Ask)> {
        let arrival = self.past.arrivals.get(self.next)?;
        self.next += 1;
        let Arrival { at, model, facts, texts, own } = arrival;
        let (model, facts, texts) = (model.clone(), facts.clone(), texts.clone());
        Some((*at, Ask { model, facts, texts, patience: own.patience }))
    }

    fn answer(&mut self, attempt: &Attempt<'_>) -> Answer {
        let arrival = &self.past.arrivals[attempt.exchange as usize];
        let (index, now) = (attempt.sending.backend as usize, attempt.now);
        let mut dice = self.dice(attempt);
        self.guess(index, now);
        let stream = asks_stream(&attempt.ask.facts);
        let sent = |name: &Arc<str>| **name == *attempt.sending.model;
        let model = self.past.models.iter().position(sent).and_then(|i| u16::try_from(i).ok());
        let output = self.model.lengths.output(arrival, &mut Dice::of(&[self.seed, attempt.exchange]));
        let prompt = self.model.lengths.prompt(arrival);
        let backend = &mut self.backends[index];
        let in_flight = u16::try_from(backend.under_way.level(now)).unwrap_or(u16::MAX);
        let draw = Draw { now, like: Like { stream, in_flight }, world: self.seed ^ ((index as u64) << 32) };
        let limits = &attempt.sending.timeouts;
        let wanted = Wanted { output, stream, idle: limits.idle };
        let fate = backend.fate(&draw, model, self.model, &mut dice);
        let too_long = arrival.own.too_long.contains(&attempt.sending.backend);
        let mut answer = match fate {
            // What is wrong with a request is wrong whoever answers.
            Fate::Met(seen, _) if arrival.own.is_refused => {
                self.responses.refusal(Kind::Refused, 0, None, seen.took.min(QUICK))
            }
            Fate::Met(seen, _) if too_long => self.responses.refusal(Kind::TooLong, 0, None, seen.took.min(QUICK)),
            Fate::Met(seen, pace) => self.responses.like(seen, pace, &wanted),
            Fate::Out(seen) => self.responses.like(seen, Pace::default(), &wanted),
            Fate::Refused(retry_after, took) => self.responses.refusal(Kind::RateLimited, 429, retry_after, took),
        };
        answer.prompt = Some(prompt);
        let backend = &mut self.backends[index];
        let until = now + if answer.after == NEVER { limits.first_token } else { answer.after.min(limits.total) };
        backend.under_way.take(now, until, 0);
        let is_taken = !matches!(fate, Fate::Refused(..)) && !matches!(answer.behavior, Behavior::ConnectFailed);
        if is_taken {
            let tokens = u64::from(prompt.tokens) + u64::from(output);
            backend.took(model, now, until, tokens);
        }
        answer
    }
}

/// A refusal of the request itself comes as quickly as this, or quicker.
const QUICK: Duration = Duration::from_millis(300);

/// Facts at the moment of an attempt.
struct Draw {
    now: Timestamp,
    like: Like,
    world: u64,
}

/// The recorded attempt whose result this one meets.
#[derive(Clone, Copy)]
enum Fate<'a> {
    /// The result of this recorded attempt, in good times.
    Met(&'a Try, Pace),
    /// The result of this recorded attempt, in an outage.
    Out(&'a Try),
    /// 429, with its Retry-After in ms, after so long.
    Refused(Option<u32>, Duration),
}

impl<'a> Backend<'a> {
    fn new(place: &'a BackendModel, mut dice: Dice) -> Self {
        let mut spells = HashMap::new();
        let all = std::iter::once((None, &place.whole)).chain(place.of_models.iter().map(|(m, s)| (Some(*m), s)));
        for (model, series) in all {
            let drawn = series.outages.spells.iter().map(|spell| spell.drawn(&mut dice)).collect();
            spells.insert(model, drawn);
        }
        let mut drawn = |model: Option<u16>, limit: &Limit| {
            // Between what it took and what it refused, nobody knows.
            let line = dice.between(limit.least, limit.most.max(limit.least));
            (model, *limit, line, Gauge::new(limit.counts))
        };
        let limits = match &place.limits {
            Limits::Unseen => Vec::new(),
            Limits::Shared(limit) => vec![drawn(None, limit)],
            Limits::OfModels(limits) => limits.iter().map(|(model, limit)| drawn(Some(*model), limit)).collect(),
        };
        let minute = Gauge::new(Counts::RequestsWithin(MINUTE));
        Self { place, spells, limits, minute, under_way: Gauge::new(Counts::UnderWay) }
    }

    fn fate(&mut self, draw: &Draw, model: Option<u16>, all: &'a Model, dice: &mut Dice) -> Fate<'a> {
        let own = self.place.of_models.iter().find(|(known, _)| Some(*known) == model);
        let (key, series): (Option<u16>, &'a Series) =
            own.map_or((None, &self.place.whole), |(model, series)| (Some(*model), series));
        let spells = self.spells.get(&key).map_or(&[][..], Vec::as_slice);
        let after = spells.partition_point(|spell| spell.end <= draw.now);
        if spells.get(after).is_some_and(|spell| spell.start <= draw.now) {
            let seen = &series.outages.bad[series.outages.spells[after].tries.clone()];
            if let Some(seen) = series.one_of(seen, draw.now, dice) {
                return Fate::Out(seen);
            }
        }
        for (of, limit, line, gauge) in &mut self.limits {
            let is_over = of.is_none_or(|of| Some(of) == model) && gauge.level(draw.now) >= *line;
            if is_over && dice.unit() >= limit.lets_through {
                let seen = series.one_of(&series.refused, draw.now, dice);
                let seen = seen.or_else(|| self.place.whole.one_of(&self.place.whole.refused, draw.now, dice));
                let took = seen.map_or(QUICK, |seen| seen.took);
                let told = match limit.says {
                    Says::AsSeen => None,
                    Says::UntilRoom { whole_seconds } => {
                        gauge.room_in(draw.now, *line).map(|room| in_ms(room, whole_seconds))
                    }
                };
                return Fate::Refused(told.or_else(|| seen.and_then(|seen| seen.retry_after_ms)), took);
            }
        }
        let near = series.near(draw.now, &draw.like, draw.world, dice).map(|seen| (seen, series.pace));
        let near = near.or_else(|| {
            let whole = &self.place.whole;
            whole.near(draw.now, &draw.like, draw.world, dice).map(|seen| (seen, whole.pace))
        });
        let near = near
            .or_else(|| all.of_all.near(draw.now, &draw.like, draw.world, dice).map(|seen| (seen, all.of_all.pace)));
        near.map_or(Fate::Met(&UNSEEN, Pace::default()), |(seen, pace)| Fate::Met(seen, pace))
    }

    fn took(&mut self, model: Option<u16>, now: Timestamp, until: Timestamp, tokens: u64) {
        for (of, _, _, gauge) in &mut self.limits {
            if of.is_none_or(|of| Some(of) == model) {
                gauge.level(now);
                gauge.take(now, until, tokens);
            }
        }
    }
}

fn in_ms(time: Duration, whole_seconds: bool) -> u32 {
    let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    if whole_seconds { (ms / 1_000 + 1).saturating_mul(1_000) } else { ms }
}

/// A typical answer, used where no attempt was ever answered.
static UNSEEN: Try = Try {
    sent: Timestamp::from_micros(0),
    took: Duration::from_secs(3),
    head_ms: Some(300),
    first_ms: Some(500),
    kind: Kind::Answered,
    status: 200,
    retry_after_ms: None,
    prompt: 100,
    output: 200,
    stream: true,
    model: 0,
    in_flight: 0,
};
