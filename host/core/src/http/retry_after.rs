//! Retry-After, in every form that providers use for it.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};
use memchr::memmem;

use crate::time::Timestamp;
use crate::{duration, rfc3339};

/// A longer wish is taken for garbage.
pub const LONGEST_HINT: Duration = Duration::from_secs(400 * 24 * 3_600);

/// Reads wishes to be left alone.
pub enum RetryAfter {}

impl RetryAfter {
    /// The upstream's wish, most explicit form first: `retry-after-ms`, `retry-after` (seconds or a date), the body's
    /// `retryDelay` or "try again in", then the resets of limits that are used up (on a 429: of any limit).
    ///
    /// Garbage, negative and overlong values are as if absent; a moment that has passed is zero.
    pub fn parse(status: u16, headers: &HeaderMap, body: Option<&[u8]>, now: Timestamp) -> Option<Duration> {
        explicit(headers, now)
            .or_else(|| body.and_then(in_body))
            .or_else(|| RateHints::parse(headers, now).wait(status == 429))
    }
}

fn explicit(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    if let Some(wish) = text("retry-after-ms").and_then(|v| decimal(v, 1e-3)) {
        return Some(wish);
    }
    let value = text(RETRY_AFTER.as_str())?;
    decimal(value, 1.0).or_else(|| {
        let at = httpdate::parse_http_date(value).ok()?;
        // The upstream's own clock, where it tells it: ours may be wrong.
        let date = text(DATE.as_str()).and_then(|d| httpdate::parse_http_date(d).ok());
        let from = date.or_else(|| UNIX_EPOCH.checked_add(Duration::from_micros(now.as_micros())))?;
        sane(at.duration_since(from).unwrap_or_default())
    })
}

/// Google's `"retryDelay": "17s"` and OpenAI's "Please try again in 1m2.5s".
fn in_body(body: &[u8]) -> Option<Duration> {
    let after = |words: &[u8]| memmem::find(body, words).map(|at| &body[at + words.len()..]);
    let delay = after(b"\"retryDelay\"").map(|rest| {
        let start = rest.iter().position(|b| !matches!(b, b' ' | b':' | b'"' | b'\n' | b'\r' | b'\t'));
        &rest[start.unwrap_or(rest.len())..]
    });
    let rest = delay.or_else(|| after(b"try again in "))?;
    let end = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'.').count();
    let word = std::str::from_utf8(&rest[..end]).ok()?.trim_end_matches('.');
    // A bare number would be anyone's guess: "try again in 5 minutes".
    word.ends_with(|c: char| c.is_ascii_alphabetic()).then(|| units(word))?
}

/// One limit as the upstream tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// The limit. Providers do not agree on its window (minute, day), so rely on the other two.
    pub limit: Option<u64>,
    /// Units left of the limit.
    pub remaining: Option<u64>,
    /// Until it is whole again.
    pub reset: Option<Duration>,
}

impl Hint {
    /// So much is left, until then; none where the upstream did not tell both.
    pub fn left_until(&self, now: Timestamp) -> Option<(u32, Timestamp)> {
        Some((u32::try_from(self.remaining?).unwrap_or(u32::MAX), now + self.reset?))
    }
}

/// Rate limits as the upstream's headers describe them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateHints {
    /// Requests.
    pub requests: Hint,
    /// Tokens.
    pub tokens: Hint,
}

impl RateHints {
    /// Reads `x-ratelimit-{limit,remaining,reset}[-{requests,tokens}][-minute]` and
    /// `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}` in one pass; of several
    /// token limits the one with the least remaining counts.
    pub fn parse(headers: &HeaderMap, now: Timestamp) -> Self {
        let mut hints = Self::default();
        let mut by_direction = [Hint::default(); 2];
        for (name, value) in headers {
            let name = name.as_str();
            let (slot, field) = if let Some(rest) = name.strip_prefix("x-ratelimit-") {
                let rest = rest.strip_suffix("-minute").unwrap_or(rest);
                match rest.split_once('-') {
                    None | Some((_, "requests")) => (&mut hints.requests, rest.split('-').next().unwrap_or(rest)),
                    Some((field, "tokens")) => (&mut hints.tokens, field),
                    Some(_) => continue,
                }
            } else if let Some(rest) = name.strip_prefix("anthropic-ratelimit-") {
                match rest.rsplit_once('-') {
                    Some(("requests", field)) => (&mut hints.requests, field),
                    Some(("tokens", field)) => (&mut hints.tokens, field),
                    Some(("input-tokens", field)) => (&mut by_direction[0], field),
                    Some(("output-tokens", field)) => (&mut by_direction[1], field),
                    Some(_) | None => continue,
                }
            } else {
                continue;
            };
            let Ok(value) = value.to_str() else { continue };
            match field {
                "limit" => slot.limit = value.trim().parse().ok(),
                "remaining" => slot.remaining = decimal_u64(value.trim()),
                "reset" => slot.reset = reset(value.trim(), now),
                _ => {}
            }
        }
        for hint in by_direction {
            let tighter = hint.remaining.is_some_and(|left| hints.tokens.remaining.is_none_or(|known| left < known));
            if tighter || hints.tokens == Hint::default() {
                hints.tokens = hint;
            }
        }
        hints
    }

