//! Counters and histograms of a backend, a lane, a client and a model, found once and then only added to.

use std::sync::OnceLock;

use pointsman_core::contract::Operation;
use pointsman_core::denial::Denial;
use pointsman_core::outcome::Kind;
use pointsman_core::record::{End, ExchangeRecord, Usage};
use pointsman_core::table::{Backend, Dialect, Lane};
use prometheus_client::metrics::histogram::Histogram;

use super::instruments::{
    Count, DURATION_BOUNDS, GEN_AI_DURATION_BOUNDS, GEN_AI_FIRST_TOKEN_BOUNDS, GEN_AI_TOKEN_BOUNDS, Usd, histogram,
};

/// The word of a lane, or of its absence.
pub(super) const LANES: [&str; 4] = ["none", "primary", "fallback", "emergency"];

pub(super) fn lane_index(lane: Option<Lane>) -> usize {
    match lane {
        None => 0,
        Some(Lane::Primary) => 1,
        Some(Lane::Fallback) => 2,
        Some(Lane::Emergency) => 3,
    }
}

pub(super) fn end_index(end: End) -> usize {
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
            self.by_reason[place].inc();
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

impl Spent {
    pub(super) fn add(&self, usage: Usage, cost_usd: f64) {
        self.input.inc_by(usage.input_tokens);
        self.output.inc_by(usage.output_tokens);
        if usage.cached_input_tokens > 0 {
            self.cached_input.inc_by(usage.cached_input_tokens);
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
            attempt_seconds: histogram(DURATION_BOUNDS),
            spent: Spent::default(),
        })
    }
}

/// One backend; a lane's cells are made when it is first used.
#[derive(Debug, Default)]
pub(super) struct BackendCells {
    pub(super) dialect: Option<Dialect>,
    pub(super) lanes: [OnceLock<Box<LaneCells>>; LANES.len()],
}

impl BackendCells {
    pub(super) fn of(backend: &Backend) -> Self {
        Self { dialect: Some(backend.dialect), ..Self::default() }
    }

    pub(super) fn lane(&self, lane: Option<Lane>) -> &LaneCells {
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
    /// Answers that were delivered whole.
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
            exchange_seconds: histogram(DURATION_BOUNDS),
            first_byte_seconds: histogram(DURATION_BOUNDS),
            waited_seconds: histogram(DURATION_BOUNDS),
            waits: Count::default(),
            answered: Count::default(),
            cost: Usd::default(),
            saved_by_waiting: Usd::default(),
            saved_without_waiting: Usd::default(),
            unknown_saved_by_waiting: Count::default(),
        }
    }

    pub(super) fn observe(&self, record: &ExchangeRecord, cost_usd: f64) {
        self.answered.inc_by(u64::from(record.end == End::Delivered));
        self.cost.add(cost_usd);
        match record.saved_usd {
            Some(saved_usd) if record.waits > 0 => self.saved_by_waiting.add(saved_usd),
            Some(saved_usd) => self.saved_without_waiting.add(saved_usd),
            None if record.waits > 0 && record.end == End::Delivered && record.lane != Some(Lane::Fallback) => {
                self.unknown_saved_by_waiting.inc();
            }
            None => {}
        }
        self.exchange_seconds.observe(record.elapsed.as_secs_f64());
        if let Some(first_byte) = record.first_byte {
            self.first_byte_seconds.observe(first_byte.as_secs_f64());
        }
        if record.waits > 0 {
            self.waits.inc_by(u64::from(record.waits));
            self.waited_seconds.observe(record.waited.as_secs_f64());
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
            input_tokens: histogram(GEN_AI_TOKEN_BOUNDS),
            output_tokens: histogram(GEN_AI_TOKEN_BOUNDS),
            duration: histogram(GEN_AI_DURATION_BOUNDS),
            first_token: histogram(GEN_AI_FIRST_TOKEN_BOUNDS),
        })
    }

    pub(super) fn observe(&self, record: &ExchangeRecord, usage: Usage) {
        self.duration.observe(record.elapsed.as_secs_f64());
        if usage.input_tokens + usage.output_tokens > 0 {
            self.input_tokens.observe(usage.input_tokens as f64);
            self.output_tokens.observe(usage.output_tokens as f64);
        }
        if let Some(first_token) = record.attempts.last().and_then(|a| a.first_token) {
            self.first_token.observe(first_token.as_secs_f64());
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
    pub(super) fn of(&self, dialect: Dialect, operation: Operation) -> &GenAiCells {
        let operation = match operation {
            Operation::Completion => 1,
            Operation::Embedding => 2,
            _ if operation.has_streams() => 0,
            _ => 3,
        };
        self.by[dialect.index()].1[operation].get_or_init(GenAiCells::new)
    }
}
