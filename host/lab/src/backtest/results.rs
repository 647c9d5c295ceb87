//! Results of exchanges, counted the same way for recorded and simulated ones.

use std::time::Duration;

use hdrhistogram::Histogram;
use pointsman_core::outcome::Kind;
use pointsman_core::record::End;
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use pointsman_core::usd::total_usd;

use crate::world::{EventKind, Finished, Scene, Watcher};

/// Result of one exchange, recorded or simulated.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeResult {
    /// Time of its arrival.
    pub arrived: Timestamp,
    /// Its end as the client saw it.
    pub end: End,
    /// The lane of who answered.
    pub lane: Option<Lane>,
    /// Time from its arrival to its end.
    pub took: Duration,
    /// Arrival to the first byte of a stream.
    pub first_byte: Option<Duration>,
    /// Number of waits in the queue.
    pub waits: u32,
    /// Total time in the queue.
    pub waited: Duration,
    /// Number of attempts that were sent.
    pub attempts: u32,
    /// Attempts answered with 429.
    pub rate_limited: u32,
    /// Questions at which the policy failed.
    pub faults: u32,
    /// Cost of all attempts, USD.
    pub cost_usd: f64,
}

/// Parts that the time is cut into, for plots.
pub(super) const PARTS: usize = 96;

/// The time that a journal spans, in parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeGrid {
    /// Time of the first arrival.
    pub start: Timestamp,
    /// The length of a part.
    pub part: Duration,
}

impl TimeGrid {
    /// From the first arrival to the last.
    pub fn new(first: Timestamp, last: Timestamp) -> Self {
        let part = last.since(first) / PARTS as u32 + Duration::from_micros(1);
        Self { start: first, part }
    }

    fn part_of(&self, at: Timestamp) -> usize {
        let part = at.since(self.start).as_micros() / self.part.as_micros().max(1);
        usize::try_from(part).unwrap_or(PARTS).min(PARTS - 1)
    }
}

/// One part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    /// Answered, by lane, in the order of [`Lane::ALL`]; last those that nobody answered.
    pub lanes: [f64; 4],
    /// Cost of its attempts, USD.
    pub spend_usd: f64,
    /// Attempts answered with 429.
    pub rate_limited: f64,
}

/// Counts and times of exchanges.
#[derive(Clone, Debug)]
pub struct ExchangeStats {
    face: TimeGrid,
    /// Number of exchanges.
    pub exchanges: u64,
    /// Exchanges whose answer was delivered whole.
    pub delivered: u64,
    /// Number of exchanges whose client disconnected.
    pub gone: u64,
    /// Exchanges that waited at least once.
    pub waiting: u64,
    /// Total time in the queue.
    pub waited: Duration,
    /// Number of attempts of all exchanges.
    pub attempts: u64,
    /// Questions at which the policy failed.
    pub faults: u64,
    /// Parts of the time, by the arrival of their exchanges.
    pub parts: Vec<Part>,
    /// Arrival to end of those that were answered whole, in ms.
    pub times: Histogram<u32>,
    /// Arrival to the first byte of streams, in ms.
    pub first_bytes: Histogram<u32>,
}

/// Longer times count as this, in ms.
const LONGEST_MS: u64 = 3_600_000;

impl ExchangeStats {
    /// Counts of no exchange, over this time.
    pub fn new(face: TimeGrid) -> Self {
        // Three digits: one part in a thousand.
        let histogram = || Histogram::new_with_bounds(1, LONGEST_MS, 3).expect("these bounds are ones it knows");
        Self {
            face,
            exchanges: 0,
            delivered: 0,
            gone: 0,
            waiting: 0,
            waited: Duration::ZERO,
            attempts: 0,
            faults: 0,
            parts: vec![Part::default(); PARTS],
            times: histogram(),
            first_bytes: histogram(),
        }
    }

    /// Counts these exchanges.
    pub fn of(face: TimeGrid, all: &[ExchangeResult]) -> Self {
        let mut stats = Self::new(face);
        all.iter().for_each(|seen| stats.add(seen));
        stats
    }

