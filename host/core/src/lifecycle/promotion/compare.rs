//! Samples of both sides, and their comparison under a guard.

use std::fmt;
use std::time::Duration;

use super::bounds::{Count, Mean};
use super::plan::Percent;
use super::spread::Spread;
use super::{Guard, Measure, Sample, Side};
use crate::usd::Usd;

/// The share of exchanges that take longer than the 95th percentile.
const SLOW: f64 = 0.05;

/// Confidence of the bounds: at all times, for both sides and all guards together ([`super::ERROR_LEVEL`]).
const CONFIDENCE: &str = "95% confidence";

vocabulary! {
    /// The status of a guard.
    pub enum GuardStatus {
        /// There is not enough to say anything.
        Unknown = "unknown",
        /// The candidate is within the guard, as far as was seen.
        Within = "within",
        /// It seems to be worse than allowed, and that may be chance.
        Beyond = "beyond",
        /// It is worse than allowed.
        Violated = "violated",
    }
}

/// Totals of the exchanges of one side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SideStats {
    /// Ended exchanges that arrived during the promotion.
    pub exchanges: u64,
    /// Those whose client got no whole answer.
    pub failed: u64,
    /// The time that all but a twentieth took no longer than; none: no exchange.
    pub p95: Option<Duration>,
    /// The mean cost of an exchange, in USD.
    pub cost_usd: f64,
}

/// A guard, how it stands, and the same in words.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardReport {
    /// The guard that both sides are held against.
    pub guard: Guard,
    /// Status of the guard.
    pub standing: GuardStatus,
    /// In a sentence with numbers.
    pub words: String,
}

/// The samples of both sides.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    control: SideSamples,
    candidate: SideSamples,
    /// Error level of each bound.
    level: f64,
}

/// Samples of one side, by which it is compared.
#[derive(Clone, Debug, Default)]
struct SideSamples {
    failed: Count,
    times: Spread,
    cost: Mean,
    /// So many of its times, at least, are above its true 95th percentile.
    surely_slow: u64,
}

impl Comparison {
    /// No samples; each bound is ever wrong with at most this probability.
    pub(super) fn new(level: f64) -> Self {
        Self { control: SideSamples::default(), candidate: SideSamples::default(), level }
    }

    pub(super) fn add(&mut self, side: Side, sample: &Sample) {
        match side {
            Side::Control => self.control.add(sample, self.level),
            Side::Candidate => self.candidate.add(sample, self.level),
        }
    }

    /// Returns the number of exchanges that ended on a side.
    pub(super) fn exchanges(&self, side: Side) -> u64 {
        self.samples(side).failed.of
    }

    fn samples(&self, side: Side) -> &SideSamples {
        match side {
            Side::Control => &self.control,
            Side::Candidate => &self.candidate,
        }
    }

    /// Returns the statistics of a side.
    pub(super) fn seen(&self, side: Side) -> SideStats {
        let samples = self.samples(side);
        let Count { yes, of } = samples.failed;
        SideStats { exchanges: of, failed: yes, p95: samples.p95(), cost_usd: samples.cost.mean() }
    }

    /// Returns the status of a guard.
    pub(super) fn standing(&self, guard: &Guard) -> GuardStatus {
        if self.is_violated(guard) {
            GuardStatus::Violated
        } else {
            match self.seems_within(guard) {
                None => GuardStatus::Unknown,
                Some(true) => GuardStatus::Within,
                Some(false) => GuardStatus::Beyond,
            }
        }
    }

    /// Returns true if the candidate is significantly worse than allowed. The bounds are searched only where the data
    /// suggest it.
    pub(super) fn is_violated(&self, guard: &Guard) -> bool {
        let limit = guard.limit;
        match guard.measure {
            Measure::ErrorRate => {
                self.candidate.failed.share() - self.control.failed.share() > limit && self.more_failed() > limit
            }
            Measure::P95 => self.slow(limit).is_some_and(|slow| slow.share() > SLOW && slow.refutes(SLOW, self.level)),
            Measure::Spend => self.spends_more(limit).is_some_and(|more| more),
        }
    }

    /// Returns true if the observed values are within the guard, chance aside; `None`: unknown yet.
    fn seems_within(&self, guard: &Guard) -> Option<bool> {
        let (control, candidate) = (&self.control, &self.candidate);
        if control.failed.of.min(candidate.failed.of) == 0 {
            return None;
        }
        let limit = guard.limit;
        match guard.measure {
            Measure::ErrorRate => Some(candidate.failed.share() - control.failed.share() <= limit),
            Measure::P95 => {
                self.allowed(limit)?;
                Some(candidate.p95()? <= control.p95()?.mul_f64(1.0 + limit))
            }
            Measure::Spend => {
                self.spends_more(limit)?;
                Some(candidate.cost.mean() <= control.cost.mean() * (1.0 + limit))
            }
        }
    }

    /// At least so much larger is the candidate's share of failures.
    fn more_failed(&self) -> f64 {
        let level = self.level;
        self.candidate.failed.at_least(level) - self.control.failed.at_most(level)
    }

