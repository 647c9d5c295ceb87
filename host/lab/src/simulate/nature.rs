//! Made-up backends: how fast they are, what they allow, and what befalls them.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;

use super::traffic::Traffic;
use super::window::Window;
use crate::answer::{Answer, Behavior, Response};
use crate::dice::Dice;
use crate::world::{Ask, Attempt, Environment};

/// Everything outside of one simulated Pointsman.
pub(super) struct Nature {
    traffic: Traffic,
    backends: Vec<Provider>,
    sayings: Responses,
}

impl Nature {
    /// Providers for this table, and clients that ask so many times.
    pub(super) fn new(seed: u64, table: &Table, start: Timestamp, exchanges: u64) -> Self {
        let backends =
            (0..).zip(&table.backends).map(|(i, b)| Provider::new(Dice::new(seed, 100 + i), b.limits.rpm, start));
        Self {
            traffic: Traffic::new(seed, table, start, exchanges),
            backends: backends.collect(),
            sayings: Responses::new(),
        }
    }
}

impl Environment for Nature {
    fn next_request(&mut self) -> Option<(Timestamp, Ask)> {
        self.traffic.next()
    }

    fn answer(&mut self, attempt: &Attempt<'_>) -> Answer {
        self.backends[attempt.sending.backend as usize].answer(attempt, &self.sayings)
    }
}

/// One made-up backend.
struct Provider {
    dice: Dice,
    first_token: Duration,
    per_token: Duration,
    /// Requests that it takes in a minute; what is more gets a 429.
    limit: Option<Window>,
    /// Retry-After of its 429s.
    manners: Manners,
    /// Once in so many attempts something goes wrong for no reason.
    faulty: u64,
    /// Means of how long it is well and how long it is not.
    well_for: Duration,
    ill_for: Duration,
    weather: Condition,
    /// End of the present condition.
    until: Timestamp,
}

/// Condition of a backend for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Well,
    /// 429 to everybody.
    Storm,
    /// No connection.
    Dead,
    /// This status to everybody.
    Failing(u16),
    /// Connections are taken and nothing comes.
    Silent,
    /// Answers break off.
    Cutting,
    /// Answers fall silent.
    Stalling,
    /// Ten times as slow.
    Slow,
}

/// Retry-After of a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manners {
    Nothing,
    Seconds,
    Milliseconds,
    Reset,
}

impl Provider {
    fn new(mut dice: Dice, rpm: Option<u32>, start: Timestamp) -> Self {
        // What it takes is what the table says, or less, or more; or it has limits that the table does not know.
        let rpm = match rpm {
            Some(rpm) => Some((f64::from(rpm) * dice.magnitude(0.5, 4.0)).max(1.0) as usize),
            None => dice.one_in(2).then(|| dice.magnitude(5.0, 5_000.0) as usize),
        };
        let well_for = Duration::from_secs_f64(dice.magnitude(20.0, 3_600.0));
        let mut provider = Self {
            first_token: Duration::from_secs_f64(dice.magnitude(0.05, 3.0)),
            per_token: Duration::from_secs_f64(dice.magnitude(0.002, 0.1)),
            limit: rpm.map(Window::new),
            manners: dice.pick(&[Manners::Nothing, Manners::Seconds, Manners::Milliseconds, Manners::Reset]),
            faulty: dice.magnitude(8.0, 1_000.0) as u64,
            well_for,
            ill_for: well_for.mul_f64(dice.magnitude(0.01, 0.5)),
            weather: Condition::Well,
            until: start,
            dice,
        };
        provider.until = start + provider.dice.gap(well_for);
        provider
    }

    fn answer(&mut self, attempt: &Attempt<'_>, sayings: &Responses) -> Answer {
        let now = attempt.now;
        self.look_up(now);
        let has_room = self.takes(now);
        let d = &mut self.dice;
        let quick = Duration::from_millis(d.between(1, 200));
        let at_once = |gives| Answer { gives, head: None, first_token: quick, after: quick, tokens: 0, prompt: None };
        let weather = if d.one_in(self.faulty) { Self::mishap(d) } else { self.weather };
        match weather {
            Condition::Storm => return at_once(self.rate_limited(sayings)),
            Condition::Dead if d.one_in(3) => return at_once(Behavior::Reset),
            Condition::Dead => {
                let after = if d.one_in(4) { Duration::from_secs(10) } else { quick };
                return Answer { after, ..at_once(Behavior::ConnectFailed) };
            }
            Condition::Failing(status) => return at_once(sayings.status(status)),
            Condition::Silent => return at_once(Behavior::Silence),
            Condition::Well | Condition::Cutting | Condition::Stalling | Condition::Slow => {}
        }
        if !has_room {
            return at_once(self.rate_limited(sayings));
        }
        self.speech(weather, attempt.ask.facts.max_tokens, sayings)
    }

