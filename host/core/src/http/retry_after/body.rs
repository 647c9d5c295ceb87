//! Wishes to be left alone that stand in bodies: members of the error, and sentences in its message.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;

use super::forms::{decimal, reset, sane, units};
use super::hints::{RateHints, explicit};
use crate::http::json;
use crate::rfc3339;
use crate::time::Timestamp;

/// Members that hold a wish, with the seconds of their unit; text in them may also be a duration or a date.
const MEMBERS: [(&str, f64); 10] = [
    ("retryDelay", 1.0),
    ("retry_after_ms", 1e-3),
    ("retry_after_seconds", 1.0),
    ("retry_after", 1.0),
    ("retryAfter", 1.0),
    ("retry-after", 1.0),
    ("resets_in_seconds", 1.0),
    ("resets_at", 1.0),
    ("reset_at", 1.0),
    ("estimated_time", 1.0),
];

/// Words before a duration, in lower case.
const BEFORE_DURATION: [&str; 10] = [
    "try again in ",
    "try again after ",
    "retry in ",
    "retry after ",
    "retrying in ",
    "wait ",
    "wait for ",
    "available in ",
    "resets in ",
    "reset in ",
];

/// Words before a point in time, in lower case.
const BEFORE_TIME: [&str; 8] = [
    "try again at ",
    "try again after ",
    "retry at ",
    "retry after ",
    "resets at ",
    "reset at ",
    "until ",
    "resets on ",
];

/// The wish of a body: a member such as `retryDelay` or `retry_after`, the provider's headers that a router repeats
/// (OpenRouter's `metadata.headers`), or a sentence such as "Please try again in 6m0.5s".
pub(super) fn wait(status: u16, body: &[u8], now: Timestamp) -> Option<Duration> {
    MEMBERS
        .iter()
        .find_map(|(name, scale)| in_member(body, name, *scale, now))
        .or_else(|| in_headers(status, body, now))
        .or_else(|| in_words(body, now))
}

/// The value of a member, wherever in the body it stands.
fn in_member(body: &[u8], name: &str, scale: f64, now: Timestamp) -> Option<Duration> {
    let quoted = format!("\"{name}\"");
    let rest = &body[memmem::find(body, quoted.as_bytes())? + quoted.len()..];
    let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let (is_text, rest) = rest.strip_prefix(b"\"").map_or((false, rest), |rest| (true, rest));
    let is_of_value = |byte: &&u8| byte.is_ascii_alphanumeric() || b".:+-".contains(byte);
    let value = std::str::from_utf8(&rest[..rest.iter().take_while(is_of_value).count()]).ok()?;
    match decimal(value, scale) {
        // Seconds since 1970 are no duration.
        Some(wish) if scale >= 1.0 && wish.as_secs() >= 1_000_000_000 => reset(value, now),
        Some(wish) => Some(wish),
        None if name.starts_with("reset") && value.parse::<f64>().is_ok() => reset(value, now),
        None => is_text.then(|| units(value).or_else(|| sane(rfc3339::parse(value)?.since(now))))?,
    }
}

/// The headers that a router repeats in `error.metadata.headers`.
fn in_headers(status: u16, body: &[u8], now: Timestamp) -> Option<Duration> {
    let error = json::member(body, "error").unwrap_or(body);
    let told = json::member(json::member(error, "metadata").unwrap_or(error), "headers")?;
    let mut headers = HeaderMap::new();
    for (name, value) in json::members(told).take(32) {
        let (name, value) = (HeaderName::from_bytes(name), json::text(value));
        if let (Ok(name), Some(Ok(value))) = (name, value.map(|value| HeaderValue::from_str(&value))) {
            headers.insert(name, value);
        }
    }
    explicit(&headers, now).or_else(|| RateHints::parse(&headers, now).wait(status == 429))
}

fn in_words(body: &[u8], now: Timestamp) -> Option<Duration> {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    let behind = |words: &'static str| text.match_indices(words).map(move |(at, _)| at + words.len());
    let durations = BEFORE_DURATION.iter().flat_map(|words| behind(words));
    let found = durations.filter_map(|at| spoken(&text[at..])).next();
    found.or_else(|| {
        let times = BEFORE_TIME.iter().flat_map(|words| behind(words));
        times.filter_map(|at| sane(spoken_time(&text[at..])?.since(now))).next()
    })
}

