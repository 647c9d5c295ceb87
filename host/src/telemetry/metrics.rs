//! Metrics: counted on the hot path without lookups by label, shown on `/metrics`.
//!
//! Labels are bounded by the configuration: backends, clients and models that are not in it count as `other`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use pointsman_core::contract::Decision;
use pointsman_core::dialect::repair::Repairs;
use pointsman_core::lifecycle::promotion::PromotionStep;
use pointsman_core::lifecycle::shadow::{ShadowDrop, ShadowResult};
use pointsman_core::lifecycle::{Reload, Rollback};
use pointsman_core::record::ExchangeRecord;
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_core::usd::total_usd;
use prometheus_client::registry::Registry;

use super::cells::{DenialCounts, LaneTotals};
use super::counted::Counted;
use super::directory::Directory;
use super::exposition::Exposition;
use super::instruments::{Count, DECISION_BOUNDS, histogram};
pub use super::live::{BACKEND_STATES, Live, LiveBackend, LiveSide};
use super::shadow::ShadowCounts;
use super::text_format::{TextFormat, to_prometheus};

/// More kinds of policy fault than this count as the last one.
const FAULT_KINDS_MAX: usize = 16;

/// Totals of all exchanges since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Exchanges whose client got the whole answer.
    pub answered: u64,
    /// Requests refused at the door.
    pub denied: u64,
    /// Cost of all attempts, USD.
    pub spent_usd: f64,
    /// Saved by waiting in USD, compared with the cheapest fallback: of exchanges that waited and were answered
    /// outside the fallback lane. `None`: there were such exchanges, but no fallback has a price.
    pub saved_by_waiting_usd: Option<f64>,
    /// The same of exchanges that did not wait.
    pub saved_without_waiting_usd: f64,
}

/// Everything that is counted; cheap to clone and to call.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Counted>);

impl Metrics {
    /// Counts from zero for this table. `version` is the program's, `started` the process's begin.
    pub fn new(table: &Table, version: &'static str, started: Timestamp) -> Self {
        Self(Arc::new(Counted {
            directory: ArcSwap::from_pointee(Directory::new(table)),
            totals: std::array::from_fn(|_| LaneTotals::new()),
            denials: DenialCounts::default(),
            decisions: Default::default(),
            decision_seconds: histogram(DECISION_BOUNDS),
            faults: Mutex::default(),
            reloads: Default::default(),
            rollbacks: Default::default(),
            promotions: Default::default(),
            repairs: Default::default(),
            shadow: ShadowCounts::default(),
            version,
            started,
        }))
    }

    /// Goes on with a new table; what is in both keeps its counts, what is gone is no longer shown.
    pub fn set_table(&self, table: &Table) {
        self.0.directory.rcu(|before| Directory::heir(table, before));
    }

    /// Counts an ended exchange, or a request that was refused at the door.
    pub fn observe(&self, record: &ExchangeRecord) {
        let directory = self.0.directory.load();
        match record.denied {
            Some(denial) => {
                self.0.denials.count(denial);
                directory.denied(record);
            }
            None => directory.observe(record, &self.0.totals),
        }
    }

    /// Counts a refusal at the door that was not recorded, because there were too many.
    pub fn denied_unrecorded(&self) {
        self.0.denials.unrecorded.inc();
    }

    /// Returns the totals of all exchanges since the start.
    pub fn totals(&self) -> Totals {
        let totals = &self.0.totals;
        let saved_by_waiting_usd = total_usd(totals.iter().map(|lane| lane.saved_by_waiting.get()));
        let unknown: u64 = totals.iter().map(|lane| lane.unknown_saved_by_waiting.get()).sum();
        Totals {
            answered: totals.iter().map(|lane| lane.answered.get()).sum(),
            denied: self.0.denials.by_reason.iter().map(Count::get).sum(),
            spent_usd: total_usd(totals.iter().map(|lane| lane.cost.get())),
            saved_by_waiting_usd: Some(saved_by_waiting_usd).filter(|saved| *saved > 0.0 || unknown == 0),
            saved_without_waiting_usd: total_usd(totals.iter().map(|lane| lane.saved_without_waiting.get())),
        }
    }

    /// Counts a decision of the policy and how long it took.
    pub fn decided(&self, decision: &Decision, took: Duration) {
        let index = match decision {
            Decision::Primary(_) => 0,
            Decision::Fallback(_) => 1,
            Decision::Emergency(_) => 2,
            Decision::Wait(_) => 3,
            Decision::Reject(_) => 4,
        };
        self.0.decisions[index].inc();
        self.0.decision_seconds.observe(took.as_secs_f64());
    }

    /// Counts a policy fault by its kind's word.
    pub fn policy_fault(&self, kind: &'static str) {
        let mut faults = self.0.faults.lock().unwrap_or_else(PoisonError::into_inner);
        match faults.iter().position(|(known, _)| *known == kind) {
            Some(index) => faults[index].1 += 1,
            None if faults.len() < FAULT_KINDS_MAX => faults.push((kind, 1)),
            None => faults[FAULT_KINDS_MAX - 1].1 += 1,
        }
    }

    /// Counts a try to replace the configuration or the policy.
    pub fn reloaded(&self, what: Reload, ok: bool) {
        self.0.reloads[what as usize][usize::from(ok)].inc();
    }

    /// Counts a policy that gave way to an earlier one.
    pub fn rolled_back(&self, why: Rollback) {
        self.0.rollbacks[why as usize].inc();
    }

    /// Counts what was mended in an upstream's stream.
    pub fn repaired(&self, repairs: Repairs) {
        let [mended, left_out] = &self.0.repairs;
        mended.inc_by(u64::from(repairs.mended));
        left_out.inc_by(u64::from(repairs.left_out));
    }

    /// Counts a step of a guarded promotion.
    pub fn promotion(&self, step: PromotionStep) {
        self.0.promotions[step as usize].inc();
    }

    /// Counts an answer of the shadow policy.
    pub fn shadow_asked(&self, result: ShadowResult) {
        self.0.shadow.asked(result);
    }

    /// Counts a question that the shadow policy was not asked.
    pub fn shadow_dropped(&self, why: ShadowDrop) {
        self.0.shadow.dropped(why);
    }

    /// Adds to the running time of the shadow policy.
    pub fn shadow_ran(&self, time: Duration) {
        self.0.shadow.ran(time);
    }

    /// Writes all metrics in this format.
    pub fn encode(&self, live: Live, format: TextFormat) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exposition { counted: Arc::clone(&self.0), live }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a string takes all text");
        match format {
            TextFormat::OpenMetrics => text,
            TextFormat::Prometheus => to_prometheus(&text),
        }
    }
}

#[cfg(test)]
mod tests;
