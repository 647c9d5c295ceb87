//! Takes the journal in, exchange by exchange.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::attempt::PromptCount;
use pointsman_core::contract::NONE;
use pointsman_core::journal::{Happened, Setup, Trail};
use pointsman_core::outcome::Kind;
use pointsman_core::record::End;
use pointsman_core::table::Lane;
use pointsman_engine::Texts;
use pointsman_store::{AttemptRow, ExchangeRow, Journaled};

use super::past::{Arrival, MIN_EXCHANGES, Own, Past, TooFew, Try};
use super::results::{ExchangeResult, ExchangeStats, TimeGrid};
use super::thin::thinned;
use crate::answer::asks_stream;

/// The recorded traffic as far as it was read, exchange by exchange.
#[derive(Default)]
pub(super) struct Gathering {
    setups: Vec<(Arc<Setup>, usize)>,
    /// Setup of the exchange that ended last.
    latest: Option<Arc<Setup>>,
    /// Requests with their results and the name of the client key.
    entries: Vec<(Arrival, ExchangeResult, Option<Arc<str>>)>,
    /// Attempts, each with the number of its backend's name.
    tries: Vec<(u32, Try)>,
    backends: Names,
    models: Names,
    texts: HashMap<TextsKey, Arc<Texts>>,
    revisions: BTreeMap<String, usize>,
    /// Exchanges that are kept whether or not they are of the sample: all, and those of the sample.
    kept: (usize, usize),
}

/// Model, path, session and labels: requests that have them in common share them.
type TextsKey = (Arc<str>, String, Option<String>, Vec<(String, String)>);

/// Names and their numbers, in the order of their first use.
#[derive(Default)]
struct Names {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let (number, name) = (self.names.len() as u32, Arc::<str>::from(name));
        self.names.push(name.clone());
        self.numbers.insert(name, number);
        number
    }

    fn shared(&mut self, name: &str) -> Arc<str> {
        let number = self.number(name);
        self.names[number as usize].clone()
    }
}