    /// Good and bad times come and go.
    fn look_up(&mut self, now: Timestamp) {
        while self.until <= now {
            let (weather, mean) = match self.weather == Condition::Well {
                true => (Self::mishap(&mut self.dice), self.ill_for),
                false => (Condition::Well, self.well_for),
            };
            self.weather = weather;
            self.until = self.until + self.dice.gap(mean).max(Duration::from_millis(1));
        }
    }

    fn mishap(dice: &mut Dice) -> Condition {
        match dice.below(40) {
            0..=9 => Condition::Storm,
            10..=14 => Condition::Dead,
            15..=22 => Condition::Failing(dice.pick(&[500, 502, 503, 529])),
            23..=25 => Condition::Silent,
            26..=29 => Condition::Cutting,
            30..=33 => Condition::Stalling,
            34..=37 => Condition::Slow,
            38 => Condition::Failing(dice.pick(&[400, 413, 404])),
            // The key is no good, or has no money.
            _ => Condition::Failing(dice.pick(&[401, 402])),
        }
    }

    /// Returns true if its own limit, if any, has room for another request.
    fn takes(&mut self, now: Timestamp) -> bool {
        self.limit.as_mut().is_none_or(|limit| limit.take(now).is_ok())
    }

    fn rate_limited(&mut self, sayings: &Responses) -> Behavior {
        match self.manners {
            Manners::Nothing => sayings.status(429),
            Manners::Seconds => Behavior::Response(
                sayings.in_seconds[self.dice.below(sayings.in_seconds.len() as u64) as usize].clone(),
            ),
            Manners::Milliseconds => {
                let all = &sayings.in_milliseconds;
                Behavior::Response(all[self.dice.below(all.len() as u64) as usize].clone())
            }
            Manners::Reset => Behavior::Response(sayings.reset.clone()),
        }
    }

    fn speech(&mut self, weather: Condition, max_tokens: u32, sayings: &Responses) -> Answer {
        let d = &mut self.dice;
        let most = if max_tokens == 0 { 2_000 } else { max_tokens };
        let tokens = (d.magnitude(1.0, 2_000.0) as u32).min(most);
        let slow = if weather == Condition::Slow { 10 } else { 1 };
        let first_token = d.gap(self.first_token) * slow + Duration::from_millis(5);
        let after = first_token + self.per_token.mul_f64(d.magnitude(0.5, 2.0)) * tokens * slow;
        let whole = Answer { gives: sayings.status(200), head: None, first_token, after, tokens, prompt: None };
        let gives = match weather {
            Condition::Cutting => Behavior::Cut,
            Condition::Stalling => Behavior::Stall,
            Condition::Well
            | Condition::Slow
            | Condition::Storm
            | Condition::Dead
            | Condition::Failing(_)
            | Condition::Silent => {
                return whole;
            }
        };
        let share = d.unit();
        let after = first_token + (after - first_token).mul_f64(share);
        Answer { gives, after, tokens: (f64::from(tokens) * share) as u32, ..whole }
    }
}

/// Responses that are given again and again.
struct Responses {
    statuses: Vec<(u16, Arc<Response>)>,
    in_seconds: Vec<Arc<Response>>,
    in_milliseconds: Vec<Arc<Response>>,
    reset: Arc<Response>,
}

impl Responses {
    fn new() -> Self {
        let bare = |status| Response { status, ..Response::default() };
        let too_many = |headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
            Arc::new(Response { headers: headers.collect(), ..bare(429) })
        };
        const STATUSES: [u16; 11] = [200, 400, 401, 402, 404, 413, 429, 500, 502, 503, 529];
        Self {
            statuses: STATUSES.map(|status| (status, Arc::new(bare(status)))).into(),
            in_seconds: ["0", "1", "2", "5", "30"].map(|s| too_many(&[("retry-after", s)])).into(),
            in_milliseconds: ["1", "80", "900", "2500"].map(|ms| too_many(&[("retry-after-ms", ms)])).into(),
            reset: too_many(&[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "3s")]),
        }
    }

    fn status(&self, status: u16) -> Behavior {
        let known = self.statuses.iter().find(|(s, _)| *s == status);
        Behavior::Response(known.map(|(_, response)| response.clone()).unwrap_or_default())
    }
}
