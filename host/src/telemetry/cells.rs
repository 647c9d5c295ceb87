//! Counters and histograms that are found once and then only added to: no lock, no label lookup, no allocation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pointsman_core::contract::Operation;
use pointsman_core::denial::Denial;
use pointsman_core::outcome::Kind;
use pointsman_core::record::{AttemptRecord, End, ExchangeRecord, Usage};
use pointsman_core::table::{Backend, Dialect, Lane, Table};

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Seconds: whole answers, attempts and waits.
pub(super) const DURATION_BOUNDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Seconds: a decision of the policy.
pub(super) const DECISION_BOUNDS: &[f64] =
    &[2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3];
/// The three below are the advice of OpenTelemetry's GenAI metrics conventions.
pub(super) const GEN_AI_TOKEN_BOUNDS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// Bounds in seconds, from OpenTelemetry's GenAI conventions.
pub(super) const GEN_AI_DURATION_BOUNDS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// Bounds in seconds, from OpenTelemetry's GenAI conventions.
pub(super) const GEN_AI_FIRST_TOKEN_BOUNDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// A histogram with fixed bounds.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above.
    buckets: Box<[Count]>,
    /// In 1e-9, so that a decision's time is not lost.
    sum_nanos: Count,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, buckets: (0..=bounds.len()).map(|_| Count::default()).collect(), sum_nanos: Count::default() }
    }

    pub(super) fn observe(&self, time: Duration) {
        self.place(time.as_secs_f64());
        self.sum_nanos.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn observe_amount(&self, amount: u64) {
        self.place(amount as f64);
        self.sum_nanos.add(amount.saturating_mul(1_000_000_000));
    }

    fn place(&self, value: f64) {
        self.buckets[self.bounds.partition_point(|bound| *bound < value)].add(1);
    }

    /// The sum, the count, and the count of each bucket with its upper bound, the last one infinite.
    pub(super) fn read(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(Count::get)).collect();
        let count = buckets.iter().map(|(_, n)| n).sum();
        (self.sum_nanos.get() as f64 / 1e9, count, buckets)
    }
}

/// The word of a lane, or of its absence.
pub(super) const LANES: [&str; 4] = ["none", "primary", "fallback", "emergency"];

fn lane_index(lane: Option<Lane>) -> usize {
    match lane {
        None => 0,
        Some(Lane::Primary) => 1,
        Some(Lane::Fallback) => 2,
        Some(Lane::Emergency) => 3,
    }
}

fn end_index(end: End) -> usize {
    match end {
        End::Delivered => 0,
        End::Refused => 1,
        End::Rejected => 2,
        End::Broken => 3,
        End::ClientGone => 4,
        End::Denied => 5,
    }
}

/// Requests refused at the door.
#[derive(Debug, Default)]
pub(super) struct DenialCounts {
    pub(super) by_reason: [Count; Denial::ALL.len()],
    /// Those of them that were only counted.
    pub(super) unrecorded: Count,
}

impl DenialCounts {
    pub(super) fn count(&self, denial: Denial) {
        if let Some(place) = Denial::ALL.iter().position(|known| *known == denial) {
            self.by_reason[place].add(1);
        }
    }
}

/// The tokens' and the money's words.
#[derive(Debug, Default)]
pub(super) struct Spent {
    pub(super) input: Count,
    pub(super) output: Count,
    pub(super) cached_input: Count,
    cost: Usd,
}

/// An amount of money that only grows, kept in 1e-9 USD.
#[derive(Debug, Default)]
pub(super) struct Usd(Count);

impl Usd {
    pub(super) fn add(&self, usd: f64) {
        if usd > 0.0 {
            // A float's conversion saturates.
            self.0.add((usd * 1e9).round() as u64);
        }
    }

    pub(super) fn get(&self) -> f64 {
        self.0.get() as f64 / 1e9
    }
}

impl Spent {
    fn add(&self, usage: Usage, cost_usd: f64) {
        self.input.add(usage.input_tokens);
        self.output.add(usage.output_tokens);
        if usage.cached_input_tokens > 0 {
            self.cached_input.add(usage.cached_input_tokens);
        }
        self.cost.add(cost_usd);
    }

    pub(super) fn usd(&self) -> f64 {
        self.cost.get()
    }
}

/// Counters of one backend in one lane.
#[derive(Debug)]
pub(super) struct LaneCells {
    pub(super) ends: [Count; End::ALL.len()],
    pub(super) outcomes: [Count; Kind::ALL.len()],
    pub(super) attempt_seconds: Histogram,
    pub(super) spent: Spent,
}

impl LaneCells {
    fn new() -> Box<Self> {
        Box::new(Self {
            ends: Default::default(),
            outcomes: Default::default(),
            attempt_seconds: Histogram::new(DURATION_BOUNDS),
            spent: Spent::default(),
        })
    }
}

