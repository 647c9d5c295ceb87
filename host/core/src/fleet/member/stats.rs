//! Moving averages over the attempts of one backend.

use std::time::Duration;

/// Moving averages and counts of a backend's attempts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Time from sending to the last byte of an answer, ms; 0: unknown.
    pub latency_ms: f32,
    /// Time from sending to the first content, ms; 0: unknown.
    pub first_token_ms: f32,
    /// Share of failed attempts, 0..=1.
    pub errors: f32,
    /// Number of attempts that ended.
    pub sent: u64,
    /// Number of attempts that were answered.
    pub answered: u64,
}

impl Stats {
    pub(super) fn record_answer(&mut self, elapsed: Duration, first_token: Option<Duration>) {
        fn mix(average: &mut f32, sample: Duration) {
            let sample = sample.as_secs_f32() * 1_000.0;
            *average = if *average == 0.0 { sample } else { *average * 0.8 + sample * 0.2 };
        }
        self.answered += 1;
        self.errors *= 0.9;
        mix(&mut self.latency_ms, elapsed);
        if let Some(first_token) = first_token {
            mix(&mut self.first_token_ms, first_token);
        }
    }

    pub(super) fn record_failure(&mut self) {
        self.errors = self.errors * 0.9 + 0.1;
    }
}
