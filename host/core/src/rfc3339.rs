//! Points in time as people write them (RFC 3339).

use std::fmt;
use std::time::Duration;

use crate::time::Timestamp;

const DAY_S: i64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01 in the proleptic Gregorian calendar.
const EPOCH_DAY: i64 = 719_468;
/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;

/// Shows a point in time in UTC with milliseconds: `2026-01-15T10:30:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc3339(pub Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let seconds = i64::try_from(millis / 1_000).unwrap_or(i64::MAX);
        let (year, month, day) = date(seconds.div_euclid(DAY_S));
        let of_day = seconds.rem_euclid(DAY_S);
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", millis % 1_000)
    }
}

/// Reads `2026-01-15T10:30:00Z`, with any fraction and offset, or a plain date (its midnight UTC); none when it is
/// anything else or before 1970.
pub fn parse(text: &str) -> Option<Timestamp> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let days = parse_date(date)?;
    let micros_of_day = time.map_or(Some(0), parse_time)?;
    let micros = days.checked_mul(DAY_S * 1_000_000)?.checked_add(micros_of_day)?;
    u64::try_from(micros).ok().map(Timestamp::from_micros)
}

/// Error text for input that [`parse_or_ago`] does not read.
pub const NOT_UNDERSTOOD: &str = "is not understood; write how long ago (90s, 30m, 24h, 7d), \
     a time (2026-01-31T12:00:00Z) or seconds since 1970";

/// A point in time (as [`parse`], or seconds since 1970), or how long before `now` (`90s`, `30m`, `24h`, `7d`).
pub fn parse_or_ago(text: &str, now: Timestamp) -> Option<Timestamp> {
    let ago = || -> Option<Timestamp> {
        let unit_s: u64 = match text.as_bytes().last()? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            _ => return None,
        };
        let amount: u64 = text[..text.len() - 1].parse().ok()?;
        Some(now - Duration::from_secs(amount.checked_mul(unit_s)?))
    };
    let epoch = || text.parse::<u64>().ok()?.checked_mul(1_000).map(Timestamp::from_millis);
    ago().or_else(epoch).or_else(|| parse(text))
}

/// Days since 1970 of `YYYY-MM-DD`.
fn parse_date(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let known = parts.next().is_none() && (1..=12).contains(&month) && (1..=31).contains(&day);
    let days = day_number(year, month, day);
    // The thirtieth of February comes back as another date.
    (known && date(days) == (year, month, day)).then_some(days)
}

/// Microseconds since midnight UTC of `hh:mm:ss[.fraction](Z|±hh:mm)`.
fn parse_time(text: &str) -> Option<i64> {
    let zone = text.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = (text.get(..zone)?, text.get(zone..)?);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let (hour, minute, second) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = hour * 3_600 + minute * 60 + second - parse_offset(zone)?;
    Some(seconds * 1_000_000 + parse_fraction(fraction)?)
}

/// Parses an offset into seconds east of Greenwich.
fn parse_offset(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// Microseconds of the digits after the point.
fn parse_fraction(text: &str) -> Option<i64> {
    digits(text, text.len())?;
    let padded: String = text.chars().chain("000000".chars()).take(6).collect();
    padded.parse().ok()
}

/// A number of exactly `length` digits, at least one.
fn digits(text: &str, length: usize) -> Option<i64> {
    let plain = text.len() == length && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // Only the first digits of an endless fraction are looked at.
    if plain { text.get(..length.min(18))?.parse().ok() } else { None }
}

/// The date of a day since 1970. Years are counted from March here, so that the leap day is a year's last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAY;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let leap_corrected = day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / (ERA_DAYS - 1);
    let year_of_era = leap_corrected / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, five months have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The day since 1970 of a date.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * ERA_DAYS + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - EPOCH_DAY
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
    fn every_day_of_two_centuries_comes_back() {
        for day in 0..73_000 {
            let (year, month, day_of_month) = date(day);
            assert_eq!(day_number(year, month, day_of_month), day);
        }
    }

    #[test]
    fn offsets_fractions_and_plain_dates_are_read() {
        let noon = parse("2026-01-15T12:00:00Z");
        assert_eq!(parse("2026-01-15T14:30:00+02:30"), noon);
        assert_eq!(parse("2026-01-14 22:00:00.000000000-14:00"), noon);
        assert_eq!(parse("2026-01-15T00:00:00Z"), parse("2026-01-15"));
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
            "2026-01-15T10:00Z",
            "2026-01-15T10:00:00",
            "2026-01-15T10:00:00.Z",
            "1969-12-31T23:59:59Z",
            "2026-01-15T10:00:00+0200",
            "é",
            "2026-01-15T1é:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