impl Gathering {
    /// Takes one in. Those outside of the sample only tell how large a share it is.
    pub(super) fn add(&mut self, journaled: Journaled) {
        let Journaled { exchange, trail, setup, sampled } = journaled;
        if !is_ordinary(&exchange) {
            self.kept.0 += 1;
            self.kept.1 += usize::from(sampled);
        }
        if !sampled {
            return;
        }
        match self.setups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &setup)) {
            Some((_, count)) => *count += 1,
            None => self.setups.push((setup.clone(), 1)),
        }
        self.latest = Some(setup);
        *self.revisions.entry(exchange.policy.clone()).or_default() += 1;
        let tries = self.tries_of(&exchange, &trail);
        let own = own(&exchange, &tries);
        self.tries.extend(tries);
        let seen = seen(&exchange, &trail);
        let model = self.models.shared(&exchange.model);
        let texts = self.texts(&model, &exchange, &trail);
        let client = exchange.client.map(Arc::from);
        self.entries.push((Arrival { at: trail.arrived, model, facts: trail.facts, texts, own }, seen, client));
    }

    fn tries_of(&mut self, exchange: &ExchangeRow, trail: &Trail) -> Vec<(u32, Try)> {
        let stream = asks_stream(&trail.facts);
        let times = times(trail);
        let one = |(row, time): (&AttemptRow, Option<&(Duration, Option<Duration>)>)| {
            let (at, end) = time.copied()?;
            let took = Duration::from_millis(row.elapsed_ms);
            let ms = |ms: Option<u64>| ms.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX));
            let tokens = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            let tried = Try {
                sent: trail.arrived + at,
                took: end.map_or(took, |end| end.saturating_sub(at)),
                head_ms: ms(row.first_byte_ms),
                first_ms: ms(row.first_token_ms),
                kind: Kind::parse(&row.outcome)?,
                status: row.status,
                retry_after_ms: ms(row.retry_after_ms),
                prompt: tokens(row.input_tokens),
                output: tokens(row.output_tokens),
                stream,
                model: u16::try_from(self.models.number(&row.model_sent)).unwrap_or(u16::MAX),
                in_flight: 0,
            };
            Some((self.backends.number(&row.backend), tried))
        };
        let times = times.iter().map(Some).chain(std::iter::repeat(None));
        exchange.attempts.iter().zip(times).filter_map(one).collect()
    }

    fn texts(&mut self, model: &Arc<str>, exchange: &ExchangeRow, trail: &Trail) -> Arc<Texts> {
        let key = (model.clone(), exchange.path.clone(), exchange.session.clone(), trail.labels.clone());
        if let Some(known) = self.texts.get(&key) {
            return known.clone();
        }
        let texts = Arc::new(Texts {
            model: model.to_string(),
            path: exchange.path.clone(),
            session: exchange.session.clone(),
            labels: trail.labels.clone(),
            spending: trail.spending,
        });
        self.texts.insert(key, texts.clone());
        texts
    }

    /// All that was taken in, as the lab needs it.
    ///
    /// # Errors
    /// When it is too little.
    pub(super) fn finish(mut self) -> Result<Past, TooFew> {
        let too_few = TooFew { found: self.entries.len() };
        if self.entries.len() < MIN_EXCHANGES {
            return Err(too_few);
        }
        let setup = self.latest.take().ok_or(too_few)?;
        let same = self.setups.iter().filter(|(known, _)| Arc::ptr_eq(known, &setup));
        let of_latest: usize = same.map(|(_, count)| count).sum();
        let share = if self.kept.0 > 0 { self.kept.1 as f64 / self.kept.0 as f64 } else { 1.0 };
        self.entries.sort_by_key(|(arrival, _, _)| arrival.at);
        let spent_usd = spent_before(&setup, &self.entries, share);
        // The backends' numbers so far are those of their first mention.
        let places: Vec<Option<u32>> = self.backends.names.iter().map(|id| backend_of(&setup, id)).collect();
        let (tries, lost_tries) = by_backend(&setup, &places, &self.tries);
        let place = |number: &u32| places.get(*number as usize).copied().flatten();
        let face = match (self.entries.first(), self.entries.last()) {
            (Some((first, _, _)), Some((last, _, _))) => TimeGrid::new(first.at, last.at),
            _ => return Err(too_few),
        };
        let seen: Vec<ExchangeResult> = self.entries.iter().map(|(_, seen, _)| *seen).collect();
        let mut revisions: Vec<(String, usize)> = self.revisions.into_iter().collect();
        revisions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let arrival = |(mut arrival, _, client): (Arrival, ExchangeResult, Option<Arc<str>>)| {
            arrival.own.too_long = arrival.own.too_long.iter().filter_map(place).collect();
            arrival.facts.client = client_of(&setup, client.as_deref());
            arrival
        };
        Ok(Past {
            other_setups: seen.len() - of_latest,
            arrivals: self.entries.into_iter().map(arrival).collect(),
            tries,
            models: self.models.names,
            lost_tries,
            recorded: ExchangeStats::of(face, &seen),
            face,
            revisions,
            share,
            spent_usd,
            setup: thinned(&setup, share),
        })
    }
}

/// Lists when each attempt was sent and ended, counted from the arrival.
fn times(trail: &Trail) -> Vec<(Duration, Option<Duration>)> {
    let mut times: Vec<(Duration, Option<Duration>)> = Vec::new();
    for step in &trail.steps {
        match step.what {
            Happened::Sent { .. } => times.push((step.at, None)),
            Happened::Ended => {
                if let Some(last) = times.last_mut() {
                    last.1 = Some(step.at);
                }
            }
            Happened::Asked(_) | Happened::Waits { .. } | Happened::Waited { .. } | Happened::Committed => {}
        }
    }
    times
}

/// Returns true if the journal records it only as part of its sample (see `proxy/journal.rs`).
fn is_ordinary(exchange: &ExchangeRow) -> bool {
    exchange.end == End::Delivered.as_str()
        && exchange.lane.as_deref() == Some(Lane::Primary.as_str())
        && exchange.attempts.len() == 1
        && exchange.waits == 0
        && exchange.policy_faults == 0
}

