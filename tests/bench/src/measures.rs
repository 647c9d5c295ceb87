//! Everything that is measured, in the order of the table, beside what is aimed for.

/// The goal of a measure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    /// At most this many times bare.
    RatioAtMost(f64),
    /// At most this much more than bare.
    MoreAtMost(f64),
    /// At most this.
    AtMost(f64),
    /// Only told.
    None,
}

/// A measure and its goal.
#[derive(Clone, Debug)]
pub(crate) struct Measure {
    /// The measure, with its unit.
    pub what: String,
    /// Its goal.
    pub aim: Aim,
}

/// Rates of the open loop, requests a second.
pub(crate) const RATES: [u32; 4] = [2_000, 8_000, 16_000, 24_000];

/// Bodies beside the usual one of 1 KiB, bytes, and what they are called.
pub(crate) const BODIES: [(usize, &str); 2] = [(20_000, "20 KB"), (200_000, "200 KB")];

/// Idle connections while memory is measured.
pub(crate) const IDLE: [usize; 2] = [1_000, 10_000];

/// Measures of one round.
pub(crate) fn of_round() -> Vec<Measure> {
    let mut all = vec![
        measure("CPU per 1 KiB request, saturated, µs", Aim::RatioAtMost(1.35)),
        measure("requests/s, 64 connections", Aim::None),
        measure("share of its core used meanwhile", Aim::None),
    ];
    for rate in RATES {
        let aims = match rate {
            2_000 => [Aim::None, Aim::MoreAtMost(15.0), Aim::None],
            8_000 => [Aim::RatioAtMost(1.2), Aim::MoreAtMost(15.0), Aim::MoreAtMost(100.0)],
            16_000 => [Aim::RatioAtMost(1.2), Aim::None, Aim::None],
            _ => [Aim::RatioAtMost(1.2), Aim::None, Aim::MoreAtMost(100.0)],
        };
        let whats = ["CPU per request, µs", "p50, µs", "p99, µs"];
        all.extend(whats.iter().zip(aims).map(|(what, aim)| measure(&format!("at {rate}/s: {what}"), aim)));
        all.push(measure(&format!("at {rate}/s: p99.9, µs"), Aim::None));
    }
    all.extend(BODIES.map(|(_, name)| measure(&format!("CPU per request of {name}, µs"), Aim::RatioAtMost(1.3))));
    all.extend([
        measure("1,000 paced streams: CPU per event, µs", Aim::RatioAtMost(1.0)),
        measure("1,000 paced streams: first event p50, µs", Aim::MoreAtMost(30.0)),
        measure("1,000 paced streams: transit p99, µs", Aim::RatioAtMost(1.0)),
        measure("32 streams without pause: CPU per event, µs", Aim::RatioAtMost(1.1)),
    ]);
    all
}

/// Measures of memory, taken once of a fresh process.
pub(crate) fn of_memory() -> Vec<Measure> {
    let mut all = vec![measure("idle memory, MiB", Aim::AtMost(18.0))];
    all.extend(IDLE.map(|count| measure(&format!("{count} idle connections, MiB over idle"), Aim::None)));
    all.push(measure("1,000 streams, MiB over idle", Aim::AtMost(30.0)));
    all
}

fn measure(what: &str, aim: Aim) -> Measure {
    Measure { what: what.to_owned(), aim }
}
