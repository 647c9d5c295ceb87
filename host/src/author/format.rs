//! Decisions and amounts as people read them.

use std::time::Duration;

use pointsman_core::contract::{Decision, Dispatch};
use pointsman_core::table::{Lane, Table};

/// A decision in words, backends and models by name.
pub(super) fn decision(decision: &Decision, table: &Table) -> String {
    match decision {
        Decision::Primary(d) => dispatch(Lane::Primary, d, table),
        Decision::Fallback(d) => dispatch(Lane::Fallback, d, table),
        Decision::Emergency(d) => dispatch(Lane::Emergency, d, table),
        Decision::Wait(hold) => format!("wait {}, at most {} ms", hold.lane.as_str(), hold.max.as_millis()),
        Decision::Reject(r) if r.status == 0 => "reject (all pools exhausted)".to_owned(),
        Decision::Reject(r) => format!("reject {} {}: {}", r.status, r.kind, r.message),
    }
}

fn dispatch(lane: Lane, dispatch: &Dispatch, table: &Table) -> String {
    let backend = dispatch.backend.and_then(|index| table.backends.get(index as usize));
    let backend = backend.map_or("(the host chooses)", |backend| &*backend.id);
    let model = dispatch.model.and_then(|index| table.models.get(index as usize));
    let model = model.map_or(String::new(), |model| format!(" as {model}"));
    format!("{} {backend}{model}", lane.as_str())
}

/// Bytes with a unit that keeps the number short.
pub(super) fn bytes(bytes: usize) -> String {
    const KIB: f64 = 1024.0;
    let n = bytes as f64;
    match n {
        n if n < KIB => format!("{bytes} bytes"),
        n if n < KIB * KIB => format!("{:.1} KiB", n / KIB),
        n => format!("{:.1} MiB", n / KIB / KIB),
    }
}

/// A time with a unit that keeps the number short.
pub(super) fn time(time: Duration) -> String {
    let us = micros(time);
    match us {
        us if us < 1_000.0 => format!("{us:.2} µs"),
        us if us < 1_000_000.0 => format!("{:.1} ms", us / 1_000.0),
        us => format!("{:.1} s", us / 1_000_000.0),
    }
}

/// Converts to microseconds with a fraction.
pub(super) fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1_000.0
}

/// The time that so many percent of these do not exceed; zero of none.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use pointsman_core::contract::{Hold, Rejection};
    use pointsman_engine::sample;

    use super::*;

    #[test]
    fn decisions_name_lane_backend_and_model() {
        let table = sample::table(4);
        let to = |backend, model| Dispatch { backend, model, ..Dispatch::default() };
        let words = |d| decision(&d, &table);
        assert_eq!(words(Decision::Primary(to(Some(1), None))), "primary backend-1");
        assert_eq!(words(Decision::Fallback(to(Some(3), Some(1)))), "fallback backend-3 as llama-8b");
        assert_eq!(words(Decision::Emergency(to(None, None))), "emergency (the host chooses)");
        let hold = Hold { max: Duration::from_millis(70), lane: Lane::Primary };
        assert_eq!(words(Decision::Wait(hold)), "wait primary, at most 70 ms");
        let rejection = |status| Rejection { status, kind: "x".into(), message: "y".into(), retry_after: None };
        assert_eq!(words(Decision::Reject(rejection(0))), "reject (all pools exhausted)");
        assert_eq!(words(Decision::Reject(rejection(402))), "reject 402 x: y");
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!((bytes(900).as_str(), bytes(90_000).as_str()), ("900 bytes", "87.9 KiB"));
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(time(Duration::from_nanos(420)), "0.42 µs");
        assert_eq!(time(Duration::from_micros(1_250)), "1.2 ms");
        assert_eq!(time(Duration::from_millis(2_500)), "2.5 s");
    }

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_micros).collect();
        assert_eq!(percentile(&times, 50), Duration::from_micros(51));
        assert_eq!(percentile(&times, 99), Duration::from_micros(100));
        assert_eq!(percentile(&times[..1], 99), Duration::from_micros(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
