//! Rates: what was sent in the 60 seconds before, and what is under way.

use std::collections::VecDeque;
use std::time::Duration;

use pointsman_config::Config;
use pointsman_core::exchange::Facts;
use pointsman_core::outcome::Kind;
use pointsman_core::record::AttemptRecord;
use pointsman_core::table::{Lane, Limits};
use pointsman_core::time::Timestamp;

use super::{Found, InFlight, Rule};

const MINUTE: Duration = Duration::from_secs(60);

/// The emergency rate of a backend without an rpm limit is a fraction of this.
const UNLIMITED_RPM: u32 = 60;

/// All backends and client keys.
pub(super) struct Rates {
    backends: Vec<OfBackend>,
    clients: Vec<OfClient>,
}

struct OfBackend {
    limits: Limits,
    emergency_rpm: u32,
    in_flight: u32,
    requests: Window,
    tokens: Window,
    emergencies: Window,
}

struct OfClient {
    limits: Limits,
    in_flight: u32,
    requests: Window,
}

/// Amounts of the last minute.
#[derive(Default)]
struct Window {
    entries: VecDeque<Entry>,
    sum: u64,
}

struct Entry {
    at: Timestamp,
    exchange: u64,
    amount: u32,
}

impl Window {
    /// The sum of the minute that ends now, this included.
    fn add(&mut self, at: Timestamp, exchange: u64, amount: u32) -> u64 {
        while self.entries.front().is_some_and(|e| at.since(e.at) >= MINUTE) {
            self.sum -= self.entries.pop_front().map_or(0, |e| u64::from(e.amount));
        }
        self.entries.push_back(Entry { at, exchange, amount });
        self.sum += u64::from(amount);
        self.sum
    }

    /// Corrects an amount added earlier that turned out smaller.
    fn correct(&mut self, at: Timestamp, exchange: u64, amount: u32) {
        let later = self.entries.partition_point(|e| e.at < at);
        if let Some(entry) = self.entries.range_mut(later..).find(|e| e.exchange == exchange && e.at == at) {
            self.sum -= u64::from(entry.amount.saturating_sub(amount));
            entry.amount = entry.amount.min(amount);
        }
    }
}

impl Rates {
    pub(super) fn new(config: &Config, emergency_fraction: f64) -> Self {
        let backend = |limits: Limits| OfBackend {
            limits,
            emergency_rpm: (f64::from(limits.rpm.unwrap_or(UNLIMITED_RPM)) * emergency_fraction).max(1.0) as u32,
            in_flight: 0,
            requests: Window::default(),
            tokens: Window::default(),
            emergencies: Window::default(),
        };
        let client = |limits| OfClient { limits, in_flight: 0, requests: Window::default() };
        Self {
            backends: config.backends.iter().map(|b| backend(b.backend.limits)).collect(),
            clients: config.clients.iter().map(|c| client(c.limits)).collect(),
        }
    }

    /// Checks the limits of the client of a request that was let in.
    pub(super) fn arrived(&mut self, now: Timestamp, facts: &Facts) -> Found {
        let Some(client) = self.clients.get_mut(facts.client as usize) else { return Ok(()) };
        client.in_flight += 1;
        let requests = client.requests.add(now, 0, 1);
        within("requests of one client key in 60 s", requests, client.limits.rpm)?;
        within("requests of one client key at a time", client.in_flight.into(), client.limits.max_concurrency)
    }

    pub(super) fn finished(&mut self, facts: &Facts) {
        if let Some(client) = self.clients.get_mut(facts.client as usize) {
            client.in_flight = client.in_flight.saturating_sub(1);
        }
    }

    pub(super) fn sent(&mut self, attempt: InFlight) -> Found {
        let InFlight { exchange, at, tokens, .. } = attempt;
        let backend = &mut self.backends[attempt.backend];
        backend.in_flight += 1;
        within("attempts at a time", backend.in_flight.into(), backend.limits.max_concurrency)?;
        if attempt.lane == Lane::Emergency {
            let sent = backend.emergencies.add(at, exchange, 1);
            within("emergencies in 60 s", sent, Some(backend.emergency_rpm))?;
        }
        if backend.limits.rpm.is_some() {
            within("requests in 60 s", backend.requests.add(at, exchange, 1), backend.limits.rpm)?;
        }
        let Some(tpm) = backend.limits.tpm else { return Ok(()) };
        // What is larger than the limit goes when nothing else did within the minute, and is paid off after.
        within("tokens in 60 s", backend.tokens.add(at, exchange, tokens), Some(tpm.max(tokens)))
    }

    pub(super) fn ended(&mut self, attempt: InFlight, record: &AttemptRecord) {
        let InFlight { exchange, at, .. } = attempt;
        let backend = &mut self.backends[attempt.backend];
        backend.in_flight = backend.in_flight.saturating_sub(1);
        if record.outcome == Kind::ConnectFailed {
            // The provider never saw it.
            backend.requests.correct(at, exchange, 0);
        }
        let used = record.usage.input_tokens + record.usage.output_tokens;
        let unknown = matches!(record.outcome, Kind::Answered | Kind::Cut | Kind::Stalled | Kind::ClientGone);
        if used > 0 || !unknown {
            backend.tokens.correct(at, exchange, u32::try_from(used).unwrap_or(u32::MAX));
        }
    }
}

fn within(what: &str, found: u64, limit: Option<u32>) -> Found {
    match limit {
        Some(limit) if found > u64::from(limit) => Err((Rule::Rate, format!("{found} {what}, of at most {limit}"))),
        Some(_) | None => Ok(()),
    }
}
