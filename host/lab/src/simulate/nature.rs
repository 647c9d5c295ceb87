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
    responses: Responses,
}

impl Nature {
    /// Providers for this table, and clients that ask so many times.
    pub(super) fn new(seed: u64, table: &Table, start: Timestamp, exchanges: u64) -> Self {
        let backends =
            (0..).zip(&table.backends).map(|(i, b)| Provider::new(Dice::new(seed, 100 + i), b.limits.rpm, start));
        Self {
            traffic: Traffic::new(seed, table, start, exchanges),
            backends: backends.collect(),
            responses: Responses::new(),
        }
    }
}

impl Environment for Nature {
    fn next_request(&mut self) -> Option<(Timestamp, Ask)> {
        self.traffic.next()
    }

    fn answer(&mut self, attempt: &Attempt<'_>) -> Answer {
        self.backends[attempt.sending.backend as usize].answer(attempt, &self.responses)
    }
}

/// One made-up backend.
struct Provider {
    dice: Dice,
    first_token: Duration,
    per_token: Duration,
    /// Requests that it takes in a minute; what is more gets a 429.
    limit: Option<Window>,
    /// Form of the Retry-After in its 429s.
    retry_after_form: RetryAfterForm,
    /// Once in so many attempts something goes wrong for no reason.
    faulty: u64,
    /// Means of how long it is well and how long it is not.
    well_for: Duration,
    ill_for: Duration,
    condition: Condition,
    /// End of the present condition.
    until: Timestamp,
}

/// Condition of a backend for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Well,
    /// Every attempt gets a 429.
    Storm,
    /// Connections fail.
    Dead,
    /// Every attempt gets this status.
    Failing(u16),
    /// Connections are taken and nothing comes.
    Silent,
    /// Connections break inside bodies.
    Cutting,
    /// Bodies begin and nothing more comes.
    Stalling,
    /// Answers take ten times as long.
    Slow,
}

/// The form in which a 429 says when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RetryAfterForm {
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
            retry_after_form: dice.pick(&[
                RetryAfterForm::Nothing,
                RetryAfterForm::Seconds,
                RetryAfterForm::Milliseconds,
                RetryAfterForm::Reset,
            ]),
            faulty: dice.magnitude(8.0, 1_000.0) as u64,
            well_for,
            ill_for: well_for.mul_f64(dice.magnitude(0.01, 0.5)),
            condition: Condition::Well,
            until: start,
            dice,
        };
        provider.until = start + provider.dice.gap(well_for);
        provider
    }

    fn answer(&mut self, attempt: &Attempt<'_>, responses: &Responses) -> Answer {
        let now = attempt.now;
        self.advance(now);
        let has_room = self.takes(now);
        let d = &mut self.dice;
        let quick = Duration::from_millis(d.between(1, 200));
        let at_once =
            |behavior| Answer { behavior, head: None, first_token: quick, after: quick, tokens: 0, prompt: None };
        let condition = if d.one_in(self.faulty) { Self::fault(d) } else { self.condition };
        match condition {
            Condition::Storm => return at_once(self.rate_limited(responses)),
            Condition::Dead if d.one_in(3) => return at_once(Behavior::Reset),
            Condition::Dead => {
                let after = if d.one_in(4) { Duration::from_secs(10) } else { quick };
                return Answer { after, ..at_once(Behavior::ConnectFailed) };
            }
            Condition::Failing(status) => return at_once(responses.status(status)),
            Condition::Silent => return at_once(Behavior::Silence),
            Condition::Well | Condition::Cutting | Condition::Stalling | Condition::Slow => {}
        }
        if !has_room {
            return at_once(self.rate_limited(responses));
        }
        self.answered(condition, attempt.ask.facts.max_tokens, responses)
    }

    /// Good and bad times come and go.
    fn advance(&mut self, now: Timestamp) {
        while self.until <= now {
            let (condition, mean) = match self.condition == Condition::Well {
                true => (Self::fault(&mut self.dice), self.ill_for),
                false => (Condition::Well, self.well_for),
            };
            self.condition = condition;
            self.until = self.until + self.dice.gap(mean).max(Duration::from_millis(1));
        }
    }

    fn fault(dice: &mut Dice) -> Condition {
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

    fn rate_limited(&mut self, responses: &Responses) -> Behavior {
        match self.retry_after_form {
            RetryAfterForm::Nothing => responses.status(429),
            RetryAfterForm::Seconds => Behavior::Response(
                responses.in_seconds[self.dice.below(responses.in_seconds.len() as u64) as usize].clone(),
            ),
            RetryAfterForm::Milliseconds => {
                let all = &responses.in_milliseconds;
                Behavior::Response(all[self.dice.below(all.len() as u64) as usize].clone())
            }
            RetryAfterForm::Reset => Behavior::Response(responses.reset.clone()),
        }
    }

    fn answered(&mut self, condition: Condition, max_tokens: u32, responses: &Responses) -> Answer {
        let d = &mut self.dice;
        let most = if max_tokens == 0 { 2_000 } else { max_tokens };
        let tokens = (d.magnitude(1.0, 2_000.0) as u32).min(most);
        let slow = if condition == Condition::Slow { 10 } else { 1 };
        let first_token = d.gap(self.first_token) * slow + Duration::from_millis(5);
        let after = first_token + self.per_token.mul_f64(d.magnitude(0.5, 2.0)) * tokens * slow;
        let whole = Answer { behavior: responses.status(200), head: None, first_token, after, tokens, prompt: None };
        let behavior = match condition {
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
        Answer { behavior, after, tokens: (f64::from(tokens) * share) as u32, ..whole }
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
