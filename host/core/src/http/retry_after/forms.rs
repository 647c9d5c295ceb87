//! Durations and points in time, in the forms that providers write.

use std::time::Duration;

use crate::time::Timestamp;
use crate::{duration, rfc3339};

/// A longer wish is taken for garbage.
pub const LONGEST_HINT: Duration = Duration::from_secs(400 * 24 * 3_600);

/// A limit's reset: RFC 3339, a Go duration, seconds, or seconds or milliseconds since the epoch.
pub(super) fn reset(text: &str, now: Timestamp) -> Option<Duration> {
    const EPOCH_SECONDS: f64 = 1e9;
    const EPOCH_MILLIS: f64 = 1e12;
    if let Some(number) = plain_decimal(text) {
        let now = now.as_micros() as f64 / 1e6;
        return if number >= EPOCH_MILLIS {
            seconds((number / 1e3 - now).max(0.0))
        } else if number >= EPOCH_SECONDS {
            seconds((number - now).max(0.0))
        } else {
            seconds(number)
        };
    }
    units(text).or_else(|| rfc3339::parse(text).and_then(|at| sane(at.since(now))))
}

/// A number of units of `scale` seconds: digits with at most one point, nothing else.
pub(super) fn decimal(text: &str, scale: f64) -> Option<Duration> {
    seconds(plain_decimal(text)? * scale)
}

pub(super) fn plain_decimal(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain { text.parse().ok() } else { None }
}

pub(super) fn decimal_u64(text: &str) -> Option<u64> {
    // "-1" and "0.0" occur in the wild; what is below zero is nothing left.
    let number: f64 = text.parse().ok()?;
    number.is_finite().then_some(number as u64)
}

pub(super) fn seconds(seconds: f64) -> Option<Duration> {
    // Cut to microseconds, so that 0.3 does not come out as 299.999999 ms.
    let micros = (seconds * 1e6).round();
    (micros >= 0.0 && micros < LONGEST_HINT.as_micros() as f64).then(|| Duration::from_micros(micros as u64))
}

/// A duration with its units, as "6m0s" or "5 minutes".
pub(super) fn units(text: &str) -> Option<Duration> {
    duration::parse(text).and_then(sane)
}

pub(super) fn sane(duration: Duration) -> Option<Duration> {
    (duration < LONGEST_HINT).then_some(duration)
}