/// A duration at the beginning of a text: "6m0.5s", "20ms.", "about 5 minutes", "1 minute and 30 seconds". A number alone is
/// anyone's guess.
fn spoken(text: &str) -> Option<Duration> {
    let words = text.split([' ', ',', '"', '\u{a0}']).filter(|word| !word.is_empty() && *word != "and");
    let words = words.skip_while(|word| ["about", "approximately", "another", "at", "least", "~"].contains(word));
    let words: Vec<&str> =
        words.take(MAX_WORDS).map(|word| word.trim_end_matches(|c: char| !c.is_alphanumeric())).collect();
    (1..=words.len()).rev().find_map(|length| units(&words[..length].join(" ")))
}

/// Words of the longest duration that is read: "2 hours 5 minutes 30 seconds".
const MAX_WORDS: usize = 6;

/// A point in time at the beginning of a text: `2025-01-31T12:00:00Z`, also with a space in its middle and `UTC` behind it.
fn spoken_time(text: &str) -> Option<Timestamp> {
    let text = text.to_ascii_uppercase();
    let is_of_time = |c: char| c.is_ascii_digit() || "-:.TZ+".contains(c);
    let (date, rest) = text.split_at(text.find(|c: char| !is_of_time(c)).unwrap_or(text.len()));
    let date = date.trim_end_matches('.');
    if date.contains('T') {
        return rfc3339::parse(date);
    }
    let rest = rest.strip_prefix(' ')?;
    let time = rest[..rest.find(|c: char| !is_of_time(c)).unwrap_or(rest.len())].trim_end_matches('.');
    let zone = if time.ends_with('Z') || time.contains('+') { "" } else { "Z" };
    rfc3339::parse(&format!("{date}T{time}{zone}"))
}

/// Time until a daily quota that Google names as used up is whole again: its `quotaId` has `PerDay`, and its day begins at
/// midnight Pacific time (https://ai.google.dev/gemini-api/docs/rate-limits).
pub(super) fn day_quota_wait(body: &[u8], now: Timestamp) -> Option<Duration> {
    let mut rest = body;
    while let Some(at) = memmem::find(rest, b"\"quotaId\"") {
        rest = &rest[at + b"\"quotaId\"".len()..];
        let value = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
        let value = &value[..memchr::memchr(b'"', value).unwrap_or(value.len())];
        if memmem::find(value, b"PerDay").is_some() {
            return sane(next_pacific_midnight(now)?.since(now));
        }
    }
    None
}