    /// Counts the candidate's exchanges that take longer than the 95th percentile of the policy in force may be, plus
    /// the allowance. While that percentile is bounded, no more than a twentieth may be.
    fn slow(&self, limit: f64) -> Option<Count> {
        let allowed = self.allowed(limit)?;
        let times = &self.candidate.times;
        Some(Count { yes: times.longer_than(allowed), of: times.count() })
    }

    fn allowed(&self, limit: f64) -> Option<Duration> {
        Some(self.control.times.longest(self.control.surely_slow)?.mul_f64(1.0 + limit))
    }

    /// Returns true if the candidate's exchanges cost significantly more than allowed; `None`: too few have ended.
    fn spends_more(&self, limit: f64) -> Option<bool> {
        let level = self.level;
        let most = self.control.cost.at_most(level)?;
        Some(self.candidate.cost.at_least(level)? > most * (1.0 + limit))
    }

    /// The same in a sentence with numbers.
    pub(super) fn words(&self, guard: &Guard) -> String {
        let verdict = match self.standing(guard) {
            GuardStatus::Unknown => "not known yet",
            GuardStatus::Within => "kept",
            GuardStatus::Beyond => "exceeded so far, which may be chance",
            GuardStatus::Violated => "exceeded",
        };
        match guard.measure {
            Measure::ErrorRate => self.error_rate_words(guard.limit, verdict),
            Measure::P95 => self.p95_words(guard.limit, verdict),
            Measure::Spend => self.spend_words(guard.limit, verdict),
        }
    }

    fn error_rate_words(&self, limit: f64, verdict: &str) -> String {
        format!(
            "failed requests: candidate {}, baseline {}; at least {} points more ({CONFIDENCE}); limit +{} points {verdict}",
            Share1(self.candidate.failed),
            Share1(self.control.failed),
            Points(self.more_failed().max(0.0)),
            Points(limit)
        )
    }

    fn p95_words(&self, limit: f64, verdict: &str) -> String {
        let seconds =
            |time: Option<Duration>| time.map_or("unknown".to_owned(), |t| format!("{:.3} s", t.as_secs_f64()));
        let seen = format!(
            "95th percentile: candidate {}, baseline {}",
            seconds(self.candidate.p95()),
            seconds(self.control.p95())
        );
        match (self.allowed(limit), self.slow(limit)) {
            (Some(allowed), Some(slow)) => format!(
                "{seen}; {} of the candidate's requests took longer than {} (the baseline's upper bound +{}), at least {} of \
                 all do ({CONFIDENCE}), and 5% may; limit {verdict}",
                Share1(slow),
                seconds(Some(allowed)),
                Percent(limit),
                Percent(slow.at_least(self.level))
            ),
            _ => format!(
                "{seen}; {} requests of the baseline are too few to bound its 95th percentile, {} are needed",
                self.control.failed.of,
                self.needed_for_p95()
            ),
        }
    }

    /// So many requests bound a 95th percentile.
    fn needed_for_p95(&self) -> u64 {
        (1..).find(|&of| Count { yes: 0, of }.refutes(SLOW, self.level)).unwrap_or(u64::MAX)
    }

    fn spend_words(&self, limit: f64, verdict: &str) -> String {
        let (control, candidate) = (&self.control.cost, &self.candidate.cost);
        let bound = |word: &str, bound: Option<f64>| {
            bound.map_or(String::new(), |bound| format!(" ({word} {}, {CONFIDENCE})", Usd(bound.max(0.0))))
        };
        format!(
            "mean cost per request: candidate {}{}, baseline {}{}; limit +{} {verdict}",
            Usd(candidate.mean()),
            bound("at least", candidate.at_least(self.level)),
            Usd(control.mean()),
            bound("at most", control.at_most(self.level)),
            Percent(limit)
        )
    }
}

impl SideSamples {
    fn p95(&self) -> Option<Duration> {
        self.times.quantile(1.0 - SLOW)
    }

    fn add(&mut self, sample: &Sample, level: f64) {
        self.failed.of += 1;
        self.failed.yes += u64::from(sample.failed);
        self.times.add(sample.took);
        self.cost.add(if sample.cost_usd.is_finite() { sample.cost_usd } else { 0.0 });
        // So few slow ones would refute that a twentieth of all is slow. With more exchanges it can only be more.
        let of = self.times.count();
        let too_few = |yes: u64| Count { yes, of }.share() < SLOW && Count { yes, of }.refutes(SLOW, level);
        while too_few(self.surely_slow) {
            self.surely_slow += 1;
        }
    }
}

/// `12 of 340 (3.53%)`
struct Share1(Count);

impl fmt::Display for Share1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({})", self.0.yes, self.0.of, Percent(self.0.share()))
    }
}

/// A difference of shares, in percentage points.
struct Points(f64);

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Percent(self.0).to_string().trim_end_matches('%'))
    }
}