/// One backend; a lane's cells are made when it is first used.
#[derive(Debug, Default)]
pub(super) struct BackendCells {
    dialect: Option<Dialect>,
    pub(super) lanes: [OnceLock<Box<LaneCells>>; LANES.len()],
}

impl BackendCells {
    fn of(backend: &Backend) -> Self {
        Self { dialect: Some(backend.dialect), ..Self::default() }
    }

    fn lane(&self, lane: Option<Lane>) -> &LaneCells {
        self.lanes[lane_index(lane)].get_or_init(LaneCells::new)
    }
}

/// Counters of one client key.
#[derive(Debug, Default)]
pub(super) struct ClientCells {
    pub(super) ends: [Count; End::ALL.len()],
    pub(super) spent: Spent,
}

/// Totals of all backends in one lane.
#[derive(Debug)]
pub(super) struct LaneTotals {
    pub(super) exchange_seconds: Histogram,
    pub(super) first_byte_seconds: Histogram,
    pub(super) waited_seconds: Histogram,
    pub(super) waits: Count,
    /// Number of delivered answers.
    pub(super) answered: Count,
    pub(super) cost: Usd,
    /// By exchanges that waited, and by the others.
    pub(super) saved_by_waiting: Usd,
    pub(super) saved_without_waiting: Usd,
    /// Answers after a wait outside the fallback lane that could not be compared, because no fallback has a price.
    pub(super) unknown_saved_by_waiting: Count,
}

impl LaneTotals {
    pub(super) fn new() -> Self {
        Self {
            exchange_seconds: Histogram::new(DURATION_BOUNDS),
            first_byte_seconds: Histogram::new(DURATION_BOUNDS),
            waited_seconds: Histogram::new(DURATION_BOUNDS),
            waits: Count::default(),
            answered: Count::default(),
            cost: Usd::default(),
            saved_by_waiting: Usd::default(),
            saved_without_waiting: Usd::default(),
            unknown_saved_by_waiting: Count::default(),
        }
    }

    fn observe(&self, record: &ExchangeRecord, cost_usd: f64) {
        self.answered.add(u64::from(record.end == End::Delivered));
        self.cost.add(cost_usd);
        match record.saved_usd {
            Some(saved_usd) if record.waits > 0 => self.saved_by_waiting.add(saved_usd),
            Some(saved_usd) => self.saved_without_waiting.add(saved_usd),
            None if record.waits > 0 && record.end == End::Delivered && record.lane != Some(Lane::Fallback) => {
                self.unknown_saved_by_waiting.add(1);
            }
            None => {}
        }
        self.exchange_seconds.observe(record.elapsed);
        if let Some(first_byte) = record.first_byte {
            self.first_byte_seconds.observe(first_byte);
        }
        if record.waits > 0 {
            self.waits.add(u64::from(record.waits));
            self.waited_seconds.observe(record.waited);
        }
    }
}

/// OpenTelemetry's words for what is asked (`gen_ai.operation.name`).
pub(super) const GEN_AI_OPERATIONS: [&str; 4] = ["chat", "text_completion", "embeddings", "other"];

/// Counters of OpenTelemetry's GenAI conventions for one model, provider and operation.
#[derive(Debug)]
pub(super) struct GenAiCells {
    pub(super) input_tokens: Histogram,
    pub(super) output_tokens: Histogram,
    pub(super) duration: Histogram,
    pub(super) first_token: Histogram,
}

impl GenAiCells {
    fn new() -> Box<Self> {
        Box::new(Self {
            input_tokens: Histogram::new(GEN_AI_TOKEN_BOUNDS),
            output_tokens: Histogram::new(GEN_AI_TOKEN_BOUNDS),
            duration: Histogram::new(GEN_AI_DURATION_BOUNDS),
            first_token: Histogram::new(GEN_AI_FIRST_TOKEN_BOUNDS),
        })
    }

    fn observe(&self, record: &ExchangeRecord, usage: Usage) {
        self.duration.observe(record.elapsed);
        if usage.input_tokens + usage.output_tokens > 0 {
            self.input_tokens.observe_amount(usage.input_tokens);
            self.output_tokens.observe_amount(usage.output_tokens);
        }
        if let Some(first_token) = record.attempts.last().and_then(|a| a.first_token) {
            self.first_token.observe(first_token);
        }
    }
}

/// One model: its cells by provider and operation, made when first used. For the provider the dialect stands, because the
/// record does not say whose service a URL is.
#[derive(Debug)]
pub(super) struct ModelCells {
    pub(super) by: Vec<(Dialect, [OnceLock<Box<GenAiCells>>; GEN_AI_OPERATIONS.len()])>,
}

impl Default for ModelCells {
    fn default() -> Self {
        Self { by: Dialect::all().map(|dialect| (dialect, Default::default())).collect() }
    }
}

