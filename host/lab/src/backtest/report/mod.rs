//! Reports of a backtest: for a terminal ([`text`]), as JSON ([`machine`]), as a page ([`page`], [`plot`]).

mod caveats;
mod machine;
mod page;
mod plot;
mod text;

use std::time::Duration;

use pointsman_core::table::Tier;

pub(super) use caveats::Caveats;
pub use machine::json;
pub use page::Html;
pub use text::Terminal;

use pointsman_store::Skipped;

use super::Run;
use super::metrics::{Metric, Row, Unit, rows};
use super::model::limits::{Counts, Limit, Says};
use super::model::{Limits, Model};
use super::past::Past;
use super::results::{ExchangeStats, Part, TimeGrid};
use super::source::Named;

/// Everything there is to tell.
pub struct BacktestReport {
    /// The policy that ran, and the candidate: what they are called, and their revisions.
    pub(super) policies: [(String, String); 2],
    /// Recorded exchanges that the backtest is made of.
    pub(super) exchanges: usize,
    /// The time that the exchanges span, cut into parts.
    pub(super) face: TimeGrid,
    /// The last arrival.
    pub(super) until: pointsman_core::time::Timestamp,
    /// Recorded share of all exchanges, 0..=1.
    pub(super) share: f64,
    /// Number of worlds that were drawn.
    pub(super) seeds: usize,
    /// Duration of the command, reading included.
    pub(super) took: Duration,
    /// One row for each metric.
    pub(super) rows: Vec<Row>,
    /// Model of each backend, described.
    pub(super) backends: Vec<Learned>,
    /// Reasons to doubt the model.
    pub(super) caveats: Caveats,
    /// By part of the time: recorded, current, candidate.
    pub(super) parts: [Vec<Part>; 3],
    /// Times of answers as pairs of ms and the share answered within: recorded, current, candidate.
    pub(super) times: [Vec<(f64, f64)>; 3],
}

/// Description of the model of a backend.
pub(super) struct Learned {
    pub id: String,
    pub tier: Tier,
    /// Number of its recorded attempts.
    pub tries: usize,
    /// Number of outages in the recorded time.
    pub outages: usize,
    /// Number of 429s that a limit explains, and of all.
    pub refusals: (usize, usize),
    /// The limit that best explains its 429s, in words.
    pub limit: String,
    /// True if its answers take longer under load.
    pub feels_load: bool,
}

impl BacktestReport {
    /// Recorded settings that the candidate does not know.
    pub fn settings_left_out(&self) -> &[String] {
        &self.caveats.settings_left_out
    }

    /// From what was lived through.
    pub(super) fn new(
        past: &Past,
        model: &Model,
        policies: [&Named; 2],
        lived: &[[Run; 2]],
        skipped: Skipped,
        took: Duration,
    ) -> Self {
        let rows = rows(&past.recorded, past.share, lived);
        let ids = policies.map(|p| p.policy.id().to_string());
        let caveats = Caveats::new(past, model, &ids[0], lived, &rows, skipped);
        let of = |which: usize| lived.iter().map(|l| &l[which].stats).collect::<Vec<_>>();
        let (current, candidate) = (of(0), of(1));
        let recorded = [&past.recorded];
        Self {
            policies: policies.map(|p| (p.name.clone(), p.policy.id().to_string())),
            exchanges: past.arrivals.len(),
            face: past.face,
            until: past.arrivals.last().map_or(past.face.start, |arrival| arrival.at),
            share: past.share,
            seeds: lived.len(),
            took,
            rows,
            backends: learned(past, model),
            caveats,
            parts: [&recorded[..], &current, &candidate].map(|tallies| mean_parts(tallies, past.share)),
            times: [&recorded[..], &current, &candidate].map(answered_within),
        }
    }

    /// Returns the row of a metric.
    pub(super) fn row(&self, metric: Metric) -> &Row {
        self.rows.iter().find(|row| row.metric == metric).expect("there is a row for every metric")
    }
}

fn mean_parts(tallies: &[&ExchangeStats], share: f64) -> Vec<Part> {
    let mut mean = vec![Part::default(); super::results::PARTS];
    let scale = 1.0 / (tallies.len() as f64 * share);
    for (sum, part) in tallies.iter().flat_map(|stats| mean_places(&stats.parts)).map(|(i, part)| (i, *part)) {
        let sum = &mut mean[sum];
        sum.lanes.iter_mut().zip(part.lanes).for_each(|(sum, more)| *sum += more * scale);
        sum.spend_usd += part.spend_usd * scale;
        sum.rate_limited += part.rate_limited * scale;
    }
    mean
}

fn mean_places(parts: &[Part]) -> impl Iterator<Item = (usize, &Part)> {
    parts.iter().enumerate()
}

/// The distribution function of the times, at steps that grow by a twentieth.
fn answered_within(tallies: &[&ExchangeStats]) -> Vec<(f64, f64)> {
    let mut all = tallies.first().map(|stats| stats.times.clone());
    for stats in tallies.iter().skip(1) {
        if let Some(all) = &mut all {
            // They have the same bounds.
            let _ = all.add(&stats.times);
        }
    }
    let Some(all) = all.filter(|all| !all.is_empty()) else { return Vec::new() };
    let (mut points, mut ms) = (Vec::new(), 1.0f64);
    loop {
        let within = all.count_between(0, ms as u64) as f64 / all.len() as f64;
        if within > 0.0 {
            points.push((ms, within));
        }
        if within >= 1.0 {
            return points;
        }
        ms *= 1.05;
    }
}

