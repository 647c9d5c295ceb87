//! The world outside as it may have been, for one seed: recorded requests come in, learned answers go back.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use pointsman_core::outcome::Kind;
use pointsman_core::time::Timestamp;

use super::model::limits::{Counts, Gauge, Limit, Says};
use super::model::pace;
use super::model::series::{Like, Series};
use super::model::{Limits, MINUTE, Model, Place, is_near};
use super::past::{Arrival, Past, Try};
use crate::lab::answer::{Answer, Gives, Response, asks_stream};
use crate::lab::dice::Dice;
use crate::lab::world::{Ask, Attempt, Outside};

/// The world outside, for one seed.
pub struct Likely<'a> {
    past: &'a Past,
    model: &'a Model,
    seed: u64,
    next: usize,
    /// Attempts so far, by exchange.
    attempts: Vec<u8>,
    backends: Vec<Backend<'a>>,
    sayings: Sayings,
    /// How much of it is guesswork.
    pub guesses: Guesses,
}

/// Attempts that the model had to guess more for than for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guesses {
    /// All attempts.
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
    place: &'a Place,
    /// Outages of the whole backend, and of its models, as they were in this world.
    spells: HashMap<Option<u16>, Vec<Range<Timestamp>>>,
    limits: Vec<(Option<u16>, Limit, u64, Gauge)>,
    minute: Gauge,
    under_way: Gauge,
}

impl<'a> Likely<'a> {
    /// The world of this seed.
    pub fn new(past: &'a Past, model: &'a Model, seed: u64) -> Self {
        let backend = |(i, place)| Backend::new(place, Dice::of(&[seed, i, 11]));
        Self {
            past,
            model,
            seed,
            next: 0,
            attempts: vec![0; past.arrivals.len()],
            backends: (0..).zip(&model.backends).map(backend).collect(),
            sayings: Sayings::default(),
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
        } else if ![&seen.weather.calm, &seen.weather.bad, &seen.refused].into_iter().any(|some| is_near(some, now)) {
            self.guesses.far += 1;
        }
        let is_limited = !backend.limits.is_empty();
        self.guesses.beyond += u64::from(!is_limited && within > backend.place.busiest_minute);
    }
}

impl Outside for Likely<'_> {
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
        let like = Like { stream, in_flight };
        let draw = Draw { now, like, world: self.seed ^ (index as u64) << 32, idle: attempt.sending.timeouts.idle };
        let fate = backend.fate(&draw, model, self.model, &mut dice);
        let own = &arrival.own;
        let kind = match fate {
            Fate::Refused(..) | Fate::Out(_) => None,
            Fate::Met(..) if own.is_refused => Some(Kind::Refused),
            Fate::Met(..) if own.too_long.contains(&attempt.sending.backend) => Some(Kind::TooLong),
            Fate::Met(..) => None,
        };
        let mut answer = match (fate, kind) {
            (Fate::Met(seen, _), Some(kind)) => self.sayings.refusal(kind, 0, None, seen.took.min(QUICK)),
            (Fate::Met(seen, pace), None) => self.sayings.like(seen, output, pace, &draw),
            (Fate::Out(seen), _) => self.sayings.like(seen, output, pace::Pace::default(), &draw),
            (Fate::Refused(retry_after, took), _) => self.sayings.refusal(Kind::RateLimited, 429, retry_after, took),
        };
        answer.prompt = Some(prompt);
        let backend = &mut self.backends[index];
        let limits = &attempt.sending.timeouts;
        let until = now + if answer.after == NEVER { limits.first_token } else { answer.after.min(limits.total) };
        backend.under_way.take(now, until, 0);
        let is_taken = !matches!(fate, Fate::Refused(..)) && !matches!(answer.gives, Gives::ConnectFailed);
        if is_taken {
            let tokens = u64::from(prompt.tokens) + u64::from(output);
            backend.took(model, now, until, tokens);
        }
        answer
    }
}

/// A refusal of the request itself comes as quickly as this, or quicker.
const QUICK: Duration = Duration::from_millis(300);

/// What is known of the moment of an attempt.
struct Draw {
    now: Timestamp,
    like: Like,
    world: u64,
    /// The attempt's own limit between two pieces.
    idle: Duration,
}