/// The next midnight of the Pacific coast of the United States. Daylight saving time is from the second Sunday of March to
/// the first of November, at two in the morning (Energy Policy Act of 2005).
fn next_pacific_midnight(now: Timestamp) -> Option<Timestamp> {
    let pacific = jiff::tz::TimeZone::posix("PST8PDT,M3.2.0,M11.1.0").ok()?;
    let now = jiff::Timestamp::from_millisecond(i64::try_from(now.as_millis()).ok()?).ok()?;
    let midnight = now.to_zoned(pacific).tomorrow().ok()?.start_of_day().ok()?;
    u64::try_from(midnight.timestamp().as_millisecond()).ok().map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-05T00:00:00Z
    const NOW: Timestamp = Timestamp::from_millis(1_767_571_200_000);

    fn wish(body: &str) -> Option<u64> {
        wait(429, body.as_bytes(), NOW).map(|wish| wish.as_millis() as u64)
    }

    #[test]
    fn members_of_bodies_are_read_in_their_unit() {
        for (body, expected_ms) in [
            (r#"{"error":{"details":[{"retryDelay":"17s"}]}}"#, Some(17_000)),
            (r#"{"error":{"retry_after": 12}}"#, Some(12_000)),
            (r#"{"retry_after_ms":250}"#, Some(250)),
            (r#"{"retry_after":"2.5"}"#, Some(2_500)),
            (r#"{"retry_after":"1m"}"#, Some(60_000)),
            (r#"{"error":{"metadata":{"retry_after_seconds":30}}}"#, Some(30_000)),
            (r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":90}}"#, Some(90_000)),
            (r#"{"error":{"resets_at":1767571260}}"#, Some(60_000)),
            (r#"{"error":{"reset_at":"2026-01-05T00:01:00Z"}}"#, Some(60_000)),
            (r#"{"error":"Model x is currently loading","estimated_time":20.0}"#, Some(20_000)),
            (r#"{"retry_after":null}"#, None),
            (r#"{"retry_after":"soon"}"#, None),
            (r#"{"retry_after":-3}"#, None),
        ] {
            assert_eq!(wish(body), expected_ms, "{body}");
        }
    }

    #[test]
    fn a_routers_copy_of_the_headers_counts_like_the_headers() {
        let body = r#"{"error":{"message":"Rate limit exceeded: free-models-per-day","code":429,"metadata":{"headers":
            {"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1767571500000"}}}}"#;
        assert_eq!(wish(body), Some(300_000));
        assert_eq!(wish(r#"{"error":{"metadata":{"headers":{"Retry-After":7}}}}"#), Some(7_000));
    }

    #[test]
    fn sentences_are_read_with_their_unit() {
        for (text, expected_ms) in [
            ("Please try again in 6m0.5s. Visit", Some(360_500)),
            ("Please retry in 34.074824224s.", Some(34_074)),
            ("Please retry after 26 seconds.", Some(26_000)),
            ("Please wait 1 minute and 30 seconds before", Some(90_000)),
            ("Try again in about 2 hours", Some(7_200_000)),
            ("try again in 20ms", Some(20)),
            ("Your limit resets in 5 minutes.", Some(300_000)),
            ("try again at 2026-01-05T00:00:30Z", Some(30_000)),
            ("blocked until 2026-01-05 00:02:00 UTC", Some(120_000)),
            ("Please wait and try again", None),
            ("retry after 20", None),
            ("wait for the operator", None),
        ] {
            assert_eq!(wish(&format!(r#"{{"error":{{"message":"{text}"}}}}"#)), expected_ms, "{text}");
        }
    }

    #[test]
    fn a_quota_of_the_day_lasts_until_midnight_pacific() {
        let body = |id: &str| {
            format!(r#"{{"error":{{"details":[{{"violations":[{{"quotaId": "{id}"}}]}},{{"retryDelay":"9s"}}]}}}}"#)
        };
        let day = body("GenerateRequestsPerDayPerProjectPerModel-FreeTier");
        assert_eq!(day_quota_wait(day.as_bytes(), NOW), Some(Duration::from_secs(8 * 3_600)));
        let minute = body("GenerateRequestsPerMinutePerProjectPerModel-FreeTier");
        assert_eq!(day_quota_wait(minute.as_bytes(), NOW), None);
        let both = format!("{minute}{day}");
        assert!(day_quota_wait(both.as_bytes(), NOW).is_some());
    }

    #[test]
    fn midnight_pacific_moves_with_daylight_saving_time() {
        for (now, midnight) in [
            ("2026-01-05T07:59:59Z", "2026-01-05T08:00:00Z"),
            ("2026-01-05T08:00:00Z", "2026-01-06T08:00:00Z"),
            ("2026-07-01T12:00:00Z", "2026-07-02T07:00:00Z"),
            // It begins on 2026-03-08 and ends on 2026-11-01.
            ("2026-03-08T09:00:00Z", "2026-03-09T07:00:00Z"),
            ("2026-03-07T12:00:00Z", "2026-03-08T08:00:00Z"),
            ("2026-11-01T08:00:00Z", "2026-11-02T08:00:00Z"),
            ("2026-10-31T12:00:00Z", "2026-11-01T07:00:00Z"),
        ] {
            assert_eq!(next_pacific_midnight(rfc3339::parse(now).unwrap()), rfc3339::parse(midnight), "{now}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_not(
            body in r#"("retry_after"|"retryDelay"|"quotaId"|"headers"|"metadata"|[{}":, a-zA-Z0-9.\\-]){0,20}"#,
            text in "(try again in |wait |until |[0-9]{1,20}|[a-z .]){0,8}",
            now: u64,
        ) {
            let now = Timestamp::from_micros(now);
            for body in [body.as_bytes(), text.as_bytes()] {
                for wish in [wait(429, body, now), day_quota_wait(body, now)].into_iter().flatten() {
                    prop_assert!(wish < super::super::LONGEST_HINT);
                }
            }
        }
    }
}
