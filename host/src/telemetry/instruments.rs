//! Counters, histograms with their bounds, and amounts of money.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

/// A counter of things; an atomic integer.
pub(super) type Count = Counter<u64>;

/// Bounds in seconds of whole answers, attempts and waits.
pub(super) const DURATION_BOUNDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Bounds in seconds of a policy's decision.
pub(super) const DECISION_BOUNDS: &[f64] =
    &[2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3];
/// Bounds in tokens, from OpenTelemetry's GenAI conventions.
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

/// A histogram with these upper bounds and an infinite one.
pub(super) fn histogram(bounds: &[f64]) -> Histogram {
    Histogram::new(bounds.iter().copied())
}

/// An amount of money that only grows, kept in 1e-9 USD.
#[derive(Debug, Default)]
pub(super) struct Usd(Count);

impl Usd {
    pub(super) fn add(&self, usd: f64) {
        if usd > 0.0 {
            // A float's conversion saturates.
            self.0.inc_by((usd * 1e9).round() as u64);
        }
    }

    pub(super) fn get(&self) -> f64 {
        self.0.get() as f64 / 1e9
    }
}