/// What becomes of an attempt.
#[derive(Clone, Copy)]
enum Fate<'a> {
    /// What became of this one, in good times.
    Met(&'a Try, pace::Pace),
    /// What became of this one, in bad times.
    Out(&'a Try),
    /// 429, with its Retry-After in ms, after so long.
    Refused(Option<u32>, Duration),
}

impl<'a> Backend<'a> {
    fn new(place: &'a Place, mut dice: Dice) -> Self {
        let mut spells = HashMap::new();
        let all = std::iter::once((None, &place.whole)).chain(place.of_models.iter().map(|(m, s)| (Some(*m), s)));
        for (model, series) in all {
            let drawn = series.weather.spells.iter().map(|spell| spell.drawn(&mut dice)).collect();
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
            let seen = &series.weather.bad[series.weather.spells[after].tries.clone()];
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
        near.map_or(Fate::Met(&UNSEEN, pace::Pace::default()), |(seen, pace)| Fate::Met(seen, pace))
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

/// Where nobody was ever answered: an answer like many.
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

/// Answers in the words in which core hears them. Refusals are made once and given again and again.
#[derive(Default)]
struct Sayings {
    refusals: HashMap<(Kind, u16, Option<u32>), Arc<Response>>,
    good: Arc<Response>,
}

impl Sayings {
    /// The fate of another attempt, for an answer of this length.
    fn like(&mut self, seen: &Try, output: u32, pace: pace::Pace, draw: &Draw) -> Answer {
        let ms = |ms: Option<u32>| ms.map(|ms| Duration::from_millis(ms.into()));
        let first = ms(seen.first_ms).unwrap_or(seen.took / 3).min(seen.took);
        let at_once = |gives, after, tokens| Answer {
            gives,
            head: None,
            first_token: first.min(after),
            after,
            tokens,
            prompt: None,
        };
        match seen.kind {
            Kind::Answered | Kind::Refused | Kind::TooLong | Kind::ClientGone | Kind::NotResumed => {
                self.good(seen, first, output, pace, draw.like.stream)
            }
            Kind::RateLimited
            | Kind::OutOfCredit
            | Kind::Overloaded
            | Kind::ServerError
            | Kind::ModelMissing
            | Kind::Unauthorised => self.refusal(seen.kind, seen.status, seen.retry_after_ms, seen.took),
            Kind::ConnectFailed => at_once(Gives::ConnectFailed, seen.took, 0),
            Kind::Reset => at_once(Gives::Reset, seen.took, 0),
            // How long it would have taken is not known: longer than any limit.
            Kind::TimedOut => match ms(seen.head_ms).filter(|_| draw.like.stream) {
                None => at_once(Gives::Silence, seen.took, 0),
                Some(head) => {
                    let gives = Gives::Response(self.good_response());
                    Answer { gives, head: Some(head), first_token: NEVER, after: NEVER, tokens: 1, prompt: None }
                }
            },
            Kind::Cut => at_once(Gives::Cut, seen.took, seen.output.min(output)),
            Kind::Stalled => {
                let silent_since = seen.took.saturating_sub(draw.idle);
                at_once(Gives::Stall, silent_since, seen.output.min(output))
            }
            Kind::Malformed => self.refusal(Kind::Malformed, 200, None, seen.took),
        }
    }

    fn good(&mut self, seen: &Try, first: Duration, output: u32, pace: pace::Pace, stream: bool) -> Answer {
        let after = match stream && seen.stream {
            true => first + pace::of_rest(seen.took.saturating_sub(first), seen.output, output),
            false => pace.of_whole(seen.took, seen.output, output),
        };
        let head = seen.head_ms.map(|ms| Duration::from_millis(ms.into()));
        let gives = Gives::Response(self.good_response());
        Answer { gives, head, first_token: first.min(after), after, tokens: output, prompt: None }
    }

    fn good_response(&mut self) -> Arc<Response> {
        if self.good.status == 0 {
            self.good = Arc::new(Response { status: 200, ..Response::default() });
        }
        self.good.clone()
    }

    /// A response that core takes for this kind.
    fn refusal(&mut self, kind: Kind, status: u16, retry_after_ms: Option<u32>, after: Duration) -> Answer {
        let make = || Arc::new(response(kind, status, retry_after_ms));
        let response = self.refusals.entry((kind, status, retry_after_ms)).or_insert_with(make).clone();
        Answer { gives: Gives::Response(response), head: None, first_token: after, after, tokens: 0, prompt: None }
    }
}

/// Longer than any limit that may be set.
const NEVER: Duration = Duration::from_secs(30 * 86_400);

/// A response that core takes for this kind, with the status it had where that goes together.
fn response(kind: Kind, status: u16, retry_after_ms: Option<u32>) -> Response {
    let mut headers = HeaderMap::new();
    if let Some(ms) = retry_after_ms {
        headers.insert("retry-after-ms", HeaderValue::from(ms));
    }
    let error =
        |code: &str| Some(Bytes::from(format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"as recorded\"}}}}")));
    let (status, body) = match kind {
        Kind::RateLimited => (429, None),
        Kind::OutOfCredit => (402, error("insufficient_quota")),
        Kind::Overloaded => (503, error("overloaded")),
        Kind::ModelMissing => (404, error("model_not_found")),
        Kind::Unauthorised => (401, error("invalid_api_key")),
        Kind::TooLong => (400, error("context_length_exceeded")),
        Kind::Refused => (400, error("invalid_request")),
        // A success that is no JSON.
        Kind::Malformed => (200, Some(Bytes::from_static(b"<html>"))),
        Kind::Answered
        | Kind::ServerError
        | Kind::ConnectFailed
        | Kind::Reset
        | Kind::TimedOut
        | Kind::Cut
        | Kind::Stalled
        | Kind::ClientGone
        | Kind::NotResumed => {
            (if (500..=599).contains(&status) && !matches!(status, 503 | 529) { status } else { 500 }, None)
        }
    };
    Response { status, headers, body }
}

#[cfg(test)]
mod tests {
    use pointsman_core::table::Dialect;
    use pointsman_core::wire::classify::classify;

    use super::*;

    #[test]
    fn core_takes_a_response_for_what_was_recorded() {
        let kinds = [
            Kind::RateLimited,
            Kind::OutOfCredit,
            Kind::Overloaded,
            Kind::ServerError,
            Kind::ModelMissing,
            Kind::Unauthorised,
            Kind::TooLong,
            Kind::Refused,
        ];
        for kind in kinds {
            for dialect in [Dialect::Openai, Dialect::Anthropic] {
                let Response { status, headers, body } = response(kind, 502, Some(1_250));
                let outcome = classify(dialect, status, &headers, &body.unwrap_or_default(), Timestamp::default());
                assert_eq!(outcome.kind, kind);
                let waits =
                    matches!(kind, Kind::RateLimited | Kind::OutOfCredit | Kind::Overloaded | Kind::ServerError);
                assert_eq!(outcome.retry_after, waits.then_some(Duration::from_millis(1_250)), "{kind:?}");
            }
        }
    }
}
