//! For machines. What is here stays; new keys may come.

use pointsman_core::rfc3339::Rfc3339;
use serde_json::{Value, json as value};

use super::super::metrics::Row;
use super::super::results::Part;
use super::super::stats::Estimate;
use super::{BacktestReport, Learned};

/// The version of the shape.
const VERSION: u32 = 1;

/// The report as JSON: `version`, `journal`, `policies`, `seeds`, `metrics` (by name: recorded, current, candidate, difference),
/// `calibration`, `unknown`, `backends`, `series` (parts of the time, in its order).
pub fn json(report: &BacktestReport) -> Value {
    let BacktestReport { policies: [current, candidate], caveats, .. } = report;
    let policy = |(name, revision): &(String, String)| value!({"name": name, "revision": revision});
    let metrics = report.rows.iter().map(|row| (row.metric.names().0.to_owned(), metric(row)));
    let guesses = |which: usize| {
        let g = caveats.guesses[which];
        value!({"at_unknown_backends": g.unknown, "without_evidence_within_a_minute": g.far, "beyond_seen_rates": g.beyond})
    };
    value!({
        "version": VERSION,
        "journal": {
            "exchanges": report.exchanges,
            "from": Rfc3339(report.face.start).to_string(),
            "to": Rfc3339(report.until).to_string(),
            "sample": report.share,
            "other_setups": caveats.other_setups,
            "other_revisions": caveats.other_revisions,
            "unreadable_trails": caveats.skipped.trails,
        },
        "policies": {"current": policy(current), "candidate": policy(candidate)},
        "settings_left_out": caveats.settings_left_out,
        "seeds": report.seeds,
        "took_s": report.took.as_secs_f64(),
        "metrics": metrics.collect::<serde_json::Map<_, _>>(),
        "calibration": {
            "lane_share_off": caveats.lanes_off,
            "spend_off": caveats.spend_off,
            "times_off": caveats.times_off,
            "is_within_5_percent": !caveats.is_off(),
        },
        "unknown": {
            "current": guesses(0),
            "candidate": guesses(1),
            "backends_never_used": caveats.unknown_backends,
            "backends_without_known_limit": caveats.unlimited_backends,
            "attempts_ended_by_own_time_limits": caveats.timed_out,
            "sentences": caveats.sentences(),
        },
        "backends": report.backends.iter().map(backend).collect::<Vec<_>>(),
        "series": {
            "part_ms": report.face.part.as_millis() as u64,
            "recorded": parts(&report.parts[0]),
            "current": parts(&report.parts[1]),
            "candidate": parts(&report.parts[2]),
        },
    })
}

fn metric(row: &Row) -> Value {
    let estimate = |e: Estimate| value!({"mean": e.mean, "low": e.low, "high": e.high});
    let mut difference = estimate(row.difference);
    difference["significant"] = row.difference.is_not_zero().into();
    difference["better"] = row.is_better().into();
    value!({
        "recorded": row.recorded,
        "current": estimate(row.current),
        "candidate": estimate(row.candidate),
        "difference": difference,
    })
}

fn backend(learned: &Learned) -> Value {
    let (explained, refusals) = learned.refusals;
    value!({
        "id": learned.id,
        "tier": learned.tier.as_str(),
        "attempts": learned.tries,
        "outages": learned.outages,
        "rate_limited": refusals,
        "rate_limited_explained": explained,
        "limit": learned.limit,
        "slower_under_load": learned.feels_load,
    })
}

fn parts(parts: &[Part]) -> Value {
    let each = |of: fn(&Part) -> f64| parts.iter().map(of).collect::<Vec<f64>>();
    value!({
        "primary": each(|p| p.lanes[0]),
        "fallback": each(|p| p.lanes[1]),
        "emergency": each(|p| p.lanes[2]),
        "none": each(|p| p.lanes[3]),
        "spend_usd": each(|p| p.spend_usd),
        "rate_limited": each(|p| p.rate_limited),
    })
}