fn seen(exchange: &ExchangeRow, trail: &Trail) -> ExchangeResult {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let is_limited = |a: &&AttemptRow| a.outcome == Kind::RateLimited.as_str();
    // Only what an upstream sent: an error of ours is told at once.
    let committed = trail.steps.iter().find(|step| matches!(step.what, Happened::Committed));
    ExchangeResult {
        arrived: trail.arrived,
        end: End::parse(&exchange.end).unwrap_or(End::Broken),
        lane: exchange.lane.as_deref().and_then(Lane::parse),
        took: Duration::from_millis(exchange.elapsed_ms),
        first_byte: committed.filter(|_| exchange.streaming).map(|step| step.at),
        waits: exchange.waits,
        waited: Duration::from_millis(exchange.waited_ms),
        attempts: count(exchange.attempts.len()),
        rate_limited: count(exchange.attempts.iter().filter(is_limited).count()),
        faults: exchange.policy_faults,
        cost_usd: exchange.cost_usd,
    }
}

fn own(exchange: &ExchangeRow, tries: &[(u32, Try)]) -> Own {
    let mut own = Own::default();
    for (backend, tried) in tries {
        match tried.kind {
            Kind::Answered => own.output = own.output.max(Some(tried.output)),
            Kind::Refused => own.is_refused = true,
            Kind::TooLong => own.too_long.push(*backend),
            Kind::RateLimited
            | Kind::OutOfCredit
            | Kind::Overloaded
            | Kind::ServerError
            | Kind::ModelMissing
            | Kind::Unauthorised
            | Kind::ConnectFailed
            | Kind::Reset
            | Kind::TimedOut
            | Kind::Cut
            | Kind::Stalled
            | Kind::Malformed
            | Kind::ClientGone
            | Kind::NotResumed => {}
        }
        own.least = own.least.max(tried.output);
    }
    let counted = exchange.attempts.iter().find(|a| a.input_tokens > 0 && !a.estimated);
    let tokens = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    own.prompt = counted.map(|a| PromptCount { tokens: tokens(a.input_tokens), cached: tokens(a.cached_input_tokens) });
    let has_left = exchange.end == End::ClientGone.as_str();
    own.patience = has_left.then(|| Duration::from_millis(exchange.elapsed_ms));
    own
}

fn backend_of(setup: &Setup, id: &str) -> Option<u32> {
    let place = setup.table.backends.iter().position(|backend| *backend.id == *id)?;
    u32::try_from(place).ok()
}

fn client_of(setup: &Setup, name: Option<&str>) -> u32 {
    let place = name.and_then(|name| setup.clients.iter().position(|client| *client.name == *name));
    place.and_then(|place| u32::try_from(place).ok()).unwrap_or(NONE)
}

/// Estimates what each client key had spent when its first request arrived; reduced by the sampled share.
fn spent_before(setup: &Setup, entries: &[(Arrival, ExchangeResult, Option<Arc<str>>)], share: f64) -> Vec<f64> {
    let first = |name: &str| {
        let first = entries.iter().find(|(_, _, client)| client.as_deref() == Some(name));
        first.map_or(0.0, |(arrival, _, _)| arrival.texts.spending.today_microusd as f64 / 1e6 * share)
    };
    setup.clients.iter().map(|client| first(&client.name)).collect()
}

fn by_backend(setup: &Setup, places: &[Option<u32>], all: &[(u32, Try)]) -> (Vec<Vec<Try>>, usize) {
    let mut tries: Vec<Vec<Try>> = vec![Vec::new(); setup.table.backends.len()];
    let mut lost = 0;
    for (number, tried) in all {
        match places.get(*number as usize).copied().flatten() {
            Some(place) => tries[place as usize].push(*tried),
            None => lost += 1,
        }
    }
    for tries in &mut tries {
        // Of those sent in one moment, the backend took the first.
        tries.sort_by_key(|tried| (tried.sent, tried.kind == Kind::RateLimited));
        count_in_flight(tries);
    }
    (tries, lost)
}

fn count_in_flight(tries: &mut [Try]) {
    let mut ends = std::collections::BinaryHeap::new();
    for tried in tries {
        while ends.peek().is_some_and(|std::cmp::Reverse(end)| *end <= tried.sent) {
            ends.pop();
        }
        tried.in_flight = u16::try_from(ends.len()).unwrap_or(u16::MAX);
        ends.push(std::cmp::Reverse(tried.sent + tried.took));
    }
}