fn learned(past: &Past, model: &Model) -> Vec<Learned> {
    let one = |(backend, place): (&pointsman_core::table::Backend, &super::model::BackendModel)| {
        let series = &place.whole;
        let of_weather = series.outages.calm.iter().chain(&series.outages.bad);
        let unexplained = of_weather.filter(|t| t.kind == pointsman_core::outcome::Kind::RateLimited).count();
        let explained = series.refused.len();
        Learned {
            id: backend.id.to_string(),
            tier: backend.tier,
            tries: place.tries,
            outages: series.outages.spells.len(),
            refusals: (explained, explained + unexplained),
            limit: match &place.limits {
                Limits::Unseen if place.tries == 0 => "never used".to_owned(),
                Limits::Unseen => format!("none seen; took up to {} a minute", place.busiest_minute),
                Limits::Shared(limit) => words(limit),
                Limits::OfModels(limits) => {
                    let of = |(model, limit): &(u16, Limit)| {
                        format!("{}: {}", past.models[usize::from(*model)], words(limit))
                    };
                    limits.iter().map(of).collect::<Vec<_>>().join("; ")
                }
            },
            feels_load: series.pace.feels_load,
        }
    };
    past.setup.table.backends.iter().zip(&model.backends).map(one).collect()
}

fn words(limit: &Limit) -> String {
    let (least, most) = (limit.least, limit.most.max(limit.least));
    let many = if least == most { format!("{least}") } else { format!("{least} to {most}") };
    let span = |span: Duration| match span.as_secs() {
        60 => "a minute".to_owned(),
        1 => "a second".to_owned(),
        3_600 => "an hour".to_owned(),
        86_400 => "a day".to_owned(),
        seconds => format!("in {seconds} s"),
    };
    let limit_words = match limit.counts {
        Counts::RequestsWithin(time) => format!("{many} requests {}", span(time)),
        Counts::RequestsSince(time) => format!("{many} requests {}, by the clock", span(time)),
        Counts::TokensWithin(time) => format!("{many} tokens {}", span(time)),
        Counts::UnderWay => format!("{many} requests at a time"),
    };
    match limit.says {
        Says::AsSeen => limit_words,
        Says::UntilRoom { .. } => limit_words + ", and says when there is room",
    }
}

/// Formats a value in its unit.
fn shown(unit: Unit, value: f64) -> String {
    shown_like(unit, value, value)
}

/// A number for people, in the grain in which another one is shown.
fn shown_like(unit: Unit, value: f64, like: f64) -> String {
    let like = like.abs();
    match unit {
        Unit::Share => format!("{:.2} %", value * 100.0),
        Unit::Ms if like >= 100_000.0 => format!("{:.0} s", value / 1e3),
        Unit::Ms if like >= 10_000.0 => format!("{:.1} s", value / 1e3),
        Unit::Ms if like >= 1_000.0 => format!("{:.2} s", value / 1e3),
        Unit::Ms => format!("{value:.0} ms"),
        Unit::Count => grouped(value),
        Unit::Mean => format!("{value:.3}"),
        Unit::Usd if like >= 100.0 => format!("${}", grouped(value)),
        Unit::Usd if like >= 1.0 => format!("${value:.2}"),
        Unit::Usd => format!("${value:.4}"),
    }
}

/// Half an interval, in the grain of its mean; of a share, without its unit.
fn shown_reach(unit: Unit, estimate: super::stats::Estimate) -> String {
    let reach = shown_like(unit, estimate.high - estimate.mean, estimate.mean);
    reach.trim_end_matches(" %").trim_end_matches(" ms").trim_end_matches(" s").trim_start_matches('$').to_owned()
}

/// With its sign; of shares, in points.
fn shown_difference(unit: Unit, value: f64) -> String {
    let sign = if value < 0.0 { "−" } else { "+" };
    let shown = shown(unit, value.abs());
    let shown = if unit == Unit::Share { shown.replace(" %", " pt") } else { shown };
    format!("{sign}{shown}")
}

/// A whole number, in groups of three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = if number <= -0.5 { "-".to_owned() } else { String::new() };
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::stats::Estimate;
    use super::*;

    #[test]
    fn numbers_are_shown_in_the_grain_that_fits() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!((grouped(999.0), grouped(-1_000.0), grouped(0.0)), ("999".into(), "-1,000".into(), "0".into()));
        assert_eq!(shown(Unit::Ms, 16_249.0), "16.2 s");
        assert_eq!(shown_difference(Unit::Share, -0.0448), "−4.48 pt");
        let reach = |unit, mean, reach| shown_reach(unit, Estimate { mean, low: mean - reach, high: mean + reach });
        assert_eq!(reach(Unit::Ms, 16_249.0, 68.0), "0.1");
        assert_eq!(reach(Unit::Usd, 28.17, 0.3569), "0.36");
        assert_eq!(reach(Unit::Share, 0.5, 0.0056), "0.56");
    }
}
