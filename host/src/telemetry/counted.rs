//! Everything that is counted.

use std::sync::Mutex;

use arc_swap::ArcSwap;
use pointsman_core::lifecycle::promotion::PromotionStep;
use pointsman_core::lifecycle::{Reload, Rollback};
use pointsman_core::time::Timestamp;
use prometheus_client::metrics::histogram::Histogram;

use super::cells::{DenialCounts, LANES, LaneTotals};
use super::directory::Directory;
use super::instruments::Count;
use super::shadow::ShadowCounts;

/// The decisions' words, in the order they are counted in.
pub(super) const DECISIONS: [&str; 5] = ["primary", "fallback", "emergency", "wait", "reject"];

/// Repairs of events that were not strict JSON.
pub(super) const REPAIRS: [&str; 2] = ["mended", "left_out"];

/// The counts since the start of the process.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) directory: ArcSwap<Directory>,
    pub(super) totals: [LaneTotals; LANES.len()],
    pub(super) denials: DenialCounts,
    pub(super) decisions: [Count; DECISIONS.len()],
    pub(super) decision_seconds: Histogram,
    pub(super) faults: Mutex<Vec<(&'static str, u64)>>,
    /// By [`Reload`], failed and ok.
    pub(super) reloads: [[Count; 2]; Reload::ALL.len()],
    /// Rollbacks by their cause, in the order of [`Rollback::ALL`].
    pub(super) rollbacks: [Count; Rollback::ALL.len()],
    /// Steps of promotions, in the order of [`PromotionStep::ALL`].
    pub(super) promotions: [Count; PromotionStep::ALL.len()],
    /// Events of streams by [`REPAIRS`].
    pub(super) repairs: [Count; REPAIRS.len()],
    pub(super) shadow: ShadowCounts,
    pub(super) version: &'static str,
    pub(super) started: Timestamp,
}
