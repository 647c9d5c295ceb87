//! The numbers that are compared.

use pointsman_core::table::Lane;

use super::Run;
use super::results::ExchangeStats;
use super::stats::Estimate;

/// A number of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    /// Answered whole, of those whose client stayed.
    Success,
    /// Half of those answered whole were answered within this time, ms.
    TimeP50,
    /// The time within which 95 % of those answered whole were answered, ms.
    TimeP95,
    /// The time within which 99 % of those answered whole were answered, ms.
    TimeP99,
    /// Half of the streams had begun within this time, ms.
    FirstByteP50,
    /// The time within which 95 % of the streams had begun, ms.
    FirstByteP95,
    /// Share of the exchanges that waited.
    Waiting,
    /// Time spent waiting by exchange, of all, ms.
    Waited,
    /// Attempts that a backend answered with 429.
    RateLimited,
    /// Mean number of attempts of an exchange.
    Attempts,
    /// Share of the exchanges answered in the primary lane.
    Primary,
    /// Share of the exchanges answered in the fallback lane.
    Fallback,
    /// Share of the exchanges answered in the emergency lane.
    Emergency,
    /// Share of the exchanges that nobody answered.
    Unanswered,
    /// Cost of all attempts, USD.
    Spend,
    /// Questions at which the policy failed.
    Faults,
}

/// Unit of a metric, which says how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// 0..=1, shown in percent.
    Share,
    /// Milliseconds, shown in seconds from 1,000 on.
    Ms,
    /// A count over the whole traffic.
    Count,
    /// A mean per exchange.
    Mean,
    /// USD, of the whole traffic.
    Usd,
}

impl Metric {
    /// Every one, in the order in which they are shown.
    pub(super) const ALL: [Metric; 16] = [
        Metric::Success,
        Metric::TimeP50,
        Metric::TimeP95,
        Metric::TimeP99,
        Metric::FirstByteP50,
        Metric::FirstByteP95,
        Metric::Waiting,
        Metric::Waited,
        Metric::RateLimited,
        Metric::Attempts,
        Metric::Primary,
        Metric::Fallback,
        Metric::Emergency,
        Metric::Unanswered,
        Metric::Spend,
        Metric::Faults,
    ];

    /// Its name for machines, its name for people, and its unit.
    pub(super) const fn names(self) -> (&'static str, &'static str, Unit) {
        match self {
            Metric::Success => ("success_rate", "success rate", Unit::Share),
            Metric::TimeP50 => ("time_p50_ms", "time, p50", Unit::Ms),
            Metric::TimeP95 => ("time_p95_ms", "time, p95", Unit::Ms),
            Metric::TimeP99 => ("time_p99_ms", "time, p99", Unit::Ms),
            Metric::FirstByteP50 => ("stream_first_byte_p50_ms", "first byte, p50", Unit::Ms),
            Metric::FirstByteP95 => ("stream_first_byte_p95_ms", "first byte, p95", Unit::Ms),
            Metric::Waiting => ("waiting_share", "requests that waited", Unit::Share),
            Metric::Waited => ("waited_mean_ms", "mean waiting time", Unit::Ms),
            Metric::RateLimited => ("rate_limited", "429s received", Unit::Count),
            Metric::Attempts => ("attempts_per_exchange", "attempts per exchange", Unit::Mean),
            Metric::Primary => ("lane_primary_share", "lane primary", Unit::Share),
            Metric::Fallback => ("lane_fallback_share", "lane fallback", Unit::Share),
            Metric::Emergency => ("lane_emergency_share", "lane emergency", Unit::Share),
            Metric::Unanswered => ("lane_none_share", "not answered", Unit::Share),
            Metric::Spend => ("spend_usd", "spend", Unit::Usd),
            Metric::Faults => ("policy_faults", "policy faults", Unit::Count),
        }
    }

    /// Returns true if larger is better, false if smaller is; `None`: neither.
    pub(super) const fn more_is_better(self) -> Option<bool> {
        match self {
            Metric::Success => Some(true),
            Metric::Primary | Metric::Fallback | Metric::Emergency => None,
            Metric::TimeP50
            | Metric::TimeP95
            | Metric::TimeP99
            | Metric::FirstByteP50
            | Metric::FirstByteP95
            | Metric::Waiting
            | Metric::Waited
            | Metric::RateLimited
            | Metric::Attempts
            | Metric::Unanswered
            | Metric::Spend
            | Metric::Faults => Some(false),
        }
    }

    /// Its value; `share` is that of the sample, of which sums are scaled up.
    pub(super) fn of(self, stats: &ExchangeStats, share: f64) -> f64 {
        let all = (stats.exchanges as f64).max(1.0);
        let stayed = (stats.exchanges - stats.gone) as f64;
        let time = |share: f64| f64::from(u32::try_from(stats.times.value_at_quantile(share)).unwrap_or(u32::MAX));
        let first = |share: f64| stats.first_bytes.value_at_quantile(share) as f64;
        match self {
            Metric::Success => stats.delivered as f64 / stayed.max(1.0),
            Metric::TimeP50 => time(0.5),
            Metric::TimeP95 => time(0.95),
            Metric::TimeP99 => time(0.99),
            Metric::FirstByteP50 => first(0.5),
            Metric::FirstByteP95 => first(0.95),
            Metric::Waiting => stats.waiting as f64 / all,
            Metric::Waited => stats.waited.as_secs_f64() * 1e3 / all,
            Metric::RateLimited => stats.rate_limited() / share,
            Metric::Attempts => stats.attempts as f64 / all,
            Metric::Primary => stats.lanes()[Lane::Primary as usize] / all,
            Metric::Fallback => stats.lanes()[Lane::Fallback as usize] / all,
            Metric::Emergency => stats.lanes()[Lane::Emergency as usize] / all,
            Metric::Unanswered => stats.lanes()[3] / all,
            Metric::Spend => stats.spend_usd() / share,
            Metric::Faults => stats.faults as f64 / share,
        }
    }
}

/// One number side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    pub metric: Metric,
    /// The value in the journal, under the policy that ran.
    pub recorded: f64,
    /// Value of the policy that ran, in the modelled worlds.
    pub current: Estimate,
    /// The value under the candidate, over all worlds.
    pub candidate: Estimate,
    /// The candidate's less the current one's, world by world.
    pub difference: Estimate,
}

impl Row {
    /// Returns true if the candidate is better, false if it is worse; `None`: no significant difference, or neither is
    /// better.
    pub(super) fn is_better(&self) -> Option<bool> {
        let more = self.metric.more_is_better().filter(|_| self.difference.is_not_zero())?;
        Some(more == (self.difference.mean > 0.0))
    }
}

/// All numbers side by side.
pub(super) fn rows(recorded: &ExchangeStats, share: f64, lived: &[[Run; 2]]) -> Vec<Row> {
    let row = |metric: Metric| {
        let of = |which: usize| -> Vec<f64> { lived.iter().map(|l| metric.of(&l[which].stats, share)).collect() };
        let (current, candidate) = (of(0), of(1));
        let difference: Vec<f64> = candidate.iter().zip(&current).map(|(b, a)| b - a).collect();
        Row {
            metric,
            recorded: metric.of(recorded, share),
            current: Estimate::of(&current),
            candidate: Estimate::of(&candidate),
            difference: Estimate::of(&difference),
        }
    };
    Metric::ALL.into_iter().map(row).collect()
}