    /// Counts one more exchange.
    pub fn add(&mut self, seen: &ExchangeResult) {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(LONGEST_MS);
        self.exchanges += 1;
        self.delivered += u64::from(seen.end == End::Delivered);
        self.gone += u64::from(seen.end == End::ClientGone);
        self.waiting += u64::from(seen.waits > 0);
        self.waited += seen.waited;
        self.attempts += u64::from(seen.attempts);
        self.faults += u64::from(seen.faults);
        if seen.end == End::Delivered {
            self.times.saturating_record(ms(seen.took));
        }
        if let Some(first_byte) = seen.first_byte {
            self.first_bytes.saturating_record(ms(first_byte));
        }
        let part = &mut self.parts[self.face.part_of(seen.arrived)];
        part.lanes[seen.lane.map_or(3, |lane| lane as usize)] += 1.0;
        part.spend_usd += seen.cost_usd;
        part.rate_limited += f64::from(seen.rate_limited);
    }

    /// Exchanges by lane, in the order of [`Lane::ALL`]; last those that nobody answered.
    pub fn lanes(&self) -> [f64; 4] {
        self.parts.iter().fold([0.0; 4], |mut sum, part| {
            sum.iter_mut().zip(part.lanes).for_each(|(sum, more)| *sum += more);
            sum
        })
    }

    /// Cost of all exchanges, USD.
    pub fn spend_usd(&self) -> f64 {
        total_usd(self.parts.iter().map(|part| part.spend_usd))
    }

    /// Attempts answered with 429.
    pub fn rate_limited(&self) -> f64 {
        self.parts.iter().fold(0.0, |sum, part| sum + part.rate_limited)
    }
}

/// Counts what happens in a world.
pub(super) struct Counter {
    /// Counts of the exchanges that have ended.
    pub stats: ExchangeStats,
    /// By number: the first byte's time, and faults.
    under_way: Vec<(Option<Duration>, u32)>,
    arrivals: Vec<Timestamp>,
    streams: Vec<bool>,
}

impl Counter {
    /// Creates a counter for a world with this many arrivals.
    pub(super) fn new(face: TimeGrid, arrivals: usize) -> Self {
        Self {
            stats: ExchangeStats::new(face),
            under_way: vec![(None, 0); arrivals],
            arrivals: Vec::with_capacity(arrivals),
            streams: Vec::with_capacity(arrivals),
        }
    }

    fn finished(&mut self, number: usize, finished: &Finished<'_>) {
        let (first_byte, faults) = self.under_way[number];
        let is_limited = |a: &&pointsman_core::record::AttemptRecord| a.outcome == Kind::RateLimited;
        self.stats.add(&ExchangeResult {
            arrived: self.arrivals[number],
            end: finished.end,
            lane: finished.by.map(|(lane, _)| lane),
            took: finished.took,
            first_byte: first_byte.filter(|_| self.streams[number]),
            waits: finished.waits.0,
            waited: finished.waits.1,
            attempts: u32::try_from(finished.attempts.len()).unwrap_or(u32::MAX),
            rate_limited: u32::try_from(finished.attempts.iter().filter(is_limited).count()).unwrap_or(u32::MAX),
            faults,
            cost_usd: total_usd(finished.attempts.iter().map(|a| a.cost_usd)),
        });
    }
}

impl Watcher for Counter {
    fn saw(&mut self, scene: &Scene<'_>, sight: EventKind<'_>) {
        let number = scene.exchange as usize;
        match sight {
            EventKind::Arrived(ask) => {
                self.arrivals.push(scene.now);
                self.streams.push(ask.facts.streaming);
            }
            EventKind::Decided(verdict) if verdict.fault.is_some() => self.under_way[number].1 += 1,
            EventKind::Committed => {
                let since = scene.now.since(self.arrivals[number]);
                self.under_way[number].0.get_or_insert(since);
            }
            EventKind::Finished(finished) => self.finished(number, finished),
            EventKind::Asked(_) | EventKind::Decided(_) | EventKind::Sent { .. } | EventKind::Ended(_) => {}
            EventKind::Waits { .. } | EventKind::Granted { .. } | EventKind::Waited { .. } => {}
        }
    }
}
