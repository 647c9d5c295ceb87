//! Points in time as people write them (RFC 3339).

use std::fmt;

use jiff::civil;

use crate::duration;
use crate::time::Timestamp;

/// Shows a point in time in UTC with milliseconds: `2026-01-15T10:30:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc3339(pub Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX);
        // What is after the year 9999 is shown as its end.
        let at = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{at:.3}")
    }
}

/// Reads `2026-01-15T10:30:00Z`, with any fraction and offset, or without seconds, or a plain date (its midnight UTC);
/// none when it is anything else or before 1970.
pub fn parse(text: &str) -> Option<Timestamp> {
    let midnight = |date: civil::Date| date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|midnight| midnight.timestamp());
    let at = match text.len() {
        DATE_LENGTH => midnight(text.parse().ok()?)?,
        _ => text.parse().ok()?,
    };
    u64::try_from(at.as_microsecond()).ok().map(Timestamp::from_micros)
}

/// Bytes of `YYYY-MM-DD`.
const DATE_LENGTH: usize = 10;

/// Error text for input that [`parse_or_ago`] does not read.
pub const NOT_UNDERSTOOD: &str = "is not understood; write how long ago (90s, 30m, 24h, 7d), \
     a time (2026-01-31T12:00:00Z) or seconds since 1970";

/// A point in time (as [`parse`], or seconds since 1970), or how long before `now` (`90s`, `30m`, `24h`, `7d`).
pub fn parse_or_ago(text: &str, now: Timestamp) -> Option<Timestamp> {
    let ago = || duration::parse(text).map(|ago| now - ago);
    let epoch = || text.parse::<u64>().ok()?.checked_mul(1_000).map(Timestamp::from_millis);
    ago().or_else(epoch).or_else(|| parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_and_reads_the_same_point() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_768_473_000_123, "2026-01-15T10:30:00.123Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Rfc3339(Timestamp::from_millis(millis)).to_string(), text);
            assert_eq!(parse(text), Some(Timestamp::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn offsets_fractions_and_plain_dates_are_read() {
        let noon = parse("2026-01-15T12:00:00Z");
        assert_eq!(parse("2026-01-15T14:30:00+02:30"), noon);
        assert_eq!(parse("2026-01-14 22:00:00.000000000-14:00"), noon);
        assert_eq!(parse("2026-01-15T00:00:00Z"), parse("2026-01-15"));
        assert_eq!(parse("2026-01-15T14:30+0230"), noon);
        assert_eq!(parse("1970-01-01T00:00:00.5Z"), Some(Timestamp::from_micros(500_000)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-02-30",
            "2026-13-01",
            "26-01-01",
            "2026-01-15T25:00:00Z",
            "2026-01-15T10:00:00",
            "2026-01-15T10:00:00.Z",
            "1969-12-31T23:59:59Z",
            "é",
            "2026-01-15T1é:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
