//! Durations as people and providers write them.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Reads a number and a unit, or several (`300ms`, `1.5s`, `6m0s`, `24h`, `7d`), or ISO 8601 (`PT30S`), to the microsecond;
/// a day has 24 hours. `None`: anything else, units above weeks, or less than nothing.
pub fn parse(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let duration = Duration::try_from(span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?).ok()?;
    Some(Duration::from_micros(u64::try_from(duration.as_micros()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_summed_and_fractions_kept() {
        for (text, micros) in [
            ("20ms", 20_000),
            ("1.5s", 1_500_000),
            ("6m0s", 360_000_000),
            ("2m59.56s", 179_560_000),
            ("1h2m3.5s", 3_723_500_000),
            ("1d", 86_400_000_000),
            ("2 min", 120_000_000),
            ("250\u{b5}s", 250),
            ("PT30S", 30_000_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "s", "10", "-5s", "1.5", "5 s ago", "1y", "99999999999999999999h", "1..5s", "1.s.", "5x"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