    /// Until the limits that are used up are whole again. With `refused`, when no limit is known to be used up, the
    /// sooner reset of those told: one of them must have been the reason.
    pub fn wait(&self, refused: bool) -> Option<Duration> {
        let both = [self.requests, self.tokens];
        let used_up = both.iter().filter(|h| h.remaining == Some(0)).filter_map(|h| h.reset).max();
        used_up.or_else(|| if refused { both.iter().filter_map(|h| h.reset).min() } else { None })
    }
}

/// A limit's reset: RFC 3339, a Go duration, seconds, or seconds or milliseconds since the epoch.
fn reset(text: &str, now: Timestamp) -> Option<Duration> {
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
fn decimal(text: &str, scale: f64) -> Option<Duration> {
    seconds(plain_decimal(text)? * scale)
}

fn plain_decimal(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain { text.parse().ok() } else { None }
}

fn decimal_u64(text: &str) -> Option<u64> {
    // "-1" and "0.0" occur in the wild; what is below zero is nothing left.
    let number: f64 = text.parse().ok()?;
    number.is_finite().then_some(number as u64)
}

fn seconds(seconds: f64) -> Option<Duration> {
    // Cut to microseconds, so that 0.3 does not come out as 299.999999 ms.
    let micros = (seconds * 1e6).round();
    (micros >= 0.0 && micros < LONGEST_HINT.as_micros() as f64).then(|| Duration::from_micros(micros as u64))
}

/// A duration with its units, as "6m0s".
fn units(text: &str) -> Option<Duration> {
    duration::parse(text).and_then(sane)
}

fn sane(duration: Duration) -> Option<Duration> {
    (duration < LONGEST_HINT).then_some(duration)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    /// 2025-01-31 12:00:00 UTC.
    const NOW: Timestamp = Timestamp::from_millis(1_738_324_800_000);

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), HeaderValue::from_str(v).unwrap())).collect()
    }

    fn wish(pairs: &[(&str, &str)]) -> Option<u64> {
        RetryAfter::parse(429, &headers(pairs), None, NOW).map(|d| u64::try_from(d.as_millis()).unwrap())
    }

    #[test]
    fn every_form_of_retry_after() {
        for (name, value, expected_ms) in [
            ("retry-after-ms", "1500", Some(1_500)),
            ("retry-after-ms", "0.5", Some(0)),
            ("retry-after", "0", Some(0)),
            ("retry-after", "107", Some(107_000)),
            ("retry-after", " 2.5 ", Some(2_500)),
            ("retry-after", "Fri, 31 Jan 2025 12:01:00 GMT", Some(60_000)),
            ("retry-after", "Fri, 31 Jan 2025 11:59:00 GMT", Some(0)),
            ("retry-after", "Friday, 31-Jan-25 12:01:00 GMT", Some(60_000)),
            ("retry-after", "-1", None),
            ("retry-after", "soon", None),
            ("retry-after", "", None),
            ("retry-after", "1e5", None),
            ("retry-after", "inf", None),
            ("retry-after", "NaN", None),
            ("retry-after", "1.2.3", None),
            ("retry-after", "99999999999999999999999", None),
            ("retry-after-ms", "-20", None),
        ] {
            assert_eq!(wish(&[(name, value)]), expected_ms, "{name}: {value}");
        }
    }

    #[test]
    fn milliseconds_go_before_seconds_and_both_before_resets() {
        assert_eq!(wish(&[("retry-after", "9"), ("retry-after-ms", "8500")]), Some(8_500));
        assert_eq!(wish(&[("retry-after", "9"), ("x-ratelimit-reset-requests", "1s")]), Some(9_000));
        assert_eq!(wish(&[("retry-after", "bad"), ("x-ratelimit-reset-requests", "1s")]), Some(1_000));
    }

    #[test]
    fn a_date_is_measured_by_the_upstreams_clock() {
        let pairs = [("retry-after", "Fri, 31 Jan 2025 13:00:30 GMT"), ("date", "Fri, 31 Jan 2025 13:00:00 GMT")];
        assert_eq!(wish(&pairs), Some(30_000));
    }

    #[test]
    fn resets_in_every_form() {
        for (name, value, expected_ms) in [
            ("x-ratelimit-reset-requests", "1s", Some(1_000)),
            ("x-ratelimit-reset-tokens", "6m0s", Some(360_000)),
            ("x-ratelimit-reset-tokens", "20ms", Some(20)),
            ("x-ratelimit-reset-tokens", "1h2m3.5s", Some(3_723_500)),
            ("x-ratelimit-reset-requests", "12", Some(12_000)),
            ("x-ratelimit-reset", "30", Some(30_000)),
            ("x-ratelimit-reset", "1738324860", Some(60_000)),
            ("x-ratelimit-reset", "1738324860500", Some(60_500)),
            ("x-ratelimit-reset", "1738324800", Some(0)),
            ("x-ratelimit-reset-tokens-minute", "7", Some(7_000)),
            ("anthropic-ratelimit-requests-reset", "2025-01-31T12:00:05Z", Some(5_000)),
            ("anthropic-ratelimit-tokens-reset", "2025-01-31T13:00:05.25+01:00", Some(5_250)),
            ("anthropic-ratelimit-input-tokens-reset", "2025-01-31T06:30:00-05:30", Some(0)),
            ("anthropic-ratelimit-tokens-reset", "2025-02-30T12:00:00Z", None),
            ("anthropic-ratelimit-tokens-reset", "2025-13-01T12:00:00Z", None),
            ("x-ratelimit-reset-requests", "5x", None),
            ("x-ratelimit-reset-requests", "s", None),
            ("x-ratelimit-reset-requests", "-3s", None),
            ("x-ratelimit-reset-requests", "999999999h", None),
        ] {
            assert_eq!(wish(&[(name, value)]), expected_ms, "{name}: {value}");
        }
    }

    #[test]
    fn the_reset_that_counts_is_that_of_the_limit_used_up() {
        let pairs = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "9s"),
            ("x-ratelimit-remaining-tokens", "50"),
            ("x-ratelimit-reset-tokens", "1s"),
        ];
        assert_eq!(wish(&pairs), Some(9_000));
        assert_eq!(wish(&pairs[1..]), Some(1_000));
        assert_eq!(RetryAfter::parse(500, &headers(&pairs[1..]), None, NOW), None);
        assert_eq!(RetryAfter::parse(500, &headers(&pairs), None, NOW), Some(Duration::from_secs(9)));
    }

    #[test]
    fn wishes_in_bodies() {
        for (body, expected_ms) in [
            (r#"[{"error":{"details":[{"@type":"x.RetryInfo","retryDelay": "17s"}]}}]"#, Some(17_000)),
            (r#"{"retryDelay":"3.5s"}"#, Some(3_500)),
            (r#"{"error":{"message":"Limit reached. Please try again in 6m0.5s. Visit"}}"#, Some(360_500)),
            (r#"{"error":{"message":"try again in 20ms."}}"#, Some(20)),
            ("try again in 5 minutes", None),
            ("try again in a while", None),
            (r#"{"retryDelay":"#, None),
            ("", None),
        ] {
            let found = RetryAfter::parse(429, &HeaderMap::new(), Some(body.as_bytes()), NOW);
            assert_eq!(found.map(|d| d.as_millis()), expected_ms, "{body}");
        }
    }

    #[test]
    fn hints_of_both_families() {
        let hints = RateHints::parse(
            &headers(&[
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-remaining-requests", "59"),
                ("x-ratelimit-limit-tokens", "150000"),
                ("x-ratelimit-remaining-tokens", "-1"),
                ("x-ratelimit-reset-tokens", "6m0s"),
                ("x-ratelimit-limit-requests-day", "7"),
            ]),
            NOW,
        );
        assert_eq!(hints.requests, Hint { limit: Some(60), remaining: Some(59), reset: None });
        assert_eq!(
            hints.tokens,
            Hint { limit: Some(150_000), remaining: Some(0), reset: Some(Duration::from_secs(360)) }
        );
        let hints = RateHints::parse(
            &headers(&[
                ("anthropic-ratelimit-requests-remaining", "4"),
                ("anthropic-ratelimit-input-tokens-remaining", "900"),
                ("anthropic-ratelimit-output-tokens-remaining", "10"),
                ("anthropic-ratelimit-output-tokens-limit", "8000"),
            ]),
            NOW,
        );
        assert_eq!(hints.requests.remaining, Some(4));
        assert_eq!(hints.tokens, Hint { limit: Some(8_000), remaining: Some(10), reset: None });
    }

    proptest! {
        #[test]
        fn never_panics_and_never_exceeds_its_bound(
            name in prop::sample::select(vec![
                "retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-reset-tokens",
                "anthropic-ratelimit-tokens-reset", "date",
            ]),
            value in prop_oneof!["[ -~]{0,40}", "[0-9.hmsdTZ:+-]{0,40}", "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.0-9Z+:-]{0,8}"],
            body in prop_oneof!["\"retryDelay\":\"[0-9.a-z]{0,9}\"", "try again in \\PC{0,12}"],
            now: u64,
        ) {
            let found = RetryAfter::parse(429, &headers(&[(name, &value)]), Some(body.as_bytes()), Timestamp::from_micros(now));
            prop_assert!(found.is_none_or(|d| d < LONGEST_HINT));
        }

        #[test]
        fn whole_seconds_come_back_as_they_went(n in 0u64..30_000_000) {
            prop_assert_eq!(wish(&[("retry-after", &n.to_string())]), Some(n * 1_000));
        }
    }
}
