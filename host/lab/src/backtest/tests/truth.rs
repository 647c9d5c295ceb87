//! Worlds whose truth is known and hidden: limits unlike the table's, outages, storms of 429s, slow hours, mishaps.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use pointsman_config::Config;
use pointsman_core::attempt::PromptCount;
use pointsman_core::contract::{NONE, Operation};
use pointsman_core::exchange::Facts;
use pointsman_core::time::Timestamp;
use pointsman_engine::Texts;

use crate::answer::{Answer, Behavior, Response};
use crate::backtest::model::limits::{Counts, Gauge};
use crate::dice::Dice;
use crate::world::{Ask, Attempt, Environment};

pub(super) const START: Timestamp = Timestamp::from_millis(1_767_571_200_000);

/// The truth about one backend.
#[derive(Clone)]
pub(super) struct Provider {
    pub limit: Option<(Counts, u64)>,
    /// Retry-After of its 429s.
    pub says: Says,
    /// Times in s from the start in which it is out, and how.
    pub outages: Vec<(Range<u32>, Ill)>,
    /// Times in s from the start in which it takes so many times as long.
    pub slow: Vec<(Range<u32>, f64)>,
    /// One attempt of so many fails for no reason.
    pub faulty: u64,
    pub first_token_ms: u64,
    pub per_token_ms: f64,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Says {
    Nothing,
    Seconds(u64),
    UntilRoom,
}

#[derive(Clone, Copy)]
pub(super) enum Ill {
    Storm,
    Dead,
    Failing,
    Silent,
}

impl Default for Provider {
    fn default() -> Self {
        Self {
            limit: None,
            says: Says::Nothing,
            outages: Vec::new(),
            slow: Vec::new(),
            faulty: 200,
            first_token_ms: 400,
            per_token_ms: 12.0,
        }
    }
}

/// A truth, played out.
pub(super) struct Truth {
    dice: Dice,
    /// Seed of the answers, so that another policy meets the same world.
    seed: u64,
    providers: Vec<(Provider, Gauge)>,
    at: Timestamp,
    left: u32,
    mean_gap: Duration,
    lengths: Vec<u32>,
    /// One client of so many leaves early.
    impatient: u64,
}

/// The traffic, and the properties that the model has to learn.
#[derive(Clone)]
pub(super) struct Plot {
    pub config: &'static str,
    pub providers: Vec<Provider>,
    pub exchanges: u32,
    pub mean_gap: Duration,
    pub impatient: u64,
}

impl Plot {
    pub(super) fn config(&self) -> Config {
        pointsman_config::parse(self.config, "p.toml", &[("K", "k")]).unwrap_or_else(|e| panic!("{e}")).config
    }

    pub(super) fn play(&self, seed: u64) -> Truth {
        let gauge = |p: &Provider| (p.clone(), Gauge::new(p.limit.map_or(Counts::UnderWay, |(counts, _)| counts)));
        Truth {
            dice: Dice::new(seed, 1),
            seed,
            providers: self.providers.iter().map(gauge).collect(),
            at: START,
            left: self.exchanges,
            mean_gap: self.mean_gap,
            lengths: Vec::new(),
            impatient: self.impatient,
        }
    }
}

impl Environment for Truth {
    fn next_request(&mut self) -> Option<(Timestamp, Ask)> {
        self.left = self.left.checked_sub(1)?;
        // More by day than by night, and bursts.
        let phase = self.at.since(START).as_secs_f64() / 1_800.0;
        let busy = 1.0 + 0.6 * phase.sin();
        let gap = if self.dice.one_in(4) { self.mean_gap / 20 } else { self.mean_gap };
        self.at = self.at + self.dice.gap(gap).div_f64(busy);
        self.lengths.push(self.dice.magnitude(20.0, 1_200.0) as u32);
        let facts = Facts {
            operation: Operation::Chat,
            streaming: self.dice.one_in(2),
            priority: 0,
            prompt_tokens: self.dice.magnitude(50.0, 4_000.0) as u32,
            max_tokens: 0,
            client: NONE,
            session: 0,
            translatable: false,
            idempotent: true,
        };
        let patience = self.dice.one_in(self.impatient).then(|| Duration::from_millis(self.dice.between(500, 9_000)));
        let path = "/v1/chat/completions".to_owned();
        let texts = Arc::new(Texts { model: "m".to_owned(), path, ..Texts::default() });
        Some((self.at, Ask { model: "m".into(), facts, texts, patience }))
    }

    fn answer(&mut self, attempt: &Attempt<'_>) -> Answer {
        let mut dice =
            Dice::of(&[self.seed, attempt.exchange, attempt.sending.backend.into(), attempt.now.as_micros()]);
        let tokens = self.lengths[attempt.exchange as usize];
        let (provider, gauge) = &mut self.providers[attempt.sending.backend as usize];
        let (now, facts) = (attempt.now, &attempt.ask.facts);
        let second = u32::try_from(now.since(START).as_secs()).unwrap_or(u32::MAX);
        let quick = Duration::from_millis(dice.between(20, 120));
        let at_once =
            |behavior| Answer { behavior, head: None, first_token: quick, after: quick, tokens: 0, prompt: None };
        let ill = provider.outages.iter().find(|(time, _)| time.contains(&second)).map(|(_, ill)| *ill);
        match ill {
            Some(Ill::Storm) => return at_once(status(429, None)),
            Some(Ill::Dead) => return at_once(Behavior::ConnectFailed),
            Some(Ill::Failing) => return at_once(status(502, None)),
            Some(Ill::Silent) => return at_once(Behavior::Silence),
            None => {}
        }
        if let Some((_, limit)) = provider.limit
            && gauge.level(now) >= limit
        {
            let told = match provider.says {
                Says::Nothing => None,
                Says::Seconds(seconds) => Some(seconds * 1_000),
                Says::UntilRoom => gauge.room_in(now, limit).map(|room| (room.as_secs() + 1).saturating_mul(1_000)),
            };
            return at_once(status(429, told));
        }
        let slow = provider.slow.iter().find(|(time, _)| time.contains(&second)).map_or(1.0, |(_, times)| *times);
        let first_token = Duration::from_millis(provider.first_token_ms).mul_f64(slow * dice.magnitude(0.5, 3.0));
        let pace = provider.per_token_ms * slow * dice.magnitude(0.7, 1.5);
        let after = first_token + Duration::from_secs_f64(pace * f64::from(tokens) / 1e3);
        let is_faulty = dice.one_in(provider.faulty);
        let until = now + if is_faulty { quick } else { after };
        gauge.take(now, until, u64::from(facts.prompt_tokens + tokens));
        if is_faulty {
            return at_once(status(500, None));
        }
        // A tokenizer of its own.
        let prompt = Some(PromptCount { tokens: facts.prompt_tokens / 5 * 6, cached: 0 });
        Answer { behavior: status(200, None), head: None, first_token, after, tokens, prompt }
    }
}

fn status(status: u16, retry_after_ms: Option<u64>) -> Behavior {
    let mut headers = HeaderMap::new();
    if let Some(ms) = retry_after_ms {
        headers.insert("retry-after-ms", ms.into());
    }
    Behavior::Response(Arc::new(Response { status, headers, body: None }))
}
