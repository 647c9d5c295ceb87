//! The clients and the providers of a day.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use pointsman_core::contract::{NONE, Operation};
use pointsman_core::exchange::Facts;
use pointsman_core::time::Timestamp;
use pointsman_engine::Texts;

use super::{Arrivals, Day, Storm};
use crate::answer::{Answer, Behavior, Response};
use crate::dice::Dice;
use crate::simulate::START;
use crate::simulate::window::Window;
use crate::world::{Ask, Attempt, Environment};

const MINUTE: Duration = Duration::from_secs(60);

/// The longest Retry-After of a key in a storm.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(20);

/// Clients and providers of a day.
pub(super) struct Nature<'a> {
    day: &'a Day,
    dice: Dice,
    arrivals: Dice,
    /// Time of the next arrival, with the present phase.
    now: Timestamp,
    phase: usize,
    phase_ends: Timestamp,
    texts: Arc<Texts>,
    /// The limit of each key.
    limits: Vec<Window>,
}

impl<'a> Nature<'a> {
    /// The providers and clients of a day before its first request.
    pub(super) fn new(day: &'a Day) -> Self {
        let first = day.phases.first().map_or(Duration::ZERO, |phase| phase.length);
        let texts = Texts { model: "m".to_owned(), path: "/v1/chat/completions".to_owned(), ..Texts::default() };
        Self {
            day,
            dice: Dice::new(day.seed, 21),
            arrivals: Dice::new(day.seed, 22),
            now: START,
            phase: 0,
            phase_ends: START + first,
            texts: Arc::new(texts),
            limits: day.rpm.iter().map(|rpm| Window::new(*rpm as usize)).collect(),
        }
    }

    fn gap(&mut self, mean: Duration) -> Duration {
        match self.day.arrivals {
            Arrivals::Random => self.arrivals.gap(mean),
            Arrivals::Even => mean,
        }
    }

    /// Returns the time left of a storm over this key; `None` without one.
    fn storm_over_in(&self, key: usize, now: Timestamp) -> Option<Duration> {
        let since = now.since(START);
        let over = |storm: &&Storm| key < storm.keys && (storm.from..storm.from + storm.length).contains(&since);
        self.day.storms.iter().filter(over).map(|storm| storm.from + storm.length - since).max()
    }
}

impl Environment for Nature<'_> {
    fn next_request(&mut self) -> Option<(Timestamp, Ask)> {
        let at = loop {
            let phase = self.day.phases.get(self.phase)?;
            let per_minute = phase.load * f64::from(self.day.capacity());
            let next = if per_minute > 0.0 { self.now + self.gap(MINUTE.div_f64(per_minute)) } else { self.phase_ends };
            if next < self.phase_ends {
                break next;
            }
            self.now = self.phase_ends;
            self.phase += 1;
            self.phase_ends = self.now + self.day.phases.get(self.phase).map_or(Duration::ZERO, |phase| phase.length);
        };
        self.now = at;
        let facts = Facts {
            operation: Operation::Chat,
            streaming: false,
            priority: 0,
            prompt_tokens: 200,
            max_tokens: 0,
            client: NONE,
            session: 0,
            translatable: false,
            idempotent: true,
        };
        Some((at, Ask { model: "m".into(), facts, texts: self.texts.clone(), patience: None }))
    }

    fn answer(&mut self, attempt: &Attempt<'_>) -> Answer {
        let (key, now) = (attempt.sending.backend as usize, attempt.now);
        let after = Duration::from_millis(self.dice.between(100, 900));
        let good =
            Answer { behavior: status(200, None), head: None, first_token: after, after, tokens: 100, prompt: None };
        if key >= self.limits.len() {
            return good;
        }
        let refusal = |retry_after: Duration| {
            let after = Duration::from_millis(30);
            Answer { behavior: status(429, Some(retry_after)), first_token: after, after, tokens: 0, ..good.clone() }
        };
        if let Some(left) = self.storm_over_in(key, now) {
            return refusal(left.min(LONGEST_RETRY_AFTER));
        }
        match self.limits[key].take(now) {
            Ok(()) => good,
            Err(retry_after) => refusal(retry_after),
        }
    }
}

fn status(status: u16, retry_after: Option<Duration>) -> Behavior {
    let header = |after: Duration| {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX) + 1;
        (HeaderName::from_static("retry-after-ms"), HeaderValue::from(ms))
    };
    let headers: HeaderMap = retry_after.map(header).into_iter().collect();
    Behavior::Response(Arc::new(Response { status, headers, body: None }))
}