impl ModelCells {
    fn of(&self, dialect: Dialect, operation: Operation) -> &GenAiCells {
        let operation = match operation {
            Operation::Chat | Operation::Response | Operation::Message => 0,
            Operation::Completion => 1,
            Operation::Embedding => 2,
            Operation::Other => 3,
        };
        self.by[dialect.index()].1[operation].get_or_init(GenAiCells::new)
    }
}

/// The cells of one kind by name. Names that are not configured share one cell, so that no client can grow the exposition.
#[derive(Debug)]
pub(super) struct Named<C> {
    known: HashMap<Arc<str>, Arc<C>>,
    other: Arc<C>,
    none: Arc<C>,
}

/// Label value for names that are not configured.
pub(super) const OTHER: &str = "other";
/// Label value for a missing name.
pub(super) const NONE: &str = "none";

impl<C: Default> Named<C> {
    fn new(names: impl Iterator<Item = (Arc<str>, C)>) -> Self {
        let known = names.map(|(name, cells)| (name, Arc::new(cells))).collect();
        Self { known, other: Arc::default(), none: Arc::default() }
    }

    /// As `self`, with the counts of `before` where the name was there before.
    fn heir(mut self, before: &Self) -> Self {
        for (name, cells) in &mut self.known {
            if let Some(kept) = before.known.get(name) {
                *cells = Arc::clone(kept);
            }
        }
        Self { known: self.known, other: Arc::clone(&before.other), none: Arc::clone(&before.none) }
    }

    fn cell(&self, name: Option<&str>) -> &C {
        match name {
            Some(name) => self.known.get(name).unwrap_or(&self.other),
            None => &self.none,
        }
    }

    /// Every name with its cells, in alphabetical order, the shared ones last.
    pub(super) fn all(&self) -> Vec<(&str, &C)> {
        let mut all: Vec<(&str, &C)> = self.known.iter().map(|(name, cells)| (&**name, &**cells)).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        for (name, shared) in [(OTHER, &self.other), (NONE, &self.none)] {
            // A configured name may be the same word; two series of one name would make the exposition invalid.
            if !self.known.contains_key(name) {
                all.push((name, shared));
            }
        }
        all
    }
}

/// All cells that depend on the configuration.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) backends: Named<BackendCells>,
    pub(super) clients: Named<ClientCells>,
    pub(super) models: Named<ModelCells>,
}

impl Directory {
    pub(super) fn new(table: &Table) -> Self {
        Self {
            backends: Named::new(table.backends.iter().map(|b| (Arc::clone(&b.id), BackendCells::of(b)))),
            clients: Named::new(table.clients.iter().map(|c| (c.as_str().into(), ClientCells::default()))),
            models: Named::new(table.models.iter().map(|m| (m.as_str().into(), ModelCells::default()))),
        }
    }

    /// The directory of a new table; what was counted before goes on being counted.
    pub(super) fn heir(table: &Table, before: &Directory) -> Self {
        let new = Self::new(table);
        Self {
            backends: new.backends.heir(&before.backends),
            clients: new.clients.heir(&before.clients),
            models: new.models.heir(&before.models),
        }
    }

    /// Counts a request refused at the door: for its client only, because no backend and no lane had to do with it.
    pub(super) fn denied(&self, record: &ExchangeRecord) {
        self.clients.cell(record.client.as_deref()).ends[end_index(record.end)].add(1);
    }

    pub(super) fn observe(&self, record: &ExchangeRecord, totals: &[LaneTotals; LANES.len()]) {
        let end = end_index(record.end);
        let (usage, cost_usd) = (record.usage(), record.cost_usd());
        let backend = self.backends.cell(record.backend.as_deref());
        backend.lane(record.lane).ends[end].add(1);
        for attempt in &record.attempts {
            self.observe_attempt(attempt, backend, record);
        }
        let client = self.clients.cell(record.client.as_deref());
        client.ends[end].add(1);
        client.spent.add(usage, cost_usd);
        totals[lane_index(record.lane)].observe(record, cost_usd);
        if let Some(dialect) = backend.dialect {
            self.models.cell(Some(&record.model)).of(dialect, record.operation).observe(record, usage);
        }
    }

    fn observe_attempt(&self, attempt: &AttemptRecord, relayed: &BackendCells, record: &ExchangeRecord) {
        // Mostly there is one attempt, and it is the one that was relayed: no second lookup.
        let cells = match &record.backend {
            Some(id) if Arc::ptr_eq(id, &attempt.backend) => relayed,
            Some(_) | None => self.backends.cell(Some(&attempt.backend)),
        };
        let cells = cells.lane(Some(attempt.lane));
        cells.outcomes[attempt.outcome.index() as usize].add(1);
        cells.attempt_seconds.observe(attempt.elapsed);
        cells.spent.add(attempt.usage, attempt.cost_usd);
    }
}
